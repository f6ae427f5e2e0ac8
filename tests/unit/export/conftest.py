"""A prepared study, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .finished import DIGITS, FinishedStudy


@pytest.fixture(scope="session")
def prepared_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    FinishedStudy.of(DIGITS, folder)
    return folder


@pytest.fixture
def digits(prepared_digits: Path, tmp_path: Path) -> FinishedStudy:
    """A study of digits without final trainings, in a folder of its own."""
    shutil.copytree(prepared_digits, tmp_path / "study")
    return FinishedStudy.of(DIGITS, tmp_path / "study")
