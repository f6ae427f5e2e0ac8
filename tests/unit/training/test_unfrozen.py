"""Backbones and head trained together: what is learnt, what counts, and how it goes on after an interruption."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, r2_score
from torch import Tensor, nn

from mfas_optuna.datasets import Dataset
from mfas_optuna.datasets.augmentation import Changes
from mfas_optuna.errors import TrainingDiverged
from mfas_optuna.fusion.head import Head
from mfas_optuna.fusion.network import HeadOutputs
from mfas_optuna.spec import AugmentationSettings
from mfas_optuna.spec.final import UnfrozenSettings
from mfas_optuna.target import METRICS, TargetKind
from mfas_optuna.training import unfrozen
from mfas_optuna.training.fused import FusedModel
from mfas_optuna.training.labels import LabelScale
from mfas_optuna.training.resumable import OneCycleAdamW
from mfas_optuna.training.unfrozen import UnfrozenResult, score_fused, train_unfrozen
from tests.unit.training.test_fused import inputs_of, make_dataset, make_model

CPU = torch.device("cpu")
SETTINGS = UnfrozenSettings(epochs=10, patience=10, batch_size=24, learning_rate=1e-2, backbone_learning_rate=1e-2)


def train(model: FusedModel, dataset: Dataset | None = None, **changes: Any) -> UnfrozenResult:
    settings = SETTINGS.model_copy(update=changes.pop("settings", {}))
    arguments = {"device": CPU, "seed": 0, **changes}
    return train_unfrozen(model, dataset or make_dataset(), settings, **arguments)


def copy_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@pytest.fixture(autouse=True)
def told_by_steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfrozen, "_NEWS_S", math.inf)


# What is learnt.


@pytest.mark.parametrize("n_modalities", [2, 3])
def test_it_learns_what_needs_all_modalities_and_is_left_frozen_with_what_counts(n_modalities: int) -> None:
    dataset = make_dataset(n_modalities)
    model = make_model(dataset, outputs=["values"])
    result = train(model, dataset)
    assert len(result.epoch_scores) == 11
    assert result.epoch_scores[0] < 0.6  # Nothing was trained; with one modality less, 0.5 is what can be reached.
    assert result.score > 0.85
    assert result.score == result.epoch_scores[result.best_epoch] == max(result.epoch_scores)
    assert result.best_epoch == result.epoch_scores.index(result.score)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert_same(copy_of(model), result.state)
    split = dataset.splits["validation"]
    accuracy = (model(inputs_of(dataset)).fused_BC.argmax(dim=1).numpy() == split.labels).mean()
    assert result.score == pytest.approx(accuracy)
    scale = LabelScale.of_units("multiclass")
    assert score_fused(model.train(), split, "accuracy", CPU, scale) == result.score
    assert not model.training
    assert score_fused(model, dataset.splits["test"], "accuracy", CPU, scale) > 0.8


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_labels_and_values(kind: TargetKind) -> None:
    dataset = make_dataset(kind=kind)
    model = make_model(dataset)
    result = train(model, dataset, is_balanced=kind == "multilabel")
    assert result.score > 0.75
    split = dataset.splits["validation"]
    outputs = model(inputs_of(dataset)).fused_BC.numpy()
    if kind == "multilabel":
        expected = f1_score(split.labels, outputs > 0, average="weighted")
    else:
        labels = dataset.splits["train"].labels.astype(np.float64)
        expected = r2_score(split.labels, outputs * labels.std(axis=0) + labels.mean(axis=0))
    assert result.score == pytest.approx(expected, abs=1e-4)
    scale = LabelScale.of(kind, dataset.splits["train"].labels)
    assert score_fused(model, split, METRICS[kind][0], CPU, scale) == pytest.approx(result.score)


def test_gradients_reach_the_backbones_and_each_group_has_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[list[float]] = []
    step = OneCycleAdamW.step

    def spy(self: OneCycleAdamW) -> None:
        rates.append(self.learning_rates)
        assert all(parameter.grad is not None for parameter in self.parameters)
        step(self)

    monkeypatch.setattr(OneCycleAdamW, "step", spy)
    dataset = make_dataset()
    model = make_model(dataset, outputs=["image", "values"])
    before = copy_of(model)
    result = train(model, settings={"epochs": 4, "backbone_learning_rate": 1e-3})
    assert result.best_epoch > 0
    changed = {name for name, tensor in result.state.items() if not torch.equal(tensor, before[name])}
    assert changed == set(before) - {"shift_F", "scale_F"}  # Batch normalisation's statistics too.
    assert len(rates) == 40
    np.testing.assert_allclose([head / backbones for backbones, head in rates], 10.0)
    assert max(head for _, head in rates) == pytest.approx(1e-2)


def test_without_weight_the_modalities_own_outputs_do_not_learn() -> None:
    dataset = make_dataset()
    model = make_model(dataset, outputs=["values"])
    before = copy_of(model)
    result = train(model, settings={"epochs": 3, "auxiliary_weight": 0.0})
    assert result.best_epoch > 0
    own = {"own_heads.of_image.weight", "own_heads.of_image.bias"} | {
        f"backbones.of_{modality}.head.{name}" for modality in ("image", "values") for name in ("weight", "bias")
    }
    changed = {name for name, tensor in result.state.items() if not torch.equal(tensor, before[name])}
    assert changed == set(before) - {"shift_F", "scale_F"} - own


class Constant(Head):
    """Gives one constant as everything that it gives."""

    def __init__(self, n_auxiliary: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([0.5, 0.0, -0.5, 1.0]))
        self._n_auxiliary = n_auxiliary

    def forward(self, rows_BF: Tensor, dropout_generator: torch.Generator | None = None) -> HeadOutputs:
        outputs_BC = self.bias.expand(len(rows_BF), -1)
        return HeadOutputs(outputs_BC, (outputs_BC,) * self._n_auxiliary)


@pytest.mark.parametrize(("n_auxiliary", "weight"), [(0, 0.3), (2, 0.3), (3, 0.0)])
def test_the_loss_is_that_of_the_fused_output_and_weighted_ones(
    n_auxiliary: int, weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of the head's auxiliary losses counts once, those of the modalities once each."""
    dataset = make_dataset()
    model = make_model(dataset)
    model.head = Constant(n_auxiliary)
    labels = torch.from_numpy(dataset.splits["train"].labels)
    inputs = inputs_of(dataset, "train")
    own = model.train()(inputs).own
    entropy = nn.functional.cross_entropy
    fused = entropy(model.head.bias.detach().expand(len(labels), -1), labels).item()
    expected = fused + weight * (sum(entropy(z, labels).item() for z in own.values()) + fused * (n_auxiliary > 0))
    sums: list[float] = []
    finite = math.isfinite
    monkeypatch.setattr(math, "isfinite", lambda value: sums.append(value) or finite(value))
    train(model, settings={"epochs": 1, "batch_size": 240, "auxiliary_weight": weight})
    assert sums == [pytest.approx(expected, rel=1e-5)]


