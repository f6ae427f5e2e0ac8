"""`status --watch` in a terminal, and while its database is away."""

from __future__ import annotations

import signal
import threading
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from mfas_optuna import storage as database
from mfas_optuna import trials as records
from mfas_optuna.errors import StorageError
from mfas_optuna.spec import find_study, load_spec
from mfas_optuna.worker.request import SearchRequest
from mfas_optuna.worker.status import watch_status

from ..e2e.conftest import COMMAND
from ..postgres import PostgresServer
from ..terminal import Terminal

SPEC = load_spec(find_study("digits"))


def make_study(url: str, n_trials: int) -> None:
    opened = database.open_storage(url)
    study = optuna.create_study(storage=opened, study_name="digits-random", direction="maximize")
    spec = SPEC.with_search(sampler="random", mode=None, seed=None, n_trials=None)
    records.write_study(study, scientific=spec.scientific(), fingerprint=spec.fingerprint())
    for number in range(n_trials):
        score = number / 1000
        shown = {records.ARCHITECTURE: "[(1,1,1),(2,1,2)]", records.N_PARAMETERS: 1000}
        study.add_trial(optuna.trial.create_trial(value=score, user_attrs=shown))
    opened.engine.dispose()


def request(url: str, patience_s: float) -> SearchRequest:
    made = SearchRequest.of("digits", storage=url, sampler="random", home=Path("unused"))
    return replace(made, patience_s=patience_s)


def test_a_database_that_is_away_for_a_moment_is_waited_for(postgres: PostgresServer) -> None:
    url = postgres.url(postgres.new_database())
    make_study(url, 3)
    back: list[threading.Timer] = []

    def outage(_seconds: float) -> None:
        postgres.stop("immediate")
        back.append(threading.Timer(1.0, postgres.start))
        back[0].start()

    looks = watch_status(request(url, 60.0), 1.0, outage)
    assert next(looks).n_by_state == {"COMPLETE": 3}
    assert next(looks).n_by_state == {"COMPLETE": 3}
    looks.close()
    back[0].join()


def test_a_database_that_stays_away_is_an_error(postgres: PostgresServer) -> None:
    url = postgres.url(postgres.new_database())
    make_study(url, 3)
    looks = watch_status(request(url, 0.2), 1.0, lambda _seconds: postgres.stop("immediate"))
    next(looks)
    try:
        with pytest.raises(StorageError, match="the study database failed"):
            next(looks)
    finally:
        postgres.start()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_study(f"sqlite:///{tmp_path / 'mfas.db'}", 3)
    return tmp_path


def watching(folder: Path, *options: str, columns: int = 80) -> Terminal:
    command = [COMMAND, "status", "--study", "digits", "--sampler", "random", "--watch", *options]
    return Terminal([*command, "--storage", f"sqlite:///{folder / 'mfas.db'}"], columns=columns, folder=folder)


def test_in_a_terminal_it_is_drawn_in_place_until_ctrl_c(folder: Path) -> None:
    terminal = watching(folder, "--every", "0.1")
    try:
        terminal.wait_for("Study digits-random: not finished, 3 of ")
        study = optuna.load_study(study_name="digits-random", storage=f"sqlite:///{folder / 'mfas.db'}")
        study.add_trial(optuna.trial.create_trial(value=0.5, user_attrs={records.ARCHITECTURE: "[(2,2,2)]"}))
        terminal.wait_for("not finished, 4 of ")
        terminal.wait_for("[(2,2,2)]")
        assert sum("Study digits-random" in line for line in terminal.everything) == 1
        terminal.press(b"\x03")
        assert terminal.wait() == 128 + signal.SIGINT
        assert "Stopped." in terminal.display[terminal.display.index("") - 1]
        assert any("[(2,2,2)]" in line for line in terminal.display)
    finally:
        terminal.close()


def test_it_ends_with_the_study_and_leaves_its_result(folder: Path) -> None:
    study = optuna.load_study(study_name="digits-random", storage=f"sqlite:///{folder / 'mfas.db'}")
    for _ in range(SPEC.n_trials_planned()):
        study.add_trial(optuna.trial.create_trial(value=0.5, user_attrs={records.ARCHITECTURE: "[(2,2,2)]"}))
    terminal = watching(folder)
    try:
        assert terminal.wait() == 0
        assert sum(": finished, " in line for line in terminal.everything) == 1
        assert not any("Ctrl-C" in line for line in terminal.everything)
    finally:
        terminal.close()
