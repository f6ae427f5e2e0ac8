"""Exported forms of a model, each compared with the network that the study trained.

The module is run as its user would run it: in a process of its own, in which neither optuna nor this package can be
imported.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from mfas_optuna.errors import ExportCheckError, ExportError
from mfas_optuna.export.files import ONNX, OUTPUTS, PROGRAM, SOURCE
from mfas_optuna.export.program import load_program, save_program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn
    from torch.export import ExportedProgram

TOLERANCE = 1e-4
"""Of a difference from the study's own network, over the larger of 1 and its largest output."""
_TIMEOUT_S = 1800
_BATCH = "batch"

_RUN = """
import sys
sys.modules["optuna"] = sys.modules["mfas_optuna"] = None
folder, given, result = sys.argv[1:]
sys.path.insert(0, folder)
import torch
from safetensors.torch import load_file, save_file
from model import load
with torch.inference_mode():
    model = load(folder)
    inputs = load_file(given)
    outputs = torch.cat([model(**inputs), model(**{name: x[:1] for name, x in inputs.items()})])
save_file({"outputs": outputs.contiguous()}, result)
"""


def compare(what: str, found: Tensor, expected: Tensor) -> float:
    """Return the largest difference of outputs, over the larger of 1 and the largest of those expected.

    Raises:
        ExportCheckError: It is above the tolerance, or the shapes differ.
    """
    if found.shape != expected.shape:
        raise ExportCheckError(
            f"{what}: expected outputs of shape {tuple(expected.shape)}, found {tuple(found.shape)}. Nothing was "
            "written; this is a fault of the program, or the network does not treat samples of a batch one by one."
        )
    difference = float((found - expected).abs().max() / max(1.0, float(expected.abs().max())))
    if not difference <= TOLERANCE:  # NaN is none.
        raise ExportCheckError(
            f"{what}: expected the outputs of the study's network within {TOLERANCE:g}, found a difference of "
            f"{difference:.2g}. Nothing was written; a network that draws random numbers or keeps a state cannot be "
            "exported.",
            difference,
        )
    return difference


def check_module(folder: Path, inputs: Mapping[str, Tensor], expected_BC: Tensor) -> float:
    """Run model.py in a fresh process on all samples and on the first alone, and return the largest difference.

    Raises:
        ExportCheckError: It cannot be run so, or gives something else.
    """
    with tempfile.TemporaryDirectory() as scratch:
        given, result = Path(scratch, "inputs.safetensors"), Path(scratch, "outputs.safetensors")
        safetensors.torch.save_file({name: x.contiguous() for name, x in inputs.items()}, given)
        # Isolated, and without the caches of compiled files that would be left in the folder.
        command = [sys.executable, "-I", "-B", "-c", _RUN, str(folder), str(given), str(result)]
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, env=os.environ, cwd=scratch
        )
        if ran.returncode:
            last = ran.stderr.strip().splitlines()[-1:] or [f"exit code {ran.returncode}"]
            raise ExportCheckError(
                f"{SOURCE}: cannot be run by itself: {last[0]}. A Python file of your own must make its network "
                "without other files and without mfas_optuna. Nothing was written."
            )
        found = safetensors.torch.load_file(result)["outputs"]
    return compare(SOURCE, found, torch.cat([expected_BC, expected_BC[:1]]))


def load_module(folder: Path) -> nn.Module:
    """Run model.py in this process and return the trained model; the global generator of random numbers stays as it is.

    Raises:
        ExportCheckError: It raised.
    """
    spec = importlib.util.spec_from_file_location("_mfas_exported_model", folder / SOURCE)
    if spec is None or spec.loader is None:
        raise AssertionError("unreachable")
    module = importlib.util.module_from_spec(spec)
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        with torch.random.fork_rng(devices=[]):
            spec.loader.exec_module(module)
            model: nn.Module = module.load(folder)
    except Exception as error:  # Whatever the user's file raises.
        raise ExportCheckError(
            f"{SOURCE}: raised {type(error).__name__}: {error}. A Python file of your own must make its network when "
            "it is called without arguments; else please report this. Nothing was written."
        ) from error
    finally:
        sys.dont_write_bytecode = before
    return model.requires_grad_(False)


def write_program(
    folder: Path, model: nn.Module, inputs: Mapping[str, Tensor], expected_BC: Tensor
) -> tuple[ExportedProgram, float]:
    """Write model.pt2, a program for batches of any size, and return it with its largest difference.

    Raises:
        ExportCheckError: The model cannot be traced, or the program gives something else.
    """
    with _quiet():
        try:
            zeros = {name: x.new_zeros((2, *x.shape[1:])) for name, x in inputs.items()}
            program = torch.export.export(model, (), kwargs=zeros, dynamic_shapes=_shapes(inputs))
        except Exception as error:  # Whatever tracing raises.
            raise ExportCheckError(
                f"{PROGRAM}: the network cannot be traced by torch.export: {_first_line(error)}. A network of your own "
                "must take batches of any size and not branch on values. Nothing was written."
            ) from error
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # Paths of this machine.
        save_program(program, folder / PROGRAM)
        run = load_program(folder / PROGRAM)
    return program, _compare_batches(PROGRAM, lambda given: run(**given), inputs, expected_BC)


def has_onnx() -> bool:
    """Whether what ONNX files are written and checked with is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("onnx", "onnxscript", "onnxruntime"))


def write_onnx(folder: Path, program: ExportedProgram, inputs: Mapping[str, Tensor], expected_BC: Tensor) -> float:
    """Write model.onnx, for batches of any size, and return its largest difference as ONNX Runtime computes it.

    Raises:
        ExportCheckError: It cannot be converted, or gives something else.
        ExportError: What it is written or checked with is not installed.
    """
    if not has_onnx():
        raise ExportError("--onnx: expected onnx, onnxscript and onnxruntime. `pip install 'mfas-optuna[onnx]'`.")
    import onnxruntime  # Only here: no other part of the program needs it.

    with _quiet():
        try:
            converted = torch.onnx.export(program, (), dynamo=True, output_names=[OUTPUTS], verbose=False)
            if converted is None:
                raise AssertionError("unreachable")
            converted.save(folder / ONNX)
            session = onnxruntime.InferenceSession(folder / ONNX, providers=["CPUExecutionProvider"])
        except Exception as error:  # Whatever conversion raises.
            raise ExportCheckError(
                f"{ONNX}: the network cannot be converted: {_first_line(error)}. Leave it out with --no-onnx. Nothing "
                "was written."
            ) from error

    def run(given: Mapping[str, Tensor]) -> Tensor:
        outputs: Any = session.run([OUTPUTS], {name: x.numpy() for name, x in given.items()})[0]
        return torch.from_numpy(np.asarray(outputs))

    return _compare_batches(ONNX, run, inputs, expected_BC)


def _compare_batches(
    what: str, run: Callable[[Mapping[str, Tensor]], Tensor], inputs: Mapping[str, Tensor], expected_BC: Tensor
) -> float:
    with torch.inference_mode():
        differences = [
            compare(what, run({name: x[:size] for name, x in inputs.items()}), expected_BC[:size])
            for size in (len(expected_BC), 1)
        ]
    return max(differences)


def _shapes(inputs: Mapping[str, Tensor]) -> dict[str, dict[int, torch.export.Dim]]:
    batch = torch.export.Dim(_BATCH)
    return {name: {0: batch} for name in inputs}


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what torch says of its own deprecations and of what it does not find."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
