"""Translations: by the sample's row alone, zeros moving in, views as further splits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mfas_optuna.datasets.augmentation import TranslatedInputs, draw_shifts, translate, view_name, with_views
from mfas_optuna.datasets.dataset import Dataset, Split


def moved_by_hand(sample: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Sample (C, H, W), one position at a time."""
    result = np.zeros_like(sample)
    for row in range(sample.shape[1]):
        for column in range(sample.shape[2]):
            to_row, to_column = row + shift[0], column + shift[1]
            if 0 <= to_row < sample.shape[1] and 0 <= to_column < sample.shape[2]:
                result[:, to_row, to_column] = sample[:, row, column]
    return result


def images(n: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (n, 2, 5, 4), dtype=np.uint8)


def test_samples_move_and_zeros_move_in() -> None:
    samples, shifts = images(), draw_shifts(40, 2, 2, (0,))
    assert {tuple(shift) for shift in shifts.tolist()} >= {(2, -2), (0, 0)}
    moved = translate(torch.from_numpy(samples), shifts).numpy()
    for sample, shift, found in zip(samples, shifts, moved, strict=True):
        assert np.array_equal(found, moved_by_hand(sample, shift))


def test_a_sample_becomes_the_same_whatever_is_read_with_it() -> None:
    inputs = TranslatedInputs(images(), draw_shifts(40, 2, 2, (3,)))
    whole = inputs[0:40]
    assert (len(inputs), inputs.shape, inputs.dtype) == (40, (40, 2, 5, 4), np.uint8)
    for size in (1, 7, 40):
        parts = [inputs[start : start + size] for start in range(0, 40, size)]
        assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("shape", [(9, 3), (9, 3, 8)])
def test_vectors_stay_and_sequences_move_along_their_one_axis(shape: tuple[int, ...]) -> None:
    samples = np.random.default_rng(0).random(shape).astype(np.float32)
    shifts = draw_shifts(9, len(shape) - 2, 1, (0,))
    moved = translate(torch.from_numpy(samples), shifts).numpy()
    if len(shape) == 2:
        assert np.array_equal(moved, samples)
    for sample, shift, found in zip(samples, shifts, moved, strict=True):
        if len(shape) == 3 and shift[0] == 1:
            assert np.array_equal(found[:, 1:], sample[:, :-1])
            assert not found[:, 0].any()


def test_views_are_further_splits_of_equal_labels() -> None:
    splits = {name: Split({"a": images(n), "b": images(n)}, np.arange(n)) for name, n in (("train", 12), ("test", 5))}
    dataset = Dataset("x", "", 12, splits, "")
    found = with_views(dataset, 3, 1, seed=7)
    assert (
        list(found.splits) == ["train", "test", view_name(1), view_name(2)] == ["train", "test", "train.1", "train.2"]
    )
    assert found.splits["train"] is splits["train"]
    first, second = (found.splits[view_name(view)].inputs for view in (1, 2))
    for modality in ("a", "b"):
        assert not np.array_equal(first[modality][0:12], second[modality][0:12])
        again = with_views(dataset, 3, 1, seed=7).splits["train.1"].inputs[modality]
        assert np.array_equal(again[0:12], first[modality][0:12])
    assert not np.array_equal(first["a"][0:12], first["b"][0:12])  # Each modality by its own shifts.
    assert np.array_equal(found.splits["train.2"].labels, splits["train"].labels)
