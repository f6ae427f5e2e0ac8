"""What one worker asks of PostgreSQL: statements, transactions and bytes of a trial, of an idle worker, and of joining.

    python -m benchmarks.database_load

A whole search by random on random features, by the program's own worker, on a PostgreSQL that is started for it. Bytes
are counted between the two, by a socket that passes everything on; statements by SQLAlchemy's events. Sampling and
training cost the database nothing, so that these figures hold for any data.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import socketserver
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from sqlalchemy import event

from benchmarks.report import machine, table
from benchmarks.sharing import Silent
from mfas_optuna import spec as settings
from mfas_optuna import storage as database
from mfas_optuna import trials as records
from mfas_optuna.features.cache import FeatureLayout
from mfas_optuna.prepare import Prepared
from mfas_optuna.target import Target
from mfas_optuna.worker.estimate import _random_features
from mfas_optuna.worker.interrupts import Interrupts
from mfas_optuna.worker.loop import Worker
from mfas_optuna.worker.request import SearchRequest
from mfas_optuna.worker.samplers import make_sampler
from tests.postgres import PostgresServer, find_binaries

_PORT_FILE = ".s.PGSQL.5432"


class Between(socketserver.ThreadingUnixStreamServer):
    """A socket like PostgreSQL's that passes everything on and counts it."""

    def __init__(self, server: Path, folder: Path) -> None:
        self.behind = str(server / _PORT_FILE)
        self.folder = folder
        self.counts: Counter[str] = Counter()
        super().__init__(str(folder / _PORT_FILE), _PassOn)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def __exit__(self, *error: Any) -> None:
        self.shutdown()
        super().__exit__(*error)  # Closes the socket and waits for the connections' ends.


