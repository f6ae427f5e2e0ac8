"""One search for all pictures."""

from __future__ import annotations

from collections.abc import Iterator

import optuna
import pytest

from .studies import searched


@pytest.fixture(scope="session")
def search() -> Iterator[optuna.Study]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield searched()
    optuna.logging.set_verbosity(before)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)
