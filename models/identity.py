"""What makes a run the same run, and how long it is: what every door says to the training loop in the same way.

Light to import. Knows nothing of tasks.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models import cache
from models.configuration import Training
from models.errors import DataError


def of(config: Training, *, seed: int, rungs: Sequence[int], digest: object) -> dict[str, Any]:
    """Everything that a run's outcome depends on, as JSON: its settings by dotted name, its seed, where it is
    measured, the digest of its data, and the content of the files it goes on from."""
    settings = _flat(asdict(config))
    del settings["checkpoint_seconds"]  # says how often to save, not what
    for name in ("model.pretrained", "augment.synonyms_file"):
        if settings.get(name):
            settings[f"{name} content"] = _content(Path(settings[name]).expanduser())
    return {**settings, "seed": seed, "rungs": sorted(rungs), "digest": digest}


def _content(path: Path) -> list[str]:
    """Hashes of a file, or of the weights in a folder; empty for a hub name."""
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    return [cache.content_hash(file) for file in files]


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return found


def length(config: Training, examples: int) -> int:
    """Examples that a full run trains on: `epochs` passes over `examples` of them, one where none is said."""
    return max(1, round((config.epochs or 1.0) * examples))


def need_test(examples: int) -> None:
    """Raises DataError where there is no test split: a promotion is judged on one."""
    if examples == 0:
        raise DataError(
            "data.test: 0 leaves no test split, and a promotion is judged on one. "
            "Set data.test to a share such as 0.05, or name data.test_split."
        )
