"""What does it gain to centre the range of the learning rate on a law, and what does it cost where the law is wrong?

    python studies/law_centred/measure.py RAW [--surfaces 40] [--trials 30]
    python studies/law_centred/measure.py RAW --read

Searches made surfaces with `auto`, every trial in full, once for each law that a range may have, and prints the tables
of report.md. The surfaces are those of `hpo.replay.synthetic`, by seed, the same for each law; a search's own seed is its
surface's. RAW keeps the distance to the optimum after each trial, and what is there is not searched again; `--read`
prints the tables of such a file and searches nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from hpo.replay.contest import Entrant
from hpo.replay.simulation import replay
from hpo.replay.synthetic import LENGTH, SPACE, Surface, surface
from hpo.replay.tables import Point, Row, Table
from hpo.space import Choices, FloatRange, IntRange, Parameter, Space
from hpo.statistics import Interval, bootstrap, difference, probability_smaller
from hpo.sweep import Strategy
from hpo.trials import Direction, Metric, Value

FIRST = 1000  # seed of the first surface; the search was designed on 0 to 3
MIDDLE = 12 * 8 * 256**2
"""Parameters of the model at which a surface's own best learning rate is best."""
EXPONENT = -0.713  # of the best rate by model size (Li et al. 2025, arXiv 2503.04715)
RANGES = {"1e-5 to 1": FloatRange(1e-5, 1.0, log=True), "1e-4 to 1e-1": FloatRange(1e-4, 1e-1, log=True)}
KINDS = (
    ("one size", "1e-5 to 1"), ("one size", "1e-4 to 1e-1"), ("sizes searched", "1e-5 to 1"),
    ("sizes and rate alone", "1e-5 to 1"),
)  # fmt: skip
"""What is searched beside the rate (all other settings, sizes too, nothing but sizes), and the rate's range."""
LAWS = {"no law": math.nan, "right": 1.0, "half": 0.5, "twice": 2.0, "a tenth": 0.1, "ten times": 10.0}
"""What a law says, as a multiple of what is best."""
BASELINE: Mapping[str, Value] = {
    "learning_rate": 1e-3, "batch_size": 64, "weight_decay": 0.01, "dropout": 0.1, "schedule": "cosine",
}  # fmt: skip
SIZE: Mapping[str, Value] = {"width": 256, "layers": 8}
SIZES = (Parameter("width", Choices((64, 128, 256, 512, 1024))), Parameter("layers", IntRange(2, 32, log=True)))

Found = dict[str, dict[str, dict[str, list[list[float]]]]]
"""By surfaces, range and law: of each surface, the distance to its optimum after each trial, in nats."""


def number(value: Value) -> float:
    assert isinstance(value, int | float)
    return float(value)


@dataclass(frozen=True)
class Sized:
    """A surface whose model's size is searched too.

    Its best learning rate falls with the size as Step Law says; the best size is one of those in the middle, as where
    larger models have too few tokens.

    Attributes:
        within: the surface of the model of `MIDDLE` parameters.
        best: the best size, in parameters.
        curvature: nats a squared decade of size.
    """

    within: Surface
    best: float
    curvature: float

    def rate(self, values: Mapping[str, Value]) -> float:
        """The best learning rate of a size."""
        return self.within.rate * math.pow(parameters(values) / MIDDLE, EXPONENT)

    def row(self, values: Mapping[str, Value]) -> Row:
        """What training measures."""
        size = self.curvature * math.log10(parameters(values) / self.best) ** 2
        made = replace(self.within, rate=self.rate(values)).row(values)
        return replace(made, points=tuple(replace(point, value=point.value + size) for point in made.points))


def parameters(values: Mapping[str, Value]) -> float:
    """Of the blocks of a transformer."""
    return 12 * number(values["layers"]) * number(values["width"]) ** 2


def table(seed: int, dimension: FloatRange, law: float, kind: str) -> Table:
    """A surface as a table whose learning rate has a law.

    Args:
        seed: of the surface.
        dimension: range of the learning rate.
        law: what it says, as a multiple of what is best; not a number: there is none.
        kind: what is searched, of `KINDS`.
    """
    sized, alone = kind != "one size", kind == "sizes and rate alone"
    made = surface(seed)
    widest = Sized(made, MIDDLE * 10 ** random.Random(f"size {seed}").uniform(-0.5, 0.5), 0.1)
    best: dict[str, Value] = {**BASELINE, "learning_rate": made.rate}
    if not alone:
        best |= {"batch_size": round(made.batch), "weight_decay": made.decay, "dropout": made.dropout}

    def says(values: Mapping[str, Value]) -> float:
        return law * (widest.rate(values) if sized else made.rate)

    rate = Parameter("learning_rate", dimension)
    if not math.isnan(law):
        rate = replace(rate, law="law", centre=says)
    others = [parameter for parameter in SPACE.parameters if parameter.name != "learning_rate" and not alone]
    space = Space((*(SIZES if sized else ()), *others, rate))
    optimum = Row(best, (Point(LENGTH, made.loss(best, LENGTH), float(LENGTH)),))
    baseline = {name: value for name, value in {**SIZE, **BASELINE}.items() if name in space.names}

    def answer(values: Mapping[str, Value]) -> Row:
        return widest.row({**BASELINE, **values}) if sized else made.row(values)

    metric = Metric("validation/loss", Direction.MINIMIZE)
    return Table(f"surface {seed}", space, metric, (optimum,), LENGTH, "units", known=(baseline,), answers=answer)


