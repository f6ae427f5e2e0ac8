"""A head trained to the end on cached features."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mfas_optuna.errors import TrainingDiverged
from mfas_optuna.features.cache import FeatureLayout
from mfas_optuna.fusion.head import Head
from mfas_optuna.fusion.losses import Loss
from mfas_optuna.fusion.network import HeadOutputs
from mfas_optuna.spec import FinalSettings, Recipe
from mfas_optuna.training import final
from mfas_optuna.training.brief import BriefData
from mfas_optuna.training.final import HeadResult, head_loss, score_head, train_head

LAYOUT = FeatureLayout.of_widths({"audio": {"a": 3}, "image": {"b": 3}})
SETTINGS = FinalSettings(epochs=8, patience=8, batch_size=32)
RECIPE = Recipe(learning_rate=1e-2, dropout=0.2)


class Linear(Head):
    """Linear in all columns, with an output of the first three beside it, and dropout on the columns."""

    def __init__(self, seed: int = 0, dropout: float = 0.2) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.fused, self.first = nn.utils.skip_init(nn.Linear, 6, 3), nn.utils.skip_init(nn.Linear, 3, 3)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.3, 0.3, generator=generator)
        self.dropout = dropout

    def forward(self, rows_BF: Tensor, dropout_generator: torch.Generator | None = None) -> HeadOutputs:
        if self.training and self.dropout:
            assert dropout_generator is not None
            rows_BF = rows_BF * torch.empty_like(rows_BF).bernoulli_(1 - self.dropout, generator=dropout_generator)
        return HeadOutputs(self.fused(rows_BF), (self.first(rows_BF[:, :3]),))


class Nothing(Head):
    """Gives the first three columns; nothing to learn."""

    def forward(self, rows_BF: Tensor, dropout_generator: torch.Generator | None = None) -> HeadOutputs:
        return HeadOutputs(rows_BF[:, :3])


def make_data(n_views: int = 0) -> BriefData:
    generator = torch.Generator().manual_seed(0)

    def part(n: int) -> tuple[Tensor, Tensor]:
        rows_NF = torch.randn(n, 6, generator=generator)
        return rows_NF, (rows_NF[:, :3] + 2 * rows_NF[:, 3:]).argmax(dim=1)

    (train_NF, train_labels), (validation_NF, validation_labels) = part(300), part(100)
    views = tuple(train_NF + 0.1 * torch.randn(300, 6, generator=generator) for _ in range(n_views))
    return BriefData(LAYOUT, train_NF, train_labels, validation_NF, validation_labels, more_views_NF=views)


def assert_equal(found: HeadResult, expected: HeadResult) -> None:
    assert found.epoch_scores == expected.epoch_scores
    assert found.best_epoch == expected.best_epoch
    assert all(torch.equal(found.state[name], tensor) for name, tensor in expected.state.items())


def test_it_learns_and_leaves_the_best_epoch() -> None:
    head, data = Linear(), make_data()
    result = train_head(head, data, SETTINGS, RECIPE, seed=0)
    assert len(result.epoch_scores) == 8
    assert result.score == max(result.epoch_scores) == result.epoch_scores[result.best_epoch] > 0.8
    assert score_head(head, data.validation_NF, data.validation_labels, Loss(), "accuracy") == result.score
    expected = (head(data.validation_NF).fused_BC.argmax(dim=1) == data.validation_labels).double().mean().item()
    assert result.score == pytest.approx(expected)


def test_the_seed_alone_decides() -> None:
    first, again, other = (train_head(Linear(), make_data(2), SETTINGS, RECIPE, seed=seed) for seed in (0, 0, 1))
    assert_equal(again, first)
    assert not torch.equal(other.state["fused.weight"], first.state["fused.weight"])


@pytest.mark.parametrize("stop_after", [1, 4, 7])
def test_it_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int) -> None:
    monkeypatch.setattr(final, "CHECKPOINT_S", 0.0)
    whole = train_head(Linear(), make_data(2), SETTINGS, RECIPE, seed=0)
    begun: list[int] = []

    def stop(_: str, epoch: int, n_epochs: int) -> None:
        assert n_epochs == 8
        begun.append(epoch)
        if len(begun) == stop_after + 1:
            raise KeyboardInterrupt

    folder = tmp_path / "partial"
    with pytest.raises(KeyboardInterrupt):
        train_head(Linear(), make_data(2), SETTINGS, RECIPE, seed=0, checkpoint=folder, progress=stop)
    resumed = train_head(Linear(), make_data(2), SETTINGS, RECIPE, seed=0, checkpoint=folder, progress=stop)
    assert begun == [*range(1, stop_after + 2), *range(stop_after + 1, 9)]
    assert_equal(resumed, whole)


def test_a_checkpoint_of_another_training_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(final, "CHECKPOINT_S", 0.0)
    whole = train_head(Linear(), make_data(), SETTINGS, RECIPE, seed=0)
    with caplog.at_level(logging.INFO):
        for changes in ({"seed": 1}, {"key": {"features": "others"}}):
            train_head(Linear(), make_data(), SETTINGS, RECIPE, **{"seed": 0, "checkpoint": tmp_path / "x", **changes})
            found = train_head(Linear(), make_data(), SETTINGS, RECIPE, seed=0, checkpoint=tmp_path / "x")
            assert_equal(found, whole)
    assert sum("of another training" in record.message for record in caplog.records) >= 2


def test_it_ends_when_patience_is_out() -> None:
    settings = SETTINGS.model_copy(update={"epochs": 500, "patience": 3})
    result = train_head(Linear(), make_data(), settings, RECIPE, seed=0)
    assert len(result.epoch_scores) == result.best_epoch + 1 + 3 < 500


def test_without_anything_to_learn_it_is_scored_only() -> None:
    data = make_data()
    result = train_head(Nothing(), data, SETTINGS, RECIPE, seed=0)
    expected = (data.validation_NF[:, :3].argmax(dim=1) == data.validation_labels).double().mean().item()
    assert (result.epoch_scores, result.best_epoch, result.state) == ([pytest.approx(expected)], 0, {})


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_auxiliary_losses_count_by_their_weight(weight: float) -> None:
    data = make_data()
    outputs, labels = Linear(dropout=0.0)(data.train_NF), data.train_labels
    expected = nn.functional.cross_entropy(outputs.fused_BC, labels)
    expected = expected + weight * nn.functional.cross_entropy(outputs.auxiliary[0], labels)
    assert head_loss(outputs, labels, Loss(), weight).item() == pytest.approx(expected.item())
    settings = SETTINGS.model_copy(update={"auxiliary_weight": weight})
    result = train_head(Linear(), data, settings, RECIPE, seed=0)
    assert torch.equal(result.state["first.weight"], Linear().first.weight) == (weight == 0.0)


def test_a_rate_without_bounds_diverges_loudly() -> None:
    with pytest.raises(TrainingDiverged, match="in epoch 1"):
        train_head(Linear(), make_data(), SETTINGS, Recipe(learning_rate=1e38), seed=0)
