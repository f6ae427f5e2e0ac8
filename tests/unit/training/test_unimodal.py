"""Training one backbone on a task that it can learn in a second."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, r2_score

from mfas_optuna.backbones import build_backbone
from mfas_optuna.datasets import Dataset, Split
from mfas_optuna.datasets.augmentation import Changes
from mfas_optuna.errors import OutputShapeError, TrainingDiverged
from mfas_optuna.spec import AugmentationSettings, LeNetSettings, UnimodalTraining
from mfas_optuna.target import METRICS, Target, TargetKind
from mfas_optuna.training import unimodal
from mfas_optuna.training.unimodal import UnimodalResult, chance_score, score_unimodal, train_unimodal

CPU = torch.device("cpu")
SETTINGS = UnimodalTraining(epochs=4, batch_size=32, learning_rate=1e-2)


def make_split(n: int, seed: int, dtype: type[np.generic]) -> Split:
    """Bars whose direction is the class, in noise; read-only, as memory-mapped arrays are."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    images = rng.random((n, 1, 8, 8)) * 0.5
    for row, label in enumerate(labels):
        position = rng.integers(8)
        images[row, 0, position if label else slice(None), slice(None) if label else position] += 0.5
    array = (images * 255).astype(dtype) if dtype is np.uint8 else images.astype(dtype)
    array.setflags(write=False)
    return Split({"image": array}, labels.astype(np.int64))


def make_dataset(dtype: type[np.generic] = np.uint8) -> Dataset:
    splits = {name: make_split(n, n, dtype) for name, n in (("train", 300), ("validation", 101), ("test", 99))}
    return Dataset("bars", "Bars.", Target.of_classes(2), splits, "0" * 64)


def make_model() -> torch.nn.Module:
    settings = LeNetSettings(kind="lenet", channels=[4, 8], features=["conv1"])
    return build_backbone(
        settings,
        sample_shape=(1, 8, 8),
        n_outputs=2,
        generator=torch.Generator().manual_seed(0),
        folder=Path(),
    )


def train(**changes: int) -> tuple[torch.nn.Module, UnimodalResult]:
    model = make_model()
    settings = SETTINGS.model_copy(update=changes)
    return model, train_unimodal(model, make_dataset(), "image", settings, device=CPU)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_it_learns_and_is_left_frozen(dtype: type[np.generic]) -> None:
    model = make_model()
    result = train_unimodal(model, make_dataset(dtype), "image", SETTINGS, device=CPU)
    assert result.validation_score > 0.9
    assert result.test_score > 0.9
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_scores_are_the_accuracies_of_the_model_left_behind() -> None:
    model, result = train()
    split = make_dataset().splits["validation"]
    x = torch.tensor(split.inputs["image"]).float() / 255
    accuracy = (model(x).argmax(dim=1).numpy() == split.labels).mean()
    assert result.validation_score == pytest.approx(accuracy)


def test_a_task_is_what_is_learnt_and_scored() -> None:
    """The task is the side that a bright dot is on, whatever the direction of the bar."""
    dataset = make_dataset(np.float32)
    splits = {}
    for name, split in dataset.splits.items():
        on_the_right = np.random.default_rng([1, len(split)]).integers(0, 2, len(split))
        images = split.inputs["image"].copy()
        images[np.arange(len(split)), 0, 3, np.where(on_the_right, 7, 0)] += 3
        splits[name] = replace(split, inputs={"image": images}, tasks={"side": on_the_right})
    dataset = replace(dataset, splits=splits, tasks={"side": 2})
    model = make_model()
    result = train_unimodal(model, dataset.for_task("side"), "image", SETTINGS, device=CPU)
    assert result.validation_score > 0.9
    validation = splits["validation"]
    guesses = model(torch.tensor(validation.inputs["image"])).argmax(dim=1).numpy()
    assert result.validation_score == pytest.approx((guesses == validation.tasks["side"]).mean())
    assert (guesses == validation.labels).mean() < 0.7  # Chance is 0.5.


def test_the_seed_alone_decides() -> None:
    torch.manual_seed(1)
    first, first_result = train()
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second, second_result = train()
    assert torch.equal(torch.get_rng_state(), state)
    assert first_result == second_result
    ours, theirs = first.state_dict(), second.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    other = train(seed=1)[0].state_dict()
    assert not torch.equal(ours["head.weight"], other["head.weight"])


