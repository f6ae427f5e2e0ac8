"""Schemas of what commands print, and their document."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
from typer.testing import CliRunner

from mfas_optuna.cli import app
from mfas_optuna.cli.options import JSON_VERSION
from mfas_optuna.cli.schemas import SCHEMAS, document, schema
from mfas_optuna.errors import BlobError
from mfas_optuna.report import machine

from ...schemas import check_output, validator
from ..report.helpers import Database

ROOT = Path(__file__).parents[3]
NO_RESULT = {"worker", "dashboard", "schema", "slurm"}
"""Commands that go on until they are ended, and the one that prints JSON in any case."""


def commands(group: Any, prefix: str = "") -> dict[str, Any]:
    """Return every command by name, those of groups too."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= commands(command, f"{prefix}{name} ")
        else:
            found[f"{prefix}{name}"] = command
    return found


def test_every_command_with_a_result_prints_json_and_has_a_schema() -> None:
    found = commands(typer.main.get_command(app))
    with_json = {name for name, of in found.items() if any("--json" in option.opts for option in of.params)}
    assert with_json == set(SCHEMAS) - {"search --dry-run", "error"}
    assert set(found) - with_json <= NO_RESULT


def test_the_document_is_current() -> None:
    """Otherwise run `python docs/make_json.py`."""
    location = importlib.util.spec_from_file_location("make_json", ROOT / "docs" / "make_json.py")
    assert location is not None
    assert location.loader is not None
    made = importlib.util.module_from_spec(location)
    location.loader.exec_module(made)
    _, _, written = made.FILE.read_text(encoding="utf-8").partition(made.MARK)
    assert written.strip() == document().strip()


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_valid_and_know_the_version(name: str) -> None:
    assert validator(name)
    assert schema(name)["properties"]["version"]["const"] == JSON_VERSION == machine.JSON_VERSION
    assert not schema(name)["additionalProperties"]


def test_schema_prints_one_or_all() -> None:
    runner = CliRunner()
    assert json.loads(runner.invoke(app, ["schema", "data", "check"]).stdout) == schema("data check")
    assert list(json.loads(runner.invoke(app, ["schema"]).stdout)) == list(SCHEMAS)
    wrong = runner.invoke(app, ["schema", "stats"])
    assert wrong.exit_code == 2
    assert "Did you mean status" in wrong.stderr


def test_an_error_is_json_too() -> None:
    runner = CliRunner()
    arguments = ["show", "--study", "nowhere", "--json"]
    failed = runner.invoke(app, arguments)
    assert failed.exit_code == 2
    check_output(arguments, failed.stdout, 2)
    error = json.loads(failed.stdout)["error"]
    assert error["type"] == "UnknownStudyError"
    assert failed.stderr == f"mfas-optuna: {error['message']}\n"
    assert runner.invoke(app, arguments[:-1]).stdout == ""
    mistyped = runner.invoke(app, ["show", "--stody", "digits", "--json"])
    assert (mistyped.exit_code, mistyped.stdout) == (2, "")


def test_an_error_tells_its_problems_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text("[spice]\nx = 1\n", encoding="utf-8")
    failed = CliRunner().invoke(app, ["show", "--study", str(tmp_path / "wrong.toml"), "--json"])
    error = json.loads(failed.stdout)["error"]
    assert len(error["details"]) > 1
    assert error["message"].splitlines() == error["details"]


def test_an_unexpected_error_is_json_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(study: str) -> Path:
        raise RuntimeError("a fault")

    monkeypatch.setattr("mfas_optuna.spec.find_study", fail)
    failed = CliRunner().invoke(app, ["show", "--study", "digits", "--json"])
    assert failed.exit_code == 1
    error = json.loads(failed.stdout)["error"]
    assert (error["type"], error["message"], error["exit_code"]) == ("RuntimeError", "a fault", 1)


def test_a_blob_that_is_missing_leads_to_fsck(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(study: str) -> Path:
        raise BlobError("ab", "weights/ab: the weight blob is missing.")

    monkeypatch.setattr("mfas_optuna.spec.find_study", fail)
    failed = CliRunner().invoke(app, ["show", "--study", "digits", "--json"])
    assert failed.exit_code == 2
    for text in (failed.stderr, json.loads(failed.stdout)["error"]["message"]):
        assert "weights/ab: the weight blob is missing. `mfas-optuna fsck` says what refers to it" in text


def test_a_field_that_is_not_documented_is_noticed() -> None:
    values = {"version": 1, "studies": []}
    validator("studies").validate(values)
    for wrong in ({**values, "more": 1}, {"version": 2, "studies": []}, {"version": 1}):
        with pytest.raises(jsonschema.ValidationError):
            validator("studies").validate(wrong)


def test_a_report(tmp_path: Path) -> None:
    """Of a study with everything, and of one that was only begun."""
    stored = Database(tmp_path)
    begun = ["report", "--study", "digits", "--storage", stored.url, "--json"]
    check_output(begun, CliRunner().invoke(app, begun).stdout, 0)
    stored.describe("A card")
    stored.train("mfas", "MFAS", (0.9, 0.91))
    stored.train("mfas", "MFAS", (0.92, None), step="unfrozen")
    stored.train("late", "late fusion", (0.8, 0.81))
    stored.train("random", "random search", (0.85, 0.8))
    result = CliRunner().invoke(app, begun)
    check_output(begun, result.stdout, 0)
    same = CliRunner().invoke(app, [*begun[:-1], "--format", "json"])
    assert same.stdout == result.stdout
    refused = CliRunner().invoke(app, [*begun, "--format", "csv"])
    assert refused.exit_code == 2
    assert "--json: expected no other --format" in refused.stderr
    stored.storage.engine.dispose()


def test_making_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that need no training."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MFAS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MFAS_DATA", raising=False)
    (tmp_path / "net.py").write_text("import torch\ndef net():\n    return torch.nn.Linear(3, 2)\n", encoding="utf-8")
    for arguments in (
        ["studies", "--json"],
        ["show", "--study", "digits", "--json"],
        ["init", "mine", "--python", "--modality", "image", "--modality", "audio", "--json"],
        ["taps", "net.py:net", "--shape", "3", "--json"],
        ["data", "make", "mmimdb", "made", "--samples", "40", "--json"],
        ["doctor", "--study", "avmnist", "--json"],
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == (1 if arguments[0] == "doctor" else 0), result.output
        check_output(arguments, result.stdout, result.exit_code)
    asks = CliRunner().invoke(app, ["init", "other", "--json"])
    assert asks.exit_code == 2
    assert "with --json nothing is asked" in json.loads(asks.stdout)["error"]["message"]
