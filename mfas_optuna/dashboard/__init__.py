"""optuna-dashboard for studies of this program: served safely, and given what it shows besides Optuna's own."""

from mfas_optuna.dashboard.guard import Guard
from mfas_optuna.dashboard.server import HOST, PORT, Address, serve_dashboard

__all__ = ["HOST", "PORT", "Address", "Guard", "serve_dashboard"]
