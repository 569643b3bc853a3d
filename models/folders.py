"""A trained model as a Hugging Face folder, whole or not at all.

Beside what transformers reads it holds `task.json`: what kind of model it is and how its input was prepared, for
`models.serving`. Knows nothing of how the model came to be.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import GenerationConfig

from models import adapters
from models.errors import DataError

TASK = "task.json"


def write(
    trained: Callable[[], nn.Module],
    tokenizer: Path,
    destination: Path,
    *,
    task: Mapping[str, Any],
    generation: Mapping[str, Any] | None = None,
) -> None:
    """Write a model, its adapters merged, with its tokenizer.

    trained: makes the model. tokenizer: the folder to take it from. destination: a new or empty folder. task: what
    `task.json` says. generation: settings by which it generates, None for a model that does not. Raises DataError
    where something is in the way.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise DataError(f"{destination}: must be a new or empty folder to save a model in. Name another.")
    whole = adapters.merged(trained())
    if generation is not None:
        whole.generation_config = GenerationConfig(**generation)  # type: ignore[no-untyped-call]
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        shutil.copytree(tokenizer, temporary)
        whole.save_pretrained(temporary)
        (temporary / TASK).write_text(json.dumps(task, indent=2, ensure_ascii=False) + "\n")
        temporary.rename(destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
