"""An extraction under way: the rows that it has so far, on disk, from which an interrupted one goes on.

A folder holds `SPLIT.MODALITY.f32` (rows of little-endian float32, appended) and `journal.json` (what the rows follow
from, batch sizes, and for each file how many rows of it count and their CRC-32). Rows count once they are on disk; what
a file holds beyond them is cut off. One process at a time may use a folder.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

VERSION = 1
JOURNAL = "journal.json"
CHECKPOINT_S = 2.0
"""Seconds between two times that rows are brought to disk."""

_log = logging.getLogger(__name__)
_SUFFIX = ".f32"
_ROW_DTYPE = np.dtype("<f4")
_BYTES_AT_ONCE = 1 << 24

Floats = npt.NDArray[np.float32]


class _UnusableError(Exception):
    """Why rows cannot be gone on from."""


class PartialFeatures:
    """The rows that an extraction has so far.

    Attributes:
        folder: Where they lie.
        batch_sizes: Batch size of each modality that was begun; its rest must be extracted with the same.
    """

    def __init__(
        self, folder: Path, *, origin: Mapping[str, Any], widths: Mapping[str, int], checkpoint_s: float = CHECKPOINT_S
    ) -> None:
        """Look for rows in a folder; those that are damaged or follow from something else are thrown away.

        Args:
            folder: Where they lie, or will.
            origin: What rows follow from, as JSON values.
            widths: Columns of each modality.
            checkpoint_s: Seconds between two times that rows are brought to disk.

        Raises:
            OSError: The folder cannot be read or removed.
        """
        self.folder = folder
        self.batch_sizes: dict[str, int] = {}
        self._origin = json.loads(json.dumps({**origin, "widths": dict(widths)}))
        self._widths = dict(widths)
        self._checkpoint_s = checkpoint_s
        self._rows: dict[str, int] = {}
        self._crcs: dict[str, int] = {}
        if folder.exists():
            try:
                self._read()
            except _UnusableError as why:
                _log.warning("%s: %s. The features are extracted from the beginning.", folder, why)
                self.batch_sizes, self._rows, self._crcs = {}, {}, {}
                self.discard()

    @property
    def n_rows(self) -> int:
        """Rows of all splits and modalities together."""
        return sum(self._rows.values())

    def n_done(self, split: str, modality: str) -> int:
        """Return how many rows of a modality there are, counted from the first."""
        return self._rows.get(_name(split, modality), 0)

    def rows(self, split: str, modality: str) -> Floats:
        """Return the rows that count, memory-mapped and read-only, (n, columns of the modality)."""
        shape = (self.n_done(split, modality), self._widths[modality])
        return np.memmap(self.folder / _name(split, modality), dtype=_ROW_DTYPE, mode="r", shape=shape)

    @contextlib.contextmanager
    def appending(self, split: str, modality: str) -> Iterator[Callable[[int, Floats], None]]:
        """Give a function that appends rows; all of them are on disk and count when the block is left without error.

        The function takes the index of the first of the rows, which must be the next one, and the rows.

        Args:
            split: Of which split the rows are.
            modality: Of which modality.

        Raises:
            OSError: The rows cannot be written. What counted before still does.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        name = _name(split, modality)
        n_rows, crc, last = self.n_done(split, modality), self._crcs.get(name, 0), time.monotonic()
        with (self.folder / name).open("ab") as file:

            def checkpoint() -> None:
                # The rows first: a row must not count before it is on disk.
                file.flush()
                os.fsync(file.fileno())
                self._rows[name], self._crcs[name] = n_rows, crc
                self._write_journal()

            def append(first: int, rows: Floats) -> None:
                nonlocal n_rows, crc, last
                if first != n_rows:
                    raise ValueError(f"{name}: expected row {n_rows} next, found row {first}.")
                content = np.ascontiguousarray(rows, dtype=_ROW_DTYPE).data
                file.write(content)
                n_rows, crc = n_rows + len(rows), zlib.crc32(content, crc)
                if time.monotonic() - last >= self._checkpoint_s:
                    checkpoint()
                    last = time.monotonic()

            file.truncate(n_rows * self._row_bytes(modality))
            yield append
            checkpoint()

    def discard(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder)

    def _row_bytes(self, modality: str) -> int:
        return self._widths[modality] * _ROW_DTYPE.itemsize

    def _write_journal(self) -> None:
        journal = {
            "version": VERSION,
            "origin": self._origin,
            "batch_sizes": self.batch_sizes,
            "rows": self._rows,
            "crc32": self._crcs,
        }
        temporary = self.folder / f".{JOURNAL}.tmp"
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(journal, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.folder / JOURNAL)

    def _read(self) -> None:
        try:
            journal = json.loads((self.folder / JOURNAL).read_text(encoding="utf-8"))
            version, origin = journal["version"], journal["origin"]
            self.batch_sizes = {str(modality): int(size) for modality, size in journal["batch_sizes"].items()}
            rows = {str(name): int(n) for name, n in journal["rows"].items()}
            crcs = {str(name): int(crc) for name, crc in journal["crc32"].items()}
        except FileNotFoundError:
            raise _UnusableError("it was stopped before anything of it was on disk") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _UnusableError(f"{JOURNAL} is damaged ({type(error).__name__})") from error
        if version != VERSION:
            raise _UnusableError(f"expected format {VERSION}, found {version!r}")
        if origin != self._origin:
            fields = sorted(name for name in {**origin, **self._origin} if origin.get(name) != self._origin.get(name))
            raise _UnusableError(f"it was begun with another {', '.join(fields)}")
        for name, n in rows.items():
            modality = name.removesuffix(_SUFFIX).partition(".")[2]
            if modality not in self._widths or modality not in self.batch_sizes or name not in crcs or n < 0:
                raise _UnusableError(f"{JOURNAL} is damaged (at {name})")
            if _crc32(self.folder / name, n * self._row_bytes(modality)) != crcs[name]:
                raise _UnusableError(f"{name} is damaged (its CRC-32 differs)")
        self._rows, self._crcs = rows, crcs


def _name(split: str, modality: str) -> str:
    return f"{split}.{modality}{_SUFFIX}"


def _crc32(path: Path, n_bytes: int) -> int | None:
    """Return the CRC-32 of the first bytes of a file, or None when it has not as many."""
    crc, left = 0, n_bytes
    try:
        with path.open("rb") as file:
            while left:
                content = file.read(min(left, _BYTES_AT_ONCE))
                if not content:
                    return None
                crc, left = zlib.crc32(content, crc), left - len(content)
    except FileNotFoundError:
        return None
    return crc
