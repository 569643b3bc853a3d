"""What this machine has to run trials on: GPUs and CPU cores, and how slots share them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from hpo.operation import Launch


@dataclass(frozen=True, slots=True)
class Layout:
    """How many trials run at once, and what each is given."""

    slots: int
    threads: int
    gpus: tuple[str, ...]

    def __str__(self) -> str:
        slots = f"{self.slots} slot{'s' if self.slots != 1 else ''}"
        threads = f"{self.threads} thread{'s' if self.threads != 1 else ''} each"
        where = f"{len(self.gpus)} GPU{'s' if len(self.gpus) != 1 else ''}" if self.gpus else "CPU"
        return f"{slots} on {where}, {threads}"


def gpus(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Identifiers of the usable NVIDIA GPUs; CUDA_VISIBLE_DEVICES is respected. torch is not asked: it must
    not touch CUDA before trials are forked."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(part.strip() for part in visible.split(",") if part.strip() not in ("", "-1"))
    command = shutil.which("nvidia-smi")
    if command is None:
        return ()
    query = [command, "--query-gpu=index", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    return tuple(answer.stdout.split()) if answer.returncode == 0 else ()


def cores() -> int:
    """CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def layout(launch: Launch, available: tuple[str, ...], core_count: int) -> Layout:
    """Slots and their shares.

    `auto` slots are `trials_per_gpu` a GPU, or on CPU one for each `threads` cores (one thread where that is
    `auto` too: two trials of two threads on two cores ran up to 15 times slower than with one thread each).
    `auto` threads share the cores out evenly.
    """
    if available:
        slots = len(available) * launch.trials_per_gpu if launch.slots == "auto" else launch.slots
    else:
        each = 1 if launch.threads == "auto" else launch.threads
        slots = max(1, core_count // each) if launch.slots == "auto" else launch.slots
    threads = max(1, core_count // slots) if launch.threads == "auto" else launch.threads
    return Layout(slots, threads, available)
