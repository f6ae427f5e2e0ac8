"""Was the search worth it? One sentence, by a rule that was fixed before any result (docs/decisions/0030-report.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mfas_optuna.report.data import MethodResult, StepResult, StudyResults
from mfas_optuna.report.kinds import best_of_each_kind
from mfas_optuna.report.statistics import PairedDifference, paired_difference, spread
from mfas_optuna.target import METRIC_TITLES

Outcome = Literal[
    "worth_it",
    "not_worth_it",
    "no_measurable_difference",
    "one_seed",
    "not_scored",
    "nothing_to_compare",
    "not_trained",
]
"""What a comparison came to; the last four: it cannot be said."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A method beside another, each in the step that counts of it.

    Attributes:
        ours: The method whose worth is in question.
        other: What it is compared with.
        outcome: What came of it.
        difference: The one's test scores minus the other's; None where no seed is scored of both.
    """

    ours: MethodResult
    other: MethodResult
    outcome: Outcome
    difference: PairedDifference | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer.

    Attributes:
        outcome: Of the comparison that the sentence begins with.
        sentence: For people.
        notes: What belongs beside it.
        searching: A searched method beside the best fixed one, by validation; None where there are not both.
        sampler: Our search beside the best other search, by validation; None where there are not both.
    """

    outcome: Outcome
    sentence: str
    notes: tuple[str, ...]
    searching: Comparison | None
    sampler: Comparison | None


def points(value: float, *, signed: bool = False) -> str:
    """Return a difference of scores in points, hundredths of the metric's 1."""
    return f"{100 * value:{'+' if signed else ''}.2f}"


def interval(difference: PairedDifference, *, signed: bool = False) -> str:
    """Return the interval of a difference in points; empty where there is none."""
    if difference.low is None or difference.high is None:
        return ""
    return f"[{points(difference.low, signed=signed)}, {points(difference.high, signed=signed)}]"


def compared(ours: StepResult, other: StepResult) -> PairedDifference | None:
    """Return the test scores of one training minus those of another, paired by seed; None where none is common."""
    return paired_difference(ours.test_for(other.test), other.test_for(ours.test))


def judge(results: StudyResults) -> Verdict:
    """Return whether the search was worth it."""
    ours, unknown = results.ours, "Whether the search was worth it is not known yet"
    run_baselines = f"run `mfas-optuna baselines {results.arguments}`"
    if ours is None:
        sentence = (
            f"{unknown}: its networks are not trained to the end. Run `mfas-optuna train {results.arguments}`, then "
            f"{run_baselines[4:]}."
        )
        return Verdict("not_trained", sentence, _on_data(results), None, None)
    fixed = _best(method for method in results.others if not method.is_searched)
    searched = _best(method for method in results.others if method.is_searched)
    is_searched_best = searched is not None and (fixed is None or _validation(searched) > _validation(fixed))
    champion = ours
    if searched is not None and is_searched_best and _validation(searched) > _validation(ours):
        champion = searched
    searching = None if fixed is None else _compare(champion, fixed)
    sampler = None if searched is None else _compare(ours, searched)
    if searching is None:
        clause = f"{unknown}: no method without a search is trained; {run_baselines}"
    else:
        clause = _clause("search", f"{searching.other.title}, which needs no search", searching, results)
    sentence, notes = f"{clause}.", []
    if sampler is not None:
        on_sampler = _clause("sampler", f"{sampler.other.title}, a search too", sampler, results)
        if is_searched_best:
            sentence = f"{clause}; {on_sampler[0].lower()}{on_sampler[1:]}."
        else:
            notes.append(f"{on_sampler}.")
    notes += _on_steps([comparison for comparison in (searching, sampler) if comparison is not None])
    notes += _on_test(results, ours)
    notes += _on_kinds([ours, *results.others])
    outcome: Outcome = "nothing_to_compare" if searching is None else searching.outcome
    return Verdict(outcome, sentence, (*_on_data(results), *notes), searching, sampler)


def _best(methods: Iterable[MethodResult]) -> MethodResult | None:
    return max(methods, key=_validation, default=None)


def _validation(method: MethodResult) -> float:
    mean = spread(_counted(method).validation.values())
    if mean is None:
        raise ValueError(f"Method {method.name!r} has no validation score.")
    return mean.mean


def _counted(method: MethodResult) -> StepResult:
    if method.counted is None:
        raise ValueError(f"Method {method.name!r} has no training.")
    return method.counted