def test_a_loss_that_is_not_finite_ends_it() -> None:
    dataset = make_dataset(np.float32)
    broken = dataset.splits["train"].inputs["image"].copy()
    broken[17] = np.inf
    splits = {**dataset.splits, "train": Split({"image": broken}, dataset.splits["train"].labels)}
    with pytest.raises(TrainingDiverged, match=r"epoch 0.*learning_rate") as caught:
        train_unimodal(
            make_model(), Dataset("bars", "", Target.of_classes(2), splits, ""), "image", SETTINGS, device=CPU
        )
    assert caught.value.epoch == 0


@pytest.mark.parametrize(("n", "n_batches"), [(100, 4), (97, 3), (32, 1), (33, 1), (2, 1)])
def test_a_single_sample_that_is_left_over_joins_the_last_batch(n: int, n_batches: int) -> None:
    """Batch normalisation refuses to be trained on one."""
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2)
    )
    sizes: list[int] = []
    model[0].register_forward_hook(lambda module, _, output: sizes.append(len(output)) if module.training else None)
    whole = make_dataset()
    dataset = replace(whole, splits={**whole.splits, "train": make_split(n, 1, np.uint8)})
    train_unimodal(model, dataset, "image", SETTINGS.model_copy(update={"epochs": 2}), device=CPU)
    assert len(sizes) == 2 * n_batches
    assert sum(sizes) == 2 * n
    assert min(sizes) >= 2


def test_progress_and_a_single_step() -> None:
    news: list[tuple[int, int]] = []
    one = UnimodalTraining(epochs=1, batch_size=300)

    def note(_: str, done: int, total: int) -> None:
        news.append((done, total))

    train_unimodal(make_model(), make_dataset(), "image", one, device=CPU, progress=note)
    assert news == [(0, 1), (1, 1)]


@pytest.mark.parametrize("n_steps", range(1, 11))
def test_any_number_of_steps(n_steps: int) -> None:
    """The schedule of the rate has its own ideas of how few there may be."""
    settings = UnimodalTraining(epochs=n_steps, batch_size=300)
    result = train_unimodal(make_model(), make_dataset(), "image", settings, device=CPU)
    assert 0 <= result.validation_score <= 1


def test_augmented_samples_are_changed_anew_in_each_epoch_and_only_in_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shifts: list[np.ndarray] = []
    apply = Changes.apply

    def spy(self: Changes, samples: torch.Tensor) -> torch.Tensor:
        assert self.shifts_N2 is not None
        shifts.append(self.shifts_N2)
        return apply(self, samples)

    monkeypatch.setattr(Changes, "apply", spy)
    augmentation = AugmentationSettings(shift=2)
    results = [
        train_unimodal(make_model(), make_dataset(), "image", SETTINGS, device=CPU, augmentation=augmentation)
        for _ in range(2)
    ]
    assert results[0] == results[1]
    assert results[0].validation_score > 0.8  # Chance is 0.5.
    n_batches = 4 * 10  # Epochs of 300 samples in batches of 32; scoring changes nothing.
    assert len(shifts) == 2 * n_batches
    first, second = (np.concatenate(shifts[start : start + 10]) for start in (0, 10))
    assert first.shape == (300, 2)
    assert not np.array_equal(first, second)
    assert set(np.unique(first)) == {-2, -1, 0, 1, 2}


# Targets of other kinds.


def with_target(kind: TargetKind) -> Dataset:
    """Bars again: labels are their two directions and a rare third; values are the direction in odd units."""
    dataset = make_dataset()
    splits = {}
    for name, split in dataset.splits.items():
        is_row = split.labels.astype(bool)
        if kind == "multilabel":
            # The image's upper left corner is lit in one of ten.
            is_lit = np.random.default_rng(len(split)).random(len(split)) < 0.1
            images = split.inputs["image"].copy()
            images[:, 0, :3, :3] = np.where(is_lit[:, None, None], 255, 0)
            labels = np.stack([is_row, ~is_row, is_lit], axis=1).astype(np.uint8)
            splits[name] = Split({"image": images}, labels)
        else:
            labels = np.stack([1000 + 50.0 * is_row, -0.001 * is_row], axis=1).astype(np.float32)
            splits[name] = replace(split, labels=labels)
    names = ("row", "column", "lit") if kind == "multilabel" else ("large", "small")
    return replace(dataset, target=Target(kind, names), splits=splits)


