"""Rows of different lengths on disk: one file of values, one of where each row begins, both memory-mapped.

Knows nothing of what the values mean; texts are rows of UTF-8 bytes.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Ragged:
    """Rows of whole numbers.

    values: all rows one after the other, shape (values,). starts: where each begins and the last one ends, shape
    (rows + 1,), int64.
    """

    values: Array
    starts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> Array:
        """One row, shape (its length,)."""
        found: Array = self.values[self.starts[row] : self.starts[row + 1]]
        return found

    def __iter__(self) -> Iterator[Array]:
        return (self[row] for row in range(len(self)))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Length of each row, shape (rows,)."""
        return np.diff(self.starts)

    def text(self, row: int) -> str:
        """One row of bytes as text."""
        return bytes(self[row]).decode()


def write(folder: Path, name: str, rows: Iterable[Array], dtype: npt.DTypeLike) -> None:
    """Write rows under a name; `read` finds them. `dtype` must hold every value."""
    starts = [0]
    with (folder / f"{name}.values").open("wb") as output:
        for row in rows:
            output.write(np.asarray(row, dtype=dtype).tobytes())
            starts.append(starts[-1] + len(row))
        output.flush()
        os.fsync(output.fileno())
    np.asarray(starts, dtype=np.int64).tofile(folder / f"{name}.starts")
    (folder / f"{name}.dtype").write_text(np.dtype(dtype).name)


def read(folder: Path, name: str) -> Ragged:
    """Rows that `write` wrote, memory-mapped and read-only."""
    dtype = np.dtype((folder / f"{name}.dtype").read_text())
    values = folder / f"{name}.values"
    mapped: Array = np.memmap(values, dtype=dtype, mode="r") if values.stat().st_size else np.empty(0, dtype=dtype)
    return Ragged(mapped, np.fromfile(folder / f"{name}.starts", dtype=np.int64))


def encoded(text: str) -> Array:
    """A text as a row of bytes, uint8."""
    return np.frombuffer(text.encode(), dtype=np.uint8)
