# SPDX-License-Identifier: GPL-2.0
"""What a benchmark has found: values beside their targets, lines of points to plot. rig/bench_page.py shows them."""
import math
import statistics
from dataclasses import dataclass, field
from typing import Optional, Sequence, Union


@dataclass(frozen=True)
class Spread:
    """The median of some samples, the lowest and the highest of them. Not a number (NaN): it could not be measured."""
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Spread":
        return cls(statistics.median(samples), min(samples), max(samples)) if samples else cls(math.nan, math.nan, math.nan)

    @property
    def known(self) -> bool:
        return all(map(math.isfinite, (self.median, self.low, self.high)))


@dataclass(frozen=True)
class Value:
    """A measured value; with `at_least` or `at_most`, in the same unit, it has a target. `spread` is None for what is counted
    or was measured once."""
    what: str
    value: float
    unit: str
    at_least: Optional[float] = None
    at_most: Optional[float] = None
    spread: Optional[Spread] = None

    @property
    def met(self) -> Optional[bool]:
        """Whether the target is met, None without one. What could not be measured meets none."""
        if self.at_least is not None:
            return self.value >= self.at_least
        if self.at_most is not None:
            return self.value <= self.at_most
        return None

    @property
    def target(self) -> str:
        """">= 10", "<= 3", or ""."""
        if self.at_least is not None:
            return f">= {self.at_least:.4g}"
        return f"<= {self.at_most:.4g}" if self.at_most is not None else ""


@dataclass(frozen=True)
class Line:
    """Points of a plot that belong together: x, and what was measured there."""
    name: str
    points: Sequence[tuple[float, Spread]]

    def at(self, x: float) -> Optional[Spread]:
        return next((spread for place, spread in self.points if place == x), None)


@dataclass(frozen=True)
class Plot:
    """Lines over one x, both axes logarithmic. `x_bytes`: x is a number of bytes, which is written as 64 KiB."""
    title: str
    x: str
    y: str
    lines: Sequence[Line]
    x_bytes: bool = True

    @property
    def places(self) -> list[float]:
        """Every x that any line has, in order."""
        return sorted({x for line in self.lines for x, _ in line.points})


Item = Union[Value, Plot, str]
"""A string is a remark."""


@dataclass
class Section:
    """All of one benchmark, in the order in which it was told."""
    name: str
    title: str
    kernel: str
    items: list[Item] = field(default_factory=list)
