"""A report for programs: JSON with everything, CSV with one row for each training of the methods (docs/report.md)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mfas_optuna.report.data import MethodResult, Search, StepResult, StudyResults
from mfas_optuna.report.paper import DIFFERENCES, MARK, QUOTED
from mfas_optuna.report.statistics import CONFIDENCE, PairedDifference, Spread, spread
from mfas_optuna.report.verdict import Comparison, Verdict, compared

JSON_VERSION = 1

CSV_COLUMNS = (
    "study",
    "stand_in",
    "dataset",
    "metric",
    "method",
    "title",
    "step",
    "network",
    "recipe",
    "seed",
    "n_fusion_parameters",
    "n_parameters",
    "training_s",
    "validation",
    "test",
)


def render_json(results: StudyResults, verdict: Verdict) -> str:
    """Return a report as JSON of version `JSON_VERSION`."""
    values = {
        "version": JSON_VERSION,
        "study": results.study_name,
        "dataset": results.dataset,
        "metric": results.metric,
        "data_card": results.card,
        "stand_in": results.stand_in,
        "n_planned": results.n_planned,
        "settings": results.settings,
        "backbones": results.backbones,
        "hardware": results.hardware,
        "verdict": {
            "outcome": verdict.outcome,
            "sentence": verdict.sentence,
            "notes": verdict.notes,
            "confidence": CONFIDENCE,
            "searching": _comparison(verdict.searching),
            "sampler": _comparison(verdict.sampler),
        },
        "searches": [_search(search) for search in results.searches],
        "methods": [_method(method, results.ours) for method in results.methods],
        "final_training_s": results.training_s,
        "test_reads": [{"study": read.study_name, **asdict(read.entry)} for read in results.ledger],
        "quoted": _quoted(results.dataset),
        "warnings": results.warnings,
    }
    return json.dumps(values, indent=1, allow_nan=False) + "\n"


def _search(search: Search) -> dict[str, Any]:
    return {
        "sampler": search.sampler,
        "title": search.title,
        "study": search.study_name,
        "trials": search.n_by_state,
        "n_counted": search.n_counted,
        "n_steps": search.n_steps,
        "best": [
            {
                "architecture": network.architecture,
                "score": network.score,
                "n_parameters": network.n_parameters,
                "trial": network.number,
                "parameters": network.parameters,
            }
            for network in search.best
        ],
        "best_scores": _spread(search.spread),
        "timings_s": search.timings_s,
        "hardware": search.hardware,
    }


def _method(method: MethodResult, ours: MethodResult | None) -> dict[str, Any]:
    counted = method.counted
    return {
        "method": method.name,
        "title": method.title,
        "is_ours": method is ours,
        "is_searched": method.is_searched,
        "counted_step": None if counted is None else counted.step,
        "steps": [
            _step(step, None if ours is None or method is ours else ours.steps.get(step.step))
            for step in method.steps.values()
        ],
    }


def _step(step: StepResult, ours: StepResult | None) -> dict[str, Any]:
    return {
        "step": step.step,
        "head": step.head,
        "network": step.label,
        "recipe": step.recipe,
        "n_parameters": step.n_parameters,
        "n_fusion_parameters": step.n_fusion_parameters,
        "is_deterministic": step.is_deterministic,
        "by_seed": [
            {"seed": seed, "validation": score, "test": step.test.get(seed), "training_s": step.training_s[seed]}
            for seed, score in step.validation.items()
        ],
        "validation": _spread(spread(step.validation.values())),
        "test": _spread(spread(step.test.values())),
        "ours_minus_it": None if ours is None else _difference(compared(ours, step)),
    }


def _spread(of: Spread | None) -> dict[str, Any] | None:
    return None if of is None else asdict(of)


def _difference(difference: PairedDifference | None) -> dict[str, Any] | None:
    return None if difference is None else asdict(difference)


def _comparison(comparison: Comparison | None) -> dict[str, Any] | None:
    if comparison is None:
        return None
    return {
        "method": comparison.ours.name,
        "other": comparison.other.name,
        "outcome": comparison.outcome,
        "difference": _difference(comparison.difference),
    }


def _quoted(dataset: str) -> dict[str, Any] | None:
    quoted = QUOTED.get(dataset)
    if quoted is None:
        return None
    return {
        "mark": MARK,
        "source": quoted.source,
        "rows": [
            {"method": method, "modalities": modalities, "printed": dict(zip(quoted.scores, scores, strict=True))}
            for method, modalities, scores in quoted.rows
        ],
        "notes": [*quoted.notes, DIFFERENCES],
    }


def render_csv(results: StudyResults) -> str:
    """Return one row for each method, step and seed; of a method that was not trained to the end, none."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for method in results.methods:
        for step in method.steps.values():
            for seed in step.validation:
                writer.writerow(_inert(_csv_row(results, method, step, seed)))
    return text.getvalue()


def _csv_row(results: StudyResults, method: MethodResult, step: StepResult, seed: int) -> dict[str, Any]:
    cells: Sequence[Any] = (
        results.study_name,
        results.stand_in,
        results.dataset,
        results.metric,
        method.name,
        method.title,
        step.step,
        step.label,
        json.dumps(step.recipe),
        seed,
        step.n_fusion_parameters,
        step.n_parameters,
        step.training_s[seed],
        step.validation[seed],
        step.test.get(seed),
    )
    return dict(zip(CSV_COLUMNS, cells, strict=True))


def _inert(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row in which no text is a formula to a spreadsheet, which runs what begins with = + - @."""
    return {
        name: f"'{cell}" if isinstance(cell, str) and cell.lstrip().startswith(("=", "+", "-", "@")) else cell
        for name, cell in row.items()
    }
