"""Trials that compute the same amount whatever their configuration: what they take is what the machine gives them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Gt

from hpo.trials import Measurement

METRICS = ("validation/loss",)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`blocks` are hashed between the first measurement and the last; 1000 take about 20 ms."""

    learning_rate: Annotated[float, Gt(0)]
    blocks: Annotated[int, Gt(0)] = 20_000


def length(config: Config) -> int:
    return config.blocks


def train(config: Config, *, seed: int, rungs: Sequence[int], directory: Path) -> Iterator[Measurement]:
    state, done = f"{config.learning_rate} {seed}".encode(), 0
    for rung in rungs:
        for _ in range(rung - done):
            state = hashlib.sha256(state * 1024).digest()
        done = rung
        yield Measurement(rung, {"validation/loss": int.from_bytes(state[:4], "big") / 2**32})
