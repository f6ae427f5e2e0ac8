"""What trainings on raw data that can be interrupted have in common.

All that is drawn follows from a seed and the number of steps taken; so weights, the optimiser's moments and that number
are all that an interrupted training needs to become what it would have become.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CHECKPOINT_S = 30.0
"""Seconds of work that an interruption loses at most, or about that; the end of an epoch is kept too."""
WORK_FOR_WRITING = 10
"""Seconds of work for each second of writing checkpoints within an epoch."""
_FEWEST_STEPS = 8  # OneCycleLR divides by zero when a quarter of its steps is one step.


class OneCycleAdamW:
    """AdamW under a one-cycle schedule; its state can be kept, and gone on from."""

    def __init__(
        self, groups: Sequence[tuple[Sequence[nn.Parameter], float]], *, weight_decay: float, n_steps: int
    ) -> None:
        """Begin before the first step.

        Args:
            groups: Parameters, on their device, and the peak of their learning rate.
            weight_decay: Decoupled, of all.
            n_steps: Steps of the whole training.
        """
        rates = [rate for _, rate in groups]
        self._optimizer = torch.optim.AdamW(
            [{"params": list(parameters), "lr": rate} for parameters, rate in groups],
            weight_decay=weight_decay,
            fused=True,
        )
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, max_lr=rates, total_steps=max(n_steps, _FEWEST_STEPS), pct_start=0.25
        )

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All parameters, group by group."""
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]

    @property
    def learning_rates(self) -> list[float]:
        """The rate of each group at the next step."""
        return [group["lr"] for group in self._optimizer.param_groups]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self._optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Take a step along the gradients; parameters that have none stay as they are."""
        self._optimizer.step()
        self._schedule.step()

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the rates as JSON values and the moments of all parameters, `optimizer.NUMBER.NAME`."""
        groups = self._optimizer.param_groups
        tensors = {
            f"optimizer.{number}.{name}": tensor
            for number, parameter in enumerate(self.parameters)
            for name, tensor in self._optimizer.state[parameter].items()
        }
        return {"groups": [{"lr": group["lr"], "betas": list(group["betas"])} for group in groups]}, tensors

    def restore(self, values: Mapping[str, Any], tensors: Mapping[str, Tensor], n_done: int) -> None:
        """Go to where the optimiser was.

        Args:
            values: What `state` returned; other keys are of no concern.
            tensors: Likewise.
            n_done: Steps that had been taken.
        """
        for number, parameter in enumerate(self.parameters):
            for name, tensor in with_prefix(tensors, f"optimizer.{number}.").items():
                # Moments lie in memory as their parameter does: the fused step goes through both side by side.
                like = parameter.detach() if tensor.shape == parameter.shape else tensor.to(parameter.device)
                self._optimizer.state[parameter][name] = torch.empty_like(like).copy_(tensor)
        for group, kept in zip(self._optimizer.param_groups, values["groups"], strict=True):
            group["lr"], group["betas"] = kept["lr"], tuple(kept["betas"])
        self._schedule.last_epoch = n_done


def with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names have a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def weights_digest(model: nn.Module) -> str:
    """Return the SHA-256 of all parameters and buffers, their names, types and shapes."""
    weights = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        weights.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        weights.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return weights.hexdigest()


def step_seed(*numbers: int) -> int:
    """Return the seed of what is drawn in one step, 64 bits; equal numbers give equal ones."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


@contextlib.contextmanager
def scoped_generators(device: torch.device) -> Iterator[list[torch.Generator]]:
    """Give torch's own generators, which dropout draws from, and leave them as they were; the last is the device's."""
    devices = []
    if device.type == "cuda":
        devices.append(torch.cuda.current_device() if device.index is None else device.index)
    with torch.random.fork_rng(devices):
        yield [torch.default_generator, *(torch.cuda.default_generators[index] for index in devices)]


def n_batches(n_samples: int, batch_size: int) -> int:
    """Return the number of batches of an epoch; a single sample that is left over joins the last one.

    Batch normalisation cannot be trained on one.
    """
    is_one_left = batch_size > 1 and n_samples > 1 and n_samples % batch_size == 1
    return math.ceil(n_samples / batch_size) - is_one_left


def batches(order: Tensor, batch_size: int) -> list[Tensor]:
    """Return the rows of each of the `n_batches` batches of an epoch, whose rows come in the given order."""
    ends = [batch_size * (number + 1) for number in range(n_batches(len(order), batch_size) - 1)]
    return list(order.tensor_split(ends))
