"""Run the cells and print the table; see the package's text."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.regimes import settings
from benchmarks.regimes.errors import RegimeError
from benchmarks.regimes.makers import POOLS, REGIMES
from benchmarks.regimes.run import RESULT, Job, run
from benchmarks.regimes.settings import Plan
from benchmarks.report import machine
from mfas_optuna import spec
from mfas_optuna.errors import MfasError

QUICK_TRIALS = 12
QUICK_SIZE = 500


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for; 2 for bad input, 1 when a draw failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.regimes",
        description="One search against five fixed ways to fuse, where different data want different kinds of fusion.",
    )
    parser.add_argument("--home", type=Path, help="folder of cells and figures [default: regimes in MFAS_HOME]")
    parser.add_argument("--regimes", nargs="+", choices=REGIMES, default=list(REGIMES), metavar="NAME")
    parser.add_argument("--sizes", nargs="+", type=int, help="training pairs [default: those that each regime has]")
    parser.add_argument("--draws", type=int, help=f"draws of each cell [default: {settings.N_DRAWS}]")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once, one thread each [default: 1]")
    parser.add_argument("--space", choices=settings.SPACES, default="extended", help="[default: extended]")
    parser.add_argument("--methods", nargs="+", default=list(settings.FIXED), metavar="NAME", help="fixed methods")
    parser.add_argument("--quick", action="store_true", help="one small draw of each regime and a short search")
    given = parser.parse_args(argv)
    try:
        return _run(given)
    except (RegimeError, MfasError) as error:
        print(error, file=sys.stderr)
        return 2


def _run(given: argparse.Namespace) -> int:
    plan = Plan(space=given.space, methods=tuple(given.methods))
    sizes, n_draws = given.sizes, given.draws or settings.N_DRAWS
    if given.quick:
        plan = Plan(space=given.space, methods=tuple(given.methods), n_trials=QUICK_TRIALS)
        sizes, n_draws = sizes or [QUICK_SIZE], given.draws or 1
    if given.jobs < 1 or n_draws < 1 or min(sizes or [100]) < 100:
        raise RegimeError("Give at least 1 job, 1 draw and 100 training pairs.")
    pools_home = spec.home_folder()
    home = (given.home or pools_home / "regimes").absolute() / (given.space + ("-quick" if given.quick else ""))
    jobs = [
        Job(cell, draw, plan, home / cell.name / f"draw-{draw}", pools_home, spec.data_root(None))
        for draw in range(
            settings.FIRST_DRAW, settings.FIRST_DRAW + n_draws
        )  # So that every cell has some draws early.
        for cell in settings.cells(given.regimes, sizes)
    ]
    print(f"{len(jobs)} draws in {home}; {machine()}", flush=True)
    results, n_failed = _results(jobs, given.jobs)
    if not results:
        print("No draw came to its end.", file=sys.stderr)
        return 1
    _show(jobs, results, plan, home)
    return 1 if n_failed else 0


def _results(jobs: Sequence[Job], n_processes: int) -> tuple[dict[str, dict[str, Any]], int]:
    """Return the figures of each draw by its name, and how many failed."""
    results: dict[str, dict[str, Any]] = {}
    n_failed, started = 0, time.perf_counter()
    for job, future in _ended(jobs, n_processes):
        try:
            results[job.name] = future.result()
        except BrokenProcessPool as error:
            raise RegimeError(
                f"A process was killed, perhaps for want of memory ({error}). The same command goes on; give fewer "
                "--jobs."
            ) from error
        except (RegimeError, MfasError) as error:
            n_failed += 1
            print(f"{job.name} failed: {error}", file=sys.stderr, flush=True)
            continue
        took = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in results[job.name]["seconds"].items())
        done = f"{len(results) + n_failed} of {len(jobs)}"
        print(f"{done}, {time.perf_counter() - started:.0f} s: {job.name} ({took})", flush=True)
    return results, n_failed


def _ended(jobs: Sequence[Job], n_processes: int) -> Iterator[tuple[Job, Future[dict[str, Any]]]]:
    """Run each job in one of several processes and yield it with its result, in the order in which they end."""
    os.environ["OMP_NUM_THREADS"] = "1"  # Read by torch in each process when it starts.
    _prepare_pools(jobs)
    with ProcessPoolExecutor(n_processes, get_context("spawn")) as pool:
        futures = {pool.submit(run, job): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future


def _prepare_pools(jobs: Sequence[Job]) -> None:
    """Train the backbones that are missing, here, so that what is said of it is seen."""
    from benchmarks.regimes.pools import load_pool

    missing = [job for job in jobs if not (job.folder / RESULT).exists()]
    for name in dict.fromkeys(POOLS[job.cell.regime] for job in missing):
        load_pool(name, home=jobs[0].pools_home, data_root=jobs[0].data_root, say=_say)


def _say(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


def _show(jobs: Sequence[Job], results: dict[str, dict[str, Any]], plan: Plan, home: Path) -> None:
    from benchmarks.regimes import table

    ordered = [results[job.name] for job in jobs if job.name in results]
    figures = table.all_figures(ordered, plan.methods)
    text = table.text(figures, plan.methods)
    (home / "figures.json").write_text(json.dumps(table.as_json(ordered, figures, plan.methods), indent=2))
    (home / "table.md").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\n\nAll figures: {home / 'figures.json'}")


if __name__ == "__main__":
    raise SystemExit(main())
