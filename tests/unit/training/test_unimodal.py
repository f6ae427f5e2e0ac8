"""Training one backbone on a task that it can learn in a second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mfas_optuna.backbones import build_backbone
from mfas_optuna.datasets import Dataset, Split
from mfas_optuna.datasets.augmentation import translate
from mfas_optuna.errors import TrainingDiverged
from mfas_optuna.spec import AugmentationSettings, LeNetSettings, UnimodalTraining
from mfas_optuna.training.unimodal import UnimodalResult, train_unimodal

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
    return Dataset("bars", "Bars.", 2, splits, "0" * 64)


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
        train_unimodal(make_model(), Dataset("bars", "", 2, splits, ""), "image", SETTINGS, device=CPU)
    assert caught.value.epoch == 0


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


def test_augmented_samples_are_translated_anew_in_each_epoch_and_only_in_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shifts: list[np.ndarray] = []

    def spy(x: torch.Tensor, shifts_NA: np.ndarray) -> torch.Tensor:
        shifts.append(shifts_NA)
        return translate(x, shifts_NA)

    monkeypatch.setattr("mfas_optuna.training.unimodal.translate", spy)
    augmentation = AugmentationSettings(shift=2)
    results = [
        train_unimodal(make_model(), make_dataset(), "image", SETTINGS, device=CPU, augmentation=augmentation)
        for _ in range(2)
    ]
    assert results[0] == results[1]
    assert results[0].validation_score > 0.8  # Chance is 0.5.
    n_batches = 4 * 10  # Epochs of 300 samples in batches of 32; scoring translates nothing.
    assert len(shifts) == 2 * n_batches
    first, second = (np.concatenate(shifts[start : start + 10]) for start in (0, 10))
    assert first.shape == (300, 2)
    assert not np.array_equal(first, second)
    assert set(np.unique(first)) == {-2, -1, 0, 1, 2}
