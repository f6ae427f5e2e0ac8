"""What a report is made of, read from the database alone: the searches of a study, its final trainings, the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from mfas_optuna import finals
from mfas_optuna import storage as database
from mfas_optuna import trials as records
from mfas_optuna.datasets import DIGEST_LINE
from mfas_optuna.errors import StorageError, StudyMismatchError
from mfas_optuna.finals import SEARCH_TITLES, Choice, Final, Step, TestRead
from mfas_optuna.fusion.head import head_label
from mfas_optuna.report.statistics import Spread, spread
from mfas_optuna.spec import SamplerName, StudySpec, differences
from mfas_optuna.target import Metric
from mfas_optuna.trials import RankedNetwork

STEPS: tuple[Step, ...] = ("frozen", "unfrozen")


@dataclass(frozen=True, slots=True)
class Search:
    """A stored search.

    Attributes:
        sampler: Who searched.
        title: What it is called for people.
        study_name: Its name in the database.
        n_by_state: Number of trials in each state that occurs.
        n_counted: Finished trials that count: of another search at most as many as ours has.
        best: The best networks among these, best first.
        spread: Of their scores; None where there are none.
        n_steps: Steps of the schedule that were begun; 0 where the sampler knows none.
        timings_s: Seconds spent in each stage.
        hardware: Torch and device of the trials, each once.
    """

    sampler: SamplerName
    title: str
    study_name: str
    n_by_state: Mapping[str, int]
    n_counted: int
    best: tuple[RankedNetwork, ...]
    spread: Spread | None
    n_steps: int
    timings_s: Mapping[str, float]
    hardware: tuple[str, ...]

    @property
    def n_finished(self) -> int:
        """Complete and pruned trials."""
        return self.n_by_state.get("COMPLETE", 0) + self.n_by_state.get("PRUNED", 0)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a method came to in one step of final training.

    Attributes:
        step: On frozen backbones, or together with them.
        head: Record of the head that validation chose.
        recipe: How it was trained.
        n_parameters: Weights and biases that the method adds to the backbones.
        n_fusion_parameters: Those of the fusion layers alone; None where there are none.
        validation: Score by seed.
        test: Score by seed, of those that were read.
        training_s: Seconds of training by seed.
    """

    step: Step
    head: Mapping[str, Any]
    recipe: Mapping[str, float]
    n_parameters: int
    n_fusion_parameters: int | None
    validation: Mapping[int, float]
    test: Mapping[int, float]
    training_s: Mapping[int, float]

    @property
    def label(self) -> str:
        """What people call the head."""
        return head_label(self.head)

    @property
    def is_deterministic(self) -> bool:
        """Whether nothing is learned, so that every seed gives the same."""
        return self.step == "frozen" and self.n_parameters == 0

    def test_for(self, seeds: Iterable[int]) -> Mapping[int, float]:
        """Return the test scores to pair with these seeds: those there are; for all of them where no seed matters."""
        return _for_seeds(self.test, seeds) if self.is_deterministic else self.test

    def validation_for(self, seeds: Iterable[int]) -> Mapping[int, float]:
        """Return the validation scores to pair with these seeds, as `test_for` does."""
        return _for_seeds(self.validation, seeds) if self.is_deterministic else self.validation


def _for_seeds(scores: Mapping[int, float], seeds: Iterable[int]) -> dict[int, float]:
    return dict.fromkeys(seeds, next(iter(scores.values()))) if scores else {}


