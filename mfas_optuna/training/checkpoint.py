"""A training under way, on disk, from which an interrupted one goes on.

A folder holds `state-N.safetensors` and `checkpoint.json` (key, values, name and SHA-256 of the state). The state is
written first; the JSON file that names it replaces the one before as a whole, so that one of the two always counts.
One process at a time may use a folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mfas_optuna.errors import BlobError, HomeError
from mfas_optuna.registry.blobs import decode_layer, encode_layer

_log = logging.getLogger(__name__)

VERSION = 2
_INDEX = "checkpoint.json"


class Checkpoint:
    """The latest state of one training."""

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        """Keep where it lies; nothing is read.

        Args:
            folder: Of this training alone.
            key: What the training follows from, as JSON values.
        """
        self.folder = folder
        self._key = json.loads(json.dumps({"version": VERSION, **key}))

    def read(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Return values and tensors as they were last written, on the CPU.

        None where there are none, where they follow from something else, or where they are damaged, of which a warning
        tells; such a folder is removed.

        Raises:
            HomeError: It cannot be removed.
        """
        if not self.folder.exists():
            return None
        try:
            index = json.loads((self.folder / _INDEX).read_text(encoding="utf-8"))
            if index["key"] == self._key:
                content = (self.folder / index["state"]).read_bytes()
                if hashlib.sha256(content).hexdigest() != index["sha256"]:
                    raise ValueError(f"{index['state']} does not match its SHA-256")
                return dict(index["values"]), decode_layer(content)
            _log.info("%s: of another training, removed.", self.folder)
        except FileNotFoundError as error:
            if Path(error.filename).name != _INDEX:  # Else it was interrupted before the first state was complete.
                self._warn(error)
        except (OSError, ValueError, KeyError, TypeError, BlobError) as error:
            self._warn(error)
        self.discard()
        return None

    def _warn(self, error: Exception) -> None:
        _log.warning(
            "%s: the checkpoint is damaged (%s: %s). Training begins anew.", self.folder, type(error).__name__, error
        )

    def write(self, number: int, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Replace what was written before; when this returns, it will survive a crash.

        Args:
            number: Differs from that of the state before.
            values: JSON values.
            tensors: Of any device.

        Raises:
            HomeError: The folder cannot be written.
        """
        content, state = encode_layer(tensors), f"state-{number}.safetensors"
        digest = hashlib.sha256(content).hexdigest()
        index = {"key": self._key, "values": values, "state": state, "sha256": digest}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write(state, content)
            self._write(_INDEX, json.dumps(index, indent=1).encode())
            for path in self.folder.iterdir():
                if path.name not in (state, _INDEX):
                    path.unlink()
        except OSError as error:
            raise HomeError(
                f"{self.folder}: the checkpoint cannot be written: {error.strerror}. Free space or set MFAS_HOME."
            ) from error

    def _write(self, name: str, content: bytes) -> None:
        temporary = self.folder / f".{name}.tmp"
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.folder / name)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def discard(self) -> None:
        """Remove the folder.

        Raises:
            HomeError: It cannot be removed.
        """
        try:
            shutil.rmtree(self.folder)
        except OSError as error:
            raise HomeError(f"{self.folder}: cannot be removed: {error.strerror}. Remove it.") from error
