"""What shells are offered."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mfas_optuna import finals
from mfas_optuna import storage as database
from mfas_optuna.cli import app, completion
from mfas_optuna.spec import study_files

from ..report.helpers import Database

COMMAND = Path(sys.executable).parent / "mfas-optuna"


def offered(line: str, **environment: str) -> list[str]:
    """Return what bash is offered for the last word of a line."""
    arguments = line.split(" ")
    values = {
        "_MFAS_OPTUNA_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(arguments) - 1),
        **environment,
    }
    result = CliRunner().invoke(app, [], env=values, prog_name="mfas-optuna")
    assert result.exit_code == 0, result.output
    return result.stdout.split()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MFAS_HOME", str(tmp_path))
    monkeypatch.delenv("MFAS_STORAGE", raising=False)
    stored = Database(tmp_path)
    stored.add_search("digits-seed3", stored.spec)
    stored.add_search("other", stored.spec)
    assert stored.final.study_name == "digits-final"
    stored.storage.engine.dispose()
    return tmp_path


def test_commands_and_options() -> None:
    assert offered("mfas-optuna sta") == ["status"]
    assert {"--study", "--storage", "--sampler", "--seed"} <= set(offered("mfas-optuna search --s"))


@pytest.mark.parametrize("option", ["search --study", "doctor -s", "data build", "taps --study", "gc --study"])
def test_names_of_studies(option: str) -> None:
    assert offered(f"mfas-optuna {option} avmnist") == [name for name in study_files() if name.startswith("avmnist")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("search --sampler ", ["mfas", "random", "tpe"]),
        ("search --mode p", ["paper"]),
        ("search --device c", ["cpu"]),
        ("export --step ", ["frozen", "unfrozen"]),
        ("data make n", ["ntu"]),
        ("data make mmimdb x --layout r", ["raw"]),
        ("init x --target multi", ["multiclass", "multilabel"]),
    ],
)
def test_words(monkeypatch: pytest.MonkeyPatch, line: str, expected: list[str]) -> None:
    monkeypatch.setattr(completion, "_NVIDIA", Path("/nonexistent"))
    assert offered(f"mfas-optuna {line}") == expected


def test_devices_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(completion, "_NVIDIA", tmp_path)
    context = typer.Context(typer.main.get_command(app))
    assert completion.devices(context, "cuda") == ["cuda", "cuda:0", "cuda:1"]


def test_names_in_the_database(home: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in home.iterdir()}
    assert offered("mfas-optuna status --study digits --name ") == ["digits", "digits-seed3", "other"]
    assert offered("mfas-optuna status --study digits --name digits-") == ["digits-seed3"]
    assert {path: path.stat().st_mtime_ns for path in home.iterdir()} == before
    assert completion.FINAL_SUFFIX == finals.SUFFIX


def test_names_in_a_database_that_is_named(home: Path, tmp_path: Path) -> None:
    moved = tmp_path / "a folder" / "x.db"
    moved.parent.mkdir()
    shutil.move(home / "mfas.db", moved)
    assert offered("mfas-optuna status --study digits --name o") == []
    url = f"sqlite:///{str(moved).replace(' ', '%20')}"
    assert offered(f"mfas-optuna status --study digits --storage {url} --name o") == ["other"]
    assert offered("mfas-optuna status --name o", MFAS_STORAGE=url) == ["other"]


def test_names_on_postgresql(postgres_url: str) -> None:
    stored = database.open_storage(postgres_url)
    stored.create_new_study([], "one")
    stored.engine.dispose()
    assert offered("mfas-optuna status --study digits --name ", MFAS_STORAGE=postgres_url) == ["one"]


@pytest.mark.parametrize(
    "url", ["nonsense", "sqlite:////nonexistent/x.db", "postgresql+psycopg://me@127.0.0.1:1/x", "mysql://x/y"]
)
def test_nothing_is_offered_where_nothing_can_be_found(url: str) -> None:
    assert offered("mfas-optuna status --study digits --name ", MFAS_STORAGE=url) == []
    assert offered("mfas-optuna status --study nowhere --name ") == []


def test_neither_torch_nor_optuna_is_imported(home: Path) -> None:
    program = (
        "import sys, typer; from mfas_optuna.cli import app, completion\n"
        "c = typer.Context(typer.main.get_command(app))\n"
        "assert completion.names(c, '') and completion.studies(c, '') and completion.devices(c, 'c')\n"
        "sys.exit('torch' in sys.modules or 'optuna' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_it_is_installed_for_bash_and_works_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("There is no bash on this machine.")
    monkeypatch.setenv("HOME", str(tmp_path))
    # It is installed for the shell that it is called from; a last command would take that shell's place.
    subprocess.run([bash, "-c", f'"{COMMAND}" --install-completion && true'], check=True, capture_output=True)
    script = (
        "source ~/.bash_completions/mfas-optuna.sh\n"
        f"PATH={COMMAND.parent}:$PATH\n"
        "COMP_WORDS=(mfas-optuna search --mode c) COMP_CWORD=3\n"
        '_mfas_optuna_completion mfas-optuna; echo "${COMPREPLY[@]}"'
    )
    result = subprocess.run([bash, "-c", script], check=True, capture_output=True, text=True)
    assert result.stdout == "calibrated\n"
