"""Operational settings: one precedence rule, command line > environment > study file > default."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from mfas_optuna.errors import SpecError
from mfas_optuna.spec.study import StudySpec

_STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def check_study_name(name: str) -> str:
    """Return the name, when it can safely become part of a path.

    Raises:
        SpecError: It is empty, too long, or has other characters than letters, digits, '_', '.' and '-'.
    """
    if not _STUDY_NAME.fullmatch(name):
        raise SpecError(
            [
                "--name: expected up to 100 letters, digits, '_', '.' or '-', starting with a letter or digit; "
                f"found {name!r}."
            ]
        )
    return name


def home_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Return the home of the database, weights, backbones, features and built data: MFAS_HOME, or `storage/` here."""
    values = os.environ if environment is None else environment
    return Path(values.get("MFAS_HOME") or "storage").absolute()


def storage_url(
    option: str | None, spec: StudySpec | None, home: Path, environment: Mapping[str, str] | None = None
) -> str:
    """Return the database URL: `--storage`, MFAS_STORAGE, the study file's, or `mfas.db` in the home folder."""
    values = os.environ if environment is None else environment
    in_home = f"sqlite:///{quote(str(home / 'mfas.db'))}"  # A folder's name may have what means something in a URL.
    return option or values.get("MFAS_STORAGE") or (spec and spec.storage) or in_home


def weights_location(
    option: str | None, spec: StudySpec | None, environment: Mapping[str, str] | None = None
) -> str | None:
    """Return where weights are kept: `--weights`, MFAS_WEIGHTS, the study file's, or None for the home folder.

    A URL stays as it is; a folder becomes an absolute one, from the study file's folder where that names it.
    """
    values = os.environ if environment is None else environment
    given = option or values.get("MFAS_WEIGHTS")
    start = Path.cwd()
    if not given and spec is not None and spec.weights:
        given, start = spec.weights, spec.folder
    if not given or "://" in given:
        return given or None
    return str((start / Path(given).expanduser()).absolute())


def data_root(option: Path | None, environment: Mapping[str, str] | None = None) -> Path | None:
    """Return the folder of raw data: `--data-root`, MFAS_DATA, or None."""
    values = os.environ if environment is None else environment
    if option is not None:
        return option
    return Path(values["MFAS_DATA"]) if values.get("MFAS_DATA") else None


def n_workers(option: int | None, environment: Mapping[str, str] | None = None) -> int:
    """Return how many workers this machine runs: `--workers`, MFAS_WORKERS, or 1.

    Raises:
        SpecError: MFAS_WORKERS is no number from 1.
    """
    values = os.environ if environment is None else environment
    if option is not None:
        return option
    text = values.get("MFAS_WORKERS") or "1"
    if not text.isdecimal() or int(text) < 1:
        raise SpecError([f"MFAS_WORKERS: expected a number from 1, found {text!r}."])
    return int(text)


def beat_s(environment: Mapping[str, str] | None = None) -> float:
    """Return after how many seconds a worker writes again that it lives: MFAS_BEAT, or 5.

    Raises:
        SpecError: It is no number above 0.
    """
    return _seconds("MFAS_BEAT", 5.0, environment)


def grace_s(environment: Mapping[str, str] | None = None) -> float:
    """Return after how many seconds without a sign of life a worker is taken for dead: MFAS_GRACE, or 60.

    Raises:
        SpecError: It is no number above 0, or less than five times MFAS_BEAT.
    """
    grace, beat = _seconds("MFAS_GRACE", 60.0, environment), beat_s(environment)
    if grace < 5 * beat:
        raise SpecError(
            [f"MFAS_GRACE: expected at least five times MFAS_BEAT ({beat:g} s), found {grace:g}. Raise it."]
        )
    return grace


def patience_s(environment: Mapping[str, str] | None = None) -> float:
    """Return how many seconds a worker waits at most for a database that is away: MFAS_PATIENCE, or 180.

    Raises:
        SpecError: It is no number above 0.
    """
    return _seconds("MFAS_PATIENCE", 180.0, environment)


def _seconds(name: str, default: float, environment: Mapping[str, str] | None) -> float:
    values = os.environ if environment is None else environment
    text = values.get(name) or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise SpecError([f"{name}: expected a number of seconds above 0, found {text!r}."])
    return seconds


def joint(option: str | None, environment: Mapping[str, str] | None = None) -> int | None:
    """Return how many networks are trained at once: `--joint`, MFAS_JOINT, or None, which leaves it to the study.

    Raises:
        SpecError: It is neither `auto` nor a number from 1.
    """
    values = os.environ if environment is None else environment
    source, text = ("--joint", option) if option is not None else ("MFAS_JOINT", values.get("MFAS_JOINT") or "auto")
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise SpecError([f"{source}: expected auto or a number from 1, found {text!r}."])
    return int(text)
