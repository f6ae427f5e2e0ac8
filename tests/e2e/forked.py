"""Commands as processes of their own, forked from one that has imported everything already.

Importing torch and Optuna takes three seconds of each command, and the suite runs some hundreds. What a command does,
with its own environment, folder, output and exit code, is the same; how it starts is tested elsewhere.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_PRELOADED = [
    "mfas_optuna.api",
    "mfas_optuna.cli.output",
    "mfas_optuna.cli.view",
    "mfas_optuna.datasets.digits",
    "mfas_optuna.export",
    "mfas_optuna.objective",
    "mfas_optuna.report",
    "mfas_optuna.report.html",
    "mfas_optuna.worker",
    "sklearn.datasets",
    "torch",
]
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(_PRELOADED)


def run(
    arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a command of mfas-optuna to its end, as `subprocess.run` would.

    Raises:
        subprocess.TimeoutExpired: It took longer, and was killed.
    """
    with tempfile.TemporaryDirectory() as place:
        output, errors = Path(place, "output"), Path(place, "errors")
        process = _context.Process(
            target=_work, args=(list(arguments), str(folder), dict(environment), str(output), str(errors))
        )
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(arguments), timeout, output.read_text(), errors.read_text())
        code = process.exitcode
        assert code is not None
        texts = [path.read_text(encoding="utf-8") if path.exists() else "" for path in (output, errors)]
        process.close()
    return subprocess.CompletedProcess(list(arguments), code, *texts)


def _work(arguments: list[str], folder: str, environment: dict[str, str], output: str, errors: str) -> None:
    from mfas_optuna.cli import main

    for number, path in ((1, output), (2, errors)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["mfas-optuna", *arguments]
    main()
