"""What `auto` stands for in a sweep, and why: chosen by measurement (studies/search_benchmark), said in words.

Pure values: knows no sampler and no objective, only what they can do.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fractions import Fraction

from hpo.sweep import Search, Strategy

PAUSING = ("pausing halving", "best of rung")
_EARLY = (Fraction(1, 9), Fraction(1, 3), Fraction(1))
_LATE = (Fraction(1, 3), Fraction(2, 3), Fraction(1))


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a choice depends on.

    Attributes:
        resumes: whether a trial goes on from a checkpoint; else it begins anew when it is taken up again.
        shared: whether several coordinators work on the study, each with checkpoints of its own.
        rungs_written: whether the sweep says where trials are compared.
        weighs: whether the sweep has a trade-off.
        centred: settings whose range a law centres.
    """

    resumes: bool
    shared: bool
    rungs_written: bool
    weighs: bool = False
    centred: tuple[str, ...] = ()


def settled(search: Search, where: Circumstances) -> Search:
    """The search with every `auto` decided but the sampler's, which is a sampler of its own."""
    pruner = search.pruner
    if pruner.name == "auto":
        pauses = where.resumes and not where.shared
        other = "none" if where.weighs else "median"
        pruner = Strategy("pausing halving" if pauses else other, pruner.options)
    rungs = search.rungs
    if not where.rungs_written:
        # A trial that is set aside can be taken up again, and may be compared early; one that is stopped is lost.
        rungs = _EARLY if pruner.name in PAUSING else _LATE
    return dataclasses.replace(search, pruner=pruner, rungs=rungs)


def reasons(search: Search, where: Circumstances) -> list[str]:
    """Why `auto` stands for what it does, a sentence each."""
    found: list[str] = []
    if search.sampler.name == "auto":
        middle = f" (what the laws of {' and '.join(where.centred)} say)" if where.centred else ""
        found.append(
            f"sampler auto: the baseline, the middle of the space{middle} and a few Sobol points, then where a "
            "Gaussian process over all curves expects the most improvement"
            + (" of the metrics together, weighed anew for each trial (ParEGO)" if where.weighs else "")
            + (" per second of training" if search.sampler.options.get("cost_aware") else "")
            + (
                "; every fifth trial explores, more once the model expects nothing"
                if settled(search, where).pruner.name != "none"
                else ""
            )
        )
    if search.pruner.name == "auto":
        if where.weighs:
            why = _of_a_tradeoff(where)
        elif where.shared:
            why = "median: trials of a shared study cannot be set aside for others, so only the worse half is stopped"
        elif not where.resumes:
            why = "median: this objective keeps no checkpoints (no argument `directory`), so nothing is set aside"
        else:
            why = (
                "pausing halving: the third that is expected to end best goes on at each rung, the others wait and may "
                "be taken up again"
            )
        found.append(f"pruner auto: {why}")
    return found


def _of_a_tradeoff(where: Circumstances) -> str:
    if where.shared:
        return "none: trials of a shared study cannot be set aside, and one metric alone is no reason to stop a trial"
    if not where.resumes:
        return "none: this objective keeps no checkpoints, and one metric alone is no reason to stop a trial"
    return (
        "pausing halving: a third of the trials goes on at each rung, by the front they are on, the others wait; what "
        "no other trial beats in all metrics is trained on in the end"
    )
