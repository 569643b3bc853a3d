"""Names and values as trackers accept them and people read them.

What cannot be written as it is changes visibly, never silently. Knows no tracker's client.
"""

from __future__ import annotations

import hashlib
import json
import math
import re

_NAME_CHARACTERS = 250
_REFUSED = re.compile(r"[^\w.\- :/]")
# The rest of what MLflow refuses is written as its code point.
_SPOKEN = {"@": "-at-", "=": "-is-", ",": "-", "%": "-percent", "+": "-plus-", "#": "-number-", "&": "-and-"}


def name(written: str) -> str:
    """A metric's or setting's name in the characters MLflow takes: letters, digits and `_-. :/`.

    `precision@5` becomes `precision-at-5`; each part between slashes is kept, empty ones and dots alone are not.
    """
    spelled = _REFUSED.sub(lambda match: _SPOKEN.get(match[0], f"-u{ord(match[0]):04x}-"), written)
    # MLflow refuses what a path would be shortened to: "a//b", "a/./b", "/a", "a/".
    parts = [part if part.strip(".") else "dot" * len(part) for part in spelled.split("/") if part]
    spelled = "/".join(parts) or "unnamed"
    if len(spelled) > _NAME_CHARACTERS:
        digest = hashlib.sha256(spelled.encode()).hexdigest()[:8]
        spelled = f"{spelled[: _NAME_CHARACTERS - 9]}-{digest}"
    return spelled


def value(given: object, limit: int = 6000) -> str:
    """A setting as text: numbers at four significant digits, YAML's words for true, false and nothing.

    Args:
        given: a YAML value.
        limit: characters the tracker keeps; longer text is cut, and says so.
    """
    match given:
        case None:
            text = "null"
        case bool():
            text = "true" if given else "false"
        case float():
            text = f"{given:.4g}"
        case str():
            text = given
        case list() | tuple() | dict():
            text = json.dumps(given, default=str)
        case _:
            text = str(given)
    return cut(text, limit)


def cut(text: str, limit: int) -> str:
    """Text of at most `limit` characters; what was left out is said at its end."""
    if len(text) <= limit:
        return text
    ending = f" ... [cut; {len(text)} characters in all]"
    return text[: limit - len(ending)] + ending


def masked(text: str) -> str:
    """Text in which no address has its password any more."""
    return re.sub(r"(://[^:/@\s]*):[^@/\s]+@", r"\1:***@", text)


def number(measured: float) -> float:
    """A metric as it is stored. Infinity becomes NaN: stored as 1.8e308, it would flatten every chart."""
    return measured if math.isfinite(measured) else math.nan


def milliseconds(seconds: float) -> int:
    """Seconds since the epoch as trackers count time."""
    return round(seconds * 1000)
