"""Running Python files of the user."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from mfas_optuna import python_file
from mfas_optuna.errors import PythonFileError


def write(path: Path, text: str, time: int = 1) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    os.utime(path, ns=(time, time))
    return path


def test_a_file_is_run_once_for_each_change(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    source = (
        f"from pathlib import Path\nruns = Path({str(runs)!r})\n"
        "runs.write_text((runs.read_text() if runs.exists() else '') + 'x')\nVALUE = {}\n"
    )
    path = write(tmp_path / "mine.py", source.format("1"))
    assert python_file.member(path, "VALUE") == 1
    assert python_file.load(path) is python_file.load(path)
    assert runs.read_text() == "x"
    write(path, source.format("2"), time=2)
    assert python_file.member(path, "VALUE") == 2
    assert runs.read_text() == "xx"


def test_files_beside_it(tmp_path: Path) -> None:
    """Two folders with files of the same names do not get each other's; the import path stays as it was."""
    folders, modules = list(sys.path), set(sys.modules)
    for name in ("first", "second"):
        folder = tmp_path / name
        write(folder / "beside.py", f"NAME = {name!r}\n")
        write(folder / "later.py", f"NAME = 'later ' + {name!r}\n")
        write(
            folder / "mine.py",
            "import beside\nfrom .beside import NAME\ndef later():\n    from . import later\n    return later.NAME\n",
        )
    for name in ("first", "second", "first"):
        path = tmp_path / name / "mine.py"
        beside, found = python_file.member(path, "beside"), python_file.member(path, "NAME")
        assert (beside.NAME, found) == (name, name)
    for name in ("first", "second"):
        assert python_file.call(tmp_path / name / "mine.py", "later") == f"later {name}"
    assert sys.path == folders
    assert all(name.startswith("_mfas_user_") for name in set(sys.modules) - modules)


def test_arguments_are_passed(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", "def double(x):\n    return 2 * x\n")
    assert python_file.call(path, "double", 4) == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = x / 0\n", r"mine.py, line 2: it raised ZeroDivisionError: division by zero. Mend the file."),
        ("def f():\n    raise KeyError('k')\n\nf()\n", r"mine.py, line 2: it raised KeyError: 'k'"),
        ("def f(:\n", r"mine.py, line 1: SyntaxError: "),
        (
            "import no_such_module\n",
            r"mine.py, line 1: it raised ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("import json\njson.loads('{')\n", r"mine.py, line 2: it raised json.decoder.JSONDecodeError"),
        ("import sys\nsys.exit(3)\n", r"mine.py, line 2: it raised SystemExit: 3"),
    ],
)
def test_what_a_file_raises(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "mine.py", text)
    folders, modules = list(sys.path), set(sys.modules)
    for _ in range(2):  # Not remembered as loaded.
        with pytest.raises(PythonFileError, match=message):
            python_file.load(path)
    assert sys.path == folders
    assert not [name for name in set(sys.modules) - modules if not name.startswith(("_mfas_user_", "json"))]
    write(path, "VALUE = 1\n", time=3)
    assert python_file.member(path, "VALUE") == 1


def test_what_a_call_raises(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", "import json\n\ndef f(text):\n    return json.loads(text)\n")
    with pytest.raises(PythonFileError, match=r"mine.py, line 4, in f\(\): it raised json.decoder.JSONDecodeError"):
        python_file.call(path, "f", "{")
    with pytest.raises(PythonFileError, match=r"mine.py, in f\(\): it raised TypeError: f\(\) missing 1 required"):
        python_file.call(path, "f")


def test_what_is_reported_later(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", "class Rows:\n    def __getitem__(self, row):\n        return [1][row]\n")
    rows = python_file.call(path, "Rows")
    with python_file.reporting(path, "row 0"):
        assert rows[0] == 1
    with (
        pytest.raises(
            PythonFileError, match=r"mine.py, line 3, in row 7: it raised IndexError: list index out of range"
        ),
        python_file.reporting(path, "row 7"),
    ):
        rows[7]


def test_names_near_the_one_that_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", "def audio_network():\n    pass\n")
    with pytest.raises(
        PythonFileError, match=r"define 'audio_netwrk', found no such name. Did you mean 'audio_network'"
    ):
        python_file.member(path, "audio_netwrk")
    with pytest.raises(PythonFileError, match=r"no such name\.$"):
        python_file.member(write(tmp_path / "empty.py", ""), "anything")


@pytest.mark.parametrize(("name", "message"), [("none.py", "found none"), ("", "cannot be read: Is a directory")])
def test_no_file(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(PythonFileError, match=message):
        python_file.load(tmp_path / name)
