"""The environment variables that this program reads."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping

from mfas_optuna.doctor.finding import Finding

KNOWN = (
    "MFAS_BEAT",
    "MFAS_DATA",
    "MFAS_DEBUG",
    "MFAS_GRACE",
    "MFAS_HOME",
    "MFAS_JOINT",
    "MFAS_PATIENCE",
    "MFAS_STORAGE",
    "MFAS_WEIGHTS",
    "MFAS_WORKERS",
)
_INTERNAL = ("MFAS_CHILD", "MFAS_FAILPOINT")


def variables(environment: Mapping[str, str] | None = None) -> list[Finding]:
    """Return which variables of this program are set, and those that it does not know."""
    values = os.environ if environment is None else environment
    ours = sorted(name for name in values if name.startswith("MFAS_") and name not in _INTERNAL)
    known = [name for name in ours if name in KNOWN]
    findings = [Finding("environment", "variables", "ok", ", ".join(known) or "none of MFAS_...")]
    for name in ours:
        if name in KNOWN:
            continue
        near = difflib.get_close_matches(name, KNOWN, n=1)
        remedy = f"Did you mean {near[0]}?" if near else f"Known are {', '.join(KNOWN)}."
        findings.append(Finding("environment", name, "warning", "no such variable; it changes nothing", remedy))
    return findings
