"""The composition root: what the command line calls."""

from mfas_optuna.worker.data import build_data, check_data, make_data, taps_of_file, taps_of_study
from mfas_optuna.worker.estimate import Estimate, dry_run
from mfas_optuna.worker.final import FinalOutcome, FinalRequest, MethodOutcome, baselines, train
from mfas_optuna.worker.request import DataReport, Listener, SearchOutcome, SearchRequest
from mfas_optuna.worker.search import lead, prepare, search
from mfas_optuna.worker.status import StepStatus, StudyStatus, status, watch_status
from mfas_optuna.worker.upkeep import FsckOutcome, GcOutcome, collect_garbage, fsck

__all__ = [
    "DataReport",
    "Estimate",
    "FinalOutcome",
    "FinalRequest",
    "FsckOutcome",
    "GcOutcome",
    "Listener",
    "MethodOutcome",
    "SearchOutcome",
    "SearchRequest",
    "StepStatus",
    "StudyStatus",
    "baselines",
    "build_data",
    "check_data",
    "collect_garbage",
    "dry_run",
    "fsck",
    "lead",
    "make_data",
    "prepare",
    "search",
    "status",
    "taps_of_file",
    "taps_of_study",
    "train",
    "watch_status",
]
