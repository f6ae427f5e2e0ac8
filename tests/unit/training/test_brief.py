"""Brief training: deterministic, scored each epoch, loud when it diverges."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from sklearn.metrics import f1_score, r2_score

from mfas_optuna import Architecture, SearchSpace
from mfas_optuna.errors import TrainingDiverged
from mfas_optuna.features.cache import FeatureLayout
from mfas_optuna.fusion.network import FusionNetwork
from mfas_optuna.space import FusionLayer
from mfas_optuna.spec import BriefTraining
from mfas_optuna.target import Metric, Target, TargetKind
from mfas_optuna.training.brief import BriefData, BriefResult, Member, train_briefly, train_jointly

SPACE = SearchSpace({"audio": ["a1", "a2"], "image": ["i1"]}, ["relu", "sigmoid"], max_depth=2)
LAYOUT = FeatureLayout.of_widths({"audio": {"a1": 2, "a2": 3}, "image": {"i1": 4}})
NETWORK = Architecture((FusionLayer((1, 0), 0), FusionLayer((0, 0), 1)))
SETTINGS = BriefTraining(epochs=3, batch_size=16, learning_rate=1e-2)


def make_data(n_train: int = 200, n_validation: int = 60, *, device: str = "cpu") -> BriefData:
    """Classes that need both modalities: the sign of a product."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(n_train + n_validation, LAYOUT.n_columns, generator=generator)
    labels = ((rows[:, 2] + rows[:, 5]) > 0).long()
    on = torch.device(device)
    return BriefData(
        LAYOUT,
        rows[:n_train].to(on), labels[:n_train].to(on), rows[n_train:].to(on), labels[n_train:].to(on),
    )  # fmt: skip


