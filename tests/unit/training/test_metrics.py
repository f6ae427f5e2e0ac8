"""Scores against scikit-learn's, for several networks in batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, r2_score
from torch import Tensor

from mfas_optuna.target import METRICS, Metric, TargetKind
from mfas_optuna.training.metrics import make_scorer

N_NETWORKS, N_SAMPLES = 3, 101


def scores_in_batches(kind: TargetKind, metric: Metric, outputs_NCS: Tensor, labels: Tensor) -> list[float]:
    scorer = make_scorer(kind, metric)
    for start in range(0, len(labels), 32):
        scorer.add(outputs_NCS[:, :, start : start + 32], labels[start : start + 32])
    return scorer.scores()


def random_outputs(n_outputs: int, seed: int) -> Tensor:
    return torch.randn(N_NETWORKS, n_outputs, N_SAMPLES, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("metric", METRICS["multiclass"])
@pytest.mark.parametrize("n_classes", [2, 7])
def test_classes(metric: Metric, n_classes: int) -> None:
    """Of the last class there is no sample, and the last network never predicts the first."""
    outputs = random_outputs(n_classes, 0)
    outputs[2, 0] = -100
    labels = torch.randint(max(n_classes - 1, 1), (N_SAMPLES,), generator=torch.Generator().manual_seed(1))
    found = scores_in_batches("multiclass", metric, outputs, labels)
    for logits, score in zip(outputs, found, strict=True):
        predicted = logits.argmax(dim=0)
        average = metric.removeprefix("f1_")
        expected = (
            accuracy_score(labels, predicted)
            if metric == "accuracy"
            else f1_score(labels, predicted, average=average, labels=range(n_classes), zero_division=0)
        )
        assert score == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS["multilabel"])
def test_labels(metric: Metric) -> None:
    """The first label is never there, the second never predicted by the first network, the third neither."""
    outputs = random_outputs(5, 2)
    labels = torch.randint(2, (N_SAMPLES, 5), generator=torch.Generator().manual_seed(3)).float()
    labels[:, [0, 2]] = 0
    outputs[0, [1, 2]] = -1
    outputs[1, 3] = 0  # Above 0 is predicted, not 0 itself.
    found = scores_in_batches("multilabel", metric, outputs, labels)
    for logits, score in zip(outputs, found, strict=True):
        expected = f1_score(labels, logits.t() > 0, average=metric.removeprefix("f1_"), zero_division=0)
        assert score == pytest.approx(expected, abs=1e-12)
        assert score > 0


def test_no_label_at_all_scores_nothing() -> None:
    assert scores_in_batches("multilabel", "f1_weighted", random_outputs(2, 4), torch.zeros(N_SAMPLES, 2)) == [0, 0, 0]


@pytest.mark.parametrize("offset", [0.0, 3000.0])
def test_values(offset: float) -> None:
    """A large offset would drown the deviation if squares were summed as they are."""
    outputs = random_outputs(3, 5) + offset
    labels = outputs[1].t() + 0.3 * random_outputs(3, 6)[0].t()
    found = scores_in_batches("regression", "r2", outputs, labels)
    for values, score in zip(outputs, found, strict=True):
        assert score == pytest.approx(r2_score(labels.double(), values.t().double()), abs=1e-9)
    assert found[1] > 0.8 > 0 > found[0]


def test_a_value_that_never_changes() -> None:
    labels = torch.tensor([[7.1, 1.0], [7.1, 2.0], [7.1, 4.0]])
    met, missed = labels.t(), labels.t() + torch.tensor([[0.5], [0.0]])
    found = scores_in_batches("regression", "r2", torch.stack([met, missed]), labels)
    assert found == [1.0, 0.5]
    assert found == [r2_score(labels, values.t()) for values in (met, missed)]


@pytest.mark.parametrize("kind", METRICS)
def test_scores_do_not_depend_on_the_unit_of_values_nor_on_batches(kind: TargetKind) -> None:
    generator = torch.Generator().manual_seed(8)
    outputs = random_outputs(4, 7)
    labels = {
        "multiclass": torch.randint(4, (N_SAMPLES,), generator=generator),
        "multilabel": torch.randint(2, (N_SAMPLES, 4), generator=generator).float(),
        "regression": torch.randn(N_SAMPLES, 4, generator=generator),
    }[kind]
    for metric in METRICS[kind]:
        whole = make_scorer(kind, metric)
        whole.add(outputs, labels)
        assert whole.scores() == pytest.approx(scores_in_batches(kind, metric, outputs, labels), abs=1e-12)
    if kind == "regression":
        scaled = scores_in_batches(kind, "r2", 250 * outputs - 3, 250 * labels - 3)
        assert scaled == pytest.approx(scores_in_batches(kind, "r2", outputs, labels), abs=1e-5)
        assert np.mean(scaled) < 0
