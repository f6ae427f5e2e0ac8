"""Linear probes: how much a layer alone says about the target, for the price of one linear system."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mfas_optuna.features.cache import FeatureSet, Labels
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
    kind = features.target.kind
    scale = LabelScale.of(kind, features.labels("train"))
    n_rows = len(features.labels("train"))
    rows = np.linspace(0, n_rows - 1, min(n_rows, MOST_ROWS)).astype(np.int64)
    labels = features.labels("train")[rows]
    validation = scale.tensor(features.labels("validation"), torch.device("cpu"))
    ranked = []
    for modality in features.layout.spans:
        for feature in features.layout.features(modality):
            columns = features.layout.columns(modality, feature)
            shift, spread = features.mean[columns], features.std[columns]
            spread = np.where(spread > SMALLEST_DEVIATION, spread, 1.0)
            train, held_out = (
                ((features.matrix(split)[:, columns] if split != "train" else features.matrix(split)[rows, columns])
                 .astype(np.float64) - shift) / spread
                for split in ("train", "validation")
            )  # fmt: skip
            weights, bias = _fit(scale, train, labels, features.target.n_outputs)
            scorer = make_scorer(kind, metric)
            scorer.add(torch.from_numpy(held_out @ weights + bias).t()[None], validation)
            ranked.append(RankedLayer(modality, feature, scorer.scores()[0]))
    return sorted(ranked, key=lambda layer: -layer.score)


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
