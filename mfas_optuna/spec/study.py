"""A study: TOML read into frozen models.

The paper's symbol stands in each field's text where there is one. The scientific part of a study (everything that can
change a result) comes from the file, and from `--sampler`, `--mode` and `--seed`; its fingerprint is kept with the
stored study. Operational settings (where things lie, which device) never enter the fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from mfas_optuna.errors import SpaceError, SpecError
from mfas_optuna.space import ExtendedSpace, SearchSpace, SpaceKind
from mfas_optuna.spec.backbones import BACKBONE_KINDS, BackboneSettings
from mfas_optuna.spec.base import Seed, Settings
from mfas_optuna.spec.datasets import DATASET_NAMES, DatasetSettings
from mfas_optuna.spec.final import FinalSettings
from mfas_optuna.spec.fingerprint import fingerprint
from mfas_optuna.target import METRICS, Metric

DEFAULT_WIDTH = 16
SamplerName = Literal["mfas", "random", "tpe"]
Mode = Literal["calibrated", "paper"]


class AugmentationSettings(Settings):
    """Train-time augmentation: each training sample is changed at random.

    Backbones see every sample changed anew in each epoch. Features of the training split are extracted several times,
    and each epoch of brief training draws one of these views."""

    shift: int = Field(default=0, ge=0)
    """Positions by which a sample is translated at most, zeros moving in: images and spectrograms along both axes,
    videos all frames alike."""
    flip: bool = False
    """Mirror images and videos left to right, half of them."""
    rotate: float = Field(default=0.0, ge=0, le=180)
    """Degrees by which skeletons are turned about the vertical axis at most."""
    views: int = Field(default=4, ge=2)
    """How often the features of a training sample are extracted; the first time as it is."""
    seed: Seed = 0
    """Seed of the changes."""

    @model_validator(mode="after")
    def _does_something(self) -> AugmentationSettings:
        if not (self.shift or self.flip or self.rotate):
            raise ValueError("expected shift, flip or rotate, or no such table; found none of them")
        return self


class ObjectiveSettings(Settings):
    """What is maximised, and on what networks are trained."""

    metric: Metric | None = None
    """Score on the validation split: `accuracy`, `f1_weighted` or `f1_macro` for classes, `f1_weighted` or `f1_macro`
    for labels, `r2` for values; absent: the first of these."""
    balance: bool | None = None
    """Weight the loss so that rare classes, or the presence of rare labels, count as much as frequent ones; absent: for
    labels only, as in the paper (section 4, MM-IMDB)."""


class SpaceSettings(Settings):
    """The choices besides the features, which the backbones list."""

    kind: SpaceKind = "paper"
    """`paper`: each layer concatenates one feature of every modality; `extended`: it may take several, all or none of a
    modality's, join them in other ways, and the head may read all layers."""
    activations: list[str] = Field(min_length=1)
    """P: names of the activations a fusion layer may have."""
    max_depth: int = Field(ge=1)
    """L: the largest number of fusion layers."""


class FusionSettings(Settings):
    """The fusion network during the search."""

    width: int | None = Field(default=None, ge=1)
    """Rows of every W_l; the paper searches with a reduced size. Absent: 16, unless `n_parameters` is given."""
    n_parameters: int | None = Field(default=None, ge=1)
    """What a network may have of weights and biases, all told: each is as wide as that allows. In place of `width`; in
    final training too, in place of `final.widths`."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability of dropping an activation between a fusion layer and what reads it."""
    sharing: Literal["sequential", "snapshot"] | None = None
    """What a layer's W_l starts from: the latest of its depth and size, so that networks that share one are trained one
    after the other (`sequential`, the paper's way), or the latest of earlier steps, so that all networks of a step can
    be trained at once (`snapshot`); absent: sequential in mode paper, else snapshot."""
    share_by_activation: bool = False
    """Share W_l only between layers of the same activation, as the released code does; the paper shares by size."""

    @model_validator(mode="after")
    def _one_size(self) -> FusionSettings:
        if self.width is not None and self.n_parameters is not None:
            raise ValueError("expected width or n_parameters, found both")
        return self

    @property
    def fixed_width(self) -> int | None:
        """Rows of every W_l; None where the number of parameters is fixed instead."""
        return self.width or (DEFAULT_WIDTH if self.n_parameters is None else None)


