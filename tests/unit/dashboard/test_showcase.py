"""What is shown of a search, and when."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from mfas_optuna import storage as database
from mfas_optuna import trials as records
from mfas_optuna.dashboard import Drawings, Showcase
from mfas_optuna.dashboard import attributes as kept
from mfas_optuna.dashboard.showcase import END, describe
from mfas_optuna.storage import Patience
from mfas_optuna.trials import Plan

from ..report.helpers import Database, fill_with
from ..visualization.studies import HOSTILE, searched

AT_ONCE = Patience()


def write_count(study: optuna.Study) -> int:
    return int(kept.read_attributes(study)["dashboard:note_ver"])


def plots(study: optuna.Study) -> dict[str, dict[str, object]]:
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

    return {name: json.loads(text) for name, text in get_plotly_graph_objects(kept.read_attributes(study)).items()}


@pytest.fixture(scope="module")
def trials() -> list[FrozenTrial]:
    return searched().trials[:15]


@pytest.fixture
def stored(tmp_path: Path, trials: list[FrozenTrial]) -> Database:
    found = Database(tmp_path)
    found.search.add_trials(trials)
    found.describe("digits: of scikit-learn.\nmore")
    return found


@pytest.fixture
def showcase(stored: Database) -> Showcase:
    return Showcase(stored.spec, Drawings(stored.folder / "artifacts"))


def test_the_note_says_what_the_study_is_and_how_it_stands(stored: Database, showcase: Showcase) -> None:
    showcase.show(stored.search, AT_ONCE)
    note = kept.read_note(kept.read_attributes(stored.search))
    n_complete = len(stored.search.get_trials(states=(TrialState.COMPLETE,)))
    [best, *_] = records.best_networks(stored.search.trials, 5)
    assert note.startswith(f"### {stored.spec.title}\n")
    for text in (
        "- Data (no stand-in): digits: of scikit-learn.",
        f"- Trials: {n_complete} of {stored.spec.n_trials_planned()} finished; sampler mfas",
        "- Backbones alone, validation accuracy: audio 0.4000",
        f"1. **{best.score:.4f}**, trial {best.number}, {best.n_parameters:,} parameters: ",
    ):
        assert text in note
    assert note.endswith(END)


def test_plots_and_drawings_are_there_under_fixed_names(stored: Database, showcase: Showcase) -> None:
    showcase.show(stored.search, AT_ONCE)
    shown = plots(stored.search)
    assert set(shown) == {"mfas-search", "mfas-best-network"}
    assert json.dumps(shown["mfas-search"]).count("Error by step") >= 1
    assert "data:image/svg+xml;base64," in json.dumps(shown["mfas-best-network"])
    attributes = kept.read_attributes(stored.search)
    given = [json.loads(value) for key, value in attributes.items() if key.startswith("dashboard:artifacts:")]
    drawable = [
        network for network in records.best_networks(stored.search.trials, 5) if network.parameters.get("depth")
    ]
    assert {record["filename"] for record in given} == {f"trial-{network.number}.svg" for network in drawable}
    assert {path.name for path in (stored.folder / "artifacts").iterdir()} == {
        record["artifact_id"] for record in given
    }


def test_what_is_shown_already_is_not_written_again_but_lost_files_are(stored: Database, showcase: Showcase) -> None:
    showcase.show(stored.search, AT_ONCE)
    before = kept.read_attributes(stored.search)
    [lost, *_] = (stored.folder / "artifacts").iterdir()
    content = lost.read_bytes()
    lost.unlink()
    showcase.show(stored.search, AT_ONCE)
    assert kept.read_attributes(stored.search) == before
    assert lost.read_bytes() == content
    stored.search.add_trial(create_trial(value=0.99, user_attrs={records.ARCHITECTURE: "[(1,1,1)]"}))
    showcase.show(stored.search, AT_ONCE)
    assert write_count(stored.search) == 2
    assert "1. **0.9900**" in kept.read_note(kept.read_attributes(stored.search))


def test_the_best_network_is_pictured_anew_when_it_is_another(stored: Database, showcase: Showcase) -> None:
    showcase.show(stored.search, AT_ONCE)
    before = kept.read_plot(kept.read_attributes(stored.search), "mfas-best-network")
    [best, *_] = records.best_networks(stored.search.trials, 1)
    assert f"trial {best.number}, {best.score:.4f}" in before
    stored.search.add_trial(create_trial(state=TrialState.PRUNED))
    showcase.show(stored.search, AT_ONCE)
    assert kept.read_plot(kept.read_attributes(stored.search), "mfas-best-network") == before
    trial = stored.search.trials[best.number]
    shown = {records.ARCHITECTURE: "[(1,1,1)]"}
    stored.search.add_trial(
        create_trial(value=0.99, params=trial.params, distributions=trial.distributions, user_attrs=shown)
    )
    showcase.show(stored.search, AT_ONCE)
    number = stored.search.trials[-1].number
    attributes = kept.read_attributes(stored.search)
    assert f"trial {number}, 0.9900" in kept.read_plot(attributes, "mfas-best-network")
    # One that another worker has overwritten with an older one is mended even if there is nothing else to say.
    kept.write_plot(stored.search, attributes, "mfas-best-network", before)
    showcase.show(stored.search, AT_ONCE)
    assert f"trial {number}, 0.9900" in kept.read_plot(kept.read_attributes(stored.search), "mfas-best-network")


def test_what_somebody_wrote_below_or_before_stays(stored: Database, showcase: Showcase) -> None:
    kept.write_note(stored.search, kept.read_attributes(stored.search), "mine")
    showcase.show(stored.search, AT_ONCE)
    note = kept.read_note(kept.read_attributes(stored.search))
    assert note.endswith(f"{END}\n\nmine")
    kept.write_note(stored.search, kept.read_attributes(stored.search), f"{note}\n\nmore")
    stored.search.add_trial(create_trial(value=0.99, user_attrs={records.ARCHITECTURE: "[(1,1,1)]"}))
    showcase.show(stored.search, AT_ONCE)
    note = kept.read_note(kept.read_attributes(stored.search))
    assert "0.9900" in note
    assert note.endswith(f"{END}\n\nmine\n\nmore")


def test_a_drawing_that_somebody_took_away_stays_away(stored: Database, showcase: Showcase) -> None:
    showcase.show(stored.search, AT_ONCE)
    key = next(key for key in kept.read_attributes(stored.search) if key.startswith("dashboard:artifacts:"))
    stored.storage.set_study_system_attr(stored.search._study_id, key, json.dumps(None))
    stored.search.add_trial(create_trial(state=TrialState.PRUNED, value=None))
    showcase.show(stored.search, AT_ONCE)
    assert kept.read_attributes(stored.search)[key] == "null"


def test_a_stand_in_is_marked_and_no_name_is_markup(tmp_path: Path) -> None:
    stored = Database(tmp_path)
    fill_with(stored, HOSTILE)
    note = describe(stored.search, stored.spec, stored.search.trials)
    assert "**STAND-IN DATA, generated: " in note
    assert "- Data: " in note
    assert "<" not in note
    assert "](" not in note.replace("\\]\\(", "")
    Showcase(stored.spec, Drawings(tmp_path / "artifacts")).show(stored.search, AT_ONCE)
    for path in (tmp_path / "artifacts").iterdir():
        assert b"<script" not in path.read_bytes()
        assert b"<img" not in path.read_bytes()


def test_without_an_ended_trial_nothing_is_shown(tmp_path: Path) -> None:
    storage = database.open_storage(f"sqlite:///{tmp_path / 'mfas.db'}")
    study = optuna.create_study(storage=storage)
    study.ask()
    spec = Database(tmp_path, name="other").spec
    Showcase(spec, Drawings(tmp_path / "artifacts")).show(study, AT_ONCE)
    assert kept.read_attributes(study) == {}


def test_one_trial_a_step_leads(stored: Database, showcase: Showcase, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = stored.spec
    plan = Plan("ab", 0, 1, (1, 2), None, None, 2, 2.0, None, 0.0)
    study = stored.search
    trials = {}
    for name in ("leads", "follows", "15th draw", "16th draw"):
        trial = study.ask()
        frozen = study.trials[trial.number]
        if name == "leads":
            records.write_plan(study, frozen, plan)
        elif name != "follows":
            records.write_ordinal(study, frozen, spec.search.samples_per_step + (name == "16th draw"))
        trials[name] = study.tell(trial, 0.5)
    showcase.after(study, [trials["follows"], trials["16th draw"]], AT_ONCE)
    showcase.after(study, [], AT_ONCE)
    assert "dashboard:note_ver" not in kept.read_attributes(study)
    showcase.after(study, [trials["follows"], trials["leads"]], AT_ONCE)
    assert write_count(study) == 1
    study.add_trial(create_trial(value=0.99, user_attrs={records.ARCHITECTURE: "[(1,1,1)]"}))
    showcase.after(study, [trials["15th draw"]], AT_ONCE)
    assert write_count(study) == 1  # So soon it would be a large part of what the search takes.
    monkeypatch.setattr(showcase, "_may_show_at", 0.0)
    showcase.after(study, [trials["15th draw"]], AT_ONCE)
    assert write_count(study) == 2


def test_what_cannot_be_drawn_is_said_once_and_stops_nothing(
    stored: Database, caplog: pytest.LogCaptureFixture
) -> None:
    (stored.folder / "artifacts").write_text("not a folder")
    showcase = Showcase(stored.spec, Drawings(stored.folder / "artifacts"))
    with caplog.at_level(logging.WARNING):
        showcase.show(stored.search, AT_ONCE)
        showcase.show(stored.search, AT_ONCE)
    assert [record.getMessage() for record in caplog.records if "could not be made" in record.getMessage()] != []
    assert sum("could not be made" in record.getMessage() for record in caplog.records) == 1
    attributes = kept.read_attributes(stored.search)
    assert kept.read_note(attributes).endswith(END)  # A note needs no file.
    assert not any(key.startswith("dashboard:artifacts:") for key in attributes)