def _compare(ours: MethodResult, other: MethodResult) -> Comparison:
    difference = compared(_counted(ours), _counted(other))
    outcome: Outcome = "no_measurable_difference"
    if difference is None:
        outcome = "not_scored"
    elif difference.low is None:
        outcome = "one_seed"
    elif difference.is_above:
        outcome = "worth_it"
    elif difference.is_below:
        outcome = "not_worth_it"
    return Comparison(ours, other, outcome, difference)


# For people.


def _clause(what: str, other: str, comparison: Comparison, results: StudyResults) -> str:
    """Return what a comparison says, without a full stop.

    Args:
        what: Whose worth is in question: the search or the sampler.
        other: What it is compared with, and what kind that is.
    """
    subject, ours, found = f"The {what}", comparison.ours.title, comparison.difference
    scores = f"points of test {METRIC_TITLES[results.metric]}"
    if found is None:
        return (
            f"Whether the {what} was worth it is not known yet: of {ours} and {comparison.other.title} no common seed "
            f"is scored on the test split; run `mfas-optuna baselines {results.arguments}`"
        )
    n_seeds = len(found.seeds)
    chosen = f"(paired over {n_seeds} seeds; {comparison.other.title} is the best of its kind by validation)"
    match comparison.outcome:
        case "worth_it":
            return (
                f"{subject} was worth it: {ours} is better by {points(found.mean)} {interval(found)} {scores} than "
                f"{other} {chosen}"
            )
        case "not_worth_it":
            found = found.reversed()
            return (
                f"{subject} was not worth it: {other}, is better by {points(found.mean)} {interval(found)} {scores} "
                f"than {ours} {chosen}"
            )
        case "no_measurable_difference":
            return (
                f"{subject} makes no measurable difference: {ours} minus {other}, is "
                f"{points(found.mean, signed=True)} {interval(found, signed=True)} {scores} {chosen}"
            )
    return (
        f"Whether the {what} was worth it is not shown: {ours} minus {other}, is "
        f"{points(found.mean, signed=True)} {scores} with the one seed that both have, and one seed is not a proof"
    )


def _on_data(results: StudyResults) -> tuple[str, ...]:
    if not results.stand_in:
        return ()
    return ("The data are a stand-in: this says nothing about real data.",)


def _on_steps(comparisons: Sequence[Comparison]) -> list[str]:
    """Return where a method counts unfrozen beside one that was never trained so."""
    notes = []
    for comparison in comparisons:
        pair = (comparison.ours, comparison.other)
        for one, another in (pair, pair[::-1]):
            if _counted(one).step == "unfrozen" and "unfrozen" not in another.steps:
                notes.append(
                    f"{one.title} counts unfrozen, {another.title} was trained on frozen backbones only: part of the "
                    "difference may be the second step's."
                )
    return notes


def _on_kinds(methods: Sequence[MethodResult]) -> list[str]:
    """Return which kind of fusion the data wanted, by validation, and how the others did on test."""
    best = best_of_each_kind((_counted(method).head, _validation(method)) for method in methods)
    if len(best) < 2:
        return []
    (wanted, first), *others = best.items()
    winner = methods[first]
    compared_with = []
    for kind, position in others:
        difference = compared(_counted(winner), _counted(methods[position]))
        by = "not scored on test" if difference is None else f"{points(difference.mean, signed=True)}"
        within = "" if difference is None or difference.low is None else f" {interval(difference, signed=True)}"
        compared_with.append(f"{kind} ({methods[position].title}) {by}{within}")
    return [
        f"The kind of fusion that the data wanted, by validation: {wanted} ({winner.title}, "
        f"{_counted(winner).label}). Its best method minus that of each other kind, points on test: "
        f"{'; '.join(compared_with)}."
    ]


def _on_test(results: StudyResults, ours: MethodResult) -> list[str]:
    """Return which methods are above ours on test, and which were not scored there; nothing is chosen by it."""
    clear: list[tuple[float, str]] = []
    unclear: list[tuple[float, str]] = []
    unscored = []
    for method in results.others:
        found = compared(_counted(ours), _counted(method))
        if found is None:
            unscored.append(method.title)
        elif found.mean < 0.0:
            text = f"{method.title} by {points(-found.mean)}"
            if found.is_below:
                clear.append((found.mean, f"{text} {interval(found.reversed())}"))
            else:
                unclear.append((found.mean, text))
    notes = []
    for above, how in ((clear, ""), (unclear, ", but not measurably")):
        if above:
            notes.append(f"Above {ours.title} on test{how}: {'; '.join(text for _, text in sorted(above))} points.")
    if not notes and len(unscored) < len(results.others):
        notes.append(f"On test, no method that was scored is above {ours.title}.")
    if unscored:
        notes.append(f"Without a test score on a seed of {ours.title}: {'; '.join(unscored)}.")
    return notes
