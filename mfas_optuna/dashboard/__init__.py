"""optuna-dashboard for studies of this program: served safely, and given what it shows besides Optuna's own."""

from mfas_optuna.dashboard.drawings import Drawings
from mfas_optuna.dashboard.guard import Guard
from mfas_optuna.dashboard.server import HOST, PORT, Address, serve_dashboard
from mfas_optuna.dashboard.showcase import Showcase

__all__ = ["HOST", "PORT", "Address", "Drawings", "Guard", "Showcase", "serve_dashboard"]
