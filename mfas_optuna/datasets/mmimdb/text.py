"""Plots as vectors: the mean of word vectors, or hashed word counts, which need no file."""

from __future__ import annotations

import hashlib
import math
import re
import threading
from array import array
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mfas_optuna.errors import DataError, DataNotFoundError

Vector = npt.NDArray[np.float32]

_WORD = re.compile(r"[^\W\d_]+")
_LOADING = threading.Lock()


def words(text: str) -> list[str]:
    """Return the words of a text, in lower case: runs of letters."""
    return _WORD.findall(text.lower())


def hashed_counts(found: list[str], width: int) -> Vector:
    """Return word counts [width] of length 1: each word adds log(1 + count) to one place, with a sign of its own.

    Place and sign come from the word's BLAKE2 digest, so that they are the same everywhere. Length 0 where words cancel
    each other out.
    """
    values = np.zeros(width)
    for word, count in sorted(Counter(found).items()):
        digest = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        values[(digest >> 1) % width] += math.log1p(count) * (1 if digest & 1 else -1)
    length = np.linalg.norm(values)
    return (values / length if length > 0 else values).astype(np.float32)


class WordVectors(NamedTuple):
    """Vectors [n, width] and the row of each word."""

    rows: dict[str, int]
    values: npt.NDArray[np.float32]

    def mean(self, found: list[str]) -> Vector | None:
        """Return the mean over the words that have a vector, repeated ones counting as often; None if none has."""
        rows = [self.rows[word] for word in found if word in self.rows]
        if not rows:
            return None
        mean: Vector = self.values[rows].mean(axis=0, dtype=np.float64).astype(np.float32)
        return mean


def check_head(file: Path, width: int) -> None:
    """Read the first vector of a file, to find out early that it is of another kind.

    Raises:
        DataError: Its vectors are not of the width, or it has none.
        DataNotFoundError: It is not there.
    """
    if not file.is_file():
        raise DataNotFoundError(f"{file}: no such file of word vectors. Put it there, or leave out text_vectors.")
    if next(_vectors(file, width), None) is None:
        raise DataError(f"{file}: expected a word and {width} values a line, found no line. Get it again.")


def load(file: Path, width: int) -> WordVectors:
    """Return a file's word vectors, read once by each process; of a word that is there twice, the first.

    Raises:
        DataError: A line is not a word and `width` values.
    """
    # Threads wait here for the one that reads.
    with _LOADING:
        return _load(file, width, file.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _load(file: Path, width: int, mtime_ns: int) -> WordVectors:
    rows: dict[str, int] = {}
    values = array("f")
    for word, vector in _vectors(file, width):
        if word not in rows:
            rows[word] = len(rows)
            values.extend(vector)
    return WordVectors(rows, np.frombuffer(values, dtype=np.float32).reshape(-1, width))


def _vectors(file: Path, width: int) -> Iterator[tuple[str, list[float]]]:
    """Yield the words of a file in word2vec's text format with their values."""
    with file.open(encoding="utf-8", errors="replace", newline="\n") as stream:
        for number, line in enumerate(stream, start=1):
            parts = line.rstrip().rsplit(" ", width)
            if number == 1 and len(header := line.split()) == 2 and all(part.isdecimal() for part in header):
                if int(header[1]) != width:
                    raise DataError(
                        f"{file}, line 1: vectors of {header[1]} values, the study asks for text_width = {width}. "
                        "Set [dataset] text_width to what the file has."
                    )
                # With one value a word, "7 1" may be a header as well as the number 7; a header it is.
                continue
            try:
                vector = [float(part) for part in parts[1:]]
            except ValueError:
                vector = []
            if len(vector) != width or not all(map(math.isfinite, vector)):
                raise DataError(
                    f"{file}, line {number}: expected a word and {width} finite values, found {line.rstrip()[:60]!r}. "
                    "Set [dataset] text_width to what the file has, or get the file again."
                )
            yield parts[0], vector
