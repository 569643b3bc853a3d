"""What a study of several metrics found, for people and for programs: its front.

Knows a study's summary, and no sampler or rule.
"""

from __future__ import annotations

import re
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from hpo import pareto
from hpo.summary import Summary
from hpo.tradeoff import sign
from hpo.wording import number


def covered(summary: Summary) -> float | None:
    """The share that the front dominates of the box between the best and the worst of each metric; None if it is flat.

    The hypervolume, of which the unit is the box of the trials that were trained in full: it tells how far from a mere
    exchange of one metric for another the front is, and not how good one study is beside another.
    """
    axes = list(zip(*summary.points.values(), strict=True))
    spans = [max(axis) - min(axis) for axis in axes]
    if not spans or not all(spans):
        return None
    lows = [min(axis) for axis in axes]
    units = [
        tuple((value - low) / span for value, low, span in zip(point, lows, spans, strict=True))
        for point in summary.points.values()
    ]
    return pareto.hypervolume(units, (1.0,) * len(axes))


def sentence(summary: Summary) -> str:
    """How many are on the front, what of the baseline, and how much it covers."""
    points, count = summary.points, len(summary.front)
    text = f"{count} of the {len(points)} trials trained in full {'is' if count == 1 else 'are'} on the front"
    text += ": each of the others is beaten by one of them in every metric, or level in some."
    if 0 in points:
        beating = [str(n) for n, point in sorted(points.items()) if pareto.dominates(point, points[0])]
        named = f"trial{'s' if len(beating) > 1 else ''} {', '.join(beating)}"
        text += f" The baseline is beaten so by {named}." if beating else " The baseline is on the front."
    if (share := covered(summary)) is not None:
        text += f" The front covers {100 * share:.0f}% of the box between the best and the worst of each metric."
    return text


def front_view(summary: Summary) -> list[RenderableType]:
    """The front as a table: each trial, its metrics, and the parameters in which the front's trials differ."""
    if not summary.front:
        return []
    metrics = summary.tradeoff.metrics
    first = summary.front[0].parameters
    names = [
        name
        for name in summary.record.space
        if any(trial.parameters.get(name) != first.get(name) for trial in summary.front)
    ]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("front", *(metric.name for metric in metrics), *names):
        table.add_column(re.sub(r"([/._])", "\\1\n", name), justify="right", no_wrap=True)
    for trial in summary.front:
        values = [sign(metric) * value for metric, value in zip(metrics, summary.points[trial.number], strict=True)]
        label = Text(trial.label, style="bold green")
        table.add_row(label, *map(number, values), *(number(trial.parameters.get(name)) for name in names))
    return [table, Text(), Text(sentence(summary)), Text()]


def front_json(summary: Summary) -> dict[str, Any]:
    """What `hpo show --json` says of a trade-off beside all else; nothing of a study that has none."""
    if not summary.tradeoff:
        return {}
    return {
        "tradeoff": summary.record.tradeoff,
        "front": [trial.number for trial in summary.front],
        "front_covers": covered(summary),
    }
