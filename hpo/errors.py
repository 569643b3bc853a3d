"""What can go wrong, as types. The command line turns each into one clear message and an exit code.

    HpoError                 exit code 1: the work failed
    ├── Stopped              exit code 130: the user stopped it
    └── UserError            exit code 2: what was asked cannot be done as written
        └── SweepError       all mistakes of one sweep, each with its place

A user's mistake never shows a traceback; a defect of ours always does.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class HpoError(Exception):
    """Something failed that the user should read as one message."""

    exit_code = 1


class Stopped(HpoError):
    """The user stopped the work with Ctrl-C."""

    exit_code = 130


class UserError(HpoError):
    """The command, a file or a name is wrong; the message says what to do instead."""

    exit_code = 2


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """One mistake: `where` it stands (`file:line` or the flag) and what is wrong, got, and allowed."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


class SweepError(UserError):
    """Every mistake of a sweep at once."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence naming the nearest known name, or the known names when there are few, or nothing."""
    names = sorted(known)
    # A name typed without its section ("dropout" for "model.dropout") is as near as a misspelling.
    suffixed = [candidate for candidate in names if candidate.rsplit(".", 1)[-1] == name]
    nearest = suffixed or difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if nearest:
        return f" Did you mean {nearest[0]!r}?"
    if 0 < len(names) <= 12:
        return f" Known: {', '.join(names)}."
    return ""
