"""Accelerators, processor, memory and the home folder."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mfas_optuna.doctor import machine


def test_a_folder_that_can_be_made_is_in_order_and_is_not_made(tmp_path: Path) -> None:
    home = tmp_path / "a" / "b"
    findings = machine.home(home)
    assert [finding.level for finding in findings] == ["ok", "ok"]
    assert str(home) in findings[0].found
    assert "which the first command that writes makes" in findings[0].found
    assert list(tmp_path.iterdir()) == []
    home.mkdir(parents=True)
    assert machine.home(home)[0].found == f"{home}; it can be written"


def test_a_home_below_a_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for home in (tmp_path / "file", tmp_path / "file" / "below"):
        (finding,) = machine.home(home)
        assert finding.level == "problem"
        assert "is a file" in finding.found


@pytest.mark.parametrize(("flag", "why"), [(0, "Permission denied"), (os.ST_RDONLY, "Read-only file system")])
def test_a_home_that_cannot_be_written_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: int, why: str
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=flag))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**12))
    finding = machine.home(tmp_path)[0]
    assert finding.level == "problem"
    assert why in finding.found
    assert "MFAS_HOME" in finding.remedy


@pytest.mark.parametrize(("free", "level"), [(10**7, "problem"), (10**9, "warning"), (10**10, "ok")])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert machine.home(tmp_path)[1].level == level


def test_without_accelerator_searches_run_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    findings = {finding.name: finding for finding in machine.computing()}
    assert set(findings) == {"accelerator", "processor", "memory"}
    assert "CPU" in findings["accelerator"].found
    assert findings["accelerator"].level == "ok"
    assert "cores" in findings["processor"].found


def test_what_torch_says_of_a_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_available() -> bool:
        warnings.warn("CUDA initialization: the driver is too old\nmore", UserWarning, stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    finding = machine.computing()[0]
    assert (finding.level, finding.found) == ("warning", "CUDA initialization: the driver is too old")


def with_a_device(monkeypatch: pytest.MonkeyPatch, free: int, compute: Any) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "A device")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (free, 80 * 10**9))
    monkeypatch.setattr(torch, "ones", compute)


def test_a_device_that_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.zeros(2)
    with_a_device(monkeypatch, 70 * 10**9, lambda size, device: tensor)
    finding = machine.computing()[0]
    assert (finding.name, finding.level) == ("cuda:0", "ok")
    assert "A device" in finding.found
    assert "70.0 GB of 80.0 GB free" in finding.found
    with_a_device(monkeypatch, 10**8, lambda size, device: tensor)
    assert machine.computing()[0].level == "warning"


def test_a_device_that_does_not_compute_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def ones(size: int, device: str) -> Any:
        raise RuntimeError("CUDA error: no kernel image is available\nmore")

    with_a_device(monkeypatch, 70 * 10**9, ones)
    finding = machine.computing()[0]
    assert finding.level == "problem"
    assert finding.found == "it does not compute: CUDA error: no kernel image is available"


def test_more_threads_than_cores_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10_000)
    finding = next(finding for finding in machine.computing() if finding.name == "processor")
    assert finding.level == "warning"
    assert "OMP_NUM_THREADS" in finding.remedy


@pytest.mark.parametrize(("free", "level"), [(None, "ok"), (10**8, "warning"), (10**10, "ok")])
def test_free_memory(monkeypatch: pytest.MonkeyPatch, free: int | None, level: str) -> None:
    monkeypatch.setattr(machine, "free_bytes", lambda device: free)
    assert machine.computing()[-1].level == level
