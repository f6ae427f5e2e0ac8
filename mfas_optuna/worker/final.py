"""From a search to what it is worth: its best networks and what they are compared with, trained to the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import optuna

from mfas_optuna import finals
from mfas_optuna import storage as database
from mfas_optuna import trials as records
from mfas_optuna.baselines import fixed_methods, rank_layers
from mfas_optuna.errors import SearchFailedError, SpecError, StorageError, StudyMismatchError
from mfas_optuna.final.frozen import FrozenStep, Places, common_settings
from mfas_optuna.final.methods import searched_method
from mfas_optuna.final.unfrozen import UnfrozenStep
from mfas_optuna.finals import Choice
from mfas_optuna.fusion.head import Method
from mfas_optuna.prepare import Preparation, Prepared, blob_store, check_home, locked, partial_folder
from mfas_optuna.spec import SamplerName, StudySpec, differences
from mfas_optuna.training.processes import Processes
from mfas_optuna.worker.devices import choose_device
from mfas_optuna.worker.interrupts import Interrupts
from mfas_optuna.worker.request import Listener, SearchRequest
from mfas_optuna.worker.samplers import is_over, make_sampler, n_finished_trials
from mfas_optuna.worker.search import preparation, search

OTHER_SAMPLERS: tuple[SamplerName, ...] = ("random", "tpe")


@dataclass(frozen=True, slots=True)
class FinalRequest:
    """What to train to the end.

    Attributes:
        search: The study, as its search was asked for.
        n_candidates: How many of a search's best networks are trained.
        n_seeds: Seeds that what is chosen is trained with.
        widths: Rows of every W_l, each of which is tried; None: the study's.
        n_unfrozen_seeds: Seeds that are trained together with the backbones too; 0: the second step is left out.
        n_parameters: What each network may learn at most: its width is the largest with so many weights and biases, 1
            at least. None: as the study's `fusion.n_parameters`; where there is none, or widths are asked for, networks
            of searches have the widths, and simple fusion as many parameters as the search's.
        methods: Names of those to compare with; None: all.
    """

    search: SearchRequest
    n_candidates: int
    n_seeds: int
    widths: tuple[int, ...] | None = None
    n_unfrozen_seeds: int = 0
    n_parameters: int | None = None
    methods: tuple[str, ...] | None = None

    @property
    def budget(self) -> int | None:
        """What each network may learn at most, as asked for or as the study says; None where widths count."""
        if self.n_parameters is not None or self.widths is not None:
            return self.n_parameters
        return self.search.spec.fusion.n_parameters

    def __post_init__(self) -> None:
        if self.widths is not None and self.n_parameters is not None:
            raise SpecError(
                [
                    f"command line: expected widths or a number of parameters, from which widths follow, found widths "
                    f"{', '.join(map(str, self.widths))} and {self.n_parameters:,} parameters. Leave one out."
                ]
            )

    @property
    def spec(self) -> StudySpec:
        """The study's settings with the widths that were asked for."""
        spec = self.search.spec
        if self.widths is None:
            return spec
        return spec.model_copy(update={"final": spec.final.model_copy(update={"widths": list(self.widths)})})


@dataclass(frozen=True, slots=True)
class MethodOutcome:
    """What a method came to in one step.

    Attributes:
        method: Its name.
        title: What it is called for people.
        choice: What validation chose.
        test_scores: By seed.
    """

    method: str
    title: str
    choice: Choice
    test_scores: dict[int, float]


@dataclass(frozen=True, slots=True)
class FinalOutcome:
    """What final training came to.

    Attributes:
        study: The study of final trainings.
        methods: What was asked for, in order.
        stand_in: What the generated data stand in for; empty for real data.
    """

    study: optuna.Study
    methods: list[MethodOutcome]
    stand_in: str


def train(request: FinalRequest, listener: Listener) -> FinalOutcome | None:
    """Train the best networks of a search to the end, and choose among them by validation.

    Of several processes that `torchrun` started, the first does it; the others take part in the second step.

    Returns:
        What it came to; None in the other processes.

    Raises:
        Interrupted: A signal asked for the end; what was stored stays, and the same call goes on.
        MfasError: Something a user can mend is wrong; the message says what.
    """
    return _together(request, listener, _train)


def baselines(request: FinalRequest, listener: Listener) -> FinalOutcome | None:
    """Train what a user would do without the search, with the same data, recipes and seeds.

    Each modality alone, simple fusion at the number of parameters that `train` chose or that was asked for, and the
    best networks of random search and TPE at the search's number of trials; or those of them that were asked for.
    Several processes work together as in `train`.

    Returns:
        What it came to; None in the other processes.

    Raises:
        Interrupted: A signal asked for the end; what was stored stays, and the same call goes on.
        MfasError: Something a user can mend is wrong; the message says what.
    """
    return _together(request, listener, _train_baselines)


def _together(
    request: FinalRequest,
    listener: Listener,
    work: Callable[[FinalRequest, Listener, Processes], FinalOutcome],
) -> FinalOutcome | None:
    """Have the first process do the work, and the others follow it until it is done."""
    processes = Processes(choose_device(request.search.device))
    if processes.is_first:
        outcome = work(request, listener, processes)
        processes.announce(None)
        return outcome
    _follow(request, listener, processes)
    return None


