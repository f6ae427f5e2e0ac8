"""A draw of a cell as files: a study of given arrays, which every command of the program takes."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.regimes.errors import RegimeError
from benchmarks.regimes.makers import Drawn, draw_split
from benchmarks.regimes.pools import Pool
from benchmarks.regimes.settings import Cell, Plan, study_text
from mfas_optuna.datasets.dataset import SPLIT_NAMES

VERSION = 1
CARD = "cell.json"


def asked(cell: Cell, draw: int, plan: Plan) -> dict[str, object]:
    """Return what a draw follows from, as JSON values."""
    values = {"version": VERSION, "cell": asdict(cell), "draw": draw, "plan": asdict(plan)}
    result: dict[str, object] = json.loads(json.dumps(values))
    return result


def is_made(folder: Path, cell: Cell, draw: int, plan: Plan) -> bool:
    """Return whether a draw's files are there.

    Raises:
        RegimeError: There are some of other settings.
    """
    try:
        found = json.loads((folder / CARD).read_text(encoding="utf-8"))["asked"]
    except FileNotFoundError:
        return False
    wanted = asked(cell, draw, plan)
    if found != wanted:
        changed = ", ".join(key for key in wanted if found.get(key) != wanted[key])
        raise RegimeError(f"{folder}: made with another {changed}. Choose another --home, or remove the folder.")
    return True


def make(folder: Path, cell: Cell, draw: int, plan: Plan, pool: Pool) -> None:
    """Write the arrays, the study file and the card of a draw; the folder appears whole or not at all.

    Args:
        folder: Where.
        cell: Which.
        draw: Its number.
        plan: What will be done with it.
        pool: The pool of its regime.

    Raises:
        RegimeError: The pool has too few rows.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        layers: dict[str, list[str]] = {}
        for split, n in zip(SPLIT_NAMES, (cell.n_train, plan.n_validation, plan.n_test), strict=True):
            drawn = draw_split(cell.regime, pool, split, n, draw)
            _write_split(temporary / "data" / split, drawn)
            layers = {modality: list(of_modality) for modality, of_modality in drawn.layers.items()}
        (temporary / "study.toml").write_text(study_text(cell, draw, layers, plan), encoding="utf-8")
        card = {"asked": asked(cell, draw, plan), "pool": pool.fingerprint}
        (temporary / CARD).write_text(json.dumps(card, indent=2), encoding="utf-8")
        temporary.chmod(0o755)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_split(folder: Path, drawn: Drawn) -> None:
    for modality, layers in drawn.layers.items():
        (folder / modality).mkdir(parents=True)
        for name, rows_NF in layers.items():
            np.save(folder / modality / f"{name}.npy", rows_NF, allow_pickle=False)
    np.save(folder / "labels.npy", drawn.labels, allow_pickle=False)
