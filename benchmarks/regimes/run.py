"""One draw of a cell from its files to its figures: searched, then trained to the end beside the fixed methods."""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.regimes import cells
from benchmarks.regimes.errors import RegimeError
from benchmarks.regimes.kinds import kind_of_fusion
from benchmarks.regimes.makers import POOLS
from benchmarks.regimes.pools import load_pool
from benchmarks.regimes.settings import SEARCHED, Cell, Plan
from mfas_optuna.api import FusionStudy
from mfas_optuna.fusion.head import head_label
from mfas_optuna.worker.final import FinalOutcome, MethodOutcome

_log = logging.getLogger(__name__)

RESULT = "result.json"


@dataclass(frozen=True)
class Job:
    """One draw of one cell.

    Attributes:
        cell: Which.
        draw: Its number.
        plan: What is done with it.
        folder: Where its files, database and home are.
        pools_home: Home folder of the pools' studies.
        data_root: Folder of raw data.
    """

    cell: Cell
    draw: int
    plan: Plan
    folder: Path
    pools_home: Path
    data_root: Path | None

    @property
    def name(self) -> str:
        """What it is called."""
        return f"{self.cell.name}-draw-{self.draw}"


def run(job: Job, say: Callable[[str], None] = _log.info) -> dict[str, Any]:
    """Return the figures of a draw; what is done already is found again.

    Args:
        job: Which.
        say: Told what is done.

    Returns:
        JSON values: `methods` with test and validation scores by seed, and `seconds` of each stage.

    Raises:
        RegimeError: The folder has files of other settings, or a method could not be trained.
        MfasError: Something a user can mend is wrong; the message says what.
    """
    torch.set_num_threads(1)
    if not cells.is_made(job.folder, job.cell, job.draw, job.plan):
        pool = load_pool(POOLS[job.cell.regime], home=job.pools_home, data_root=job.data_root, say=say)
        cells.make(job.folder, job.cell, job.draw, job.plan, pool)
    file = job.folder / RESULT
    if file.exists():
        stored: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return stored
    home = job.folder / "home"
    study = FusionStudy.open(
        job.folder / "study.toml",
        name=job.cell.name,
        storage=f"sqlite:///{home / 'mfas.db'}",
        home=home,
        device="cpu",
        weights=home / "weights",
    )
    plan = job.plan
    times = [time.perf_counter()]
    study.search()
    times.append(time.perf_counter())
    trained = study.train(top=plan.n_finalists, n_parameters=plan.n_parameters, seeds=plan.n_seeds, unfrozen=False)
    times.append(time.perf_counter())
    compared = study.baselines(methods=plan.methods, n_parameters=plan.n_parameters, seeds=plan.n_seeds, unfrozen=False)
    times.append(time.perf_counter())
    methods = {outcome.method: _figures(outcome) for outcome in (*_methods(trained), *_methods(compared))}
    _check(job, methods)
    result = {
        "cell": job.cell.name,
        "draw": job.draw,
        "methods": methods,
        "seconds": {
            stage: round(end - begin, 1)
            for stage, (begin, end) in zip(("search", "train", "fixed"), itertools.pairwise(times), strict=True)
        },
    }
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=2), encoding="utf-8")
    temporary.replace(file)
    return result


def _methods(outcome: FinalOutcome | None) -> list[MethodOutcome]:
    return [] if outcome is None else outcome.methods


def _figures(outcome: MethodOutcome) -> dict[str, Any]:
    choice = outcome.choice
    by_seed = sorted(choice.by_seed.items())
    return {
        "title": outcome.title,
        "head": dict(choice.head),
        "label": head_label(choice.head),
        "kind": kind_of_fusion(choice.head),
        "recipe": dict(choice.recipe),
        "n_parameters": by_seed[0][1].result.n_parameters,
        "validation": {str(seed): final.result.validation_score for seed, final in by_seed},
        "test": {str(seed): score for seed, score in sorted(outcome.test_scores.items())},
    }


def _check(job: Job, methods: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse figures that cannot be compared."""
    missing = [name for name in (SEARCHED, *job.plan.methods) if name not in methods]
    if missing:
        raise RegimeError(f"{job.name}: no training of {', '.join(missing)} came to an end. See {job.folder}.")
    larger = [name for name, of_method in methods.items() if of_method["n_parameters"] > job.plan.n_parameters]
    if larger:
        raise RegimeError(
            f"{job.name}: expected networks of at most {job.plan.n_parameters:,} parameters, found more in "
            f"{', '.join(larger)}. Raise the budget."
        )
