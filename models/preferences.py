"""Preferences: prompts with a better and a worse reply.

The data room of `models.preference`: how rows become preferences, and how preferences become tokens. The prompt is
cleaned but for earlier replies in it; the two replies are kept as they are. Light: no torch. Knows nothing of models
or batches.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from models import samples
from models.chat_templates import ChatTemplate, Transcript
from models.configuration import PreferenceData
from models.errors import DataError
from models.examples import Tables
from models.messages import Message, cleaned, parsed, shown
from models.preprocess import key
from models.ragged import Array
from models.sources import Row, text_of
from models.tokenizers import Encoder, Shape


@dataclass(frozen=True, slots=True)
class Preference:
    """What was said before, and two replies to it; where they were read."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    where: str

    def ending(self, reply: str) -> tuple[Message, ...]:
        """The dialogue with one of the replies."""
        return (*self.prompt, {"role": "assistant", "content": reply})


@dataclass(frozen=True)
class Preferences:
    """How rows become preferences (`models.examples.Kind`). context: longest dialogue in tokens; a longer one loses
    the beginning of its prompt, the same for both replies."""

    data: PreferenceData
    context: int
    name: str = "preference"
    version: int = 1

    @property
    def columns(self) -> Mapping[str, str]:
        """The columns a row must have."""
        return {
            "data.prompt_column": self.data.prompt_column,
            "data.chosen_column": self.data.chosen_column,
            "data.rejected_column": self.data.rejected_column,
        }

    @property
    def shape(self) -> Shape:
        """The model's own tokenizer as it is."""
        return Shape(context=self.context)

    def sample(self) -> Iterator[Row]:
        """A help desk, generated."""
        for row in samples.preferences():
            yield {
                self.data.prompt_column: row["prompt"],
                self.data.chosen_column: row["chosen"],
                self.data.rejected_column: row["rejected"],
            }

    def parse(self, row: Row, where: str) -> Preference | None:
        """The preference in a row, None where the prompt or a reply is empty. Raises DataError."""
        given = row.get(self.data.prompt_column)
        if isinstance(given, str):
            given = [{"role": "user", "content": given}] if given.strip() else []
        prompt = parsed(given, where, "data.prompt_column")
        chosen = text_of(row, self.data.chosen_column, where, "data.chosen_column")
        rejected = text_of(row, self.data.rejected_column, where, "data.rejected_column")
        if not (prompt and chosen.strip() and rejected.strip()):
            return None
        if prompt[-1]["role"] == "assistant":
            raise DataError(
                f"{where}: column {self.data.prompt_column!r} must end with what the user says, got a message of the "
                "assistant last. The replies go into columns of their own."
            )
        if chosen == rejected:
            raise DataError(
                f"{where}: the chosen and the rejected reply must differ, got {chosen[:60]!r} twice. "
                "There is nothing to learn: leave the row out."
            )
        return Preference(prompt, chosen, rejected, where)

    def key(self, example: Preference) -> str:
        """Preferences with one prompt belong together, whatever the replies."""
        return key("\n".join(message["content"] for message in example.prompt))

    def identity(self, example: Preference) -> str:
        """Prompt and replies."""
        return "\0".join((self.key(example), key(example.chosen), key(example.rejected)))

    def text(self, example: Preference) -> str:
        """The prompt and the better reply."""
        return "\n".join(message["content"] for message in example.ending(example.chosen))

    def clean(self, example: Preference, clean: Callable[[str], str]) -> Preference:
        """The prompt cleaned, but for the replies in it."""
        return replace(example, prompt=cleaned(example.prompt, clean))

    def corpus(self, example: Preference) -> Iterator[str]:
        """All that is said."""
        yield self.text(example)
        yield example.rejected

    def encode(self, splits: Mapping[str, Sequence[Preference]], encoder: Encoder) -> Tables:
        """Columns `chosen` and `rejected`, the dialogue with that reply (tokens); `chosen_reply` and
        `rejected_reply`, 1 where a token is part of it."""
        template = ChatTemplate.of(encoder)
        columns: dict[str, dict[str, tuple[Sequence[Array], str]]] = {}
        facts: dict[str, str | int | float] = {}
        for split, preferences in splits.items():
            places = [preference.where for preference in preferences]
            sides = [
                template.transcripts([one.ending(getattr(one, side)) for one in preferences], places, last=True)
                for side in ("chosen", "rejected")
            ]
            both = [self._cut(*pair) for pair in zip(*sides, strict=True)]
            chosen, rejected = [one for one, _ in both], [other for _, other in both]
            columns[split] = {
                "chosen": ([one.tokens for one in chosen], "int32"),
                "chosen_reply": ([one.reply for one in chosen], "uint8"),
                "rejected": ([one.tokens for one in rejected], "int32"),
                "rejected_reply": ([one.reply for one in rejected], "uint8"),
            }
            facts |= {
                f"{split}_tokens": sum(len(one.tokens) for one in (*chosen, *rejected)),
                f"{split}_reply_tokens": sum(int(one.reply.sum()) for one in chosen),
                f"{split}_truncated": sum(
                    max(len(one.tokens), len(other.tokens)) > self.context for one, other in zip(*sides, strict=True)
                ),
            }
        examples = [
            f"{shown(one.prompt)}\nchosen: {one.chosen}\nrejected: {one.rejected}" for one in splits["train"][:3]
        ]
        return Tables(columns, facts, {"template": template.text, "names": template.names, "examples": examples})

    def _cut(self, chosen: Transcript, rejected: Transcript) -> tuple[Transcript, Transcript]:
        """Both without as many tokens of the prompt as are too many, but for the one before the reply; then a reply
        that is too long by itself loses its end."""
        over = max(len(chosen.tokens), len(rejected.tokens)) - self.context
        if over <= 0:
            return chosen, rejected
        over = min(over, *(int(np.argmax(one.reply)) - 1 for one in (chosen, rejected)))
        kept = slice(over, over + self.context)
        return tuple(Transcript(one.tokens[kept], one.reply[kept]) for one in (chosen, rejected))  # type: ignore[return-value]
