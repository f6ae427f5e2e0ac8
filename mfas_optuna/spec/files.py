"""Study files: where they are looked for, and how they are read."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path

from mfas_optuna.errors import SpecError, UnknownStudyError
from mfas_optuna.spec.study import StudySpec, validated


def study_folders() -> tuple[Path, ...]:
    """Return the folders that study files are looked for in, nearest first."""
    package = Path(__file__).resolve().parents[1]
    candidates = (Path.cwd() / "studies", package.parent / "studies", package / "_studies")
    return tuple(dict.fromkeys(folder for folder in candidates if folder.is_dir()))


def study_files() -> dict[str, Path]:
    """Return every study that can be named, with its file; a nearer folder hides the same name further away."""
    files: dict[str, Path] = {}
    for folder in study_folders():
        for file in sorted(folder.glob("*.toml")):
            files.setdefault(file.stem, file)
    return dict(sorted(files.items()))


def find_study(study: str) -> Path:
    """Return the file of a study, given by name or by a path that ends in .toml.

    Raises:
        UnknownStudyError: There is none; the message gives the nearest names.
    """
    if study.endswith(".toml"):
        path = Path(study)
        if path.is_file():
            return path
        raise UnknownStudyError(f"There is no study file {study}. Run `mfas-optuna studies` to see what there is.")
    files = study_files()
    if study in files:
        return files[study]
    if Path(f"{study}.toml").is_file():
        raise UnknownStudyError(f"There is no study {study!r}, but a file {study}.toml: write --study {study}.toml.")
    near = difflib.get_close_matches(study, files, n=3, cutoff=0.4) or list(files)
    hint = f"Did you mean {' or '.join(repr(name) for name in near)}? " if near else ""
    raise UnknownStudyError(f"There is no study {study!r}. {hint}Run `mfas-optuna studies` to see what there is.")


def load_spec(path: Path) -> StudySpec:
    """Read a study file.

    Raises:
        SpecError: The file is not TOML or does not fit the model; every problem at once, each with file and key.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError([f"{path}: not valid TOML: {error}. Mend the file."]) from error
    except OSError as error:
        raise SpecError(
            [f"{path}: cannot be read: {error.strerror}. Mend its permissions, or name another file."]
        ) from error
    return validated(values, str(path), path.absolute().parent)
