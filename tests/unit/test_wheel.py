"""What a built wheel holds: besides the code, the files that it reads at run time."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_files_that_are_read_at_run_time_are_in_the_wheel(tmp_path: Path) -> None:
    if importlib.util.find_spec("hatchling") is None:
        if os.environ.get("CI"):
            pytest.fail("hatchling, which builds the wheel, is not installed")
        pytest.skip("hatchling, which builds the wheel, is not installed")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"mfas_optuna/_studies/{file.name}" for file in (ROOT / "studies").glob("*.toml")}
    package = ROOT / "mfas_optuna"
    expected |= {
        f"mfas_optuna/{file.relative_to(package)}"
        for file in package.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {"mfas_optuna/datasets/ntu/missing_skeletons.txt", "mfas_optuna/spec/template.py"} <= expected
    assert expected <= names, expected - names
