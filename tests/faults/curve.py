"""A trial without torch, for breaking: it sleeps instead of computing, and every step changes what it measures.

Deterministic in its configuration and seed. The state is one number that all steps go into, kept in a checkpoint at
each measurement: a trial that goes on from a wrong place measures something else from there on.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from hpo.trials import Measurement

METRICS = ("validation/loss", "train/loss")
_TOKENS_A_STEP = 25


@dataclass(frozen=True, kw_only=True)
class Config:
    """`pace` is seconds a step (25 tokens), `padding` bytes in a checkpoint, `chatter` bytes printed at each."""

    learning_rate: Annotated[float, Gt(0)]
    dropout: Annotated[float, Ge(0), Le(1)] = 0.1
    optimizer: Literal["adamw", "sgd"] = "adamw"
    tokens: Annotated[int, Gt(0)] = 200
    pace: Annotated[float, Ge(0)] = 0.025
    padding: Annotated[int, Ge(0)] = 0
    chatter: Annotated[int, Ge(0)] = 0


def length(config: Config) -> int:
    return config.tokens


def train(config: Config, *, seed: int, rungs: Sequence[int], directory: Path) -> Iterator[Measurement]:
    checkpoint = directory / "checkpoint.json"
    seen, weight = 0, float(seed)
    if checkpoint.exists():
        state = json.loads(checkpoint.read_text())
        seen, weight = state["seen"], state["weight"]
    for rung in rungs:
        if rung < seen:
            continue
        while seen < rung:
            time.sleep(config.pace)
            seen += _TOKENS_A_STEP
            weight = 0.9 * weight + _gradient(config, seen)
        sys.stdout.write(f"at {rung} {'.' * config.chatter}\n")
        sys.stdout.flush()
        _save(checkpoint, {"seen": seen, "weight": weight, "padding": "x" * config.padding})
        yield Measurement(rung, _measure(config, seen, weight))


def _gradient(config: Config, seen: int) -> float:
    return math.sin(seen * config.learning_rate * 100) + config.dropout


def _measure(config: Config, seen: int, weight: float) -> dict[str, float]:
    """The best configuration is 3e-3, 0.2, adamw; the state adds a little to its distance."""
    distance = abs(math.log10(config.learning_rate / 3e-3)) + (config.dropout - 0.2) ** 2
    loss = distance + 50 / seen + (0.1 if config.optimizer == "sgd" else 0.0)
    return {"validation/loss": loss + 1e-3 * math.tanh(weight), "train/loss": weight}


def _save(path: Path, state: dict[str, object]) -> None:
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(state))
    temporary.replace(path)
