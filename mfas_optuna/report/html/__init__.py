"""A report as one page that needs nothing but itself (docs/decisions/0038-report-page.md)."""

from mfas_optuna.report.html.page import render
from mfas_optuna.report.html.pictures import Pictures, picture
from mfas_optuna.report.html.png import save

__all__ = ["Pictures", "picture", "render", "save"]
