"""Study files, their fingerprint, and the precedence of settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from mfas_optuna import MFASSampler
from mfas_optuna import spec as settings
from mfas_optuna.errors import SpecError, UnknownStudyError
from mfas_optuna.spec import StudySpec, differences, load_spec
from mfas_optuna.storage import open_storage
from mfas_optuna.worker.samplers import make_sampler

SHIPPED = sorted((Path(__file__).parents[2] / "studies").glob("*.toml"))


def load(name: str = "digits") -> StudySpec:
    return load_spec(next(path for path in SHIPPED if path.stem == name))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_studies_are_valid(path: Path) -> None:
    spec = load_spec(path)
    assert spec.dataset.name == path.stem.split("-")[0]
    assert spec.search.mode == "calibrated"


def test_avmnist_has_the_papers_values() -> None:
    spec = load("avmnist")
    assert list(spec.backbones) == ["audio", "image"]
    assert (spec.search.n_iterations, spec.search.samples_per_step, spec.space.max_depth) == (3, 15, 4)
    assert spec.search_space().n_layers() == 30
    assert spec.training.epochs == 2
    assert spec.n_trials_planned() == 30 + 3 * 45
    assert spec.with_search(mode="paper").n_trials_planned() == 3 * (30 + 45)
    assert spec.with_search(n_trials=7).n_trials_planned() == 7


def test_the_transfer_study_differs_in_its_tasks_alone() -> None:
    transfer, plain = load("avmnist-transfer"), load("avmnist")
    assert list(differences(plain.scientific(), transfer.scientific())) == [
        'backbones.audio.task: was absent, is now "noise"',
        'backbones.image.task: was absent, is now "at_least_five"',
    ]
    assert transfer.tasks() == ("at_least_five", "noise")
    assert plain.tasks() == ()
    assert transfer.fingerprint() != plain.fingerprint()


def test_an_absent_task_is_left_out_of_what_fingerprints_are_made_of() -> None:
    """Else backbones and features of before there were tasks would be made again."""
    for study in ("digits", "avmnist"):
        assert not any("task" in backbone for backbone in load(study).scientific()["backbones"].values())


def test_tasks_survive_the_options_of_the_command_line() -> None:
    assert load("avmnist-transfer").with_search(seed=1).tasks() == ("at_least_five", "noise")


def test_tasks_that_the_data_lack_are_all_named() -> None:
    tree = load().model_dump(mode="python")
    tree["backbones"]["audio"]["task"], tree["backbones"]["image"]["task"] = "noise", "digit"
    with pytest.raises(SpecError) as raised:
        settings.validated(tree, "x.toml", Path())
    assert list(raised.value.problems) == [
        f"x.toml: backbones.{modality}.task: expected 'at_least_five', or no such key for the study's own target, "
        f"found {task!r}."
        for modality, task in (("audio", "noise"), ("image", "digit"))
    ]
    tree = load("avmnist-transfer").model_dump(mode="python")
    tree["dataset"]["source"] = "npy"
    with pytest.raises(SpecError, match=r"backbones\.audio\.task: expected no such key, .* alone, found 'noise'"):
        settings.validated(tree, "x.toml", Path())


def test_weights_are_shared_as_suits_the_mode_or_as_the_study_says() -> None:
    spec = load()
    assert spec.sharing() == "snapshot"
    assert spec.with_search(mode="paper").sharing() == "sequential"
    assert spec.with_search(mode="paper", sampler="random").sharing() == "snapshot"
    sequential = spec.model_copy(update={"fusion": spec.fusion.model_copy(update={"sharing": "sequential"})})
    assert sequential.sharing() == "sequential"
    assert sequential.fingerprint() != spec.fingerprint()


def test_joint_by_option_then_environment_then_the_study() -> None:
    assert settings.joint(None, {}) is None
    assert settings.joint("auto", {"MFAS_JOINT": "3"}) is None
    assert settings.joint(None, {"MFAS_JOINT": "3"}) == 3
    assert settings.joint("7", {"MFAS_JOINT": "3"}) == 7


def every_field(model: type[Any]) -> list[tuple[str, str | None]]:
    return [(f"{model.__name__}.{name}", field.description) for name, field in model.model_fields.items()]


def test_every_field_is_documented() -> None:
    models = [value for value in vars(settings).values() if isinstance(value, type) and issubclass(value, BaseModel)]
    assert len(models) >= 8
    for model in models:
        assert model.__doc__
        assert all(description for _, description in every_field(model)), every_field(model)


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().title = "other"  # type: ignore[misc]


def test_the_fingerprint_is_that_of_what_can_change_a_result() -> None:
    spec = load()
    same = [
        spec.model_copy(update={"title": "other", "storage": "sqlite:///x.db"}),
        spec.with_search(n_trials=5),
    ]
    other = [
        spec.with_search(seed=1),
        spec.with_search(mode="paper"),
        spec.with_search(sampler="tpe"),
        spec.model_copy(update={"backbones": dict(reversed(spec.backbones.items()))}),
        spec.model_copy(update={"fusion": spec.fusion.model_copy(update={"width": 17})}),
    ]
    assert {each.fingerprint() for each in same} == {spec.fingerprint()}
    assert len({each.fingerprint() for each in other} | {spec.fingerprint()}) == len(other) + 1


def test_differences_name_each_leaf() -> None:
    stored, given = load().scientific(), load().with_search(seed=3, mode="paper").scientific()
    assert list(differences(stored, given)) == [
        'fusion.sharing: was "snapshot", is now "sequential"',
        'search.mode: was "calibrated", is now "paper"',
        "search.seed: was 0, is now 3",
    ]
    older = {key: value for key, value in stored.items() if key != "augmentation"}
    assert list(differences(older, stored)) == ["augmentation: was absent, is now null"]
    turned = {**stored, "backbones": dict(reversed(stored["backbones"].items()))}
    assert list(differences(stored, turned)) == [
        "backbones: the order was ['audio', 'image'], is now ['image', 'audio']"
    ]
    assert list(differences({"a": {"b": 1}}, {"a": {}})) == ["a.b: was 1, is now absent"]


def test_default_names() -> None:
    spec = load()
    assert spec.default_study_name("digits", spec) == "digits"
    changed = spec.with_search(sampler="random", mode="paper", seed=2)
    assert changed.default_study_name("digits", spec) == "digits-random-paper-seed2"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sampler": "best"}, "search.sampler: input should be 'mfas', 'random' or 'tpe', found 'best'"),
        ({"seed": -1}, "search.seed"),
        ({"n_trials": 0}, "search.n_trials"),
    ],
)
def test_wrong_options_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as raised:
        load().with_search(**changes)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        ("search", {"n_iterations": "unlimited"}, "give n_trials"),
        ("search", {"n_iterations": None}, "search.n_iterations"),
        ("search", {"temperature_min": 3.0, "temperature_max": 2.0}, "temperature_min must be below"),
        ("dataset", {"name": "avmnist", "pca_components": None}, "exactly one of pca_components and pca_energy"),
        ("dataset", {"name": "digits", "n_train": 5}, "dataset.n_train"),
        ("dataset", {"name": "digits", "n_train": 10**11}, "dataset.n_train"),
        ("dataset", {"name": "digits", "snr_db": float("inf")}, "dataset.snr_db"),
        ("dataset", {"name": "digits", "snr_db": -4000.0}, "dataset.snr_db"),
        ("training", {"learning_rate": float("nan")}, "training.learning_rate"),
        ("search", {"seed": 10**22}, "search.seed"),
    ],
)
def test_settings_that_contradict_each_other(section: str, values: dict[str, Any], said: str) -> None:
    tree = load().model_dump(mode="python")
    tree[section] = {**(tree[section] if section != "dataset" else {}), **values}
    with pytest.raises(SpecError) as raised:
        settings.validated(tree, "x.toml", Path())
    assert said in str(raised.value)
    assert str(raised.value).startswith("x.toml: ")


def test_a_search_without_an_end_needs_a_number_of_trials() -> None:
    tree = load().model_dump(mode="python")
    tree["search"] |= {"n_iterations": "unlimited", "n_trials": 500}
    spec = settings.validated(tree, "x.toml", Path())
    assert spec.n_trials_planned() == 500
    sampler = make_sampler(spec)
    assert isinstance(sampler, MFASSampler)
    assert sampler.schedule.n_iterations is None


def test_energy_stands_for_components() -> None:
    tree = {**load("avmnist").model_dump(mode="python"), "dataset": {"name": "avmnist", "pca_energy": 0.25}}
    dataset = settings.validated(tree, "x.toml", Path()).dataset
    assert isinstance(dataset, settings.AvmnistSettings)
    assert (dataset.pca_components, dataset.pca_energy) == (None, 0.25)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    with pytest.raises(SpecError, match="cannot be read"):
        load_spec(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match="not valid TOML"):
        load_spec(file)
    file.write_text("", encoding="utf-8")
    with pytest.raises(SpecError) as raised:
        load_spec(file)
    assert {problem.split(": ")[1] for problem in raised.value.problems} == {"title", "dataset", "backbones", "space"}


def test_studies_of_the_working_folder_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "studies"
    folder.mkdir()
    (folder / "digits.toml").write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert settings.find_study("digits") == folder / "digits.toml"
    assert settings.find_study("avmnist").parent != folder
    with pytest.raises(UnknownStudyError, match="'avmnist'"):
        settings.find_study("avnist")


@pytest.mark.parametrize("name", ["", "../x", "a b", ".x", "x" * 101, "a/b"])
def test_names_that_could_leave_a_folder_are_refused(name: str) -> None:
    with pytest.raises(SpecError, match="--name"):
        settings.check_study_name(name)


def test_precedence_of_the_database() -> None:
    home, in_file = Path("/home/x"), load().model_copy(update={"storage": "sqlite:///file.db"})
    environment = {"MFAS_STORAGE": "sqlite:///environment.db"}
    assert settings.storage_url("sqlite:///option.db", in_file, home, environment) == "sqlite:///option.db"
    assert settings.storage_url(None, in_file, home, environment) == "sqlite:///environment.db"
    assert settings.storage_url(None, in_file, home, {}) == "sqlite:///file.db"
    assert settings.storage_url(None, load(), home, {}) == "sqlite:////home/x/mfas.db"


@pytest.mark.parametrize("name", ["a b", "a?b", "a%41", "a#b", "a{x}", "ä"])
def test_the_home_may_have_any_name(name: str, tmp_path: Path) -> None:
    url = settings.storage_url(None, load(), tmp_path / name, {})
    open_storage(url)
    assert (tmp_path / name / "mfas.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_precedence_of_the_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert settings.home_folder({}) == tmp_path / "storage"
    assert settings.home_folder({"MFAS_HOME": "/x"}) == Path("/x")
    assert settings.data_root(Path("a"), {"MFAS_DATA": "b"}) == Path("a")
    assert settings.data_root(None, {"MFAS_DATA": "b"}) == Path("b")
    assert settings.data_root(None, {}) is None


def test_precedence_of_the_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    in_file = load().model_copy(update={"weights": "near"})
    in_file._folder = Path("/studies")
    environment = {"MFAS_WEIGHTS": "s3://bucket/environment"}
    assert settings.weights_location("~/far", in_file, environment) == str(Path.home() / "far")
    assert settings.weights_location(None, in_file, environment) == "s3://bucket/environment"
    assert settings.weights_location(None, in_file, {}) == "/studies/near"
    assert settings.weights_location("near", in_file, {}) == str(tmp_path / "near")
    assert settings.weights_location(None, load(), {"MFAS_WEIGHTS": ""}) is None
    assert settings.weights_location(None, None, {}) is None
    assert in_file.fingerprint() == load().fingerprint()  # Where weights lie changes no result.


def test_a_convolution_has_at_least_one_channel() -> None:
    tree = load().model_dump(mode="python")
    tree["backbones"]["audio"]["channels"] = [0, 4, 8]
    with pytest.raises(SpecError, match=r"backbones\.audio\.channels\.0: input should be greater than or equal to 1"):
        settings.validated(tree, "x.toml", Path())


def test_algorithm_1_to_the_letter_cannot_maximise_r2() -> None:
    given = {"kind": "given", "features": ["a"]}
    values = {
        "title": "T",
        "dataset": {"name": "arrays", "folder": "data", "target": "regression"},
        "backbones": {"one": given, "two": given},
        "space": {"activations": ["relu"], "max_depth": 2},
    }
    assert StudySpec.model_validate(values).metric == "r2"
    with pytest.raises(ValidationError, match=r"expected calibrated, since Algorithm 1 needs scores from 0 to 1"):
        StudySpec.model_validate({**values, "search": {"mode": "paper"}})
    assert StudySpec.model_validate({**values, "search": {"sampler": "random", "mode": "paper", "n_trials": 3}})


def test_what_a_study_does_not_use_is_not_in_its_settings() -> None:
    """So that a study that was begun before there was an extended space goes on."""
    spec = load_spec(settings.find_study("digits"))
    values = spec.scientific()
    assert "kind" not in values["space"]
    assert "n_parameters" not in values["fusion"]
    assert not values["training"].keys() & {"min_steps", "auxiliary_weight"}
    extended = load_spec(settings.find_study("digits-extended")).scientific()
    assert extended["space"]["kind"] == "extended"
    assert extended["fusion"]["n_parameters"] == 5000
    assert extended["fusion"]["width"] is None
    assert extended["training"]["min_steps"] == 300
    assert extended["training"]["auxiliary_weight"] == 0.5
