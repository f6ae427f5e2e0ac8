"""BatchStorage by Optuna's own suite of storage tests: outside a batch, and with a whole test as one batch."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.storages import BaseStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import TrialState

from mfas_optuna.storage import BatchStorage, Patience, batch, open_storage, reports

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


class TestOutsideABatch(StorageTestCase):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> BaseStorage:
        return open_storage(f"sqlite:///{tmp_path / 'mfas.db'}")


class TestCachedOutsideABatch(StorageTestCase):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> BaseStorage:
        return _CachedStorage(open_storage(f"sqlite:///{tmp_path / 'mfas.db'}"))


class TestWithinABatch(StorageTestCase):
    """Everything that a test does, in one transaction that is committed at its end."""

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[BaseStorage]:
        storage = open_storage(f"sqlite:///{tmp_path / 'mfas.db'}")
        study_id = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "locked")
        storage.delete_study(study_id)
        with storage.batch(study_id):
            yield storage

    # Threads of one process, which would wait for the batch's end.
    test_study_user_attrs_concurrent_write = None
    test_study_system_attrs_concurrent_write = None
    # Another process sees what is committed.
    test_pickle_storage = None


class TestCachedWithinABatch(TestWithinABatch):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[BaseStorage]:
        backend = open_storage(f"sqlite:///{tmp_path / 'mfas.db'}")
        assert isinstance(backend, BatchStorage)
        with backend.batch(0):
            yield _CachedStorage(backend)


# What a batch promises besides.


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'mfas.db'}"


def make_study(url: str) -> optuna.Study:
    return optuna.create_study(
        storage=open_storage(url), study_name="s", load_if_exists=True, sampler=optuna.samplers.RandomSampler(seed=0)
    )


def test_others_see_all_of_a_batch_or_nothing(url: str) -> None:
    mine, theirs = make_study(url), make_study(url)
    with batch(mine):
        for _ in range(3):
            trial = mine.ask()
            trial.suggest_float("x", 0, 1)
            trial.set_user_attr("a", 1)
        assert [trial.number for trial in mine.trials] == [0, 1, 2]
        assert theirs.trials == []
    assert theirs.trials == mine.trials
    assert all(trial.user_attrs == {"a": 1} and "x" in trial.params for trial in theirs.trials)


def test_what_fails_leaves_nothing_in_the_database_nor_in_optunas_cache(url: str) -> None:
    study = make_study(url)
    running = study.ask()

    def fail_at_the_end() -> None:
        with batch(study, [running]):
            running.set_user_attr("a", 1)
            study.tell(running, 0.5)
            study.ask()
            assert len(study.trials) == 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_at_the_end()
    (trial,) = study.trials
    assert (trial.state, trial.user_attrs) == (TrialState.RUNNING, {})
    study.tell(running, 0.7)
    assert study.ask().number == 1
    assert make_study(url).trials[0].value == 0.7


def test_a_trial_that_another_process_ended_is_left_as_it_is(url: str) -> None:
    mine, theirs = make_study(url), make_study(url)
    lost, kept = mine.ask(), mine.ask()
    theirs.tell(lost.number, state=TrialState.FAIL)
    with batch(mine, [lost, kept]):
        with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
            lost.set_user_attr("a", 1)
        mine.tell(lost, 0.1, skip_if_finished=True)
        mine.tell(kept, 0.2)
    assert [trial.state for trial in theirs.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    assert theirs.trials[0].user_attrs == {}


def test_other_threads_are_not_in_the_batch(url: str) -> None:
    study = make_study(url)
    study.ask()
    backend = study._storage._backend  # type: ignore[attr-defined]
    seen: list[int] = []
    with batch(study):
        study.ask()
        thread = threading.Thread(target=lambda: seen.append(len(backend.get_all_trials(study._study_id))))
        thread.start()
        thread.join()
    assert seen == [1]


def test_a_batch_within_a_batch_is_refused(url: str) -> None:
    study = make_study(url)
    with batch(study), pytest.raises(RuntimeError, match="no batch within a batch"), batch(study):
        pass
    study.ask()
    assert len(study.trials) == 1


def test_a_storage_without_batches_does_each_thing_by_itself() -> None:
    study = optuna.create_study()
    with batch(study):
        study.tell(study.ask(), 1.0)
    assert study.best_value == 1.0


def ask_in_batches(url: str, n_batches: int, size: int) -> list[int]:
    study = make_study(url)
    numbers = []
    for _ in range(n_batches):
        with batch(study):
            trials = [study.ask() for _ in range(size)]
        numbers += [trial.number for trial in trials]
        with batch(study, trials):
            for trial in trials:
                study.tell(trial, float(trial.number))
    return numbers


def test_processes_that_ask_in_batches_share_no_number(url: str) -> None:
    make_study(url)
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        found = pool.starmap(ask_in_batches, [(url, 4, 5)] * 3)
    assert sorted(number for numbers in found for number in numbers) == list(range(60))
    assert all(numbers[0] + 4 == numbers[4] for numbers in found)  # A batch's numbers follow each other.
    trials = make_study(url).trials
    assert [trial.number for trial in trials] == list(range(60))
    assert [trial.value for trial in trials] == [float(number) for number in range(60)]


# Reports.


def test_reports_are_written_at_their_end_but_for_trials_that_were_ended_meanwhile(url: str) -> None:
    mine, theirs = make_study(url), make_study(url)
    lost, kept = mine.ask(), mine.ask()
    with reports(mine, [lost, kept]):
        for trial in (lost, kept):
            trial.report(0.5, 1)
        assert [trial.intermediate_values for trial in theirs.trials] == [{}, {}]
        theirs.tell(lost.number, state=TrialState.FAIL)
    assert [trial.intermediate_values for trial in theirs.trials] == [{}, {1: 0.5}]


def test_reports_whose_first_attempt_was_committed_after_all_are_there_once(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(url)
    backend = study._storage._backend  # type: ignore[attr-defined]
    backend.patience = Patience(60)
    trial = study.ask()
    commit, n_commits = sqlalchemy.Connection.commit, 0

    def commit_and_lose_the_answer(self: sqlalchemy.Connection) -> None:
        nonlocal n_commits
        commit(self)
        n_commits += 1
        if n_commits == 1:
            raise sqlalchemy.exc.OperationalError("COMMIT", {}, ConnectionError("the answer was lost"))

    monkeypatch.setattr(sqlalchemy.Connection, "commit", commit_and_lose_the_answer)
    with reports(study, [trial]):
        trial.report(0.5, 1)
        trial.set_user_attr("a", 1)
    assert n_commits == 2
    (stored,) = make_study(url).trials
    assert (stored.intermediate_values, stored.user_attrs) == ({1: 0.5}, {"a": 1})


def test_reports_are_no_place_to_create_or_end_trials(url: str) -> None:
    study = make_study(url)
    trial = study.ask()
    with reports(study, [trial]), pytest.raises(RuntimeError, match="only reports of running trials"):
        study.ask()
    assert len(study.trials) == 1
