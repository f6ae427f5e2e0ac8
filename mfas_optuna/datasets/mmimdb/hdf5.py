"""MM-IMDB from `multimodal_imdb.hdf5`, the file that its authors made ready.

    features  float32 [n, 300]          mean word2vec vector of the plot
    images    int32 [n, 3, 256, 160]    posters: blue, green, red, less the means of VGG's training images
    genres    int32 [n, 23]             0 or 1; attribute `target_names`: the names, a JSON list
    imdb_ids  S7 [n]

and more that is not read here. The root's attribute `split` (of the library Fuel) says which rows train, validate
("dev") and test. Source: the authors' make_dataset.py and vgg.py (github.com/johnarevalo/gmu-mmimdb).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mfas_optuna.datasets.mmimdb.found import GENRES, LEAVE_OUT, SPLITS, Found, Row
from mfas_optuna.datasets.samples import Problem, Sample, SampleError
from mfas_optuna.errors import DataError
from mfas_optuna.spec import MmimdbSettings

FILE = "multimodal_imdb.hdf5"

BGR_MEANS = (103.939, 116.779, 123.68)
"""What the authors subtracted from blue, green and red, before they cut off the decimals."""

PUBLISHED = {"train": 15_552, "dev": 2_608, "test": 7_799}
"""Rows of each split in the published file, in this order."""

Coding = Literal["bytes", "unit", "centred"]
"""How pixels are stored: 0 to 255; 0 to 1; or as the authors' file has them, see `BGR_MEANS`."""

_N_AXES = {"images": 4, "features": 2, "genres": 2, "imdb_ids": 1}
_ROWS_LOOKED_AT = 64
_END_BYTES = 1 << 20

_CODINGS: Mapping[Coding, str] = {
    "bytes": "0 to 255, taken as red, green, blue",
    "unit": "0 to 1, taken as red, green, blue; multiplied by 255 and rounded",
    "centred": "blue, green, red less VGG's means, as the authors' script stores them; turned back into red, green, "
    "blue from 0 to 255 (a value next to the mean may be off by one)",
}

_CARD = """\
mmimdb, from {file}: posters and plots of films with their genres.
image: variant detected in the first rows: {dtype}, {coding}. The authors scaled and cropped the posters{reduced}.
text: {width} values a film, the mean word2vec vector of its plot, as they lie in the file.
splits: {splits}. genres: {names}.
"""


def look(settings: MmimdbSettings, data_root: Path) -> Found:
    """Find the films in the file; no poster is read but a few that tell how pixels are stored.

    Raises:
        DataError: The file cannot be read, lacks something, or contradicts itself or the settings.
    """
    file = data_root / FILE
    with _opened(file) as h5:
        _check_shapes(h5, file, settings)
        reduction = _reduction(h5, file, settings)
        n_rows = len(h5["genres"])
        spans, splits_by = _spans(h5, file, n_rows)
        names, named_by = _names(h5, file)
        coding = _coding(h5["images"], file)
        dtype = str(h5["images"].dtype)
        genres, ids = h5["genres"][:], [_text(name) for name in h5["imdb_ids"][:]]
    problems: list[Problem] = []
    first_rows: dict[str, int] = {}
    splits: dict[str, list[Sample]] = {split: [] for split in SPLITS}
    for split, (start, stop) in spans.items():
        for row in range(start, stop):
            name, where = ids[row], f"{file}, row {row}"
            if name in first_rows:
                rule = f"imdb id {name} is that of row {first_rows[name]} too."
                problems.append(Problem(where, rule, "A film may be there once, in one split. " + LEAVE_OUT, name))
            elif problem := _label_problem(genres[row], where, name):
                problems.append(problem)
            else:
                splits[split].append(Sample(name, tuple(map(int, genres[row])), row))
            first_rows.setdefault(name, row)
    card = _CARD.format(
        file=FILE,
        dtype=dtype,
        reduced=f"; here they are 1/{reduction} as high and as wide, means of as many pixels" if reduction > 1 else "",
        coding=_CODINGS[coding],
        width=settings.text_width,
        splits=splits_by,
        names=named_by,
    )
    facts = _facts(file)
    read_one = partial(read, file=str(file), mtime_ns=facts["mtime_ns"], coding=coding, reduction=reduction)
    return Found(splits, names, read_one, facts, card, problems)