class SearchSettings(Settings):
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
    seed: Seed = 0
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


class BriefTraining(Settings):
    """How a sampled fusion network is trained on the cached features."""

    epochs: int = Field(default=2, ge=1)
    """E_train; the paper's value is 2."""
    min_steps: int = Field(default=0, ge=0)
    """Steps that a training has at least: where there are few rows, an epoch goes over them several times."""
    batch_size: int = Field(default=64, ge=1)
    """Rows a step."""
    auxiliary_weight: float = Field(default=0.5, ge=0)
    """Weight of the mean of the auxiliary losses, of networks that have such."""
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


class StudySpec(Settings):
    """One study file."""

    title: str
    """One line that says what the study is."""
    dataset: DatasetSettings
    """Paired data."""
    backbones: dict[str, BackboneSettings] = Field(min_length=2)
    """One trained network for each modality; their order is the order of modalities in an architecture."""
    augmentation: AugmentationSettings | None = None
    """How training samples are changed at random; absent: not at all."""
    objective: ObjectiveSettings = ObjectiveSettings()
    """What is maximised."""
    space: SpaceSettings
    """What may be chosen."""
    fusion: FusionSettings = FusionSettings()
    """The network that is built."""
    search: SearchSettings = SearchSettings()
    """How architectures are found."""
    training: BriefTraining = BriefTraining()
    """How each is trained during the search."""
    final: FinalSettings = FinalSettings()
    """How the best are trained to the end, and what they are compared with; no part of the search."""
    storage: str | None = None
    """Database URL, used when neither `--storage` nor MFAS_STORAGE gives one. Operational."""
    weights: str | None = None
    """Folder or URL of the weights, used when neither `--weights` nor MFAS_WEIGHTS gives one; absent: in the home
    folder. Operational."""
    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @property
    def folder(self) -> Path:
        """Where the study file lies: what its relative paths start from. Operational."""
        return self._folder

    @property
    def metric(self) -> Metric:
        """What a score is."""
        return self.objective.metric or METRICS[self.dataset.target_kind][0]

    @property
    def is_balanced(self) -> bool:
        """Whether the loss is weighted against frequent classes or labels."""
        balance = self.objective.balance
        return self.dataset.target_kind == "multilabel" if balance is None else balance

    @model_validator(mode="after")
    def _space_is_valid(self) -> StudySpec:
        try:
            self.search_space()
        except SpaceError as error:
            raise ValueError(str(error)) from error
        return self

    @model_validator(mode="after")
    def _mode_suits_the_space(self) -> StudySpec:
        if self.space.kind == "extended" and self.search.mode == "paper":
            expected = "expected calibrated, since Algorithm 1 searches the paper's space"
            raise _wrong(("search", "mode"), expected, "paper")
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

    @model_validator(mode="after")
    def _metric_suits_the_target(self) -> StudySpec:
        kind, metric = self.dataset.target_kind, self.objective.metric
        if metric is not None and metric not in METRICS[kind]:
            raise _wrong(
                ("objective", "metric"), f"expected {' or '.join(METRICS[kind])}, which suit a {kind} target", metric
            )
        if kind == "regression" and self.objective.balance:
            raise _wrong(("objective", "balance"), "expected false, since a regression has no classes", True)
        if kind == "regression" and self.search.mode == "paper" and self.search.sampler == "mfas":
            expected = "expected calibrated, since Algorithm 1 needs scores from 0 to 1 and R² can be below"
            raise _wrong(("search", "mode"), expected, "paper")
        return self

    @model_validator(mode="after")
    def _features_are_given_or_extracted(self) -> StudySpec:
        are_given = self.dataset.name == "arrays"
        for modality, backbone in self.backbones.items():
            if are_given != (backbone.kind == "given"):
                expected = (
                    "given, since these data are features" if are_given else "a network, since these data are samples"
                )
                raise _wrong(("backbones", modality, "kind"), f"expected {expected}", backbone.kind)
        if are_given and self.augmentation is not None:
            raise _wrong(("augmentation",), "expected no such table, since features are given as they are", {})
        return self

    def tasks(self) -> tuple[str, ...]:
        """Return the tasks besides the target that backbones are trained for."""
        return tuple(sorted({backbone.task for backbone in self.backbones.values() if backbone.task is not None}))

    def search_space(self) -> SearchSpace:
        """Return the search space over the features that the backbones list."""
        features = {modality: [tap.name for tap in backbone.taps] for modality, backbone in self.backbones.items()}
        kind = ExtendedSpace if self.space.kind == "extended" else SearchSpace
        return kind(features, self.space.activations, self.space.max_depth)

    def sharing(self) -> Literal["sequential", "snapshot"]:
        """Return how weights are shared: as the study says, or as suits its mode."""
        if self.fusion.sharing is not None:
            return self.fusion.sharing
        return "sequential" if self.search.mode == "paper" and self.search.sampler == "mfas" else "snapshot"

    def scientific(self) -> dict[str, Any]:
        """Return every field that can change a trial's result, as JSON values: not the budget, nor what is shown."""
        values = self.model_dump(
            mode="json",
            exclude={
                "title": True,
                "storage": True,
                "weights": True,
                "final": True,
                "search": {"n_trials", "n_finalists"},
            },
        )
        values["fusion"]["sharing"] = self.sharing()
        values["fusion"]["width"] = self.fusion.fixed_width
        # What came later and changes nothing here is left out, so that a study that was begun before goes on.
        for table, key, is_idle in (
            ("space", "kind", self.space.kind == "paper"),
            ("fusion", "n_parameters", self.fusion.n_parameters is None),
            ("training", "min_steps", self.training.min_steps == 0),
            ("training", "auxiliary_weight", self.space.kind == "paper"),
        ):
            if is_idle:
                del values[table][key]
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
        return validated(values, "command line", self.folder)

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


