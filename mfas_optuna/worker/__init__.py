"""The composition root: what the command line calls."""

from mfas_optuna.worker.dashboard import serve_dashboard
from mfas_optuna.worker.estimate import Estimate, dry_run
from mfas_optuna.worker.request import Listener, SearchOutcome, SearchRequest
from mfas_optuna.worker.search import build_data, prepare, search
from mfas_optuna.worker.status import StepStatus, StudyStatus, status

__all__ = [
    "Estimate",
    "Listener",
    "SearchOutcome",
    "SearchRequest",
    "StepStatus",
    "StudyStatus",
    "build_data",
    "dry_run",
    "prepare",
    "search",
    "serve_dashboard",
    "status",
]
