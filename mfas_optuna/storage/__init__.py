"""The study database: opened safely, written in batches, and cleared of the trials of dead workers."""

from mfas_optuna.storage.batch import BatchStorage, batch
from mfas_optuna.storage.opening import (
    check_exists,
    clear_errors,
    create_study,
    is_database_error,
    load_study,
    masked,
    open_storage,
)
from mfas_optuna.storage.workers import WorkerLock, is_dead, is_one_host, reap_dead, this_worker

__all__ = [
    "BatchStorage",
    "WorkerLock",
    "batch",
    "check_exists",
    "clear_errors",
    "create_study",
    "is_database_error",
    "is_dead",
    "is_one_host",
    "load_study",
    "masked",
    "open_storage",
    "reap_dead",
    "this_worker",
]
