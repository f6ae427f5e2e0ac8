"""The regimes: draws are what they say, seeded, and each split is of the same split of its pool."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.regimes import cells, makers
from benchmarks.regimes.errors import RegimeError
from benchmarks.regimes.makers import REGIMES, Drawn, Regime, draw_split
from benchmarks.regimes.pools import Pool, PoolSplit
from benchmarks.regimes.settings import Cell, Plan, study_text
from benchmarks.regimes.settings import cells as cells_of
from mfas_optuna.spec import load_spec

N_ROWS = 400
SPLITS = ("train", "validation", "test")
ROW, SPLIT, DIGIT = 0, 1, 2
"""Columns of the layers of `made_pool`: they say where a row comes from."""


def made_pool() -> Pool:
    """A pool whose layers hold row, split and digit, and one layer of small numbers."""
    splits = {}
    for number, split in enumerate(SPLITS):
        rng = np.random.default_rng(number)
        digits = rng.integers(10, size=N_ROWS)
        where = np.stack([np.arange(N_ROWS), np.full(N_ROWS, number), digits], axis=1).astype(np.float32)
        features = {
            modality: {"conv1": where, "conv2": rng.standard_normal((N_ROWS, 4), dtype=np.float32)}
            for modality in ("audio", "image")
        }
        splits[split] = PoolSplit(features, digits)
    return Pool(splits, "made")


POOL = made_pool()


def where(drawn: Drawn, modality: str, column: int) -> NDArray[np.int64]:
    return drawn.layers[modality]["conv1"][:, column].astype(np.int64)


def same(first: Drawn, second: Drawn, n: int) -> bool:
    """Whether the first rows are alike, but for how a product of matrices is rounded."""
    return np.array_equal(first.labels[:n], second.labels[:n]) and all(
        np.allclose(rows[:n], second.layers[modality][name][:n], rtol=1e-3, atol=1e-3)
        for modality, layers in first.layers.items()
        for name, rows in layers.items()
    )


@pytest.mark.parametrize("regime", REGIMES)
def test_a_draw_is_seeded_and_a_smaller_one_is_its_beginning(regime: Regime) -> None:
    first = draw_split(regime, POOL, "train", 100, 3)
    again = draw_split(regime, POOL, "train", 100, 3)
    assert first.labels.tobytes() == again.labels.tobytes()
    for modality, layers in first.layers.items():
        for name, rows in layers.items():
            assert rows.dtype == np.float32
            assert rows.tobytes() == again.layers[modality][name].tobytes()
    assert same(draw_split(regime, POOL, "train", 300, 3), first, 100)
    assert not same(draw_split(regime, POOL, "train", 100, 4), first, 100)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_of_their_own_split_and_none_twice(regime: Regime, split: str) -> None:
    drawn = draw_split(regime, POOL, split, N_ROWS, 0)
    for modality in ("audio", "image"):
        assert set(where(drawn, modality, SPLIT)) == {SPLITS.index(split)}
        assert len(set(where(drawn, modality, ROW))) == N_ROWS


@pytest.mark.parametrize("regime", ["independent", "distractors"])
def test_independent_pairs_share_the_digit_alone(regime: Regime) -> None:
    drawn = draw_split(regime, POOL, "train", N_ROWS, 0)
    assert (where(drawn, "audio", DIGIT) == drawn.labels).all()
    assert (where(drawn, "image", DIGIT) == drawn.labels).all()
    assert (where(drawn, "audio", ROW) == where(drawn, "image", ROW)).mean() < 0.1


@pytest.mark.parametrize("regime", ["interaction", "three"])
def test_the_target_of_an_interaction_is_the_sum(regime: Regime) -> None:
    drawn = draw_split(regime, POOL, "test", N_ROWS, 0)
    audio, image = where(drawn, "audio", DIGIT), where(drawn, "image", DIGIT)
    assert (drawn.labels == (audio + image) % 10).all()
    # One alone says nothing of it: given the image's digit, labels are spread as digits are.
    assert np.corrcoef(image, drawn.labels)[0, 1] < 0.15
    assert len(np.unique(drawn.labels[image == image[0]])) == 10


def test_the_hint_is_a_noisy_image_of_another_sample_whose_digit_is_the_target(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noisy = draw_split("three", POOL, "train", N_ROWS, 0)
    monkeypatch.setattr(makers, "HINT_NOISE", 0.0)
    drawn = draw_split("three", POOL, "train", N_ROWS, 0)
    assert (where(drawn, "hint", DIGIT) == drawn.labels).all()
    assert (where(drawn, "hint", SPLIT) == 0).all()
    assert (where(drawn, "hint", ROW) != where(drawn, "image", ROW)).all()
    noise = noisy.layers["hint"]["conv2"] - drawn.layers["hint"]["conv2"]
    assert noise.std() == pytest.approx(4.0, rel=0.1)


def test_a_hint_is_another_sample_even_where_chance_would_take_the_same() -> None:
    digits = np.array([3, 3, 5, 5])
    rows = makers._others_of_digit(digits, np.array([3, 5]), np.array([0, 3]), np.array([0.0, 0.999]))
    assert rows.tolist() == [1, 2]


def test_distractors_are_ten_layers_and_the_irrelevant_do_not_carry_the_label() -> None:
    plain = draw_split("independent", POOL, "train", N_ROWS, 0)
    drawn = draw_split("distractors", POOL, "train", N_ROWS, 0)
    assert (drawn.labels == plain.labels).all()
    is_class = np.eye(10)[drawn.labels]
    for modality, layers in drawn.layers.items():
        assert list(layers) == [*plain.layers[modality], "irrelevant1", "irrelevant2", "redundant", "noisy1", "noisy2"]
        for name in plain.layers[modality]:
            assert (layers[name] == plain.layers[modality][name]).all()
        for name in ("irrelevant1", "irrelevant2"):
            rows = layers[name]
            assert rows.shape == (N_ROWS, 64)
            assert rows.std() == pytest.approx(1.0, rel=0.02)
            correlations = np.corrcoef(rows.T, is_class.T)[:64, 64:]
            # 640 correlations of 400 rows each: their squares are 1/400 in the mean where there is none.
            assert (correlations**2).mean() == pytest.approx(1 / N_ROWS, rel=0.25)
    both = [drawn.layers[modality]["irrelevant1"] for modality in ("audio", "image")]
    assert abs(np.corrcoef(both[0].ravel(), both[1].ravel())[0, 1]) < 0.03


def test_redundant_and_noisy_layers_are_made_of_true_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(makers, "REDUNDANT_NOISE", 0.0)
    monkeypatch.setattr(makers, "NOISY_NOISE", 0.0)
    fitted, other = (draw_split("distractors", POOL, split, N_ROWS, 0) for split in ("validation", "test"))
    for modality, layers in fitted.layers.items():
        true_layers = {name: layers[name] for name in ("conv1", "conv2")}
        assert {layers["noisy1"].tobytes(), layers["noisy2"].tobytes()} == {
            rows.tobytes() for rows in true_layers.values()
        }
        # Mixed alike in all splits: what maps a layer to the redundant one in one split does so in another.
        residuals = []
        for name, rows in true_layers.items():
            mixing = np.linalg.lstsq(rows, layers["redundant"], rcond=None)[0]
            residual = other.layers[modality][name] @ mixing - other.layers[modality]["redundant"]
            residuals.append(np.abs(residual).max())
        assert min(residuals) < 0.01


def test_more_rows_than_a_pool_has_are_refused() -> None:
    with pytest.raises(RegimeError, match="at most 400 pairs for train, which its pool has, found 401"):
        draw_split("interaction", POOL, "train", 401, 0)


# Files.

PLAN = Plan(space="paper", n_validation=60, n_test=80, n_trials=7)
CELL = Cell("three", 50)


def test_a_draw_becomes_a_study_of_arrays_byte_for_byte_the_same(tmp_path: Path) -> None:
    for name in ("first", "second"):
        cells.make(tmp_path / name, CELL, 2, PLAN, POOL)
        assert cells.is_made(tmp_path / name, CELL, 2, PLAN)
    files = sorted(file.relative_to(tmp_path / "first") for file in (tmp_path / "first").rglob("*.*"))
    assert Path("data/validation/hint/conv2.npy") in files
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    assert [len(np.load(tmp_path / "first" / "data" / split / "labels.npy")) for split in SPLITS] == [50, 60, 80]
    spec = load_spec(tmp_path / "first" / "study.toml")
    assert spec.n_trials_planned() == 7
    assert spec.search.seed == 2
    assert list(spec.search_space().modalities) == ["audio", "image", "hint"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_files_of_other_settings_are_refused(tmp_path: Path) -> None:
    assert not cells.is_made(tmp_path / "cell", CELL, 0, PLAN)
    cells.make(tmp_path / "cell", CELL, 0, PLAN, POOL)
    with pytest.raises(RegimeError, match=r"made with another plan. Choose another --home, or remove the folder"):
        cells.is_made(tmp_path / "cell", CELL, 0, Plan(space="paper", n_validation=60, n_test=80, n_trials=8))


def test_no_setting_depends_on_the_regime() -> None:
    layers = {"audio": ["conv1"], "image": ["conv1"]}
    texts = {study_text(cell, 1, layers, Plan()).partition("\n")[2] for cell in cells_of()}
    assert len(texts) == 1


def test_there_are_ten_cells() -> None:
    assert [cell.name for cell in cells_of()] == [
        *(f"{regime}-{n}" for regime in ("independent", "interaction", "distractors") for n in (500, 2000, 20000)),
        "three-2000",
    ]
