"""Generated films in the formats of MM-IMDB, for trying studies without the data set.

A film has one to three genres; genres are rarer one after the other. Each genre leaves traces of four kinds:

    poster, low level      a tint, and stripes of the genre's direction
    poster, higher level   a disc at the genre's place, light or dark
    plot                   words of the genre's own; in the hdf5 layout a direction of the text vector

A trace is there or not by chance, more often in posters for every second genre and in plots for the others, and is also
there now and then for a genre that the film does not have. So no modality tells all, and each kind of trace adds to the
others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from mfas_optuna.datasets import stand_in
from mfas_optuna.datasets.mmimdb import hdf5, raw
from mfas_optuna.datasets.mmimdb.found import GENRES, SPLITS
from mfas_optuna.errors import DataError
from mfas_optuna.progress import Progress, silent

Layout = Literal["hdf5", "raw"]

MOST_GENRES = 3
"""Genres that a generated film has at most."""

RAW_SIZE = (128, 80)
"""Height and width of posters in the raw layout, pixels; heights vary a little below that."""

TEXT_WIDTH = 300
"""Values of the text vectors in the hdf5 layout."""

_FRACTIONS = {"train": 0.6, "validation": 0.2, "test": 0.2}
_STRONG, _WEAK, _FALSE = 0.85, 0.3, 0.08
"""How often a genre of the film leaves a trace where it is strong, where it is weak; and one that it does not have."""

_TINT, _STRIPES, _DISC = 26.0, 30.0, 70.0
_PIXEL_NOISE, _TINT_NOISE = 14.0, 16.0
_TEXT_NOISE = 0.1
_OWN_WORDS, _COMMON_WORDS = 5, 120

_Labels = npt.NDArray[np.uint8]
_Traces = npt.NDArray[np.bool_]


def make(
    folder: Path,
    *,
    layout: Layout = "raw",
    n_samples: int,
    n_classes: int = 6,
    seed: int = 0,
    height: int = 256,
    width: int = 160,
    progress: Progress = silent,
) -> None:
    """Write generated films into a folder, marked as a stand-in.

    The same arguments give the same arrays and the same pictures.

    Args:
        folder: Where to; it must be empty or not there.
        layout: `hdf5`: one file; `raw`: JSON and JPEG of each film.
        n_samples: Films, 60 % of them for training, 20 % each for validation and test.
        n_classes: Genres, the first of the authors' 23.
        seed: Of everything that is random.
        height: Height of the posters in the hdf5 layout, pixels.
        width: Their width.
        progress: Told how far it is.

    Raises:
        DataError: The folder is not empty or cannot be written, the numbers do not fit, or h5py or Pillow is missing.
    """
    if layout not in get_args(Layout):
        raise DataError(
            f"mmimdb stand-in, layout: expected {' or '.join(get_args(Layout))}, found {layout!r}. Mend --layout."
        )
    hdf5.import_h5py() if layout == "hdf5" else raw.import_pillow()
    sizes = _sizes(n_samples)
    if not 2 <= n_classes <= len(GENRES):
        raise DataError(f"mmimdb stand-in: expected 2 to {len(GENRES)} genres, found {n_classes}. Mend --classes.")
    if min(sizes.values()) * MOST_GENRES < n_classes:
        raise DataError(
            f"mmimdb stand-in: {n_samples} films give {min(sizes.values())} for validation, too few for {n_classes} "
            f"genres to be in each split. Ask for {5 * math.ceil(n_classes / MOST_GENRES)} or more."
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: expected an empty folder, found something in it. Name another one.")
    label_rng, trace_rng, poster_rng, text_rng = (np.random.default_rng([seed, stream]) for stream in range(4))
    labels = np.concatenate([_draw_labels(size, n_classes, label_rng) for size in sizes.values()])
    low, high = (_draw_traces(labels, 0, trace_rng) for _ in range(2))
    in_text = _draw_traces(labels, 1, trace_rng)
    settings = {"layout": layout, "samples": n_samples, "genres": n_classes, "seed": seed}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # First of all: what an interruption leaves must not pass for the data set.
        stand_in.mark(folder, "MM-IMDB", settings)
        if layout == "hdf5":
            size, vectors = (height, width), _vectors(in_text, text_rng)
            posters = _posters(low, high, size, 0, poster_rng)
            _write_hdf5(folder / hdf5.FILE, sizes, labels, vectors, posters, size, progress)
        else:
            posters = _posters(low, high, RAW_SIZE, RAW_SIZE[0] // 8, poster_rng)
            _write_raw(folder, sizes, labels, _plots(in_text, text_rng), posters, progress)
    except OSError as error:
        raise DataError(f"{folder}: the stand-in cannot be written ({error}). Name another folder.") from error


def _sizes(n_samples: int) -> dict[str, int]:
    n_validation, n_test = (round(n_samples * _FRACTIONS[split]) for split in ("validation", "test"))
    sizes = {"train": n_samples - n_validation - n_test, "validation": n_validation, "test": n_test}
    if min(sizes.values()) < 1:
        raise DataError(f"mmimdb stand-in: expected 5 films or more, found {n_samples}. Raise --samples.")
    return sizes


def _draw_labels(n_films: int, n_classes: int, rng: np.random.Generator) -> _Labels:
    """Return one to three genres for each film [n, C], every genre once or more."""
    labels = np.zeros((n_films, n_classes), dtype=np.uint8)
    weights = 1.0 / np.arange(2, n_classes + 2)
    for genre in range(n_classes):
        labels[genre % n_films, genre] = 1
    wanted = rng.choice([1, 2, 3], n_films, p=[0.45, 0.4, 0.15])
    for film in range(n_films):
        n_missing = min(int(wanted[film]), n_classes) - int(labels[film].sum())
        if n_missing > 0:
            left = np.where(labels[film] == 0, weights, 0.0)
            labels[film, rng.choice(n_classes, n_missing, replace=False, p=left / left.sum())] = 1
    return labels[rng.permutation(n_films)]


def _draw_traces(labels: _Labels, strong: int, rng: np.random.Generator) -> _Traces:
    """Return which genres leave a trace [n, C]; those whose number is `strong` modulo 2 do so more often."""
    chances = np.where(np.arange(labels.shape[1]) % 2 == strong, _STRONG, _WEAK)
    return rng.random(labels.shape) < np.where(labels == 1, chances, _FALSE)


def _posters(
    low: _Traces, high: _Traces, size: tuple[int, int], shorter: int, rng: np.random.Generator
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield posters [H, W, 3], red, green, blue; up to `shorter` rows less than the height."""
    n_classes = low.shape[1]
    # A colour circle around grey; directions of stripes over half a turn; places of discs on an ellipse.
    turns = np.arange(n_classes) / n_classes
    tints = np.stack([np.cos(2 * np.pi * (turns - third)) for third in (0, 1 / 3, 2 / 3)], axis=1)
    for of_film_low, of_film_high in zip(low, high, strict=True):
        height, width = size[0] - int(rng.integers(0, shorter + 1)), size[1]
        y, x = np.mgrid[0:height, 0:width] / width
        poster = np.full((height, width, 3), rng.normal(128, 12)) + rng.normal(0, _TINT_NOISE, 3)
        for genre in np.flatnonzero(of_film_low):
            angle = np.pi * turns[genre] + rng.normal(0, 0.1)
            waves = np.sin(2 * np.pi * (8 * (x * np.cos(angle) + y * np.sin(angle)) + rng.random()))
            poster += _TINT * tints[genre] + (_STRIPES * waves)[:, :, None]
        for genre in np.flatnonzero(of_film_high):
            centre = np.array(
                [0.5 + 0.33 * np.cos(2 * np.pi * turns[genre]), 0.5 + 0.36 * np.sin(2 * np.pi * turns[genre])]
            )
            at_x, at_y = centre + rng.normal(0, 0.02, 2)
            inside = (x - at_x) ** 2 + (y - at_y * height / width) ** 2 < rng.uniform(0.1, 0.14) ** 2
            poster[inside] += _DISC * rng.choice([-1, 1])
        poster += rng.normal(0, _PIXEL_NOISE, poster.shape)
        yield poster.clip(0, 255).astype(np.uint8)


