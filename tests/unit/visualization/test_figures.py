"""The plotly pictures: what they show, and what they say where there is nothing to show."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.trial import create_trial

from mfas_optuna import finals, visualization
from mfas_optuna import trials as records
from mfas_optuna.errors import PictureError
from mfas_optuna.finals import FinalResult, FinalTraining
from mfas_optuna.search.health import rank_correlation
from mfas_optuna.visualization import (
    plot_choices,
    plot_lineage,
    plot_methods,
    plot_parameters,
    plot_search,
    plot_surrogate,
    plot_timings,
)
from mfas_optuna.visualization.theme import COLOURS, DARK, LIGHT, MAX_POINTS, QUIET, label, plain, thinned

from .studies import HOSTILE, failed, randomly_searched, searched

Plot = Callable[[optuna.Study], Any]
OF_SEARCHES: tuple[Plot, ...] = (plot_search, plot_surrogate, plot_choices, plot_parameters, plot_lineage)
ALL: tuple[Plot, ...] = (*OF_SEARCHES, plot_methods, plot_timings)


def named(figure: Any) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data}


def missing(figure: Any) -> str:
    """Return what a figure says is missing; it must be seen too."""
    said = str(figure.layout.meta["missing"])
    assert figure.layout.annotations[0].text.replace("<br>", " ") == said
    return said


def test_search_by_step(search: optuna.Study) -> None:
    traces = named(plot_search(search))
    proposals = {trial.number: records.read_proposal(trial.system_attrs) for trial in search.trials}
    by_step: dict[tuple[int, int], list[float]] = {}
    for trial in search.trials:
        proposal = proposals[trial.number]
        assert proposal is not None
        by_step.setdefault((proposal.iteration, proposal.depth), []).append(trial.values[0])
    means = [statistics.fmean(scores) for _, scores in sorted(by_step.items())]
    assert list(traces["mean of step"].y) == pytest.approx(means)
    assert list(traces["mean of step"].x) == list(range(1, len(means) + 1))
    assert len(traces["network"].x) == len(search.trials)
    assert traces["best so far"].y[-1] == search.best_value
    assert all(abs(x - round(x)) <= 0.31 for x in traces["network"].x)
    temperatures = [
        trial.user_attrs[records.TEMPERATURE] for trial in search.trials if "temperature" in trial.user_attrs
    ]
    assert set(traces["temperature"].y) == set(temperatures)


def test_scores_of_our_own_studies_are_errors() -> None:
    study = searched(n_iterations=1)
    study.set_user_attr("mfas:spec", json.dumps({"objective": {"metric": "f1_macro"}}))
    figure = plot_search(study)
    assert named(figure)["best so far"].y[-1] == pytest.approx(1.0 - study.best_value)
    assert figure.layout.title.text == "Error by step"
    assert figure.layout.yaxis.title.text == "1 - validation macro F1"


def test_search_that_minimises() -> None:
    study = searched(n_iterations=1, direction="minimize")
    assert named(plot_search(study))["best so far"].y[-1] == study.best_value
    front = named(plot_parameters(study))["Pareto front"]
    assert min(front.y) == study.best_value


def test_search_without_steps_is_shown_by_trial() -> None:
    study = randomly_searched(30)
    figure = plot_search(study)
    assert "no steps" in figure.layout.meta["note"]
    best = named(figure)["best so far"]
    assert best.y[-1] == study.best_value
    assert best.x[-1] == 29
    assert "no surrogate" in missing(plot_surrogate(study))
    assert "records weights" in missing(plot_lineage(study))
    assert "records the parameters" in missing(plot_parameters(study))


def test_surrogate(search: optuna.Study) -> None:
    figure = plot_surrogate(search)
    points = [trace for trace in figure.data if str(trace.name).startswith("depth")]
    shown = {(x, y) for trace in points for x, y in zip(trace.x, trace.y, strict=True)}
    expected = {
        (trial.user_attrs[records.PREDICTED_SCORE], trial.values[0])
        for trial in search.trials
        if records.PREDICTED_SCORE in trial.user_attrs
    }
    assert shown == expected
    correlations, effective = (trace for trace in figure.data if trace.type == "bar")
    last = max(trial.number for trial in search.trials)
    step = records.read_proposal(search.trials[last].system_attrs)
    assert step is not None
    pairs = [
        (trial.user_attrs[records.PREDICTED_SCORE], trial.values[0])
        for trial in search.trials
        if (found := records.read_proposal(trial.system_attrs)) is not None
        and (found.iteration, found.depth) == (step.iteration, step.depth)
    ]
    assert correlations.y[-1] == pytest.approx(rank_correlation(pairs))
    assert all(0 < value <= 1 for value in effective.y)


def test_choices(search: optuna.Study) -> None:
    best, everything = plot_choices(search).data
    kinds, names = best.y
    assert list(kinds) == ["audio"] * 2 + ["image"] * 3 + ["activation"] * 2
    assert list(names) == ["conv1", "conv2", "conv1", "conv2", "fc", "relu", "tanh"]
    assert best.x[4] == 1.0  # The best networks all use the feature that the score prefers.
    using = {
        str(trial.params)
        for trial in search.trials
        if "fc" in [value for name, value in trial.params.items() if name.endswith("image")]
    }
    assert everything.x[4] == pytest.approx(len(using) / len({str(trial.params) for trial in search.trials}))
    assert "layer 1: " in best.customdata[4][1]


def test_front_of_parameters(search: optuna.Study) -> None:
    front = named(plot_parameters(search))["Pareto front"]
    assert list(front.x) == sorted(front.x)
    assert list(front.y) == sorted(front.y)
    for trial in search.trials:
        size, score = trial.user_attrs[records.N_PARAMETERS], trial.values[0]
        assert any(x <= size and y >= score for x, y in zip(front.x, front.y, strict=True))


def test_lineage(search: optuna.Study) -> None:
    figure = plot_lineage(search, n_best=1)
    traces = named(figure)
    best = search.best_trial
    assert list(traces["best 1"].y) == [best.value]
    # Each trial's first layer starts from the trial before, so the chain leads to the first trial.
    assert len(traces["ancestor"].x) == best.number
    assert {"W1"} == {name for name in traces if name.startswith("W")}
    assert traces["W1"].y[:2] == (search.trials[best.number - 1].value, best.value)


def test_long_lineage_is_cut(search: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mfas_optuna.visualization.lineage.MAX_EDGES", 3)
    assert "The nearest 3 of them" in plot_lineage(search).layout.meta["note"]


def stored_final(study: optuna.Study, storage: Any, tests: dict[str, tuple[float | None, ...]]) -> optuna.Study:
    final = optuna.create_study(storage=storage, study_name=finals.final_name(study.study_name), direction="maximize")
    finals.write_settings(final, {"tuning_seeds": [0]})
    for method, scores in tests.items():
        for seed, score in enumerate(scores):
            result = FinalResult(0.8 + 0.01 * seed, (0.8,), 1, 10, None, 60.0, "ab", "2.9", "cpu")
            training = FinalTraining(method, {"kind": "mlp"}, "frozen", {}, seed)
            finals.add(final, training, result, f"title {method}")
            if score is not None:
                number = len(final.trials) - 1
                finals.write_test_read(final, purpose="comparison", score=score, what=method, trial=number)
    return final


def test_methods_and_times() -> None:
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    assert "`mfas-optuna train`" in missing(plot_methods(study))
    assert "No time" in missing(plot_timings(study))
    records.add_timing(study, "search", 90.0)
    final = stored_final(study, storage, {"mfas": (0.9, 0.92), "late": (0.8, 0.7), "gmu": (None,)})
    figure = plot_methods(study)
    assert figure == plot_methods(final)
    traces = named(figure)
    assert list(traces["test"].x) == pytest.approx([0.75, 0.91])
    assert list(traces["test"].y) == ["late", "<b>mfas</b>"]
    assert list(traces["test"].error_x.array) == pytest.approx(
        [statistics.stdev([0.8, 0.7]), statistics.stdev([0.9, 0.92])]
    )
    assert list(traces["validation"].y) == ["late", "gmu", "<b>mfas</b>"]
    (bars,) = plot_timings(study).data
    assert list(bars.text) == ["0:01:30", "0:05:00"]
    assert list(bars.y) == ["search", "final training, frozen"]


@pytest.mark.parametrize("plot", ALL)
def test_studies_with_nothing_to_show_say_so(plot: Plot) -> None:
    empty = missing(plot(optuna.create_study()))
    assert empty.endswith(".")
    if plot in OF_SEARCHES:
        assert empty == "No trial is complete yet."
        assert missing(plot(failed())) == "No trial is complete; 3 failed."


@pytest.mark.parametrize("plot", ALL)
def test_studies_of_one_trial_are_drawn(plot: Plot) -> None:
    for study in (randomly_searched(1), searched(n_trials=1)):
        figure = plot(study)
        assert figure.layout.height >= 160
        json.loads(figure.to_json())


@pytest.mark.parametrize("plot", OF_SEARCHES)
def test_several_objectives_are_refused(plot: Plot) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    with pytest.raises(PictureError, match=r"pictures need one objective, found 2. Give a study of one"):
        plot(study)


def test_names_are_inert() -> None:
    study = optuna.create_study(direction="maximize")
    distributions = {
        "depth": optuna.distributions.IntDistribution(1, 1),
        f"layer1.{HOSTILE}": optuna.distributions.CategoricalDistribution([HOSTILE, "b"]),
        "layer1.activation": optuna.distributions.CategoricalDistribution([HOSTILE]),
    }
    parameters = {"depth": 1, f"layer1.{HOSTILE}": HOSTILE, "layer1.activation": HOSTILE}
    shown = {records.ARCHITECTURE: HOSTILE, records.N_PARAMETERS: 1}
    for score in (0.1, 0.2):
        study.add_trial(create_trial(value=score, params=parameters, distributions=distributions, user_attrs=shown))
    records.add_timing(study, HOSTILE, 1.0)
    drawn = [plot(study).to_json() for plot in (plot_search, plot_choices, plot_parameters, plot_timings)]
    assert all("&lt;img" in text for text in drawn)
    decoded = [json.dumps(json.loads(text)) for text in drawn]
    assert not any("<img" in text or "<script" in text or "</script" in text for text in decoded)


def test_many_points_are_thinned_and_the_figure_says_so(search: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = named(plot_search(search))
    monkeypatch.setattr("mfas_optuna.visualization.theme.MAX_POINTS", 10)
    figure = plot_search(search)
    traces = named(figure)
    assert len(traces["network"].x) == 10
    assert traces["mean of step"].y == whole["mean of step"].y
    assert f"10 of {len(search.trials)} points are drawn" in figure.layout.meta["note"]
    assert thinned(range(5), 10) == range(5)
    assert list(thinned(range(100), 4)) == [0, 25, 50, 75]
    assert len(thinned(range(MAX_POINTS + 1))) <= MAX_POINTS


def luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", [*COLOURS, QUIET])
@pytest.mark.parametrize("background", [LIGHT, DARK])
def test_colours_are_seen_on_both_backgrounds(colour: str, background: str) -> None:
    low, high = sorted((luminance(colour), luminance(background)))
    assert (high + 0.05) / (low + 0.05) >= 3


def test_labels() -> None:
    assert plain("a<b>&\n\x1b") == "a&lt;b&gt;&amp;  "
    assert label("one two three", 7) == "one two<br>three"
    assert label("x" * 40, 10, 2).count("<br>") == 1
    assert label("") == ""


def test_every_public_name_is_documented() -> None:
    for name in visualization.__all__:
        assert getattr(visualization, name).__doc__
