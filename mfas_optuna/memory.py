"""How much memory is free, on the CPU or on an accelerator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int | None:
    """Return how many bytes can still be allocated for a device; None where the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch holds without using it looks taken from outside.
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    found = [_available_on_linux(), *_left_in_control_groups()]
    return min((limit for limit in found if limit is not None), default=None)


def _available_on_linux() -> int | None:
    """Return MemAvailable of proc(5), which counts what the page cache would give back."""
    lines = _lines(Path("/proc/meminfo"))
    found = [line.split() for line in lines if line.startswith("MemAvailable:")]
    return int(found[0][1]) * 1024 if found else None


def _left_in_control_groups() -> Iterator[int]:
    """Yield what the limit of each control group of this process leaves, in version 1 and 2 of cgroups(7)."""
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, usage, inactive = _CONTROL_GROUPS, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit = _CONTROL_GROUPS / "memory", "memory.limit_in_bytes"
            usage, inactive = "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        # Of a container's own namespace the path may be another; its root is there in any case.
        here = root / path.lstrip("/")
        for folder in {root, here, *here.parents} - set(root.parents):
            most, used = _number(folder / limit), _number(folder / usage)
            if most is None or used is None:
                continue
            cached = [line.split() for line in _lines(folder / "memory.stat") if line.startswith(f"{inactive} ")]
            yield max(0, most - used + (int(cached[0][1]) if cached else 0))


def _number(path: Path) -> int | None:
    """Return a file's number; None when there is none in it, as where there is no limit."""
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdecimal() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
