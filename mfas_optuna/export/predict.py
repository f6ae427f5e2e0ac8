"""Predictions of an exported model on new samples, by its program; model.py is not run.

Shapes: B samples, C outputs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mfas_optuna.errors import DataError, DataNotFoundError, ExportError
from mfas_optuna.export.files import DESCRIPTION, FORMAT, FORMAT_VERSION, PROGRAM, WEIGHTS, file_digest
from mfas_optuna.export.program import load_program
from mfas_optuna.target import Target

SAMPLES_AT_ONCE = 256

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Prediction:
    """What a model says of samples.

    Attributes:
        target: What is predicted.
        values_BC: Probabilities of the classes, which sum to 1, or of each label; or values in the labels' units.
    """

    target: Target
    values_BC: npt.NDArray[np.float32]

    def as_records(self) -> list[dict[str, Any]]:
        """Return JSON values of each sample: `class` or `labels` with `probabilities`, or `values`."""
        return [self._record(values_C) for values_C in self.values_BC]

    def _record(self, values_C: npt.NDArray[np.float32]) -> dict[str, Any]:
        by_name = {name: float(value) for name, value in zip(self.target.names, values_C, strict=True)}
        if self.target.kind == "multiclass":
            return {"class": self.target.names[int(values_C.argmax())], "probabilities": by_name}
        if self.target.kind == "multilabel":
            return {"labels": [name for name, value in by_name.items() if value > 0.5], "probabilities": by_name}
        return {"values": by_name}


@dataclass(frozen=True)
class Model:
    """An exported model.

    Attributes:
        folder: Where it lies.
        description: What architecture.json holds.
        target: What it predicts.
        run: From inputs by the names of their arguments, (B, ...) each, to outputs (B, C).
    """

    folder: Path
    description: Mapping[str, Any]
    target: Target
    run: Callable[..., Tensor]

    def predict(self, inputs: Mapping[str, Array]) -> Prediction:
        """Return predictions for new samples.

        Args:
            inputs: An array of each input by its name: a batch (B, ...), or one sample of every input.

        Raises:
            DataError: An input is missing, unknown, of another shape or type or not finite, or an output is.
        """
        inputs, _ = check_inputs({name: (name, np.asarray(array)) for name, array in inputs.items()}, self.description)
        arguments = {name: of["argument"] for name, of in self.description["inputs"].items()}
        n_samples = len(next(iter(inputs.values())))
        parts = []
        with torch.inference_mode():
            for start in range(0, n_samples, SAMPLES_AT_ONCE):
                rows = slice(start, start + SAMPLES_AT_ONCE)
                # Copied, since torch refuses to share memory that cannot be written.
                given = {arguments[name]: torch.from_numpy(np.array(array[rows])) for name, array in inputs.items()}
                parts.append(self._scaled(self.run(**given)))
        values_BC = torch.cat(parts).numpy()
        if not np.isfinite(values_BC).all():
            row = int(np.argmin(np.isfinite(values_BC).all(axis=1)))
            raise DataError(
                f"Sample {row}: the outputs are not finite. Are its inputs of the size of those in training?"
            )
        return Prediction(self.target, values_BC)

    def _scaled(self, outputs_BC: Tensor) -> Tensor:
        if self.target.kind == "multiclass":
            return outputs_BC.softmax(dim=1)
        return outputs_BC.sigmoid() if self.target.kind == "multilabel" else outputs_BC


def load_model(folder: str | PathLike[str]) -> Model:
    """Load an exported model from its description and its program, once all files are what they were.

    Raises:
        DataNotFoundError: There is no such folder.
        ExportError: It holds no exported model, one of another version, or a damaged one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataNotFoundError(f"{folder}: expected the folder of an exported model, found none. Mend --model.")
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        found_format, version = description["format"], description["version"]
    except FileNotFoundError as error:
        raise ExportError(
            f"{folder}: expected an exported model, found no {DESCRIPTION}. Write one with `mfas-optuna export`."
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{path}: cannot be read ({type(error).__name__}). Export the model again.") from error
    if (found_format, version) != (FORMAT, FORMAT_VERSION):
        raise ExportError(
            f"{path}: expected {FORMAT!r} of version {FORMAT_VERSION}, found {found_format!r} of version {version!r}. "
            "Export the model again with this mfas-optuna."
        )
    try:
        target, digests = Target.from_record(description["target"]), dict(description["files"])
        for of in description["inputs"].values():
            _ = (of["argument"], np.dtype(of["dtype"]), tuple(of["shape"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ExportError(f"{path}: expected a description of a model, found {error!r}. Export it again.") from error
    for name in (PROGRAM, WEIGHTS):
        try:
            found = file_digest(folder / name)
        except OSError as error:
            raise ExportError(f"{folder / name}: cannot be read: {error.strerror}. Export the model again.") from error
        if found != digests.get(name):
            raise ExportError(
                f"{folder / name}: expected SHA-256 {str(digests.get(name))[:12]}, found {found[:12]}: it was changed "
                "after the export. Export the model again."
            )
    return Model(folder, description, target, load_program(folder / PROGRAM))


def read_inputs(arguments: Sequence[str], description: Mapping[str, Any]) -> tuple[dict[str, Array], bool]:
    """Read samples from files.

    Args:
        arguments: `NAME=FILE.npy` for each input of the model; or one FILE.npz with an array of each name.
        description: What architecture.json holds.

    Returns:
        Arrays (B, ...) by the names of inputs, and whether a single sample without a batch was given.

    Raises:
        DataError: An input is missing or unknown, or an array is not what the model takes.
        DataNotFoundError: There is no such file.
    """
    arrays: dict[str, tuple[str, Array]] = {}
    for argument in arguments:
        for name, where, array in _read(argument, description["inputs"]):
            if name in arrays:
                raise DataError(f"{where}: expected each input once, found {name} twice. Leave one out.")
            arrays[name] = (where, array)
    return check_inputs(arrays, description)


def check_inputs(
    arrays: Mapping[str, tuple[str, Array]], description: Mapping[str, Any]
) -> tuple[dict[str, Array], bool]:
    """Return samples as a model takes them.

    Args:
        arrays: By the names of inputs, each with where it comes from.
        description: What architecture.json holds.

    Returns:
        Arrays (B, ...) by the names of inputs, and whether a single sample without a batch was given.

    Raises:
        DataError: An input is missing or unknown, or an array is not what the model takes.
    """
    inputs: Mapping[str, Any] = description["inputs"]
    for name, (where, _) in arrays.items():
        if name not in inputs:
            raise DataError(f"{where}: expected {' or '.join(inputs)}, found {name!r}. Mend the name.")
    missing = [name for name in inputs if name not in arrays]
    if missing:
        raise DataError(
            f"Expected samples of {' and '.join(inputs)}, found none of {' and '.join(missing)}. Add "
            + " ".join(f"{name}=FILE.npy" for name in missing)
            + "."
        )
    checked = {
        name: _checked(*arrays[name], dtype=np.dtype(of["dtype"]), shape=tuple(of["shape"]))
        for name, of in inputs.items()
    }
    if len({is_single for _, is_single in checked.values()}) > 1:
        singles = [name for name, (_, is_single) in checked.items() if is_single]
        raise DataError(
            f"Expected a batch of every input or a single sample of each, found a single one of {', '.join(singles)} "
            "alone. Add an axis in front of it."
        )
    lengths = {name: len(array) for name, (array, _) in checked.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"Expected as many samples of every input, found {found}. Give samples that belong together.")
    if 0 in lengths.values():
        raise DataError("Expected at least one sample, found none. Give some.")
    return {name: array for name, (array, _) in checked.items()}, next(iter(checked.values()))[1]


def _read(argument: str, inputs: Mapping[str, Any]) -> list[tuple[str, str, Array]]:
    """Return name, place and array of each input that an argument gives."""
    name, sign, text = argument.partition("=")
    is_named = bool(sign)
    path = Path(text if is_named else argument)
    if not is_named and path.suffix != ".npz":
        raise DataError(
            f"{argument}: expected INPUT=FILE.npy, or a FILE.npz with an array of each input "
            f"({', '.join(inputs)}). Say which input it is."
        )
    if is_named and path.suffix != ".npy":
        raise DataError(f"{argument}: expected a file that ends in .npy, found {path.name!r}. Save it with numpy.save.")
    try:
        with path.open("rb") as stream:  # numpy leaves a damaged archive open.
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray) != is_named:
                raise ValueError("its ending does not say what it is")
            if not is_named:
                return [(key, f"{path}, {key}", loaded[key]) for key in loaded.files]
    except FileNotFoundError as error:
        raise DataNotFoundError(f"{path}: expected a file of samples, found none. Mend the path.") from error
    except (OSError, ValueError, EOFError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: cannot be read as arrays of numbers: {error}. Save it with numpy.save.") from error
    except Exception as error:  # zipfile.BadZipFile, zlib.error and whatever else a damaged archive raises.
        raise DataError(f"{path}: cannot be read: {error}. Save it again.") from error
    return [(name, str(path), loaded)]


def _checked(where: str, array: Array, *, dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[Array, bool]:
    """Return samples (B, ...) of the type that the model takes, and whether it was one without a batch."""
    expected = f"{dtype} (B, {', '.join(map(str, shape))}), or one sample without B"
    is_single = array.shape == shape
    if not is_single and array.shape[1:] != shape:
        raise DataError(f"{where}: expected {expected}, found shape {array.shape}. Give what the model was trained on.")
    is_right = array.dtype == dtype or (dtype == np.float32 and np.issubdtype(array.dtype, np.floating))
    if not is_right:
        raise DataError(f"{where}: expected {expected}, found {array.dtype}. Give what the model was trained on.")
    batch = array[None] if is_single else array
    if not np.isfinite(batch).all():
        row = int(np.argmin(np.isfinite(batch.reshape(len(batch), -1)).all(axis=1)))
        raise DataError(f"{where}: NaN or infinity, the first in sample {row}. Mend or leave out such samples.")
    return batch.astype(dtype, copy=False), is_single
