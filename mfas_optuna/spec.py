"""Study files: TOML read into frozen models, and the precedence of settings.

The paper's symbol stands in each field's text where there is one. The scientific part of a study (everything that can
change a result) comes from the file, and from `--sampler`, `--mode` and `--seed`; its fingerprint is kept with the
stored study. Operational settings (where things lie, which device) never enter the fingerprint.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from mfas_optuna.errors import SpaceError, SpecError, UnknownStudyError
from mfas_optuna.space import SearchSpace

SamplerName = Literal["mfas", "random", "tpe"]
Mode = Literal["calibrated", "paper"]

MAX_PAIRS = 100_000_000
MAX_SEED = 2**63 - 1

_STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class _Settings(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class DigitsSettings(_Settings):
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
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Seed of the splits, the speech and the noise."""

    @property
    def tasks(self) -> dict[str, int]:
        """Number of classes of every task that there are labels for besides the target."""
        return {"at_least_five": 2}


class AvmnistSettings(_Settings):
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
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
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


DatasetSettings = Annotated[DigitsSettings | AvmnistSettings, Field(discriminator="name")]


class UnimodalTraining(_Settings):
    """How one backbone is trained on its own modality."""

    epochs: int = Field(default=5, ge=1)
    """Passes over the training split."""
    batch_size: int = Field(default=64, ge=1)
    """Samples a step."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak learning rate of AdamW under a one-cycle schedule."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """AdamW's decoupled weight decay."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Seed of the initial weights and of the order of samples."""