def validated(values: Mapping[str, Any], source: str, folder: Path) -> StudySpec:
    """Return a study made of the values of a file.

    Args:
        values: Its tables.
        source: What messages call it.
        folder: What its relative paths start from.

    Raises:
        SpecError: They do not fit the model; every problem at once, each with its key.
    """
    try:
        spec = StudySpec.model_validate(values)
    except ValidationError as error:
        raise SpecError([_problem(source, item) for item in error.errors(include_url=False)]) from error
    spec._folder = folder
    return spec


def _wrong(where: tuple[str, ...], expected: str, found: Any) -> ValidationError:
    details = InitErrorDetails(
        type=PydanticCustomError("wrong_setting", "{expected}", {"expected": expected}), loc=where, input=found
    )
    return ValidationError.from_exception_data("StudySpec", [details])


def _problem(source: str, item: Mapping[str, Any]) -> str:
    # pydantic inserts the discriminator's value into the location of a tagged union; a reader looks for keys only.
    keys = [str(part) for part in item["loc"]]
    if keys[:1] == ["dataset"] and keys[1:2] and keys[1] in DATASET_NAMES:
        del keys[1]
    if keys[:1] == ["backbones"] and keys[2:3] and keys[2] in BACKBONE_KINDS:
        del keys[2]
    keys = [key for key in keys if key not in ("str", "TapSettings")]
    where = ".".join(keys) or "the whole file"
    if item["type"] == "missing":
        return f"{source}: {where}: expected a value, found nothing. Add the key."
    if item["type"] == "extra_forbidden":
        return f"{source}: {where}: no such setting. Remove it or mend its spelling."
    message = str(item["msg"]).removeprefix("Value error, ")
    found = item["input"]
    shown = "" if isinstance(found, Mapping) else f", found {found!r}"
    return f"{source}: {where}: {message[:1].lower()}{message[1:]}{shown}."
