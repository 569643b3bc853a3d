"""OpenAI's JSON: completions whole and in pieces, and errors."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpo.deployment import Written


class Refused(Exception):
    """A request that is answered with an error.

    Attributes:
        status: of HTTP.
        code: OpenAI's name of the mistake, which clients look at.
        param: the request's field that is meant.
    """

    def __init__(self, status: int, text: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.param = param

    def content(self) -> dict[str, Any]:
        return error(str(self), status=self.status, code=self.code, param=self.param)


def error(text: str, *, status: int, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": text, "type": kind, "param": param, "code": code}}


def usage(written: Sequence[Written]) -> dict[str, int]:
    read, wrote = sum(one.prompt_tokens for one in written), sum(one.tokens for one in written)
    return {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}


def event(content: Mapping[str, Any] | str) -> str:
    """One server-sent event."""
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return f"data: {text}\n\n"


@dataclass
class Answer:
    """One answer on its way to a client; the same id and time in all its pieces.

    Attributes:
        model: name of the model.
        chat: whether it is a message or a bare text.
        with_usage: whether a stream ends with the counts of tokens.
    """

    model: str
    chat: bool
    with_usage: bool = False
    created: int = field(default_factory=lambda: int(time.time()))
    id: str = ""

    def __post_init__(self) -> None:
        self.id = ("chatcmpl-" if self.chat else "cmpl-") + uuid.uuid4().hex

    def whole(self, written: Sequence[Written]) -> dict[str, Any]:
        choices = [self._choice(index, one) for index, one in enumerate(written)]
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._head(kind), "choices": choices, "usage": usage(written)}

    def begins(self) -> list[str]:
        """Events before the first piece."""
        return [self._piece(0, {"role": "assistant", "content": ""})] if self.chat else []

    def piece(self, index: int, text: str) -> str:
        return self._piece(index, {"content": text} if self.chat else text)

    def choice_ends(self, index: int, finish: str) -> str:
        return self._piece(index, {} if self.chat else "", finish)

    def ends(self, written: Sequence[Written]) -> list[str]:
        """Events after the last piece."""
        counts = {**self._head(self._chunk), "choices": [], "usage": usage(written)}
        return [*([event(counts)] if self.with_usage else []), event("[DONE]")]

    @property
    def _chunk(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _choice(self, index: int, written: Written) -> dict[str, Any]:
        said: dict[str, Any] = {"text": written.text}
        if self.chat:
            said = {"message": {"role": "assistant", "content": written.text, "refusal": None}}
        return {"index": index, **said, "logprobs": None, "finish_reason": written.finish}

    def _piece(self, index: int, said: Any, finish: str | None = None) -> str:
        choice = {"index": index, "delta" if self.chat else "text": said, "logprobs": None, "finish_reason": finish}
        counts = {"usage": None} if self.with_usage else {}
        return event({**self._head(self._chunk), "choices": [choice], **counts})
