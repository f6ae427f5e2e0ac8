"""What is logged while the live view draws, and what is said of the pace of trials."""

from __future__ import annotations

import io
import logging
import sys

import optuna
import pytest
from rich.console import Console, RenderableType

from mfas_optuna import trials as records
from mfas_optuna.cli import view as cli_view
from mfas_optuna.cli.view import Bar, LiveView, PlainView, TrialNews, make_view


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


def test_several_workers_are_counted() -> None:
    news = TrialNews()
    news.stand(1, {})
    assert "workers" not in dict(news.parts())
    news.stand(2, {})
    assert dict(news.parts())["workers"] == "2"


# Widths and kinds of terminals.

LONG_NETWORK = "[" + ",".join(f"({layer},4,3,2)" for layer in range(1, 9)) + "]"


def shown(renderable: RenderableType, width: int) -> list[str]:
    """Return the lines that something comes to in a terminal so wide."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    return ["".join(segment.text for segment in line).rstrip() for line in console.render_lines(renderable, pad=False)]


def busy_view() -> LiveView:
    """A view of a study that has come far, with long words everywhere."""
    view = LiveView(Console(file=io.StringIO(), force_terminal=True))
    study = optuna.create_study(direction="maximize")
    trial = optuna.trial.create_trial(value=0.91234, user_attrs={records.ARCHITECTURE: LONG_NETWORK})
    study.add_trial(trial)
    trial = study.trials[0]
    trial.user_attrs |= {records.ITERATION: 12, records.TEMPERATURE: 10.0}
    view.trial_ended(study, trial, 99_999, 100_000)
    view.standing(128, {"diverged": 1234, "out_of_memory": 12, "its worker ended": 123, "worker_died": 4})
    view.progress("waiting for another process that reads the same data", 12_345, 123_456)
    return view


@pytest.mark.parametrize(("width", "n_lines"), [(80, 7), (160, 5)])
def test_the_live_view_fits_and_splits_no_number_from_its_label(width: int, n_lines: int) -> None:
    lines = shown(busy_view()._draw(), width)
    assert len(lines) == n_lines
    assert max(map(len, lines)) <= width
    for whole in (
        "waiting for another process that reads the same data", "12345/123456", "99999/100000",
        "iteration 12", "T 10.00", "best 0.9123", "workers 128", "diverged 1234", "worker_died 4",
    ):  # fmt: skip
        assert sum(whole in line for line in lines) == 1, whole
    networks = " ".join(lines[lines.index(next(line for line in lines if "best network" in line)) :])
    for layer in LONG_NETWORK[1:-1].replace("),(", ")|(").split("|"):
        assert layer in networks


@pytest.mark.parametrize("width", [20, 40, 80, 160])
def test_a_bar_takes_the_room_that_its_words_leave(width: int) -> None:
    (line, *more) = shown(Bar("extracting features", 50, 100), width)
    assert len(line) <= width
    assert "extracting features" in line
    assert ("━" in line) == (width >= 40)
    assert line.count("━") <= 30
    assert not more or width == 20


@pytest.mark.parametrize(
    ("is_terminal", "environment", "expected"),
    [
        (True, {"TERM": "xterm"}, True),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, True),
        (True, {"TERM": "dumb"}, False),
        (True, {"TERM": "xterm", "TTY_INTERACTIVE": "0"}, False),
        (False, {"TERM": "xterm"}, False),
        (False, {"TERM": "xterm", "FORCE_COLOR": "1"}, False),
    ],
)
def test_only_a_real_terminal_is_drawn_on(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, environment: dict[str, str], expected: bool
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", Terminal() if is_terminal else io.StringIO())
    with make_view(quiet=False) as view:
        assert isinstance(view, LiveView) == expected
        assert isinstance(view, PlainView) != expected
