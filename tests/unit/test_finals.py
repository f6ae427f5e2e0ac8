"""Final trainings as stored trials, the choice among them, and the ledger."""

from __future__ import annotations

from dataclasses import replace

import optuna

from mfas_optuna import finals
from mfas_optuna.finals import FinalResult, FinalTraining

RECIPE = {"learning_rate": 3e-3, "weight_decay": 0.0, "dropout": 0.0}
TRAINING = FinalTraining("mfas", {"kind": "network", "notation": "[(1,1,1)]", "width": 8}, "frozen", RECIPE, 0)
RESULT = FinalResult(0.5, (0.4, 0.5, 0.45), 2, 100, 90, 1.25, "ab" * 32, "2", "cpu")


def make_study() -> optuna.Study:
    return optuna.create_study(study_name=finals.final_name("x"), direction="maximize")


def test_what_is_stored_is_read_again_once() -> None:
    study = make_study()
    finals.add(study, TRAINING, RESULT, "MFAS")
    other = replace(TRAINING, seed=1)
    finals.add(study, other, RESULT, "MFAS")
    finals.add(study, TRAINING, replace(RESULT, validation_score=0.9), "MFAS")  # Two processes at once.
    assert [(final.number, final.training, final.result) for final in finals.read(study)] == [
        (0, TRAINING, RESULT),
        (1, other, RESULT),
    ]
    trial = study.trials[0]
    assert trial.value == 0.5
    assert trial.intermediate_values == {1: 0.4, 2: 0.5, 3: 0.45}
    assert trial.user_attrs["method"] == "MFAS"
    assert trial.user_attrs["n_parameters"] == 100
    study.add_trial(optuna.trial.create_trial(value=1.0))  # Of somebody else.
    assert len(finals.read(study)) == 2


def test_validation_over_the_tuning_seeds_chooses() -> None:
    study = make_study()
    wide = {**TRAINING.head, "width": 64}
    for head, seed, score in (
        (TRAINING.head, 0, 0.6),
        (TRAINING.head, 1, 0.6),
        (wide, 0, 0.9),
        (wide, 1, 0.2),
        (wide, 2, 1.0),
    ):
        result = replace(RESULT, validation_score=score)
        finals.add(study, replace(TRAINING, head=head, seed=seed), result, "MFAS")
    stored = finals.read(study)
    best = finals.chosen(stored, "mfas", "frozen", [0, 1])
    assert best is not None
    assert best.head == TRAINING.head
    assert best.validation_mean([0, 1]) == 0.6
    of_one = finals.chosen(stored, "mfas", "frozen", [0])
    assert of_one is not None
    assert of_one.head == wide
    assert sorted(of_one.by_seed) == [0, 1, 2]
    # Seed 2 is there for one of them only, which therefore has nothing to be compared with, and is the choice.
    of_all = finals.chosen(stored, "mfas", "frozen", [0, 1, 2])
    assert of_all is not None
    assert of_all.head == wide
    assert finals.chosen(stored, "mfas", "unfrozen", [0]) is None
    assert finals.chosen(stored, "tpe", "frozen", [0]) is None


def test_every_reading_of_the_test_split_stands_in_the_ledger() -> None:
    study = make_study()
    finals.write_test_read(study, purpose="table", score=0.7, what="MFAS, seed 0", trial=3)
    finals.write_test_read(study, purpose="export", score=0.6, what="MFAS, seed 0", trial=3)
    finals.write_test_read(study, purpose="backbone", score=0.5, what="audio")
    ledger = finals.read_ledger(study)
    assert [(entry.purpose, entry.score, entry.trial) for entry in ledger] == [
        ("table", 0.7, 3),
        ("export", 0.6, 3),
        ("backbone", 0.5, None),
    ]
    assert all(entry.time.endswith("+00:00") for entry in ledger)
    assert finals.test_scores(ledger) == {3: 0.7}


def test_settings_and_titles() -> None:
    study = make_study()
    assert finals.read_settings(study) is None
    finals.write_settings(study, {"epochs": 3})
    assert finals.read_settings(study) == {"epochs": 3}
    finals.write_titles(study, {"mfas": "MFAS"})
    finals.write_titles(study, {"gmu": "GMU"})
    assert list(finals.read_titles(study).items()) == [("mfas", "MFAS"), ("gmu", "GMU")]
