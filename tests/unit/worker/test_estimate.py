"""The random data of a dry run are data of the study's target."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mfas_optuna.datasets import check
from mfas_optuna.datasets.shape import DatasetShape
from mfas_optuna.features.cache import FeatureLayout
from mfas_optuna.target import METRICS, Target, TargetKind
from mfas_optuna.training.brief import BriefData
from mfas_optuna.worker.estimate import _random_dataset, _random_features


@pytest.mark.parametrize("kind", METRICS)
def test_random_data_are_sound_for_every_kind_of_target(kind: TargetKind) -> None:
    shape = DatasetShape({"a": (1, 4, 4), "b": (5,)}, Target(kind, ("x", "y", "z")), {"task": 4}, {"train": 60})
    rng = np.random.default_rng(0)
    dataset = _random_dataset(shape, 50, rng)
    check(dataset)
    assert dataset.target == shape.target
    assert len(np.unique(dataset.splits["train"].labels)) > 1
    layout = FeatureLayout.of_widths({"a": {"f": 2}, "b": {"f": 3}})
    features = _random_features(layout, {"train": 60, "validation": 20}, shape.target, rng)
    data = BriefData.load(features, standardize=True, device=torch.device("cpu"))
    assert data.loss.kind == kind
    assert len(data.train_labels) == 60
