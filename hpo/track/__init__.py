"""Trackers: copies of a study for people to look at, each brought up to the journal by a pump.

    __init__.py   what the pump needs of a tracker, and nothing else: importing this room costs nothing
    pump.py       journal -> tracker, in batches, in a process of its own, resumable
    mlflow/       the one place that knows MLflow
    wandb/        the one place that knows W&B
    progress.py   what a tracker says of a study as a whole
    words.py      what trackers have to say at the end of a command
    trouble.py    what they raise, in words and in logs
    children.py   how this room starts a process
    spelling.py   names and values as trackers accept them

The journal is the truth. A tracker never sits between a trial and its journal, so that one which is slow,
down or wrong costs nothing but its own copy, which can be written again at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from hpo.errors import HpoError
from hpo.folder import StudyRecord
from hpo.journal import History

TITLES = {"mlflow": "MLflow", "wandb": "W&B"}
"""The trackers there are, as people write them."""

Line = Mapping[str, Any]
"""One line of a journal."""


class Refusal(HpoError):
    """A tracker does not let us in: to ask again at once is of no use."""


def tracked(record: StudyRecord) -> list[str]:
    """The trackers that a study is carried to, by name."""
    return [name for name, settings in (("mlflow", record.mlflow), ("wandb", record.wandb)) if settings is not None]


class Tracker(Protocol):
    """One study's copy in one tracker.

    Every method may raise whatever the tracker's client raises; the pump waits and calls `open` and the same
    method again, with the same arguments. So each must come to the same end however often it is called, and
    however far an earlier call came.
    """

    @property
    def name(self) -> str:
        """One word: names the cursor and the log in the study's `tracking/`."""
        ...

    @property
    def address(self) -> str:
        """Where the copy is, for people; a cursor for another address is worth nothing."""
        ...

    def open(self, memory: Mapping[str, str]) -> bool:
        """Find the study's copy, or begin it.

        Args:
            memory: what `memory` said when the copy was last written to; empty at first.

        Returns:
            Whether what was written earlier is there. If not, the pump starts again from the first line.
        """
        ...

    def write(self, lines: Sequence[Line], history: History) -> None:
        """Carry these lines of the journal; `history` is the study up to and including them."""
        ...

    def settle(self, history: History) -> None:
        """The coordinator died without a word: show what was running as set aside."""
        ...

    def memory(self) -> dict[str, str]:
        """What `open` needs to find the copy again, and links are made from."""
        ...

    def close(self) -> None:
        """Let go of what the client holds; called last, whatever happened."""
        ...