def _follow(request: FinalRequest, listener: Listener, processes: Processes) -> None:
    """Take part in every training of the second step that the first process announces."""
    with database.clear_errors(request.search.storage_url), Interrupts() as interrupts, interrupts.immediate():
        step: UnfrozenStep | None = None
        for number in processes.announced():
            if step is None:  # By now the first process has made whatever was missing.
                opened = _open(request, listener, processes)
                step = opened.unfrozen_step(opened.frozen_step())
            step.follow(number)


def _train(request: FinalRequest, listener: Listener, processes: Processes) -> FinalOutcome:
    with _opened(request, listener, processes) as opened:
        sampler = request.spec.search.sampler
        method = searched_method(
            sampler,
            opened.search.get_trials(deepcopy=False),
            records.ranked_space(opened.search, request.spec.search_space()),
            request.n_candidates,
            n_trials=None,
        )
        if method is None:
            raise SearchFailedError(
                f"Study {request.search.study_name!r} has no complete trial. Run `mfas-optuna search` first."
            )
        step = opened.frozen_step()
        found = step.run([method], n_seeds=request.n_seeds, n_parameters=request.budget)
        return opened.outcome(found, opened.unfrozen(step, found))


def _train_baselines(request: FinalRequest, listener: Listener, processes: Processes) -> FinalOutcome:
    found_by_others = []
    with _opened(request, listener, processes) as opened:
        n_parameters = request.budget
        if n_parameters is None:
            ours = opened.chosen(request.spec.search.sampler)
            n_parameters = next(iter(ours.by_seed.values())).result.n_parameters
        fixed = opened.fixed_methods()
        samplers = [sampler for sampler in OTHER_SAMPLERS if sampler != request.spec.search.sampler]
        if request.methods is not None:
            _check_methods(request.methods, [*samplers, *(method.name for method in fixed)])
            samplers = [sampler for sampler in samplers if sampler in request.methods]
            fixed = [method for method in fixed if method.name in request.methods]
        n_trials = n_finished_trials(opened.search)
    for sampler in samplers:
        found_by_others.append(_search_with(request, sampler, n_trials, listener))
    with _opened(request, listener, processes) as opened:
        step = opened.frozen_step()
        searched = [method for method in found_by_others if method is not None]
        found = step.run(searched, n_seeds=request.n_seeds, n_parameters=request.budget)
        if fixed:
            listener.say(f"Simple fusion, each of at most {n_parameters:,} parameters")
            found |= step.run(fixed, n_seeds=request.n_seeds, n_parameters=n_parameters)
        return opened.outcome(found, opened.unfrozen(step, found))


