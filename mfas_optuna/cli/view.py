"""What a person sees while a search runs: a live view in a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mfas_optuna import trials as records
from mfas_optuna.cli.pace import Pace, clock

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from mfas_optuna.worker.request import Listener

PLAIN_PROGRESS_S = 10.0


class TrialNews:
    """What one ended trial adds to the picture; kept up to date trial by trial."""

    def __init__(self) -> None:
        self.best: float | None = None
        self.best_architecture = ""
        self.n_finished = 0
        self.n_planned = 0
        self.iteration: int | None = None
        self.depth: int | None = None
        self.temperature: float | None = None
        self.n_workers = 1
        self.n_by_failure: dict[str, int] = {}
        self._ended: deque[float] = deque(maxlen=30)

    def begin(self) -> None:
        """Take note that trials may begin now: a group of them ends at once, which is no pace."""
        self._ended.clear()
        self._ended.append(time.monotonic())

    def add(self, study: optuna.Study, trial: FrozenTrial, n_finished: int, n_planned: int) -> None:
        """Take note of a trial that ended."""
        self._ended.append(time.monotonic())
        self.n_finished, self.n_planned = n_finished, n_planned
        self.iteration = trial.user_attrs.get(records.ITERATION)
        self.depth = trial.params.get("depth")
        self.temperature = trial.user_attrs.get(records.TEMPERATURE)
        if self.best is None:
            best = records.best_networks(study.get_trials(deepcopy=False), 1)
            if best:
                self.best, self.best_architecture = best[0].score, best[0].architecture
        elif trial.state.name == "COMPLETE" and trial.value is not None and trial.value > self.best:
            self.best, self.best_architecture = trial.value, trial.user_attrs.get(records.ARCHITECTURE, "")

    def stand(self, n_workers: int, n_by_failure: Mapping[str, int]) -> None:
        """Take note of how the whole study stands."""
        self.n_workers, self.n_by_failure = n_workers, dict(n_by_failure)

    @property
    def per_minute(self) -> float | None:
        """Trials a minute over the last ones, or None at the beginning."""
        if len(self._ended) < 2:
            return None
        return 60 * (len(self._ended) - 1) / max(self._ended[-1] - self._ended[0], 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the planned end at the present pace, or None at the beginning."""
        pace = self.per_minute
        return None if pace is None else 60 * max(0, self.n_planned - self.n_finished) / pace

    def parts(self) -> list[tuple[str, str]]:
        """Return label and value of everything that is known."""
        pace, left = self.per_minute, self.seconds_left
        return [
            ("iteration", "-" if self.iteration is None else str(self.iteration)),
            ("depth", "-" if self.depth is None else str(self.depth)),
            ("T", "-" if self.temperature is None else f"{self.temperature:.2f}"),
            ("best", "-" if self.best is None else f"{self.best:.4f}"),
            ("trials/min", "-" if pace is None else f"{pace:.0f}"),
            ("left", "-" if left is None else clock(left)),
            *([("workers", str(self.n_workers))] if self.n_workers > 1 else []),
        ]


class PlainView:
    """One line for each stage and trial, on standard error; progress of long work every ten seconds."""

    def __init__(self) -> None:
        self._news = TrialNews()
        self._pace = Pace()
        self._last_progress = time.monotonic()

    def say(self, text: str) -> None:
        """Print the text."""
        print(text, file=sys.stderr, flush=True)
        self._last_progress = time.monotonic()
        self._news.begin()

    def progress(self, what: str, done: int, total: int) -> None:
        """Print how far the work is, now and then."""
        self._pace.add(what, done, total)
        now = time.monotonic()
        if now - self._last_progress >= PLAIN_PROGRESS_S:
            self._last_progress = now
            print(f"  {what}: {_standing(done, total, self._pace)}", file=sys.stderr, flush=True)

    def trial_ended(self, study: optuna.Study, trial: FrozenTrial, n_finished: int, n_planned: int) -> None:
        """Print the trial and how the search stands."""
        self._news.add(study, trial, n_finished, n_planned)
        score = f"{trial.value:.4f}" if trial.state.name == "COMPLETE" and trial.value is not None else trial.state.name
        standing = "  ".join(f"{label} {value}" for label, value in self._news.parts())
        notation = trial.user_attrs.get(records.ARCHITECTURE, "")
        print(f"{n_finished}/{n_planned}  {score}  {notation}  | {standing}", file=sys.stderr, flush=True)

    def standing(self, n_workers: int, n_by_failure: Mapping[str, int]) -> None:
        """Keep it for the next trial's line."""
        self._news.stand(n_workers, n_by_failure)


class QuietView:
    """Shows nothing."""

    def standing(self, n_workers: int, n_by_failure: Mapping[str, int]) -> None:
        """Ignore it."""

    def say(self, text: str) -> None:
        """Ignore it."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Ignore it."""

    def trial_ended(self, study: optuna.Study, trial: FrozenTrial, n_finished: int, n_planned: int) -> None:
        """Ignore it."""