def read(sample: Sample, *, file: str, mtime_ns: int, coding: Coding, reduction: int = 1) -> Row:
    """Read one row: "image" uint8 [3, H / reduction, W / reduction], red, green, blue; "text" float32 [F].

    Raises:
        SampleError: A value is NaN or infinite or no pixel can have it, or the row cannot be read.
    """

    def refuse(what: str, rule: str) -> SampleError:
        return SampleError(Problem(f"{file}, {what}, row {sample.at}", rule, LEAVE_OUT, sample.name))

    try:
        h5 = _reader(file, mtime_ns, os.getpid())
        stored, text = h5["images"][sample.at], h5["features"][sample.at].astype(np.float32)
    except OSError as error:
        raise refuse("images or features", f"the row cannot be read ({error}).") from error
    if not np.isfinite(text).all():
        at = int(np.flatnonzero(~np.isfinite(text))[0])
        raise refuse("features", f"expected finite numbers, found {text[at]} in column {at}.")
    pixels = _restore(stored, coding)
    # A file that was rounded in another way than the authors' is one off at the ends.
    wrong = ~((pixels >= -1) & (pixels <= 256))
    if wrong.any():
        pixel = tuple(np.argwhere(wrong)[0].tolist())
        raise refuse("images", f"expected pixels stored as {_CODINGS[coding]}; found {stored[pixel]} at {list(pixel)}.")
    pixels = pixels.clip(0, 255)
    if reduction > 1:
        height, width = (side // reduction for side in pixels.shape[1:])
        pixels = np.rint(pixels.reshape(3, height, reduction, width, reduction).mean(axis=(2, 4)))
    return {"image": pixels.astype(np.uint8), "text": text}


def _restore(stored: npt.NDArray[Any], coding: Coding) -> npt.NDArray[Any]:
    """Return pixels [3, H, W] from 0 to 255, red, green, blue."""
    values: npt.NDArray[Any] = stored.astype(np.float32)
    if coding == "unit":
        values = values * 255
    elif coding == "centred":
        means = np.array(BGR_MEANS, dtype=np.float32)[:, None, None]
        if stored.dtype.kind != "f":
            # Decimals were cut off towards 0: up for what is below the mean, down for what is above.
            means = np.floor(means) + (values >= 0)
        values = (values + means)[::-1]
    pixels: npt.NDArray[Any] = np.rint(values)
    return pixels


def _check_shapes(h5: Any, file: Path, settings: MmimdbSettings) -> None:
    missing = [name for name in _N_AXES if name not in h5]
    if missing:
        raise DataError(
            f"{file}: expected the data sets {', '.join(_N_AXES)}, found no {', '.join(missing)}; there is "
            f"{', '.join(h5) or 'nothing'}. Get the authors' file again."
        )
    shapes = {name: tuple(h5[name].shape) for name in _N_AXES}
    for name, n_axes in _N_AXES.items():
        if len(shapes[name]) != n_axes:
            raise DataError(
                f"{file}, {name}: expected {n_axes} axes, found {list(shapes[name])}. Get the authors' file again."
            )
    if len({shape[0] for shape in shapes.values()}) > 1:
        rows = ", ".join(f"{name} {shape[0]}" for name, shape in shapes.items())
        raise DataError(f"{file}: expected as many rows in each data set, found {rows}. Get the file again.")
    if shapes["features"][1] != settings.text_width:
        raise DataError(
            f"{file}, features: the study asks for text_width = {settings.text_width}, found {shapes['features'][1]}. "
            "Set [dataset] text_width to what the file has."
        )


def _reduction(h5: Any, file: Path, settings: MmimdbSettings) -> int:
    """Return how many times higher and wider posters are than the study asks for."""
    expected = (3, settings.image_height, settings.image_width)
    found = tuple(h5["images"].shape[1:])
    times: int = max(found[1] // settings.image_height, 1)
    if found != (3, times * settings.image_height, times * settings.image_width):
        raise DataError(
            f"{file}, images: the study asks for {list(expected)} (colours, image_height, image_width), found "
            f"{list(found)}. Set [dataset] image_height and image_width to what the file has, or both to the same "
            "whole fraction of it."
        )
    return times


def _spans(h5: Any, file: Path, n_rows: int) -> tuple[dict[str, tuple[int, int]], str]:
    """Return the first row and the row after the last of each split, and what says so."""
    table = h5.attrs.get("split")
    if table is None:
        if n_rows != sum(PUBLISHED.values()):
            raise DataError(
                f"{file}: expected the root attribute 'split', which says what rows train, validate and test, or the "
                f"{sum(PUBLISHED.values()):,} rows of the published file; found {n_rows:,} rows and no such "
                "attribute. Get the authors' file again."
            )
        ends = np.cumsum([0, *PUBLISHED.values()]).tolist()
        return {split: (ends[i], ends[i + 1]) for i, split in enumerate(SPLITS)}, "the published rows, in their order"
    fields = getattr(getattr(table, "dtype", None), "names", None) or ()
    if not {"split", "source", "start", "stop", "indices"} <= set(fields):
        raise DataError(
            f"{file}, attribute 'split': expected Fuel's table of splits, found {table!r}. Get the authors' file again."
        )
    spans = {}
    for split, called in SPLITS.items():
        rows = [row for row in table if _text(row["split"]) == called and _text(row["source"]) == "images"]
        if len(rows) != 1 or bool(rows[0]["indices"]):
            raise DataError(
                f"{file}, attribute 'split': expected one range of rows for {called}, found {rows!r}. Get the "
                "authors' file again."
            )
        spans[split] = (int(rows[0]["start"]), int(rows[0]["stop"]))
    last = 0
    for start, stop in sorted(spans.values()):
        if not last <= start < stop <= n_rows:
            raise DataError(
                f"{file}, attribute 'split': expected ranges that do not overlap within {n_rows} rows, found {spans}. "
                "Get the authors' file again."
            )
        last = stop
    return spans, "as the file's attribute 'split' has them"


def _names(h5: Any, file: Path) -> tuple[tuple[str, ...], str]:
    """Return the genres in the order of the columns, and what says so."""
    n_genres = h5["genres"].shape[1]
    stored = h5["genres"].attrs.get("target_names")
    if stored is None:
        if n_genres == len(GENRES):
            return GENRES, "the file does not name them; the authors' order, most frequent first, is assumed"
        return tuple(f"genre {number + 1}" for number in range(n_genres)), "the file does not name them"
    try:
        names = json.loads(stored)
    except (TypeError, ValueError):
        names = None
    if (
        not isinstance(names, list)
        or not all(isinstance(name, str) for name in names)
        or len(set(names)) != len(names)
        or len(names) != n_genres
    ):
        raise DataError(
            f"{file}, genres, attribute 'target_names': expected a JSON list of {n_genres} names, found {stored!r}. "
            "Mend or delete the attribute."
        )
    return tuple(names), "as the file names them"


def _coding(images: Any, file: Path) -> Coding:
    if images.dtype.kind not in "iuf":
        raise DataError(f"{file}, images: expected numbers, found {images.dtype}. Get the authors' file again.")
    first = images[:_ROWS_LOOKED_AT]
    seen = first[np.isfinite(first)]
    if seen.min(initial=0) < 0:
        return "centred"
    return "unit" if images.dtype.kind == "f" and seen.max(initial=0) <= 1 else "bytes"


def _label_problem(row: npt.NDArray[Any], where: str, name: str) -> Problem | None:
    if not np.isin(row, (0, 1)).all():
        return Problem(f"{where}, genres", f"expected 0 or 1, found {row.tolist()}.", LEAVE_OUT, name)
    if not row.any():
        return Problem(f"{where}, genres", "expected at least one genre, found none.", LEAVE_OUT, name)
    return None


def _facts(file: Path) -> dict[str, Any]:
    # Not of the whole: the file has 13 GB and more, and this is asked at each start.
    found = file.stat()
    with file.open("rb") as stream:
        head = stream.read(_END_BYTES)
        stream.seek(max(0, found.st_size - _END_BYTES))
        ends = hashlib.sha256(head + stream.read()).hexdigest()
    return {"file": FILE, "bytes": found.st_size, "mtime_ns": found.st_mtime_ns, "ends": ends}


def _text(value: Any) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def import_h5py() -> Any:
    """Return h5py.

    Raises:
        DataError: It is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"{FILE} needs h5py: pip install 'mfas-optuna[mmimdb]'.") from error
    return h5py


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    h5py = import_h5py()
    try:
        h5 = h5py.File(file, "r")
    except OSError as error:
        raise DataError(f"{file}: not a readable HDF5 file ({error}). Get it again.") from error
    with h5:
        yield h5


@lru_cache(maxsize=4)
def _reader(file: str, mtime_ns: int, process: int) -> Any:
    """Return the open file; each process opens its own, since HDF5's state does not survive a fork."""
    return import_h5py().File(file, "r")
