"""Python, this program and its packages: whether they are there, in a supported version, and can be imported."""

from __future__ import annotations

import importlib
import platform
import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from mfas_optuna.doctor.finding import Finding, Level, Subject

NAME = "mfas-optuna"
IMPORTED = {
    "numpy": "numpy",
    "optuna": "optuna",
    "scikit-learn": "sklearn",
    "sqlalchemy": "sqlalchemy",
    "torch": "torch",
}
"""Packages with compiled parts or many of their own, which may be there and yet not work, and their modules."""
EXTRAS = {
    "avmnist": "the data set avmnist from its recordings",
    "ntu": "the data set ntu, for its videos",
    "mmimdb": "the data set mmimdb",
    "distributed": "final trainings on several devices",
    "postgres": "a PostgreSQL database",
    "onnx": "`export --onnx`",
    "s3": "weights behind an s3:// URL",
}
"""What each extra is for."""


def required() -> list[Finding]:
    """Return what there is to say of Python, this program, and each package that it cannot do without."""
    try:
        own = metadata.metadata(NAME)
    except metadata.PackageNotFoundError:
        here = f"{platform.python_version()} at {sys.executable}"
        return [
            Finding("packages", "Python", "ok", here),
            Finding(
                "packages",
                NAME,
                "problem",
                "it is not installed, so that its packages are not known",
                "Run `pip install mfas-optuna`, or `pip install -e .` in a checkout.",
            ),
        ]
    return [
        _python(SpecifierSet(own["Requires-Python"] or "")),
        Finding("packages", NAME, "ok", own["Version"]),
        *(_package(requirement) for requirement in _requirements() if requirement.marker is None),
    ]


def extras(subject: Subject) -> list[Finding]:
    """Return what there is to say of each optional extra; one that is missing is a problem only where it is needed."""
    needed = _needed(subject)
    return [_extra(extra, what, is_needed=extra in needed) for extra, what in EXTRAS.items()]


def _requirements() -> Iterator[Requirement]:
    yield from map(Requirement, metadata.requires(NAME) or [])


def _python(supported: SpecifierSet) -> Finding:
    found = Version(platform.python_version())
    is_supported = supported.contains(found, prereleases=True)
    return Finding(
        "packages",
        "Python",
        "ok" if is_supported else "problem",
        f"{found} at {sys.executable}; supported: {supported}",
        "" if is_supported else "Make a virtual environment with a supported version.",
    )


def _package(requirement: Requirement) -> Finding:
    name, remedy = requirement.name, f"Run `pip install '{requirement.name}{requirement.specifier}'`."
    version = _version(requirement)
    if version is None:
        return Finding("packages", name, "problem", "it is not installed", remedy)
    found = f"{version}; supported: {requirement.specifier}"
    if not _is_supported(requirement, version):
        return Finding("packages", name, "problem", found, remedy)
    if name in IMPORTED:
        try:
            importlib.import_module(IMPORTED[name])
        except Exception as error:  # A library that is missing or broken may raise anything.
            what = f"{version}, but it cannot be imported: {type(error).__name__}: {error}"
            return Finding(
                "packages", name, "problem", what, f"Install it again: `pip install --force-reinstall {name}`."
            )
    return Finding("packages", name, "ok", found)


def _needed(subject: Subject) -> set[str]:
    needed: set[str] = set()
    if subject.spec is not None and subject.spec.dataset.name in EXTRAS:
        needed.add(subject.spec.dataset.name)
    if subject.storage_url.startswith("postgresql"):
        needed.add("postgres")
    if (subject.weights or "").startswith(("s3://", "s3a://")):
        needed.add("s3")
    return needed


def _extra(extra: str, what: str, *, is_needed: bool) -> Finding:
    name, remedy = f"extra {extra}", f"Run `pip install '{NAME}[{extra}]'`."
    found, lacking = [], []
    for requirement in _requirements():
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue
        version = _version(requirement)
        if version is None:
            lacking.append(f"{requirement.name} is not installed")
        elif not _is_supported(requirement, version):
            lacking.append(f"{requirement.name} is {version}, supported: {requirement.specifier}")
        else:
            found.append(f"{requirement.name} {version}")
    if not lacking:
        return Finding("packages", name, "ok", ", ".join(found))
    level: Level = "problem" if is_needed else "ok"
    return Finding("packages", name, level, f"{', '.join(lacking)}; it is for {what}", remedy)


def _version(requirement: Requirement) -> str | None:
    try:
        return metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return None


def _is_supported(requirement: Requirement, version: str) -> bool:
    return requirement.specifier.contains(Version(version), prereleases=True)
