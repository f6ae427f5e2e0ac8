"""The study database, read without touching it."""

from __future__ import annotations

from mfas_optuna.doctor.finding import Finding
from mfas_optuna.errors import StorageError
from mfas_optuna.storage import masked, read_standing


def standing(url: str) -> list[Finding]:
    """Return whether the database can be reached, the version of its tables, its studies, and the workers that live."""
    shown = masked(url)
    try:
        found = read_standing(url)
    except StorageError as error:
        return [Finding("database", "server", "problem", str(error))]
    if found is None:
        return [Finding("database", "server", "ok", f"{shown}: it is not there yet; the first search makes it")]
    findings = [Finding("database", "server", "ok", f"{shown}: {found.server}, reached")]
    if found.schema is None:
        findings.append(Finding("database", "tables", "ok", "none yet; the first search makes them"))
        return findings
    if found.schema == found.newest_schema:
        findings.append(Finding("database", "tables", "ok", f"version {found.schema}"))
    else:
        remedy = (
            "Copy the database, then run `optuna storage upgrade --storage URL`."
            if found.is_schema_known
            else "Install the version of Optuna that wrote it, or a newer one that mfas-optuna supports."
        )
        what = f"version {found.schema}; this Optuna needs {found.newest_schema}"
        findings.append(Finding("database", "tables", "problem", what, remedy))
    findings.append(Finding("database", "studies", "ok", str(found.n_studies)))
    findings.append(Finding("database", "workers", "ok", f"{found.n_workers} alive"))
    return findings
