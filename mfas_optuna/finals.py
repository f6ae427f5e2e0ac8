"""Final trainings, and the ledger of what was read of the test split: all their keys are read and written here alone.

Each final training of a study NAME is a finished trial of the study NAME-final, whose value is its validation score. So
they can be looked at in the dashboard, and what is there need not be trained again. A test score is no part of a
trial, which is never changed: it stands in the ledger, with time and purpose, and choices are made without it.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from mfas_optuna.spec import SamplerName, fingerprint

Step = Literal["frozen", "unfrozen"]

RECORD_VERSION = 1
SUFFIX = "-final"
"""Of the name of the study that holds the final trainings."""

SEARCH_TITLES: Mapping[SamplerName, str] = {"mfas": "MFAS", "random": "random search", "tpe": "TPE"}
"""What searches are called for people, by their sampler; also the names of the methods that they gave."""

# System attribute of a trial: the whole record. User attributes repeat what people look for.
_FINAL = "mfas:final"
# User attributes of a study.
_TEST_READ = "mfas:test_read:"
_SETTINGS = "mfas:final_settings"
_TITLES = "mfas:method_titles"


@dataclass(frozen=True, slots=True)
class FinalTraining:
    """What is trained: equal ones need not be trained twice.

    Attributes:
        method: Name of the method: `mfas`, `random`, `tpe` or one of the fixed ones.
        head: Record of the head, its width included.
        step: On frozen backbones, or together with them.
        recipe: How: learning_rate, weight_decay, dropout.
        seed: Seed of initial weights, order of samples and dropout; equal ones are paired.
    """

    method: str
    head: Mapping[str, Any]
    step: Step
    recipe: Mapping[str, float]
    seed: int

    @property
    def key(self) -> str:
        """Digest of all fields."""
        return fingerprint(asdict(self))

    @property
    def choice(self) -> str:
        """Digest of what validation chooses: all but the seed."""
        return fingerprint([self.method, dict(self.head), self.step, dict(self.recipe)])


@dataclass(frozen=True, slots=True)
class FinalResult:
    """What a final training came to.

    Attributes:
        validation_score: The metric on the validation split in the epoch that counts.
        epoch_scores: The metric on the validation split after each epoch; in the second step the first is of before it.
        best_epoch: 1-based epoch that counts; in the second step 0 where training made nothing better.
        n_parameters: Weights and biases that the method adds to the backbones.
        n_fusion_parameters: Those of the fusion layers alone (the paper's Table 5); None where there are none.
        training_s: Seconds.
        weights: Digest of the blob: of the head, or of the whole model where backbones were trained too.
        torch_version: The torch that trained it.
        device: Type of the device that trained it.
    """

    validation_score: float
    epoch_scores: tuple[float, ...]
    best_epoch: int
    n_parameters: int
    n_fusion_parameters: int | None
    training_s: float
    weights: str
    torch_version: str
    device: str


@dataclass(frozen=True, slots=True)
class Final:
    """A stored final training.

    Attributes:
        number: Of its trial in the study of final trainings.
        training: What was trained.
        result: What it came to.
    """

    number: int
    training: FinalTraining
    result: FinalResult


@dataclass(frozen=True, slots=True)
class TestRead:
    """An entry of the ledger: something that was read of the test split.

    Attributes:
        time: UTC, ISO 8601.
        purpose: Why.
        score: The metric on the test split.
        trial: Final training that was scored; None for something else, such as a backbone.
        what: What was scored, for people.
    """

    __test__ = False  # Not a test, whatever pytest thinks of its name.

    time: str
    purpose: str
    score: float
    trial: int | None
    what: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One head, step and recipe of a method, trained with several seeds.

    Attributes:
        method: Name of the method.
        head: Record of the head.
        step: On frozen backbones, or together with them.
        recipe: How it was trained.
        by_seed: The trainings.
    """

    method: str
    head: Mapping[str, Any]
    step: Step
    recipe: Mapping[str, float]
    by_seed: Mapping[int, Final]

    def validation_mean(self, seeds: Iterable[int]) -> float:
        """Return the mean validation score over some seeds."""
        return statistics.fmean(self.by_seed[seed].result.validation_score for seed in seeds)


def final_name(study_name: str) -> str:
    """Return the name of the study that holds the final trainings of a study."""
    return study_name + SUFFIX


def of_search(study: optuna.Study) -> optuna.Study | None:
    """Return the study of final trainings of a search, from the same storage; None where there is none.

    A study of final trainings is its own.
    """
    if read_settings(study) is not None:
        return study
    name = final_name(study.study_name)
    if name not in optuna.get_all_study_names(study._storage):
        return None
    return optuna.load_study(study_name=name, storage=study._storage)


def add(study: optuna.Study, training: FinalTraining, result: FinalResult, title: str) -> None:
    """Store a final training as a finished trial.

    Args:
        study: The study of final trainings.
        training: What was trained.
        result: What it came to.
        title: What the method is called for people.
    """
    record = {"version": RECORD_VERSION, "training": asdict(training), "result": asdict(result)}
    shown = {
        "method": title,
        "head": json.dumps(training.head),
        "step": training.step,
        "seed": training.seed,
        **training.recipe,
        "n_parameters": result.n_parameters,
        "best_epoch": result.best_epoch,
        "training_s": round(result.training_s, 3),
        "torch": f"{result.torch_version}, {result.device}",
    }
    trial = optuna.trial.create_trial(
        state=TrialState.COMPLETE,
        value=result.validation_score,
        user_attrs=shown,
        system_attrs={_FINAL: record},
        intermediate_values={epoch + 1: score for epoch, score in enumerate(result.epoch_scores)},
    )
    study.add_trial(trial)


def read(study: optuna.Study) -> list[Final]:
    """Return all final trainings of a study of such, in the order in which they were stored, each once."""
    found: dict[str, Final] = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        final = of_trial(trial)
        if final is not None:
            found.setdefault(final.training.key, final)
    return list(found.values())


def of_trial(trial: FrozenTrial) -> Final | None:
    """Return the final training that a trial stands for; None where it has no such record."""
    record = trial.system_attrs.get(_FINAL)
    if not isinstance(record, Mapping) or record.get("version") != RECORD_VERSION:
        return None
    result = {**record["result"], "epoch_scores": tuple(record["result"]["epoch_scores"])}
    return Final(trial.number, FinalTraining(**record["training"]), FinalResult(**result))


def choices(trainings: Iterable[Final]) -> list[Choice]:
    """Return the trainings by what validation chooses from, in the order of the first of each."""
    grouped: dict[str, dict[int, Final]] = {}
    for final in trainings:
        grouped.setdefault(final.training.choice, {})[final.training.seed] = final
    result = []
    for by_seed in grouped.values():
        training = next(iter(by_seed.values())).training
        result.append(Choice(training.method, training.head, training.step, training.recipe, by_seed))
    return result


def chosen(trainings: Iterable[Final], method: str, step: Step, tuning_seeds: Sequence[int]) -> Choice | None:
    """Return what validation chooses for a method: the best mean over the tuning seeds, the earlier one among equals.

    None where nothing was trained with all of these seeds. Which weights count is chosen by the validation score of
    each; no test score is known to this function.
    """
    complete = [
        choice
        for choice in choices(trainings)
        if choice.method == method and choice.step == step and set(tuning_seeds) <= set(choice.by_seed)
    ]
    return max(complete, key=lambda choice: choice.validation_mean(tuning_seeds), default=None)


# The study of final trainings.


def write_settings(study: optuna.Study, values: Mapping[str, Any]) -> None:
    """Record what all final trainings of a study have in common, as JSON values."""
    study.set_user_attr(_SETTINGS, json.dumps(values))


def read_settings(study: optuna.Study) -> dict[str, Any] | None:
    """Return what all final trainings of a study have in common; None before the first."""
    text = study.user_attrs.get(_SETTINGS)
    return json.loads(text) if isinstance(text, str) else None


def write_titles(study: optuna.Study, titles: Mapping[str, str]) -> None:
    """Add to what the methods are called for people, in the order in which they are shown."""
    study.set_user_attr(_TITLES, json.dumps({**read_titles(study), **titles}))


def read_titles(study: optuna.Study) -> dict[str, str]:
    """Return what the methods are called for people, in the order in which they are shown."""
    text = study.user_attrs.get(_TITLES)
    return json.loads(text) if isinstance(text, str) else {}


# The ledger.


def write_test_read(study: optuna.Study, *, purpose: str, score: float, what: str, trial: int | None = None) -> None:
    """Append an entry to the ledger of a study; call it wherever the test split is read.

    Args:
        study: The search's, for its backbones; that of the final trainings for these.
        purpose: Why.
        score: The metric on the test split.
        what: What was scored, for people.
        trial: Number of the final training that was scored.
    """
    entry = TestRead(datetime.now(UTC).isoformat(timespec="milliseconds"), purpose, score, trial, what)
    key = f"{_TEST_READ}{time.time_ns()}:{fingerprint(asdict(entry))[:8]}"
    study.set_user_attr(key, json.dumps(asdict(entry)))


def read_ledger(study: optuna.Study) -> list[TestRead]:
    """Return the ledger of a study, oldest first."""
    keys = sorted(key for key in study.user_attrs if key.startswith(_TEST_READ))
    return [TestRead(**json.loads(study.user_attrs[key])) for key in keys]


def test_scores(ledger: Iterable[TestRead]) -> dict[int, float]:
    """Return the test score of each final training that was scored, by number; the first reading counts."""
    scores: dict[int, float] = {}
    for entry in ledger:
        if entry.trial is not None:
            scores.setdefault(entry.trial, entry.score)
    return scores


test_scores.__test__ = False  # type: ignore[attr-defined]  # Not a test, whatever pytest thinks of its name.
