"""What is written for the dashboard is what its own functions read."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest

from mfas_optuna import storage as database
from mfas_optuna.dashboard import attributes as kept


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    storage = database.open_storage(f"sqlite:///{tmp_path / 'mfas.db'}")
    return optuna.create_study(storage=storage, direction="maximize")


@pytest.mark.parametrize("lengths", [(3,), (2045, 2046), (5000, 10), (0, 4090), (10, 0)])
def test_notes_are_the_dashboards(study: optuna.Study, lengths: tuple[int, ...]) -> None:
    import optuna_dashboard
    from optuna_dashboard._note import version_is_incremented

    for count, length in enumerate(lengths, start=1):
        note = "".join(chr(97 + position % 26) for position in range(length))
        kept.write_note(study, kept.read_attributes(study), note)
        assert optuna_dashboard.get_note(study) == note == kept.read_note(kept.read_attributes(study))
        # Whoever edits the one before in the dashboard is told, and does not overwrite this one.
        assert not version_is_incremented(kept.read_attributes(study), None, count)
        assert version_is_incremented(kept.read_attributes(study), None, count + 1)
    optuna_dashboard.save_note(study, "a person's")
    assert kept.read_note(kept.read_attributes(study)) == "a person's"


@pytest.mark.parametrize("lengths", [(10, 9000), (9000, 10), (2045,)])
def test_plots_are_the_dashboards_and_replace_each_other(study: optuna.Study, lengths: tuple[int, ...]) -> None:
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects, is_valid_graph_object_id

    assert is_valid_graph_object_id("mfas-search")
    for length in lengths:
        figure = json.dumps({"data": "x" * length})
        kept.write_plot(study, kept.read_attributes(study), "mfas-search", figure)
        kept.write_plot(study, kept.read_attributes(study), "another", "{}")
        assert kept.read_plot(kept.read_attributes(study), "mfas-search") == figure
        assert get_plotly_graph_objects(kept.read_attributes(study)) == {"mfas-search": figure, "another": "{}"}


def test_artifacts_are_the_dashboards(study: optuna.Study) -> None:
    from optuna_dashboard.artifact._backend import get_trial_artifact_meta, list_trial_artifacts

    study.optimize(lambda trial: 1.0, n_trials=2)
    first, second = study.trials
    kept.write_artifact(study, first._trial_id, "1-ab", "trial-0.svg", "image/svg+xml")
    attributes = kept.read_attributes(study)
    record = {"artifact_id": "1-ab", "filename": "trial-0.svg", "mimetype": "image/svg+xml", "encoding": None}
    assert list_trial_artifacts(attributes, {}, first) == [record]
    assert list_trial_artifacts(attributes, {}, second) == []
    assert get_trial_artifact_meta(study._storage, study._study_id, first._trial_id, "1-ab") == record  # type: ignore[arg-type]
    assert kept.trials_of_artifact(attributes, "1-ab") == [first._trial_id]
    assert kept.trials_of_artifact(attributes, "ab") == []
    # As the dashboard takes it away.
    key = kept.artifact_key(first._trial_id, "1-ab")
    study._storage.set_study_system_attr(study._study_id, key, json.dumps(None))
    assert kept.trials_of_artifact(kept.read_attributes(study), "1-ab") == []
