"""Where optuna-dashboard looks for what it shows besides trials: attributes of a study, their keys here alone.

optuna-dashboard has functions that write the same, but it takes 1.6 s to import, and would take them of every worker.
tests/unit/dashboard/test_attributes.py holds these to what its own functions read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import optuna

_NOTE_VERSION = "dashboard:note_ver"
_NOTE = "dashboard:note_str:"
_PLOT = "dashboard:plot_data:"
_ARTIFACTS = "dashboard:artifacts:"
_ROW_LENGTH = 2045
"""Characters of an attribute; a longer text is in several."""


def read_attributes(study: optuna.Study) -> dict[str, Any]:
    """Return a study's system attributes, in which all this is kept."""
    return dict(study._storage.get_study_system_attrs(study._study_id))


def read_note(attributes: Mapping[str, Any]) -> str:
    """Return the study's note; empty where there is none."""
    return _read_text(attributes, _NOTE)


def write_note(study: optuna.Study, attributes: Mapping[str, Any], note: str) -> None:
    """Write the study's note in Markdown; a dashboard in which it is being edited then refuses to save the older one.

    Args:
        study: The study.
        attributes: Its system attributes as stored now.
        note: The note.
    """
    _write(study, _NOTE_VERSION, attributes.get(_NOTE_VERSION, 0) + 1)
    _write_text(study, attributes, _NOTE, note)


def read_plot(attributes: Mapping[str, Any], name: str) -> str:
    """Return plotly's JSON of the plot of a name; empty where there is none."""
    return _read_text(attributes, f"{_PLOT}{name}:")


def write_plot(study: optuna.Study, attributes: Mapping[str, Any], name: str, figure: str) -> None:
    """Write a plot under a name, in place of the one that had it.

    Args:
        study: The study.
        attributes: Its system attributes as stored now.
        name: Letters, digits, hyphens.
        figure: plotly's JSON.
    """
    _write_text(study, attributes, f"{_PLOT}{name}:", figure)


def artifact_key(trial_id: int, artifact_id: str) -> str:
    """Return the attribute that says of an artifact of a trial.

    Optuna keeps this with the trial, but a finished trial cannot be changed, and only then is it known to be good; so
    this is where the dashboard itself keeps what it is given for one.
    """
    return f"{_ARTIFACTS}{trial_id}:{artifact_id}"


def write_artifact(study: optuna.Study, trial_id: int, artifact_id: str, filename: str, kind: str) -> None:
    """Give a trial an artifact that lies in the store.

    Args:
        study: The trial's study.
        trial_id: The storage's identifier of the trial.
        artifact_id: Hexadecimal digits and hyphens.
        filename: As whoever saves it gets it.
        kind: Its MIME type.
    """
    record = {"artifact_id": artifact_id, "filename": filename, "mimetype": kind, "encoding": None}
    _write(study, artifact_key(trial_id, artifact_id), json.dumps(record))


def trials_of_artifact(attributes: Mapping[str, Any], artifact_id: str) -> list[int]:
    """Return the identifiers of the trials that have an artifact; those that it was taken from are left out."""
    return [
        int(key.removeprefix(_ARTIFACTS).partition(":")[0])
        for key, value in attributes.items()
        if key.startswith(_ARTIFACTS) and key.endswith(f":{artifact_id}") and json.loads(value) is not None
    ]


def _read_text(attributes: Mapping[str, Any], prefix: str) -> str:
    n_rows = sum(key.startswith(prefix) for key in attributes)
    return "".join(str(attributes[f"{prefix}{row}"]) for row in range(n_rows))


def _write_text(study: optuna.Study, attributes: Mapping[str, Any], prefix: str, text: str) -> None:
    rows = [text[start : start + _ROW_LENGTH] for start in range(0, len(text), _ROW_LENGTH)]
    rows += [""] * (sum(key.startswith(prefix) for key in attributes) - len(rows))  # Of a longer one before.
    for row, part in enumerate(rows):
        key = f"{prefix}{row}"
        if attributes.get(key) != part:
            _write(study, key, part)


def _write(study: optuna.Study, key: str, value: Any) -> None:
    study._storage.set_study_system_attr(study._study_id, key, value)
