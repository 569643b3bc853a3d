"""`models.language_modelling:train`, and when its first optimizer step and its end were. Used by measure.py."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from pathlib import Path

from models import language_modelling
from models.language_modelling import Config, Measurement, length, prepare

PRELOAD = language_modelling.PRELOAD
__all__ = ["PRELOAD", "length", "prepare", "train"]


def train(config: Config, *, seed: int, rungs: list[int], directory: Path) -> Generator[Measurement, None, None]:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    times = {"began": time.time()}
    hook = register_optimizer_step_post_hook(lambda *_: times.setdefault("first_step", time.time()) and None)
    try:
        yield from language_modelling.train(config, seed=seed, rungs=rungs, directory=directory)
    finally:
        hook.remove()
        times["ended"] = time.time()
        (directory.parent / f"{directory.name}.times.json").write_text(json.dumps(times))
