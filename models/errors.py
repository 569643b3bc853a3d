"""The exceptions of `models`, each with a message written for the person who can mend the cause.

    ModelsError(ValueError)
    ├── SettingError      settings that contradict each other
    ├── DataError         a source, a file, a column, an encoding, a split
    └── CheckpointError   a run's folder that does not fit what it is asked to go on with
    DoesNotFit(MemoryError)       memory ran out, and no smaller forward pass is left to try
    Diverged(FloatingPointError)  a run whose losses are worse than a guess's

A message says where, the rule, what was got, and what to do; of the last two, what happened. ModelsErrors are
`ValueError`s so that pydantic, which builds the configurations, reports a `SettingError` beside its own findings.
"""

import difflib
from collections.abc import Iterable


class ModelsError(ValueError):
    """A mistake a person can mend; the message is shown without a traceback."""


class SettingError(ModelsError):
    """Settings that cannot be used together."""


class DataError(ModelsError):
    """Data that cannot be read as asked."""


class CheckpointError(ModelsError):
    """A run's folder that holds something else than what is asked for."""


class DoesNotFit(MemoryError):
    """Memory ran out with forward passes of one sequence, or before the first."""

    divisible = False
    """Smaller forward passes would not help."""


class Diverged(FloatingPointError):
    """A run that ended because its losses are finite, but worse than a guess's."""


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the known name closest to `name`, or an empty string when none is close."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {found[0]!r}?" if found else ""