class _PassOn(socketserver.BaseRequestHandler):
    """One connection."""

    server: Between

    def handle(self) -> None:
        self.server.counts["connections"] += 1
        with socket.socket(socket.AF_UNIX) as behind:
            behind.connect(self.server.behind)
            back = threading.Thread(target=self._copy, args=(behind, self.request, "received"))
            back.start()
            self._copy(self.request, behind, "sent")
            back.join()

    def _copy(self, source: socket.socket, sink: socket.socket, name: str) -> None:
        with contextlib.suppress(OSError):  # Either end is gone.
            while data := source.recv(1 << 16):
                self.server.counts[name] += len(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@dataclass(frozen=True)
class Load:
    """What one thing costs the database.

    Attributes:
        what: Which.
        statements: SQL statements.
        transactions: Transactions that were committed or rolled back.
        sent: Bytes to the database.
        received: Bytes from it.
    """

    what: str
    statements: float
    transactions: float
    sent: float
    received: float

    def per(self, n: float) -> Load:
        """Return the load of each of `n`."""
        return replace(
            self,
            statements=self.statements / n,
            transactions=self.transactions / n,
            sent=self.sent / n,
            received=self.received / n,
        )


@contextlib.contextmanager
def counting(opened: database.BatchStorage, between: Between, what: str) -> Iterator[list[Load]]:
    """Count what is asked within; the load is in the list afterwards."""
    counts: Counter[str] = Counter()

    def statement(*_: object) -> None:
        counts["statements"] += 1

    def transaction(*_: object) -> None:
        counts["transactions"] += 1

    heard: list[tuple[str, Callable[..., None]]] = [
        ("before_cursor_execute", statement), ("commit", transaction), ("rollback", transaction)
    ]  # fmt: skip
    for name, listener in heard:
        event.listen(opened.engine, name, listener)
    before, found = Counter(between.counts), list[Load]()
    try:
        yield found
    finally:
        for name, listener in heard:
            event.remove(opened.engine, name, listener)
    passed = between.counts - before
    found.append(Load(what, counts["statements"], counts["transactions"], passed["sent"], passed["received"]))


def request_of(folder: Path, url: str, n_trials: int, joint: int) -> SearchRequest:
    """Return a search of small networks, of which the database sees nothing but their records."""
    spec = settings.load_spec(settings.find_study("digits")).with_search(sampler="random", n_trials=n_trials)
    spec = spec.model_copy(update={"training": spec.training.model_copy(update={"epochs": 1})})
    # Its beats are measured by themselves.
    return SearchRequest(spec, "s", folder, url, None, "cpu", "", joint=joint, beat_s=3600.0, grace_s=7200.0)


def work(request: SearchRequest, opened: database.BatchStorage) -> int:
    """Run the search as one worker; return how many trials were begun."""
    spec = request.spec
    layout = FeatureLayout.of_widths(
        {name: dict.fromkeys((tap.name for tap in of.taps), 4) for name, of in spec.backbones.items()}
    )
    rows = {"train": 64, "validation": 32}
    features = _random_features(layout, rows, Target.of_classes(10), np.random.default_rng(0))
    sampler = make_sampler(spec)
    study = optuna.create_study(
        storage=opened, study_name="s", sampler=sampler, direction="maximize", load_if_exists=True
    )
    n_before = len(study.get_trials(deepcopy=False))
    with Interrupts() as interrupts, database.WorkerLock(request.home, request.storage_url, "s") as lock:
        opened.patience = database.Patience(60, interrupts.check)
        Worker(request, study, sampler, Prepared(features, "", {}, "", {}), Silent(), interrupts, lock, opened).run()
    return len(study.get_trials(deepcopy=False)) - n_before


def of_trials(server: PostgresServer, between: Between, n_trials: int, joint: int) -> Load:
    """Return the load of a trial, in groups of `joint`."""
    with tempfile.TemporaryDirectory() as folder:
        request = request_of(Path(folder), _url(server, between), n_trials, joint)
        opened = database.open_storage(request.storage_url)
        with counting(opened, between, f"a trial, in groups of {joint}") as found:
            n_begun = work(request, opened)
        opened.engine.dispose()
        return found[0].per(n_begun)


def of_the_rest(server: PostgresServer, between: Between, n_trials: int, seconds: float) -> list[Load]:
    """Return the loads of a beat, of an idle worker for a second, and of joining a study of so many trials."""
    with tempfile.TemporaryDirectory() as folder:
        url = _url(server, between)
        request = request_of(Path(folder), url, n_trials, 15)
        opened = database.open_storage(url)
        work(request, opened)
        study = database.load_study(opened, "s")
        lease = database.Lease(opened, study._study_id, database.this_worker())
        with counting(opened, between, "a beat, every 5 s") as beats:
            for _ in range(20):
                lease.beat()
        # Somebody else has the last trial of the budget: this worker can only wait.
        other = database.worker_of(os.getppid())
        opened.stamp = records.worker_attribute(other)
        trial = study.ask()
        opened.stamp = None
        database.Lease(opened, study._study_id, other).beat()
        waiting = replace(request, spec=request.spec.with_search(n_trials=n_trials + 1))
        ends = threading.Timer(seconds, lambda: study.tell(trial, 0.0))
        with counting(opened, between, "an idle worker, for a second") as idle:
            began = time.monotonic()
            ends.start()
            work(waiting, opened)
            waited_s = time.monotonic() - began
        opened.engine.dispose()
        again = database.open_storage(url)
        with counting(again, between, f"joining, {n_trials + 1} trials") as joined:
            database.load_study(again, "s").get_trials(deepcopy=False)
        again.engine.dispose()
        return [beats[0].per(20), idle[0].per(waited_s), joined[0]]


def _url(server: PostgresServer, between: Between) -> str:
    return server.url(server.new_database()).replace(str(server.folder), str(between.folder))


def measure(n_trials: int = 150, joints: Sequence[int] = (1, 15), idle_s: float = 10.0) -> tuple[list[Load], int]:
    """Return the loads, and how many connections one worker has.

    Raises:
        SystemExit: There is no PostgreSQL to start.
    """
    binaries = find_binaries()
    if binaries is None:
        raise SystemExit("PostgreSQL's server programs are not installed (Debian: apt-get install postgresql).")
    server = PostgresServer(binaries)
    try:
        # A socket's path must be short.
        with tempfile.TemporaryDirectory(dir="/tmp") as folder, Between(server.folder, Path(folder)) as between:
            loads = [of_trials(server, between, n_trials, joint) for joint in joints]
            n_connections = between.counts["connections"] // len(joints)
            return [*loads, *of_the_rest(server, between, n_trials, idle_s)], n_connections
    finally:
        server.remove()


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=150)
    given = parser.parse_args(argv)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    loads, n_connections = measure(given.trials)
    print(machine())
    rows = [
        [load.what, f"{load.statements:.1f}", f"{load.transactions:.1f}", f"{load.sent:,.0f}", f"{load.received:,.0f}"]
        for load in loads
    ]
    print(table(["what", "statements", "transactions", "bytes sent", "bytes received"], rows))
    print(f"Connections of one worker: {n_connections}")


if __name__ == "__main__":
    main()
