"""Settings of each data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from mfas_optuna.spec.base import Seed, Settings
from mfas_optuna.target import TargetKind

MAX_PAIRS = 100_000_000


class DataSettings(Settings):
    """What all data sets have in common."""

    @property
    def target_kind(self) -> TargetKind:
        """What is predicted."""
        return "multiclass"

    @property
    def tasks(self) -> dict[str, int]:
        """Number of classes of every task that there are labels for besides the target."""
        return {}


class OwnData(DataSettings):
    """What data of the user's have in common."""

    target: TargetKind = "multiclass"
    """What is predicted: one class of several, any number of labels, or values (regression)."""
    classes: list[str] | None = Field(default=None, min_length=1)
    """Names of the classes, labels or values, in order; absent: their numbers, as many as occur."""
    validation_fraction: float = Field(default=0.15, gt=0, lt=1)
    """Part of the training samples that becomes the validation split, stratified, when there is none."""
    test_fraction: float = Field(default=0.15, gt=0, lt=1)
    """Part of the training samples that becomes the test split, stratified, when there is none."""
    seed: Seed = 0
    """Seed of the splits that are made."""

    @property
    def target_kind(self) -> TargetKind:
        """What is predicted."""
        return self.target


class DigitsSettings(DataSettings):
    """The embedded data set: scikit-learn's real 8x8 digits with spoken digits synthesised here."""

    name: Literal["digits"]
    """Which data set."""
    n_train: int = Field(default=4000, ge=100, le=MAX_PAIRS)
    """Pairs to train on."""
    n_validation: int = Field(default=1000, ge=50, le=MAX_PAIRS)
    """Pairs that scores are measured on during the search."""
    n_test: int = Field(default=1000, ge=50, le=MAX_PAIRS)
    """Pairs held back for the test."""
    pca_components: int = Field(default=3, ge=1, le=64)
    """Leading principal components that the degraded images keep."""
    snr_db: float = Field(default=-8.0, ge=-100, le=100)
    """Signal-to-noise ratio of the spoken digits, dB."""
    seed: Seed = 0
    """Seed of the splits, the speech and the noise."""

    @property
    def tasks(self) -> dict[str, int]:
        """Number of classes of every task that there are labels for besides the target."""
        return {"at_least_five": 2}


class AvmnistSettings(DataSettings):
    """AV-MNIST, built from raw MNIST, spoken digits (FSDD) and environmental noise (ESC-10)."""

    name: Literal["avmnist"]
    """Which data set."""
    source: Literal["raw", "npy"] = "raw"
    """`raw`: build from MNIST, FSDD and ESC-10 files; `npy`: read the arrays of the authors' layout, in which case
    the fields below other than the numbers of pairs and the seed do not matter."""
    n_train: int = Field(default=50_000, ge=100, le=MAX_PAIRS)
    """Pairs to train on; the paper's 55,000 less the validation pairs."""
    n_validation: int = Field(default=5_000, ge=50, le=MAX_PAIRS)
    """Pairs that scores are measured on during the search."""
    n_test: int = Field(default=10_000, ge=50, le=MAX_PAIRS)
    """Pairs held back for the test."""
    degradation: Literal["leading", "residual"] = "leading"
    """Keep the leading principal components of the images, or what is left without them."""
    pca_components: int | None = Field(default=5, ge=1, le=784)
    """How many leading components; not together with `pca_energy`."""
    pca_energy: float | None = Field(default=None, gt=0, lt=1)
    """Fraction of the variance that the leading components hold; the paper removes 75 %."""
    snr_db: float = Field(default=-12.0, ge=-100, le=100)
    """Signal-to-noise ratio of the spoken digits over the unpadded recording, dB."""
    seed: Seed = 0
    """Seed of the pairing, the offsets and the noise."""

    @property
    def tasks(self) -> dict[str, int]:
        """Number of classes of every task that there are labels for besides the target."""
        return {"at_least_five": 2, "noise": 10} if self.source == "raw" else {}

    @model_validator(mode="before")
    @classmethod
    def _energy_instead(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("pca_energy") is not None:
            return {"pca_components": None, **values}
        return values

    @model_validator(mode="after")
    def _one_way(self) -> AvmnistSettings:
        if (self.pca_components is None) == (self.pca_energy is None):
            raise ValueError("give exactly one of pca_components and pca_energy")
        return self


class NtuSettings(DataSettings):
    """NTU RGB+D: RGB videos and Kinect skeletons of actions, in the files of its authors."""

    name: Literal["ntu"]
    """Which data set."""
    protocol: Literal["search", "cross_subject", "cross_view"] = "search"
    """Which samples train, validate and test. `search`: the paper's split, subjects 1, 4, 8, 13, 15, 17, 19 and 2, 5,
    9, 14, and for the test the subjects that the data set's authors hold back; `cross_subject`: the same with every
    other training subject of the authors in the training split; `cross_view`: cameras 2 and 3 train, less the
    validation subjects, camera 1 tests."""
    n_frames: int = Field(default=8, ge=1, le=256)
    """RGB frames of a sample, evenly spaced over the video."""
    frame_size: int = Field(default=224, ge=16, le=1080)
    """Side of the square frames, pixels: the shorter side is brought to this, the middle is kept."""
    n_skeleton_frames: int = Field(default=32, ge=2, le=512)
    """Skeleton frames of a sample, evenly spaced, interpolated."""


class MmimdbSettings(DataSettings):
    """MM-IMDB: posters and plots of films with their genres, in the files of its authors."""

    name: Literal["mmimdb"]
    """Which data set."""
    source: Literal["auto", "hdf5", "raw"] = "auto"
    """`hdf5`: `multimodal_imdb.hdf5`; `raw`: the folder `dataset/` and `split.json`; `auto`: whichever is there."""
    image_height: int = Field(default=256, ge=16, le=2048)
    """Height of the posters, pixels; those of the raw layout are scaled and cropped to it."""
    image_width: int = Field(default=160, ge=16, le=2048)
    """Width of the posters, pixels."""
    text_width: int = Field(default=300, ge=1, le=4096)
    """Width of the text vectors: those of the hdf5 file have 300 values."""
    text_vectors: str | None = None
    """Raw layout: a file of word vectors in the data folder, a word and its values a line (word2vec's text format); the
    text vector of a film is their mean over its plot. Absent: hashed word counts, which need no file."""

    @property
    def target_kind(self) -> TargetKind:
        """What is predicted."""
        return "multilabel"


class ArraysSettings(OwnData):
    """Features that you have extracted already: an array for each modality and layer."""

    name: Literal["arrays"]
    """Which data set."""
    folder: str
    """Folder of the arrays, relative to the study file."""


class PythonSettings(OwnData):
    """Your own data: a Python file beside the study with a function that returns a PyTorch `Dataset` for each split."""

    name: Literal["python"]
    """Which data set."""
    file: str
    """The Python file, relative to the study file. It is run."""
    dataset: str = "dataset"
    """Name of a function in it: given "train", "validation" or "test" it returns that split, something with a length
    whose items are ({modality: array or tensor}, target); or None when there is no such split."""
    version: str = ""
    """Change it when the data change although the file does not: then they are read again."""


DatasetSettings = Annotated[
    DigitsSettings | AvmnistSettings | NtuSettings | MmimdbSettings | ArraysSettings | PythonSettings,
    Field(discriminator="name"),
]

DATASET_NAMES = tuple(
    get_args(settings.model_fields["name"].annotation)[0] for settings in get_args(get_args(DatasetSettings)[0])
)
"""What `[dataset] name` may be."""
