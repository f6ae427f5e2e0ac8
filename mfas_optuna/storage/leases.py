"""Leases: each worker writes every few seconds, by the database's clock, that it lives.

Optuna has heartbeats of its own, one a trial; they beat within `optimize` only, and a trial that dies before its first
one is never taken for dead (docs/decisions/0034-leases.md).
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy import BigInteger, Column, Connection, Float, Integer, String, Table

from mfas_optuna.failpoints import reach
from mfas_optuna.storage.patience import Patience
from mfas_optuna.trials import WorkerIdentity

_log = logging.getLogger(__name__)

BEAT_S = 5.0
GRACE_S = 60.0
_FORGET_AFTER = 100
"""Graces after which the row of a worker that ended without a word is deleted."""

metadata = sqlalchemy.MetaData()
_WORKERS = Table(
    "mfas_workers",
    metadata,
    Column("study_id", Integer, primary_key=True, autoincrement=False),
    Column("host", String(255), primary_key=True),
    Column("boot_id", String(64), primary_key=True),
    Column("pid", BigInteger, primary_key=True, autoincrement=False),
    Column("process_start", BigInteger, primary_key=True, autoincrement=False),
    Column("grace_s", Float(53), nullable=False),
    Column("beat_at", Float(53), nullable=False),
)

_NOW = {
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) AS double precision)",
}
"""Seconds since 1970 by the database's clock, the same in all sessions."""


@dataclass(frozen=True, slots=True)
class LeasedWorker:
    """A worker that has written that it lives.

    Attributes:
        worker: Which process.
        age_s: Seconds since it last wrote so, by the database's clock.
        grace_s: Age after which it is taken for dead.
    """

    worker: WorkerIdentity
    age_s: float
    grace_s: float

    @property
    def is_stale(self) -> bool:
        """Whether it has been silent for longer than its grace."""
        return self.age_s > self.grace_s


def now_of(connection: Connection) -> Any:
    """Return the SQL expression of the database's clock, in seconds since 1970."""
    return sqlalchemy.literal_column(_NOW[connection.dialect.name], Float(53))


def read_now(storage: RDBStorage) -> float:
    """Return the time by the database's clock, in seconds since 1970."""
    with storage.engine.connect() as connection:
        return float(connection.execute(sqlalchemy.select(now_of(connection))).scalar_one())


def read_leases(storage: RDBStorage, study_id: int) -> list[LeasedWorker]:
    """Return every worker of a study that has a lease, however old."""
    with storage.engine.connect() as connection:
        return _read(connection, _WORKERS.c.study_id == study_id)


def read_all_leases(connection: Connection) -> list[LeasedWorker]:
    """Return every worker of a database that has a lease, however old, once for each study that it works on."""
    return _read(connection, sqlalchemy.true())


def _read(connection: Connection, where: sqlalchemy.ColumnElement[bool]) -> list[LeasedWorker]:
    columns = _WORKERS.c
    age = (now_of(connection) - columns.beat_at).label("age_s")
    query = sqlalchemy.select(
        columns.host, columns.boot_id, columns.pid, columns.process_start, age, columns.grace_s
    ).where(where)
    rows = connection.execute(query.order_by(columns.host, columns.pid)).all()
    return [LeasedWorker(WorkerIdentity(*row[:4]), max(0.0, float(row[4])), float(row[5])) for row in rows]


def forget_worker(storage: RDBStorage, study_id: int, worker: WorkerIdentity) -> None:
    """Delete a worker's lease: it has ended."""
    with storage.engine.begin() as connection:
        connection.execute(_WORKERS.delete().where(*_is(study_id, worker)))


def _forget_old(storage: RDBStorage, study_id: int) -> None:
    """Delete the leases of workers that have been silent for very long."""
    columns = _WORKERS.c
    with storage.engine.begin() as connection:
        age = now_of(connection) - columns.beat_at
        connection.execute(_WORKERS.delete().where(columns.study_id == study_id, age > _FORGET_AFTER * columns.grace_s))


def _is(study_id: int, worker: WorkerIdentity) -> list[Any]:
    columns = _WORKERS.c
    return [
        columns.study_id == study_id,
        columns.host == worker.host,
        columns.boot_id == worker.boot_id,
        columns.pid == worker.pid,
        columns.process_start == worker.process_start,
    ]


class Lease:
    """A worker's own lease, renewed by a thread while it is held."""

    def __init__(
        self,
        storage: RDBStorage,
        study_id: int,
        worker: WorkerIdentity,
        *,
        beat_s: float = BEAT_S,
        grace_s: float = GRACE_S,
        patience: Patience | None = None,
    ) -> None:
        """Name the lease; it is taken on entering.

        Args:
            storage: The opened database.
            study_id: The study.
            worker: Who holds it.
            beat_s: Seconds between renewals.
            grace_s: Seconds without renewal after which others take the worker for dead.
            patience: For the first renewal, which is made on entering.
        """
        self._storage = storage
        self._study_id = study_id
        self._worker = worker
        self._beat_s = beat_s
        self._grace_s = grace_s
        self._patience = patience or Patience()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._last_beat = self._steady_since = time.monotonic()

    def __enter__(self) -> Self:
        reach("before the first beat")
        self._patience.run(self.beat)
        self._patience.run(lambda: _forget_old(self._storage, self._study_id))
        self._last_beat = self._steady_since = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join(timeout=2 * self._beat_s)
        try:
            forget_worker(self._storage, self._study_id, self._worker)
        except sqlalchemy.exc.SQLAlchemyError as problem:  # It grows stale by itself; another error may be on its way.
            _log.debug("The lease was not given back: %s", problem)

    def beat(self) -> None:
        """Write that the worker lives."""
        with self._storage.engine.begin() as connection:
            values = {"beat_at": now_of(connection), "grace_s": self._grace_s}
            updated = connection.execute(_WORKERS.update().where(*_is(self._study_id, self._worker)).values(values))
            if updated.rowcount == 0:
                key = {
                    "study_id": self._study_id,
                    "host": self._worker.host,
                    "boot_id": self._worker.boot_id,
                    "pid": self._worker.pid,
                    "process_start": self._worker.process_start,
                }
                connection.execute(_WORKERS.insert().values(key | values))

    def can_judge(self) -> bool:
        """Return whether others' leases mean anything here.

        When the database was away nobody could renew; those who come back first must not take the others for dead. So
        a worker judges by leases only after it has renewed its own for a whole grace without a gap.
        """
        now = time.monotonic()
        return now - self._last_beat < self._grace_s and now - self._steady_since >= self._grace_s

    def _renew(self) -> None:
        while not self._is_over.wait(self._beat_s):
            try:
                self.beat()
            except sqlalchemy.exc.SQLAlchemyError as error:
                _log.debug("The lease was not renewed: %s", error)
                continue
            now = time.monotonic()
            if now - self._last_beat > self._beat_s + self._grace_s / 2:
                self._steady_since = now
            self._last_beat = now