# What counts.


def test_training_that_makes_it_worse_leaves_it_as_it_was() -> None:
    dataset = make_dataset()
    model = make_model(dataset)
    good = train(model)
    result = train(model, settings={"learning_rate": 1.0, "backbone_learning_rate": 1.0, "epochs": 3})
    assert result.epoch_scores[0] == good.score > max(result.epoch_scores[1:])
    assert (result.best_epoch, result.score) == (0, good.score)
    assert_same(copy_of(model), good.state)


def scores_come(monkeypatch: pytest.MonkeyPatch, *scores: float) -> None:
    to_come = list(scores)
    monkeypatch.setattr(unfrozen, "_score", lambda *_: to_come.pop(0))


def test_it_ends_when_patience_does(monkeypatch: pytest.MonkeyPatch) -> None:
    scores_come(monkeypatch, 0.5, 0.6, 0.7, 0.7, 0.6, 0.8)
    told: list[tuple[int, int]] = []
    result = train(
        make_model(make_dataset()),
        settings={"patience": 2},
        progress=lambda _, done, total: told.append((done, total)),
    )
    assert result.epoch_scores == [0.5, 0.6, 0.7, 0.7, 0.6]
    assert (result.best_epoch, result.score) == (2, 0.7)  # The earlier of equal ones.
    assert told == [(0, 100), (20, 100), (100, 100)]


