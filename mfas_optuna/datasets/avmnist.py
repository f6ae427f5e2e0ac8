"""AV-MNIST from raw files: MNIST digits without most of their energy, spoken digits (FSDD) in noise (ESC-10).

Source: MFAS section 4; FSDD stands in for TIDIGITS. Recordings are split, not pairs: FSDD indices 10 and above train,
5 to 9 validate, 0 to 4 test; ESC folds 1 to 3, 4 and 5.
"""

from __future__ import annotations

import csv
import gzip
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mfas_optuna.datasets import degradation, spectrogram, store
from mfas_optuna.datasets.dataset import SPLIT_NAMES
from mfas_optuna.errors import DataError, DataNotFoundError
from mfas_optuna.progress import Progress
from mfas_optuna.spec import AvmnistSettings
from mfas_optuna.target import Target

MODALITIES = ("audio", "image")
SAMPLE_RATE = 8000
N_SAMPLES = 7326
"""Gives exactly 112 frames of 112 frequencies."""

_WINDOW, _HOP = 222, 64
_RANGE_DB = 80.0
_TARGET = Target.of_classes(10)
_ROWS_AT_ONCE = 256
_FSDD_NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.wav")
_MIN_NOISE_POWER = 0.1
"""A crop of noise is drawn again while its power is under this fraction of its clip's."""
_MAX_REDRAWS = 20

# Grey levels are stored as round((value + _IMAGE_OFFSET) / _IMAGE_RANGE * 255): degraded images leave [0, 1].
_IMAGE_OFFSET, _IMAGE_RANGE = 0.5, 2.0

_MNIST = {
    ("train", "images"): "train-images-idx3-ubyte.gz",
    ("train", "labels"): "train-labels-idx1-ubyte.gz",
    ("test", "images"): "t10k-images-idx3-ubyte.gz",
    ("test", "labels"): "t10k-labels-idx1-ubyte.gz",
}

_CARD = """\
avmnist: pairs of a written and a spoken digit, 10 classes, paired at random by their class.
image: MNIST (60,000 and 10,000 real images, 28x28), {how} principal components of the training images kept, {kept:.0%}
  of their variance. uint8 [1, 28, 28]: value / 255 * {range:g} - {offset:g} is the grey level.
audio: Free Spoken Digit Dataset ({n_speech} recordings, 6 speakers) at {snr:g} dB over ESC-10 noise ({n_noise}
  real clips). It stands in for TIDIGITS of the paper. Log-power spectrograms, 0 to 4 kHz, 80 dB, uint8 [1, 112, 112].
splits: recordings, not pairs, are split; speakers are in all splits. MNIST's own test images are the test split.
pairs: {pairs} for train, validation and test.
tasks besides the digit: at_least_five (the digit is 5 or more), noise (the class of the noise, of
  {noises}).
"""


