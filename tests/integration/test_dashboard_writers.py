"""Several workers that show the same study at once."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, create_trial

from mfas_optuna import storage as database
from mfas_optuna import trials as records
from mfas_optuna.dashboard import Drawings, Showcase
from mfas_optuna.dashboard import attributes as kept
from mfas_optuna.spec import find_study, load_spec
from mfas_optuna.storage import Patience

from ..unit.visualization.studies import searched

N_WRITERS, N_ROUNDS = 3, 4


@pytest.fixture(scope="module")
def trials() -> list[FrozenTrial]:
    return searched().trials[:15]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'mfas.db'}"
    return str(request.getfixturevalue("postgres_url"))


def test_they_take_turns_and_the_last_word_is_whole(url: str, trials: list[FrozenTrial], tmp_path: Path) -> None:
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

    spec = load_spec(find_study("digits"))
    storage = database.open_storage(url)
    study = optuna.create_study(study_name="shared", storage=storage, direction="maximize")
    study.add_trials(trials)
    errors: list[BaseException] = []
    begin = threading.Barrier(N_WRITERS)

    def write(writer: int) -> None:
        patience = Patience(60)
        opened = database.open_storage(url, patience)
        try:
            mine = database.load_study(opened, "shared")
            showcase = Showcase(spec, Drawings(tmp_path / "artifacts"))
            begin.wait()
            for turn in range(N_ROUNDS):
                score = 0.9 + 0.001 * (writer + N_WRITERS * turn)
                base = trials[(7 * writer + turn) % len(trials)]
                shown = {records.ARCHITECTURE: f"of writer {writer}, {turn}"}
                mine.add_trial(
                    create_trial(value=score, params=base.params, distributions=base.distributions, user_attrs=shown)
                )
                showcase.show(mine, patience)
        except BaseException as error:
            errors.append(error)
        finally:
            opened.remove_session()
            opened.engine.dispose()

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(N_WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    Showcase(spec, Drawings(tmp_path / "artifacts")).show(study, Patience())
    attributes = kept.read_attributes(study)
    n_finished = len(trials) + N_WRITERS * N_ROUNDS
    assert f"- Trials: {n_finished} of " in kept.read_note(attributes)
    figures = {name: json.loads(text) for name, text in get_plotly_graph_objects(attributes).items()}
    assert set(figures) == {"mfas-search", "mfas-best-network"}
    best = records.best_networks(study.trials, 1)[0]
    assert f"trial {best.number}, {best.score:.4f}" in json.dumps(figures["mfas-best-network"])
    given = [json.loads(value) for key, value in attributes.items() if key.startswith("dashboard:artifacts:")]
    assert f"trial-{best.number}.svg" in {record["filename"] for record in given}
    assert {record["artifact_id"] for record in given} <= {path.name for path in (tmp_path / "artifacts").iterdir()}
    storage.remove_session()
    storage.engine.dispose()
