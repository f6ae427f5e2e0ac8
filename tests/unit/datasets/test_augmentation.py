"""Changes of samples: by the sample's row alone, as its layout allows, views as further splits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mfas_optuna.datasets.augmentation import ChangedInputs, Changes, layout_of, view_name, with_views
from mfas_optuna.datasets.dataset import Dataset, Split
from mfas_optuna.datasets.samples import Layout
from mfas_optuna.errors import DataError
from mfas_optuna.spec import AugmentationSettings
from mfas_optuna.target import Target

ALL = AugmentationSettings(shift=2, flip=True, rotate=30)
SHAPES: dict[Layout, tuple[int, ...]] = {
    "image": (2, 5, 4), "video": (3, 4, 5, 6), "skeleton": (3, 4, 25, 2), "vector": (7,), "other": (2, 6, 6),
}  # fmt: skip


def samples_of(layout: Layout, n: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    if layout in ("image", "video"):
        return rng.integers(1, 256, (n, *SHAPES[layout]), dtype=np.uint8)
    return rng.normal(size=(n, *SHAPES[layout])).astype(np.float32)


def draw(layout: Layout, settings: AugmentationSettings = ALL, seed: tuple[int, ...] = (0,), n: int = 40) -> Changes:
    changes = Changes.draw(n, layout, settings, seed)
    assert changes is not None
    return changes


def shifted_by_hand(sample: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Sample (..., H, W), one position at a time."""
    result = np.zeros_like(sample)
    height, width = sample.shape[-2:]
    for row in range(height):
        for column in range(width):
            to_row, to_column = row + shift[0], column + shift[1]
            if 0 <= to_row < height and 0 <= to_column < width:
                result[..., to_row, to_column] = sample[..., row, column]
    return result


@pytest.mark.parametrize("layout", ["image", "video"])
def test_images_and_videos_move_in_their_plane_and_are_mirrored(layout: Layout) -> None:
    samples, changes = samples_of(layout), draw(layout)
    assert changes.shifts_N2 is not None
    assert changes.flips_N is not None
    assert {tuple(shift) for shift in changes.shifts_N2.tolist()} >= {(2, -2), (0, 0)}
    assert 8 <= changes.flips_N.sum() <= 32
    found = changes.apply(torch.from_numpy(samples.copy())).numpy()
    for sample, shift, is_flipped, changed in zip(samples, changes.shifts_N2, changes.flips_N, found, strict=True):
        expected = shifted_by_hand(sample, shift)
        assert np.array_equal(changed, expected[..., ::-1] if is_flipped else expected)


def test_skeletons_turn_about_the_vertical_axis_in_all_frames_alike() -> None:
    samples, changes = samples_of("skeleton"), draw("skeleton")
    assert changes.angles_N is not None
    degrees = np.rad2deg(changes.angles_N)
    assert 20 < np.abs(degrees).max() <= 30
    assert degrees.min() < 0 < degrees.max()
    found = changes.apply(torch.from_numpy(samples.copy())).numpy()
    for sample, angle, changed in zip(samples, changes.angles_N, found, strict=True):
        matrix = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        assert np.allclose(changed, np.einsum("ij,jtvm->itvm", matrix, sample), atol=1e-6)
    assert np.array_equal(found[:, 1], samples[:, 1])
    assert np.allclose(np.linalg.norm(found, axis=1), np.linalg.norm(samples, axis=1), atol=1e-5)


@pytest.mark.parametrize(
    ("layout", "settings"),
    [
        ("vector", ALL),
        ("other", ALL),
        ("image", AugmentationSettings(rotate=10)),
        ("video", AugmentationSettings(rotate=10)),
        ("skeleton", AugmentationSettings(shift=2, flip=True)),
    ],
)
def test_what_does_not_suit_a_layout_changes_nothing(layout: Layout, settings: AugmentationSettings) -> None:
    assert Changes.draw(40, layout, settings, (0,)) is None


def test_each_setting_acts_alone() -> None:
    assert draw("image", AugmentationSettings(shift=1)).flips_N is None
    assert draw("image", AugmentationSettings(flip=True)).shifts_N2 is None


@pytest.mark.parametrize("layout", ["image", "video", "skeleton"])
def test_a_sample_becomes_the_same_whatever_is_read_with_it(layout: Layout) -> None:
    samples = samples_of(layout)
    samples.setflags(write=False)  # As memory-mapped arrays are.
    inputs = ChangedInputs(samples, draw(layout, seed=(3,)))
    whole = inputs[0:40]
    assert not np.array_equal(whole, samples)
    assert (len(inputs), inputs.shape, inputs.dtype) == (40, samples.shape, samples.dtype)
    for size in (1, 7, 40):
        parts = [inputs[start : start + size] for start in range(0, 40, size)]
        assert np.array_equal(np.concatenate(parts), whole)


def test_the_seed_alone_decides() -> None:
    samples = samples_of("video")
    changed = [draw("video", seed=seed).apply(torch.from_numpy(samples.copy())) for seed in ((0, 1), (0, 1), (0, 2))]
    assert torch.equal(changed[0], changed[1])
    assert not torch.equal(changed[0], changed[2])


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(DataError, match=r"augmentation\.shift: samples are \[5, 4\], a shift of 9"):
        draw("image", AugmentationSettings(shift=9), n=400).apply(torch.zeros(400, 1, 5, 4))
    with pytest.raises(DataError, match=r"augmentation\.rotate: .* found float32 with 2"):
        draw("skeleton").apply(torch.zeros(40, 2, 4, 25, 1))


def make_dataset() -> Dataset:
    sizes = (("train", 12), ("test", 5))
    splits = {
        name: Split({"a": samples_of("image", n), "b": samples_of("image", n), "words": samples_of("vector", n)},
                    np.arange(n))
        for name, n in sizes
    }  # fmt: skip
    return Dataset("x", "", Target.of_classes(12), splits, "")


def test_views_are_further_splits_of_equal_labels() -> None:
    dataset, settings = make_dataset(), AugmentationSettings(shift=1, views=3, seed=7)
    found = with_views(dataset, settings)
    assert (
        list(found.splits) == ["train", "test", view_name(1), view_name(2)] == ["train", "test", "train.1", "train.2"]
    )
    assert found.splits["train"] is dataset.splits["train"]
    first, second = (found.splits[view_name(view)].inputs for view in (1, 2))
    for modality in ("a", "b"):
        assert not np.array_equal(first[modality][0:12], second[modality][0:12])
        again = with_views(dataset, settings).splits["train.1"].inputs[modality]
        assert np.array_equal(again[0:12], first[modality][0:12])
    assert not np.array_equal(first["a"][0:12], first["b"][0:12])  # Each modality in its own way.
    assert first["words"] is dataset.splits["train"].inputs["words"]
    assert np.array_equal(found.splits["train.2"].labels, dataset.splits["train"].labels)


def test_arrays_of_four_axes_are_images_where_nothing_is_said() -> None:
    dataset = make_dataset()
    assert [layout_of(dataset, modality) for modality in dataset.modalities] == ["image", "image", "other"]
    told = Dataset("x", "", dataset.target, dataset.splits, "", layouts={"a": "other"})
    assert layout_of(told, "a") == "other"