def test_the_weights_are_those_of_the_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    scores_come(monkeypatch, 0.1, 0.2, 0.1, 0.1, 0.2)
    model = make_model(make_dataset())
    result = train(model, settings={"epochs": 4})
    assert result.best_epoch == 1
    assert_same(copy_of(model), result.state)
    seen: list[dict[str, Tensor]] = []
    look = unfrozen._Training._look
    monkeypatch.setattr(unfrozen._Training, "_look", lambda self: (seen.append(copy_of(self._model)), look(self))[1])
    scores_come(monkeypatch, 0.1, 0.2, 0.1, 0.1, 0.2)
    train(make_model(make_dataset()), settings={"epochs": 4})
    assert_same(result.state, seen[1])


def test_a_loss_that_is_not_finite_ends_it() -> None:
    dataset = make_dataset(kind="regression")
    labels = dataset.splits["train"].labels.copy()
    labels[3] = np.nan
    dataset = replace(dataset, splits={**dataset.splits, "train": replace(dataset.splits["train"], labels=labels)})
    with pytest.raises(TrainingDiverged, match=r"nan in epoch 0.*backbone_learning_rate \(0.01\)") as caught:
        train(make_model(dataset), dataset)
    assert caught.value.epoch == 0


def test_the_seed_alone_decides() -> None:
    augmentation = AugmentationSettings(shift=1, flip=True)
    results = []
    for global_seed, seed in ((1, 0), (2, 0), (1, 1)):
        torch.manual_seed(global_seed)
        state = torch.get_rng_state()
        model = make_model(make_dataset(), dropout=0.3)
        results.append(train(model, settings={"epochs": 2}, seed=seed, augmentation=augmentation))
        assert torch.equal(torch.get_rng_state(), state)
    assert results[0].epoch_scores == results[1].epoch_scores
    assert_same(results[0].state, results[1].state)
    name = "head.network.head.weight"
    assert not torch.equal(results[0].state[name], results[2].state[name])


def test_samples_are_changed_anew_in_each_epoch_each_modality_in_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    shifts: list[np.ndarray] = []
    apply = Changes.apply

    def spy(self: Changes, samples: Tensor) -> Tensor:
        assert self.shifts_N2 is not None
        shifts.append(self.shifts_N2)
        return apply(self, samples)

    monkeypatch.setattr(Changes, "apply", spy)
    train(make_model(make_dataset()), settings={"epochs": 2}, augmentation=AugmentationSettings(shift=2))
    assert len(shifts) == 2 * 2 * 10  # Epochs, modalities and batches: scoring changes nothing.
    of_epochs = [np.concatenate(shifts[start : start + 20 : 2]) for start in (0, 1, 20)]
    assert not np.array_equal(of_epochs[0], of_epochs[1])
    assert not np.array_equal(of_epochs[0], of_epochs[2])


# Interruptions.

SMALL_CHANGES = AugmentationSettings(shift=1, flip=True)
INTERRUPTED = {"epochs": 5, "patience": 2}  # 10 batches an epoch.


class StopError(Exception):
    pass


def resumable(
    folder: Path | None, stop_at: int | None = None, **changes: Any
) -> tuple[UnfrozenResult | None, list[int]]:
    """Train with everything that draws or has a state; return the result, None when stopped, and what was told."""
    told: list[int] = []

    def progress(_: str, done: int, total: int) -> None:
        assert total == 50
        told.append(done)
        if done == stop_at:
            raise StopError

    arguments: dict[str, Any] = {"settings": INTERRUPTED, "augmentation": SMALL_CHANGES, **changes}
    model = make_model(make_dataset(), outputs=["values"], dropout=0.3)
    with contextlib.suppress(StopError):
        return train(model, checkpoint=folder, progress=progress, **arguments), told
    return None, told


@pytest.fixture
def at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfrozen, "CHECKPOINT_S", 0.0)
    monkeypatch.setattr(unfrozen, "WORK_FOR_WRITING", 0)
    monkeypatch.setattr(unfrozen, "_STEPS_BETWEEN_NEWS", 1)


