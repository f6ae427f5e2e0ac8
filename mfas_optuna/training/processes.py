"""Several processes that train one model together, each on its share of every batch; one alone needs nothing for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from mfas_optuna.errors import DeviceError

PATIENCE = timedelta(days=7)
"""How long one waits for another, which may have work of its own; a process that dies ends the others at once."""
_END = -1
_FEWEST_ROWS = 2  # Of a share: batch normalisation cannot be trained on one.


def is_first() -> bool:
    """Return whether this process is alone, or the first of those that were started together."""
    return os.environ.get("RANK", "0") == "0"


class Processes:
    """This process and its peers. They call the same methods in the same order.

    Attributes:
        n: How many there are.
        rank: 0-based number of this one.
        device: Where this one computes.
    """

    def __init__(self, device: torch.device) -> None:
        """Join those that `accelerate launch` or `torchrun` started, as the environment variable WORLD_SIZE says.

        Args:
            device: Of what type the devices are; with several processes each has its own.

        Raises:
            DeviceError: There are several, and accelerate is not installed or gives devices of another type.
        """
        self.n, self.rank, self.device = 1, 0, device
        self._operations: Any = None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            self._join()

    def _join(self) -> None:
        try:
            import accelerate.utils
        except ImportError as error:
            raise DeviceError(
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']}: training in several processes needs accelerate. Install "
                "mfas-optuna[distributed], or start one process."
            ) from error
        state = accelerate.PartialState(cpu=self.device.type == "cpu", timeout=PATIENCE)
        if state.device.type != self.device.type:
            raise DeviceError(
                f"Expected devices of type {self.device.type}, found {state.device} in process {state.process_index}. "
                "Choose this type, or start one process."
            )
        self.n, self.rank, self.device = state.num_processes, state.process_index, state.device
        self._operations = accelerate.utils

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and tells."""
        return self.rank == 0

    def announce(self, number: int | None) -> None:
        """Tell those who wait in `announced` which piece of work is next; None: that there is none any more.

        Args:
            number: Of the work, from 0, below 2^24.
        """
        if self.n > 1:
            self.copy_first([torch.tensor(float(_END if number is None else number), device=self.device)])

    def announced(self) -> Iterator[int]:
        """Yield the numbers that the first process announces, until it says that there are no more."""
        while (number := self._next()) != _END:
            yield number

    def _next(self) -> int:
        number = torch.zeros((), device=self.device)
        self.copy_first([number])
        return int(number.item())

    def share(self, rows: Tensor) -> Tensor:
        """Return this process's part of the rows of a batch; all of them where there are too few to be shared."""
        return rows if len(rows) < _FEWEST_ROWS * self.n else self.part(rows)

    def part(self, rows: Tensor) -> Tensor:
        """Return this process's part of some rows, of which no other process has any; it may be empty."""
        return rows.tensor_split(self.n)[self.rank]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.n > 1:
            self._replace(tensors, lambda flat: self._operations.reduce(flat, "sum"))

    def copy_first(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by that of the first process."""
        if self.n > 1:
            self._replace(tensors, lambda flat: self._operations.broadcast(flat, from_process=0))

    def _replace(self, tensors: Sequence[Tensor], exchange: Callable[[Tensor], Tensor]) -> None:
        """Exchange all tensors as one of float32: few large messages take less time than many small ones."""
        if not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
        pieces = exchange(flat).split([tensor.numel() for tensor in tensors])
        with torch.no_grad():
            for tensor, piece in zip(tensors, pieces, strict=True):
                tensor.copy_(piece.view(tensor.shape))

    def wait(self) -> None:
        """Return when all processes are here."""
        if self.n > 1:
            self._operations.wait_for_everyone()
