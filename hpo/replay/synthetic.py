"""Surfaces of language-model training whose optimum is known, each drawn from a seed.

The loss falls with progress by a power law, and is above it by what each setting is away from its own best value, which
moves as training goes on: the best learning rate falls with the number of tokens and the best batch grows (Step Law,
arXiv 2503.04715). So short trials prefer other settings than long ones and curves cross, as they do in practice. Above
some learning rate, training diverges. A configuration has its own fixed noise at each measurement.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from hpo.replay.tables import Point, Row, Table
from hpo.space import Choices, FloatRange, IntRange, Parameter, Space
from hpo.trials import Direction, Metric, Value

LENGTH = 243
_RATE = (1e-5, 1e-1)


@dataclass(frozen=True)
class Surface:
    """One surface.

    Attributes:
        rate: the best learning rate at the end of training.
        drift: the exponent by which it falls with progress.
        batch: the best batch size at the end, which grows with progress.
        decay: the best weight decay.
        dropout: the best dropout.
        curvatures: nats a squared decade of learning rate, a squared octave of batch size, a squared decade of weight
            decay, a squared tenth of dropout, and of the wrong schedule.
        noise: standard deviation of a measurement, in nats.
        edge: decades above the best learning rate at which training diverges.
    """

    rate: float
    drift: float
    batch: float
    decay: float
    dropout: float
    curvatures: tuple[float, float, float, float, float]
    noise: float
    edge: float
    seed: int

    def loss(self, parameters: Mapping[str, Value], progress: int) -> float:
        """Nats, without noise."""
        share = progress / LENGTH
        rate = math.log10(_number(parameters["learning_rate"]) / (self.rate * share**-self.drift))
        batch = math.log2(_number(parameters["batch_size"]) / (self.batch * share**0.3))
        decay = math.log10(_number(parameters["weight_decay"]) / self.decay)
        dropout = (_number(parameters["dropout"]) - self.dropout * share) / 0.1
        one, two, three, four, five = self.curvatures
        # Too high a rate costs more than too low a one, and what is far off learns nothing at all.
        bowl = one * (rate * rate * (2.0 if rate > 0 else 1.0)) + two * batch**2 + three * decay**2
        bowl += four * dropout**2 + (five if parameters["schedule"] == "constant" else 0.0)
        return 3.0 + 1.5 * math.pow(share, -0.25) + 2.5 * math.tanh(bowl / 2.5)

    def row(self, parameters: Mapping[str, Value]) -> Row:
        """What training with these settings measures after each third of a power of three."""
        key = zlib.crc32(repr((self.seed, sorted(parameters.items()))).encode())
        noise = random.Random(key)
        points = tuple(
            Point(progress, self.loss(parameters, progress) + noise.gauss(0, self.noise), float(progress))
            for progress in range(3, LENGTH + 1, 3)
        )
        above = math.log10(_number(parameters["learning_rate"]) / self.rate)
        if above > self.edge:
            return Row(parameters, points[: 1 + key % 20], diverged=True)
        return Row(parameters, points)


def _number(value: Value) -> float:
    assert isinstance(value, int | float)
    return float(value)


SPACE = Space(
    (
        Parameter("learning_rate", FloatRange(*_RATE, log=True)),
        Parameter("batch_size", IntRange(8, 512, log=True)),
        Parameter("weight_decay", FloatRange(1e-4, 1.0, log=True)),
        Parameter("dropout", FloatRange(0.0, 0.5)),
        Parameter("schedule", Choices(("cosine", "constant"))),
    )
)


def surface(seed: int) -> Surface:
    """The surface of a seed."""
    draw = random.Random(seed)
    return Surface(
        rate=10 ** draw.uniform(-3.8, -2.0),
        drift=draw.uniform(0.1, 0.5),
        batch=2 ** draw.uniform(4, 8),
        decay=10 ** draw.uniform(-3, -0.5),
        dropout=draw.uniform(0.0, 0.3),
        curvatures=(
            draw.uniform(0.1, 0.5),
            draw.uniform(0.005, 0.03),
            draw.uniform(0.005, 0.05),
            draw.uniform(0.005, 0.03),
            draw.uniform(0.01, 0.1),
        ),
        noise=draw.choice((0.002, 0.005, 0.01)),
        edge=draw.uniform(0.6, 1.5),
        seed=seed,
    )


def synthetic(seed: int) -> Table:
    """The surface of a seed as a table: every configuration is answered, and the best is known."""
    made = surface(seed)
    optimum: dict[str, Value] = {
        "learning_rate": made.rate,
        "batch_size": round(made.batch),
        "weight_decay": made.decay,
        "dropout": made.dropout,
        "schedule": "cosine",
    }
    best = Row(optimum, (Point(LENGTH, made.loss(optimum, LENGTH), float(LENGTH)),))
    return Table(
        f"synthetic-{seed}", SPACE, Metric("validation/loss", Direction.MINIMIZE), (best,), LENGTH, "units", "units",
        "made", answers=made.row,
    )  # fmt: skip
