"""Which device torch computes on."""

from __future__ import annotations

import torch

from mfas_optuna.errors import DeviceError


def choose_device(name: str) -> torch.device:
    """Return the device of this name; `auto` is CUDA where there is one, else the CPU.

    Raises:
        DeviceError: The name is not one, or the machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"--device: expected auto, cpu, cuda or cuda:N, found {name!r}.") from error
    if device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index not in (None, 0)):
        raise DeviceError(f"--device: expected auto, cpu, cuda or cuda:N, found {name!r}.")
    if device.type == "cuda":
        n_devices = torch.cuda.device_count()
        if (device.index or 0) >= n_devices:
            raise DeviceError(f"--device: {name} is not on this machine, which has {n_devices} CUDA devices. Use cpu.")
    return device
