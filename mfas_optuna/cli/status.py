"""`mfas-optuna status`: how far a stored study is, once or again and again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mfas_optuna.cli.options import Json, Mode, Name, Sampler, Seed, Storage, Study, clear_errors, request_of
from mfas_optuna.cli.pace import Pace

if TYPE_CHECKING:
    from mfas_optuna.finals import TestRead
    from mfas_optuna.worker.status import StepStatus, StudyStatus


def status(
    study: Study,
    name: Name = None,
    storage: Storage = None,
    sampler: Sampler = None,
    mode: Mode = None,
    seed: Seed = None,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            "-w",
            help="Go on until the study is over: redrawn in place in a terminal; elsewhere printed again when "
            "something has changed.",
        ),
    ] = False,
    every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between two looks of --watch.")] = 2.0,
    as_json: Json = False,
) -> None:
    """Print how far a stored study is, its best networks, and why trials failed."""
    with clear_errors(as_json=as_json):
        from mfas_optuna.cli.output import make_console
        from mfas_optuna.cli.view import can_draw
        from mfas_optuna.worker.status import status as read_status
        from mfas_optuna.worker.status import watch_status

        request = request_of(study, name=name, storage=storage, sampler=sampler, mode=mode, seed=seed)
        if not watch:
            print_status(read_status(request), as_json=as_json)
            return
        looks = watch_status(request, every)
        if as_json:
            _watch_as_json(looks)
        elif can_draw(make_console()):
            _watch_in_place(looks, every)
        else:
            _watch_as_blocks(looks)


def print_status(status: StudyStatus, *, as_json: bool) -> None:
    """Print how far a stored study is."""
    from mfas_optuna.cli import output

    if as_json:
        output.print_json(as_values(status))
    else:
        _print(output.make_console(), status)


def as_values(status: StudyStatus) -> dict[str, Any]:
    """Return how far a study is as JSON values."""
    from mfas_optuna.cli.output import network_as_json

    return {
        "study": status.study_name,
        "metric": status.metric,
        "is_finished": status.is_finished,
        "n_planned": status.n_planned,
        "trials": status.n_by_state,
        "failures": status.n_by_failure,
        "steps": [
            {
                "iteration": step.iteration,
                "depth": step.depth,
                "n_finished": step.n_finished,
                "n_running": step.n_running,
                "temperature": step.temperature,
                "best": step.best,
                "mean": step.mean,
                "surrogate": None if step.surrogate is None else asdict(step.surrogate),
            }
            for step in status.steps
        ],
        "best": [network_as_json(network) for network in status.best],
        "backbones": status.backbones,
        "timings_s": status.timings_s,
        "warnings": status.warnings,
        "stand_in": status.stand_in,
        "data_card": status.card,
        "workers": [
            {"host": of.worker.host, "pid": of.worker.pid, "last_beat_s": round(of.age_s, 1)} for of in status.workers
        ],
        "test_reads": [asdict(entry) for entry in status.ledger],
    }


def _print(console: Console, status: StudyStatus) -> None:
    from mfas_optuna.cli import output
    from mfas_optuna.cli.pace import clock

    output.print_stand_in(console, status.stand_in)
    console.print(_headline(status))
    for modality, record in status.backbones.items():
        scores = {"validation": record["validation_score"], "test": record["test_score"]}
        console.print(Text(output.alone(modality, record.get("task"), status.metric, **scores)))
    console.print(_counts(status))
    if status.workers:
        console.print(Text(f"Workers: {len(status.workers)}"))
        for of in status.workers:
            console.print(Text(f"  {of.worker.host}, process {of.worker.pid}, last sign of life {of.age_s:.0f} s ago"))
    for reason, count in status.n_by_failure.items():
        console.print(Text(f"  failed, {reason}: {count}"))
    if status.steps:
        console.print(steps_table(status.steps))
    if any(step.surrogate is not None for step in status.steps):
        console.print(surrogate_table(status.steps))
    for warning in status.warnings:
        console.print(Text(f"Warning: {warning}", style="yellow"), soft_wrap=not console.is_terminal)
    if status.best:
        console.print(output.best_table(status.best, status.metric))
    for line in _test_reads(status.ledger):
        console.print(Text(line))
    if status.timings_s:
        stages = ", ".join(f"{stage} {clock(seconds)}" for stage, seconds in status.timings_s.items())
        console.print(Text(f"Time: {stages}"), style="dim")


def steps_table(steps: Sequence[StepStatus]) -> Table:
    """Return how far the steps of a schedule are, as a table."""
    table = Table(show_edge=False, pad_edge=False)
    for heading in ("iteration", "depth", "T", "finished", "running", "mean", "best"):
        table.add_column(heading, justify="right", min_width=len(heading))
    for step in steps:
        table.add_row(
            str(step.iteration),
            str(step.depth),
            "-" if step.temperature is None else f"{step.temperature:.2f}",
            str(step.n_finished),
            str(step.n_running),
            "-" if step.mean is None else f"{step.mean:.4f}",
            "-" if step.best is None else f"{step.best:.4f}",
        )
    return table


def surrogate_table(steps: Sequence[StepStatus]) -> Table:
    """Return how the surrogate did in the steps whose networks it chose, as a table."""
    table = Table(title="Surrogate", title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    for heading in ("iteration", "depth", "unseen", "rank correlation", "spread", "effective candidates"):
        table.add_column(heading, justify="right", min_width=len(heading))
    for step in steps:
        health = step.surrogate
        if health is not None:
            table.add_row(
                str(step.iteration),
                str(step.depth),
                str(health.n_unseen),
                "-" if health.rank_correlation is None else f"{health.rank_correlation:.2f}",
                f"{health.predicted_std:.4f}",
                Text(
                    f"{health.n_effective:.0f} of {health.n_candidates}",
                    style="yellow" if health.is_near_uniform else "",
                ),
            )
    return table


def _test_reads(ledger: Sequence[TestRead]) -> list[str]:
    """Return how often the test split was read, by purpose."""
    if not ledger:
        return []
    lines = [f"Test split: read {_times(len(ledger))}"]
    for purpose in dict.fromkeys(entry.purpose for entry in ledger):
        times = [entry.time for entry in ledger if entry.purpose == purpose]
        lines.append(f"  {_times(len(times))}, last {times[-1][:16].replace('T', ' ')} UTC: {purpose}")
    return lines


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _n_done(status: StudyStatus) -> int:
    return status.n_by_state.get("COMPLETE", 0) + status.n_by_state.get("PRUNED", 0)


def _headline(status: StudyStatus) -> Text:
    done = _n_done(status)
    state = "finished" if status.is_finished else "not finished"
    return Text(f"Study {status.study_name}: {state}, {done} of {max(done, status.n_planned)} trials", style="bold")


def _counts(status: StudyStatus) -> Text:
    counts = ", ".join(f"{count} {name}" for name, count in status.n_by_state.items())
    return Text(f"Trials: {counts or 'none yet'}")


# Again and again.


def _changes(looks: Iterator[StudyStatus]) -> Iterator[StudyStatus]:
    """Yield what differs from the look before by more than the age of signs of life."""
    before = None
    for look in looks:
        what = (replace(look, workers=[]), [of.worker for of in look.workers])
        if what != before:
            before = what
            yield look


def _watch_as_json(looks: Iterator[StudyStatus]) -> None:
    from mfas_optuna.cli import output

    for look in _changes(looks):
        output.print_json(as_values(look), on_one_line=True)


def _watch_as_blocks(looks: Iterator[StudyStatus]) -> None:
    from mfas_optuna.cli import output

    console = output.make_console()
    for number, look in enumerate(_changes(looks)):
        console.print(Text(("\n" if number else "") + f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"))
        _print(console, look)
        console.file.flush()


def _watch_in_place(looks: Iterator[StudyStatus], every_s: float) -> None:
    """Draw each look over the one before, and print the last one in full once the study is over."""
    from mfas_optuna.cli import output
    from mfas_optuna.cli.view import drawn

    console = output.make_console()
    frame = Frame(every_s)
    live = Live(console=console, auto_refresh=False, get_renderable=lambda: frame, transient=True)
    with drawn(live):
        try:
            for look in looks:
                frame.show(look)
                live.refresh()
        except KeyboardInterrupt:
            live.transient = False  # What was seen last stays.
            raise
    if frame.status is not None:
        _print(console, frame.status)


class Frame:
    """How far a study is, drawn as high as the terminal is: its last steps and its best networks as they fit.

    Attributes:
        status: What is drawn; None before the first look.
    """

    def __init__(self, every_s: float) -> None:
        """Begin with nothing.

        Args:
            every_s: Seconds between two looks.
        """
        self.status: StudyStatus | None = None
        self._every_s = every_s
        self._looked_at = datetime.now(UTC)
        self._pace = Pace()

    def show(self, status: StudyStatus) -> None:
        """Take note of a look."""
        self.status, self._looked_at = status, datetime.now(UTC)
        self._pace.add("trials", _n_done(status), status.n_planned)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from mfas_optuna.cli import output
        from mfas_optuna.cli.view import Bar

        status = self.status
        if status is None:
            return
        done = _n_done(status)
        above: list[RenderableType] = [_headline(status), Bar("trials", done, max(done, status.n_planned), self._pace)]
        if status.stand_in:
            above.insert(0, output.stand_in_text(status.stand_in))
        hosts = Counter(of.worker.host for of in status.workers)
        at = ", ".join(f"{count} at {host}" for host, count in hosts.items())
        above += [_counts(status), Text(f"Workers: {at or 'none'}")]
        above += [Text(f"  failed, {reason}: {count}", style="yellow") for reason, count in status.n_by_failure.items()]
        below = Text(f"{self._looked_at:%H:%M:%S} UTC, every {self._every_s:g} s; Ctrl-C ends it", style="dim")
        n_used = sum(len(console.render_lines(part, options, pad=False)) for part in (*above, below))
        n_steps, n_best = _fitting(console.size.height - 1 - n_used, len(status.steps), len(status.best))
        yield from above
        if n_steps:
            yield steps_table(status.steps[-n_steps:])
        if n_best:
            yield output.best_table(status.best[:n_best], status.metric)
        yield below


_STEPS_HEAD, _BEST_HEAD = 2, 3
"""Lines of a table besides its rows."""


def _fitting(n_lines: int, n_steps: int, n_best: int) -> tuple[int, int]:
    """Return how many rows of the two tables fit into so many lines: half of them for each when both are longer."""
    if n_lines < _STEPS_HEAD + _BEST_HEAD + 2:
        return 0, max(0, min(n_best, n_lines - _BEST_HEAD))
    rows = n_lines - _STEPS_HEAD * (n_steps > 0) - _BEST_HEAD * (n_best > 0)
    fitting_best = min(n_best, max(rows // 2, rows - n_steps))
    return min(n_steps, rows - fitting_best), fitting_best
