"""The long form of the chaos suite: `make chaos`. Prints a table of what was done to the workers and what was lost.

Numbers come from the environment: MFAS_CHAOS_KILLS (1000), MFAS_CHAOS_RESTARTS (20), MFAS_CHAOS_RESUMES (100),
MFAS_CHAOS_SUPERVISORS (20), MFAS_CHAOS_OUTAGES (1, of 60 s), MFAS_CHAOS_SLURM (1 search); 0 leaves a part out.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from mfas_optuna import trials as records
from mfas_optuna.worker.request import SearchRequest
from tests.postgres import PostgresServer, find_binaries
from tests.slurm import why_not

from .slurm_array import slurm_array
from .supervisors import kill_supervisors
from .toy import check, start_worker, stored_trials, toy_request

N_WORKERS = 4
ROUND_TRIALS = 200
"""Trials of a search; as many searches are made as it takes."""
SLURM_TRIALS = 150
OUTAGE_S = 60


def number_of(name: str, default: int) -> int:
    return int(os.environ.get(f"MFAS_CHAOS_{name}", default))


def counted(before: Counter[str], found: dict[str, int]) -> Counter[str]:
    return before + Counter(found)


def repeated(trials: list[FrozenTrial]) -> int:
    """Return how many trials were begun and ended with their workers."""
    return sum(
        trial.state == TrialState.FAIL and records.read_failure(trial.system_attrs) in (None, "worker_died")
        for trial in trials
    )


def kills(server: PostgresServer, wanted: int, rng: random.Random) -> Counter[str]:
    """Kill workers at random moments, replacing each, in as many searches as it takes."""
    total: Counter[str] = Counter()
    while total["faults"] < wanted:
        with tempfile.TemporaryDirectory() as folder:
            search = toy_request(Path(folder), server.url(server.new_database()), ROUND_TRIALS)
            workers = [start_worker(search) for _ in range(N_WORKERS)]
            n_killed = 0
            while all(worker.exitcode is None for worker in workers) and total["faults"] + n_killed < wanted:
                time.sleep(rng.uniform(0.02, 0.8))
                index = rng.randrange(N_WORKERS)
                if workers[index].exitcode is None:
                    workers[index].kill()
                    workers[index].join()
                    n_killed += 1
                    workers[index] = start_worker(search)
            total = counted(total, finish(search, workers))
            total["faults"] += n_killed
            total["repeated"] += repeated(stored_trials(search.storage_url))
            print(f"  {total['faults']} of {wanted} kills", flush=True)
    return total


def restarts(server: PostgresServer, wanted: int, rng: random.Random) -> Counter[str]:
    """Restart the server, fast and at once in turn, while workers run that nobody replaces."""
    total: Counter[str] = Counter()
    while total["faults"] < wanted:
        with tempfile.TemporaryDirectory() as folder:
            search = toy_request(Path(folder), server.url(server.new_database()), ROUND_TRIALS)
            workers = [start_worker(search) for _ in range(2)]
            n_restarts = 0
            while all(worker.exitcode is None for worker in workers) and total["faults"] + n_restarts < wanted:
                time.sleep(rng.uniform(0.5, 3))
                server.restart("fast" if n_restarts % 2 else "immediate")
                n_restarts += 1
            total = counted(total, finish(search, workers))
            total["faults"] += n_restarts
            total["repeated"] += repeated(stored_trials(search.storage_url))
            print(f"  {total['faults']} of {wanted} restarts", flush=True)
    return total


def resumes(server: PostgresServer, wanted: int, rng: random.Random) -> Counter[str]:
    """Kill a lone worker again and again; what it ends with must be what one ends with that nobody kills."""
    with tempfile.TemporaryDirectory() as calm, tempfile.TemporaryDirectory() as killed:
        n_trials = 8 * wanted
        undisturbed = toy_request(Path(calm), f"sqlite:///{calm}/mfas.db", n_trials)
        start_worker(undisturbed).join()
        search = toy_request(Path(killed), f"sqlite:///{killed}/mfas.db", n_trials)
        n_killed = 0
        while n_killed < wanted:
            worker = start_worker(search)
            worker.join(rng.uniform(0.3, 1.5))
            if worker.exitcode is None:
                worker.kill()
                worker.join()
                n_killed += 1
            else:
                break
        total = Counter(finish(search, [start_worker(search)]))
        total["faults"] = n_killed
        total["repeated"] = repeated(stored_trials(search.storage_url))
        results = [of_complete(stored_trials(request.storage_url)) for request in (undisturbed, search)]
        assert results[0] == results[1], "the resumed search differs from the undisturbed one"
        return total


def outages(server: PostgresServer, wanted: int, rng: random.Random) -> Counter[str]:
    """Stop the server for a minute while workers run that nobody replaces."""
    total: Counter[str] = Counter()
    for _ in range(wanted):
        with tempfile.TemporaryDirectory() as folder:
            search = toy_request(Path(folder), server.url(server.new_database()), ROUND_TRIALS)
            workers = [start_worker(search) for _ in range(2)]
            time.sleep(rng.uniform(2, 4))
            server.stop("immediate")
            time.sleep(OUTAGE_S)
            server.start()
            assert all(worker.exitcode is None for worker in workers), "the search was over before the outage"
            total = counted(total, finish(search, workers))
            total["faults"] += 1
            total["repeated"] += repeated(stored_trials(search.storage_url))
    return total


def supervisors(server: PostgresServer, wanted: int, rng: random.Random) -> Counter[str]:
    """Kill supervisors of the command line at random moments; their children must end, and others go on."""
    with tempfile.TemporaryDirectory() as folder:
        return kill_supervisors(server, Path(folder), wanted, rng)


def on_slurm(server: PostgresServer, wanted: int, _rng: random.Random) -> Counter[str]:
    """Run searches as job arrays."""
    total: Counter[str] = Counter()
    for _ in range(wanted):
        with tempfile.TemporaryDirectory() as folder:
            total = counted(total, slurm_array(server, Path(folder), SLURM_TRIALS))
    return total


def of_complete(trials: list[FrozenTrial]) -> list[str]:
    return [
        json.dumps([trial.params, trial.values, trial.intermediate_values, trial.user_attrs[records.WEIGHTS]])
        for trial in trials
        if trial.state == TrialState.COMPLETE
    ]


def finish(search: SearchRequest, workers: list[ForkServerProcess]) -> dict[str, int]:
    for worker in workers:
        worker.join(600)
    return check(search, workers)


def main() -> None:
    """Run the parts and print the table; an assertion fails when anything was lost."""
    binaries = find_binaries()
    if binaries is None:
        raise SystemExit("PostgreSQL's server programs are not installed (Debian: apt-get install postgresql).")
    rng = random.Random(number_of("SEED", 0))
    parts: list[tuple[str, Callable[[PostgresServer, int, random.Random], Counter[str]], int]] = [
        (f"SIGKILL, {N_WORKERS} workers on PostgreSQL", kills, number_of("KILLS", 1000)),
        ("PostgreSQL restarts, 2 workers", restarts, number_of("RESTARTS", 20)),
        ("SIGKILL of a lone worker on SQLite, bit-identical", resumes, number_of("RESUMES", 100)),
        ("PostgreSQL away for 60 s, 2 workers", outages, number_of("OUTAGES", 1)),
        ("SIGKILL of supervisors, 2 on PostgreSQL", supervisors, number_of("SUPERVISORS", 20)),
        ("Slurm: preemption, death of a node, time limits", on_slurm, 0 if why_not() else number_of("SLURM", 1)),
    ]
    if why_not():
        print(f"Slurm is left out: {why_not()}", flush=True)
    server = PostgresServer(binaries)
    columns = ("faults", "acknowledged", "complete", "repeated", "running", "blobs")
    lines = [f"{'':<50}" + "".join(f"{column:>14}" for column in columns)]
    try:
        for title, part, wanted in parts:
            if wanted == 0:
                continue
            print(title, flush=True)
            began = time.monotonic()
            found = part(server, wanted, rng)
            lines.append(f"{title:<50}" + "".join(f"{found[column]:>14}" for column in columns))
            print(f"  {time.monotonic() - began:.0f} s", flush=True)
    finally:
        server.remove()
    print("\n".join(lines))
    print("Acknowledged results lost: 0. Budget exceeded or missed: 0 times. Damaged blobs: 0. (Any other ends it.)")


if __name__ == "__main__":
    main()
