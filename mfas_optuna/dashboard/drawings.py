"""Drawings of networks as artifacts: files that appear whole, and are drawn again where they lack."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from mfas_optuna.dashboard.attributes import trials_of_artifact
from mfas_optuna.trials import trial_id_of
from mfas_optuna.visualization.drawing import draw_alone

KIND = "image/svg+xml"
_IDENTIFIER = re.compile(r"[0-9a-fA-F-]{1,200}")


class Drawings:
    """An artifact store of Optuna's in a folder.

    Unlike Optuna's, whose readers see half a file while it is written, it renames what is complete. Removing what is
    not there is no error: it may lie in the folder of another machine, and the dashboard would not delete its study.
    """

    def __init__(self, folder: Path, redraw: Callable[[str], bytes | None] = lambda artifact_id: None) -> None:
        """Name the folder; it is made when something is written.

        Args:
            folder: Where files lie.
            redraw: Given the identifier of an artifact that is not there, returns it, or None.
        """
        self._folder = folder
        self._redraw = redraw

    def has(self, artifact_id: str) -> bool:
        """Return whether an artifact is there as a file."""
        return self._path(artifact_id).is_file()

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Return an artifact to be read.

        Raises:
            ArtifactNotFound: It is not there.
            ValueError: It is none of the dashboard's identifiers.
        """
        try:
            return self._path(artifact_id).open("rb")
        except FileNotFoundError as error:
            drawn = self._redraw(artifact_id)
            if drawn is None:
                raise ArtifactNotFound(f"There is no artifact {artifact_id} in {self._folder}.") from error
            return io.BytesIO(drawn)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Write an artifact, so that a reader sees the old or the new one, whole.

        Raises:
            OSError: It cannot be written.
            ValueError: It is none of the dashboard's identifiers.
        """
        path = self._path(artifact_id)
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{artifact_id}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                shutil.copyfileobj(content_body, file)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def remove(self, artifact_id: str) -> None:
        """Remove an artifact, if it is there."""
        self._path(artifact_id).unlink(missing_ok=True)

    def _path(self, artifact_id: str) -> Path:
        if not _IDENTIFIER.fullmatch(artifact_id):
            raise ValueError(f"Expected an artifact's identifier of hexadecimal digits and '-', found {artifact_id!r}.")
        return self._folder / artifact_id


def drawing_of(study_name: str, trial: FrozenTrial) -> tuple[str, bytes] | None:
    """Return a trial's network as an artifact, identifier and SVG; None where the trial names no network.

    The identifier tells studies and databases apart, and is the same on every machine.
    """
    drawn = draw_alone(trial)
    if drawn is None:
        return None
    svg = drawn.encode()
    named = f"{study_name}\0{trial.number}\0{trial.datetime_start}\0".encode()
    return f"{trial_id_of(trial)}-{hashlib.sha256(named + svg).hexdigest()[:32]}", svg


def redraw_from(storage: BaseStorage) -> Callable[[str], bytes | None]:
    """Return what draws an artifact of any study of a database again, for `Drawings`."""

    def redraw(artifact_id: str) -> bytes | None:
        for study in storage.get_all_studies():
            for trial_id in trials_of_artifact(study.system_attrs, artifact_id):
                found = drawing_of(study.study_name, storage.get_trial(trial_id))
                if found is not None and artifact_id.startswith(f"{trial_id}-"):  # Not what a user has given it.
                    return found[1]
        return None

    return redraw