def _check_methods(wanted: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SpecError(
            [
                f"command line: no such method here: {', '.join(unknown)}. This study can be compared with "
                f"{', '.join(known)}."
            ]
        )


def _search_with(request: FinalRequest, sampler: SamplerName, n_trials: int, listener: Listener) -> Method | None:
    """Search the same study with another sampler, in a study NAME-SAMPLER, for as many trials."""
    spec = request.search.spec.with_search(sampler=sampler, n_trials=n_trials)
    name = f"{request.search.study_name}-{sampler}"
    listener.say(f"Search with {sampler}: {n_trials} trials, in study {name}")
    outcome = search(replace(request.search, spec=spec, study_name=name), listener)
    trials = outcome.study.get_trials(deepcopy=False)
    space = records.ranked_space(outcome.study, spec.search_space())
    return searched_method(sampler, trials, space, request.n_candidates, n_trials=n_trials)


@dataclass(frozen=True)
class _Opened:
    """A search with its final trainings."""

    request: FinalRequest
    listener: Listener
    search: optuna.Study
    final: optuna.Study
    preparation: Preparation
    prepared: Prepared
    processes: Processes

    @property
    def places(self) -> Places:
        wanted = self.request.search
        return Places(blob_store(wanted.home, wanted.weights), partial_folder(wanted.home, wanted.study_name))

    def fixed_methods(self) -> list[Method]:
        """Return every simple way to fuse the study's features; its layers are ranked for that."""
        features = self.prepared.features
        self.listener.say("Ranking layers by linear probes")
        ranking = rank_layers(features, self.request.spec.metric)
        return fixed_methods(features.layout, ranking, kind=features.target.kind)

    def frozen_step(self) -> FrozenStep:
        return FrozenStep(
            self.request.spec,
            self.prepared.features,
            self.final,
            places=self.places,
            device=self.processes.device,
            progress=self.listener.progress,
            say=self.listener.say,
        )

    def unfrozen_step(self, frozen: FrozenStep) -> UnfrozenStep:
        return UnfrozenStep(
            self.request.spec,
            self.prepared.features,
            self.final,
            frozen,
            lambda: self.preparation.trainable(self.prepared),
            places=self.places,
            device=self.processes.device,
            processes=self.processes,
            progress=self.listener.progress,
            say=self.listener.say,
        )

    def unfrozen(self, frozen: FrozenStep, choices: Mapping[str, Choice]) -> dict[str, Choice]:
        """Train what was chosen together with the backbones, as far as that was asked for and is possible."""
        if self.request.n_unfrozen_seeds == 0:
            return {}
        if not self.prepared.backbones:
            self.listener.say(
                "Features were given, so that there are no backbones to train: the second step is left out"
            )
            return {}
        return self.unfrozen_step(frozen).run(choices, n_seeds=self.request.n_unfrozen_seeds)

    def chosen(self, method: str) -> Choice:
        settings = finals.read_settings(self.final) or {}
        choice = finals.chosen(finals.read(self.final), method, "frozen", settings.get("tuning_seeds", []))
        if choice is None or not settings:
            raise StorageError(
                f"Study {self.request.search.study_name!r}: its best network is not trained to the end yet, and what "
                "it is compared with gets as many parameters. Run `mfas-optuna train` first."
            )
        return choice

    def outcome(self, *found: Mapping[str, Choice]) -> FinalOutcome:
        titles, scored = finals.read_titles(self.final), finals.test_scores(finals.read_ledger(self.final))
        return FinalOutcome(
            self.final,
            [
                MethodOutcome(
                    method,
                    titles[method],
                    choice,
                    {
                        seed: scored[final.number]
                        for seed, final in sorted(choice.by_seed.items())
                        if final.number in scored
                    },
                )
                for of_step in found
                for method, choice in of_step.items()
            ],
            self.prepared.features.stand_in,
        )


@contextlib.contextmanager
def _opened(request: FinalRequest, listener: Listener, processes: Processes) -> Iterator[_Opened]:
    """Open a search and its final trainings, to which this process alone may add meanwhile."""
    wanted = request.search
    check_home(wanted.home)
    with (
        database.clear_errors(wanted.storage_url),
        Interrupts() as interrupts,
        interrupts.immediate(),
        locked(wanted.home, f"final-{wanted.study_name}", listener.say, work="training the same study to the end"),
    ):
        opened = _open(request, listener, processes)
        _claim(opened.final, request, opened.prepared)
        stand_in = opened.prepared.features.stand_in
        if stand_in:
            opened.final.set_user_attr(records.STAND_IN, stand_in)
        yield opened


def _open(request: FinalRequest, listener: Listener, processes: Processes) -> _Opened:
    """Open a search and its final trainings, with everything that was checked when it was searched."""
    wanted = request.search
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    database.check_exists(wanted.storage_url)
    storage = database.open_storage(wanted.storage_url)
    study = database.load_study(storage, wanted.study_name)
    _check_search(study, wanted, listener)
    preparing = preparation(wanted, listener)
    prepared = preparing.run(recorded=records.read_backbones(study))
    _check_features(records.read_features(study), prepared)
    final = optuna.create_study(
        storage=storage,
        study_name=finals.final_name(wanted.study_name),
        direction="maximize",
        load_if_exists=True,
    )
    return _Opened(request, listener, study, final, preparing, prepared, processes)


def _check_search(study: optuna.Study, wanted: SearchRequest, listener: Listener) -> None:
    stored = records.read_scientific(study)
    if stored is None:
        raise StorageError(
            f"Study {wanted.study_name!r} in this database was not begun by mfas-optuna. Choose another --name."
        )
    changed = list(differences(stored, wanted.spec.scientific()))
    if changed:
        raise StudyMismatchError(
            f"Study {wanted.study_name!r} was searched with other settings:\n  "
            + "\n  ".join(changed)
            + "\nRestore them, or name the study that was searched with these.",
            changed,
        )
    study.sampler = make_sampler(wanted.spec)
    if not is_over(study, wanted.spec):
        listener.say(
            f"Warning: the search of {wanted.study_name} is not finished: {n_finished_trials(study)} of "
            f"{wanted.spec.n_trials_planned()} trials. The best networks so far are taken"
        )


def _check_features(stored: str | None, prepared: Prepared) -> None:
    if stored != prepared.fingerprint:
        was = "none" if stored is None else stored[:12]
        raise StudyMismatchError(
            f"The study was searched with features {was}, those here are {prepared.fingerprint[:12]}, so that scores "
            "could not be compared. Search again under another --name.",
            [f"features: was {was}, is now {prepared.fingerprint[:12]}"],
        )


def _claim(final: optuna.Study, request: FinalRequest, prepared: Prepared) -> None:
    """Record what the final trainings have in common; refuse to mix them with those of other settings."""
    given = common_settings(request.spec, prepared.fingerprint, request.budget)
    stored = finals.read_settings(final)
    if stored is None:
        finals.write_settings(final, given)
        return
    changed: Sequence[str] = list(differences(stored, given))
    if changed:
        raise StudyMismatchError(
            f"The final trainings of {final.study_name!r} were begun with other settings:\n  "
            + "\n  ".join(changed)
            + "\nRestore them, or search under another --name: methods are compared under equal settings.",
            list(changed),
        )
