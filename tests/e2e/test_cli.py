"""What a user types, right and wrong: output, exit codes, and messages without tracebacks."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import numpy as np
import pytest

from .conftest import COMMAND, TINY, Cli

SEARCH = ["search", "--study", "tiny"]


def refused(cli: Cli, *arguments: str, code: int = 2, **environment: str) -> str:
    """Run a command that must fail with one clear message, and return the message."""
    result = cli.run(*arguments, **environment)
    assert result.returncode == code, (result.returncode, result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    assert result.stderr.strip()
    return result.stderr


# Right.


def test_help_imports_neither_torch_nor_optuna(cli: Cli) -> None:
    program = "import sys; from mfas_optuna.cli import app; sys.exit('torch' in sys.modules or 'optuna' in sys.modules)"
    assert subprocess.run([COMMAND.parent / "python", "-c", program], check=False).returncode == 0
    assert "search" in cli.ok("--help")


def test_options_are_frozen(cli: Cli) -> None:
    text = cli.ok("search", "--help", TERM="dumb", NO_COLOR="1")
    for option in (
        "--study", "--name", "--storage", "--sampler", "--mode", "--trials", "--seed", "--device", "--joint",
        "--weights", "--data-root", "--workers", "--json", "--dry-run", "--quiet",
    ):  # fmt: skip
        assert option in text


def test_search_prints_the_best_networks(cli: Cli) -> None:
    result = cli.run(*SEARCH)
    assert result.returncode == 0, result.stderr
    assert "Best networks" in result.stdout
    assert "[(" in result.stdout
    assert "parameters" in result.stdout
    lines = [line for line in result.stderr.splitlines() if "trials/min" in line]
    assert len(lines) == 16
    assert all(part in lines[-1] for part in ("iteration 2", "depth 2", "T ", "best ", "left 0:00"))


def test_networks_are_trained_together_or_one_by_one_to_the_same_scores(cli: Cli) -> None:
    """To rounding, which may tip one of the 100 rows; then the surrogate may propose otherwise: so the first step."""
    cli.ok(*SEARCH, "--quiet", "--name", "together", "--trials", "8")
    cli.ok(*SEARCH, "--quiet", "--name", "alone", "--trials", "8", "--joint", "1")
    cli.ok(*SEARCH, "--quiet", "--name", "pairs", "--trials", "8", MFAS_JOINT="2")
    together, alone, pairs = (cli.trials(name) for name in ("together", "alone", "pairs"))
    assert [trial["architecture"] for trial in together] == [trial["architecture"] for trial in alone]
    assert [trial["score"] for trial in together] == pytest.approx([trial["score"] for trial in alone], abs=0.011)
    sizes = [{trial["attributes"]["joint_size"] for trial in trials} for trials in (together, alone, pairs)]
    assert max(sizes[0]) > 2
    assert sizes[1] == {1}
    assert max(sizes[2]) == 2


def test_a_pruned_trial_leaves_its_group(cli: Cli) -> None:
    """Successive halving prunes most of what it compares at its first rung."""
    cli.edit("samples_per_step = 4", 'samples_per_step = 4\npruner = "successive_halving"')
    cli.ok(*SEARCH, "--quiet")
    trials = cli.trials()
    pruned = [trial for trial in trials if trial["state"] == "PRUNED"]
    complete = [trial for trial in trials if trial["state"] == "COMPLETE"]
    assert pruned
    assert complete
    assert all(trial["weights"] is None and len(trial["curve"]) == 1 for trial in pruned)
    assert all(len(trial["curve"]) == 2 for trial in complete)


def test_tpe_learns_from_each_trial_and_random_need_not(cli: Cli) -> None:
    for sampler, largest in (("tpe", 1), ("random", 4)):
        cli.ok(*SEARCH, "--quiet", "--sampler", sampler, "--trials", "4", "--name", sampler)
        trials = cli.trials(sampler)
        assert len(trials) == 4
        assert max(trial["attributes"]["joint_size"] for trial in trials) <= largest


@pytest.mark.parametrize("joint", ["0", "-1", "many", "2.5"])
def test_how_many_at_once_must_be_a_number(cli: Cli, joint: str) -> None:
    assert f"--joint: expected auto or a number from 1, found {joint!r}" in refused(cli, *SEARCH, f"--joint={joint}")
    assert "MFAS_JOINT: expected auto" in refused(cli, *SEARCH, MFAS_JOINT=joint)


def test_json_is_all_there_is_on_standard_output(cli: Cli) -> None:
    result = cli.run(*SEARCH, "--json")
    outcome = json.loads(result.stdout)
    assert outcome["version"] == 1
    assert outcome["n_finished"] == outcome["n_new"] == 16
    assert len(outcome["best"]) == 5
    assert set(outcome["best"][0]) == {"architecture", "score", "n_parameters", "trial", "parameters"}
    scores = [network["score"] for network in outcome["best"]]
    assert scores == sorted(scores, reverse=True)
    assert set(outcome["backbones"]) == {"audio", "image"}


def test_every_trial_records_what_the_dashboard_shows(cli: Cli) -> None:
    cli.ok(*SEARCH, "--quiet")
    for trial in cli.trials():
        attributes = trial["attributes"]
        assert {"architecture", "iteration", "slot", "n_parameters", "best_epoch", "training_s", "weights"} <= set(
            attributes
        )
        assert ("temperature" in attributes) == ("predicted_score" in attributes) == (trial["params"]["depth"] > 1)
        assert list(trial["curve"]) == [1, 2]
        lineage = json.loads(attributes["weights"])
        assert len(lineage) == trial["params"]["depth"]
        for layer in lineage:
            digest = layer["published"]
            assert (cli.home / "weights" / digest[:2] / f"{digest}.safetensors").is_file()


@pytest.mark.parametrize("sharing", ["sequential", "snapshot"])
def test_weights_are_those_of_the_latest_complete_trial_of_the_same_key(cli: Cli, sharing: str) -> None:
    """Of all trials, or under `snapshot` of earlier steps."""
    cli.edit("width = 4", f'width = 4\nsharing = "{sharing}"')
    cli.ok(*SEARCH, "--quiet")
    latest: dict[str, str] = {}  # What the next trial may start from.
    of_step: dict[str, str] = {}
    step, n_warm = None, 0
    for trial in cli.trials():
        attributes = trial["attributes"]
        if sharing == "sequential" or (attributes["iteration"], trial["params"]["depth"]) != step:
            latest |= of_step
            step = (attributes["iteration"], trial["params"]["depth"])
        lineage = json.loads(attributes["weights"])
        for layer in lineage:
            assert layer["started_from"] == latest.get(layer["key"])
            n_warm += layer["started_from"] is not None
        of_step |= {layer["key"]: layer["published"] for layer in lineage}
    assert n_warm > 0


def test_status_tells_the_same_from_the_database(cli: Cli) -> None:
    outcome = cli.json(*SEARCH)
    status = cli.json("status", "--study", "tiny")
    assert status["is_finished"]
    assert status["best"] == outcome["best"]
    assert [(step["iteration"], step["depth"], step["n_finished"]) for step in status["steps"]] == [
        (1, 1, 4), (1, 2, 4), (2, 1, 4), (2, 2, 4)
    ]  # fmt: skip
    assert "finished, 16 of 16 trials" in cli.ok("status", "--study", "tiny")


def test_a_backbone_of_another_task_is_marked_wherever_its_score_is_shown(cli: Cli) -> None:
    cli.ok(*SEARCH, "--quiet", "--trials", "2")
    cli.edit("[backbones.image]", '[backbones.image]\ntask = "at_least_five"')
    assert 'backbones.image.task: was absent, is now "at_least_five"' in refused(cli, *SEARCH)
    other = [*SEARCH, "--name", "transfer", "--trials", "4"]
    cli.ok(*other, "--dry-run")
    result = cli.run(*other)
    assert result.returncode == 0, result.stderr
    assert "training lenet on image (task at_least_five), 1 epochs" in result.stderr
    assert "training lenet on audio" not in result.stderr  # It is found, as are the data.
    marked = "image alone, on another task (at_least_five): "
    for text in (
        result.stdout,
        cli.ok("status", "--study", "tiny", "--name", "transfer"),
        cli.ok("prepare", "--study", "tiny"),
    ):
        assert marked in text
        assert "audio alone: " in text
    backbones = cli.json(*other)["backbones"]
    assert {modality: record["task"] for modality, record in backbones.items()} == {
        "audio": None,
        "image": "at_least_five",
    }
    # Unlike the ten digits, two classes leave half to chance, after one epoch too.
    assert backbones["image"]["validation_score"] > 0.3
    assert "image alone: " in cli.ok("status", "--study", "tiny", "--name", "tiny")


@pytest.mark.parametrize("command", [["search"], ["search", "--dry-run"], ["prepare"], ["show"]])
def test_a_task_that_the_data_lack_is_refused_at_once(cli: Cli, command: list[str]) -> None:
    shutil.rmtree(cli.home)
    cli.edit("[backbones.image]", '[backbones.image]\ntask = "noise"')
    message = refused(cli, *command, "--study", "tiny")
    assert "tiny.toml: backbones.image.task: expected 'at_least_five', or no such key" in message
    assert "found 'noise'" in message
    assert not cli.home.exists()


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_temperature_that_its_mode_refuses_is_refused_at_once(cli: Cli, options: list[str]) -> None:
    cli.edit("samples_per_step = 4", "samples_per_step = 4\ntemperature_max = 0.04")
    assert "temperature_min must lie in (0, 0.04), found 0.05" in refused(cli, *SEARCH, *options)


def test_status_tells_how_the_surrogate_did(cli: Cli) -> None:
    assert "near-uniform" not in cli.run(*SEARCH, "--quiet").stderr
    status = cli.json("status", "--study", "tiny")
    found = {(step["iteration"], step["depth"]): step["surrogate"] for step in status["steps"]}
    assert (found[1, 1], found[2, 1]) == (None, None)
    others = [found[1, 2], found[2, 2]]
    leaders = [trial["attributes"] for trial in cli.trials() if "n_candidates" in trial["attributes"]]
    assert len(leaders) == len(others) == 2
    for of_step, leader in zip(others, leaders, strict=True):
        assert set(of_step) == {
            "rank_correlation", "n_unseen", "predicted_std", "n_candidates", "n_effective", "is_near_uniform"
        }  # fmt: skip
        assert of_step["n_unseen"] == 4
        assert not of_step["is_near_uniform"]
        for key in ("n_candidates", "n_effective", "predicted_std"):
            assert of_step[key] == leader[key]
    assert others[0]["rank_correlation"] == leaders[1].get("rank_correlation_before")
    assert status["warnings"] == []
    lines = cli.ok("status", "--study", "tiny", COLUMNS="80").splitlines()
    assert max(map(len, lines)) <= 80
    for of_step in others:
        effective = f"{of_step['n_effective']:.0f} of {of_step['n_candidates']}"
        assert any(f"{of_step['predicted_std']:.4f}" in line and line.endswith(effective) for line in lines)


def test_a_near_uniform_choice_is_warned_of(cli: Cli) -> None:
    """Mode paper is, at the temperatures of two iterations: said once by the search, and by status of all steps."""
    errors = cli.run(*SEARCH, "--quiet", "--mode", "paper").stderr
    assert errors.count("near-uniform choice") == 1
    assert "use mode calibrated" in errors
    status = cli.json("status", "--study", "tiny", "--mode", "paper")
    assert [step["surrogate"]["is_near_uniform"] for step in status["steps"] if step["depth"] > 1] == [True, True]
    assert len(status["warnings"]) == 1
    assert "Warning: near-uniform choice in 2 of 2 steps" in cli.ok("status", "--study", "tiny", "--mode", "paper")


def test_studies_and_show(cli: Cli) -> None:
    listed = {study["study"] for study in cli.json("studies")["studies"]}
    assert {"tiny", "digits", "avmnist", "avmnist-transfer"} <= listed
    (cli.folder / "studies" / "broken.toml").write_text("title =", encoding="utf-8")
    assert "A study for tests" in cli.ok("studies")
    titles = {study["study"]: study["title"] for study in cli.json("studies")["studies"]}
    assert titles["broken"].startswith("cannot be used: ")
    shown = json.loads(cli.ok("show", "--study", "avmnist", "--json"))
    assert shown["sharing"] == "snapshot"
    assert shown["space_size"] == {"layer": 30, "deepest": 30**4, "all_depths": 30 + 30**2 + 30**3 + 30**4}
    assert "[search]" in cli.ok("show", "--study", "avmnist")
    assert "8 layers" in cli.ok("show", "--study", "tiny")


def test_a_title_may_have_any_sign(cli: Cli) -> None:
    (cli.folder / "signs.toml").write_text(
        TINY.replace("A study for tests", 'Ärger \U0001f600 \\"x\\"'), encoding="utf-8"
    )
    text = cli.ok("show", "--study", "signs.toml")
    (cli.folder / "copy.toml").write_text(text, encoding="utf-8")
    assert cli.ok("show", "--study", "copy.toml") == text


@pytest.mark.parametrize("study", ["tiny", "avmnist", "avmnist-transfer", "digits"])
def test_what_show_prints_is_a_study_file(cli: Cli, study: str) -> None:
    text = cli.ok("show", "--study", study, COLUMNS="40")
    (cli.folder / "copy.toml").write_text(text, encoding="utf-8")
    assert cli.ok("show", "--study", "copy.toml") == text


def test_dry_run_writes_nothing(cli: Cli) -> None:
    shutil.rmtree(cli.home)
    text = cli.ok(*SEARCH, "--dry-run")
    assert "Trials: 16" in text
    assert "Memory" in text
    assert not cli.home.exists()
    assert cli.json(*SEARCH, "--dry-run")["n_trials"] == 16


def test_default_names_tell_what_differs(cli: Cli) -> None:
    for options, name in (
        (["--sampler", "random"], "tiny-random"),
        (["--seed", "3"], "tiny-seed3"),
        (["--mode", "paper", "--seed", "3"], "tiny-paper-seed3"),
    ):
        assert cli.json(*SEARCH, *options, "--trials", "2")["study"] == name


def test_a_path_names_a_study_too(cli: Cli) -> None:
    (cli.folder / "mine.toml").write_text(TINY, encoding="utf-8")
    assert cli.json("search", "--study", "mine.toml", "--trials", "1")["study"] == "mine"


def test_home_and_storage_by_environment(cli: Cli, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'other.db'}"
    cli.ok(*SEARCH, "--quiet", "--trials", "1", MFAS_STORAGE=url)
    assert (tmp_path / "other.db").exists()
    assert not (cli.home / "mfas.db").exists()
    elsewhere = tmp_path / "home"
    shutil.copytree(cli.home, elsewhere)
    cli.ok(*SEARCH, "--quiet", "--trials", "1", MFAS_HOME=str(elsewhere))
    assert (elsewhere / "mfas.db").exists()


# Wrong.


def test_unknown_study_names_the_nearest(cli: Cli) -> None:
    assert "'digits'" in refused(cli, "search", "--study", "digit")
    assert "mfas-optuna studies" in refused(cli, "search", "--study", "nowhere.toml")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("max_depth = 2", "max_depth = two", "not valid TOML"),
        ("max_depth = 2", 'max_depth = "two"', "space.max_depth: input should be a valid integer, found 'two'"),
        ("max_depth = 2", "max_depth = 2\nmax_deth = 3", "space.max_deth: no such setting"),
        ("[space]", "[spice]", "spice: no such setting"),
        ('name = "digits"', 'name = "digit"', "dataset"),
        ('["relu", "sigmoid"]', '["relu", "sigmoyd"]', "sigmoyd"),
        ("n_iterations = 2", "n_iterations = 0", "search.n_iterations"),
    ],
)
def test_study_file_mistakes_name_file_and_key(cli: Cli, old: str, new: str, said: str) -> None:
    assert old in TINY
    (cli.folder / "studies" / "tiny.toml").write_text(TINY.replace(old, new), encoding="utf-8")
    message = refused(cli, *SEARCH)
    assert "studies/tiny.toml" in message
    assert said in message
    assert not (cli.home / "mfas.db").exists()


def test_every_mistake_is_named_at_once(cli: Cli) -> None:
    text = TINY.replace("width = 4", 'width = "wide"').replace("epochs = 2\n", "epochs = -1\n")
    (cli.folder / "studies" / "tiny.toml").write_text(text, encoding="utf-8")
    message = refused(cli, *SEARCH)
    assert "fusion.width" in message
    assert "training.epochs" in message


def test_wrong_options(cli: Cli) -> None:
    assert "'mfas', 'random' or 'tpe'" in refused(cli, *SEARCH, "--sampler", "best")
    assert "calibrated" in refused(cli, *SEARCH, "--mode", "fast")
    assert "cuda:N" in refused(cli, *SEARCH, "--device", "gpu")
    assert "--name" in refused(cli, *SEARCH, "--name", "../x")
    assert "--trials" in refused(cli, *SEARCH, "--trials", "0")


def test_changed_settings_are_refused_with_the_fields(cli: Cli) -> None:
    cli.ok(*SEARCH, "--quiet", "--trials", "2")
    before = cli.trials()
    (cli.folder / "studies" / "tiny.toml").write_text(
        TINY.replace("width = 4", "width = 5").replace("samples_per_step = 4", "samples_per_step = 3"), encoding="utf-8"
    )
    message = refused(cli, *SEARCH)
    assert "fusion.width: was 4, is now 5" in message
    assert "search.samples_per_step: was 4, is now 3" in message
    assert "--name" in message
    assert "search.seed: was 0, is now 1" in refused(cli, *SEARCH, "--seed", "1", "--name", "tiny")
    assert cli.trials() == before


def test_unreachable_database_and_hidden_password(cli: Cli) -> None:
    message = refused(cli, *SEARCH, "--storage", "sqlite:////dev/null/below/mfas.db")
    assert "/dev/null/below/mfas.db" in message
    assert "mfas.db: not a database URL" in refused(cli, *SEARCH, "--storage", "mfas.db")
    message = refused(cli, *SEARCH, "--storage", "postgresql+psycopg://me:secret@127.0.0.1:1/x", MFAS_PATIENCE="0.1")
    assert "secret" not in message


def test_a_file_that_is_no_database(cli: Cli) -> None:
    (cli.home / "mfas.db").write_bytes(b"not a database" * 100)
    assert "mfas.db" in refused(cli, *SEARCH)
    assert (cli.home / "mfas.db").read_bytes() == b"not a database" * 100


def test_status_without_database_or_study(cli: Cli) -> None:
    assert "no study database" in refused(cli, "status", "--study", "tiny")
    assert not (cli.home / "mfas.db").exists()
    cli.ok(*SEARCH, "--quiet", "--trials", "1")
    message = refused(cli, "status", "--study", "tiny", "--name", "other")
    assert "'other'" in message
    assert "tiny" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_home(cli: Cli) -> None:
    cli.home.chmod(0o500)
    try:
        assert "MFAS_HOME" in refused(cli, *SEARCH)
    finally:
        cli.home.chmod(0o700)


def test_home_that_is_a_file(cli: Cli) -> None:
    (cli.folder / "file").write_text("", encoding="utf-8")
    assert "MFAS_HOME" in refused(cli, *SEARCH, MFAS_HOME=str(cli.folder / "file"))


def test_missing_data_says_what_to_get(cli: Cli) -> None:
    message = refused(cli, "search", "--study", "avmnist")
    for word in ("mnist", "fsdd", "esc50", "MFAS_DATA", "digits"):
        assert word in message.lower() or word in message


@pytest.mark.parametrize("how", ["flipped", "truncated", "missing"])
def test_damaged_features_are_noticed_and_rebuilt(cli: Cli, how: str) -> None:
    file = next((cli.home / "features").glob("digits-*/features-train.npy"))
    damage(file, how)
    message = refused(cli, *SEARCH)
    assert str(file) in message
    assert "mfas-optuna prepare --study tiny --force" in message
    cli.ok("prepare", "--study", "tiny", "--force")
    cli.ok(*SEARCH, "--quiet", "--trials", "1")


@pytest.mark.parametrize("how", ["flipped", "truncated", "missing"])
def test_damaged_backbone_is_noticed_and_rebuilt_the_same(cli: Cli, how: str) -> None:
    index = next((cli.home / "backbones").glob("digits-audio-*.json"))
    digest = json.loads(index.read_text(encoding="utf-8"))["digest"]
    damage(cli.home / "weights" / digest[:2] / f"{digest}.safetensors", how)
    message = refused(cli, *SEARCH)
    assert digest in message
    assert "mfas-optuna prepare --study tiny --force" in message
    cli.ok("prepare", "--study", "tiny", "--force")
    assert json.loads(index.read_text(encoding="utf-8"))["digest"] == digest
    cli.ok(*SEARCH, "--quiet", "--trials", "1")


@pytest.mark.parametrize("how", ["flipped", "missing"])
def test_damaged_layer_weights_are_passed_over(cli: Cli, how: str) -> None:
    cli.ok(*SEARCH, "--quiet", "--trials", "8")
    latest = {}
    for trial in cli.trials():
        for layer in json.loads(trial["attributes"]["weights"]):
            latest[layer["key"]] = layer["published"]
    for digest in latest.values():
        damage(cli.home / "weights" / digest[:2] / f"{digest}.safetensors", how)
    result = cli.run(*SEARCH)
    assert result.returncode == 0
    assert "version before it is used" in result.stderr
    starts = {
        layer["started_from"] for trial in cli.trials()[8:] for layer in json.loads(trial["attributes"]["weights"])
    }
    assert not starts & set(latest.values())


def test_damaged_data_are_noticed(cli: Cli) -> None:
    shutil.rmtree(cli.home / "features")
    file = next((cli.home / "data").glob("digits-*/*.npy"))
    damage(file, "flipped")
    message = refused(cli, *SEARCH)
    assert file.name in message
    assert "mfas-optuna prepare --study tiny --force" in message
    cli.ok("prepare", "--study", "tiny", "--force")
    cli.ok(*SEARCH, "--quiet", "--trials", "1")


def test_diverging_training_fails_its_trials_with_the_reason(cli: Cli) -> None:
    text = TINY.replace("epochs = 2\n", "epochs = 2\nlearning_rate = 3e38\n")
    (cli.folder / "studies" / "tiny.toml").write_text(text, encoding="utf-8")
    message = refused(cli, *SEARCH, "--name", "hot", code=1)
    assert "without a single complete trial" in message or "failed in a row" in message
    trials = cli.trials("hot")
    assert {trial["attributes"]["failure"] for trial in trials} == {"diverged"}
    assert all("learning_rate" in trial["attributes"]["failure_message"] for trial in trials)
    assert "failed, diverged" in cli.ok("status", "--study", "tiny", "--name", "hot")


def test_plain_optuna_study_of_the_same_name_is_left_alone(cli: Cli) -> None:
    import optuna

    study = optuna.create_study(storage=f"sqlite:///{cli.home / 'mfas.db'}", study_name="tiny")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert "not begun by mfas-optuna" in refused(cli, *SEARCH)
    connection = sqlite3.connect(cli.home / "mfas.db")
    assert connection.execute("SELECT COUNT(*) FROM trials").fetchone() == (1,)
    connection.close()


def damage(file: Path, how: str) -> None:
    """Flip a bit in the middle of a file, cut it in half, or remove it."""
    if how == "missing":
        file.unlink()
        return
    content = np.frombuffer(file.read_bytes(), dtype=np.uint8).copy()
    if how == "flipped":
        content[len(content) // 2] ^= 1
    else:
        content = content[: len(content) // 2]
    file.write_bytes(content.tobytes())
