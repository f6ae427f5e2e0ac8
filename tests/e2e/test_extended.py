"""A search in the extended space from the command line: from the simple ways to fuse to an exported network."""

from __future__ import annotations

import json
import re
import signal

import optuna
import pytest

from .conftest import TINY, Cli

EXTENDED = (
    TINY.replace(
        '[space]\nactivations = ["relu", "sigmoid"]', '[space]\nkind = "extended"\nactivations = ["relu", "tanh"]'
    )
    .replace("width = 4\n", "n_parameters = 300\n")
    .replace("n_iterations = 2\nsamples_per_step = 4", "n_iterations = 2\nsamples_per_step = 4\nn_trials = 22")
    + "min_steps = 20\n[final]\nepochs = 2\nrecipes = [{ learning_rate = 1e-2 }]\n"
)


@pytest.fixture
def extended(cli: Cli) -> Cli:
    (cli.folder / "studies" / "tiny.toml").write_text(EXTENDED, encoding="utf-8")
    return cli


def test_from_the_simple_ways_to_fuse_to_an_exported_network(extended: Cli) -> None:
    shown = extended.run("show", "--study", "tiny")
    assert shown.returncode == 0, shown.stderr
    assert re.search(
        r"4 \(audio\) x 4 \(image\) x 2 activations x 5 operators, \d+ different first layers", shown.stdout
    )

    searched = extended.run("search", "--study", "tiny", "--json")
    assert searched.returncode == 0, searched.stderr
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{extended.home / 'mfas.db'}")
    notations = [trial.user_attrs["architecture"] for trial in study.trials]
    assert notations[:3] == [
        "concatenation(all,all;relu)",
        "concatenation(all,all;relu) > concatenation(none,none;relu)",
        "concatenation(conv2,conv2;relu)",
    ]
    assert len(set(notations)) == len(notations) == 22
    assert {trial.state.name for trial in study.trials} == {"COMPLETE"}
    assert max(trial.user_attrs["depth"] for trial in study.trials if "depth" in trial.user_attrs) == 2
    best = json.loads(searched.stdout)["best"]
    status = extended.run("status", "--study", "tiny")
    assert best[0]["architecture"] in status.stdout  # Not taken for markup.
    assert best[0]["score"] == max(trial.value for trial in study.trials if trial.value is not None)

    trained = extended.json("train", "--study", "tiny", "--seeds", "2", "--top", "2", "--no-unfrozen")
    assert trained["methods"][0]["n_parameters"] <= 300  # The study's budget is that of final training too.
    compared = extended.run(
        "baselines", "--study", "tiny", "--seeds", "2", "--no-unfrozen",
        "--method", "hadamard", "--method", "concat_all", "--method", "towers_auxiliary",
    )  # fmt: skip
    assert compared.returncode == 0, compared.stderr
    reported = extended.run("report", "--study", "tiny")
    assert reported.returncode == 0, reported.stderr
    said = " ".join(reported.stdout.split())
    assert "The kind of fusion that the data wanted, by validation: " in said
    assert "multiplication" in said
    page = extended.run("report", "--study", "tiny", "-o", "page")
    assert page.returncode == 0, page.stderr
    exported = extended.run("export", "--study", "tiny", "-o", "out")
    assert exported.returncode == 0, exported.stderr


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(extended: Cli) -> None:
    def networks(name: str) -> list[tuple[str, float | None]]:
        study = optuna.load_study(study_name=name, storage=f"sqlite:///{extended.home / 'mfas.db'}")
        return [(trial.user_attrs["architecture"], trial.value) for trial in study.trials]

    whole = extended.run("search", "--study", "tiny", "--name", "whole")
    assert whole.returncode == 0, whole.stderr
    first = extended.run("search", "--study", "tiny", "--name", "parts", "--trials", "9")
    assert first.returncode == 0, first.stderr
    rest = extended.run("search", "--study", "tiny", "--name", "parts")
    assert rest.returncode == 0, rest.stderr
    assert networks("parts") == networks("whole")


def test_a_search_that_was_interrupted_among_its_first_networks_ends_as_it_would_have(extended: Cli) -> None:
    def found(name: str) -> dict[str, float | None]:
        study = optuna.load_study(study_name=name, storage=f"sqlite:///{extended.home / 'mfas.db'}")
        complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
        return {trial.user_attrs["architecture"]: trial.value for trial in complete}

    code, _ = extended.stop_at(
        ["search", "--study", "tiny", "--quiet"],
        signal.SIGKILL,
        lambda database: database.execute("select count(*) from trials where state = 'COMPLETE'").fetchone()[0] >= 2,
    )
    assert code == -signal.SIGKILL
    assert 2 <= len(found("tiny")) < 14
    extended.ok("search", "--study", "tiny", "--quiet")
    extended.ok("search", "--study", "tiny", "--name", "whole", "--quiet")
    assert found("tiny") == found("whole")


def test_networks_that_cannot_meet_the_budget_are_pruned(extended: Cli) -> None:
    extended.edit("n_parameters = 300", "n_parameters = 50")
    extended.ok("search", "--study", "tiny", "--quiet")
    states = [trial["state"] for trial in extended.trials()]
    assert set(states) == {"COMPLETE", "PRUNED"}
    assert len(states) == 22
    pruned = [trial["architecture"] for trial in extended.trials() if trial["state"] == "PRUNED"]
    assert len(pruned) < 22
    assert "finished" in extended.ok("status", "--study", "tiny")


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_samplers_of_optuna_begin_with_the_same_networks(extended: Cli, sampler: str) -> None:
    searched = extended.run("search", "--study", "tiny", "--sampler", sampler)
    assert searched.returncode == 0, searched.stderr
    study = optuna.load_study(study_name=f"tiny-{sampler}", storage=f"sqlite:///{extended.home / 'mfas.db'}")
    assert study.trials[0].user_attrs["architecture"] == "concatenation(all,all;relu)"
    assert sum(trial.state.name == "COMPLETE" for trial in study.trials) == 22


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("n_parameters = 300", "n_parameters = 10", "fusion.n_parameters: no network has so few weights and biases"),
        ("n_parameters = 300", "n_parameters = 300\nwidth = 3", "expected width or n_parameters, found both"),
        ("samples_per_step = 4", 'samples_per_step = 4\nmode = "paper"', "search.mode: expected calibrated"),
        ('kind = "extended"', 'kind = "wide"', "space.kind"),
        ('"conv2"]', '"best2"]', "names of sets"),
    ],
)
def test_settings_that_cannot_be(extended: Cli, before: str, after: str, message: str) -> None:
    file = extended.folder / "studies" / "tiny.toml"
    text = file.read_text(encoding="utf-8")
    if after == '"best2"]':
        text = text.replace('["conv1", "conv2"]', '["conv1", { name = "best2", module = "conv2" }]')
    file.write_text(text.replace(before, after), encoding="utf-8")
    refused = extended.run("search", "--study", "tiny")
    assert refused.returncode == 2
    assert message in " ".join(refused.stderr.split())
