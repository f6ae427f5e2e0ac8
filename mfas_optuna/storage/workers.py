"""Which processes work on a study, whether they still live, and the trials that dead ones left running."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url

from mfas_optuna import trials as records
from mfas_optuna.failpoints import reach
from mfas_optuna.storage.batch import batch
from mfas_optuna.storage.leases import GRACE_S, LeasedWorker, forget_worker, read_leases, read_now
from mfas_optuna.trials import WorkerIdentity

_log = logging.getLogger(__name__)


def this_worker() -> WorkerIdentity:
    """Return the identity of this process."""
    return worker_of(os.getpid())


def worker_of(pid: int) -> WorkerIdentity:
    """Return the identity of a process of this host, which must be there still, if only as a zombie."""
    return WorkerIdentity(
        host=socket.gethostname(), boot_id=_boot_id(), pid=pid, process_start=_process_start(pid) or 0
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


def living(storage: RDBStorage, study_id: int) -> list[LeasedWorker]:
    """Return the workers of a study that live, as far as their leases and this host can tell."""
    return [lease for lease in read_leases(storage, study_id) if not (lease.is_stale or is_dead(lease.worker))]


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


def reap_dead(
    storage: RDBStorage, name: str, *, is_alone: bool, grace_s: float = GRACE_S, by_lease: bool = False
) -> list[int]:
    """Fail the running trials whose workers have ended, without a reason, so that the search takes them up again.

    A worker is dead when its process has ended, as far as this host can tell, or when its lease is older than its
    grace. When nobody else can be at work on the study, workers of other hosts (a container's name changes with each
    start) are dead too, and so are trials that recorded none; otherwise one that recorded none within a grace is.

    Args:
        storage: The opened database.
        name: The study's name.
        is_alone: Whether no other worker of the study can live anywhere.
        grace_s: Seconds, by the database's clock, after which a trial whose worker is not known or never took a lease
            is dead.
        by_lease: Whether the age of leases means anything here now; see `Lease.can_judge`.

    Returns:
        Numbers of the trials that were failed.
    """
    study = optuna.load_study(storage=storage, study_name=name, sampler=optuna.samplers.RandomSampler())
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    if not running:
        return []
    leases = {lease.worker: lease for lease in read_leases(storage, study._study_id)}
    now = read_now(storage)

    def is_left(trial: FrozenTrial) -> bool:
        worker = records.read_worker(trial.system_attrs)
        # Optuna stores the local time of whoever asked; it is given back in this host's.
        age_s = 0.0 if trial.datetime_start is None else now - trial.datetime_start.timestamp()
        if worker is None:
            return is_alone or age_s > grace_s
        if is_dead(worker) or (is_alone and worker.host != socket.gethostname()):
            return True
        lease = leases.get(worker)
        return by_lease and (age_s > grace_s if lease is None else lease.is_stale)

    reaped = []
    for trial in running:
        if is_left(trial) and _fail(study, trial):
            reaped.append(trial.number)
    if reaped:
        _log.info("Trials %s were left running by a worker that ended; their networks will be tried again.", reaped)
    return reaped


def fail_trials_of(storage: RDBStorage, name: str, worker: WorkerIdentity, why: str) -> list[int]:
    """Fail the running trials of a worker that is known to have died, with the reason, and delete its lease.

    Args:
        storage: The opened database.
        name: The study's name.
        worker: Who died.
        why: What ended it, such as a signal's name.

    Returns:
        Numbers of the trials that were failed.
    """
    study = optuna.load_study(storage=storage, study_name=name, sampler=optuna.samplers.RandomSampler())
    failed = [
        trial.number
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if records.read_worker(trial.system_attrs) == worker and _fail(study, trial, why)
    ]
    forget_worker(storage, study._study_id, worker)
    return failed


def _fail(study: optuna.Study, trial: FrozenTrial, why: str | None = None) -> bool:
    """Fail a running trial of a dead worker; return False when it is not running any more."""
    # What was enqueued is enqueued again by whoever ends the trial, and by nobody else.
    with batch(study, [trial]):
        if not records.is_running(study, trial):
            return False
        if why is not None:
            records.write_failure(study, trial, "worker_died", why)
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        reach("between fail and redo")
        records.enqueue_again(study, trial.system_attrs)
        return True
