"""A dialogue model replying to messages."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from models.errors import DataError
from models.generation import generate
from models.preprocess import cleaner
from models.serving import folders, loading
from models.serving.folders import Saved
from models.serving.writing import OnText, Sampling, Writer, Written

PARAMETERS = ("max_new_tokens", "temperature", "top_k", "seed")
ROLES = ("system", "user", "assistant")

Message = Mapping[str, str]


class Dialogues:
    """A causal model with a chat template, which writes the next message of a dialogue."""

    task = "chat"
    writes = True
    converses = True

    def __init__(self, saved: Saved) -> None:
        self.tokenizer, self.model = loading.load(saved, AutoModelForCausalLM)
        if self.tokenizer.chat_template is None:
            raise DataError(f"{saved.folder}: its tokenizer must have a chat template, got none. Save it with one.")
        self.context = saved.context
        self.settings = folders.generation(saved)
        self._clean = cleaner(saved.preprocess)
        self._writer = Writer(self.model, self.tokenizer, self.context)
        if not self._writer.ends:
            raise DataError(f"{saved.folder}: must name an end-of-text token, got none. Save the model anew.")
        self.end = self._writer.ends[0]
        self.pad: int = self.end if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> list[str]:
        """The reply to each dialogue.

        model_input: a list of dialogues (each a list of messages with `role` and `content`, or a text, which
        the user says), one text, or a table whose column `messages`, or only column, holds them. params:
        `max_new_tokens`, `temperature`, `top_k` (the model's own generation settings), `seed` (unset: not
        repeatable). A dialogue longer than the context loses its oldest exchanges (see `fit`).
        """
        given = loading.check_parameters(params, PARAMETERS)
        seed = given.pop("seed", None)
        if seed is not None:
            torch.manual_seed(int(seed))
        return [self.write(self.fit(item), **given).text for item in loading.inputs(model_input, "messages")]

    def count(self, prompt: Any) -> int:
        """Tokens of a dialogue, the beginning of the reply included."""
        return len(self._tokens(_messages(prompt)))

    def write(self, prompt: Any, *, on_text: OnText | None = None, **sampling: Any) -> Written:
        """Reply to a dialogue (see `models.serving.writing`). sampling: the fields of `Sampling`."""
        return self._writer.write(self._tokens(_messages(prompt)), Sampling(**sampling), on_text=on_text)

    def fit(self, prompt: Any, *, new_tokens: int | None = None) -> list[Message]:
        """A dialogue with its oldest messages left out, as few as leave room for a reply; system messages stay,
        and what is left begins with the user.

        new_tokens: room for the reply, at most a quarter of the context. Raises DataError where the last
        message alone does not fit.
        """
        return self._fit(_messages(prompt), max(1, min(new_tokens or self.context, self.context // 4)))

    def rows(self, dialogues: Sequence[Any], *, batch_size: int, beams: int | None = None) -> Iterator[dict[str, Any]]:
        """Each dialogue up to the last thing the user says (`messages`), and the model's `reply` to it.

        What the data has the assistant say after that is not read. Replies are written as they were scored in
        training. beams: width of the search; None: as there.
        """
        longest = self.settings.max_new_tokens or max(1, self.context // 2)
        beams = beams or self.settings.beams
        settings = dataclasses.replace(self.settings, max_new_tokens=longest, beams=beams)
        for first in range(0, len(dialogues), batch_size):
            batch = [_asked(_messages(dialogue)) for dialogue in dialogues[first : first + batch_size]]
            prompts = [self._tokens(self._fit(messages, longest))[-(self.context - longest) :] for messages in batch]
            written = generate(self.model, prompts, settings=settings, end=self.end, pad=self.pad)
            for messages, tokens in zip(batch, written, strict=True):
                yield {"messages": messages, "reply": self.tokenizer.decode(tokens, skip_special_tokens=True).strip()}

    def targets(self, given: Sequence[Any]) -> list[Any]:
        """The reply that each dialogue ends with, None where it ends with the user."""
        dialogues = [_messages(dialogue) for dialogue in given]
        return [messages[-1]["content"] if _is_reply(messages[-1]) else None for messages in dialogues]

    def score(self, rows: Sequence[Mapping[str, Any]], targets: Sequence[Any] | None) -> dict[str, float]:
        """What the objective's test measures, by the same code, of the dialogues that end with a reply."""
        from models import scores

        pairs = zip(rows, targets or (), strict=targets is not None)
        known = [(row["reply"], reference) for row, reference in pairs if reference is not None]
        if not known:
            return {}
        written, references = zip(*known, strict=True)
        return scores.replies("test", written, references)

    def _fit(self, messages: list[Message], room: int) -> list[Message]:
        while (tokens := len(self._tokens(messages))) + room > self.context:
            said = [place for place, message in enumerate(messages) if message["role"] != "system"]
            later = [place for place in said[1:] if messages[place]["role"] == "user"]
            if not later:
                if tokens < self.context:
                    break  # a shorter reply is better than none
                raise DataError(
                    f"messages: at most {self.context - 1} tokens, got {tokens} with the last message alone. "
                    "Say it shorter."
                )
            dropped = {place for place in said if place < later[0]}
            messages = [message for place, message in enumerate(messages) if place not in dropped]
        return messages

    def _tokens(self, messages: Sequence[Message]) -> list[int]:
        from jinja2 import TemplateError

        cleaned = [
            {**message, "content": message["content"] if _is_reply(message) else self._clean(message["content"])}
            for message in messages
        ]
        try:
            # What people say is text: `<|assistant|>` in a message is read letter by letter.
            encoded = self.tokenizer.apply_chat_template(
                cleaned, add_generation_prompt=True, return_dict=True, sanitize_control_tokens=True
            )
        except TemplateError as error:
            raise DataError(f"messages: the model's chat template refuses them: {error}") from error
        tokens: list[int] = encoded["input_ids"]
        return tokens


def _asked(messages: list[Message]) -> list[Message]:
    """Up to the last thing the user says."""
    while messages and _is_reply(messages[-1]):
        messages = messages[:-1]
    if not messages:
        raise DataError("messages: must hold something that the user says, got none. Leave the row out.")
    return messages


def _is_reply(message: Message) -> bool:
    return message["role"] == "assistant"


def _messages(given: Any) -> list[Message]:
    """A dialogue as a list of messages. Raises DataError for what is none."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not hasattr(given, "__iter__") or isinstance(given, Mapping):
        raise DataError(f"messages: must be a list of messages, got {type(given).__name__} {given!r}.")
    messages = list(given)
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
            raise DataError(f"messages: each must have a role and a content that is text, got {message!r}.")
        if message.get("role") not in ROLES:
            raise DataError(f"messages: role must be one of {', '.join(ROLES)}, got {message.get('role')!r}.")
    if not messages:
        raise DataError("messages: must hold at least one message, got none.")
    return [{"role": message["role"], "content": message["content"]} for message in messages]
