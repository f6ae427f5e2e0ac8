"""The temperature by which the surrogate is trusted more and more (Algorithm 1, line 27)."""

from __future__ import annotations

import math
from dataclasses import dataclass

TEMPERATURES = {"paper": (10.0, 0.2), "calibrated": (0.1, 0.05)}
"""T_max and T_min of each mode; the authors' code has those of mode paper."""


@dataclass(frozen=True, slots=True)
class TemperatureSchedule:
    """The inverse exponential schedule of the paper's Figure 5.

    Attributes:
        maximum: T_max, the temperature before the first step.
        minimum: T_min, towards which it falls.
        decay: sigma, in steps.
    """

    maximum: float
    minimum: float
    decay: float

    def at(self, step: int) -> float:
        """Return T after `step` finished steps: (T_max - T_min) exp(-step^2 / sigma^2) + T_min.

        Source: the formula is not in the paper; docs/decisions/0002-temperature.md. The s-th update of Algorithm 1
        (s from 0) is `at(s + 1)`.
        """
        return (self.maximum - self.minimum) * math.exp(-((step / self.decay) ** 2)) + self.minimum
