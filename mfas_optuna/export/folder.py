"""The folder of an exported model: free before, whole after."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from mfas_optuna.errors import ExportError
from mfas_optuna.export.files import DESCRIPTION


def check_free(folder: Path, *, force: bool) -> None:
    """Make sure that a model may be written there.

    Raises:
        ExportError: There is a file, or a folder with something in it that is not to be written over.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ExportError(f"{folder}: expected a folder, found a file. Name another with -o.")
    content = sorted(path.name for path in folder.iterdir())
    if content and not force:
        raise ExportError(
            f"{folder}: expected no such folder or an empty one, found {', '.join(content[:3])}. Name another with -o, "
            "or add --force to write over an exported model."
        )
    if content and DESCRIPTION not in content:
        raise ExportError(f"{folder}: expected an exported model to write over, found {content[0]}. Name another.")


def publish(temporary: Path, folder: Path) -> None:
    """Give the complete folder its name, in place of what was there."""
    for file in temporary.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    aside = folder.with_name(f".{folder.name}-old-{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(aside)
    temporary.rename(folder)
    shutil.rmtree(aside, ignore_errors=True)