def searched(made: Table, seed: int, trials: int) -> list[float]:
    """How far the best is from the optimum after each trial; infinite while none was trained to its end."""
    entrant = Entrant("auto", Strategy("auto"), Strategy("none"))
    done = replay(made, entrant.enter(made, seed, 1, trials), count=trials, slots=1)
    values = {step.number: step.value for step in done.steps}
    best, found = math.inf, []
    for place in range(trials):
        best = min(best, values.get(place, math.inf) - made.best)
        found.append(best)
    return found


def run(raw: Path, surfaces: int, trials: int) -> None:
    found: Found = json.loads(raw.read_text()) if raw.exists() else {}
    for (kind, span), (law, multiple) in itertools.product(KINDS, LAWS.items()):
        if law not in found.get(kind, {}).get(span, {}):
            began = time.process_time()
            found.setdefault(kind, {}).setdefault(span, {})[law] = [
                searched(table(seed, RANGES[span], multiple, kind), seed, trials)
                for seed in range(FIRST, FIRST + surfaces)
            ]
            print(f"{kind}, {span}, {law}: {time.process_time() - began:.0f} s", flush=True)
            raw.write_text(json.dumps(found))


# -- tables ---------------------------------------------------------------------------------------------


def after(regrets: Sequence[Sequence[float]], trials: int) -> list[float]:
    """Of each surface, after so many trials."""
    return [one[trials - 1] for one in regrets]


def curve(regrets: Sequence[Sequence[float]]) -> list[float]:
    """The median over surfaces after each trial."""
    return [statistics.median(column) for column in zip(*regrets, strict=True)]


def needed(regrets: Sequence[Sequence[float]], regret: float) -> int:
    """The first trial after which the median is no larger; one more than there were where it never is."""
    return next(
        (place for place, value in enumerate(curve(regrets), 1) if value <= regret + 1e-12), len(regrets[0]) + 1
    )


def ratio(ours: Sequence[Sequence[float]], plain: Sequence[Sequence[float]], trials: int) -> Interval:
    """Trials to the median that is reached without a law in so many, as a share of what it takes without."""

    def of(drawn: Sequence[float]) -> float:
        mine, theirs = ([regrets[int(index)] for index in drawn] for regrets in (ours, plain))
        target = curve(theirs)[trials - 1]
        return needed(mine, target) / needed(theirs, target)

    return bootstrap([float(index) for index in range(len(plain))], of)


def shown(interval: Interval, digits: int) -> str:
    return f"{interval.middle:.{digits}f} ({interval.low:.{digits}f} to {interval.high:.{digits}f})"


def lines(found: Found) -> Iterator[str]:
    for kind, spans in found.items():
        for span, laws in spans.items():
            yield f"\n{kind}, learning rate {span}\n"
            yield (
                "| law | median nats at 5 | at 10 | at 20 | at 30 | mean difference at 10 | at 20 | better, of pairs, at 20 "
                "| trials, ratio, to what 10 reach | to what 20 reach |"
            )
            yield "|---|---|---|---|---|---|---|---|---|---|"
            plain = laws["no law"]
            for law, regrets in laws.items():
                middles = [f"{curve(regrets)[count - 1]:.4f}" for count in (5, 10, 20, len(regrets[0]))]
                if law == "no law":
                    yield f"| {law} | {' | '.join(middles)} | | | | 1 | 1 |"
                    continue
                at = {count: (after(regrets, count), after(plain, count)) for count in (10, 20)}
                gaps = [shown(difference(*at[count]), 3) for count in (10, 20)]
                ratios = [shown(ratio(regrets, plain, count), 2) for count in (10, 20)]
                wins = f"{probability_smaller(*at[20]):.2f}"
                yield f"| {law} | {' | '.join([*middles, *gaps, wins, *ratios])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path)
    parser.add_argument("--surfaces", type=int, default=40)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--read", action="store_true")
    given = parser.parse_args()
    if not given.read:
        run(given.raw, given.surfaces, given.trials)
    print("\n".join(lines(json.loads(given.raw.read_text()))))


if __name__ == "__main__":
    main()
