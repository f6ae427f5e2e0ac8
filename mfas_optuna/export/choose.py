"""Which of a study's final trainings is exported: what validation prefers, of all methods or of one."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import optuna

from mfas_optuna import finals
from mfas_optuna import storage as database
from mfas_optuna import trials as records
from mfas_optuna.errors import ExportError
from mfas_optuna.export.card import MethodScore
from mfas_optuna.finals import Choice, Final, Step

BEST = "best"
"""Asks for the method that validation prefers."""


@dataclass(frozen=True)
class Chosen:
    """A final training, and what stands beside it.

    Attributes:
        choice: What was trained, with all its seeds.
        final: Of these the one with the best validation score.
        tuning_seeds: Seeds that validation chose by.
        test_score: Its test score by the ledger; None where there is none.
        methods: Scores of all methods, in both steps.
        search_trial: The trial of the search that found the network; None where none did.
        study: The search; None where it is gone.
        title: What the method is called for people.
    """

    choice: Choice
    final: Final
    tuning_seeds: Sequence[int]
    test_score: float | None
    methods: Sequence[MethodScore]
    search_trial: int | None
    study: optuna.Study | None
    title: str


def choose(storage_url: str, study_name: str, *, method: str = BEST, step: Step | None = None) -> Chosen:
    """Return the final training with the best validation mean over its seeds; of its seeds the best by validation.

    Args:
        storage_url: The database.
        study_name: Of the search.
        method: A method's name, or `best`: whichever validation prefers.
        step: On frozen backbones or together with them; None: whichever validation prefers.

    Raises:
        ExportError: There is no such training.
        StorageError: The database is missing or cannot be read.
    """
    database.check_exists(storage_url)
    opened = database.open_storage(storage_url)
    names = optuna.get_all_study_names(opened)
    name = finals.final_name(study_name)
    advice = "Train it with `mfas-optuna train`."
    if name not in names:
        raise ExportError(f"Study {study_name!r}: expected a final training, found none. {advice}")
    of_finals = optuna.load_study(storage=opened, study_name=name)
    trainings = finals.read(of_finals)
    common = finals.read_settings(of_finals)
    if common is None or not trainings:
        raise ExportError(f"Study {study_name!r}: expected a final training, found none. {advice}")
    seeds = tuple(int(seed) for seed in common["tuning_seeds"])
    trained = list(dict.fromkeys(final.training.method for final in trainings))
    steps: tuple[Step, ...] = get_args(Step) if step is None else (step,)
    found = [
        choice
        for of_method in (trained if method == BEST else [method])
        if (choice := _preferred([finals.chosen(trainings, of_method, step, seeds) for step in steps])) is not None
    ]
    if not found:
        there = sorted({f"{final.training.method} ({final.training.step})" for final in trainings})
        raise ExportError(
            f"Study {study_name!r}: expected a final training of method {method!r} "
            f"({' or '.join(steps)}) with seeds {list(seeds)}, found {', '.join(there)}. {advice}"
        )
    choice = max(found, key=lambda choice: choice.validation_mean(choice.by_seed))
    final = max(choice.by_seed.values(), key=lambda final: (final.result.validation_score, -final.training.seed))
    study = optuna.load_study(storage=opened, study_name=study_name) if study_name in names else None
    tested = finals.test_scores(finals.read_ledger(of_finals))
    titles = finals.read_titles(of_finals)
    notation = choice.head.get("notation")
    ranked = [] if study is None else records.best_networks(study.get_trials(deepcopy=False), len(study.trials))
    return Chosen(
        choice=choice,
        final=final,
        tuning_seeds=seeds,
        test_score=tested.get(final.number),
        methods=list(_methods(trainings, seeds, tested, titles)),
        search_trial=next((network.number for network in ranked if network.architecture == notation), None),
        study=study,
        title=titles.get(choice.method, choice.method),
    )


def _preferred(steps: Sequence[Choice | None]) -> Choice | None:
    """Return the step with the better validation mean over the seeds of all (docs/decisions/0030-report.md)."""
    there = [choice for choice in steps if choice is not None]
    common = [seed for seed in (there[0].by_seed if there else ()) if all(seed in choice.by_seed for choice in there)]
    return max(there, key=lambda choice: choice.validation_mean(common), default=None)


def _methods(
    trainings: Sequence[Final], seeds: Sequence[int], tested: Mapping[int, float], titles: Mapping[str, str]
) -> Iterator[MethodScore]:
    methods = [*titles, *dict.fromkeys(final.training.method for final in trainings)]
    for method in dict.fromkeys(methods):
        for step in get_args(Step):
            choice = finals.chosen(trainings, method, step, seeds)
            if choice is not None:
                numbers = [final.number for final in choice.by_seed.values()]
                of_test = [tested[number] for number in numbers if number in tested]
                yield MethodScore(
                    titles.get(method, method),
                    step,
                    choice.validation_mean(choice.by_seed),
                    statistics.fmean(of_test) if of_test else None,
                    len(choice.by_seed),
                    len(of_test),
                )
