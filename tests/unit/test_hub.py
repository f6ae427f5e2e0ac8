"""The package for OptunaHub: made from the sources, complete by its conventions, and at work without mfas_optuna."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hub.__main__ import _requirements, _with_relative_imports, build

from .search.helpers import make_sampler, make_study, run

ROOT = Path(__file__).parents[2]

ALONE = "import sys; sys.modules['mfas_optuna'] = None\n"
"""Makes every import of mfas_optuna fail, wherever it is installed."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("registry"))


def python(program: str, *arguments: str, cwd: Path) -> str:
    """Run a program in a new process and return what it printed."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


# The conventions, docs/decisions/0019-optunahub.md.


def test_it_lies_where_optunahub_looks_and_has_the_files(package: Path) -> None:
    assert package.parts[-3:] == ("package", "samplers", "mfas")
    files = {"README.md", "LICENSE", "__init__.py", "example.py", "requirements.txt", "tests/test_sampler.py"}
    assert all((package / file).is_file() for file in files)
    assert (package / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert (package / "LICENSE").read_text().startswith("MIT License")
    requirements = (package / "requirements.txt").read_text().split()
    assert {re.split(r"\W", requirement)[0] for requirement in requirements} == {"numpy", "optuna", "torch"}


def test_the_readme_has_the_header_and_the_sections(package: Path) -> None:
    text = (package / "README.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", maxsplit=2)
    header = yaml.safe_load(front)
    assert set(header) == {"author", "title", "description", "tags", "optuna_versions", "license"}
    assert all(isinstance(header[key], str) for key in ("author", "title", "description"))
    assert header["license"] == "MIT License"
    assert header["author"] in (package / "LICENSE").read_text()
    assert "sampler" in header["tags"]
    assert all(isinstance(item, str) for key in ("tags", "optuna_versions") for item in header[key])
    tested = re.search(r"^optuna==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert tested is not None
    assert tested[1] in header["optuna_versions"]
    assert re.findall(r"^## (.*)$", body, re.MULTILINE) == ["Abstract", "APIs", "Installation", "Example", "Others"]
    assert "<" not in body  # HTML is removed from the page.
    for shown in (body, (package / "example.py").read_text(encoding="utf-8")):
        assert 'optunahub.load_module(package="samplers/mfas")' in shown
        assert "load_local_module" not in shown


# Made from the one source.


def test_it_is_the_same_each_time_and_nothing_old_is_left(package: Path, tmp_path: Path) -> None:
    again = tmp_path / "package" / "samplers" / "mfas"
    again.mkdir(parents=True)
    (again / "old.py").touch()
    assert build(tmp_path) == again
    files = {file.relative_to(again): file.read_bytes() for file in again.rglob("*") if file.is_file()}
    assert files == {file.relative_to(package): file.read_bytes() for file in package.rglob("*") if file.is_file()}


def test_it_has_the_modules_that_the_sampler_loads_and_no_other(package: Path) -> None:
    program = (  # Past the first step, whose networks are drawn without a surrogate.
        "import sys, optuna; from mfas_optuna import MFASSampler, SearchSpace\n"
        "space = SearchSpace({'a': ['x', 'y'], 'b': ['x', 'y']}, ['relu'], max_depth=2)\n"
        "study = optuna.create_study(direction='maximize', sampler=MFASSampler(space, samples_per_step=2, seed=0))\n"
        "study.optimize(lambda trial: space.suggest(trial).depth + trial.number, n_trials=4)\n"
        "print(*sys.modules)"
    )
    loaded = {name for name in python(program, cwd=ROOT).split() if name.partition(".")[0] == "mfas_optuna"}
    written = {package / "example.py", package / "tests" / "test_sampler.py"}
    files = {file.relative_to(package) for file in package.rglob("*.py") if file not in written}
    named = {".".join(("mfas_optuna", *file.with_suffix("").parts)).removesuffix(".__init__") for file in files}
    assert named == loaded


@pytest.mark.parametrize(
    ("statement", "file", "expected"),
    [
        ("from mfas_optuna.search.plan import Planner", "search/sampler.py", "from .plan import Planner"),
        ("from mfas_optuna.space import SearchSpace", "search/sampler.py", "from ..space import SearchSpace"),
        ("from mfas_optuna import trials as records", "search/sampler.py", "from .. import trials as records"),
        ("from mfas_optuna.search import steps", "search/sampler.py", "from . import steps"),
        ("from mfas_optuna.search import steps", "trials.py", "from .search import steps"),
        (
            "def f():\n    from mfas_optuna.space import (\n        a,\n    )",
            "space.py",
            "def f():\n    from .space import (",
        ),
    ],
)
def test_imports_become_relative(statement: str, file: str, expected: str) -> None:
    source, needed, libraries = _with_relative_imports(statement, Path(file))
    assert source.startswith(expected)
    assert needed
    assert not libraries


@pytest.mark.parametrize(
    "statement",
    ["import mfas_optuna.space", "from .space import SearchSpace", "from mfas_optuna import MFASSampler"],
)
def test_imports_that_it_cannot_follow_are_refused(statement: str) -> None:
    with pytest.raises(SystemExit, match=r"search/sampler.py, line 2: expected"):
        _with_relative_imports(f"import torch\n{statement}", Path("search/sampler.py"))


def test_a_library_that_the_project_does_not_require_is_refused() -> None:
    assert _requirements({"torch"})[0].startswith("torch>=")
    with pytest.raises(SystemExit, match="unheard_of"):
        _requirements({"torch", "unheard_of"})


# At work.


def test_without_mfas_optuna_it_proposes_the_same(package: Path) -> None:
    program = ALONE + (
        "import json, optuna\n"
        "from mfas import MFASSampler, SearchSpace\n"
        "optuna.logging.set_verbosity(optuna.logging.WARNING)\n"
        "space = SearchSpace({'audio': ['a1', 'a2'], 'image': ['i1', 'i2']}, ['relu', 'sigmoid'], max_depth=3)\n"
        "study = optuna.create_study(direction='maximize', sampler=MFASSampler(\n"
        "    space, n_iterations=2, samples_per_step=4, seed=0))\n"
        "scores = iter(json.loads(sys.argv[1]))\n"
        "study.optimize(lambda trial: space.suggest(trial) and next(scores))\n"
        "print(json.dumps([trial.params for trial in study.trials]))\n"
    )
    study = run(make_study(make_sampler()))
    scores = json.dumps([trial.value for trial in study.trials])
    assert json.loads(python(program, scores, cwd=package.parent)) == [trial.params for trial in study.trials]


@pytest.fixture
def optunahub() -> None:
    if importlib.util.find_spec("optunahub") is None:
        reason = "optunahub is not installed; pip install -c constraints.txt -e '.[dev]'"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.mark.usefixtures("optunahub")
@pytest.mark.parametrize("what", ["example.py", "README.md"])
def test_its_examples_run_through_optunahub(package: Path, what: str) -> None:
    program = ALONE + (
        "import functools, optunahub\n"
        "optunahub.load_module = functools.partial(optunahub.load_local_module, registry_root='package')\n"
        "exec(sys.argv[1])\n"
    )
    text = (package / what).read_text(encoding="utf-8")
    if what == "README.md":
        (text,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    printed = python(program, text, cwd=package.parents[2])
    assert ("the best scores" if what == "example.py" else "Architecture(layers=(FusionLayer(") in printed


@pytest.mark.usefixtures("optunahub")
def test_its_tests_pass(package: Path) -> None:
    program = ALONE + "import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    printed = python(program, "-q", "-p", "no:cacheprovider", "package", cwd=package.parents[2])
    assert " passed" in printed
    assert "skipped" not in printed
