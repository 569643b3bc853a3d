"""Surfaces of language-model training whose optimum is known, each drawn from a seed.

The loss falls with progress by a power law, and is above it by what each setting is away from its own best value, which
moves as training goes on: the best learning rate falls with the number of tokens and the best batch grows (Step Law,
arXiv 2503.04715). So short trials prefer other settings than long ones and curves cross, as they do in practice. Above
some learning rate, training diverges. A configuration has its own fixed noise at each measurement.

On a sized surface the model's width is searched too, and a trial costs what its size does: the largest about fourteen
times what the smallest does. On a late one, early measurements mislead.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

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
    optimum = _optimum(made)
    best = Row(optimum, (Point(LENGTH, made.loss(optimum, LENGTH), float(LENGTH)),))
    return Table(
        f"synthetic-{seed}", SPACE, Metric("validation/loss", Direction.MINIMIZE), (best,), LENGTH, "units", "units",
        "made", answers=made.row,
    )  # fmt: skip


def _optimum(made: Surface) -> dict[str, Value]:
    """What is best at the end of training."""
    return {
        "learning_rate": made.rate,
        "batch_size": round(made.batch),
        "weight_decay": made.decay,
        "dropout": made.dropout,
        "schedule": "cosine",
    }


WIDTHS = (64, 96, 128, 192, 256, 384, 512)


@dataclass(frozen=True)
class Sized:
    """A surface on which the model's width is a setting.

    Attributes:
        within: the surface of the largest model.
        capacity: by which a lack of size counts, in nats.
        exponent: by which the loss falls with size (about 0.34: Hoffmann et al., arXiv 2203.15556, equation 10).
        lean: the exponent by which the best learning rate falls with size.
        best: the width above which the data are too few for the model.
        excess: nats a squared factor e of size above it.
    """

    within: Surface
    capacity: float
    exponent: float
    lean: float
    best: int
    excess: float

    def size(self, width: Value) -> float:
        """Of the largest model, 1."""
        return (_number(width) / WIDTHS[-1]) ** 2

    def surface(self, width: Value) -> Surface:
        """Of the models of one width."""
        return replace(self.within, rate=self.within.rate * math.pow(self.size(width), -self.lean))

    def lack(self, width: Value) -> float:
        """Nats that a model of this width is worse than the largest would be, had it enough data."""
        above = max(0.0, math.log(self.size(width) / self.size(self.best)))
        return self.capacity * (math.pow(self.size(width), -self.exponent) - 1) + self.excess * above**2

    def cost(self, width: Value) -> float:
        """Of a unit of progress; the largest model's is 1. A twentieth is spent whatever the size."""
        return 0.05 + 0.95 * self.size(width)

    def row(self, parameters: Mapping[str, Value]) -> Row:
        """What training with these settings measures, and what it costs."""
        width = parameters[_WIDTH]
        row = self.surface(width).row({name: value for name, value in parameters.items() if name != _WIDTH})
        points = tuple(
            replace(point, value=point.value + self.lack(width), cost=point.cost * self.cost(width))
            for point in row.points
        )
        return replace(row, parameters=parameters, points=points)


_WIDTH = "model.width"


def sized(seed: int) -> Table:
    """A surface on which the model's width is searched; a whole training is one of the best width."""
    draw = random.Random(f"sized/{seed}")
    best = draw.choice((192, 256, 512))
    made = Sized(
        surface(seed),
        capacity=draw.uniform(0.3, 1.0),
        exponent=draw.uniform(0.15, 0.35),
        lean=draw.uniform(0.2, 0.6),
        best=best,
        excess=0.05,
    )
    rows = [_best_of(made, width) for width in WIDTHS]
    space = Space((*SPACE.parameters, Parameter(_WIDTH, Choices(WIDTHS))))
    return Table(
        f"sized-{seed}", space, Metric("validation/loss", Direction.MINIMIZE),
        (min(rows, key=lambda row: row.points[-1].value),), LENGTH, "units", "units", "made", answers=made.row,
    )  # fmt: skip


def _best_of(made: Sized, width: int) -> Row:
    """The best training of a width, without noise."""
    within = made.surface(width)
    settings = _optimum(within)
    value = within.loss(settings, LENGTH) + made.lack(width)
    return Row({**settings, _WIDTH: width}, (Point(LENGTH, value, LENGTH * made.cost(width)),))


@dataclass(frozen=True)
class Late:
    """A surface on which settings work late: at first they cost what they are to earn.

    Attributes:
        rate: the best learning rate at the end; the higher it is, the farther ahead a trial is at first.
        decay: the best weight decay at the end; at first, little of it is better.
        dropout: the best dropout at the end; at first, none is better.
        early: nats at the very start, for a decade of learning rate, a decade of weight decay and all of dropout.
        noise: standard deviation of a measurement, in nats.
        seed: of the noise.
    """

    rate: float
    decay: float
    dropout: float
    early: tuple[float, float, float]
    noise: float
    seed: int

    def loss(self, parameters: Mapping[str, Value], progress: int) -> float:
        """Nats, without noise."""
        share = progress / LENGTH
        rate = math.log10(_number(parameters["learning_rate"]) / self.rate)
        decay = math.log10(_number(parameters["weight_decay"]) / self.decay)
        dropout = _number(parameters["dropout"])
        bowl = 0.2 * rate**2 + 0.1 * decay**2 + 1.5 * (dropout - self.dropout) ** 2
        one, two, three = self.early
        handicap = (1 - share) * (-one * rate + two * decay + three * dropout)
        return 3.0 + 1.5 * math.pow(share, -0.25) + bowl + handicap

    def row(self, parameters: Mapping[str, Value]) -> Row:
        noise = random.Random(zlib.crc32(repr((self.seed, sorted(parameters.items()))).encode()))
        points = tuple(
            Point(progress, self.loss(parameters, progress) + noise.gauss(0, self.noise), float(progress))
            for progress in range(3, LENGTH + 1, 3)
        )
        return Row(parameters, points)


def late(seed: int) -> Table:
    """A surface on which the order at the first rung is not that at the end."""
    draw = random.Random(f"late/{seed}")
    made = Late(
        rate=10 ** draw.uniform(-3.8, -3.0),
        decay=10 ** draw.uniform(-2.0, -0.5),
        dropout=draw.uniform(0.1, 0.4),
        early=(draw.uniform(0.15, 0.45), draw.uniform(0.1, 0.3), draw.uniform(1.0, 2.5)),
        noise=0.005,
        seed=seed,
    )
    optimum: dict[str, Value] = {"learning_rate": made.rate, "weight_decay": made.decay, "dropout": made.dropout}
    best = Row(optimum, (Point(LENGTH, made.loss(optimum, LENGTH), float(LENGTH)),))
    space = Space(tuple(parameter for parameter in SPACE.parameters if parameter.name in optimum))
    return Table(
        f"late-{seed}", space, Metric("validation/loss", Direction.MINIMIZE), (best,), LENGTH, "units", "units",
        "made", answers=made.row,
    )  # fmt: skip