def model_for(dataset: Dataset) -> torch.nn.Module:
    settings = LeNetSettings(kind="lenet", channels=[4, 8], features=["conv1"])
    generator = torch.Generator().manual_seed(0)
    return build_backbone(
        settings,
        sample_shape=dataset.splits["train"].inputs["image"].shape[1:],
        n_outputs=dataset.target.n_outputs,
        generator=generator,
        folder=Path(),
    )


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_labels_and_values_are_learnt_and_scored_by_their_first_metric(kind: TargetKind) -> None:
    dataset = with_target(kind)
    model = model_for(dataset)
    settings = UnimodalTraining(epochs=12, batch_size=32, learning_rate=2e-2)
    balance = kind == "multilabel"
    result = train_unimodal(model, dataset, "image", settings, device=CPU, is_balanced=balance)
    assert result.validation_score > 0.8 > chance_score(dataset, METRICS[kind][0])
    split = dataset.splits["validation"]
    outputs = model(torch.tensor(split.inputs["image"]).float() / 255).numpy()
    if kind == "multilabel":
        expected = f1_score(split.labels, outputs > 0, average="weighted", zero_division=0)
    else:
        train = dataset.splits["train"].labels.astype(np.float64)
        expected = r2_score(split.labels, outputs * train.std(axis=0) + train.mean(axis=0))
    assert result.validation_score == pytest.approx(expected, abs=1e-4)


def test_balance_finds_the_rare() -> None:
    """One epoch: without weights the rare label is never predicted."""
    dataset = with_target("multilabel")
    found = []
    for is_balanced in (False, True):
        model = model_for(dataset)
        train_unimodal(
            model, dataset, "image", UnimodalTraining(epochs=1), device=CPU, metric="f1_macro", is_balanced=is_balanced
        )
        outputs = model(torch.tensor(dataset.splits["test"].inputs["image"]).float() / 255)
        found.append(int((outputs[:, 2] > 0).sum()))
    assert found[0] == 0 < found[1]


# Networks that were trained elsewhere, and guessing.


def test_a_network_trained_elsewhere_is_scored_as_it_is() -> None:
    model, result = train()
    assert score_unimodal(model.train(), make_dataset(), "image", "accuracy", CPU) == result
    assert not model.training
    dataset = with_target("regression")
    labels = {split: torch.tensor(dataset.splits[split].labels) for split in ("validation", "test")}

    class Knows(torch.nn.Module):
        """Gives values in the units of the labels."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return labels["validation" if len(x) == 101 else "test"]

    assert score_unimodal(Knows(), dataset, "image", "r2", CPU) == UnimodalResult(1.0, 1.0)


def test_a_network_of_another_width_has_no_score_and_cannot_be_trained() -> None:
    dataset = with_target("multilabel")
    assert score_unimodal(make_model(), dataset, "image", "f1_macro", CPU) is None
    with pytest.raises(OutputShapeError, match=r"image backbone: expected 3 outputs .* found \[32, 2\]") as caught:
        train_unimodal(make_model(), dataset, "image", SETTINGS, device=CPU)
    assert (caught.value.expected, caught.value.found) == ((32, 3), (32, 2))

    class Pair(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    assert score_unimodal(Pair(), dataset, "image", "f1_macro", CPU) is None


def test_what_guessing_scores() -> None:
    dataset = make_dataset()
    train_labels, labels = dataset.splits["train"].labels, dataset.splits["validation"].labels
    most = int(train_labels.mean() > 0.5)
    assert chance_score(dataset, "accuracy") == pytest.approx((labels == most).mean())
    predicted = np.full(len(labels), most)
    assert chance_score(dataset, "f1_macro") == pytest.approx(f1_score(labels, predicted, average="macro"))
    many = with_target("multilabel")
    labels = many.splits["validation"].labels
    guesses = [np.ones_like(labels), np.tile(many.splits["train"].labels.mean(axis=0) > 0.5, (len(labels), 1))]
    expected = max(f1_score(labels, guess, average="weighted", zero_division=0) for guess in guesses)
    assert chance_score(many, "f1_weighted") == pytest.approx(expected)
    values = with_target("regression")
    means = np.tile(values.splits["train"].labels.astype(np.float64).mean(axis=0), (101, 1))
    assert chance_score(values, "r2") == pytest.approx(r2_score(values.splits["validation"].labels, means), abs=1e-5)


# Interruptions.


class Dropping(torch.nn.Module):
    """A network with everything that has a state or draws at random, in a memory format of its own."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(5)
            self.convolution = torch.nn.Conv2d(1, 6, 3)
            self.normalise = torch.nn.BatchNorm2d(6)
            self.second = torch.nn.Conv2d(6, 8, 3)
            self.head = torch.nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.normalise(self.convolution(x)))
        x = torch.nn.functional.dropout(torch.relu(self.second(x)), 0.4, self.training)
        return self.head(x.mean(dim=(2, 3)))


