"""What each command prints with --json: models whose JSON Schema `mfas-optuna schema` and docs/json.md give.

Nothing is validated when a command runs; tests hold real output against these models. A field is only ever added within
a version; a field that goes, or changes its meaning, makes another `JSON_VERSION`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Result(_Model):
    """What every result has."""

    version: Literal[1]
    """Of the schema."""


class Error(_Model):
    """What went wrong."""

    type: str
    """Name of the exception's class."""
    message: str
    """What standard error says too: where, what was expected, what was found, what to do."""
    details: list[str]
    """One line for each problem or difference, where the error knows several; else none."""
    exit_code: int
    """What the command exits with."""


class ErrorResult(Result):
    """What any command prints instead of its result when it fails."""

    error: Error


class Network(_Model):
    """One of a search's best networks."""

    architecture: str
    """In the paper's notation."""
    score: float
    """On the validation split; larger is better, 1 at best."""
    n_parameters: int | None
    """Weights and biases of its fusion layers and classifier."""
    trial: int
    """Number of its trial."""
    parameters: dict[str, Any]
    """Optuna's parameters of the trial: depth, and features and activation of each layer by name."""


class Backbone(_Model):
    """A modality's trained network."""

    digest: str
    """SHA-256 of its weights in the store."""
    validation_score: float | None
    """Of the modality alone; null when its outputs are not the target's."""
    test_score: float | None
    """The same on the test split."""
    training_s: float
    """Seconds; 0 when it was given."""
    data: str
    """Fingerprint of the data that it was trained or scored on."""
    task: str | None = None
    """What it was trained for; null: the study's own target."""
    given: bool = False
    """Whether its weights were given by the user."""
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of each of the user's files that went into it."""


Backbones = dict[str, Backbone]


class SearchResult(Result):
    """`mfas-optuna search --json`."""

    study: str
    """Name in the database."""
    metric: str
    """What scores are."""
    n_finished: int
    """Complete and pruned trials of the study."""
    n_new: int
    """Those of them that this command ran."""
    best: list[Network]
    """Best first."""
    backbones: Backbones
    """By modality; none where features are given."""
    timings_s: dict[str, float]
    """Seconds spent in each stage, over all runs of the study."""
    stand_in: str
    """What generated data stand in for; empty for real data."""


class EstimateResult(Result):
    """`mfas-optuna search --dry-run --json`: what a search would take on this machine."""

    n_trials: int
    joint_size: int
    """Networks trained at once at most."""
    trial_s: float
    """Mean seconds of a trial."""
    search_s: float
    """Seconds of all trials."""
    preparation_s: dict[str, float]
    """Seconds of each stage before the search, were nothing there yet."""
    memory_bytes: int
    disk_bytes: int


class SurrogateHealth(_Model):
    """How the surrogate did in a step."""

    rank_correlation: float | None
    """Spearman's, between predicted and measured scores of networks new to it; null for too few."""
    n_unseen: int
    """How many networks it is measured on."""
    predicted_std: float
    """Standard deviation of the predictions over all candidates."""
    n_candidates: int
    """Among how many networks the step chose."""
    n_effective: float
    """Among how many it chose in effect."""
    is_near_uniform: bool
    """Whether it might almost as well have drawn at random."""


class Step(_Model):
    """A step of the schedule."""

    iteration: int
    """From 1."""
    depth: int
    n_finished: int
    n_running: int
    temperature: float | None
    """At which its networks were drawn; null at depth 1."""
    best: float | None
    mean: float | None
    surrogate: SurrogateHealth | None


class LivingWorker(_Model):
    """A worker that lives."""

    host: str
    pid: int
    last_beat_s: float
    """Seconds since it last wrote that it lives."""


class LedgerEntry(_Model):
    """A reading of the test split."""

    time: str
    """UTC, ISO 8601."""
    purpose: str
    score: float
    trial: int | None
    """Final training that was scored."""
    what: str
    """What was scored."""


