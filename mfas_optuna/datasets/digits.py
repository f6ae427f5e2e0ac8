"""The embedded data set: real handwritten digits made blurred, and synthetic spoken digits in noise.

Needs no download: the images come with scikit-learn, the speech is made by `speech`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from mfas_optuna.datasets import degradation, spectrogram, speech, store
from mfas_optuna.progress import Progress
from mfas_optuna.spec import DigitsSettings
from mfas_optuna.target import Target

MODALITIES = ("audio", "image")

_WINDOW, _HOP = 256, 160
_BANDS = 24
_FRAMES = 24
_RANGE_DB = 40.0
_ROWS_AT_ONCE = 500
_TARGET = Target.of_classes(10)

_CARD = """\
digits: pairs of a handwritten and a spoken digit, 10 classes.
image: scikit-learn's copy of the UCI optical recognition of handwritten digits (1,797 real 8x8 images), degraded: only
  {components} principal components of the training images are kept ({kept:.0%} of their variance). The images are split
  into {images} for train, validation and test: no image is in two splits, though in several pairs of one.
  float32 [1, 8, 8], about 0 to 1.
audio: spoken digits synthesised by this program (moving formants, varied pitch, speed, level and vocal tract), at
  {snr:g} dB in synthetic noise. No person was recorded. Each pair has its own utterance. Log-power spectrograms, uint8
  [1, {bands}, {frames}].
pairs: {pairs} for train, validation and test. Both modalities are imperfect on purpose, so that fusion pays. It is a
  demonstration: its scores say nothing about speech or handwriting recognition.
tasks besides the digit: at_least_five (the digit is 5 or more).
"""


def write(settings: DigitsSettings, folder: Path, progress: Progress) -> store.Contents:
    """Build the data set's arrays in `folder`."""
    images, image_labels = _handwritten()
    image_rng, *split_rngs = (np.random.default_rng([settings.seed, stream]) for stream in range(4))
    order = image_rng.permutation(len(images))
    # 60 % of the images for training, 20 % each for validation and test.
    pools = np.split(order, [len(order) * 6 // 10, len(order) * 8 // 10])
    degrade = degradation.fit(images[pools[0]], n_components=settings.pca_components)

    sizes = (settings.n_train, settings.n_validation, settings.n_test)
    done, total = 0, sum(sizes)
    for split, size, pool, rng in zip(("train", "validation", "test"), sizes, pools, split_rngs, strict=True):
        chosen = rng.choice(pool, size)
        labels = image_labels[chosen]
        store.create_array(store.labels_file(folder, split), (size,), np.int64)[:] = labels
        store.create_array(store.labels_file(folder, split, "at_least_five"), (size,), np.int64)[:] = labels >= 5
        image = store.create_array(store.array_file(folder, split, "image"), (size, 1, 8, 8), np.float32)
        image[:] = degrade(images[chosen]).reshape(size, 1, 8, 8)
        audio = store.create_array(store.array_file(folder, split, "audio"), (size, 1, _BANDS, _FRAMES), np.uint8)
        for start in range(0, size, _ROWS_AT_ONCE):
            rows = slice(start, min(start + _ROWS_AT_ONCE, size))
            progress("spoken digits", done + start, total)
            audio[rows, 0] = _spoken(labels[rows], settings.snr_db, rng)
        done += size
        image.flush()
        audio.flush()
    progress("spoken digits", total, total)
    card = _CARD.format(
        components=settings.pca_components,
        kept=degrade.variance_kept,
        images=", ".join(str(len(pool)) for pool in pools),
        snr=settings.snr_db,
        bands=_BANDS,
        frames=_FRAMES,
        pairs=", ".join(str(size) for size in sizes),
    )
    return store.Contents(card, _TARGET, MODALITIES, {}, settings.tasks)


def _handwritten() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    # Imported here: scikit-learn takes a second, and only building needs it.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return (bunch.data / 16.0).astype(np.float32), bunch.target.astype(np.int64)


def _spoken(labels: npt.NDArray[np.int64], snr_db: float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    sound = speech.add_noise(speech.utter(labels, rng), snr_db, rng)
    power = spectrogram.power_spectrogram(sound, window=_WINDOW, hop=_HOP)[:, :, :_FRAMES]
    # Bands that widen with frequency, each the mean of its bins.
    edges = np.unique(np.rint(np.linspace(3**0.5, power.shape[1] ** 0.5, _BANDS + 1) ** 2).astype(int))
    widths = np.diff(edges)
    bands = np.add.reduceat(power[:, : edges[-1]], edges[:-1], axis=1)
    bands /= widths[:, None]
    return spectrogram.to_bytes(spectrogram.to_unit_decibels(bands, range_db=_RANGE_DB))
