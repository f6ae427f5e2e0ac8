"""Which processes work on a study, whether they still live, and the trials that dead ones left running."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import socket
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url

from mfas_optuna import trials as records
from mfas_optuna.storage.batch import batch
from mfas_optuna.trials import WorkerIdentity

_log = logging.getLogger(__name__)

UNRECORDED_GRACE_S = 60
"""A worker records itself with a trial right after asking for it, which takes a second or so when it leads a step."""


def this_worker() -> WorkerIdentity:
    """Return the identity of this process."""
    return WorkerIdentity(
        host=socket.gethostname(), boot_id=_boot_id(), pid=os.getpid(), process_start=_process_start(os.getpid()) or 0
    )


def is_dead(worker: WorkerIdentity) -> bool:
    """Return whether a process of this host has certainly ended; False for other hosts, of which nothing is known."""
    if worker.host != socket.gethostname():
        return False
    if worker.boot_id != _boot_id():
        return True
    try:
        os.kill(worker.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    started = _process_start(worker.pid)
    return _is_zombie(worker.pid) or (started is not None and started != worker.process_start)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _process_start(pid: int) -> int | None:
    fields = _process_fields(pid)
    return int(fields[19]) if fields else None  # Field 22 of proc(5): start time in clock ticks.


def _is_zombie(pid: int) -> bool:
    """Return whether a process has ended and waits for its parent to take note, which some containers' never does."""
    fields = _process_fields(pid)
    return bool(fields) and fields[0] == "Z"


def _process_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on, the state; none where it cannot be read."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


class WorkerLock:
    """A lock file that every worker of a study on this host holds while it lives; the system frees it at any death."""

    def __init__(self, home: Path, url: str, study_name: str) -> None:
        """Take the lock.

        Args:
            home: The home folder; the lock of a SQLite database lies beside the database, however it is spelled.
            url: The database.
            study_name: The study's name in it.
        """
        parsed = make_url(url)
        folder = home
        if parsed.get_backend_name() == "sqlite":
            path = Path(str(parsed.database)).resolve()
            folder, url = path.parent, str(path)
        folder /= "locks"
        digest = hashlib.sha256(f"{url}\x1f{study_name}".encode()).hexdigest()[:24]
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / f"worker-{digest}.lock").open("a")
        self.is_only_worker = self._try(fcntl.LOCK_EX)
        """Whether no other worker of the study lived on this host when this one started."""
        if not self.is_only_worker:
            fcntl.flock(self._file, fcntl.LOCK_SH)

    def share(self) -> None:
        """Let other workers of the study start."""
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def is_alone_now(self) -> bool:
        """Return whether no other worker of the study lives on this host at this moment.

        The lock is let go for an instant, so call it only while this worker runs no trial.
        """
        is_alone = self._try(fcntl.LOCK_EX)
        fcntl.flock(self._file, fcntl.LOCK_SH)
        return is_alone

    def _try(self, how: int) -> bool:
        try:
            fcntl.flock(self._file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()


def is_one_host(url: str) -> bool:
    """Return whether a database can only be used from one host: SQLite's files, which need local locks."""
    return make_url(url).get_backend_name() == "sqlite"


def reap_dead(storage: BaseStorage, name: str, *, is_alone: bool) -> list[int]:
    """Fail the running trials whose processes have ended, without a reason, so that the search takes them up again.

    A trial that recorded its process is judged by it. When nobody else can be at work on the study, trials of other
    hosts (a container's name changes with each start) and those that recorded no process are dead too; otherwise one
    that recorded none within a minute is.

    Args:
        storage: The opened database.
        name: The study's name.
        is_alone: Whether no other worker of the study can live anywhere.

    Returns:
        Numbers of the trials that were failed.
    """
    study = optuna.load_study(storage=storage, study_name=name, sampler=optuna.samplers.RandomSampler())
    reaped = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _is_left(trial, is_alone):
            with batch(
                study, [trial]
            ):  # What was enqueued is enqueued again by whoever ends the trial, and by nobody else.
                if records.is_running(study, trial):
                    study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                    records.enqueue_again(study, trial.system_attrs)
            reaped.append(trial.number)
    if reaped:
        _log.info("Trials %s were left running by a worker that ended; their networks will be tried again.", reaped)
    return reaped


def _is_left(trial: FrozenTrial, is_alone: bool) -> bool:
    worker = records.read_worker(trial.system_attrs)
    if worker is None:
        age = datetime.now() - (trial.datetime_start or datetime.now())
        return is_alone or age > timedelta(seconds=UNRECORDED_GRACE_S)
    return is_dead(worker) or (is_alone and worker.host != socket.gethostname())
