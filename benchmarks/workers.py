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
- best: the best validation score.

The ratio is that of one worker's seconds to theirs in the same turn; the median over the turns is what is judged.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
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
    """

    n_workers: int
    schedule_s: float
    whole_s: float
    n_complete: int
    n_over_draws: int
    best: float


def run_search(study: str, url: str, name: str, n_workers: int, options: Sequence[str]) -> Search:
    """Run a search to its end.

    Raises:
        SystemExit: It failed.
    """
    command = [*CLI, "search", "--study", study, "--storage", url, "--name", name, "--quiet", *options]
    if n_workers > 1:
        command += ["--workers", str(n_workers)]
    started = time.perf_counter()
    ended = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    whole_s = time.perf_counter() - started
    if ended.returncode != 0:
        raise SystemExit(f"`{' '.join(command)}` ended with {ended.returncode}.\n{ended.stdout}{ended.stderr}")
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
    )


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
    given = parser.parse_args(argv)
    os.environ["MFAS_HOME"] = str(given.home.absolute())
    binaries = find_binaries()
    if binaries is None:
        raise SystemExit("PostgreSQL's programs are not installed: initdb was not found.")
    options = [] if given.joint is None else ["--joint", str(given.joint)]
    subprocess.run([*CLI, "prepare", "--study", given.study, "--quiet"], check=True)
    server = PostgresServer(binaries)
    try:
        print(f"Study {given.study}, one thread a worker, PostgreSQL; {machine()}\n", flush=True)
        show(measure(given.study, server.url(server.new_database()), given.workers, given.repeats, options))
    finally:
        server.remove()


if __name__ == "__main__":
    main()
