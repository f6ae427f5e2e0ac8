"""Layers ranked by linear probes, further: rare labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mfas_optuna.baselines import rank_layers
from mfas_optuna.features.cache import open_features, write_features
from mfas_optuna.target import Metric, Target


@pytest.mark.parametrize("metric", ["f1_weighted", "f1_macro"])
def test_layers_are_told_apart_by_rare_labels(tmp_path: Path, metric: Metric) -> None:
    """At a threshold of one half none of these labels would be predicted, and all layers would score nearly 0."""
    rng = np.random.default_rng(0)
    matrices, labels = {}, {}
    for split, n in (("train", 2000), ("validation", 1000)):
        present = (rng.random((n, 4)) < 0.06).astype(np.uint8)
        layers = [
            rng.normal(size=(n, 4)),
            present + 0.9 * rng.normal(size=(n, 4)),
            present + 0.45 * rng.normal(size=(n, 4)),
        ]
        matrices[split] = np.concatenate(layers, axis=1).astype(np.float32)
        labels[split] = present
    write_features(
        tmp_path / "x",
        key={},
        card="",
        matrices=matrices,
        labels=labels,
        widths={"text": {"none": 4, "some": 4}, "image": {"most": 4}},
        target=Target("multilabel", ("a", "b", "c", "d")),
    )
    ranked = rank_layers(open_features(tmp_path / "x", {}, rebuild_command=""), metric)
    assert [layer.feature for layer in ranked] == ["most", "some", "none"]
    scores = [layer.score for layer in ranked]
    assert scores[0] > scores[1] + 0.1 > scores[2] + 0.15


def test_a_label_that_is_never_there_spoils_no_score(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    matrices, labels = {}, {}
    for split, n in (("train", 300), ("validation", 200)):
        present = np.zeros((n, 2), dtype=np.uint8)
        present[:, 0] = rng.random(n) < 0.5
        matrices[split] = (present + 0.1 * rng.normal(size=(n, 2))).astype(np.float32)
        labels[split] = present
    write_features(
        tmp_path / "x",
        key={},
        card="",
        matrices=matrices,
        labels=labels,
        widths={"text": {"a": 2}},
        target=Target("multilabel", ("there", "never")),
    )
    (layer,) = rank_layers(open_features(tmp_path / "x", {}, rebuild_command=""), "f1_weighted")
    assert layer.score > 0.99
