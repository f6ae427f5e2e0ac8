"""A report as one HTML page: everything in it is its own, and nothing in it that a study brings can run."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

import mfas_optuna
from mfas_optuna.report.data import StudyResults
from mfas_optuna.report.html.pictures import Pictures
from mfas_optuna.report.tables import (
    choices_table,
    clean,
    document,
    ledger_table,
    methods_table,
    quoted_table,
    searches_table,
    settings_table,
    times_table,
)
from mfas_optuna.report.verdict import Verdict

OUTCOME_MARKS = {"worth_it": "yes", "not_worth_it": "no", "no_measurable_difference": "no difference"}
"""Short answers that the page shows in colour; of the other outcomes: not known."""


def render(results: StudyResults, verdict: Verdict, pictures: Pictures) -> str:
    """Return a report as a page.

    Its policy lets the browser run the two scripts of this package, by their digests, and load nothing at all.
    """
    scripts = (get_plotlyjs(), file_text("page.js"))
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FunctionLoader(file_text),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tables = {
        "searches": searches_table(results),
        "methods": methods_table(results) if results.methods else None,
        "choices": choices_table(results) if results.methods else None,
        "settings": settings_table(results),
        "times": times_table(results),
        "ledger": ledger_table(results),
        "quoted": quoted_table(results),
        "failures": pictures.failures,
    }
    return environment.get_template("page.html").render(
        document=document(results, verdict),
        answer=OUTCOME_MARKS.get(verdict.outcome, "not known"),
        outcome=verdict.outcome,
        tables={name: table and clean(table) for name, table in tables.items()},
        pictures=pictures,
        figures={name: _figure(figure) for name, figure in pictures.figures.items()},
        settings=json.dumps(results.settings, indent=2, ensure_ascii=False),
        command=reproduction(results),
        policy=policy(scripts),
        scripts=scripts,
        style=file_text("page.css"),
        version=mfas_optuna.__version__,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def reproduction(results: StudyResults) -> str:
    """Return the one command that does again what was done."""
    arguments, search = results.arguments, results.settings["search"]
    if results.n_planned is None:  # The study file says something else.
        arguments += f" --sampler {search['sampler']} --mode {search['mode']} --seed {search['seed']}"
    commands = [f"search {arguments}"]
    steps = [step for method in results.methods for step in method.steps.values()]
    if steps:
        options = f" --seeds {max(len(step.validation) for step in steps)}"
        if not any(step.step == "unfrozen" for step in steps):
            options += " --no-unfrozen"
        commands.append(f"train {arguments}{options}")
        if results.others:
            commands.append(f"baselines {arguments}{options}")
    commands.append(f"report {results.arguments} -o report.html")
    return " && ".join(f"mfas-optuna {command}" for command in commands)


def _figure(figure: Any) -> Mapping[str, str]:
    """Return a figure's heading, notes and data; the page shows the first two as text, which can wrap."""
    meta = figure.layout.meta
    values = json.loads(figure.to_json())
    layout = values["layout"]
    for key in ("title", "meta", "template"):
        layout.pop(key, None)
    layout["margin"] = {**layout["margin"], "t": 40}
    # Within a script element of data nothing ends it but "</script", and nothing opens a comment but "<!--".
    data = json.dumps({"data": values["data"], "layout": layout}, separators=(",", ":")).replace("<", "\\u003c")
    return {"title": meta["title"], "note": meta["note"], "missing": meta.get("missing", ""), "data": data}


def policy(scripts: tuple[str, ...]) -> str:
    """Return the Content-Security-Policy of a page that runs these scripts and loads nothing."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    # Plotly styles its elements, and makes an image of a figure where the reader asks for one.
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )


def file_text(name: str) -> str:
    """Return a file of this package."""
    return (resources.files(__package__ or "mfas_optuna.report.html") / name).read_text(encoding="utf-8")