class StatusResult(Result):
    """`mfas-optuna status --json`; with --watch one such object on a line, whenever something has changed."""

    study: str
    metric: str
    is_finished: bool
    n_planned: int
    """Trials that the search takes."""
    trials: dict[str, int]
    """Number of trials in each state that occurs, by Optuna's names."""
    failures: dict[str, int]
    """Number of failed trials for each reason."""
    steps: list[Step]
    """Those begun so far; none for the samplers random and tpe."""
    best: list[Network]
    backbones: Backbones
    timings_s: dict[str, float]
    warnings: list[str]
    stand_in: str
    data_card: str
    workers: list[LivingWorker]
    test_reads: list[LedgerEntry]


class PrepareResult(Result):
    """`mfas-optuna prepare --json`."""

    metric: str
    backbones: Backbones
    features: str
    """Folder of the features."""
    fingerprint: str
    """Of the features: equal ones give comparable scores."""
    timings_s: dict[str, float]
    """Seconds of what had to be done now."""
    stand_in: str
    data_card: str


class ListedStudy(_Model):
    """A study that can be named."""

    study: str
    title: str
    """Begins with `cannot be used:` where its file is not valid."""
    file: str


class StudiesResult(Result):
    """`mfas-optuna studies --json`."""

    studies: list[ListedStudy]


class SpaceSize(_Model):
    """How many choices there are."""

    layer: int
    """For one layer."""
    deepest: int
    """Networks of the largest depth."""
    all_depths: int


class ShowResult(Result):
    """`mfas-optuna show --json`."""

    study: str
    settings: dict[str, Any]
    """Every setting of the study file, with what was left out filled in."""
    sharing: str
    """How trials share weights: sequential or snapshot."""
    space_size: SpaceSize


class DataProblem(_Model):
    """Something wrong with the data."""

    where: str
    rule: str
    """What was expected and what was found."""
    remedy: str
    sample: str
    """The sample that is concerned; empty when it is not a matter of single samples."""
    is_error: bool
    """Whether the data cannot be used as they are; else it is a warning."""


class DataBuildResult(Result):
    """`mfas-optuna data build --json`."""

    study: str
    folder: str


class DataCheckResult(Result):
    """`mfas-optuna data check --json`; exits with 2 when the data cannot be used."""

    study: str
    is_usable: bool
    problems: list[DataProblem]
    card: str
    folder: str | None


class DataMakeResult(Result):
    """`mfas-optuna data make --json`."""

    data_set: str
    folder: str
    stand_in: str
    """What the mark in the folder says."""


class InitResult(Result):
    """`mfas-optuna init --json`, which asks no questions."""

    study: str
    """The study file, to be named with --study."""
    files: list[str]
    """Those that were written."""


class Tap(_Model):
    """A submodule of a network."""

    module: str
    """Dotted path; empty for the network itself."""
    kind: str
    """Name of its class."""
    shape: list[int] | None
    """Of its output for one sample; null when it cannot be a feature."""
    problem: str
    """Why it cannot; empty when it can."""
    n_parameters: int
    channel_axis: int
    """Axis of its output that most likely holds the channels."""
    width: int | None
    """Of the feature that it gives."""


class TapsResult(Result):
    """`mfas-optuna taps --json`."""

    taps: list[Tap]


class TrainedMethod(_Model):
    """A method that was trained to the end, in one step."""

    method: str
    title: str
    step: Literal["frozen", "unfrozen"]
    """On frozen backbones, or together with them."""
    head: dict[str, Any]
    """What validation chose."""
    recipe: dict[str, float]
    n_parameters: int
    validation: dict[str, float]
    """Scores by seed."""
    test: dict[str, float]
    trials: dict[str, int]
    """Numbers of the trainings in the study of final trainings, by seed."""


class FinalResult(Result):
    """`mfas-optuna train --json` and `mfas-optuna baselines --json`."""

    study: str
    metric: str
    stand_in: str
    methods: list[TrainedMethod]


class ExportMetrics(_Model):
    """Scores of an exported network."""

    metric: str
    validation: float
    validation_of_seeds: dict[str, float]
    test: float | None
    """Null where the test split was not read."""


class ExportResult(Result):
    """`mfas-optuna export --json`."""

    folder: str
    title: str
    study: str
    method: str
    step: Literal["frozen", "unfrozen"]
    network: dict[str, Any]
    """Its record: label, kind, layers, width and so on."""
    metrics: ExportMetrics
    lineage: dict[str, Any]
    """Which trainings it comes from, with digests of weights, features and settings."""
    checks: dict[str, float]
    """Largest difference of each written file from the trained network, over the larger of 1 and the largest output."""
    files: dict[str, str]
    """SHA-256 of each file, by name."""
    stand_in: str