@pytest.fixture(scope="module")
def uninterrupted() -> UnfrozenResult:
    result, _ = resumable(None)
    assert result is not None
    assert result.best_epoch > 0
    return result


def assert_result(found: UnfrozenResult | None, expected: UnfrozenResult) -> None:
    assert found is not None
    assert dataclasses.replace(found, state={}) == dataclasses.replace(expected, state={})
    assert_same(found.state, expected.state)


@pytest.mark.usefixtures("at_every_step")
@pytest.mark.parametrize("stops", [[0], [1, 14], [10, 29], [50]])
def test_an_interrupted_training_becomes_what_it_would_have_become(
    stops: list[int], tmp_path: Path, uninterrupted: UnfrozenResult
) -> None:
    """Stopped before the first step, within epochs, between two, and at the very end."""
    for stop in stops:
        assert resumable(tmp_path / "checkpoint", stop)[1][-1] == stop
    torch.manual_seed(99)  # Of no concern.
    result, told = resumable(tmp_path / "checkpoint")
    assert told[0] == stops[-1]
    assert_result(result, uninterrupted)


def test_patience_goes_on_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after three epochs of which the last two brought nothing: none is left to train."""
    scores = (0.5, 0.7, 0.6, 0.7)
    scores_come(monkeypatch, *scores)
    first, _ = resumable(tmp_path / "checkpoint")
    scores_come(monkeypatch)
    second, told = resumable(tmp_path / "checkpoint")
    assert first is not None
    assert first.epoch_scores == list(scores)
    assert told == [50]
    assert_result(second, first)


def test_ends_of_epochs_are_kept(tmp_path: Path, uninterrupted: UnfrozenResult) -> None:
    assert resumable(tmp_path / "checkpoint", 40)[0] is None
    assert {path.name for path in (tmp_path / "checkpoint").iterdir()} == {"checkpoint.json", "state-40.safetensors"}
    assert_result(resumable(tmp_path / "checkpoint")[0], uninterrupted)


@pytest.mark.parametrize("what", ["settings", "seed", "augmentation", "balance", "metric", "dataset", "weights"])
def test_a_checkpoint_of_another_training_is_not_gone_on_from(what: str, tmp_path: Path) -> None:
    other: dict[str, Any] = {
        "settings": {"settings": {**INTERRUPTED, "auxiliary_weight": 0.5}},
        "seed": {"seed": 5},
        "augmentation": {"augmentation": None},
        "balance": {"is_balanced": True},
        "metric": {"metric": "f1_macro"},
        "dataset": {"dataset": replace(make_dataset(), fingerprint="1" * 64)},
        "weights": {},
    }[what]
    folder = tmp_path / "checkpoint"
    resumable(folder, 20, **other)
    if what == "weights":
        index = json.loads((folder / "checkpoint.json").read_text())
        index["key"]["first_weights"] = "0" * 64
        (folder / "checkpoint.json").write_text(json.dumps(index))
    _, told = resumable(folder, stop_at=0)
    assert told == [0]
    assert not folder.exists()


_KILLED = """
import sys
from pathlib import Path
from mfas_optuna.training import unfrozen
from tests.unit.training import test_unfrozen as tests
unfrozen.CHECKPOINT_S, unfrozen.WORK_FOR_WRITING = 0.0, 0
tests.resumable(Path(sys.argv[1]))
"""


def test_a_killed_process_is_gone_on_from(tmp_path: Path, uninterrupted: UnfrozenResult) -> None:
    folder, root = tmp_path / "checkpoint", Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen([sys.executable, "-c", _KILLED, str(folder)], cwd=root, env=environment)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if _step_kept(folder) > 12:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.001)
    assert process.wait(timeout=10) == -signal.SIGKILL
    result, told = resumable(folder)
    assert told[-1] == 50
    assert told[0] > 0
    assert_result(result, uninterrupted)


def _step_kept(folder: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return int(json.loads((folder / "checkpoint.json").read_text())["values"]["step"])
    return 0
