"""Named points at which tests kill the process; nothing happens there unless MFAS_FAILPOINT names one."""

from __future__ import annotations

import os
import signal
from collections import Counter

_passed: Counter[str] = Counter()


def reach(name: str) -> None:
    """Kill this process when MFAS_FAILPOINT is this name, or at the n-th passing when it is NAME:N."""
    wanted, _, number = os.environ.get("MFAS_FAILPOINT", "").partition(":")
    if wanted == name:
        _passed[name] += 1
        if _passed[name] == int(number or 1):
            os.kill(os.getpid(), signal.SIGKILL)
