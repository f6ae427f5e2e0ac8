"""Study files that `init` writes: what is in them is what is read."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from mfas_optuna.space import SpaceKind
from mfas_optuna.spec import StudySpec, load_spec
from mfas_optuna.spec.template import arrays_study, python_study
from mfas_optuna.target import METRICS, TargetKind


def read(folder: Path, text: str) -> StudySpec:
    file = folder / "mine.toml"
    file.write_text(text, encoding="utf-8")
    return load_spec(file)


@pytest.mark.parametrize("space", get_args(SpaceKind))
@pytest.mark.parametrize("target", METRICS)
def test_both_ways_in_have_the_space_that_was_asked_for(tmp_path: Path, target: TargetKind, space: SpaceKind) -> None:
    layers = {"image": {"early": 8, "late": 16}, "sound": {"fc": 4}}
    given = read(tmp_path, arrays_study("mine", "features", layers, target, space))
    own = read(tmp_path, python_study("mine", ["image", "sound"], target, space)[0])
    for spec in (given, own):
        assert spec.space.kind == space
        assert spec.dataset.target_kind == target
    assert given.search_space().modalities == {"image": ("early", "late"), "sound": ("fc",)}


@pytest.mark.parametrize(("widest", "budget"), [(8, 5_000), (2_048, 46_000)])
def test_given_features_get_a_budget_that_suits_their_widths(tmp_path: Path, widest: int, budget: int) -> None:
    """16 times what the widest layers have together, and what was measured at least."""
    layers = {"image": {"early": 4, "late": widest}, "text": {"last": 768 if widest > 8 else 8}}
    spec = read(tmp_path, arrays_study("mine", "features", layers, "multiclass"))
    assert spec.fusion.n_parameters == budget
    assert spec.fusion.fixed_width is None
