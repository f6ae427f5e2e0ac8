"""Statistics of rows read piece by piece, and when half precision is enough for them."""

from __future__ import annotations

import numpy as np
import pytest

from mfas_optuna.errors import DataError
from mfas_optuna.features import rows as rows_module
from mfas_optuna.features.rows import Rows, RowType, choose_row_type, column_statistics


def values(n: int = 1000, n_columns: int = 5) -> np.ndarray:
    return np.random.default_rng(0).normal(2, 3, (n, n_columns)).astype(np.float32)


def choose(train: np.ndarray, **others: np.ndarray) -> RowType:
    rows = {split: Rows([matrix]) for split, matrix in {"train": train, **others}.items()}
    return choose_row_type(rows, lambda column: f"column {column}")


@pytest.mark.parametrize("n", [1, 99, 100, 1000])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_statistics_are_numpys_in_double_precision(n: int, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "_ROWS_AT_ONCE", 100)
    whole = values(n)
    whole[:, 2] += 3000  # A mean that would eat up the digits of a sum of squares.
    whole[:, 3] = 0.1
    mean, std = column_statistics(Rows([whole[:, :2], whole[:, 2:]]), dtype)
    stored = whole.astype(dtype).astype(np.float64)
    np.testing.assert_allclose(mean, stored.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(std, stored.std(axis=0), rtol=1e-10, atol=1e-15)


def test_pieces_are_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "_ROWS_AT_ONCE", 100)
    whole = values(250)
    pieces = list(Rows([whole[:, :1], whole[:, 1:]]).pieces())
    assert [(start, len(piece)) for start, piece in pieces] == [(0, 100), (100, 100), (200, 50)]
    assert np.array_equal(np.concatenate([piece for _, piece in pieces]), whole)


def test_half_precision_is_the_rule_and_the_statistics_are_those_of_the_rounded_rows() -> None:
    train = values()
    train[:, 1] = 0.0  # A dead channel,
    train[:, 2] = 0.1  # and a constant one, which float16 cannot hold exactly.
    chosen = choose(train, validation=values(50))
    assert (chosen.dtype, chosen.why_not_half) == (np.float16, "")
    half = train.astype(np.float16).astype(np.float64)
    np.testing.assert_allclose(chosen.mean, half.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(chosen.std, half.std(axis=0), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("value", [6e4, -6.5e4, 1e6])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_large_value_is_refused(value: float, split: str) -> None:
    matrices = {"train": values(), "validation": values(70)}
    matrices[split][60, 3] = value
    chosen = choose(**matrices)
    assert chosen.dtype == np.float32
    assert chosen.why_not_half == (f"column 3 is {value:g} in row 60 of {split}, and float16 is used below 60000 only")
    np.testing.assert_allclose(chosen.std, matrices["train"].std(axis=0, dtype=np.float64), rtol=1e-6)


def test_a_value_just_below_the_limit_is_no_reason() -> None:
    train = values()
    train[:, 0] = np.linspace(-59999, 59999, len(train))
    assert choose(train).dtype == np.float16


def test_a_large_mean_with_a_small_deviation_is_refused() -> None:
    train = values()
    train[:, 4] = 1000.2 + 0.01 * train[:, 4]
    chosen = choose(train)
    assert chosen.dtype == np.float32
    assert chosen.why_not_half.startswith("as float16 the mean of column 4 would change by ")
    assert chosen.why_not_half.endswith("more than 0.001 times its deviation of 0.03")


def test_a_deviation_that_would_change_is_refused() -> None:
    train = values()
    # Symmetric about a value that float16 holds, so that the mean stays: only the deviation is rounded away.
    train[:, 4] = 1024 + np.tile([0.2, -0.2], len(train) // 2)
    chosen = choose(train)
    assert chosen.dtype == np.float32
    assert "the deviation of column 4 would change by 0.2, more than" in chosen.why_not_half


def test_values_in_the_subnormal_range_are_refused() -> None:
    train = values()
    train[:, 2] *= 1e-8
    chosen = choose(train)
    assert chosen.dtype == np.float32
    assert "of column 2 would change" in chosen.why_not_half


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_an_error_also_after_a_large_value(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "_ROWS_AT_ONCE", 100)
    train = values()
    train[10, 0] = 1e5
    train[730, 2] = value
    with pytest.raises(DataError, match=r"'train': row 730, column 2 \(column 2\) is"):
        choose(train)
