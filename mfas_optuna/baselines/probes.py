"""Linear probes: how much a layer alone says about the target, for the price of one linear system."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mfas_optuna.features.cache import FeatureSet, Labels
from mfas_optuna.space import SearchSpace
from mfas_optuna.target import Metric, TargetKind
from mfas_optuna.training.labels import SMALLEST_DEVIATION, LabelScale
from mfas_optuna.training.metrics import make_scorer

MOST_ROWS = 5000
"""Training rows that a probe is fitted on at most, evenly spread."""
RIDGE = 1e-2
"""Penalty of the squared weights beside the mean squared error, on standardised columns."""

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RankedLayer:
    """A layer with the score of its probe.

    Attributes:
        modality: Whose layer.
        feature: Its name.
        score: The metric on the validation split.
    """

    modality: str
    feature: str
    score: float


def rank_layers(features: FeatureSet, metric: Metric) -> list[RankedLayer]:
    """Return all layers, those whose probe scores best on the validation split first; the earlier one among equals.

    A probe is ridge regression from the layer's pooled values to the classes as indicators, the labels as 0 and 1, or
    the standardised values. A label is predicted above the middle between the probe's means with and without it: a
    rare one would else never be predicted. Nothing is drawn: equal features give equal ranks. Source: decision 28.

    Args:
        features: Opened cache; its test split is not read.
        metric: One that suits the target.
    """
    probe = _Probe(features, metric)
    ranked = [
        RankedLayer(modality, feature, probe.score(modality, (feature,)))
        for modality in features.layout.spans
        for feature in features.layout.features(modality)
    ]
    return sorted(ranked, key=lambda layer: -layer.score)


def probe_choices(features: FeatureSet, metric: Metric, space: SearchSpace) -> dict[str, list[float]]:
    """Return the score of a probe of each choice of each modality of a space, in its order.

    Of a choice that takes nothing it is what a constant prediction scores. Sets of the best features are
    those that the probes of single features find.

    Args:
        features: Opened cache; its test split is not read.
        metric: One that suits the target.
        space: Of these features.
    """
    probe = _Probe(features, metric)
    alone = {
        modality: [probe.score(modality, (name,)) if name in names else 0.0 for name in space.choices[modality]]
        for modality, names in space.modalities.items()
    }
    ranked = space.ranked(alone)
    return {
        modality: [probe.score(modality, ranked.members(modality, choice)) for choice in range(len(choices))]
        for modality, choices in space.choices.items()
    }


class _Probe:
    """Fits probes on the same rows, and scores them on the validation split."""

    def __init__(self, features: FeatureSet, metric: Metric) -> None:
        self._features, self._metric = features, metric
        labels = features.labels("train")
        self._scale = LabelScale.of(features.target.kind, labels)
        self._rows = np.linspace(0, len(labels) - 1, min(len(labels), MOST_ROWS)).astype(np.int64)
        self._labels = labels[self._rows]
        self._validation = self._scale.tensor(features.labels("validation"), torch.device("cpu"))

    def score(self, modality: str, names: Iterable[str]) -> float:
        """Return the score of a probe of some features of a modality side by side."""
        train, held_out = (
            np.concatenate([np.zeros((len(rows), 0)), *(self._columns(rows, modality, name) for name in names)], axis=1)
            for rows in (self._features.matrix("train")[self._rows], self._features.matrix("validation"))
        )
        weights, bias = _fit(self._scale, train, self._labels, self._features.target.n_outputs)
        scorer = make_scorer(self._features.target.kind, self._metric)
        scorer.add(torch.from_numpy(held_out @ weights + bias).t()[None], self._validation)
        return scorer.scores()[0]

    def _columns(self, rows: npt.NDArray[Any], modality: str, feature: str) -> Doubles:
        columns = self._features.layout.columns(modality, feature)
        spread = self._features.std[columns]
        spread = np.where(spread > SMALLEST_DEVIATION, spread, 1.0)
        return np.asarray((rows[:, columns].astype(np.float64) - self._features.mean[columns]) / spread)


def _fit(scale: LabelScale, inputs_NF: Doubles, labels: Labels, n_outputs: int) -> tuple[Doubles, Doubles]:
    """Return weights (F, C) and bias (C,) of a probe."""
    kind: TargetKind = scale.kind
    if kind == "multiclass":
        return _ridge(inputs_NF, np.eye(n_outputs)[labels.astype(np.int64)])
    if kind == "regression":
        return _ridge(inputs_NF, scale.tensor(labels, torch.device("cpu")).double().numpy())
    is_present_NC = labels.astype(np.float64)
    weights_FC, _ = _ridge(inputs_NF, is_present_NC)
    outputs_NC = inputs_NF @ weights_FC
    midway_C = (_mean_of(outputs_NC, is_present_NC) + _mean_of(outputs_NC, 1 - is_present_NC)) / 2
    return weights_FC, -midway_C


def _ridge(inputs_NF: Doubles, goals_NC: Doubles) -> tuple[Doubles, Doubles]:
    """Return weights (F, C) and bias (C,) of ridge regression with a free bias."""
    mean_F, mean_C = inputs_NF.mean(axis=0), goals_NC.mean(axis=0)
    centred_NF = inputs_NF - mean_F
    gram_FF = centred_NF.T @ centred_NF / len(centred_NF) + RIDGE * np.eye(centred_NF.shape[1])
    weights_FC = np.linalg.solve(gram_FF, centred_NF.T @ (goals_NC - mean_C) / len(centred_NF))
    return weights_FC, mean_C - mean_F @ weights_FC


def _mean_of(values_NC: Doubles, weights_NC: Doubles) -> Doubles:
    """Return the weighted mean of each column, (C,); 0 where no row counts."""
    mean_C: Doubles = (values_NC * weights_NC).sum(axis=0) / np.maximum(weights_NC.sum(axis=0), 1)
    return mean_C
