"""Keeps workers alive: each runs in a child process, and another takes its place when one is killed.

A segmentation fault, or the system when memory runs out, ends the child alone. The child runs the same command line
with MFAS_CHILD set. It is in a process group of its own, so that a terminal's Ctrl-C reaches the supervisor, which
passes it on; and it ends when its standard input does, which the supervisor holds.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

_log = logging.getLogger(__name__)

MOST_DEATHS = 5
"""Deaths in a row without a finished trial between them, after which it is given up."""
_ROLE = "MFAS_CHILD"
_PATIENCE_S = 30.0
_PASSED_ON = (signal.SIGINT, signal.SIGTERM)

OnDeath = Callable[[int, str], int]
"""Told the process number of a child that was killed, while it is still a zombie, and by what; returns how many trials
are finished."""


def is_child() -> bool:
    """Return whether this process is a worker's child; if so, see to it that it ends with its supervisor."""
    if os.environ.get(_ROLE) is None:
        return False
    threading.Thread(target=_end_with_supervisor, name="supervisor", daemon=True).start()
    return True


def is_one_of_several() -> bool:
    """Return whether this process is one of several children of one supervisor, which speaks for all of them."""
    return os.environ.get(_ROLE) == "one of several"


def _end_with_supervisor() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def trials_of_the_dead(storage_url: str, study_name: str) -> OnDeath:
    """Return what fails the running trials of a child that was killed, at once and with the reason."""

    def take_note(pid: int, why: str) -> int:
        import optuna

        from mfas_optuna import storage as database
        from mfas_optuna.errors import StorageError

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            with database.clear_errors(storage_url):
                database.check_exists(storage_url)
                opened = database.open_storage(storage_url, database.Patience(_PATIENCE_S))
                if study_name not in optuna.get_all_study_names(opened):
                    return 0
                database.fail_trials_of(opened, study_name, database.worker_of(pid), why)
                states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
                study = database.load_study(opened, study_name)
                return len(study.get_trials(deepcopy=False, states=states))
        except StorageError as error:  # Whoever starts next finds them.
            _log.warning("%s", error)
            return 0

    return take_note


class Supervisor:
    """Starts children and starts them again.

    Attributes:
        stopped_by: The signal that asked for the end, or None.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        n_children: int,
        on_death: OnDeath,
        say: Callable[[str], None],
    ) -> None:
        """Start the children.

        Args:
            arguments: Of the command line that each runs.
            n_children: How many.
            on_death: Called for each that was killed.
            say: Told what happens.
        """
        self._command = [sys.executable, "-m", "mfas_optuna", *arguments]
        self._environment = {**os.environ, _ROLE: "alone" if n_children == 1 else "one of several"}
        if n_children > 1:  # Threads of several would wait for each other (docs/decisions/0011-threads.md).
            self._environment.setdefault("OMP_NUM_THREADS", "1")
        self._on_death = on_death
        self._say = say
        self._n_deaths = 0
        self._n_finished = -1
        self._exit_codes: list[int] = []
        self.stopped_by: int | None = None
        self._children = [self._start() for _ in range(n_children)]

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, env=self._environment, stdin=subprocess.PIPE, process_group=0)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Pass on to the children what asks for the end, and have them stop and go on with the terminal's job."""
        previous = {number: signal.signal(number, self._pass_on) for number in _PASSED_ON}
        previous[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._pause)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self.stopped_by = number
        self._send(number)

    def _pass_on_what_came(self) -> None:
        if self.stopped_by is not None:
            self._send(self.stopped_by)

    def _pause(self, _number: int, _frame: FrameType | None) -> None:
        self._send(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        self._send(signal.SIGCONT)

    def _send(self, number: int) -> None:
        for child in self._children:
            os.kill(child.pid, number)  # One that has ended is a zombie until `poll` has taken note of it.

    def poll(self) -> int | None:
        """Look after the children: None while any runs, and then the first exit code that is not 0, or 0.

        One that was killed is replaced, unless the end was asked for.
        """
        for child in list(self._children):
            ended = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                continue
            was_killed = ended.si_code != os.CLD_EXITED
            name = signal.Signals(ended.si_status).name if was_killed else ""
            if was_killed and self.stopped_by is None:
                self._take_note(child.pid, name)
            self._children.remove(child)
            code = child.wait()
            if child.stdin is not None:
                child.stdin.close()
            if not was_killed:
                self._exit_codes.append(code)
            elif self.stopped_by is not None:
                self._exit_codes.append(128 + self.stopped_by)
            elif self._n_deaths >= MOST_DEATHS:
                self._say(f"Workers were killed {self._n_deaths} times in a row without a finished trial: given up.")
                self._exit_codes.append(1)
            else:
                self._children.append(self._start())
                self._pass_on_what_came()  # While it was started.
        if self._children:
            return None
        return next((code for code in self._exit_codes if code), 0)

    def _take_note(self, pid: int, name: str) -> None:
        n_finished = self._on_death(pid, f"its worker was killed by {name}")
        self._n_deaths = 1 if n_finished > self._n_finished >= 0 else self._n_deaths + 1
        self._n_finished = n_finished
        self._say(f"The worker's process {pid} was killed by {name}; its trials will be tried again.")

    def wait(self, every_s: float = 0.05, meanwhile: Callable[[], None] = lambda: None) -> int:
        """Return the exit code once all children have ended.

        Args:
            every_s: How often they are looked after.
            meanwhile: Called each time.
        """
        with self.signals():
            while (code := self.poll()) is None:
                meanwhile()
                time.sleep(every_s)
        return code
