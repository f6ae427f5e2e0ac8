"""What a report reads from a database."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfas_optuna import finals
from mfas_optuna.errors import StorageError, StudyMismatchError
from mfas_optuna.report import collect
from mfas_optuna.spec import find_study, load_spec

from .helpers import ARGUMENTS, NETWORK, Database


def test_a_search_alone(stored: Database) -> None:
    stored.describe("STAND-IN: made.\ndigits: of scikit-learn.\nmore\ndigest: 12ab, of all.\n", "made")
    results = stored.collect()
    search = results.searches[0]
    assert [network.score for network in search.best] == [0.7, 0.6, 0.5]
    assert search.spread is not None
    assert search.spread.mean == pytest.approx(0.6)
    assert search.spread.std == pytest.approx(0.1)
    assert (search.n_by_state, search.n_counted, search.hardware) == ({"COMPLETE": 3, "FAIL": 1}, 3, ("2.9, cpu",))
    assert (results.card, results.stand_in, results.metric) == (
        "digits: of scikit-learn.; digest: 12ab",
        "made",
        "accuracy",
    )
    assert results.n_planned == stored.spec.n_trials_planned()
    assert search.timings_s == {"search": 90.0}
    assert (results.methods, results.ours, results.ledger, results.warnings) == ((), None, (), ())


def test_other_searches_count_as_many_trials_as_ours(stored: Database) -> None:
    stored.add_search("digits-random", stored.spec.with_search(sampler="random"), (0.1, 0.2, 0.3, 0.9))
    stored.add_search("digits-tpe", stored.spec.with_search(sampler="tpe", seed=7))
    results = stored.collect()
    assert [search.title for search in results.searches] == ["MFAS", "random search"]
    random = results.searches[1]
    assert [network.score for network in random.best] == [0.3, 0.2, 0.1]
    assert (random.n_counted, random.n_finished) == (3, 4)
    assert results.warnings == (
        "study digits-tpe is left out, since it was begun with other settings: search.seed: was 0, is now 7",
    )


def test_methods_stand_in_the_order_of_their_titles(stored: Database) -> None:
    stored.train("mfas", "MFAS", (0.9, 0.91, None))
    stored.train("mfas", "MFAS", (0.95,), step="unfrozen")
    finals.write_titles(stored.final, {"gmu": "gated unit", "late": "late fusion"})
    stored.train("late", "late fusion", (0.8,), n_parameters=0, head={"kind": "late", "label": "mean"})
    finals.write_test_read(stored.search, purpose="backbone", score=0.5, what="audio")
    results = stored.collect()
    assert [(method.name, list(method.steps)) for method in results.methods] == [
        ("mfas", ["frozen", "unfrozen"]),
        ("gmu", []),
        ("late", ["frozen"]),
    ]
    assert results.ours is results.methods[0]
    assert [method.name for method in results.others] == ["late"]
    frozen = results.methods[0].steps["frozen"]
    assert (frozen.validation, frozen.test) == ({0: 0.8, 1: 0.8, 2: 0.8}, {0: 0.9, 1: 0.91})
    assert (frozen.label, frozen.n_parameters, frozen.is_deterministic) == (
        "[(1,1,1),(2,1,2)], width 64",
        1234,
        False,
    )
    assert results.methods[2].steps["frozen"].is_deterministic
    assert results.methods[2].steps["frozen"].test_for([0, 5]) == {0: 0.8, 5: 0.8}
    assert [(read.study_name, read.entry.score) for read in results.ledger] == [
        ("digits-final", 0.9),
        ("digits-final", 0.91),
        ("digits-final", 0.95),
        ("digits-final", 0.8),
        ("digits", 0.5),
    ]
    assert results.training_s == {"frozen": 240.0, "unfrozen": 60.0}


def test_validation_chooses_among_the_trainings_of_a_method(stored: Database) -> None:
    stored.train("mfas", "MFAS", (0.9, 0.9), validation=0.7)
    stored.train("mfas", "MFAS", (0.1, 0.1), validation=0.8, head={**NETWORK, "width": 128})
    ours = stored.collect().ours
    assert ours is not None
    assert ours.steps["frozen"].label.endswith("width 128")
    assert ours.steps["frozen"].test == {0: 0.1, 1: 0.1}


def test_a_search_of_another_sampler_is_ours_where_it_is_the_study(tmp_path: Path) -> None:
    stored = Database(tmp_path, name="mine")
    spec = stored.spec.with_search(sampler="tpe")
    stored.add_search("theirs", spec)
    results = collect(stored.url, "theirs", stored.spec, ARGUMENTS)
    assert results.searches[0].title == "TPE"
    assert results.n_planned is None  # The file says another sampler.
    stored.storage.engine.dispose()


def test_wrong_studies(stored: Database, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"There is no stored study 'x'. There are: digits\."):
        collect(stored.url, "x", stored.spec, ARGUMENTS)
    with pytest.raises(StorageError, match="there is no study database"):
        collect(f"sqlite:///{tmp_path / 'none.db'}", "digits", stored.spec, ARGUMENTS)
    with pytest.raises(StudyMismatchError, match="begun with the data set digits, the study file's is avmnist"):
        collect(stored.url, "digits", load_spec(find_study("avmnist")), ARGUMENTS)
    stored.add_search("empty", stored.spec, ())
    with pytest.raises(StorageError, match="expected a complete trial to report, found none"):
        collect(stored.url, "empty", stored.spec, ARGUMENTS)
    final = stored.final
    with pytest.raises(StorageError, match="was not begun by mfas-optuna"):
        collect(stored.url, final.study_name, stored.spec, ARGUMENTS)
    stored.train("mfas", "MFAS", (0.9,))
    final.set_user_attr(finals._SETTINGS, None)
    with pytest.raises(StorageError, match="expected the settings of its final trainings, found none"):
        stored.collect()
