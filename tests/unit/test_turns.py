"""A turn: one worker of a study has it, until it gives it back or dies."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from mfas_optuna import storage as database
from mfas_optuna.storage import BatchStorage, Lease, Turn, leases, turns
from mfas_optuna.trials import WorkerIdentity

HERE = database.this_worker()
FAR = WorkerIdentity("another host", "boot", 7, 1)
FARTHER = replace(FAR, host="a third host")
DEAD = replace(HERE, process_start=HERE.process_start + 1)


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BatchStorage]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('turns') / 'mfas.db'}"
    else:
        url = request.getfixturevalue("postgres_url")
    storage = database.open_storage(url)
    yield storage
    storage.engine.dispose()


def lease_of(storage: BatchStorage, worker: WorkerIdentity, grace_s: float = 30.0) -> Lease:
    lease = Lease(storage, 1, worker, grace_s=grace_s)
    lease.beat()
    return lease


def turn_of(storage: BatchStorage, worker: WorkerIdentity, grace_s: float = 30.0) -> Turn:
    return Turn(storage, 1, worker, lease_of(storage, worker, grace_s))


def test_one_has_it_until_it_is_given_back(storage: BatchStorage) -> None:
    first, second = turn_of(storage, FAR), turn_of(storage, HERE)
    assert [first.take(), second.take(), first.take(), second.take()] == [True, False, True, False]
    second.give_back()  # It is not the second's.
    assert not second.take()
    first.give_back()
    first.give_back()
    assert second.take()
    assert Turn(storage, 2, FAR, lease_of(storage, FAR)).take()  # Another study's.


def test_the_dead_of_this_host_lose_it_at_once(storage: BatchStorage) -> None:
    assert turn_of(storage, DEAD).take()
    assert turn_of(storage, HERE).take()


@pytest.mark.parametrize("how", ["silent", "no lease"])
def test_the_dead_of_other_hosts_lose_it_when_one_who_may_judge_asks(storage: BatchStorage, how: str) -> None:
    assert turn_of(storage, FAR).take()
    with storage.engine.begin() as connection:
        column = leases._WORKERS.c.beat_at
        change = leases._WORKERS.update().values(beat_at=column - 60) if how == "silent" else leases._WORKERS.delete()
        connection.execute(change)
    second = turn_of(storage, FARTHER)
    assert not second.take()  # It has not renewed its own lease for a grace yet.
    second._lease._steady_since -= 60
    assert second.take()
    assert not turn_of(storage, FAR).take()


def test_of_many_who_ask_at_once_one_gets_it(storage: BatchStorage) -> None:
    for held_by_dead in (False, True):
        if held_by_dead:
            with storage.engine.begin() as connection:
                connection.execute(turns._TURNS.update().values(process_start=DEAD.process_start))
                connection.execute(turns._TURNS.update().values(host=HERE.host, boot_id=HERE.boot_id))
                connection.execute(turns._TURNS.update().values(pid=HERE.pid))
        asking = [turn_of(storage, replace(FAR, pid=pid)) for pid in range(4)]
        with ThreadPoolExecutor(len(asking)) as threads:
            got = list(threads.map(Turn.take, asking))
        assert sorted(got) == [False, False, False, True]
