"""A batch: many reads and writes of a study's trials as one transaction.

Optuna commits each parameter, attribute and state by itself, with several statements for each, and reads the running
trials again before each decision. For a group of trials that is trained at once this costs more than their training
does. Within a batch, what is written is kept in memory and goes to the database in one statement a table; what is
read is read once, together with what was written. All of it becomes visible to others at once, or not at all.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import threading
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, check_distribution_compatibility, distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, orm

from mfas_optuna.storage.patience import Patience

IDLE_LIMIT_S = 20
"""After so long without a word PostgreSQL ends a transaction, and with it the locks of a worker that stands still."""

_Row = dict[str, Any]
_Result = TypeVar("_Result")


class BatchStorage(RDBStorage):
    """Optuna's RDBStorage, which can do many things as one transaction.

    Outside a batch it is an RDBStorage. Within one, everything this thread asks of it belongs to the transaction;
    other threads are not concerned. It overrides private methods of RDBStorage, which the pinned major version of
    Optuna and its own suite of storage tests (tests/integration/test_batch_storage.py) hold in place.
    """

    def __init__(self, url: str, engine_kwargs: dict[str, Any] | None = None) -> None:
        super().__init__(url, engine_kwargs=engine_kwargs)
        self.stamp: tuple[str, Any] | None = None
        """A system attribute that every trial begun here gets in the same transaction: it says who runs it."""
        self.patience = Patience()
        """How long each operation outside a batch waits for a database that is away; by itself not at all."""
        self._join_sessions()

    def _join_sessions(self) -> None:
        self._batches: dict[int, _Batch] = {}  # By thread.
        self.scoped_session = _SessionsOfThreads(self._batches, self.scoped_session)  # type: ignore[assignment]  # is called and removed, no more

    def __getstate__(self) -> dict[Any, Any]:
        return {key: value for key, value in super().__getstate__().items() if key not in ("_batches", "patience")}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self.patience = Patience()
        self._join_sessions()

    @contextlib.contextmanager
    def batch(self, study_id: int, trial_ids: Collection[int] = (), *, creates: bool = True) -> Iterator[None]:
        """Do everything within as one transaction.

        In SQLite nobody else writes meanwhile; so do nothing slow within.

        Args:
            study_id: The study.
            trial_ids: Trials of it that will be written; they are read together, which is faster.
            creates: Whether trials of the study are created: then nobody else creates any meanwhile.

        Raises:
            optuna.exceptions.StorageInternalError: The database failed; nothing was written.
            RuntimeError: This thread is in a batch already.
        """
        thread = threading.get_ident()
        if thread in self._batches:
            raise RuntimeError("Expected no batch within a batch. End the outer one first.")
        try:
            with self.engine.connect() as connection:
                batch = _Batch(self, connection)
                batch.begin(study_id, creates)
                self._batches[thread] = batch
                batch.lock(study_id, trial_ids)
                yield
                batch.flush()
                connection.commit()
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise optuna.exceptions.StorageInternalError("A batch of reads and writes failed as a whole.") from error
        finally:
            self._batches.pop(thread, None)

    @contextlib.contextmanager
    def reports(self, study_id: int, trial_ids: Collection[int]) -> Iterator[None]:
        """Collect attributes and intermediate values of running trials, and write all of them at the end.

        Unlike a batch this opens no transaction before its end, and its end waits for a database that is away. What
        is written to a trial that another process has ended meanwhile is dropped.

        Args:
            study_id: The study.
            trial_ids: The trials; they are read together.

        Raises:
            optuna.exceptions.StorageInternalError: The database failed; nothing was written.
            RuntimeError: This thread is in a batch already.
        """
        thread = threading.get_ident()
        if thread in self._batches:
            raise RuntimeError("Expected no batch within a batch. End the outer one first.")
        reports = _Reports(self)
        self._batches[thread] = reports
        try:
            reports.read(study_id, trial_ids)
            yield
            self.patience.run(reports.commit)
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise optuna.exceptions.StorageInternalError("A batch of reports failed as a whole.") from error
        finally:
            self._batches.pop(thread, None)

    def _batch(self) -> _Batch | None:
        return self._batches.get(threading.get_ident())

    def delete_study(self, study_id: int) -> None:
        """Delete a study with its trials."""
        super().delete_study(study_id)
        batch = self._batch()
        if batch is not None:
            batch.forget_trials_of(study_id)

    # What RDBStorage does with several statements, and a batch in memory.

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        batch = self._batch()
        if batch is None and self.stamp is not None and template_trial is None:
            with self.batch(study_id):
                return self._create_new_trial(study_id)
        if batch is None:
            return super()._create_new_trial(study_id, template_trial)
        if template_trial is not None:
            trial = super()._create_new_trial(study_id, template_trial)
            batch.forget_trials_of(study_id)
            return trial
        return batch.create(study_id)

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        batch = self._batch()
        if batch is None or previous_distribution is None:  # Then the database must be asked for it.
            super()._set_trial_param(trial_id, param_name, param_value_internal, distribution, previous_distribution)
            if batch is not None:
                batch.forget(trial_id)
            return
        trial = batch.writable(trial_id)
        check_distribution_compatibility(previous_distribution, distribution)
        if param_name in trial.params:
            return  # As RDBStorage does: the first value stays.
        value = distribution.to_external_repr(param_value_internal)
        trial.params = {**trial.params, param_name: value}
        trial.distributions = {**trial.distributions, param_name: distribution}
        row = {"param_value": param_value_internal, "distribution_json": distribution_to_json(distribution)}
        batch.insert(models.TrialParamModel, trial_id, {"param_name": param_name}, row)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute of a running trial."""
        batch = self._batch()
        if batch is None:
            super().set_trial_user_attr(trial_id, key, value)
            return
        trial = batch.writable(trial_id)
        trial.user_attrs = batch.put_attribute(models.TrialUserAttributeModel, trial_id, trial.user_attrs, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute of a running trial."""
        batch = self._batch()
        if batch is None:
            super().set_trial_system_attr(trial_id, key, value)
            return
        trial = batch.writable(trial_id)
        kept = batch.put_attribute(models.TrialSystemAttributeModel, trial_id, trial.system_attrs, key, value)
        trial.system_attrs = kept

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Set what a running trial reports."""
        batch = self._batch()
        if batch is None:
            super().set_trial_intermediate_value(trial_id, step, intermediate_value)
            return
        trial = batch.writable(trial_id)
        stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(intermediate_value)
        put = batch.update if step in trial.intermediate_values else batch.insert
        row = {"intermediate_value": stored, "intermediate_value_type": kind}
        put(models.TrialIntermediateValueModel, trial_id, {"step": step}, row)
        trial.intermediate_values = {**trial.intermediate_values, step: float(intermediate_value)}

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        """End a trial, or begin a waiting one."""
        batch = self._batch()
        if batch is None and self.stamp is not None and state == TrialState.RUNNING:
            with self.batch(-1, creates=False):
                return self.set_trial_state_values(trial_id, state)
        if batch is None:
            return super().set_trial_state_values(trial_id, state, values)
        trial = batch.writable(trial_id)
        if not state.is_finished() or trial.state != TrialState.RUNNING or trial.values is not None:
            done = super().set_trial_state_values(trial_id, state, values)
            batch.forget(trial_id)
            if done and self.stamp is not None and state == TrialState.RUNNING:
                self.set_trial_system_attr(trial_id, *self.stamp)
            return done
        for objective, value in enumerate(values or ()):
            stored, kind = models.TrialValueModel.value_to_stored_repr(value)
            row = {"value": stored, "value_type": kind}
            batch.insert(models.TrialValueModel, trial_id, {"objective": objective}, row)
        trial.state, trial.datetime_complete = state, datetime.now()
        trial.values = None if values is None else [float(value) for value in values]
        batch.end(trial_id, state, trial.datetime_complete)
        return True

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial; the caller may change it."""
        batch = self._batch()
        return super().get_trial(trial_id) if batch is None else _copy(batch.trial(trial_id))

    def get_trial_user_attrs(self, trial_id: int) -> dict[str, Any]:
        """Return a trial's user attributes."""
        batch = self._batch()
        return super().get_trial_user_attrs(trial_id) if batch is None else dict(batch.trial(trial_id).user_attrs)

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        """Return a trial's system attributes."""
        batch = self._batch()
        return super().get_trial_system_attrs(trial_id) if batch is None else dict(batch.trial(trial_id).system_attrs)

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        batch = self._batch()
        if batch is None:
            return super()._get_trials(study_id, states, included_trial_ids, trial_id_greater_than)
        return batch.trials(study_id, states, included_trial_ids, trial_id_greater_than)

    def read_trials(self, study_id: int, included: set[int], after: int) -> list[FrozenTrial]:
        """Return trials as the database has them: those with ids above `after` and those included."""
        return self._read(lambda: RDBStorage._get_trials(self, study_id, None, included, after))

    def read_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial as the database has it."""
        return self._read(lambda: RDBStorage.get_trial(self, trial_id))

    def _read(self, read: Callable[[], _Result]) -> _Result:
        """Read past a batch's memory; what is part of a transaction cannot be repeated alone."""
        return self.patience.run(read) if isinstance(self._batch(), _Reports) else read()


def _patient(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Make an operation of the storage wait for a database that is away, outside a batch."""

    @functools.wraps(operation)
    def patient(self: BatchStorage, *arguments: Any, **named: Any) -> Any:
        if self._batch() is not None:  # A lost connection ends its transaction: it is for the caller to repeat it.
            return operation(self, *arguments, **named)
        return self.patience.run(lambda: operation(self, *arguments, **named))

    return patient


# Each is a transaction of its own, and can be done twice: a trial that was created twice is found by `Worker`.
for _name in (
    "create_new_study", "set_study_user_attr", "set_study_system_attr", "get_study_id_from_name",
    "get_study_name_from_id", "get_study_directions", "get_study_user_attrs", "get_study_system_attrs",
    "get_all_studies", "create_new_trial", "_create_new_trial", "set_trial_param", "_set_trial_param",
    "get_trial_id_from_study_id_trial_number", "get_trial_number_from_id", "get_trial_param", "get_best_trial",
    "_get_best_trial_id", "set_trial_state_values", "set_trial_intermediate_value", "set_trial_user_attr",
    "set_trial_system_attr", "get_trial", "get_trial_user_attrs", "get_trial_system_attrs", "get_all_trials",
    "_get_trials",
):  # fmt: skip
    setattr(BatchStorage, _name, _patient(getattr(BatchStorage, _name)))


@contextlib.contextmanager
def batch(study: optuna.Study, trials: Sequence[optuna.Trial | FrozenTrial] = ()) -> Iterator[None]:
    """Do everything within that concerns the study's trials as one transaction, where its storage can.

    Any other storage of Optuna's does each thing by itself. See `BatchStorage.batch`.

    Args:
        study: The study.
        trials: Those of its trials that will be written.
    """
    with _joined(study, lambda storage: storage.batch(study._study_id, [trial._trial_id for trial in trials])):
        yield


@contextlib.contextmanager
def reports(study: optuna.Study, trials: Sequence[optuna.Trial]) -> Iterator[None]:
    """Write what is reported of running trials within at once, where their storage can. See `BatchStorage.reports`.

    Args:
        study: The study.
        trials: The trials.
    """
    with _joined(study, lambda storage: storage.reports(study._study_id, [trial._trial_id for trial in trials])):
        yield


@contextlib.contextmanager
def _joined(
    study: optuna.Study, begin: Callable[[BatchStorage], contextlib.AbstractContextManager[None]]
) -> Iterator[None]:
    cached = study._storage
    backend = getattr(cached, "_backend", None)
    if not isinstance(backend, BatchStorage):
        yield
        return
    try:
        with begin(backend):
            yield
    except BaseException:
        if isinstance(cached, _CachedStorage):
            _forget_trials(cached, study._study_id)
        raise


def _forget_trials(cached: _CachedStorage, study_id: int) -> None:
    """Make Optuna's cache read a study's trials again: it may hold some that were never committed."""
    with cached._lock:
        cached._studies.pop(study_id, None)
        for trial_id, (of_study, number) in list(cached._trial_id_to_study_id_and_number.items()):
            if of_study == study_id:
                del cached._trial_id_to_study_id_and_number[trial_id]
                del cached._study_id_and_number_to_trial_id[of_study, number]
    with contextlib.suppress(optuna.exceptions.StorageInternalError):
        cached.get_all_trials(study_id, deepcopy=False)


class _Batch:
    """One transaction: what it has read, and what it has yet to write."""

    def __init__(self, storage: BatchStorage, connection: Connection | None) -> None:
        self._storage = storage
        self._connection_now = connection
        self.session = None if connection is None else _JoinedSession(connection)
        self._trials: dict[int, FrozenTrial] = {}  # As the transaction sees them; replaced, never changed in place.
        self._known_after: dict[int, int] = {}  # For a study: all its trials with ids above this are known.
        self._of_study: dict[int, set[int]] = {}
        self._counts: dict[int, int] = {}
        self._locked: set[int] = set()
        self._inserts: dict[Any, dict[tuple[Any, ...], _Row]] = {}
        self._updates: dict[Any, dict[tuple[Any, ...], tuple[_Row, _Row]]] = {}
        self._ended: list[_Row] = []

    @property
    def _connection(self) -> Connection:
        if self._connection_now is None:
            raise RuntimeError("Expected only reports of running trials here. Use a batch for the rest.")
        return self._connection_now

    def begin(self, study_id: int, creates: bool) -> None:
        """Begin the transaction; when it may create trials of the study, so that nobody else does."""
        self._begin_transaction()
        if creates:
            self._lock_study(study_id)

    def _begin_transaction(self) -> None:
        name = self._connection.dialect.name
        if name == "sqlite":
            self._connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif name == "postgresql":  # A worker that is stopped within must not keep the others for ever.
            self._connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_LIMIT_S}s'")

    def _lock_study(self, study_id: int) -> bool:
        """Keep others from creating trials of a study until the end; return whether there is such a study."""
        lock = sqlalchemy.select(models.StudyModel.study_id).where(models.StudyModel.study_id == study_id)
        return self._connection.execute(lock.with_for_update()).first() is not None

    def lock(self, study_id: int, trial_ids: Collection[int]) -> None:
        """Keep other processes from ending these trials until the end, and read them."""
        if not trial_ids:
            return
        lock = sqlalchemy.select(models.TrialModel.trial_id).where(models.TrialModel.trial_id.in_(trial_ids))
        self._connection.execute(lock.order_by(models.TrialModel.trial_id).with_for_update())
        self.read(study_id, trial_ids)

    def read(self, study_id: int, trial_ids: Collection[int]) -> None:
        """Read trials that will be written."""
        self._locked.update(trial_ids)
        for trial in self._storage.read_trials(study_id, set(trial_ids), max(trial_ids)):
            self._trials[trial._trial_id] = trial
            self._of_study.setdefault(study_id, set()).add(trial._trial_id)

    # Reads.

    def trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial as the transaction sees it."""
        if trial_id not in self._trials:
            self._trials[trial_id] = self._storage.read_trial(trial_id)
        return self._trials[trial_id]

    def trials(
        self, study_id: int, states: Container[TrialState] | None, included: set[int], after: int
    ) -> list[FrozenTrial]:
        """Return trials of a study as the transaction sees them, in the order of their ids."""
        known = self._of_study.setdefault(study_id, set())
        missing = {trial_id for trial_id in included if trial_id not in self._trials}
        if self._known_after.get(study_id, after + 1) > after or missing:
            for trial in self._storage.read_trials(study_id, included, after):
                self._trials.setdefault(trial._trial_id, trial)
                known.add(trial._trial_id)
            self._known_after[study_id] = min(after, self._known_after.get(study_id, after))
        wanted = sorted(trial_id for trial_id in known if trial_id > after or trial_id in included)
        found = [self._trials[trial_id] for trial_id in wanted]
        return found if states is None else [trial for trial in found if trial.state in states]

    def forget(self, trial_id: int) -> None:
        """Read a trial again when it is next asked for: it was written past this batch's memory."""
        self._trials.pop(trial_id, None)
        self._known_after.clear()

    def forget_trials_of(self, study_id: int) -> None:
        """Forget the trials of a study: some were created or deleted past this batch's memory."""
        for trial_id in self._of_study.pop(study_id, set()):
            self._trials.pop(trial_id, None)
            self._locked.discard(trial_id)
        self._known_after.pop(study_id, None)
        self._counts.pop(study_id, None)

    # Writes.

    def create(self, study_id: int) -> FrozenTrial:
        """Create a running trial and return it."""
        if study_id not in self._counts:
            if not self._lock_study(study_id):
                raise KeyError(f"There is no study of id {study_id}.")
            count = sqlalchemy.select(sqlalchemy.func.count()).where(models.TrialModel.study_id == study_id)
            self._counts[study_id] = self._connection.execute(count).scalar_one()
        now, number = datetime.now(), self._counts[study_id]
        values = {
            "study_id": study_id,
            "number": number,
            "state": TrialState.RUNNING,
            "datetime_start": _stored_time(now),
        }
        inserted = self._connection.execute(models.TrialModel.__table__.insert(), values).inserted_primary_key
        if inserted is None:
            raise AssertionError("unreachable")  # An insert of one row has one.
        trial_id = int(inserted[0])
        self._counts[study_id] = number + 1
        trial = FrozenTrial(
            number=number, state=TrialState.RUNNING, value=None, values=None, datetime_start=now,
            datetime_complete=None, params={}, distributions={}, user_attrs={}, system_attrs={},
            intermediate_values={}, trial_id=trial_id,
        )  # fmt: skip
        self._trials[trial_id] = trial
        self._of_study.setdefault(study_id, set()).add(trial_id)
        self._locked.add(trial_id)
        if self._storage.stamp is not None:
            self._storage.set_trial_system_attr(trial_id, *self._storage.stamp)
        return _copy(self._trials[trial_id])

    def writable(self, trial_id: int) -> FrozenTrial:
        """Return a trial to be changed: a copy that stands for it from now on, safe from other processes.

        Raises:
            KeyError: There is none.
            optuna.exceptions.UpdateFinishedTrialError: It is finished.
        """
        if trial_id not in self._locked:
            lock = sqlalchemy.select(models.TrialModel.trial_id).where(models.TrialModel.trial_id == trial_id)
            self._connection.execute(lock.with_for_update())
            self._locked.add(trial_id)
            self._trials[trial_id] = self._storage.read_trial(trial_id)  # As it is now that it is locked.
        trial = copy.copy(self.trial(trial_id))
        self._storage.check_trial_is_updatable(trial_id, trial.state)
        self._trials[trial_id] = trial
        return trial

    def insert(self, model: Any, trial_id: int, key: _Row, values: _Row) -> None:
        """Write a row that is not there yet."""
        row = {"trial_id": trial_id, **key, **values}
        self._inserts.setdefault(model, {})[trial_id, *key.values()] = row

    def update(self, model: Any, trial_id: int, key: _Row, values: _Row) -> None:
        """Write a row that is there, or will be."""
        place = (trial_id, *key.values())
        if place in self._inserts.get(model, {}):
            self._inserts[model][place].update(values)
        else:
            self._updates.setdefault(model, {})[place] = ({"trial_id": trial_id, **key}, values)

    def put_attribute(self, model: Any, trial_id: int, there: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
        """Write an attribute beside those that are there, and return all as they would be read."""
        text = json.dumps(value)
        put = self.update if key in there else self.insert
        put(model, trial_id, {"key": key}, {"value_json": text})
        return {**there, key: json.loads(text)}

    def end(self, trial_id: int, state: TrialState, now: datetime) -> None:
        """Write a trial's final state."""
        self._ended.append({"ended_id": trial_id, "state": state, "datetime_complete": _stored_time(now)})

    def flush(self) -> None:
        """Send everything that was written to the database; it is not committed yet."""
        for model, rows in self._inserts.items():
            if rows:
                self._connection.execute(model.__table__.insert(), list(rows.values()))
        for model, changes in self._updates.items():
            for key, values in changes.values():
                table = model.__table__
                where = [table.c[name] == value for name, value in key.items()]
                self._connection.execute(table.update().where(*where).values(values))
        if self._ended:
            table = models.TrialModel.__table__
            where_ended = table.c.trial_id == sqlalchemy.bindparam("ended_id")
            self._connection.execute(table.update().where(where_ended), self._ended)
        self._inserts, self._updates, self._ended = {}, {}, []


class _Reports(_Batch):
    """What is reported of running trials: kept in memory, and written in one short transaction at the end."""

    def __init__(self, storage: BatchStorage) -> None:
        super().__init__(storage, None)
        self._n_attempts = 0

    def commit(self) -> None:
        """Write everything; may be called again when it failed."""
        self._n_attempts += 1
        inserts, updates = self._inserts, self._updates
        if not inserts and not updates:
            return
        try:
            with self._storage.engine.connect() as connection:
                self._connection_now = connection
                self._begin_transaction()
                written = {place[0] for rows in inserts.values() for place in rows}
                written |= {place[0] for changes in updates.values() for place in changes}
                running = self._lock_running(written)
                self._inserts = {model: _of(rows, running) for model, rows in inserts.items()}
                self._updates = {model: _of(rows, running) for model, rows in updates.items()}
                if self._n_attempts > 1:  # The attempt before may have been committed all the same.
                    self._delete_inserted()
                self.flush()
                connection.commit()
        except BaseException:
            self._inserts, self._updates = inserts, updates
            raise
        finally:
            self._connection_now = None

    def _lock_running(self, trial_ids: Collection[int]) -> set[int]:
        trial = models.TrialModel
        query = sqlalchemy.select(trial.trial_id).where(
            trial.trial_id.in_(trial_ids), trial.state == TrialState.RUNNING
        )
        return set(self._connection.execute(query.order_by(trial.trial_id).with_for_update()).scalars())

    def _delete_inserted(self) -> None:
        for model, rows in self._inserts.items():
            table = model.__table__
            keys = ("trial_id", "step") if model is models.TrialIntermediateValueModel else ("trial_id", "key")
            for row in rows.values():
                self._connection.execute(table.delete().where(*(table.c[key] == row[key] for key in keys)))


def _of(rows: dict[tuple[Any, ...], Any], trial_ids: set[int]) -> dict[tuple[Any, ...], Any]:
    return {place: row for place, row in rows.items() if place[0] in trial_ids}


class _SessionsOfThreads:
    """Stands for RDBStorage's source of sessions: a thread in a batch gets its transaction's, others their own."""

    def __init__(self, batches: dict[int, _Batch], plain: Any) -> None:
        self._batches = batches
        self._plain = plain

    def __call__(self) -> orm.Session:
        batch = self._batches.get(threading.get_ident())
        if batch is None or batch.session is None:
            session: orm.Session = self._plain()
            return session
        batch.flush()  # Whoever asks for a session is about to read or write past the batch's memory.
        return batch.session

    def remove(self) -> None:
        self._plain.remove()


class _JoinedSession(orm.Session):
    """A session whose commits and roll-backs leave the batch's transaction open."""

    def __init__(self, bind: Connection) -> None:
        super().__init__(bind=bind, join_transaction_mode="rollback_only")

    def commit(self) -> None:
        """Write, and keep the transaction open."""
        self.flush()

    def rollback(self) -> None:
        """Drop what was not written; an error of the database ends the whole batch, since it is raised again."""
        self.expunge_all()

    def close(self) -> None:
        """Forget what was read: it may be changed past this session."""
        self.expunge_all()


def _copy(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial whose dictionaries can be changed."""
    twin = copy.copy(trial)
    twin.params, twin.distributions = dict(trial.params), dict(trial.distributions)
    twin.user_attrs, twin.system_attrs = dict(trial.user_attrs), dict(trial.system_attrs)
    twin.intermediate_values = dict(trial.intermediate_values)
    return twin


def _stored_time(local: datetime) -> datetime:
    """Return a local time as Optuna stores it: in UTC, without saying so."""
    return local.astimezone(UTC).replace(tzinfo=None)