def write(settings: AvmnistSettings, folder: Path, data_root: Path | None, progress: Progress) -> store.Contents:
    """Build the data set's arrays in `folder` from the raw files in `data_root`.

    Raises:
        DataError: A raw file is not what it should be.
        DataNotFoundError: Raw files are missing; the message says what to get and where to put it.
    """
    root = check_files(data_root)
    images, image_labels = _read_mnist(root)
    wrong: list[str] = []
    speech = _read_speech(root, progress, wrong)
    noise, noises = _read_noise(root, progress, wrong)
    if wrong:
        raise DataError("\n".join(wrong))

    n_validation_images = max(1, len(images["train"]) // 12)  # 5,000 of MNIST's 60,000.
    pools = {
        "train": np.arange(len(images["train"]) - n_validation_images),
        "validation": np.arange(len(images["train"]) - n_validation_images, len(images["train"])),
        "test": np.arange(len(images["test"])),
    }
    degrade = degradation.fit(
        images["train"][pools["train"]],
        n_components=settings.pca_components,
        energy=settings.pca_energy,
        keep=settings.degradation,
    )
    sizes = {"train": settings.n_train, "validation": settings.n_validation, "test": settings.n_test}
    done, total = 0, sum(sizes.values())
    for stream, split in enumerate(SPLIT_NAMES):
        size = sizes[split]
        rng = np.random.default_rng([settings.seed, stream])
        source = "test" if split == "test" else "train"
        chosen = _draw_images(pools[split], size, rng)
        labels = image_labels[source][chosen]
        store.create_array(store.labels_file(folder, split), (size,), np.int64)[:] = labels
        store.create_array(store.labels_file(folder, split, "at_least_five"), (size,), np.int64)[:] = labels >= 5
        noise_labels = store.create_array(store.labels_file(folder, split, "noise"), (size,), np.int64)
        image = store.create_array(store.array_file(folder, split, "image"), (size, 1, 28, 28), np.uint8)
        audio = store.create_array(store.array_file(folder, split, "audio"), (size, 1, 112, 112), np.uint8)
        for start in range(0, size, _ROWS_AT_ONCE):
            rows = slice(start, min(start + _ROWS_AT_ONCE, size))
            progress("avmnist pairs", done + start, total)
            grey = (degrade(images[source][chosen[rows]]) + _IMAGE_OFFSET) / _IMAGE_RANGE
            image[rows, 0] = spectrogram.to_bytes(np.clip(grey, 0, 1)).reshape(-1, 28, 28)
            drawn = [_noisy(digit, speech[split], noise[split], settings.snr_db, rng) for digit in labels[rows]]
            noise_labels[rows] = [label for _, label in drawn]
            sound = np.stack([sound for sound, _ in drawn])
            power = spectrogram.power_spectrogram(sound, window=_WINDOW, hop=_HOP)
            audio[rows, 0] = spectrogram.to_bytes(spectrogram.to_unit_decibels(power, range_db=_RANGE_DB))
        done += size
        for array in (image, audio, noise_labels):
            array.flush()
    progress("avmnist pairs", total, total)
    if settings.degradation == "leading":
        how, kept = f"{len(degrade.components)} leading", degrade.variance_kept
    else:
        how, kept = f"all but the {len(degrade.components)} leading", 1 - degrade.variance_kept
    card = _CARD.format(
        how=how,
        kept=kept,
        range=_IMAGE_RANGE,
        offset=_IMAGE_OFFSET,
        n_speech=f"{sum(len(clips) for of_split in speech.values() for clips in of_split.values()):,}",
        n_noise=sum(len(clips) for clips in noise.values()),
        noises=", ".join(noises),
        snr=settings.snr_db,
        pairs=", ".join(f"{size:,}" for size in sizes.values()),
    )
    return store.Contents(card, _TARGET, MODALITIES, {}, {"at_least_five": 2, "noise": len(noises)})


# Files.


def check_files(data_root: Path | None) -> Path:
    """Return the folder of raw files when they are in it.

    Raises:
        DataNotFoundError: Some are missing; the message says which, and where to get them.
    """
    wanted = {
        "mnist": ("MNIST's four .gz files in IDX format", list(_MNIST.values())),
        "fsdd": ("the Free Spoken Digit Dataset, with its folder recordings/", ["recordings"]),
        "esc50": ("ESC-50 (or its ESC-10 part), with audio/ and meta/esc50.csv", ["audio", "meta/esc50.csv"]),
    }
    problems = []
    for name, (what, files) in wanted.items():
        missing = [file for file in files if data_root is None or not (data_root / name / file).exists()]
        if missing:
            problems.append(f"  {name}/: get {what}; missing: {', '.join(missing)}")
    if data_root is None or problems:
        where = "no folder of raw data was named" if data_root is None else f"{data_root}: raw data are missing"
        raise DataNotFoundError(
            f"avmnist: {where}.\n"
            + "\n".join(problems)
            + "\nPut them into one folder and name it with --data-root or MFAS_DATA. The study digits needs no files."
        )
    return data_root


def _read_mnist(root: Path) -> tuple[dict[str, npt.NDArray[np.float32]], dict[str, npt.NDArray[np.int64]]]:
    images, labels = {}, {}
    for split in ("train", "test"):
        raw = read_idx(root / "mnist" / _MNIST[split, "images"])
        images[split] = (raw.reshape(len(raw), -1) / np.float32(255)).astype(np.float32)
        labels[split] = read_idx(root / "mnist" / _MNIST[split, "labels"]).astype(np.int64)
        file = root / "mnist" / _MNIST[split, "labels"]
        if images[split].shape[1] != 28 * 28:
            raise DataError(
                f"{root / 'mnist' / _MNIST[split, 'images']}: expected 28x28 images, found {raw.shape[1:]}. Get "
                "MNIST again."
            )
        if len(images[split]) != len(labels[split]):
            raise DataError(
                f"{file}: {len(labels[split])} labels for {len(images[split])} images, expected one each. Get it again."
            )
        wrong = np.flatnonzero((labels[split] < 0) | (labels[split] >= _TARGET.n_outputs))
        if len(wrong):
            raise DataError(
                f"{file}: row {wrong[0]}: expected a label from 0 to 9, found {labels[split][wrong[0]]}. Get "
                "MNIST again."
            )
    return images, labels


def read_idx(file: Path) -> npt.NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes.

    Raises:
        DataError: It is damaged or of another type.
    """
    try:
        content = gzip.decompress(file.read_bytes())
        zeros, kind, rank = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{rank}I", content[4 : 4 + 4 * rank])
        values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * rank)
        if zeros != 0 or kind != 0x08:
            raise DataError(f"{file}: expected an IDX file of unsigned bytes, found type {kind:#04x}. Get it again.")
        return values.reshape(shape)
    except (OSError, EOFError, struct.error, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: not a whole gzipped IDX file ({error}). Get it again.") from error


_Clips = list[npt.NDArray[np.float32]]
_LabelledClips = list[tuple[npt.NDArray[np.float32], int]]


def _read_speech(root: Path, progress: Progress, wrong: list[str]) -> dict[str, dict[int, _Clips]]:
    """Return the recordings of each split by digit; add to `wrong` what is the matter with those left out."""
    speech: dict[str, dict[int, _Clips]] = {split: {} for split in SPLIT_NAMES}
    files = sorted((root / "fsdd" / "recordings").glob("*.wav"))
    for position, file in enumerate(files):
        match = _FSDD_NAME.fullmatch(file.name)
        if match is None:
            raise DataError(f"{file}: expected a name like 7_jackson_12.wav. Rename or remove the file.")
        digit, index = int(match[1]), int(match[3])
        split = "test" if index < 5 else "validation" if index < 10 else "train"
        of_digit = speech[split].setdefault(digit, [])
        try:
            sound = _trimmed(read_wav(file))
            if not sound.any():
                raise _RecordingError(f"{file}: expected sound, found silence. Remove it, or get it again.")
            of_digit.append(sound)
        except _RecordingError as error:
            wrong.append(str(error))
        if position % 100 == 0:
            progress("reading spoken digits", position, len(files))
    for split, by_digit in speech.items():
        absent = [digit for digit in range(_TARGET.n_outputs) if digit not in by_digit]
        if absent:
            raise DataError(
                f"{root / 'fsdd' / 'recordings'}: no recording of {absent} for the {split} split. Get the data "
                "set again."
            )
    return speech


def _read_noise(root: Path, progress: Progress, wrong: list[str]) -> tuple[dict[str, _LabelledClips], list[str]]:
    """Return the ESC-10 clips of each split, each with its class, and the names of the classes.

    What is the matter with clips that are left out is added to `wrong`.

    The classes are ESC-50's `target`s that occur, counted from 0 in ascending order.
    """
    noise: dict[str, _LabelledClips] = {split: [] for split in SPLIT_NAMES}
    table = root / "esc50" / "meta" / "esc50.csv"
    try:
        with table.open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if row["esc10"] == "True"]
        folds = [int(row["fold"]) for row in rows]
        targets = [int(row["target"]) for row in rows]
        names = {target: row["category"] for target, row in zip(targets, rows, strict=True)}
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{table}: expected ESC-50's table with filename, fold, target, category and esc10 ({error!r}). "
            "Get ESC-50 again."
        ) from error
    classes = sorted(names)
    files = [root / "esc50" / "audio" / row["filename"] for row in rows]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise DataNotFoundError(
            f"{root / 'esc50' / 'audio'}: {len(missing)} of the {len(files)} ESC-10 clips that {table.name} names are "
            f"missing: {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}. Get ESC-50 again."
        )
    for position, (file, fold, target) in enumerate(zip(files, folds, targets, strict=True)):
        split = "train" if fold <= 3 else "validation" if fold == 4 else "test"
        try:
            clip = read_wav(file)
        except _RecordingError as error:
            wrong.append(str(error))
            continue
        if len(clip) < N_SAMPLES:
            wrong.append(
                f"{file}: expected at least {N_SAMPLES / SAMPLE_RATE:.2f} s, found {len(clip)} samples. Get it again."
            )
        elif float(np.square(clip).mean()) > 0:
            noise[split].append((clip, classes.index(target)))
        if position % 50 == 0:
            progress("reading noise", position, len(rows))
    for split, clips in noise.items():
        if not clips and not wrong:
            raise DataError(
                f"{table}: expected clips with sound for the {split} split (folds 1-3, 4 and 5), found none. Get "
                "ESC-50 again."
            )
    return noise, [names[target] for target in classes]


class _RecordingError(DataError):
    """A recording cannot be used."""


def read_wav(file: Path) -> npt.NDArray[np.float32]:
    """Return a mono recording at 8 kHz, -1 to 1.

    Raises:
        DataError: The file cannot be read or holds no samples, or the packages for it are missing.
    """
    try:
        import soundfile
        from scipy.signal import resample_poly
    except ImportError as error:
        raise DataError(f"Reading recordings needs {error.name}. Run pip install 'mfas-optuna[avmnist]'.") from error
    try:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise _RecordingError(f"{file}: not a readable recording ({error}). Get it again.") from error
    if not len(samples):
        raise _RecordingError(f"{file}: expected a recording, found one without samples. Remove it, or get it again.")
    mono: npt.NDArray[Any] = samples.mean(axis=1)
    if rate != SAMPLE_RATE:
        common = np.gcd(rate, SAMPLE_RATE)
        mono = resample_poly(mono, SAMPLE_RATE // common, rate // common)
    if not np.isfinite(mono).all():
        raise _RecordingError(f"{file}: NaN or infinity among its samples. Get it again.")
    return np.asarray(mono, dtype=np.float32)


def _trimmed(speech: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return at most N_SAMPLES samples: those about the middle of a longer recording."""
    start = max(0, (len(speech) - N_SAMPLES) // 2)
    return speech[start : start + N_SAMPLES]


# Pairs.


def _draw_images(pool: npt.NDArray[np.int64], size: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return `size` images of the pool in random order, none twice before all came once."""
    rounds = [rng.permutation(pool) for _ in range(-(-size // len(pool)))]
    return np.concatenate(rounds)[:size]


def _noisy(
    digit: int, speech: dict[int, _Clips], noise: _LabelledClips, snr_db: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], int]:
    """Return one recording of the digit at a random offset, in a random crop of noise, and the class of the noise."""
    spoken = speech[int(digit)][rng.integers(len(speech[int(digit)]))]
    offset = int(rng.integers(N_SAMPLES - len(spoken) + 1))
    clip, label = noise[rng.integers(len(noise))]
    floor = _MIN_NOISE_POWER * float(np.square(clip).mean())
    for _ in range(_MAX_REDRAWS):
        start = int(rng.integers(len(clip) - N_SAMPLES + 1))
        crop = clip[start : start + N_SAMPLES]
        power = float(np.square(crop).mean())
        if power >= floor:
            break
    else:  # Sounds in a small part of the clip only: take the loudest place.
        energy = np.cumsum(np.concatenate(([0.0], np.square(clip, dtype=np.float64))))
        start = int(np.argmax(energy[N_SAMPLES:] - energy[:-N_SAMPLES]))
        crop = clip[start : start + N_SAMPLES]
        power = float(np.square(crop).mean())
    wanted = float(np.square(spoken).mean()) * 10 ** (-snr_db / 10)
    sound = crop * np.float32((wanted / power) ** 0.5)
    sound[offset : offset + len(spoken)] += spoken
    return np.asarray(sound, dtype=np.float32), label
