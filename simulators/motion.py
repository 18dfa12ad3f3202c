"""How a car moves from one floor to another: a speed profile as closed formulas of time. Metres, seconds."""

from __future__ import annotations

import math
from typing import NamedTuple


class Run(NamedTuple):
    """Accelerate, cruise, brake; from rest to rest."""

    distance_m: float
    speed_mps: float
    """Highest speed reached."""
    acceleration_mps2: float

    @property
    def ramp_s(self) -> float:
        return self.speed_mps / self.acceleration_mps2

    @property
    def length_s(self) -> float:
        return self.distance_m / self.speed_mps + self.ramp_s

    def gone_m(self, t_s: float) -> float:
        """Distance covered `t_s` after the start."""
        if t_s < self.ramp_s:
            return self.acceleration_mps2 * t_s * t_s / 2
        left_s = self.length_s - t_s
        if left_s > self.ramp_s:
            return self.speed_mps * (t_s - self.ramp_s / 2)
        return self.distance_m - self.acceleration_mps2 * left_s * left_s / 2

    def speed_at_mps(self, t_s: float) -> float:
        """Speed `t_s` after the start."""
        from_rest_s = max(0.0, min(t_s, self.length_s - t_s))
        return min(self.speed_mps, self.acceleration_mps2 * from_rest_s)


def plan_run(distance_m: float, rated_speed_mps: float, acceleration_mps2: float) -> Run:
    """The quickest run over a distance; a short one never reaches the rated speed."""
    speed = min(rated_speed_mps, math.sqrt(acceleration_mps2 * distance_m))
    return Run(distance_m, speed, acceleration_mps2)
