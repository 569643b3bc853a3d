"""Messages of dialogues as they stand in data: read, cleaned, shown.

Light: no torch. Knows nothing of templates and tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from models.errors import DataError, nearest

ROLES = ("system", "user", "assistant")


class Message(TypedDict):
    """role: one of `ROLES`."""

    role: str
    content: str


Messages = Sequence[Message]


def parsed(given: Any, where: str, setting: str) -> tuple[Message, ...]:
    """A list of messages as it stands in a row; empty for none. Raises DataError for anything else."""
    if given is None:
        return ()
    if not isinstance(given, list | tuple | np.ndarray):
        raise DataError(
            f"{where}: must hold a list of messages, got {type(given).__name__} {str(given)[:60]!r}. "
            f"Set {setting} to a column of messages with role and content."
        )
    return tuple(_message(message, f"{where}, message {number}") for number, message in enumerate(given, start=1))


def _message(given: Any, where: str) -> Message:
    if not isinstance(given, Mapping) or "role" not in given:
        keys = f"{', '.join(map(repr, given))}" if isinstance(given, Mapping) else repr(given)
        raise DataError(f"{where}: must have a role and a content, got {keys[:80]}. Name them so in the data.")
    role, content = given["role"], given.get("content")
    if role not in ROLES:
        raise DataError(
            f"{where}: role must be one of {', '.join(ROLES)}, got {role!r}.{nearest(str(role), ROLES)} "
            "Rename it in the data."
        )
    if not isinstance(content, str) or not content.strip():
        raise DataError(
            f"{where}: must have a content that is text, got {content!r}. Write it, or leave the dialogue out."
        )
    return {"role": role, "content": content}


def cleaned(messages: Sequence[Message], clean: Callable[[str], str]) -> tuple[Message, ...]:
    """Messages with all but the replies cleaned."""
    return tuple(
        message if message["role"] == "assistant" else {"role": message["role"], "content": clean(message["content"])}
        for message in messages
    )


def shown(messages: Sequence[Message]) -> str:
    """A dialogue for people to read."""
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)
