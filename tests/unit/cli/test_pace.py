"""Pace and time left of long work, on a clock of the test's own."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mfas_optuna.cli import view as views
from mfas_optuna.cli.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def follow(pace: Pace, clock: Clock, what: str, total: int, *news: tuple[float, int]) -> None:
    """Tell the pace how far the work is, each after some seconds."""
    for seconds, done in news:
        clock.now += seconds
        pace.add(what, done, total)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(clock)


def test_pace(pace: Pace, clock: Clock) -> None:
    follow(pace, clock, "audio", 1000, (0, 10), (1, 110), (3, 410))
    assert pace.per_second == pytest.approx(100)


def test_what_an_interrupted_run_did_is_no_pace(pace: Pace, clock: Clock) -> None:
    follow(pace, clock, "audio", 50_000, (0, 40_000), (4, 40_400))
    assert pace.per_second == pytest.approx(100)


def test_nothing_is_claimed_at_the_beginning_or_without_progress(pace: Pace, clock: Clock) -> None:
    assert pace.per_second is None
    follow(pace, clock, "audio", 1000, (0, 10), (1, 500))
    assert pace.per_second is None
    follow(pace, clock, "image", 1000, (0, 10), (60, 10))
    assert pace.per_second is None


@pytest.mark.parametrize(("what", "total", "done"), [("image", 1000, 500), ("audio", 900, 500), ("audio", 1000, 499)])
def test_other_work_begins_anew(pace: Pace, clock: Clock, what: str, total: int, done: int) -> None:
    follow(pace, clock, "audio", 1000, (0, 0), (5, 500))
    follow(pace, clock, what, total, (5, done))
    assert pace.per_second is None
    follow(pace, clock, what, total, (10, done + 10))
    assert pace.per_second == pytest.approx(1)


def test_the_pace_is_that_of_the_last_half_minute(pace: Pace, clock: Clock) -> None:
    follow(pace, clock, "audio", 10**6, (0, 0))
    for second in range(100):
        for part in range(10):
            follow(pace, clock, "audio", 10**6, (0.1, 1000 * second + 100 * part))
    for second in range(40):
        follow(pace, clock, "audio", 10**6, (1, 100_000 + 10 * second))
    assert pace.per_second == pytest.approx(10)


def test_what_a_person_sees(clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(views.time, "monotonic", clock)
    monkeypatch.setattr(views, "Pace", lambda: Pace(clock))
    plain = views.PlainView()
    live = views.LiveView(Console(file=io.StringIO(), width=120))
    for seconds, done in ((0, 10_000), (5, 11_500), (6, 13_200)):
        clock.now += seconds
        plain.progress("audio features, train", done, 50_000)
        live.progress("audio features, train", done, 50_000)
    assert capsys.readouterr().err == "  audio features, train: 13200/50000, 291/s, 2:06 left\n"
    console = Console(file=io.StringIO(), width=120)
    console.print(live._draw())
    assert "13200/50000, 291/s, 2:06 left" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("rate", "expected"), [(1450, "1450/s"), (4, "4.0/s"), (0.05, "0.050/s")])
def test_slow_and_fast_work(pace: Pace, clock: Clock, rate: float, expected: str) -> None:
    follow(pace, clock, "x", 100_000, (0, 0), (20, round(20 * rate)))
    assert f", {expected}, " in views._standing(round(20 * rate), 100_000, pace)