class Prediction(_Model):
    """Of one sample: `class` or `labels` with `probabilities`, or `values`."""

    class_: str | None = Field(None, alias="class")
    """The likeliest class; single-label targets."""
    labels: list[str] | None = None
    """Labels that are likelier than not; multi-label targets."""
    probabilities: dict[str, float] | None = None
    values: dict[str, float] | None = None
    """Regression."""


class PredictResult(Result):
    """`mfas-optuna predict --json`."""

    model: str
    """Its title."""
    target: Literal["multiclass", "multilabel", "regression"]
    names: list[str]
    """Of the outputs."""
    single: bool
    """Whether the input was one sample without a batch."""
    predictions: list[Prediction]
    stand_in: str


class StoredProblem(_Model):
    """Something of a study that is not as it should be."""

    kind: Literal["record", "blob", "lineage", "running", "budget", "slot", "backbone", "features", "final"]
    where: str
    what: str
    """What was expected and what was found."""
    remedy: str


class FsckResult(Result):
    """`mfas-optuna fsck --json`; exits with 1 when there are problems."""

    study: str
    store: str
    """Where its weights are."""
    sound: bool
    checked: dict[str, int]
    """How many of what were looked at."""
    repaired: list[str]
    """Digests of the blobs that were put back."""
    problems: list[StoredProblem]


class LookedAt(_Model):
    """A study whose weights were kept."""

    study: str
    storage: str
    """The database, without its password."""


class Removed(_Model):
    """Something that nothing refers to."""

    kind: str
    name: str
    bytes: int


class GcResult(Result):
    """`mfas-optuna gc --json`."""

    studies: list[LookedAt]
    store: str
    dry_run: bool
    """Whether all of it is still there."""
    n_removed: int
    bytes: int
    n_referenced: int
    """Blobs that are referred to."""
    n_young: int
    """Files that were too young to be removed."""
    removed: list[Removed]


class DoctorFinding(_Model):
    """One thing that was looked at."""

    area: Literal["packages", "environment", "machine", "home", "database", "weights", "study"]
    name: str
    level: Literal["ok", "warning", "problem"]
    found: str
    remedy: str
    """Empty where nothing is to be done."""


class DoctorCounts(_Model):
    """Findings of each level."""

    ok: int
    warning: int
    problem: int


class DoctorResult(Result):
    """`mfas-optuna doctor --json`; exits with 1 when there is a problem."""

    sound: bool
    """Whether there is no problem."""
    complete: bool
    """Whether everything was looked at; not where a package is missing that this needs."""
    counts: DoctorCounts
    findings: list[DoctorFinding]


class Difference(_Model):
    """Test scores of one method minus another's, paired by seed."""

    mean: float
    low: float | None
    """Lower end of the interval of the mean; null of a single pair."""
    high: float | None
    seeds: list[int]


class Compared(_Model):
    """One method beside another."""

    method: str
    other: str
    outcome: str
    difference: Difference | None


class ReportVerdict(_Model):
    """Whether the search was worth it; the rule is in docs/decisions/0030-report.md."""

    outcome: str
    sentence: str
    notes: list[str]
    confidence: float
    """Of the intervals."""
    searching: Compared | None
    """A searched method beside the best fixed one."""
    sampler: Compared | None
    """Our search beside the best other search."""


class Spread(_Model):
    """Mean and deviation of some scores."""

    mean: float
    std: float | None
    """Sample standard deviation; null of a single one."""
    n: int


class ReportSearch(_Model):
    """One sampler's search."""

    sampler: str
    title: str
    study: str
    trials: dict[str, int]
    n_counted: int
    """Trials that its best networks are chosen from."""
    n_steps: int
    best: list[Network]
    best_scores: Spread | None
    timings_s: dict[str, float]
    hardware: list[str]


class ReportSeed(_Model):
    """One training."""

    seed: int
    validation: float
    test: float | None
    training_s: float


