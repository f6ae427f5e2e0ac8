"""Linear probes: how much a layer alone says about the target, for the price of one linear system."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mfas_optuna.features.cache import FeatureSet, Floats, Labels
from mfas_optuna.target import Metric, TargetKind
from mfas_optuna.training.labels import SMALLEST_DEVIATION, LabelScale
from mfas_optuna.training.metrics import make_scorer

MOST_ROWS = 5000
"""Training rows that a probe is fitted on at most, evenly spread."""
RIDGE = 1e-2
"""Penalty of the squared weights beside the mean squared error, on standardised columns."""


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

    A probe is ridge regression from the layer's pooled values to the classes as indicators, the labels as -1 and 1, or
    the standardised values. Nothing is drawn: equal features give equal ranks.
    """
    kind = features.target.kind
    scale = LabelScale.of(kind, features.labels("train"))
    n_rows = len(features.labels("train"))
    rows = np.linspace(0, n_rows - 1, min(n_rows, MOST_ROWS)).astype(np.int64)
    goals_NC = _goals(scale, features.labels("train")[rows], features.target.n_outputs)
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
            weights, bias = _ridge(train, goals_NC)
            scorer = make_scorer(kind, metric)
            scorer.add(torch.from_numpy(held_out @ weights + bias).t()[None], validation)
            ranked.append(RankedLayer(modality, feature, scorer.scores()[0]))
    return sorted(ranked, key=lambda layer: -layer.score)


def _goals(scale: LabelScale, labels: Labels, n_outputs: int) -> npt.NDArray[np.float64]:
    kind: TargetKind = scale.kind
    if kind == "multiclass":
        return np.eye(n_outputs)[labels.astype(np.int64)]
    if kind == "multilabel":
        return 2.0 * labels.astype(np.float64) - 1.0
    return scale.tensor(labels, torch.device("cpu")).double().numpy()


def _ridge(
    inputs_NF: npt.NDArray[np.float64] | Floats, goals_NC: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return weights (F, C) and bias (C,) of ridge regression with a free bias."""
    mean_F, mean_C = inputs_NF.mean(axis=0), goals_NC.mean(axis=0)
    centred = inputs_NF - mean_F
    gram = centred.T @ centred / len(centred) + RIDGE * np.eye(centred.shape[1])
    weights = np.linalg.solve(gram, centred.T @ (goals_NC - mean_C) / len(centred))
    return weights, mean_C - mean_F @ weights
