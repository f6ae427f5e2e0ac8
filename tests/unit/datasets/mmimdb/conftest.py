"""Generated films, made once for all tests; a test that changes them copies them first."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfas_optuna.datasets.mmimdb import make


@pytest.fixture(scope="session")
def made_raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mmimdb") / "raw"
    make(folder, layout="raw", n_samples=40, seed=3)
    return folder


@pytest.fixture(scope="session")
def made_hdf5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mmimdb") / "hdf5"
    make(folder, layout="hdf5", n_samples=40, seed=3, height=64, width=40)
    return folder
