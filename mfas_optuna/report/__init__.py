"""Tables and verdict of a study, from its database alone."""

from mfas_optuna.report.data import StudyResults, collect
from mfas_optuna.report.machine import render_csv, render_json
from mfas_optuna.report.tables import Document, document
from mfas_optuna.report.verdict import Verdict, judge

__all__ = ["Document", "StudyResults", "Verdict", "collect", "document", "judge", "render_csv", "render_json"]