def make_network(seed: int = 0, dropout: float = 0.0, architecture: Architecture = NETWORK) -> FusionNetwork:
    return FusionNetwork(
        architecture, LAYOUT.widths(SPACE), SPACE.activations, width=8, n_outputs=2, dropout=dropout,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip


def train(
    settings: BriefTraining = SETTINGS,
    *,
    seed: int = 1,
    dropout: float = 0.0,
    data: BriefData | None = None,
    **extra: Any,
) -> tuple[FusionNetwork, BriefResult]:
    network = make_network(dropout=dropout)
    result = train_briefly(
        network, NETWORK, data or make_data(), SPACE, settings, generator=torch.Generator().manual_seed(seed), **extra
    )
    return network, result


def test_it_learns() -> None:
    _, result = train(SETTINGS.model_copy(update={"epochs": 15}))
    assert result.score > 0.9


def test_scores_are_those_of_the_network_at_the_end_of_each_epoch() -> None:
    data, told = make_data(), []
    network = make_network()
    inputs = [
        torch.cat([data.validation_NF[:, columns] for (columns,) in of_layer], dim=1)
        for of_layer in data.reads(NETWORK, SPACE)
    ]

    def check(epoch: int, score: float) -> None:
        network.eval()
        with torch.inference_mode():
            hits = (network(inputs).argmax(dim=1) == data.validation_labels).float().mean()
        told.append(epoch)
        assert score == pytest.approx(float(hits))

    result = train_briefly(
        network, NETWORK, data, SPACE, SETTINGS, generator=torch.Generator().manual_seed(1), on_epoch=check
    )
    assert told == [0, 1, 2]
    assert len(result.epoch_scores) == 3


def test_columns_are_those_of_each_layers_features() -> None:
    assert make_data().reads(NETWORK, SPACE) == [[(slice(2, 5),), (slice(5, 9),)], [(slice(0, 2),), (slice(5, 9),)]]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_same_seed_same_result_bit_for_bit_whatever_the_number_of_threads(dropout: float) -> None:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        _, first = train(dropout=dropout)
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        torch.manual_seed(123)
        state = torch.get_rng_state()
        _, second = train(dropout=dropout)
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        torch.set_num_threads(n_threads)
    assert first.epoch_scores == second.epoch_scores
    for one, other in zip(first.layer_states, second.layer_states, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in ("weight", "bias"))
    _, third = train(dropout=dropout, seed=2)
    assert not torch.equal(first.layer_states[0]["weight"], third.layer_states[0]["weight"])


def test_dropout_changes_the_training_and_not_the_scoring() -> None:
    _, without = train()
    _, with_dropout = train(dropout=0.3)
    assert not torch.equal(without.layer_states[0]["weight"], with_dropout.layer_states[0]["weight"])


@pytest.mark.parametrize("keep", ["best", "last"])
def test_which_epoch_counts(keep: str) -> None:
    """With a huge rate the scores go up and down, so that the best epoch is not the last."""
    settings = BriefTraining(epochs=6, batch_size=16, learning_rate=1.0, schedule="constant", keep=keep)
    network, result = train(settings)
    scores = result.epoch_scores
    assert scores.index(max(scores)) not in (0, 5)
    assert result.best_epoch == (scores.index(max(scores)) if keep == "best" else 5)
    assert result.score == scores[result.best_epoch]
    is_final = torch.equal(result.layer_states[0]["weight"], network.layers[0].weight)
    assert is_final == (keep == "last")


def test_the_last_batch_may_be_smaller_and_one_batch_may_hold_all() -> None:
    for batch_size in (7, 199, 200, 1000):
        _, result = train(SETTINGS.model_copy(update={"batch_size": batch_size}))
        assert len(result.epoch_scores) == 3


def test_a_rate_without_bounds_diverges_loudly() -> None:
    with pytest.raises(TrainingDiverged, match=r"training\.learning_rate \(3e\+38\)") as raised:
        train(SETTINGS.model_copy(update={"learning_rate": 3e38}))
    assert raised.value.epoch == 0


def test_weights_that_are_not_finite_after_the_last_step_are_noticed() -> None:
    """One step: its loss was finite, its update was not."""
    settings = BriefTraining(epochs=1, batch_size=200, learning_rate=3e38, weight_decay=10.0, schedule="constant")
    with pytest.raises(TrainingDiverged, match="weights became NaN or infinite in epoch 1"):
        train(settings)


def test_nan_in_the_rows_is_noticed() -> None:
    data = make_data()
    data.train_NF[5, 2] = math.nan
    with pytest.raises(TrainingDiverged, match="loss became NaN"):
        train(data=data)


def test_what_the_callback_raises_ends_the_training() -> None:
    def prune(epoch: int, score: float) -> None:
        if epoch == 1:
            raise optuna.TrialPruned

    with pytest.raises(optuna.TrialPruned):
        train(on_epoch=prune)


# A group.

GROUP = (
    NETWORK,
    Architecture((FusionLayer((1, 0), 1),)),
    Architecture((FusionLayer((0, 0), 0), FusionLayer((1, 0), 0))),
)
Hook = Callable[[int, float], None]


def doubled(data: BriefData) -> BriefData:
    return replace(data, train_NF=data.train_NF.double(), validation_NF=data.validation_NF.double())


def train_group(
    which: Sequence[int], *, dropout: float = 0.0, spoilt: int | None = None, hooks: dict[int, Hook] | None = None
) -> list[BriefResult | Exception]:
    """Train some of GROUP together in double precision, on the batches that any such group gets."""
    members = []
    for index in which:
        network = make_network(index, dropout, GROUP[index]).double()
        if index == spoilt:
            with torch.no_grad():
                network.layers[0].weight[0, 0] = math.nan
        members.append(Member(network, GROUP[index], torch.Generator().manual_seed(index), (hooks or {}).get(index)))
    order = torch.Generator().manual_seed(9)
    return train_jointly(members, doubled(make_data()), SPACE, SETTINGS, order=order)


def assert_equal(found: BriefResult | Exception, expected: BriefResult | Exception) -> None:
    """Equal scores, and weights to 1e-10."""
    assert isinstance(found, BriefResult)
    assert isinstance(expected, BriefResult)
    assert (found.epoch_scores, found.best_epoch) == (expected.epoch_scores, expected.best_epoch)
    for one, other in zip(found.layer_states, expected.layer_states, strict=True):
        assert all(torch.allclose(one[name], other[name], rtol=0, atol=1e-10) for name in ("weight", "bias"))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_group_becomes_what_each_becomes_alone(dropout: float) -> None:
    together = train_group(range(3), dropout=dropout)
    for index in range(3):
        (alone,) = train_group([index], dropout=dropout)
        assert_equal(together[index], alone)


def prune(epoch: int, _: float) -> None:
    if epoch == 1:
        raise optuna.TrialPruned


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_pruned_network_leaves_the_group_and_the_others_go_on(dropout: float) -> None:
    outcomes = train_group(range(3), dropout=dropout, hooks={1: prune})
    assert isinstance(outcomes[1], optuna.TrialPruned)
    for index in (0, 2):
        (alone,) = train_group([index], dropout=dropout)
        assert_equal(outcomes[index], alone)


def test_a_diverging_network_fails_alone() -> None:
    outcomes = train_group(range(3), spoilt=2)
    assert isinstance(outcomes[2], TrainingDiverged)
    for index in (0, 1):
        (alone,) = train_group([index])
        assert_equal(outcomes[index], alone)


def test_when_all_have_left_it_ends() -> None:
    epochs: list[int] = []

    def note_and_prune(epoch: int, score: float) -> None:
        epochs.append(epoch)
        prune(epoch, score)

    outcomes = train_group(range(3), hooks=dict.fromkeys(range(3), note_and_prune))
    assert all(isinstance(outcome, optuna.TrialPruned) for outcome in outcomes)
    assert epochs == [0, 0, 0, 1, 1, 1]


class Rows:
    """Stands for an opened feature cache."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.layout = LAYOUT
        self.target = Target.of_classes(2)
        self.arrays: dict[str, object] = {}
        self._rows = {
            split: rng.normal(5, 3, (n, 9)).astype(np.float32) for split, n in (("train", 50), ("validation", 9))
        }
        for rows in self._rows.values():
            rows[:, 4] = 7.0  # A constant column.
        self.mean, self.std = self._rows["train"].mean(axis=0), self._rows["train"].std(axis=0)

    def matrix(self, split: str) -> np.ndarray:
        return self._rows[split]

    def labels(self, split: str) -> np.ndarray:
        return np.zeros(len(self._rows[split]), dtype=np.int64)


@pytest.mark.parametrize("standardize", [True, False])
def test_columns_are_standardised_by_the_training_split(standardize: bool) -> None:
    rows = Rows()
    data = BriefData.load(rows, standardize=standardize, device=torch.device("cpu"))  # type: ignore[arg-type]
    if not standardize:
        assert np.array_equal(data.train_NF.numpy(), rows.matrix("train"))
        return
    varied = [column for column in range(9) if column != 4]
    assert data.train_NF[:, varied].mean(dim=0).abs().max() < 1e-5
    assert data.train_NF[:, varied].std(dim=0, unbiased=False) == pytest.approx(np.ones(8), abs=1e-5)
    assert data.train_NF[:, 4].abs().max() == 0
    expected = (rows.matrix("validation") - rows.mean) / np.where(rows.std > 1e-6, rows.std, 1)
    assert np.allclose(data.validation_NF.numpy(), expected, atol=1e-5)


# Targets of other kinds.


class ManyRows(Rows):
    """Rows whose target are labels or values that follow from them."""

    def __init__(self, kind: TargetKind) -> None:
        super().__init__()
        self.target = Target(kind, ("first", "second"))
        rng = np.random.default_rng(1)
        self._rows = {
            split: rng.normal(size=(n, 9)).astype(np.float32) for split, n in (("train", 300), ("validation", 90))
        }
        self.mean, self.std = self._rows["train"].mean(axis=0), self._rows["train"].std(axis=0)

    def labels(self, split: str) -> np.ndarray:
        rows = self._rows[split]
        values = np.stack([rows[:, 2] + rows[:, 5], rows[:, 3] - 1.3], axis=1)
        return (values > 0).astype(np.uint8) if self.target.kind == "multilabel" else 1e4 + 100 * values


@pytest.mark.parametrize(("kind", "metric"), [("multilabel", "f1_macro"), ("regression", "r2")])
def test_labels_and_values_are_learnt_and_scored(kind: TargetKind, metric: Metric) -> None:
    rows = ManyRows(kind)
    data = BriefData.load(
        rows,
        standardize=True,
        device=torch.device("cpu"),
        metric=metric,
        is_balanced=kind == "multilabel",  # type: ignore[arg-type]
    )
    scores: list[float] = []
    network = make_network()
    inputs = [
        torch.cat([data.validation_NF[:, columns] for (columns,) in of_layer], dim=1)
        for of_layer in data.reads(NETWORK, SPACE)
    ]

    def check(_: int, score: float) -> None:
        outputs, labels = network.eval()(inputs).detach().numpy(), rows.labels("validation")
        if kind == "multilabel":
            expected = f1_score(labels, outputs > 0, average="macro")
        else:
            of_train = rows.labels("train").astype(np.float64)
            expected = r2_score(labels, outputs * of_train.std(axis=0) + of_train.mean(axis=0))
        assert score == pytest.approx(expected, abs=1e-4)
        scores.append(score)

    settings = SETTINGS.model_copy(update={"epochs": 25, "learning_rate": 3e-2})
    train_briefly(network, NETWORK, data, SPACE, settings, generator=torch.Generator().manual_seed(0), on_epoch=check)
    assert len(scores) == 25
    assert max(scores) > 0.85 > scores[0]


def test_a_score_that_is_not_finite_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are finite, but whose outputs are not."""
    monkeypatch.setattr("mfas_optuna.training.brief._Group._score", lambda group: [-math.inf])
    with pytest.raises(TrainingDiverged, match="The score became NaN or infinite in epoch 1"):
        train()


def test_the_metric_is_the_first_that_suits_where_none_is_named() -> None:
    cpu = torch.device("cpu")
    found = [
        BriefData.load(rows, standardize=True, device=cpu)  # type: ignore[arg-type]
        for rows in (Rows(), ManyRows("multilabel"), ManyRows("regression"))
    ]
    assert [data.metric for data in found] == ["accuracy", "f1_weighted", "r2"]
    assert [data.loss.weight_C for data in found] == [None] * 3
    values = found[2].train_labels
    assert values.mean(dim=0).abs().max() < 1e-5
    assert values.std(dim=0, unbiased=False) == pytest.approx(np.ones(2), abs=1e-5)


# Views.


def test_each_epoch_draws_one_of_the_views() -> None:
    data = make_data()
    seen: list[int] = []
    views = replace(data, more_views_NF=(data.train_NF + 1, data.train_NF + 2))
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        seen.append(round(float((views.draw_view(generator) - data.train_NF).mean())))
    # Uniform over three: each within 5 standard deviations of 100, a false alarm in two million.
    assert all(abs(seen.count(view) - 100) < 5 * (300 * 2 / 9) ** 0.5 for view in range(3))


def test_without_further_views_nothing_is_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    assert make_data().draw_view(generator) is not None
    assert torch.equal(generator.get_state(), state)


def test_training_reads_the_views() -> None:
    """Nine of ten views are noise here."""
    data = make_data()
    settings = SETTINGS.model_copy(update={"epochs": 15})
    noise = torch.randn(data.train_NF.shape, generator=torch.Generator().manual_seed(5))
    _, alone = train(settings, data=data)
    _, mixed = train(settings, data=replace(data, more_views_NF=(noise,) * 9))
    assert alone.score > 0.9
    assert mixed.epoch_scores != alone.epoch_scores
