"""BatchStorage on PostgreSQL by Optuna's own suite of storage tests, and what a batch promises there."""

from __future__ import annotations

from collections.abc import Iterator

import optuna
import pytest
from optuna.storages import BaseStorage
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import TrialState

from mfas_optuna.storage import BatchStorage, batch, open_storage

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture
def storage(postgres_url: str) -> Iterator[BatchStorage]:
    storage = open_storage(postgres_url)
    yield storage
    storage.engine.dispose()


class TestOnPostgres(StorageTestCase):
    @pytest.fixture
    def storage(self, postgres_url: str) -> Iterator[BaseStorage]:
        storage = open_storage(postgres_url)
        yield storage
        storage.engine.dispose()

    # Its copy of the storage leaves connections open.
    test_pickle_storage = None


def test_a_batch_is_seen_whole(storage: BatchStorage, postgres_url: str) -> None:
    mine = optuna.create_study(storage=storage, study_name="s", sampler=optuna.samplers.RandomSampler(seed=0))
    other = open_storage(postgres_url)
    theirs = optuna.load_study(storage=other, study_name="s")
    with batch(mine):
        trial = mine.ask()
        trial.suggest_float("x", 0, 1)
        assert theirs.trials == []
        mine.tell(trial, 0.5)
    assert [(trial.state, trial.value) for trial in theirs.trials] == [(TrialState.COMPLETE, 0.5)]
    other.engine.dispose()
