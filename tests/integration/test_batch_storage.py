"""BatchStorage by Optuna's own suite of storage tests: outside a batch, and with a whole test as one batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.testing.pytest_storages import StorageTestCase

from mfas_optuna.storage import BatchStorage, open_storage

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


class TestOutsideABatch(StorageTestCase):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> BaseStorage:
        return open_storage(f"sqlite:///{tmp_path / 'mfas.db'}")


class TestCachedOutsideABatch(StorageTestCase):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> BaseStorage:
        return _CachedStorage(open_storage(f"sqlite:///{tmp_path / 'mfas.db'}"))


class TestWithinABatch(StorageTestCase):
    """Everything that a test does, in one transaction that is committed at its end."""

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[BaseStorage]:
        storage = open_storage(f"sqlite:///{tmp_path / 'mfas.db'}")
        study_id = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "locked")
        storage.delete_study(study_id)
        with storage.batch(study_id):
            yield storage

    # Threads of one process, which would wait for the batch's end.
    test_study_user_attrs_concurrent_write = None
    test_study_system_attrs_concurrent_write = None
    # Another process sees what is committed.
    test_pickle_storage = None


class TestCachedWithinABatch(TestWithinABatch):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[BaseStorage]:
        backend = open_storage(f"sqlite:///{tmp_path / 'mfas.db'}")
        assert isinstance(backend, BatchStorage)
        with backend.batch(0):
            yield _CachedStorage(backend)
