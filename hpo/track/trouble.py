"""What trackers raise, in words and in logs, without the passwords that errors like to repeat."""

from __future__ import annotations

import logging

from hpo.errors import HpoError
from hpo.track import spelling


def one_line(error: BaseException) -> str:
    """An exception as one line for people; of a chain of connection errors, the reason alone."""
    text = spelling.masked(" ".join(str(error).split()))
    if isinstance(error, HpoError):
        return text
    for reason in ("Connection refused", "Name or service not known", "timed out", "database is locked"):
        if reason in text:
            return reason
    return spelling.cut(f"{type(error).__name__}: {text}" if text else type(error).__name__, 300)


def unforeseen(error: Exception) -> bool:
    """Whether the log needs a traceback: not for a server that is down."""
    package = type(error).__module__.partition(".")[0]
    return not isinstance(error, OSError | HpoError) and package not in ("mlflow", "requests")


class Discreet(logging.Formatter):
    """Errors repeat the address they concern, and tracebacks too."""

    def format(self, record: logging.LogRecord) -> str:
        return spelling.masked(super().format(record))