class LiveView:
    """Stages as lines that stay, and below them the standing of the search, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._news = TrialNews()
        self._work: tuple[str, int, int] | None = None
        self._pace = Pace()
        self._console = console
        self.live = Live(console=console, refresh_per_second=4, get_renderable=self._draw, transient=True)

    def say(self, text: str) -> None:
        """Print the text above the live part."""
        self._work = None
        self._console.print(Text(text))
        self._news.begin()

    def progress(self, what: str, done: int, total: int) -> None:
        """Draw how far the work is."""
        self._work = (what, done, total)
        self._pace.add(what, done, total)

    def trial_ended(self, study: optuna.Study, trial: FrozenTrial, n_finished: int, n_planned: int) -> None:
        """Draw how the search stands."""
        self._work = None
        self._news.add(study, trial, n_finished, n_planned)

    def standing(self, n_workers: int, n_by_failure: Mapping[str, int]) -> None:
        """Draw how many workers live and why trials failed."""
        self._news.stand(n_workers, n_by_failure)

    def _draw(self) -> Group:
        lines: list[RenderableType] = []
        if self._work is not None:
            what, done, total = self._work
            lines.append(Bar(what, done, total, self._pace))
        if self._news.n_planned:
            lines.append(Bar("trials", self._news.n_finished, self._news.n_planned))
            lines.append(Parts(self._news.parts()))
            if self._news.best_architecture:
                network = self._news.best_architecture.replace("),(", "), (")  # So that it is folded between layers.
                lines.append(Text("best network ", style="dim").append(network, style="bold green"))
            if self._news.n_by_failure:
                reasons = ", ".join(f"{reason} {count}" for reason, count in self._news.n_by_failure.items())
                lines.append(Text(f"failed trials: {reasons}", style="yellow"))
        return Group(*lines)


class Parts:
    """Labels with their values side by side, as many on a line as fit."""

    def __init__(self, parts: Sequence[tuple[str, str]]) -> None:
        self._parts = parts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = Text()
        for label, value in self._parts:
            part = Text(f"{label} ", style="dim").append(value, style="bold")
            if line and len(line) + 2 + len(part) > options.max_width:
                yield line
                line = Text()
            line = (line.append("  ") if line else line).append_text(part)
        if line:
            yield line


class Bar:
    """How far work is, with its numbers, and its pace once there is one; the bar is as long as they leave room for."""

    _LONGEST, _SHORTEST = 30, 8

    def __init__(self, what: str, done: int, total: int, pace: Pace | None = None) -> None:
        self._what, self._done, self._total = what, done, total
        self._pace = pace

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        standing = _standing(self._done, self._total, self._pace)
        room = options.max_width - cell_len(self._what) - cell_len(standing) - 2
        width = min(self._LONGEST, room)
        if width < self._SHORTEST:
            yield Text(f"{self._what} {standing}")
            return
        grid = Table.grid(padding=(0, 1))
        grid.add_row(
            Text(self._what), ProgressBar(total=max(self._total, 1), completed=self._done, width=width), Text(standing)
        )
        yield grid


def _standing(done: int, total: int, pace: Pace | None) -> str:
    """Return how far work is and, once there is a pace, how fast it goes and how long it has left."""
    parts = [f"{done}/{total}"]
    per_second = None if pace is None else pace.per_second
    if per_second is not None:
        digits = 0 if per_second >= 10 else 1 if per_second >= 0.1 else 3
        parts += [f"{per_second:.{digits}f}/s", f"{clock((total - done) / per_second)} left"]
    return ", ".join(parts)


def can_draw(console: Console) -> bool:
    """Return whether what a console writes can be drawn in place: it goes to a terminal that is no dumb one.

    FORCE_COLOR asks for colours in a log, and does not make a terminal of it.
    """
    return console.file.isatty() and console.is_interactive and not console.is_dumb_terminal


@contextlib.contextmanager
def make_view(*, quiet: bool) -> Iterator[Listener]:
    """Give the view that suits where standard error goes."""
    if quiet:
        yield QuietView()
        return
    console = Console(stderr=True, highlight=False)
    if not can_draw(console):
        yield PlainView()
        return
    view = LiveView(console)
    with drawn(view.live):
        yield view


@contextlib.contextmanager
def drawn(live: Live) -> Iterator[None]:
    """Draw a live view; what is logged meanwhile is printed above it."""
    plain = sys.stderr
    handlers = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is plain
    ]
    with live:
        for handler in handlers:
            handler.setStream(sys.stderr)  # The view's own for now, which prints above what is drawn.
        try:
            yield
        finally:
            for handler in handlers:
                handler.setStream(plain)