class StopError(Exception):
    pass


INTERRUPTED = UnimodalTraining(epochs=6, batch_size=45, learning_rate=1e-2)  # 7 batches an epoch, told every 20.
SMALL_CHANGES = AugmentationSettings(shift=1, flip=True)


def interrupted(folder: Path | None, stop_at: int | None = None, **changes: Any) -> tuple[torch.nn.Module, list[int]]:
    """Train, or stop when told of this many batches; return the network and what progress was told."""
    model = Dropping()
    told: list[int] = []

    def progress(_: str, done: int, total: int) -> None:
        assert total == 42
        told.append(done)
        if done == stop_at:
            raise StopError

    arguments = {"settings": INTERRUPTED, "augmentation": SMALL_CHANGES, "dataset": make_dataset(), **changes}
    with contextlib.suppress(StopError):
        train_unimodal(model, modality="image", device=CPU, checkpoint=folder, progress=progress, **arguments)
    return model, told


@pytest.fixture(autouse=True)
def told_by_steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unimodal, "_NEWS_S", math.inf)


@pytest.fixture
def at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unimodal, "CHECKPOINT_S", 0.0)
    monkeypatch.setattr(unimodal, "WORK_FOR_WRITING", 0)


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, torch.Tensor]:
    return interrupted(None)[0].state_dict()


def assert_same(model: torch.nn.Module, expected: dict[str, torch.Tensor]) -> None:
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.usefixtures("at_every_step")
@pytest.mark.parametrize("stops", [[0], [20], [20, 40], [42]])
def test_an_interrupted_training_becomes_what_it_would_have_become(
    stops: list[int], tmp_path: Path, uninterrupted: dict[str, torch.Tensor]
) -> None:
    """Stopped within epochs and at the very end; told at 20 and 40 of 42 batches, 7 an epoch."""
    folder = tmp_path / "checkpoint"
    for stop in stops:
        assert interrupted(folder, stop)[1][-1] == stop
    torch.manual_seed(99)  # Of no concern.
    model, told = interrupted(folder)
    assert_same(model, uninterrupted)
    assert told[-1] == 42
    assert min(told) >= stops[-1]
    assert {path.name for path in folder.iterdir()} == {"checkpoint.json", "state-42.safetensors"}


def test_within_thirty_seconds_the_ends_of_epochs_are_kept(
    tmp_path: Path, uninterrupted: dict[str, torch.Tensor]
) -> None:
    interrupted(tmp_path / "checkpoint", 20)
    assert (tmp_path / "checkpoint" / "state-14.safetensors").exists()
    model, told = interrupted(tmp_path / "checkpoint")
    assert told == [20, 40, 42]  # From 14 on.
    assert_same(model, uninterrupted)


@pytest.mark.parametrize("what", ["settings", "dataset", "augmentation", "balance", "labels", "weights"])
def test_a_checkpoint_of_another_training_is_not_gone_on_from(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, uninterrupted: dict[str, torch.Tensor]
) -> None:
    other: dict[str, Any] = {
        "settings": {"settings": INTERRUPTED.model_copy(update={"learning_rate": 2e-2})},
        "dataset": {"dataset": replace(make_dataset(), fingerprint="1" * 64)},
        "augmentation": {"augmentation": None},
        "balance": {"is_balanced": True},
        "labels": {"dataset": with_swapped_classes()},
        "weights": {},
    }[what]
    folder = tmp_path / "checkpoint"
    interrupted(folder, 20, **other)
    if what == "weights":
        index = json.loads((folder / "checkpoint.json").read_text())
        index["key"]["first_weights"] = "0" * 64
        (folder / "checkpoint.json").write_text(json.dumps(index))
    model, told = interrupted(folder)
    assert told[0] == 0
    assert_same(model, uninterrupted)
    assert not caplog.messages  # Nothing is wrong.


