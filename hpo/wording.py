"""Numbers, durations and states as people read them, the same everywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping

STYLES = {
    "complete": "green",
    "stopped": "yellow",
    "running": "cyan",
    "interrupted": "magenta",
    "paused": "blue",
    "diverged": "red",
    "out of memory": "red",
    "killed": "red",
    "hung": "red",
    "failed": "red",
}


def number(value: object, digits: int = 4) -> str:
    """A setting or a metric at four significant digits, without trailing noise."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if math.isfinite(value) and 1e4 <= abs(value) < 1e12:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def duration(seconds: float) -> str:
    """Time as people say it: 4.2 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"


def parameters(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in values.items())
