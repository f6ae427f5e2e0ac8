"""Names in model.py, and numbers of the preparation."""

from __future__ import annotations

import ast
import keyword

from mfas_optuna.datasets import avmnist, digits
from mfas_optuna.export.preparation import LICENCES, preparation
from mfas_optuna.export.source import class_names, identifiers
from mfas_optuna.spec import AvmnistSettings, DigitsSettings
from mfas_optuna.spec.datasets import DATASET_NAMES


def test_any_modality_has_a_name_in_python() -> None:
    names = ["audio", "depth-map", "depth_map", "class", "3d", "torch", "_x", "größe", "", "self", "x"]
    found = identifiers(names)
    assert found["audio"] == "audio"
    assert len(set(found.values())) == len(names)
    for name in found.values():
        assert not keyword.iskeyword(name)
        ast.parse(f"def f({name}): pass")
    assert "torch" not in found.values()
    assert "self" not in found.values()
    classes = class_names({"a": "a_b", "b": "aB", "c": "AB"})
    assert len(set(classes.values())) == 3


def test_numbers_of_the_spectrograms_are_those_that_data_are_made_with() -> None:
    of_digits = preparation(DigitsSettings(name="digits"), "audio", "", "uint8")["spectrogram"]
    assert of_digits["window_samples"] == digits._WINDOW
    assert of_digits["hop_samples"] == digits._HOP
    assert of_digits["bands"] == digits._BANDS
    assert of_digits["range_db"] == digits._RANGE_DB
    of_avmnist = preparation(AvmnistSettings(name="avmnist"), "audio", "", "uint8")["spectrogram"]
    assert of_avmnist["window_samples"] == avmnist._WINDOW
    assert of_avmnist["hop_samples"] == avmnist._HOP
    assert of_avmnist["range_db"] == avmnist._RANGE_DB
    assert of_avmnist["sample_rate_hz"] == avmnist.SAMPLE_RATE
    assert of_avmnist["n_samples"] == avmnist.N_SAMPLES
    stored = preparation(AvmnistSettings(name="avmnist"), "image", "", "uint8")["stored_as"]
    assert (stored["offset"], stored["range"]) == (avmnist._IMAGE_OFFSET, avmnist._IMAGE_RANGE)


def test_the_words_are_those_of_the_data_card() -> None:
    card = "set: pairs.\nimage: real ones,\n  grey.\naudio: noise.\n"
    settings = DigitsSettings(name="digits")
    assert preparation(settings, "image", card, "float32") == {"before": "real ones, grey", "in_the_model": {}}
    assert preparation(settings, "video", card, "uint8") == {
        "before": "as the data set gives them",
        "in_the_model": {"divide_by": 255},
    }


def test_every_data_set_has_a_note_on_its_licence() -> None:
    assert set(LICENCES) == set(DATASET_NAMES)