def with_swapped_classes() -> Dataset:
    dataset = make_dataset()
    train = dataset.splits["train"]
    return replace(dataset, splits={**dataset.splits, "train": replace(train, labels=1 - train.labels)})


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing", "index"])
def test_a_damaged_checkpoint_is_named_and_training_begins_anew(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, uninterrupted: dict[str, torch.Tensor]
) -> None:
    folder = tmp_path / "checkpoint"
    interrupted(folder, 20)
    state = folder / "state-14.safetensors"
    content = bytearray(state.read_bytes())
    if damage == "cut":
        state.write_bytes(content[:-10])
    elif damage == "flipped":
        content[-10] ^= 1
        state.write_bytes(content)
    elif damage == "missing":
        state.unlink()
    else:
        (folder / "checkpoint.json").write_text('{"key": ')
    model, told = interrupted(folder)
    assert told[0] == 0
    assert_same(model, uninterrupted)
    assert [str(folder) in message and "damaged" in message for message in caplog.messages] == [True]


def test_what_a_kill_left_half_written_does_not_count(tmp_path: Path, uninterrupted: dict[str, torch.Tensor]) -> None:
    folder = tmp_path / "checkpoint"
    interrupted(folder, 20)
    (folder / ".state-21.safetensors.tmp").write_bytes(b"half")
    (folder / "state-21.safetensors").write_bytes(b"whole, but not in the index yet")
    model, told = interrupted(folder)
    assert told[0] == 20
    assert_same(model, uninterrupted)
    assert {path.name for path in folder.iterdir()} == {"checkpoint.json", "state-42.safetensors"}
    first = tmp_path / "first"
    first.mkdir()
    (first / ".state-7.safetensors.tmp").write_bytes(b"half")  # Killed while writing the first.
    assert_same(interrupted(first)[0], uninterrupted)


def test_dropout_comes_from_the_seed_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    first = interrupted(None)[0].state_dict()
    torch.manual_seed(2)
    state = torch.get_rng_state()
    model, _ = interrupted(None)
    assert torch.equal(torch.get_rng_state(), state)
    assert_same(model, first)
    interrupted(None, 20)
    assert torch.equal(torch.get_rng_state(), state)  # However it ends.
    other, _ = interrupted(None, settings=INTERRUPTED.model_copy(update={"seed": 1}))
    assert not torch.equal(other.state_dict()["head.weight"], first["head.weight"])


def test_masks_differ_from_step_to_step() -> None:
    masks: list[torch.Tensor] = []

    class Recording(Dropping):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                masks.append(torch.nn.functional.dropout(torch.ones(64), 0.5))
            return super().forward(x)

    train_unimodal(Recording(), make_dataset(), "image", INTERRUPTED, device=CPU)
    assert len({tuple(mask.tolist()) for mask in masks}) == len(masks) == 42


def test_videos_are_read_by_rows(tmp_path: Path) -> None:
    """5 axes, memory-mapped; mirrored and moved as images are."""
    splits = {}
    for name, split in make_dataset().splits.items():
        videos = np.repeat(split.inputs["image"][:, :, None], 3, axis=1).repeat(2, axis=2)
        np.save(tmp_path / f"{name}.npy", videos)
        splits[name] = replace(split, inputs={"video": np.load(tmp_path / f"{name}.npy", mmap_mode="r")})
    dataset = replace(make_dataset(), splits=splits, layouts={"video": "video"})
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Conv3d(3, 8, (1, 3, 3)), torch.nn.BatchNorm3d(8), torch.nn.ReLU(),
            torch.nn.Conv3d(8, 8, (2, 3, 3)), torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten(), torch.nn.Linear(8, 2),
        )  # fmt: skip
    result = train_unimodal(model, dataset, "video", SETTINGS, device=CPU, augmentation=SMALL_CHANGES)
    assert result.validation_score > 0.8  # Chance is 0.5.
