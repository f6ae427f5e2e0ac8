"""Every branch of the verdict."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mfas_optuna.report import Verdict, judge

from .helpers import Results

OURS = (0.90, 0.91, 0.92)


@pytest.fixture
def results() -> Results:
    return Results()


def judged(results: Results) -> Verdict:
    return judge(results.made)


def test_without_final_training_it_says_what_to_run(results: Results) -> None:
    verdict = judged(results)
    assert verdict.outcome == "not_trained"
    assert "`mfas-optuna train --study digits`, then `mfas-optuna baselines --study digits`" in verdict.sentence
    results.train("late", "late fusion", OURS)
    assert judged(results).outcome == "not_trained"


def test_without_anything_beside_it(results: Results) -> None:
    results.train("mfas", "MFAS", OURS)
    verdict = judged(results)
    assert verdict.outcome == "nothing_to_compare"
    assert "run `mfas-optuna baselines --study digits`" in verdict.sentence


def test_above_a_fixed_method(results: Results) -> None:
    results.train("mfas", "MFAS", OURS)
    results.train("late", "late fusion", (0.89, 0.901, 0.909))
    verdict = judged(results)
    assert verdict.outcome == "worth_it"
    assert verdict.sentence == (
        "The search was worth it: MFAS is better by 1.00 [0.75, 1.25] points of test accuracy than late fusion, which "
        "needs no search (paired over 3 seeds; late fusion is the best of its kind by validation)."
    )
    assert verdict.notes == ("On test, no method that was scored is above MFAS.",)
    assert verdict.sampler is None


def test_below_a_fixed_method(results: Results) -> None:
    results.train("mfas", "MFAS", OURS)
    results.train("late", "late fusion", (0.91, 0.921, 0.929))
    verdict = judged(results)
    assert verdict.outcome == "not_worth_it"
    assert verdict.sentence.startswith(
        "The search was not worth it: late fusion, which needs no search, is better by 1.00 [0.75, 1.25] points of "
        "test accuracy than MFAS ("
    )
    assert verdict.notes == ("Above MFAS on test: late fusion by 1.00 [0.75, 1.25] points.",)


def test_no_measurable_difference(results: Results) -> None:
    results.train("mfas", "MFAS", OURS)
    results.train("late", "late fusion", (0.89, 0.92, 0.91))
    verdict = judged(results)
    assert verdict.outcome == "no_measurable_difference"
    assert verdict.sentence.startswith(
        "The search makes no measurable difference: MFAS minus late fusion, which needs no search, is +0.33 [-2.54, "
        "+3.20] points of test accuracy ("
    )


def test_an_interval_that_ends_at_zero_is_no_difference(results: Results) -> None:
    results.train("mfas", "MFAS", (0.9, 0.9))
    results.train("late", "late fusion", (0.9, 0.9))
    assert judged(results).outcome == "no_measurable_difference"


def test_one_common_seed_is_no_proof(results: Results) -> None:
    results.train("mfas", "MFAS", OURS)
    results.train("late", "late fusion", (0.1,))
    verdict = judged(results)
    assert verdict.outcome == "one_seed"
    assert "is +80.00 points" in verdict.sentence
    assert verdict.sentence.endswith("one seed is not a proof.")


@pytest.mark.parametrize(("ours", "late"), [((None, None), (0.8, 0.8)), ((0.8, 0.8), (None, None))])
def test_what_was_not_scored(results: Results, ours: tuple[float, ...], late: tuple[float, ...]) -> None:
    results.train("mfas", "MFAS", ours)
    results.train("late", "late fusion", late)
    verdict = judged(results)
    assert verdict.outcome == "not_scored"
    assert "of MFAS and late fusion no common seed is scored on the test split" in verdict.sentence
    assert verdict.notes == ("Without a test score on a seed of MFAS: late fusion.",)


def test_validation_chooses_what_it_is_compared_with_and_test_only_adds_a_note(results: Results) -> None:
    results.train("mfas", "MFAS", OURS)
    results.train("gmu", "gated unit", (0.80, 0.81, 0.82), validation=0.9)
    results.train("late", "late fusion", (0.93, 0.94, 0.95), validation=0.7)
    verdict = judged(results)
    assert verdict.outcome == "worth_it"
    assert verdict.searching is not None
    assert verdict.searching.other.name == "gmu"
    assert verdict.notes == ("Above MFAS on test: late fusion by 3.00 [3.00, 3.00] points.",)


def test_what_is_above_on_test_stands_there_by_size_and_the_measurable_first(results: Results) -> None:
    results.train("mfas", "MFAS", OURS)
    results.train("a", "A", (0.80, 0.81, 0.82))
    for name, scores in (("B", (0.91, 0.90, 0.95)), ("C", (0.92, 0.90, 0.97)), ("D", (0.93, 0.94, 0.95))):
        results.train(name.lower(), name, scores, validation=0.7)
    results.train("e", "E", (None,), validation=0.7)
    assert judged(results).notes == (
        "Above MFAS on test: D by 3.00 [3.00, 3.00] points.",
        "Above MFAS on test, but not measurably: C by 2.00; B by 1.00 points.",
        "Without a test score on a seed of MFAS: E.",
    )


def test_another_search_that_is_best_of_the_others(results: Results) -> None:
    """Searching is judged against the best fixed method, our sampler against the other search."""
    results.train("mfas", "MFAS", OURS, validation=0.95)
    results.train("random", "random search", (0.89, 0.92, 0.91), validation=0.9)
    results.train("late", "late fusion", (0.80, 0.81, 0.82), validation=0.7)
    verdict = judged(results)
    assert verdict.outcome == "worth_it"
    assert verdict.sentence.startswith("The search was worth it: MFAS is better by 10.00 [10.00, 10.00] points")
    assert "; the sampler makes no measurable difference: MFAS minus random search, a search too, is +0.33" in (
        verdict.sentence
    )
    assert verdict.searching is not None
    assert verdict.sampler is not None
    assert (verdict.searching.ours.name, verdict.sampler.outcome) == ("mfas", "no_measurable_difference")


@pytest.mark.parametrize(
    ("tpe", "outcome", "words"),
    [
        ((0.95, 0.96, 0.97), "not_worth_it", "the sampler was not worth it: TPE, a search too, is better by 5.00"),
        ((0.85, 0.86, 0.87), "worth_it", "the sampler was worth it: MFAS is better by 5.00"),
        ((0.85,), "one_seed", "whether the sampler was worth it is not shown"),
        ((None,), "not_scored", "whether the sampler was worth it is not known yet"),
    ],
)
def test_another_search_that_validation_prefers_speaks_for_searching(
    results: Results, tpe: tuple[float, ...], outcome: str, words: str
) -> None:
    results.train("mfas", "MFAS", OURS, validation=0.8)
    results.train("tpe", "TPE", tpe, validation=0.9)
    results.train("late", "late fusion", (0.80, 0.81, 0.82), validation=0.7)
    verdict = judged(results)
    assert verdict.searching is not None
    assert verdict.sampler is not None
    assert verdict.searching.ours.name == "tpe"
    assert verdict.sampler.outcome == outcome
    assert words in verdict.sentence


def test_another_search_below_a_fixed_method_is_a_note(results: Results) -> None:
    results.train("mfas", "MFAS", OURS)
    results.train("random", "random search", (0.80, 0.81, 0.82), validation=0.6)
    results.train("late", "late fusion", (0.93, 0.94, 0.95), validation=0.7)
    verdict = judged(results)
    assert verdict.outcome == "not_worth_it"
    assert "sampler" not in verdict.sentence
    assert verdict.notes[0].startswith("The sampler was worth it: MFAS is better by 10.00")


def test_searches_alone_say_nothing_of_searching(results: Results) -> None:
    results.train("mfas", "MFAS", OURS)
    results.train("random", "random search", (0.80, 0.81, 0.82))
    verdict = judged(results)
    assert verdict.outcome == "nothing_to_compare"
    assert "no method without a search is trained; run `mfas-optuna baselines --study digits`" in verdict.sentence
    assert "; the sampler was worth it: MFAS is better by 10.00" in verdict.sentence


def test_what_learns_nothing_is_paired_with_every_seed(results: Results) -> None:
    results.train("mfas", "MFAS", OURS)
    results.train("late", "late fusion", (0.80,), n_parameters=0)
    verdict = judged(results)
    assert verdict.outcome == "worth_it"
    assert verdict.searching is not None
    assert verdict.searching.difference is not None
    assert verdict.searching.difference.seeds == (0, 1, 2)
    assert verdict.searching.difference.mean == pytest.approx(0.11)


def test_the_step_with_the_better_validation_counts(results: Results) -> None:
    results.train("mfas", "MFAS", (0.5, 0.5, 0.5), validation=0.8)
    results.train("mfas", "MFAS", OURS, validation=0.9, step="unfrozen")
    results.train("late", "late fusion", (0.8, 0.8, 0.8), validation=0.8)
    results.train("late", "late fusion", (0.99, 0.99, 0.99), validation=0.7, step="unfrozen")
    verdict = judged(results)
    assert verdict.searching is not None
    assert verdict.searching.difference is not None
    assert verdict.searching.difference.mean == pytest.approx(0.11)
    assert not any("unfrozen" in note for note in verdict.notes)


def test_steps_are_compared_over_the_seeds_of_both(results: Results) -> None:
    """The first step's other seeds were lucky on validation; of the seeds of both, the second step is better."""
    results.train("mfas", "MFAS", OURS, validation=(0.5, 0.9, 0.9))
    results.train("mfas", "MFAS", (0.6,), validation=(0.6,), step="unfrozen")
    counted = results.made.methods[0].counted
    assert counted is not None
    assert counted.step == "unfrozen"
    results.train("mfas", "MFAS", (0.6,), validation=(0.5,), step="unfrozen")
    equal = results.made.methods[0].counted
    assert equal is not None
    assert equal.step == "frozen"


def test_a_second_step_that_only_one_had_is_named(results: Results) -> None:
    results.train("mfas", "MFAS", (0.5, 0.5), validation=0.8)
    results.train("mfas", "MFAS", OURS, validation=0.9, step="unfrozen")
    results.train("late", "late fusion", (0.8, 0.8, 0.8))
    assert judged(results).notes[0].startswith("MFAS counts unfrozen, late fusion was trained on frozen backbones only")


def test_a_stand_in_is_named_first(results: Results) -> None:
    results.made = replace(results.made, stand_in="stand-in for digits")
    results.train("mfas", "MFAS", OURS)
    results.train("late", "late fusion", (0.8, 0.8, 0.8))
    assert judged(results).notes[0] == "The data are a stand-in: this says nothing about real data."