class ReportStep(_Model):
    """A method's trainings in one step."""

    step: Literal["frozen", "unfrozen"]
    head: dict[str, Any]
    network: str
    recipe: dict[str, float]
    n_parameters: int
    n_fusion_parameters: int | None
    is_deterministic: bool
    by_seed: list[ReportSeed]
    validation: Spread | None
    test: Spread | None
    ours_minus_it: Difference | None


class ReportMethod(_Model):
    """A method that was trained to the end."""

    method: str
    title: str
    is_ours: bool
    is_searched: bool
    counted_step: str | None
    """The step that validation prefers."""
    steps: list[ReportStep]


class ReportRead(LedgerEntry):
    """A reading of the test split, in one of the studies."""

    study: str


class QuotedRow(_Model):
    """A row of the paper's table."""

    method: str
    modalities: str
    printed: dict[str, str]


class Quoted(_Model):
    """What the paper reports."""

    mark: str
    source: str
    rows: list[QuotedRow]
    notes: list[str]


class ReportResult(Result):
    """`mfas-optuna report --json`, which is `--format json`."""

    study: str
    dataset: str
    metric: str
    data_card: str
    stand_in: str
    n_planned: int
    settings: dict[str, Any]
    """Everything scientific that the study was begun with."""
    backbones: dict[str, Any]
    hardware: list[str]
    """Torch and device, each once."""
    verdict: ReportVerdict
    searches: list[ReportSearch]
    methods: list[ReportMethod]
    final_training_s: dict[str, float]
    """Seconds of all final trainings of each step."""
    test_reads: list[ReportRead]
    quoted: Quoted | None
    """The paper's figures for its data sets."""
    warnings: list[str]


SCHEMAS: Mapping[str, type[Result]] = {
    "search": SearchResult,
    "search --dry-run": EstimateResult,
    "status": StatusResult,
    "prepare": PrepareResult,
    "train": FinalResult,
    "baselines": FinalResult,
    "report": ReportResult,
    "export": ExportResult,
    "predict": PredictResult,
    "studies": StudiesResult,
    "show": ShowResult,
    "init": InitResult,
    "taps": TapsResult,
    "data build": DataBuildResult,
    "data check": DataCheckResult,
    "data make": DataMakeResult,
    "fsck": FsckResult,
    "gc": GcResult,
    "doctor": DoctorResult,
    "error": ErrorResult,
}
"""What each command prints, by its name; `error` is what any of them prints when it fails."""


def schema(command: str) -> dict[str, Any]:
    """Return the JSON Schema, of draft 2020-12, of what a command prints.

    Raises:
        KeyError: There is none of this name.
    """
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **SCHEMAS[command].model_json_schema()}


def document() -> str:
    """Return docs/json.md's part about fields, as Markdown."""
    return "\n".join(_document())


def _document() -> Iterator[str]:
    told: set[str] = set()
    for model in SCHEMAS.values():
        if model.__name__ in told:
            continue
        same = [name for name, other in SCHEMAS.items() if other is model]
        yield f"## {' and '.join(same)}\n"
        yield from _table(model, told)


def _table(model: type[BaseModel], told: set[str]) -> Iterator[str]:
    """Yield a table of a model's fields, and then of each model in it that was not told of yet."""
    told.add(model.__name__)
    own = model.model_json_schema(ref_template="{model}")
    yield f"{(model.__doc__ or '').strip()}\n"
    yield "| field | type | |"
    yield "|---|---|---|"
    for name, field in own["properties"].items():
        yield f"| `{name}` | {_type(field)} | {' '.join(field.get('description', '').split())} |"
    yield ""
    for inner in model.model_fields.values():
        for part in _models(inner.annotation):
            if part.__name__ not in told:
                yield f"### {part.__name__}\n"
                yield from _table(part, told)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models(argument)


def _type(field: Mapping[str, Any]) -> str:
    """Return the type of a field in words."""
    if "anyOf" in field:
        return " or ".join(_type(option) for option in field["anyOf"])
    if "$ref" in field:
        return str(field["$ref"])
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if field.get("type") == "object":
        values = field.get("additionalProperties")
        return f"object of {_type(values)}" if isinstance(values, dict) else "object"
    return str(field.get("type", "any"))
