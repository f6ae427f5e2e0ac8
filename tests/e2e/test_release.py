"""What is released: a source archive, and the wheel built from it, run outside the checkout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

import mfas_optuna

from .conftest import TINY

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel that was built from the source archive is installed, without what it needs."""
    if find_spec("hatchling") is None:
        if os.environ.get("CI"):
            pytest.fail("hatchling, which builds the wheel, is not installed")
        pytest.skip("hatchling, which builds the wheel, is not installed")
    folder = tmp_path_factory.mktemp("release")
    build = [sys.executable, "-m", "hatchling", "build"]
    subprocess.run([*build, "-t", "sdist", "-d", folder], cwd=ROOT, check=True, capture_output=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    source = folder / archive.name.removesuffix(".tar.gz")
    subprocess.run([*build, "-t", "wheel", "-d", folder], cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    place = folder / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", place, wheel]
    subprocess.run(pip, check=True, capture_output=True)
    return place


def run(installed: Path, folder: Path, *arguments: str) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MFAS_")}
    environment |= {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_wheel_searches_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = run(installed, tmp_path, "-c", "import mfas_optuna; print(mfas_optuna.__file__)")
    assert Path(where.strip()).is_relative_to(installed)
    studies = json.loads(run(installed, tmp_path, "-m", "mfas_optuna", "studies", "--json"))["studies"]
    assert {each["study"] for each in studies} == {file.stem for file in (ROOT / "studies").glob("*.toml")}
    assert all(Path(each["file"]).is_relative_to(installed) for each in studies)
    assert mfas_optuna.__version__ in run(installed, tmp_path, "-m", "mfas_optuna", "--version")
    (tmp_path / "tiny.toml").write_text(TINY, encoding="utf-8")
    found = json.loads(run(installed, tmp_path, "-m", "mfas_optuna", "search", "--study", "tiny.toml", "--json"))
    assert found["best"][0]["score"] > 0
    (tmp_path / "report.html").unlink(missing_ok=True)
    run(installed, tmp_path, "-m", "mfas_optuna", "report", "--study", "tiny.toml", "-o", "report.html")
    assert "Content-Security-Policy" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (installed / "mfas_optuna" / "py.typed").is_file()


def test_the_lock_names_everything_with_the_versions_that_were_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [needs for name, needs in project["optional-dependencies"].items() if name != "dev"]
    needed = {re.match(r"[\w.-]+", need)[0].lower() for need in sum(extras, project["dependencies"])}  # type: ignore[index]
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE))
    assert needed <= set(locked), needed - set(locked)
    tested = dict(
        re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    )
    tested = {name.lower().replace("_", "-"): version for name, version in tested.items()}
    assert {name: locked[name] for name in needed} == {name: tested[name] for name in needed}
    blocks = re.split(r"^(?=[\w.-]+==)", lock, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in lock
