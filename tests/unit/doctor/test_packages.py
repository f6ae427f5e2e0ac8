"""Versions, optional extras and environment variables."""

from __future__ import annotations

import importlib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from mfas_optuna.doctor import Finding, Subject, environment, packages
from mfas_optuna.spec import StudySpec

from ..test_prepare import VALUES

SUBJECT = Subject(Path("home"), "sqlite:///home/mfas.db")


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """What is installed instead, by name; None: it is not."""
    changed: dict[str, str | None] = {}
    of_installed = metadata.version

    def version(name: str) -> str:
        if name not in changed:
            return of_installed(name)
        found = changed[name]
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)
    return changed


def named(findings: list[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def test_what_is_installed_here_is_supported() -> None:
    findings = packages.required()
    assert {finding.level for finding in findings} == {"ok"}
    assert {"Python", "mfas-optuna", "torch", "optuna", "sqlalchemy"} <= {finding.name for finding in findings}
    assert named(findings, "optuna").found.endswith("supported: <6,>=5.0")


def test_an_unsupported_version_and_a_missing_package_are_problems(versions: dict[str, str | None]) -> None:
    versions |= {"optuna": "4.9.0", "rich": None, "torch": "2.6.0+cu124"}
    findings = packages.required()
    assert named(findings, "optuna").level == named(findings, "rich").level == "problem"
    assert "pip install 'optuna" in named(findings, "optuna").remedy
    assert named(findings, "rich").found == "it is not installed"
    assert named(findings, "torch").level == "ok"


def test_a_package_that_is_there_and_broken_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = importlib.import_module

    def import_module(name: str) -> Any:
        if name == "torch":
            raise OSError("libcudart.so.12: cannot open shared object file")
        return imported(name)

    monkeypatch.setattr(importlib, "import_module", import_module)
    torch = named(packages.required(), "torch")
    assert torch.level == "problem"
    assert "cannot be imported: OSError: libcudart" in torch.found


def test_a_program_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def metadata_of(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "metadata", metadata_of)
    assert [finding.level for finding in packages.required()] == ["ok", "problem"]


@pytest.mark.parametrize(
    ("package", "extra", "subject"),
    [
        ("psycopg", "postgres", Subject(Path("home"), "postgresql+psycopg://me@host/x")),
        ("s3fs", "s3", Subject(Path("home"), "sqlite:///x.db", weights="s3://bucket/x")),
        (
            "h5py",
            "mmimdb",
            Subject(
                Path("home"),
                "sqlite:///x.db",
                spec=StudySpec.model_validate({**VALUES, "dataset": {"name": "mmimdb"}}),
                study="x",
            ),
        ),
    ],
)
def test_a_missing_extra_is_a_problem_only_where_it_is_needed(
    versions: dict[str, str | None], package: str, extra: str, subject: Subject
) -> None:
    versions[package] = None
    assert named(packages.extras(SUBJECT), f"extra {extra}").level == "ok"
    needed = named(packages.extras(subject), f"extra {extra}")
    assert (needed.level, needed.remedy) == ("problem", f"Run `pip install 'mfas-optuna[{extra}]'`.")
    assert f"{package} is not installed" in needed.found


def test_every_extra_of_the_package_is_looked_at() -> None:
    known = {*(metadata.metadata("mfas-optuna").get_all("Provides-Extra") or [])}
    assert known - {"dev"} == set(packages.EXTRAS)


def test_a_mistyped_variable_is_warned_of() -> None:
    findings = environment.variables({"MFAS_HOME": "x", "MFAS_DATAROOT": "y", "MFAS_CHILD": "alone", "HOME": "z"})
    assert [(finding.name, finding.level) for finding in findings] == [
        ("variables", "ok"),
        ("MFAS_DATAROOT", "warning"),
    ]
    assert findings[0].found == "MFAS_HOME"
    assert "MFAS_DATA" in findings[1].remedy
    assert "Known are" in environment.variables({"MFAS_QQQQQQQQ": ""})[1].remedy


def test_the_known_variables_are_those_that_the_program_reads() -> None:
    """Whoever adds one says so here too."""
    import re

    import mfas_optuna

    folder = Path(str(mfas_optuna.__file__)).parent
    text = "\n".join(file.read_text(encoding="utf-8") for file in folder.rglob("*.py") if file.name != "environment.py")
    read = set(re.findall(r"\bMFAS_[A-Z_]+\b", text)) - {"MFAS_CHILD", "MFAS_FAILPOINT"}
    assert read == set(environment.KNOWN)
