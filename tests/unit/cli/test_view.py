"""What is logged while the live view draws, and what is said of the pace of trials."""

from __future__ import annotations

import io
import logging
import sys

import optuna
import pytest

from mfas_optuna.cli import view as cli_view
from mfas_optuna.cli.view import LiveView, TrialNews, make_view


class Terminal(io.StringIO):
    """Standard error as of a terminal."""

    def isatty(self) -> bool:
        return True


def test_log_lines_stand_above_the_live_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each begins a line: before it, the view goes back to the start of what it had drawn and erases it."""
    terminal, log = Terminal(), logging.getLogger("mfas_optuna")
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    try:
        with make_view(quiet=False) as view:
            assert isinstance(view, LiveView)
            view.progress("training 8 networks", 1, 2)
            view.live.refresh()
            log.warning("something is hot")
            shown = terminal.getvalue()
            assert shown[: shown.index("something is hot")].endswith("\x1b[2K")
        log.warning("and after it")
    finally:
        logging.getLogger().removeHandler(handler)
    assert terminal.getvalue().endswith("and after it\n")


def test_a_first_group_that_ends_at_once_has_the_pace_of_its_training(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(cli_view.time, "monotonic", lambda: now)
    news = TrialNews()
    study = optuna.create_study()
    trial = optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL)
    news.begin()
    assert news.per_minute is None
    now = 130.0
    for number in range(1, 16):
        news.add(study, trial, number, 45)
    assert news.per_minute == pytest.approx(30)
    assert news.seconds_left == pytest.approx(60)
