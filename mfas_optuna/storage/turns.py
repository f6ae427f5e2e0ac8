"""A turn: what one worker of a study does at a time on whatever machine, such as the training of its backbones.

Who has the turn also has a lease; without a living lease the turn is anybody's who asks next.
"""

from __future__ import annotations

import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy import BigInteger, Column, Integer, String, Table

from mfas_optuna.storage.leases import Lease, metadata, read_leases
from mfas_optuna.storage.workers import is_dead
from mfas_optuna.trials import WorkerIdentity

_TURNS = Table(
    "mfas_turns",
    metadata,
    Column("study_id", Integer, primary_key=True, autoincrement=False),
    Column("host", String(255), nullable=False),
    Column("boot_id", String(64), nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("process_start", BigInteger, nullable=False),
)


class Turn:
    """A worker's turn in a study. Taking it and giving it back may be done twice."""

    def __init__(self, storage: RDBStorage, study_id: int, worker: WorkerIdentity, lease: Lease) -> None:
        """Name the turn; nothing is taken yet.

        Args:
            storage: The opened database.
            study_id: The study.
            worker: Who wants it.
            lease: The worker's own, which is held.
        """
        self._storage = storage
        self._study_id = study_id
        self._worker = worker
        self._lease = lease

    def take(self) -> bool:
        """Take the turn when nobody has it, or a dead worker; return whether it is this worker's now."""
        try:
            holder = self._holder()
            if holder is None:
                with self._storage.engine.begin() as connection:
                    connection.execute(_TURNS.insert().values(study_id=self._study_id, **_columns(self._worker)))
                return True
            if holder == self._worker:
                return True
            if not self._is_gone(holder):
                return False
            with self._storage.engine.begin() as connection:
                taken = connection.execute(_TURNS.update().where(*self._of(holder)).values(**_columns(self._worker)))
            return taken.rowcount == 1
        except sqlalchemy.exc.IntegrityError:  # Another was quicker.
            return False

    def give_back(self) -> None:
        """Let another have the turn; nothing happens when it is not this worker's."""
        with self._storage.engine.begin() as connection:
            connection.execute(_TURNS.delete().where(*self._of(self._worker)))

    def _holder(self) -> WorkerIdentity | None:
        columns = _TURNS.c
        query = sqlalchemy.select(columns.host, columns.boot_id, columns.pid, columns.process_start)
        with self._storage.engine.connect() as connection:
            row = connection.execute(query.where(columns.study_id == self._study_id)).one_or_none()
        return None if row is None else WorkerIdentity(*row)

    def _is_gone(self, holder: WorkerIdentity) -> bool:
        if is_dead(holder):
            return True
        if not self._lease.can_judge():
            return False
        leases = {lease.worker: lease for lease in read_leases(self._storage, self._study_id)}
        return holder not in leases or leases[holder].is_stale

    def _of(self, worker: WorkerIdentity) -> list[sqlalchemy.ColumnElement[bool]]:
        return [
            _TURNS.c.study_id == self._study_id,
            *(_TURNS.c[name] == value for name, value in _columns(worker).items()),
        ]


def _columns(worker: WorkerIdentity) -> dict[str, str | int]:
    return {
        "host": worker.host,
        "boot_id": worker.boot_id,
        "pid": worker.pid,
        "process_start": worker.process_start,
    }
