"""Free memory: the least that the machine and this process's control groups leave."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mfas_optuna import memory

CPU = torch.device("cpu")
MIB = 2**20


class Files:
    """Stands for /proc and /sys/fs/cgroup."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        monkeypatch.setattr(memory, "_CONTROL_GROUPS", folder / "cgroup")
        original = memory._lines

        def lines(path: Path) -> list[str]:
            return original(folder / str(path).lstrip("/") if path.is_relative_to("/proc") else path)

        monkeypatch.setattr(memory, "_lines", lines)

    def write(self, name: str, text: str) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    made = Files(tmp_path, monkeypatch)
    made.write("proc/meminfo", "MemTotal: 9000000 kB\nMemAvailable: 2048000 kB\n")
    return made


def test_without_control_groups_it_is_what_the_machine_has(files: Files) -> None:
    assert memory.free_bytes(CPU) == 2_048_000 * 1024


def test_nothing_is_known_where_the_system_does_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Files(tmp_path, monkeypatch)
    assert memory.free_bytes(CPU) is None


@pytest.mark.parametrize("place", ["", "slurm/job_7/"])
def test_a_limit_of_version_2_counts_with_the_cache_given_back(files: Files, place: str) -> None:
    files.write("proc/self/cgroup", "0::/slurm/job_7\n")
    files.write(f"cgroup/{place}memory.max", f"{100 * MIB}\n")
    files.write(f"cgroup/{place}memory.current", f"{70 * MIB}\n")
    files.write(f"cgroup/{place}memory.stat", f"anon {20 * MIB}\ninactive_file {50 * MIB}\n")
    assert memory.free_bytes(CPU) == 80 * MIB


def test_no_limit_of_version_2(files: Files) -> None:
    files.write("proc/self/cgroup", "0::/\n")
    files.write("cgroup/memory.max", "max\n")
    files.write("cgroup/memory.current", f"{70 * MIB}\n")
    assert memory.free_bytes(CPU) == 2_048_000 * 1024


def test_a_limit_of_version_1_counts(files: Files) -> None:
    files.write("proc/self/cgroup", "5:cpu:/x\n4:memory:/docker/abc\n")
    files.write("cgroup/memory/memory.limit_in_bytes", f"{100 * MIB}\n")
    files.write("cgroup/memory/memory.usage_in_bytes", f"{99 * MIB}\n")
    files.write("cgroup/memory/memory.stat", f"total_inactive_file {2 * MIB}\n")
    assert memory.free_bytes(CPU) == 3 * MIB


def test_this_machine_says_something_sensible() -> None:
    found = memory.free_bytes(CPU)
    assert found is None or 2**20 < found < 2**50
