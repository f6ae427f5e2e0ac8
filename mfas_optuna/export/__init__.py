"""The found network as files that need neither this package nor Optuna, and predictions with them."""

from mfas_optuna.export.predict import Model, Prediction, load_model, read_inputs
from mfas_optuna.export.study import Exported, ExportRequest, export_study

__all__ = [
    "ExportRequest",
    "Exported",
    "Model",
    "Prediction",
    "export_study",
    "load_model",
    "read_inputs",
]
