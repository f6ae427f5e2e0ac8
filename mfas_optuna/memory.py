"""How much memory is free, on the CPU or on an accelerator."""

from __future__ import annotations

from pathlib import Path

import torch


def free_bytes(device: torch.device) -> int | None:
    """Return how many bytes can still be allocated for a device; None where the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    limits = [limit for limit in (_available_on_linux(), _left_in_control_group()) if limit is not None]
    return min(limits, default=None)


def _available_on_linux() -> int | None:
    """Return MemAvailable of proc(5), which counts what the page cache would give back."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith("MemAvailable:")]
    return int(found[0][1]) * 1024 if found else None


def _left_in_control_group() -> int | None:
    """Return what a container's limit (cgroup v2) leaves; None where there is no limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = int((folder / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used)