class LeNetSettings(_Settings):
    """A modified LeNet (paper, section 4): 3x3 convolutions with ReLU, pooling between, a linear softmax layer on
    the global average. Its convolutions are named conv1, conv2, ... and each can be a feature."""

    kind: Literal["lenet"]
    """Which network."""
    channels: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)
    """Output channels of each convolution, first to last."""
    features: list[str] = Field(min_length=1)
    """Names of the submodules whose pooled outputs the search may choose (M or N of the paper is their number)."""
    task: str | None = None
    """What it is trained for, one of the data set's tasks; absent: the study's own target."""
    training: UnimodalTraining = UnimodalTraining()
    """How it is trained when no trained one is stored."""

    @model_serializer(mode="wrap")
    def _without_absent_task(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # So a study without tasks keeps the fingerprint, and the trained backbones, that it had before there were any.
        values: dict[str, Any] = handler(self)
        if self.task is None:
            values.pop("task", None)
        return values


BackboneSettings = LeNetSettings


class AugmentationSettings(_Settings):
    """Train-time augmentation: each training sample is translated at random, zeros moving in.

    Backbones see every sample translated anew in each epoch. Features of the training split are extracted several
    times, and each epoch of brief training draws one of these views."""

    shift: int = Field(ge=1)
    """Positions by which a sample is translated at most, along each axis after the channels."""
    views: int = Field(default=4, ge=2)
    """How often the features of a training sample are extracted; the first time as it is."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Seed of the translations."""


class SpaceSettings(_Settings):
    """The choices besides the features, which the backbones list."""

    activations: list[str] = Field(min_length=1)
    """P: names of the activations a fusion layer may have."""
    max_depth: int = Field(ge=1)
    """L: the largest number of fusion layers."""


class FusionSettings(_Settings):
    """The fusion network during the search."""

    width: int = Field(default=16, ge=1)
    """Rows of every W_l; the paper searches with a reduced size."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability of dropping an activation between a fusion layer and what reads it."""
    sharing: Literal["sequential", "snapshot"] | None = None
    """What a layer's W_l starts from: the latest of its depth and size, so that networks that share one are trained one
    after the other (`sequential`, the paper's way), or the latest of earlier steps, so that all networks of a step can
    be trained at once (`snapshot`); absent: sequential in mode paper, else snapshot."""
    share_by_activation: bool = False
    """Share W_l only between layers of the same activation, as the released code does; the paper shares by size."""


class SearchSettings(_Settings):
    """Algorithm 1."""

    sampler: SamplerName = "mfas"
    """Who proposes architectures: this project's sampler, or Optuna's RandomSampler or TPESampler."""
    mode: Mode = "calibrated"
    """`paper` is Algorithm 1 to the letter; `calibrated` is meant to find better networks. Only for sampler mfas."""
    n_iterations: Annotated[int, Field(ge=1)] | Literal["unlimited"] = 3
    """E_search: how often depth 1 to L is gone through; `"unlimited"`: until `n_trials`."""
    samples_per_step: int = Field(default=15, ge=1)
    """K: architectures trained at each depth; in mode paper at each depth above 1, and all of depth 1."""
    n_trials: int | None = Field(default=None, ge=1)
    """Finished trials after which the search ends; absent: when the schedule ends. Needed by random and tpe, whose
    default is what the schedule would take."""
    temperature_max: float | None = Field(default=None, gt=0)
    """T_max: temperature at the first step; absent: 10 in mode paper, 0.1 in mode calibrated."""
    temperature_min: float | None = Field(default=None, gt=0)
    """T_min: temperature it falls towards; absent: 0.2 in mode paper, 0.05 in mode calibrated."""
    temperature_decay: float = Field(default=4.0, gt=0)
    """sigma of the schedule exp(-(s+1)^2 / sigma^2), in steps."""
    pruner: Literal["none", "median", "successive_halving"] = "none"
    """Optuna's pruner that may end a trial after any epoch."""
    quorum: float = Field(default=0.8, gt=0, le=1)
    """Fraction of a step that must be finished before the next one opens."""
    n_finalists: int = Field(default=5, ge=1)
    """How many of the best architectures are the result."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Seed of every random choice of the search and of the trials' training."""

    @model_validator(mode="after")
    def _ranges(self) -> SearchSettings:
        # Of one alone the other is a default, which depends on the mode: the sampler checks it.
        lowest, highest = self.temperature_min, self.temperature_max
        if lowest is not None and highest is not None and lowest >= highest:
            raise ValueError(f"temperature_min must be below temperature_max ({highest}), found {lowest}")
        if self.n_iterations == "unlimited" and self.n_trials is None:
            raise ValueError('with n_iterations = "unlimited" the search never ends: give n_trials')
        return self


class BriefTraining(_Settings):
    """How a sampled fusion network is trained on the cached features."""

    epochs: int = Field(default=2, ge=1)
    """E_train; the paper's value is 2."""
    batch_size: int = Field(default=64, ge=1)
    """Rows a step."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Peak learning rate of Adam."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """Learning rate over the steps of all epochs."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    standardize: bool = True
    """Standardise each feature column with the training split's mean and deviation; false is the paper's way."""
    keep: Literal["best", "last"] = "best"
    """Which epoch's score and weights count."""


class StudySpec(_Settings):
    """One study file."""

    title: str
    """One line that says what the study is."""
    dataset: DatasetSettings
    """Paired data."""
    backbones: dict[str, BackboneSettings] = Field(min_length=2)
    """One trained network for each modality; their order is the order of modalities in an architecture."""
    augmentation: AugmentationSettings | None = None
    """How training samples are changed at random; absent: not at all."""
    space: SpaceSettings
    """What may be chosen."""
    fusion: FusionSettings = FusionSettings()
    """The network that is built."""
    search: SearchSettings = SearchSettings()
    """How architectures are found."""
    training: BriefTraining = BriefTraining()
    """How each is trained during the search."""
    storage: str | None = None
    """Database URL, used when neither `--storage` nor MFAS_STORAGE gives one. Operational."""

    @model_validator(mode="after")
    def _space_is_valid(self) -> StudySpec:
        try:
            self.search_space()
        except SpaceError as error:
            raise ValueError(str(error)) from error
        return self

    @model_validator(mode="after")
    def _tasks_exist(self) -> StudySpec:
        known = self.dataset.tasks
        expected = (
            f"expected {' or '.join(repr(task) for task in known)}, or no such key for the study's own target"
            if known
            else "expected no such key, since these data have labels for the study's own target alone"
        )
        wrong = [
            InitErrorDetails(
                type=PydanticCustomError("unknown_task", "{expected}", {"expected": expected}),
                loc=("backbones", modality, "task"),
                input=backbone.task,
            )
            for modality, backbone in self.backbones.items()
            if backbone.task is not None and backbone.task not in known
        ]
        if wrong:
            raise ValidationError.from_exception_data("StudySpec", wrong)
        return self

    def tasks(self) -> tuple[str, ...]:
        """Return the tasks besides the target that backbones are trained for."""
        return tuple(sorted({backbone.task for backbone in self.backbones.values() if backbone.task is not None}))

    def search_space(self) -> SearchSpace:
        """Return the search space over the features that the backbones list."""
        features = {modality: backbone.features for modality, backbone in self.backbones.items()}
        return SearchSpace(features, self.space.activations, self.space.max_depth)

    def sharing(self) -> Literal["sequential", "snapshot"]:
        """Return how weights are shared: as the study says, or as suits its mode."""
        if self.fusion.sharing is not None:
            return self.fusion.sharing
        return "sequential" if self.search.mode == "paper" and self.search.sampler == "mfas" else "snapshot"

    def scientific(self) -> dict[str, Any]:
        """Return every field that can change a trial's result, as JSON values: not the budget, nor what is shown."""
        values = self.model_dump(
            mode="json", exclude={"title": True, "storage": True, "search": {"n_trials", "n_finalists"}}
        )
        values["fusion"]["sharing"] = self.sharing()
        return values

    def n_trials_planned(self) -> int:
        """Return how many trials the search takes: `n_trials`, or what the schedule of Algorithm 1 comes to."""
        search, space = self.search, self.search_space()
        if search.n_trials is not None:
            return search.n_trials
        n_iterations = search.n_iterations
        if n_iterations == "unlimited":  # The validator saw to it that n_trials is given then.
            raise AssertionError("unreachable")
        depth_one = space.size_at(1) * n_iterations
        if search.mode == "calibrated":  # Each network once, K in an iteration.
            depth_one = min(space.size_at(1), search.samples_per_step * n_iterations)
        deeper = (min(search.samples_per_step, space.size_at(depth)) for depth in range(2, space.max_depth + 1))
        return depth_one + n_iterations * sum(deeper)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the scientific fields, as hex."""
        return fingerprint(self.scientific())

    def with_search(
        self,
        *,
        sampler: str | None = None,
        mode: str | None = None,
        seed: int | None = None,
        n_trials: int | None = None,
    ) -> StudySpec:
        """Return a copy with the given search settings, checked again.

        Raises:
            SpecError: A value is not valid.
        """
        changes = {"sampler": sampler, "mode": mode, "seed": seed, "n_trials": n_trials}
        values = self.model_dump(mode="python")
        values["search"].update({name: value for name, value in changes.items() if value is not None})
        return _validate(values, "command line")

    def default_study_name(self, study: str, file_spec: StudySpec) -> str:
        """Return `study`, with a suffix for each of sampler, mode and seed that differs from the study file's."""
        parts = [study]
        ours, theirs = self.search, file_spec.search
        if ours.sampler != theirs.sampler:
            parts.append(ours.sampler)
        if ours.mode != theirs.mode:
            parts.append(ours.mode)
        if ours.seed != theirs.seed:
            parts.append(f"seed{ours.seed}")
        return "-".join(parts)


def fingerprint(values: Any) -> str:
    """Return the SHA-256 of JSON values, as hex; the order of keys matters, since that of modalities does."""
    text = json.dumps(values, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(stored: Mapping[str, Any], given: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield one line for each leaf that differs between two trees of settings."""
    for key in [*stored, *(key for key in given if key not in stored)]:
        name = f"{path}.{key}" if path else str(key)
        old, new = stored.get(key), given.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            if list(old) != list(new) and sorted(old) == sorted(new):
                yield f"{name}: the order was {list(old)}, is now {list(new)}"
            yield from differences(old, new, name)
        elif old != new or (key in stored) != (key in given):
            was, now = (json.dumps(tree[key]) if key in tree else "absent" for tree in (stored, given))
            yield f"{name}: was {was}, is now {now}"


# Study files.


def study_folders() -> tuple[Path, ...]:
    """Return the folders that study files are looked for in, nearest first."""
    package = Path(__file__).resolve().parent
    candidates = (Path.cwd() / "studies", package.parent / "studies", package / "_studies")
    return tuple(dict.fromkeys(folder for folder in candidates if folder.is_dir()))


def study_files() -> dict[str, Path]:
    """Return every study that can be named, with its file; a nearer folder hides the same name further away."""
    files: dict[str, Path] = {}
    for folder in study_folders():
        for file in sorted(folder.glob("*.toml")):
            files.setdefault(file.stem, file)
    return dict(sorted(files.items()))


def find_study(study: str) -> Path:
    """Return the file of a study, given by name or by a path that ends in .toml.

    Raises:
        UnknownStudyError: There is none; the message gives the nearest names.
    """
    if study.endswith(".toml"):
        path = Path(study)
        if path.is_file():
            return path
        raise UnknownStudyError(f"There is no study file {study}. Run `mfas-optuna studies` to see what there is.")
    files = study_files()
    if study in files:
        return files[study]
    near = difflib.get_close_matches(study, files, n=3, cutoff=0.4) or list(files)
    hint = f"Did you mean {' or '.join(repr(name) for name in near)}? " if near else ""
    raise UnknownStudyError(f"There is no study {study!r}. {hint}Run `mfas-optuna studies` to see what there is.")


def load_spec(path: Path) -> StudySpec:
    """Read a study file.

    Raises:
        SpecError: The file is not TOML or does not fit the model; every problem at once, each with file and key.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError([f"{path}: not valid TOML: {error}. Mend the file."]) from error
    except OSError as error:
        raise SpecError([f"{path}: cannot be read: {error.strerror}."]) from error
    return _validate(values, str(path))


def _validate(values: Mapping[str, Any], source: str) -> StudySpec:
    try:
        return StudySpec.model_validate(values)
    except ValidationError as error:
        raise SpecError([_problem(source, item) for item in error.errors(include_url=False)]) from error


def _problem(source: str, item: Mapping[str, Any]) -> str:
    # pydantic inserts the discriminator's value into the location of a tagged union; a reader looks for keys only.
    keys = [str(part) for part in item["loc"]]
    if len(keys) > 1 and keys[0] == "dataset" and keys[1] in ("digits", "avmnist"):
        del keys[1]
    where = ".".join(keys) or "the whole file"
    if item["type"] == "missing":
        return f"{source}: {where}: expected a value, found nothing. Add the key."
    if item["type"] == "extra_forbidden":
        return f"{source}: {where}: no such setting. Remove it or mend its spelling."
    message = str(item["msg"]).removeprefix("Value error, ")
    found = item["input"]
    shown = "" if isinstance(found, Mapping) else f", found {found!r}"
    return f"{source}: {where}: {message[:1].lower()}{message[1:]}{shown}."


def check_study_name(name: str) -> str:
    """Return the name, when it can safely become part of a path.

    Raises:
        SpecError: It is empty, too long, or has other characters than letters, digits, '_', '.' and '-'.
    """
    if not _STUDY_NAME.fullmatch(name):
        raise SpecError(
            [
                "--name: expected up to 100 letters, digits, '_', '.' or '-', starting with a letter or digit; "
                f"found {name!r}."
            ]
        )
    return name


# Operational settings: one precedence rule, command line > environment > study file > default.


def home_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Return the home of the database, weights, backbones, features and built data: MFAS_HOME, or `storage/` here."""
    values = os.environ if environment is None else environment
    return Path(values.get("MFAS_HOME") or "storage").absolute()


def storage_url(
    option: str | None, spec: StudySpec | None, home: Path, environment: Mapping[str, str] | None = None
) -> str:
    """Return the database URL: `--storage`, MFAS_STORAGE, the study file's, or `mfas.db` in the home folder."""
    values = os.environ if environment is None else environment
    in_home = f"sqlite:///{quote(str(home / 'mfas.db'))}"  # A folder's name may have what means something in a URL.
    return option or values.get("MFAS_STORAGE") or (spec and spec.storage) or in_home


def data_root(option: Path | None, environment: Mapping[str, str] | None = None) -> Path | None:
    """Return the folder of raw data: `--data-root`, MFAS_DATA, or None."""
    values = os.environ if environment is None else environment
    if option is not None:
        return option
    return Path(values["MFAS_DATA"]) if values.get("MFAS_DATA") else None


def joint(option: str | None, environment: Mapping[str, str] | None = None) -> int | None:
    """Return how many networks are trained at once: `--joint`, MFAS_JOINT, or None, which leaves it to the study.

    Raises:
        SpecError: It is neither `auto` nor a number from 1.
    """
    values = os.environ if environment is None else environment
    source, text = ("--joint", option) if option is not None else ("MFAS_JOINT", values.get("MFAS_JOINT") or "auto")
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise SpecError([f"{source}: expected auto or a number from 1, found {text!r}."])
    return int(text)
