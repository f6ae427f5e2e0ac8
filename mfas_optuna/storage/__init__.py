"""The study database: opened safely, written in batches, and cleared of the trials of dead workers."""

from mfas_optuna.storage.batch import BatchStorage, batch, reports
from mfas_optuna.storage.leases import BEAT_S, GRACE_S, Lease, LeasedWorker, read_leases
from mfas_optuna.storage.opening import (
    check_exists,
    clear_errors,
    create_study,
    is_database_error,
    load_study,
    masked,
    open_storage,
)
from mfas_optuna.storage.patience import PATIENCE_S, Patience, is_away
from mfas_optuna.storage.standing import DatabaseStanding, read_standing
from mfas_optuna.storage.turns import Turn
from mfas_optuna.storage.workers import (
    WorkerLock,
    fail_trials_of,
    is_dead,
    is_one_host,
    living,
    reap_dead,
    this_worker,
    worker_of,
)

__all__ = [
    "BEAT_S",
    "GRACE_S",
    "PATIENCE_S",
    "BatchStorage",
    "DatabaseStanding",
    "Lease",
    "LeasedWorker",
    "Patience",
    "Turn",
    "WorkerLock",
    "batch",
    "check_exists",
    "clear_errors",
    "create_study",
    "fail_trials_of",
    "is_away",
    "is_database_error",
    "is_dead",
    "is_one_host",
    "living",
    "load_study",
    "masked",
    "open_storage",
    "read_leases",
    "read_standing",
    "reap_dead",
    "reports",
    "this_worker",
    "worker_of",
]
