"""Names of what an exported model consists of, and the version of its description."""

from __future__ import annotations

import hashlib
from pathlib import Path

FORMAT = "mfas-optuna model"
FORMAT_VERSION = 1

SOURCE = "model.py"
WEIGHTS = "weights.safetensors"
DESCRIPTION = "architecture.json"
PROGRAM = "model.pt2"
ONNX = "model.onnx"
CARD = "MODEL_CARD.md"
RESERVED = frozenset({SOURCE, WEIGHTS, DESCRIPTION, PROGRAM, ONNX, CARD})

OUTPUTS = "outputs"
"""Name of the output of the ONNX file."""


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file, hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
