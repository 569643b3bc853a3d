"""Dialogues as tokens, by a tokenizer's own chat template or by ours, and which of the tokens a reply is made of.

A reply is found by what the template writes before it and up to its end, so that any template will do, without
marks of its own (`{% generation %}`). What people say is text: a message that contains the text of a special token
gets the letters of it, never the token, as a served model reads it too (transformers' `sanitize_control_tokens`).
Light: no torch. Knows nothing of data or training.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import DataError
from models.messages import ROLES, Message, Messages
from models.tokenizers import END, Encoder

SPECIALS = tuple(f"<|{role}|>" for role in ROLES)
"""The special tokens of our template, one before each turn; the end-of-text token ends it."""

TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('role must be system, user or assistant, got ' + message['role']) }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""Ours, for a tokenizer that has none."""

OPEN, CLOSE = "\U0010fffc", "\U0010fffd"
"""Private characters around the text of a special token in what somebody says; taken out before it is encoded."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """A dialogue as tokens. tokens: shape (T,). reply: shape (T,), 1 where a token is part of a reply, the token
    that ends it included, else 0."""

    tokens: npt.NDArray[np.uint32]
    reply: npt.NDArray[np.uint8]


class ChatTemplate:
    """A chat template with its tokenizer."""

    def __init__(self, encoder: Encoder, text: str, names: Mapping[str, str]) -> None:
        """text: the template, Jinja. names: the special tokens that it may write by name, such as `eos_token`."""
        import tokenizers

        self.text = text
        self.names = dict(names)
        # One that knows special tokens, for what the template writes, and one that does not, for what people say.
        self._backend: Any = tokenizers.Tokenizer.from_str(encoder.backend.to_str())
        self._literal: Any = tokenizers.Tokenizer.from_str(encoder.backend.to_str())
        for backend in (self._backend, self._literal):
            backend.no_truncation()
        self._literal.encode_special_tokens = True
        self._special = _pattern(self._backend, text)

    @classmethod
    def of(cls, encoder: Encoder) -> "ChatTemplate":
        """That of an encoder just made: the pretrained tokenizer's own, else ours.

        Raises DataError where there is none.
        """
        loaded = encoder.pretrained
        if loaded is None:
            return cls(encoder, TEMPLATE, {"bos_token": END, "eos_token": END})
        if loaded.chat_template is None:
            raise DataError(
                f"model.pretrained: the tokenizer of {loaded.name_or_path!r} must have a chat template, got none. "
                "Use a model that was trained by models.chat, or another one for dialogues."
            )
        return cls(encoder, loaded.get_chat_template(), loaded.special_tokens_map)

    def transcripts(
        self, dialogues: Sequence[Messages], places: Sequence[str], *, last: bool = False
    ) -> list[Transcript]:
        """Whole dialogues. places: where each was read, for messages to people. last: look for the last reply alone,
        with which the dialogues must end. Raises DataError for a dialogue that the template refuses, and for a
        template by which replies cannot be found."""
        rendered = [
            self._whole(messages, place, first=len(messages) - 1 if last else 0)
            for messages, place in zip(dialogues, places, strict=True)
        ]
        return [
            Transcript(tokens, _within(starts, ends, ranges))
            for (tokens, starts, ends), (_, ranges) in zip(
                self._encoded([text for text, _ in rendered]), rendered, strict=True
            )
        ]

    def prompts(self, dialogues: Sequence[Messages], places: Sequence[str]) -> list[npt.NDArray[np.uint32]]:
        """Dialogues up to where the next reply begins, each of shape (T,)."""
        texts = [
            self._render(self._marked(messages), place, prompt=True)
            for messages, place in zip(dialogues, places, strict=True)
        ]
        return [tokens for tokens, _, _ in self._encoded(texts)]

    def fitted(self, messages: Messages, place: str, *, room: int) -> npt.NDArray[np.uint32]:
        """A prompt of at most `room` tokens: without its oldest exchanges, as few as will do; system messages stay, and
        what is left begins with the user. Where the last message alone is too long, its end is what is left."""
        kept = list(messages)
        while True:
            (tokens,) = self.prompts([kept], [place])
            said = [number for number, message in enumerate(kept) if message["role"] != "system"]
            later = [number for number in said[1:] if kept[number]["role"] == "user"]
            if len(tokens) <= room or not later:
                return tokens[-room:]
            kept = [message for number, message in enumerate(kept) if message["role"] == "system" or number >= later[0]]

    def _whole(self, messages: Messages, place: str, *, first: int) -> tuple[str, list[tuple[int, int]]]:
        """A dialogue as text, with the ranges of characters of its replies from message `first` on."""
        marked = self._marked(messages)
        whole = self._render(marked, place)
        ranges = []
        for number, message in enumerate(marked):
            if message["role"] == "assistant" and number >= first:
                before = self._render(marked[:number], place, prompt=True)
                after = self._render(marked[: number + 1], place) if number + 1 < len(marked) else whole
                if not (after.startswith(before) and whole.startswith(after)):
                    raise DataError(
                        f"{place}: the chat template must write a dialogue's beginning as it writes it alone, got "
                        f"something else at message {number + 1}, so that the reply cannot be told from the rest. "
                        "Use a template without conditions on what comes later."
                    )
                ranges.append((len(before), self._end_of_turn(after, len(before))))
        return whole, ranges

    def _end_of_turn(self, text: str, start: int) -> int:
        """Where the turn that begins at `start` ends: after its last special token, where only white space follows,
        which a model never writes."""
        body = text.rstrip()
        ends = [found.end() for found in self._special.finditer(body, start)]
        return len(body) if ends and ends[-1] == len(body) else len(text)

    def _marked(self, messages: Messages) -> list[Message]:
        """Messages with the texts of special tokens in them marked."""
        marked: list[Message] = []
        for message in messages:
            content = message["content"].replace(OPEN, "").replace(CLOSE, "")
            marked.append({"role": message["role"], "content": self._special.sub(rf"{OPEN}\g<0>{CLOSE}", content)})
        return marked

    def _render(self, messages: Messages, place: str, *, prompt: bool = False) -> str:
        from jinja2 import TemplateError
        from transformers.utils import chat_template_utils

        rendering: Any = chat_template_utils.render_jinja_template
        try:
            texts, _ = rendering([messages], chat_template=self.text, add_generation_prompt=prompt, **self.names)
        except TemplateError as error:
            raise DataError(f"{place}: the chat template refuses the dialogue: {error}") from error
        return str(texts[0])

    def _encoded(self, texts: Sequence[str]) -> Iterator[tuple[npt.NDArray[np.uint32], Any, Any]]:
        """Tokens of each text and the first and last character (exclusive) of each, shape (T,)."""
        plain = [text for text in texts if OPEN not in text and CLOSE not in text]
        encodings = iter(self._backend.encode_batch(plain, add_special_tokens=False))
        for text in texts:
            if OPEN in text or CLOSE in text:
                found = list(self._in_pieces(text))
            else:
                encoding = next(encodings)
                found = [(encoding.ids, encoding.offsets, 0)]
            offsets = [np.asarray(pairs, dtype=np.int64).reshape(-1, 2) + shift for _, pairs, shift in found]
            edges = np.concatenate(offsets)
            yield np.concatenate([np.asarray(ids, dtype=np.uint32) for ids, _, _ in found]), edges[:, 0], edges[:, 1]

    def _in_pieces(self, text: str) -> Iterator[tuple[list[int], list[tuple[int, int]], int]]:
        """Ids, offsets and place of each piece between marks."""
        start = 0
        for found in re.finditer(f"{OPEN}([^{OPEN}{CLOSE}]*){CLOSE}|[{OPEN}{CLOSE}]|\\Z", text):
            for backend, first, last in ((self._backend, start, found.start()), (self._literal, *found.span(1))):
                if first >= 0 and last > first:
                    encoding = backend.encode(text[first:last], add_special_tokens=False)
                    yield encoding.ids, encoding.offsets, first
            start = found.end()


def _pattern(backend: Any, template: str) -> re.Pattern[str]:
    """What people may not say as a token: special tokens, and others that the template writes."""
    tokens = [
        token.content
        for token in backend.get_added_tokens_decoder().values()
        if token.special or (token.content in template and not token.content.isspace())
    ]
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or "(?!)")


def _within(starts: Any, ends: Any, ranges: Sequence[tuple[int, int]]) -> npt.NDArray[np.uint8]:
    """1 for each token that lies in one of the ranges of characters."""
    found = np.zeros(len(starts), dtype=np.uint8)
    for first, last in ranges:
        found[(starts >= first) & (ends <= last)] = 1
    return found
