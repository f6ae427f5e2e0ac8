"""Plots as vectors."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from mfas_optuna.datasets.mmimdb import text
from mfas_optuna.errors import DataError


def test_words_are_runs_of_letters_in_lower_case() -> None:
    found = text.words("It's 1999: the Café-owner_X can't\nwait—ÉLAN!")
    assert found == ["it", "s", "the", "café", "owner", "x", "can", "t", "wait", "élan"]
    assert text.words("12 ... 34!") == []


def plain_hashed_counts(found: list[str], width: int) -> list[float]:
    values = [0.0] * width
    for word in set(found):
        number = int.from_bytes(hashlib.blake2b(word.encode("utf-8"), digest_size=8).digest(), "little")
        sign = 1 if number % 2 == 1 else -1
        values[(number // 2) % width] += sign * float(np.log(1 + found.count(word)))
    length = sum(value**2 for value in values) ** 0.5
    return [value / length for value in values]


@pytest.mark.parametrize("width", [3, 300])
def test_hashed_counts_are_those_of_the_plain_twin(width: int) -> None:
    found = text.words("the dog sees the other dog and the élan of a third dog " * 2)
    vector = text.hashed_counts(found, width)
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector, plain_hashed_counts(found, width), atol=1e-6)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_hashed_counts_do_not_depend_on_the_order_of_words_or_the_process() -> None:
    assert text.hashed_counts(["b", "a", "b"], 7).tobytes() == text.hashed_counts(["b", "b", "a"], 7).tobytes()
    vector = text.hashed_counts(["film"], 300)
    assert np.flatnonzero(vector).tolist() == [168]
    assert vector[168] == -1


@pytest.mark.parametrize("header", ["", "3 2\n"])
def test_means_are_those_of_the_plain_twin(tmp_path: Path, header: str) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text(header + "the 0.5 1\nnew york 9 9\nthe 7 7\ndog -1 2.5 \n", encoding="utf-8")
    vectors = text.load(file, 2)
    assert set(vectors.rows) == {"the", "new york", "dog"}
    mean = vectors.mean(["the", "dog", "the", "unknown"])
    assert mean is not None
    np.testing.assert_allclose(mean, [(0.5 - 1 + 0.5) / 3, (1 + 2.5 + 1) / 3], rtol=1e-6)
    assert vectors.mean(["unknown"]) is None
    assert text.load(file, 2) is vectors


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("4 3\nthe 1 2 3\n", "line 1: vectors of 3 values, the study asks for text_width = 2"),
        ("the 1 2\ndog 1\n", "line 2: expected a word and 2 finite values"),
        ("the 1 2\ndog 1 two\n", "line 2: expected a word"),
        ("the 1 nan\n", "line 1: expected a word"),
        ("the 1 2\n\n", "line 2: expected a word"),
    ],
)
def test_malformed_files(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        text.load(file, 2)


def test_the_head_is_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text("the 1 2 3\n")
    text.check_head(file, 3)
    with pytest.raises(DataError, match="line 1"):
        text.check_head(file, 300)
    file.write_text("0 3\n")
    with pytest.raises(DataError, match="found no line"):
        text.check_head(file, 3)
