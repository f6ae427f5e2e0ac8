"""How many threads torch computes with on the CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run torch's CPU operations on one thread meanwhile.

    The matrices of a search are so small that a second thread does not help them; with several workers on a machine
    it costs them dearly (docs/decisions/0011-threads.md).
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
