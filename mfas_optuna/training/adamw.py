"""AdamW on one flat parameter: the numbers of torch.optim.AdamW with a smaller fixed cost a step.

An optimiser object looks after groups of parameters, hooks and state dicts at every step, which takes some 25 us on a
core: up to a tenth of a step of fifteen small networks. The function behind it is public and needs none of that.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw


class FlatAdamW:
    """Takes steps of AdamW with torch's defaults, fused.

    Attributes:
        exp_avg: Running mean of the gradient, (P,).
        exp_avg_sq: Running mean of its square, (P,).
        n_steps: How many steps were taken, (), on the parameter's device.
    """

    def __init__(self, flat: nn.Parameter, *, weight_decay: float) -> None:
        """Start from no steps.

        Args:
            flat: The parameter, (P,), whose `grad` each step reads.
            weight_decay: As of torch.optim.AdamW.
        """
        self._flat = flat
        self._weight_decay = weight_decay
        self.exp_avg: Tensor = torch.zeros_like(flat.detach())
        self.exp_avg_sq: Tensor = torch.zeros_like(flat.detach())
        self.n_steps: Tensor = torch.zeros((), device=flat.device)

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Change the parameter by its gradient."""
        assert self._flat.grad is not None  # For mypy: whoever made the parameter flat gave it one.
        adamw(
            [self._flat],
            [self._flat.grad],
            [self.exp_avg],
            [self.exp_avg_sq],
            [],
            [self.n_steps],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=learning_rate,
            weight_decay=self._weight_decay,
            eps=1e-8,
            maximize=False,
        )