@dataclass(frozen=True, slots=True)
class MethodResult:
    """What a method came to.

    Attributes:
        name: By which it is stored.
        title: What it is called for people.
        steps: What it came to in each step; empty where no training of it came to an end.
    """

    name: str
    title: str
    steps: Mapping[Step, StepResult]

    @property
    def is_searched(self) -> bool:
        """Whether it is the result of a search."""
        return self.name in SEARCH_TITLES

    @property
    def counted(self) -> StepResult | None:
        """The step that counts in the verdict: that of the better validation mean over the seeds of both.

        Source: docs/decisions/0030-report.md. The first among equals; no test score is looked at.
        """
        frozen, unfrozen = self.steps.get("frozen"), self.steps.get("unfrozen")
        if frozen is None or unfrozen is None:
            return frozen or unfrozen
        before = frozen.validation_for(unfrozen.validation)
        common = sorted(before.keys() & unfrozen.validation.keys())
        first = spread(before[seed] for seed in common)
        second = spread(unfrozen.validation[seed] for seed in common)
        return unfrozen if first is not None and second is not None and second.mean > first.mean else frozen


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A reading of the test split.

    Attributes:
        study_name: In whose ledger it stands.
        entry: What was read, when and why.
    """

    study_name: str
    entry: TestRead


@dataclass(frozen=True, slots=True)
class StudyResults:
    """Everything that a report shows.

    Attributes:
        study_name: Name in the database.
        arguments: Options of the command line that name the study, for commands that a report recommends.
        dataset: Name of the data set.
        metric: What scores are.
        card: First line of the data card, and the digest of the data; empty before they are there.
        stand_in: What the generated data stand in for; empty for real data.
        settings: Everything scientific that the study was begun with, as JSON values.
        n_planned: Trials that its search takes; None where the study file differs from what it was begun with.
        backbones: Unimodal scores and weight digests, by modality.
        searches: Ours first, then those of the other samplers that are there.
        methods: What was trained to the end, in the order of titles.
        training_s: Seconds of all final trainings of each step.
        final_hardware: Torch and device of the final trainings, each once.
        ledger: Every reading of the test split, oldest first.
        warnings: What the reader should know of what was left out.
    """

    study_name: str
    arguments: str
    dataset: str
    metric: Metric
    card: str
    stand_in: str
    settings: Mapping[str, Any]
    n_planned: int | None
    backbones: Mapping[str, Any]
    searches: tuple[Search, ...]
    methods: tuple[MethodResult, ...]
    training_s: Mapping[Step, float]
    final_hardware: tuple[str, ...]
    ledger: tuple[LedgerEntry, ...]
    warnings: tuple[str, ...]

    @property
    def ours(self) -> MethodResult | None:
        """The method that the search of this study gave; None where it is not trained to the end."""
        sampler = self.searches[0].sampler
        return next((method for method in self.methods if method.name == sampler and method.steps), None)

    @property
    def others(self) -> tuple[MethodResult, ...]:
        """The other methods of which a training came to an end."""
        sampler = self.searches[0].sampler
        return tuple(method for method in self.methods if method.name != sampler and method.steps)

    @property
    def hardware(self) -> tuple[str, ...]:
        """Torch and device of everything that was trained, each once."""
        of_searches = (item for search in self.searches for item in search.hardware)
        return tuple(dict.fromkeys((*of_searches, *self.final_hardware)))


def collect(storage_url: str, study_name: str, spec: StudySpec, arguments: str) -> StudyResults:
    """Read what is stored of a study; no data are read, and the test split is not.

    Args:
        storage_url: The database.
        study_name: Name of the study in it.
        spec: The study file's settings; those that the study was begun with are taken from the database.
        arguments: Options of the command line that name the study.

    Raises:
        StorageError: The database or the study cannot be found, or it has no complete trial.
        StudyMismatchError: The study was begun with another data set than the study file's.
    """
    with database.clear_errors(storage_url):
        database.check_exists(storage_url)
        storage = database.open_storage(storage_url)
        return collect_from(storage, database.load_study(storage, study_name), spec, arguments)


def collect_from(storage: BaseStorage, study: optuna.Study, spec: StudySpec, arguments: str) -> StudyResults:
    """Read what is stored of a study; as `collect`, from a study and the storage that it is in."""
    study_name = study.study_name
    settings = records.read_scientific(study)
    if settings is None:
        raise StorageError(
            f"Study {study_name!r} in this database was not begun by mfas-optuna. Choose another --name."
        )
    _check_dataset(study_name, settings, spec)
    ours = _search(study, settings["search"]["sampler"], spec.search.n_finalists, None)
    if not ours.best:
        raise StorageError(
            f"Study {study_name!r}: expected a complete trial to report, found none. Run "
            f"`mfas-optuna search {arguments}`, or `mfas-optuna status {arguments}` to see why trials failed."
        )
    names = set(optuna.get_all_study_names(storage))
    searches, warnings = [ours], []
    for sampler in SEARCH_TITLES:
        name = f"{study_name}-{sampler}"
        if sampler != ours.sampler and name in names:
            other = optuna.load_study(study_name=name, storage=storage)
            changed = _changed(other, settings)
            if changed:
                warnings.append(f"study {name} is left out, since it was begun with other settings: {changed}")
            else:
                searches.append(_search(other, sampler, spec.search.n_finalists, ours.n_finished))
    ledger = [LedgerEntry(study_name, entry) for entry in finals.read_ledger(study)]
    methods: tuple[MethodResult, ...] = ()
    trainings: list[Final] = []
    final_name = finals.final_name(study_name)
    if final_name in names:
        final = optuna.load_study(study_name=final_name, storage=storage)
        trainings = finals.read(final)
        methods = _methods(final, trainings)
        ledger += [LedgerEntry(final_name, entry) for entry in finals.read_ledger(final)]
    return StudyResults(
        study_name=study_name,
        arguments=arguments,
        dataset=spec.dataset.name,
        metric=settings["objective"]["metric"] or spec.metric,
        card=_in_short(records.read_card(study)),
        stand_in=records.read_stand_in(study),
        settings=settings,
        n_planned=None if any(differences(settings, spec.scientific())) else spec.n_trials_planned(),
        backbones=records.read_backbones(study) or {},
        searches=tuple(searches),
        methods=methods,
        training_s=_seconds(trainings),
        final_hardware=tuple(
            dict.fromkeys(f"{final.result.torch_version}, {final.result.device}" for final in trainings)
        ),
        ledger=tuple(sorted(ledger, key=lambda read: read.entry.time)),
        warnings=tuple(warnings),
    )


def _check_dataset(study_name: str, settings: Mapping[str, Any], spec: StudySpec) -> None:
    stored = settings["dataset"]["name"]
    if stored != spec.dataset.name:
        raise StudyMismatchError(
            f"Study {study_name!r} was begun with the data set {stored}, the study file's is {spec.dataset.name}. "
            "Name its study file with --study.",
            [f"dataset.name: was {stored}, is now {spec.dataset.name}"],
        )


def _changed(other: optuna.Study, settings: Mapping[str, Any]) -> str:
    """Return how another search differs from ours in more than its sampler; empty where it does not."""
    stored = records.read_scientific(other)
    if stored is None:
        return "it was not begun by mfas-optuna"
    ignored = {**stored, "search": {**stored["search"], "sampler": settings["search"]["sampler"]}}
    return "; ".join(line for line in differences(settings, ignored) if not line.startswith("fusion.sharing:"))


def _in_short(card: str) -> str:
    """Return where the data come from, by their card, and their digest; the mark of a stand-in is shown by itself."""
    lines = [line for line in card.splitlines() if line.strip() and not line.startswith("STAND-IN:")]
    digests = (line.partition(",")[0] for line in lines[1:] if line.startswith(DIGEST_LINE))
    return "; ".join([*lines[:1], *digests])


def _search(study: optuna.Study, sampler: SamplerName, n_best: int, n_trials: int | None) -> Search:
    trials = study.get_trials(deepcopy=False)
    finished = sorted(
        (trial for trial in trials if records.is_finished(trial)),
        key=lambda trial: trial.number,
    )[:n_trials]
    best = records.best_networks(finished, n_best)
    return Search(
        sampler=sampler,
        title=SEARCH_TITLES[sampler],
        study_name=study.study_name,
        n_by_state=dict(Counter(trial.state.name for trial in trials)),
        n_counted=len(finished),
        best=tuple(best),
        spread=spread(network.score for network in best),
        n_steps=len(_steps(trials)),
        timings_s=records.read_timings(study),
        hardware=tuple(
            dict.fromkeys(trial.user_attrs[records.TORCH] for trial in finished if records.TORCH in trial.user_attrs)
        ),
    )


def _steps(trials: Sequence[FrozenTrial]) -> set[tuple[int, int]]:
    proposals = (records.read_proposal(trial.system_attrs) for trial in trials)
    return {(proposal.iteration, proposal.depth) for proposal in proposals if proposal and proposal.is_scheduled}


def _methods(final: optuna.Study, trainings: Sequence[Final]) -> tuple[MethodResult, ...]:
    settings, titles = finals.read_settings(final), finals.read_titles(final)
    if trainings and settings is None:
        raise StorageError(
            f"Study {final.study_name!r}: expected the settings of its final trainings, found none. It was not made by "
            "`mfas-optuna train`; rename or delete it."
        )
    tuning_seeds: list[int] = (settings or {}).get("tuning_seeds", [])
    scored = finals.test_scores(finals.read_ledger(final))
    for training in trainings:
        titles.setdefault(training.training.method, training.training.method)
    result = []
    for name, title in titles.items():
        steps: dict[Step, StepResult] = {}
        for step in STEPS:
            choice = finals.chosen(trainings, name, step, tuning_seeds)
            if choice is not None:
                steps[step] = _step_result(choice, scored)
        result.append(MethodResult(name, title, steps))
    return tuple(result)


def _step_result(choice: Choice, scored: Mapping[int, float]) -> StepResult:
    by_seed = dict(sorted(choice.by_seed.items()))
    first = next(iter(by_seed.values())).result
    return StepResult(
        step=choice.step,
        head=choice.head,
        recipe=choice.recipe,
        n_parameters=first.n_parameters,
        n_fusion_parameters=first.n_fusion_parameters,
        validation={seed: final.result.validation_score for seed, final in by_seed.items()},
        test={seed: scored[final.number] for seed, final in by_seed.items() if final.number in scored},
        training_s={seed: final.result.training_s for seed, final in by_seed.items()},
    )


def _seconds(trainings: Iterable[Final]) -> dict[Step, float]:
    seconds: dict[Step, float] = {}
    for final in trainings:
        seconds[final.training.step] = seconds.get(final.training.step, 0.0) + final.result.training_s
    return seconds
