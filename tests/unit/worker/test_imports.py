"""Torch takes seconds to import: what a person waits for must not need it."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["mfas_optuna.cli", "mfas_optuna.worker.request", "mfas_optuna.worker.status"])
def test_looking_at_a_study_needs_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
