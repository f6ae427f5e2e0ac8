"""What trainings run on, and where everything is kept."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import warnings
from pathlib import Path

import torch

from mfas_optuna.doctor.finding import Finding
from mfas_optuna.memory import free_bytes

LITTLE_MEMORY_BYTES = 1_000_000_000
LITTLE_DISK_BYTES = 2_000_000_000
NO_DISK_BYTES = 100_000_000


def computing() -> list[Finding]:
    """Return what there is to say of accelerators, processor and free memory."""
    return [*_accelerators(), _processor(), _memory()]


def home(folder: Path) -> list[Finding]:
    """Return what there is to say of the home folder: whether it can be written, and the space that is left."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        what = f"{there} is a file, expected a folder"
        return [Finding("home", "folder", "problem", what, "Set MFAS_HOME to a folder, or to one that can be made.")]
    what = str(folder) if there == folder else f"{folder}, which the first command that writes makes"
    why = _why_not_writable(there)
    if why:
        remedy = "Set MFAS_HOME to a folder that can be written."
        findings = [Finding("home", "folder", "problem", f"{what}; {there} cannot be written: {why}", remedy)]
    else:
        findings = [Finding("home", "folder", "ok", f"{what}; it can be written")]
    free = shutil.disk_usage(there).free
    found, remedy = f"{_size(free)} free", "Free some, or set MFAS_HOME to a folder on another disk."
    if free < NO_DISK_BYTES:
        return [*findings, Finding("home", "disk", "problem", found, remedy)]
    if free < LITTLE_DISK_BYTES:
        return [*findings, Finding("home", "disk", "warning", found, remedy)]
    return [*findings, Finding("home", "disk", "ok", found)]


def _why_not_writable(folder: Path) -> str:
    if os.access(folder, os.W_OK | os.X_OK):
        return ""
    is_read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
    return os.strerror(errno.EROFS if is_read_only else errno.EACCES)


def _accelerators() -> list[Finding]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    said = "; ".join(str(warning.message).strip().splitlines()[0] for warning in caught)
    if not n_devices:
        if said:
            remedy = "Mend the driver, or install a torch for it; until then searches run on the CPU."
            return [Finding("machine", "accelerator", "warning", said, remedy)]
        what = "none that searches use; they run on the CPU"
        if torch.backends.mps.is_available():
            what = "MPS, which searches do not use; they run on the CPU"
        return [Finding("machine", "accelerator", "ok", what)]
    return [_cuda_device(index) for index in range(n_devices)]


def _cuda_device(index: int) -> Finding:
    name = f"cuda:{index}"
    try:
        title = torch.cuda.get_device_name(index)
        free, total = torch.cuda.mem_get_info(index)
        float(torch.ones(2, device=name).sum())  # A device that this torch was not built for fails only here.
    except RuntimeError as error:
        remedy = "Use --device cpu, or install a torch that was built for this device."
        return Finding("machine", name, "problem", f"it does not compute: {str(error).splitlines()[0]}", remedy)
    found = f"{title}, CUDA {torch.version.cuda}, {_size(free)} of {_size(total)} free"
    if free < LITTLE_MEMORY_BYTES:
        return Finding("machine", name, "warning", found, "End what else uses it, or name another with --device.")
    return Finding("machine", name, "ok", found)


def _processor() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    found = f"{platform.machine()}, {cores} cores for this process; torch uses {threads} threads"
    if threads > cores:
        remedy = f"Threads that wait for each other are slow: set OMP_NUM_THREADS to {cores} at most."
        return Finding("machine", "processor", "warning", found, remedy)
    return Finding("machine", "processor", "ok", found)


def _memory() -> Finding:
    free = free_bytes(torch.device("cpu"))
    if free is None:
        return Finding("machine", "memory", "ok", "the system does not say how much is free")
    if free < LITTLE_MEMORY_BYTES:
        remedy = "`mfas-optuna search --dry-run` says what a study needs; end what else runs, or raise the limit."
        return Finding("machine", "memory", "warning", f"{_size(free)} free", remedy)
    return Finding("machine", "memory", "ok", f"{_size(free)} free")


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.1f} GB"
