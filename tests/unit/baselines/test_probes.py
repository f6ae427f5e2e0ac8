"""Layers ranked by linear probes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from mfas_optuna.baselines import probes, rank_layers
from mfas_optuna.features.cache import OUTPUT, FeatureSet, open_features, write_features
from mfas_optuna.target import Metric, Target, TargetKind


def make(folder: Path, kind: TargetKind) -> FeatureSet:
    """Image's second layer says most, audio's says something, the others nothing."""
    rng = np.random.default_rng(0)
    matrices, labels = {}, {}
    for split, n in (("train", 600), ("validation", 200), ("test", 50)):
        values = rng.normal(size=(n, 2))
        rows = rng.normal(size=(n, 12)).astype(np.float32)
        rows[:, 0:2] += 0.5 * values
        rows[:, 7:9] += 5 + 3 * values
        rows[:, 9:12] += 50
        matrices[split] = rows
        if kind == "multiclass":
            labels[split] = (values[:, 0] > 0).astype(np.int64) + (values[:, 1] > 0)
        elif kind == "multilabel":
            labels[split] = (values > 0).astype(np.uint8)
        else:
            labels[split] = (1000 + 7 * values).astype(np.float32)
    write_features(
        folder,
        key={"kind": kind},
        card="",
        matrices=matrices,
        labels=labels,
        widths={"audio": {"first": 2, OUTPUT: 2}, "image": {"first": 3, "second": 2, OUTPUT: 3}},
        target=Target(kind, ("a", "b", "c")[: 3 if kind == "multiclass" else 2]),
    )
    return open_features(folder, {"kind": kind}, rebuild_command="")


@pytest.mark.parametrize(
    ("kind", "metric"), [("multiclass", "accuracy"), ("multilabel", "f1_macro"), ("regression", "r2")]
)
def test_the_layer_that_says_most_is_first(tmp_path: Path, kind: TargetKind, metric: Metric) -> None:
    features = make(tmp_path / "x", kind)
    ranked = rank_layers(features, metric)
    assert [(layer.modality, layer.feature) for layer in ranked] == [
        ("image", "second"),
        ("audio", "first"),
        ("image", "first"),
    ]
    assert ranked[0].score > ranked[1].score + 0.1 > ranked[2].score
    assert rank_layers(features, metric) == ranked


def test_a_probe_is_ridge_regression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "MOST_ROWS", 100)
    features = make(tmp_path / "x", "regression")
    rows = np.linspace(0, 599, 100).astype(np.int64)
    columns = slice(7, 9)

    def inputs(split: str) -> np.ndarray:
        return (features.matrix(split)[:, columns].astype(np.float64) - features.mean[columns]) / features.std[columns]

    labels = features.labels("train").astype(np.float64)
    scaled = (labels - labels.mean(axis=0)) / labels.std(axis=0)
    model = Ridge(alpha=probes.RIDGE * 100).fit(inputs("train")[rows], scaled[rows])
    held_out = (features.labels("validation").astype(np.float64) - labels.mean(axis=0)) / labels.std(axis=0)
    assert rank_layers(features, "r2")[0].score == pytest.approx(model.score(inputs("validation"), held_out), abs=1e-5)
