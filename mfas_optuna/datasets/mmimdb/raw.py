"""MM-IMDB from the raw files: a JSON of facts and a JPEG of the poster for each film, and a file of splits.

    dataset/NNNNNNN.json   {"plot": ["...", ...], "genres": ["Drama", ...], "title": ..., ...}
    dataset/NNNNNNN.jpeg
    split.json             {"train": ["NNNNNNN", ...], "dev": [...], "test": [...]}

The longest of a film's plots counts, as for the data set's authors.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mfas_optuna.datasets.mmimdb import text
from mfas_optuna.datasets.mmimdb.found import GENRES, LEAVE_OUT, LEFT_OUT, SPLITS, Found, Row
from mfas_optuna.datasets.samples import Problem, Sample, SampleError
from mfas_optuna.errors import DataError, DataNotFoundError
from mfas_optuna.spec import MmimdbSettings

SPLIT_FILE = "split.json"
FOLDER = "dataset"

_FORMATS = ("JPEG", "PNG", "GIF")
_SHOWN = 5
_OPENING = threading.Lock()

_CARD = """\
mmimdb, from the raw files ({folder}/*.json, {folder}/*.jpeg, {split_file}): posters and plots of films with their
  genres.
image: posters scaled and cropped to {height} x {width} pixels (height x width) about their middle; red,
  green, blue.
text: the longest plot of each film, {text}.
genres: {left_out} are left out, and films of no other genre, as the data set's authors do.
"""


class _At(NamedTuple):
    """What a film is read from: its poster's file and its plot."""

    poster: str
    plot: str


def look(settings: MmimdbSettings, data_root: Path, *, only_occurring: bool) -> Found:
    """Find the films: their facts are read, their posters are not.

    Args:
        settings: Size of the posters, and how plots become vectors.
        data_root: Where the files are.
        only_occurring: Whether the target is the genres that occur, instead of the authors' 23.

    Raises:
        DataError: `split.json` is malformed.
        DataNotFoundError: The folder or the file of word vectors is missing.
    """
    folder = data_root / FOLDER
    if not folder.is_dir():
        raise DataNotFoundError(f"{folder}: no such folder. Unpack the raw files beside {SPLIT_FILE}.")
    vectors = None if settings.text_vectors is None else data_root / settings.text_vectors
    if vectors is not None:
        text.check_head(vectors, settings.text_width)
    split_file = data_root / SPLIT_FILE
    files = {entry.name: entry.stat() for entry in os.scandir(folder) if entry.is_file()}

    problems: list[Problem] = []
    films: dict[str, list[tuple[str, set[str], _At]]] = {split: [] for split in SPLITS}
    unknown: dict[str, list[str]] = defaultdict(list)
    nothing_left: list[str] = []
    seen: dict[str, str] = {}
    for split, names in _read_splits(split_file).items():
        for name in names:
            if name in seen:
                rule = f"{name} is in {SPLITS[split]} and already in {SPLITS[seen[name]]}."
                problems.append(
                    Problem(str(split_file), rule, "A film may be there once, in one split. " + LEAVE_OUT, name)
                )
                continue
            seen[name] = split
            missing = [file for file in (f"{name}.json", f"{name}.jpeg") if file not in files]
            if missing:
                rule = f"{SPLIT_FILE} has {name}, the folder has no {' and no '.join(missing)}."
                problems.append(Problem(str(folder), rule, "Add it, or leave the film out with --skip-bad.", name))
                continue
            try:
                genres, plot = _facts_of(folder / f"{name}.json", name)
            except SampleError as error:
                problems.append(error.problem)
                continue
            for genre in genres.difference(GENRES, LEFT_OUT):
                unknown[genre].append(name)
            if not genres.intersection(GENRES):
                nothing_left.append(name)
                continue
            films[split].append((name, genres, _At(str(folder / f"{name}.jpeg"), plot)))
    problems += _warnings(folder, files, seen, unknown, nothing_left)

    occurring = {genre for of_split in films.values() for _, genres, _ in of_split for genre in genres}
    names_of_genres = tuple(genre for genre in GENRES if genre in occurring or not only_occurring)
    splits = {
        split: [
            Sample(name, tuple(int(genre in genres) for genre in names_of_genres), at) for name, genres, at in of_split
        ]
        for split, of_split in films.items()
    }
    read_one = partial(
        read,
        height=settings.image_height,
        width=settings.image_width,
        text_width=settings.text_width,
        text_vectors=None if vectors is None else str(vectors),
    )
    card = _CARD.format(
        folder=FOLDER,
        split_file=SPLIT_FILE,
        height=settings.image_height,
        width=settings.image_width,
        text=f"the mean of its words' vectors in {vectors.name}" if vectors else "hashed counts of its words",
        left_out=", ".join(LEFT_OUT),
    )
    return Found(splits, names_of_genres, read_one, _facts(files, split_file, vectors), card, problems)


def read(sample: Sample, *, height: int, width: int, text_width: int, text_vectors: str | None) -> Row:
    """Read one film: "image" uint8 [3, height, width], red, green, blue; "text" float32 [text_width].

    Raises:
        DataError: The file of word vectors is malformed.
        SampleError: The poster is damaged or too large, or no word of the plot has a vector.
    """
    at = _At(*sample.at)
    found = text.words(at.plot)
    if text_vectors is None:
        vector = text.hashed_counts(found, text_width)
    else:
        mean = text.load(Path(text_vectors), text_width).mean(found)
        if mean is None:
            rule = f"no word of the plot is in {text_vectors}: {at.plot[:60]!r}."
            raise SampleError(Problem(str(Path(at.poster).with_suffix(".json")), rule, LEAVE_OUT, sample.name))
        vector = mean
    return {"image": _read_poster(at.poster, sample.name, height, width), "text": vector}


def _read_poster(file: str, name: str, height: int, width: int) -> npt.NDArray[np.uint8]:
    image_module, image_ops = import_pillow()
    try:
        # Pillow only warns of pictures up to twice its limit. Filters of warnings are the whole process's, so that
        # threads take turns.
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("error", image_module.DecompressionBombWarning)
            opened = image_module.open(file, formats=_FORMATS)
        with opened:
            poster = image_ops.fit(opened.convert("RGB"), (width, height), image_module.Resampling.LANCZOS)
    except (image_module.DecompressionBombWarning, image_module.DecompressionBombError) as error:
        rule = f"the poster is larger than Pillow's limit against decompression bombs ({error})."
        raise SampleError(Problem(file, rule, "Scale it down, or leave the film out with --skip-bad.", name)) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise SampleError(Problem(file, f"the poster cannot be read ({error}).", LEAVE_OUT, name)) from error
    return np.ascontiguousarray(np.asarray(poster).transpose(2, 0, 1))


def import_pillow() -> tuple[Any, Any]:
    """Return Pillow's modules Image and ImageOps.

    Raises:
        DataError: It is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise DataError("posters need Pillow: pip install 'mfas-optuna[mmimdb]'.") from error
    return Image, ImageOps


def _read_splits(file: Path) -> dict[str, list[str]]:
    expected = 'expected {"train": [ids], "dev": [ids], "test": [ids]}'
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataNotFoundError(f"{file}: no such file. It comes with the raw files.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: {expected}, found no JSON ({error}). Get it again.") from error
    splits = {}
    for split, called in SPLITS.items():
        names = values.get(called) if isinstance(values, dict) else None
        if not isinstance(names, list) or not names:
            raise DataError(f"{file}: {expected}, found no ids for {called!r}. Get it again.")
        for name in names:
            # Names of files: nothing that leads out of the folder.
            if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
                raise DataError(f'{file}, {called}: expected ids such as "0012345", found {name!r}. Get it again.')
        splits[split] = names
    return splits


def _facts_of(file: Path, name: str) -> tuple[set[str], str]:
    """Return the genres and the longest plot of a film."""

    def refuse(rule: str) -> SampleError:
        return SampleError(Problem(str(file), rule, LEAVE_OUT, name))

    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise refuse(f"expected JSON, found something else ({error}).") from error
    if not isinstance(values, dict):
        raise refuse(f"expected a JSON object, found {type(values).__name__}.")
    genres = values.get("genres")
    if not isinstance(genres, list) or not genres or not all(isinstance(genre, str) for genre in genres):
        raise refuse(f"genres: expected a list of names, found {'none' if not genres else repr(genres)[:60]}.")
    plots = values.get("plot")
    plots = [plots] if isinstance(plots, str) else plots
    if not isinstance(plots, list) or not all(isinstance(plot, str) for plot in plots):
        raise refuse(f"plot: expected a list of texts, found {'none' if not plots else repr(plots)[:60]}.")
    plot = max(plots, key=len, default="")
    if not text.words(plot):
        raise refuse("plot: expected a text, found no word.")
    return set(genres), plot


def _warnings(
    folder: Path,
    files: Mapping[str, os.stat_result],
    seen: Mapping[str, str],
    unknown: Mapping[str, list[str]],
    nothing_left: list[str],
) -> Iterator[Problem]:
    for genre, names in sorted(unknown.items()):
        rule = f"genre {genre!r}, of {_some(names)}, is none of the authors' 27."
        yield Problem(str(folder), rule, "It is ignored.", is_error=False)
    if nothing_left:
        rule = f"{_some(nothing_left)} without any of the authors' 23 genres."
        yield Problem(str(folder), rule, "Left out, as the authors do.", is_error=False)
    extra = sorted({file.partition(".")[0] for file in files} - seen.keys())
    if extra:
        rule = f"{_some(extra)} in the folder and not in {SPLIT_FILE}."
        yield Problem(str(folder), rule, "They are not used.", is_error=False)


def _some(names: list[str]) -> str:
    more = ", ..." if len(names) > _SHOWN else ""
    return f"{len(names)} film{'s' if len(names) > 1 else ''} ({', '.join(names[:_SHOWN])}{more})"


def _facts(files: Mapping[str, os.stat_result], split_file: Path, vectors: Path | None) -> dict[str, Any]:
    stats = {FOLDER + "/" + name: stat for name, stat in files.items()} | {SPLIT_FILE: split_file.stat()}
    if vectors is not None:
        stats[vectors.name] = vectors.stat()
    listed = sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items())
    return {"files": len(listed), "listing": hashlib.sha256(json.dumps(listed).encode()).hexdigest()}
