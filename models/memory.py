"""Memory: whether an error says that it ran out, how much was taken, and forward passes small enough to fit.

Knows nothing of models, data or losses, nor who begins a run again with smaller passes.
"""

import errno
import re
import resource
import sys
from collections.abc import Callable
from contextvars import ContextVar, Token
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import torch

from models.errors import DoesNotFit, SettingError

Found = TypeVar("Found")

_SIGNS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "ALLOC_FAILED",
    "std::bad_alloc",
)
"""What torch and the libraries under it say, in errors of no type of their own."""


def is_exhausted(error: BaseException) -> bool:
    """Whether an error means that memory ran out, of the host or of a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def peak_gib(device: torch.device) -> float:
    """The most memory taken so far, in GiB: of a GPU, by this process's tensors since `forget_peak`; elsewhere by the
    whole process since it began (its peak resident size)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    # Not ru_maxrss on Linux: a process that another one has started keeps the peak of that one as its own.
    status = Path("/proc/self/status")
    found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE) if status.exists() else None
    if found is not None:
        return int(found[1]) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # macOS gives bytes, others KiB


def forget_peak(device: torch.device) -> None:
    """Let `peak_gib` of a GPU begin anew. That of a process cannot."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


class Division:
    """Forward passes over a share of what they would be over otherwise, where that does not fit.

    As a context it makes `rows` give smaller batches, and turns an error that says that memory ran out into
    DoesNotFit where the forward pass last begun (or the only thing begun: the model) was of one sequence already.
    It may be entered again and again, but not in itself.

    Attributes:
        by: the divisor, at least 1.
        rows: sequences in the forward pass last begun; 0 before the first.
    """

    def __init__(self, by: int) -> None:
        if by < 1:
            raise SettingError(f"divide: must be at least 1, got {by}. Leave it out to divide nothing.")
        self.by = by
        self.rows = 0
        self._entered: Token[Division | None] | None = None

    def __enter__(self) -> "Division":
        self._entered = _present.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._entered is not None
        _present.reset(self._entered)
        if error is not None and self.rows <= 1 and is_exhausted(error):
            what = "one sequence alone does not fit" if self.rows else "the model alone does not fit"
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise DoesNotFit(f"{what}: {said[0]}") from error


_present: ContextVar[Division | None] = ContextVar("division", default=None)
# What is measured lies many calls below the loop: the doors' evaluations would all hand it down for no other purpose.


def rows(batch_tokens: int, row_tokens: int) -> int:
    """How many rows of `row_tokens` tokens a batch of at most `batch_tokens` holds, at least one; fewer where the
    run's forward passes are divided."""
    division = _present.get() or Division(1)
    division.rows = max(1, batch_tokens // division.by // max(1, row_tokens))
    return division.rows


def divide_until_it_fits(measure: Callable[[], Found]) -> Found:
    """What `measure` returns, called again with batches half as large each time that memory runs out.

    For what changes nothing, such as measuring a trained model. Raises DoesNotFit where no smaller batch is left.
    """
    by = 1
    while True:
        try:
            with Division(by):
                return measure()
        except Exception as error:
            if isinstance(error, DoesNotFit) or not is_exhausted(error):
                raise
        by *= 2  # here, where the error no longer holds the tensors that did not fit
