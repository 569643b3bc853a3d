"""What clients may ask: OpenAI's fields, checked, and no field silently passed over that would change an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Len, Lt
from pydantic import AfterValidator, BaseModel, ConfigDict


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode, got a lone surrogate") from None
    return text


Text = Annotated[str, AfterValidator(_unicode)]
Nothing = Literal[0] | None


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: Text | None = None


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False
    include_obfuscation: bool = False


class Writing(_Request):
    """What both ways of writing take. The fields at the end may be sent with the values that change nothing."""

    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Ge(1)] | None = None
    temperature: Annotated[float, Ge(0), Le(2)] | None = None
    top_p: Annotated[float, Ge(0), Le(1)] | None = None
    top_k: Annotated[int, Ge(0)] | None = None
    stop: Text | Annotated[list[Text], Len(0, 4)] | None = None
    seed: Annotated[int, Ge(-(2**63)), Lt(2**63)] | None = None

    n: Literal[1] | None = None
    presence_penalty: Nothing = None
    frequency_penalty: Nothing = None
    logit_bias: Annotated[dict[str, float], Len(0, 0)] | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: Literal[False] | None = None
    service_tier: str | None = None

    def sampling(self) -> dict[str, Any]:
        """As `hpo.deployment.Served.write` takes it."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return {
            "max_new_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "stop": tuple(stop),
            "seed": self.seed,
        }


class Completion(Writing):
    """POST /v1/completions."""

    prompt: Text | Annotated[list[Text], Len(1)]
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    logprobs: None = None
    suffix: None = None


class Part(BaseModel):
    """A piece of a message; only text is read."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: Text


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[Part]
    name: str | None = None
    refusal: None = None

    def plain(self) -> dict[str, str]:
        """As chat templates know it: `developer` is what OpenAI now calls `system`."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": content}


class Chat(Writing):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Len(1)]
    max_completion_tokens: Annotated[int, Ge(1)] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Nothing = None
    tools: Annotated[list[Any], Len(0, 0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    response_format: Mapping[Literal["type"], Literal["text"]] | None = None
    modalities: Annotated[list[Literal["text"]], Len(1)] | None = None

    def sampling(self) -> dict[str, Any]:
        return super().sampling() | {"max_new_tokens": self.max_completion_tokens or self.max_tokens}


class Prediction(_Request):
    """POST /v1/predict: texts to classify or translate."""

    inputs: Text | Annotated[list[Text], Len(1)]

    @property
    def texts(self) -> list[str]:
        return [self.inputs] if isinstance(self.inputs, str) else self.inputs
