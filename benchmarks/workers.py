"""How much sooner several workers finish the same schedule than one, on one PostgreSQL.

    python -m benchmarks.workers --study avmnist --home ~/bench --workers 1 2 --repeats 5

Each search is a fresh study of the same settings: data, backbones and features are there before the first begins
(`mfas-optuna prepare`), each worker has one thread, and the numbers of workers are taken in turn, so that what else the
machine does falls on all of them alike. The database is a PostgreSQL of its own, started from the installed programs.

Of each search:

- *schedule*: seconds from the first trial's begin to the last one's end, by the stored trials; over-draws and trials
  given back lie within them, so they count as a cost;
- *whole*: wall-clock seconds of the command, with the start of the processes and the reading of features;
- trials: complete, and of these over-draws;
- best: the best validation score;
- supervision: processor time of the process that supervises the workers, from when they train until they end, beside
  theirs. It is what supervision can cost at most, and hardly depends on what else the machine does.

The ratio is that of one worker's seconds to theirs in the same turn; the median over the turns is what is judged.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna

from benchmarks.report import Verdict, machine, table
from mfas_optuna import trials as records
from mfas_optuna.storage import load_study, open_storage
from tests.postgres import PostgresServer, find_binaries

CLI = [sys.executable, "-m", "mfas_optuna"]
TARGET_OF_TWO = 1.8
TARGET_OF_SUPERVISION = 0.02
START_S = 4.0
"""Processor time that a worker's start takes at most: imports, and reading the features."""
_POLL_S = 0.1


@dataclass(frozen=True)
class Search:
    """What one search took.

    Attributes:
        n_workers: Processes that trained.
        schedule_s: Seconds from the first trial's begin to the last one's end.
        whole_s: Wall-clock seconds of the command.
        n_complete: Complete trials.
        n_over_draws: Of these beyond the slots of their step.
        best: Best validation score.
        supervision: Processor time of the supervisor as a fraction of its workers'.
    """

    n_workers: int
    schedule_s: float
    whole_s: float
    n_complete: int
    n_over_draws: int
    best: float
    supervision: float


def run_search(study: str, url: str, name: str, n_workers: int, options: Sequence[str]) -> Search:
    """Run a search to its end.

    Raises:
        SystemExit: It failed.
    """
    command = [*CLI, "search", "--study", study, "--storage", url, "--name", name, "--quiet", *options]
    if n_workers > 1:
        command += ["--workers", str(n_workers)]
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=output, stderr=output)
        supervision = _supervision(process)
        whole_s = time.perf_counter() - started
        if process.returncode != 0:
            output.seek(0)
            raise SystemExit(f"`{' '.join(command)}` ended with {process.returncode}.\n{output.read()}")
    trials = load_study(open_storage(url), name).get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
    begins = [trial.datetime_start for trial in trials if trial.datetime_start is not None]
    ends = [trial.datetime_complete for trial in complete if trial.datetime_complete is not None]
    proposals = [records.read_proposal(trial.system_attrs) for trial in complete]
    return Search(
        n_workers,
        (max(ends) - min(begins)).total_seconds(),
        whole_s,
        len(complete),
        sum(proposal is not None and proposal.is_over_draw for proposal in proposals),
        max(trial.value for trial in complete if trial.value is not None),
        supervision,
    )


def _supervision(supervisor: subprocess.Popen[bytes]) -> float:
    """Wait for a supervisor's end; return its processor time as a fraction of its children's while these train."""
    samples: list[tuple[float, float]] = []
    while supervisor.poll() is None:
        with contextlib.suppress(OSError):  # One ended meanwhile.
            children = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text().split()
            of_children = sum(_processor_s(child) for child in children)
            if of_children > START_S * len(children):
                samples.append((_processor_s(supervisor.pid), of_children))
        time.sleep(_POLL_S)
    (first, of_children), (last, of_children_last) = samples[0], samples[-1]
    return (last - first) / max(of_children_last - of_children, 1e-9)


def _processor_s(process: int | str) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(study: str, url: str, numbers: Sequence[int], n_repeats: int, options: Sequence[str]) -> list[list[Search]]:
    """Return for each turn the searches of each number of workers."""
    turns = []
    for turn in range(n_repeats):
        searches = []
        for n_workers in numbers:
            search = run_search(study, url, f"turn-{turn}-workers-{n_workers}", n_workers, options)
            print(f"... turn {turn}: {search}", file=sys.stderr, flush=True)
            searches.append(search)
        turns.append(searches)
    return turns


def show(turns: Sequence[Sequence[Search]]) -> list[Verdict]:
    """Print medians over the turns, and the ratios to the first number of workers."""
    cells, verdicts = [], []
    for at, first in enumerate(turns[0]):
        of_number = [turn[at] for turn in turns]
        schedule = [turn[0].schedule_s / turn[at].schedule_s for turn in turns]
        whole = [turn[0].whole_s / turn[at].whole_s for turn in turns]
        cells.append(
            [
                str(first.n_workers),
                f"{statistics.median(one.schedule_s for one in of_number):.1f}",
                f"{statistics.median(schedule):.2f} ({min(schedule):.2f} to {max(schedule):.2f})",
                f"{statistics.median(one.whole_s for one in of_number):.1f}",
                f"{statistics.median(whole):.2f}",
                f"{statistics.median(one.n_complete for one in of_number):.0f}",
                f"{statistics.median(one.n_over_draws for one in of_number):.0f}",
                f"{statistics.median(one.best for one in of_number):.4f}",
            ]
        )
        if first.n_workers == 2 and turns[0][0].n_workers == 1:
            verdicts.append(Verdict("two workers", statistics.median(schedule), TARGET_OF_TWO, "at least", " times"))
    supervision = statistics.median(one.supervision for turn in turns for one in turn)
    verdicts.append(Verdict("supervision", 100 * supervision, 100 * TARGET_OF_SUPERVISION, "at most", " %"))
    header = ["workers", "schedule, s", "sooner, times", "whole, s", "sooner", "complete", "over-draws", "best"]
    print(table(header, cells))
    for verdict in verdicts:
        print(verdict)
    return verdicts


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="avmnist")
    parser.add_argument("--home", type=Path, required=True, help="home folder with what `prepare` made")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--joint", type=int, help="networks trained at once [default: the program's]")
    parser.add_argument("--trials", type=int, help="of each search [default: the schedule's]")
    given = parser.parse_args(argv)
    os.environ["MFAS_HOME"] = str(given.home.absolute())
    binaries = find_binaries()
    if binaries is None:
        raise SystemExit("PostgreSQL's programs are not installed: initdb was not found.")
    options = [] if given.joint is None else ["--joint", str(given.joint)]
    options += [] if given.trials is None else ["--trials", str(given.trials)]
    subprocess.run([*CLI, "prepare", "--study", given.study, "--quiet"], check=True)
    server = PostgresServer(binaries)
    try:
        print(f"Study {given.study}, one thread a worker, PostgreSQL; {machine()}\n", flush=True)
        show(measure(given.study, server.url(server.new_database()), given.workers, given.repeats, options))
    finally:
        server.remove()


if __name__ == "__main__":
    main()
