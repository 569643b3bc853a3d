"""What a trial costs the coordinator, by how many have ended: asking for it, five reports, telling how it ended.

    python studies/search_benchmark/speed.py [--most 10000] [--samplers auto tpe] [--metrics 1 2 3]

A study with Optuna's store on disk is filled with trials as if another coordinator had run them (under pausing halving,
those that are not complete wait), and at each size twenty more are asked for, reported and told. Before each, the rule
is asked whom it takes up again. Prints medians in milliseconds: a table for one metric, and one for trade-offs. Of two
metrics, loss and memory, some trials beat others in both; of three, with tokens a second, which want the memory, hardly
any does, so that nearly all are on one front: no trade-off is slower.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from hpo.folder import StudyFolder
from hpo.journal import History
from hpo.replay.synthetic import LENGTH, SPACE, Surface, surface
from hpo.replay.tables import TableQuestion
from hpo.study import Study
from hpo.sweep import Search, Strategy
from hpo.tradeoff import Tradeoff
from hpo.trials import Assignment, Direction, Ended, Ending, Measurement, Metric, Outcome, Progressed, Started, Value

SIZES = (100, 1000, 3000, 10_000)
SHARES = (Fraction(1, 27), Fraction(1, 9), Fraction(1, 3), Fraction(2, 3), Fraction(1))
RULES = {"auto": "pausing halving", "tpe": "median", "random": "none"}
METRIC = Metric("validation/loss", Direction.MINIMIZE)
OTHERS = (
    Metric("train/peak_memory_gib", Direction.MINIMIZE),
    Metric("train/tokens_per_second", Direction.MAXIMIZE),
)


def measured(made: Surface, parameters: Mapping[str, Value], share: Fraction) -> Measurement:
    """What a trial measures at a share of its training; memory and speed grow with the batch, a little unevenly."""
    progress, batch = int(share * LENGTH), float(str(parameters["batch_size"]))
    batch *= 1 + 0.1 * float(str(parameters["dropout"]))
    values = (made.loss(parameters, progress), 2 + batch / 16, 1e5 * batch / (batch + 64))
    names = (METRIC, *OTHERS)
    return Measurement(progress, {metric.name: value for metric, value in zip(names, values, strict=True)})


def fill(study: Study, first: int, last: int, generator: random.Random, *, waits: bool) -> None:
    made = surface(1)
    for number in range(first, last):
        parameters = SPACE.draw(generator)
        study.hear(Started(Assignment(number, parameters, parameters, 0, SHARES), 0))
        reached = generator.choice((1, 1, 1, 2, 2, 5))
        for share in SHARES[:reached]:
            study.hear(Progressed(number, measured(made, parameters, share), 1.0, LENGTH))
        if reached < len(SHARES) and waits:
            study.pause(number)
        else:
            ending = Ending.COMPLETE if reached == len(SHARES) else Ending.STOPPED
            study.hear(Ended(number, Outcome(ending), 1.0, None))


def once(study: Study) -> tuple[float, float]:
    """Seconds until a trial is asked for, and until all of it is told."""
    made, began = surface(1), time.perf_counter()
    revived = study.revive(last=False)
    assignment = study.ask()
    asked = time.perf_counter() - began
    for share in SHARES:
        study.report(assignment, measured(made, assignment.parameters, share), length=LENGTH)
    study.tell(assignment.number, Outcome(Ending.COMPLETE))
    whole = time.perf_counter() - began
    if revived is not None:
        study.tell(revived, Outcome(Ending.STOPPED))
    return asked, whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=10_000)
    parser.add_argument("--samplers", nargs="+", default=["auto", "tpe"])
    parser.add_argument("--metrics", nargs="+", type=int, choices=(1, 2, 3), default=[1, 2, 3])
    given = parser.parse_args()
    if 1 in given.metrics:
        table(given.samplers, Tradeoff(METRIC), given.most)
    for count in (count for count in given.metrics if count > 1):
        print(f"\nA trade-off of {count} metrics:\n")
        table(["auto"], Tradeoff(METRIC, OTHERS[: count - 1]), given.most)


def table(samplers: Sequence[str], tradeoff: Tradeoff, most: int) -> None:
    print("| sampler, rule | trials | ask, ms | ask, 5 reports, tell, ms | slowest of 20 |\n|---|---|---|---|---|")
    for sampler in samplers:
        with tempfile.TemporaryDirectory() as place:
            folder = StudyFolder(Path(place) / "study")
            folder.root.mkdir()
            search = Search(trials=10**6, sampler=Strategy(sampler), pruner=Strategy(RULES[sampler]), rungs=SHARES)
            study = Study(TableQuestion(METRIC, search, SPACE, (), SHARES, tradeoff), folder, History(), 9)
            generator, number = random.Random(0), 0
            for size in (size for size in SIZES if size <= most):
                fill(study, number, size, generator, waits=RULES[sampler] == "pausing halving")
                times = [once(study) for _ in range(20)]
                number = size + len(times)
                asks, wholes = [1000 * ask for ask, _ in times], [1000 * whole for _, whole in times]
                print(f"| {sampler}, {RULES[sampler]} | {size:,} | {statistics.median(asks):.1f} | "
                      f"**{statistics.median(wholes):.1f}** | {max(wholes):.1f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
