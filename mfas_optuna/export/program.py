"""Files of torch.export without pickled objects.

PyTorch would unpickle what such a file names as pickled, which can run any code; those that are written here name
nothing so, and others are refused. (A file that somebody crafted can still do harm: PyTorch makes no promise about
programs from strangers.)
"""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from mfas_optuna.errors import ExportError

_ALLOWED = re.compile(
    r"(data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|models/model\.json|data/sample_inputs/model\.pt|archive_format|archive_version|byteorder|version|\.data/\w+)"
)
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_SAMPLES = "data/sample_inputs/model.pt"
_PAYLOAD = re.compile(r"(weight|tensor)_\d+")


def save_program(program: ExportedProgram, path: Path) -> None:
    """Write a program without the inputs that it was traced with, which PyTorch would pickle."""
    traced_with = program.example_inputs
    program.example_inputs = None
    try:
        torch.export.save(program, path)
    finally:
        program.example_inputs = traced_with


def load_program(path: Path) -> Callable[..., Tensor]:
    """Return what a file of `save_program` computes, from keyword arguments to outputs.

    Raises:
        ExportError: It is none, has pickled objects in it, or this torch cannot load it.
    """
    try:
        problem = _problem(path)
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExportError(
            f"{path}: expected a program of torch.export, found {error}. Export the model again."
        ) from error
    if problem:
        raise ExportError(
            f"{path}: expected a program without pickled objects, found {problem}. Export the model again, with a "
            "torch that writes none, such as 2.13."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of torch's own deprecations.
            run: Callable[..., Tensor] = torch.export.load(path).module()
    except Exception as error:  # Whatever another version of torch raises.
        raise ExportError(
            f"{path}: torch {torch.__version__} cannot load it: {error}. Export the model again with this torch."
        ) from error
    return run


def _problem(path: Path) -> str:
    """Return what would be unpickled, or is unknown; empty where nothing is."""
    with zipfile.ZipFile(path) as archive:
        # All names are in one folder, whose name does not matter.
        entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        unknown = [name for name in entries if not _ALLOWED.fullmatch(name)]
        if unknown:
            return unknown[0]
        if _SAMPLES in entries and entries[_SAMPLES].file_size:
            return _SAMPLES
        for config in _CONFIGS:
            for name, payload in json.loads(archive.read(entries[config]))["config"].items():
                if payload["use_pickle"] or not _PAYLOAD.fullmatch(payload["path_name"]):
                    return f"{name} in {config}"
    return ""
