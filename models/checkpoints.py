"""Checkpoints on disk: whole or not there, the newest one only.

A checkpoint is a folder `checkpoint-<n>` with `state.json` and safetensors files, written under another name,
synced and renamed; an older one goes when the newer is in place. A process killed at any moment leaves one
that can be read. No pickle: what is read here can hold numbers, never code. Knows nothing of what the numbers
mean.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from models.errors import CheckpointError

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """state: anything JSON can say. tensors: by file ("model", "optimizer", ...), then by name."""

    state: Mapping[str, Any]
    tensors: Mapping[str, Tensors] = field(default_factory=dict)


def write(directory: Path, checkpoint: Checkpoint) -> None:
    """Put a checkpoint into `directory` in place of the one there."""
    present = _numbers(directory)
    folder = directory / f"checkpoint-{max(present, default=0) + 1:06d}"
    for left_by_a_kill in directory.glob(".checkpoint-*"):
        shutil.rmtree(left_by_a_kill)
    temporary = directory / f".{folder.name}"
    temporary.mkdir(parents=True)
    for name, tensors in checkpoint.tensors.items():
        save_file({key: value.contiguous() for key, value in tensors.items()}, temporary / f"{name}.safetensors")
    # Python's JSON has NaN and Infinity, which a diverged run's metrics need.
    (temporary / "state.json").write_text(json.dumps(checkpoint.state))
    for path in (*temporary.iterdir(), temporary):
        _sync(path)
    temporary.rename(folder)
    _sync(directory)
    for number in present:
        shutil.rmtree(directory / f"checkpoint-{number:06d}")


def latest(directory: Path) -> Path | None:
    """Folder of the checkpoint in `directory`, None where there is none."""
    numbers = _numbers(directory)
    return directory / f"checkpoint-{max(numbers):06d}" if numbers else None


def read_state(folder: Path) -> dict[str, Any]:
    """The state of the checkpoint in `folder`."""
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: cannot be read: {error}. Delete it to start the run anew.") from error
    return state


def read_tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors of one file of the checkpoint in `folder`, on the CPU; empty where it has no such file."""
    path = folder / f"{name}.safetensors"
    return load_file(path) if path.exists() else {}


def weights(model: nn.Module, *, keep: bool = False) -> dict[str, torch.Tensor]:
    """A model's state by name, each tensor once: tied ones are one tensor under their first name.

    Of a model with adapters (PEFT) only what is trained: the rest is its pretrained base, which lies elsewhere.
    keep: the parameters themselves rather than their detached values.
    """
    adapted = getattr(model, "peft_config", None) is not None
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen and (tensor.requires_grad or not adapted):
            seen.add(id(tensor))
            found[name] = tensor if keep else tensor.detach()
    return found


def load_weights(model: nn.Module, saved: Tensors) -> None:
    """Copy saved weights into a model of the same shape. Raises CheckpointError where names or shapes
    differ."""
    present = weights(model)
    differing = {name for name in present if name in saved and present[name].shape != saved[name].shape}
    if differing := differing | (present.keys() ^ saved.keys()):
        others = ", ".join(sorted(differing)[:3])
        raise CheckpointError(
            f"checkpoint: must hold the weights of this model, got others: {others}. "
            "Use the configuration it was trained with."
        )
    with torch.no_grad():
        for name, tensor in present.items():
            tensor.copy_(saved[name])


def _numbers(directory: Path) -> list[int]:
    names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    return [int(match[1]) for name in names if (match := re.fullmatch(r"checkpoint-(\d+)", name))]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