def _vectors(in_text: _Traces, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return text vectors [n, TEXT_WIDTH]: the sum of the genres' directions, in noise."""
    directions = rng.normal(0, 1 / math.sqrt(TEXT_WIDTH), (in_text.shape[1], TEXT_WIDTH))
    noise = rng.normal(0, _TEXT_NOISE / 2, (len(in_text), TEXT_WIDTH))
    return (in_text @ directions + noise).astype(np.float32)


def _plots(in_text: _Traces, rng: np.random.Generator) -> list[list[str]]:
    """Return plots of invented words, a long and a short one for each film."""
    n_classes = in_text.shape[1]
    vocabulary = _invent_words(_COMMON_WORDS + n_classes * _OWN_WORDS, rng)
    common, own = vocabulary[:_COMMON_WORDS], np.reshape(vocabulary[_COMMON_WORDS:], (n_classes, _OWN_WORDS))
    frequencies = 1.0 / np.arange(3, _COMMON_WORDS + 3)
    plots = []
    for of_film in in_text:
        chosen = list(rng.choice(common, int(rng.integers(10, 20)), p=frequencies / frequencies.sum()))
        for genre in np.flatnonzero(of_film):
            chosen += list(rng.choice(own[genre], int(rng.integers(3, 7))))
        words = [str(word) for word in rng.permutation(chosen)]
        plots.append([" ".join(words).capitalize() + ".", " ".join(words[:5]).capitalize() + "."])
    return plots


def _invent_words(n_words: int, rng: np.random.Generator) -> list[str]:
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    words: dict[str, None] = {}
    while len(words) < n_words:
        words["".join(rng.choice(syllables, int(rng.integers(2, 5))))] = None
    return list(words)


def _ids(n_films: int) -> list[str]:
    return [f"{9_000_001 + film:07d}" for film in range(n_films)]


def _write_hdf5(
    file: Path,
    sizes: dict[str, int],
    labels: _Labels,
    vectors: npt.NDArray[np.float32],
    posters: Iterator[npt.NDArray[np.uint8]],
    size: tuple[int, int],
    progress: Progress,
) -> None:
    h5py: Any = hdf5.import_h5py()
    n_films, n_classes = labels.shape
    means = np.array(hdf5.BGR_MEANS)[:, None, None]
    with h5py.File(file, "w") as h5:
        h5["features"] = vectors
        h5["genres"] = labels.astype(np.int32)
        h5["genres"].attrs["target_names"] = json.dumps(GENRES[:n_classes])
        h5["imdb_ids"] = np.array(_ids(n_films), dtype="S7")
        images = h5.create_dataset(
            "images",
            (n_films, 3, *size),
            dtype=np.int32,
            chunks=(1, 3, *size),
            compression="gzip",
            compression_opts=1,
            shuffle=True,
        )
        for film, poster in enumerate(posters):
            progress("posters", film, n_films)
            # As the authors' script: blue first, means subtracted, decimals cut off.
            images[film] = (poster.transpose(2, 0, 1)[::-1] - means).astype(np.int32)
        h5.attrs["split"] = _split_table(sizes, h5py)
    progress("posters", n_films, n_films)


def _split_table(sizes: dict[str, int], h5py: Any) -> npt.NDArray[np.void]:
    """Return Fuel's table of which rows of which data set belong to which split."""
    sources = ("features", "genres", "images", "imdb_ids")
    fields = [
        ("split", "S5"),
        ("source", "S8"),
        ("start", np.int64),
        ("stop", np.int64),
        ("indices", h5py.ref_dtype),
        ("available", np.bool_),
        ("comment", "S1"),
    ]
    rows, start = [], 0
    for split, n_films in sizes.items():
        for source in sources:
            row = (SPLITS[split].encode(), source.encode(), start, start + n_films, h5py.Reference(), True, b".")
            rows.append(row)
        start += n_films
    return np.array(rows, dtype=np.dtype(fields))


def _write_raw(
    folder: Path,
    sizes: dict[str, int],
    labels: _Labels,
    plots: list[list[str]],
    posters: Iterator[npt.NDArray[np.uint8]],
    progress: Progress,
) -> None:
    image_module, _ = raw.import_pillow()
    ids = _ids(len(labels))
    (folder / raw.FOLDER).mkdir()
    for film, poster in enumerate(posters):
        progress("posters", film, len(ids))
        genres = [GENRES[genre] for genre in np.flatnonzero(labels[film])]
        values = {"title": f"Generated film {film + 1}", "genres": genres, "plot": plots[film]}
        (folder / raw.FOLDER / f"{ids[film]}.json").write_text(json.dumps(values, indent=1), encoding="utf-8")
        image_module.fromarray(poster).save(folder / raw.FOLDER / f"{ids[film]}.jpeg", quality=90)
    progress("posters", len(ids), len(ids))
    splits, start = {}, 0
    for split, n_films in sizes.items():
        splits[SPLITS[split]] = ids[start : start + n_films]
        start += n_films
    (folder / raw.SPLIT_FILE).write_text(json.dumps(splits, indent=1), encoding="utf-8")
