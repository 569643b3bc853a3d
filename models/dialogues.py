"""Dialogues: what a model that replies is learned from.

The data room of `models.chat`: how rows become dialogues, how dialogues become tokens, and which of them share a
sequence. What the user and the system say is cleaned; replies are kept as they are in the data, because the model is
scored on them, by loss and by text. Light: no torch. Knows nothing of models or batches.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models import samples
from models.chat_templates import SPECIALS, TEMPLATE, ChatTemplate, Transcript
from models.configuration import DialogueData
from models.errors import DataError
from models.examples import MIX, Tables
from models.messages import Message, cleaned, parsed, shown
from models.preprocess import key
from models.ragged import Array, encoded
from models.sources import Row
from models.tokenizers import Encoder, Shape


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Messages in their order, and where they were read."""

    messages: tuple[Message, ...]
    where: str

    @property
    def last_reply(self) -> int:
        """Place of the last message of the assistant."""
        return max(place for place, message in enumerate(self.messages) if message["role"] == "assistant")


@dataclass(frozen=True)
class Dialogues:
    """How rows become dialogues (`models.examples.Kind`). context: longest dialogue in tokens; a longer one loses its
    end."""

    data: DialogueData
    context: int
    name: str = "chat"
    version: int = 2

    @property
    def columns(self) -> Mapping[str, str]:
        """The column a row must have."""
        return {"data.messages_column": self.data.messages_column}

    @property
    def shape(self) -> Shape:
        """A token for each role, and a template for a tokenizer without one."""
        return Shape(specials=SPECIALS, context=self.context, chat_template=TEMPLATE)

    def sample(self) -> Iterator[Row]:
        """A help desk, generated."""
        for row in samples.help_desk():
            yield {self.data.messages_column: row["messages"]}

    def parse(self, row: Row, where: str) -> Dialogue | None:
        """The dialogue in a row, None where it has no message. Raises DataError."""
        messages = parsed(row.get(self.data.messages_column), where, "data.messages_column")
        if messages and all(message["role"] != "assistant" for message in messages):
            raise DataError(
                f"{where}: a dialogue must have a message of the assistant, got only "
                f"{', '.join(sorted({message['role'] for message in messages}))}. There is nothing to learn: "
                "leave the row out."
            )
        return Dialogue(messages, where) if messages else None

    def key(self, example: Dialogue) -> str:
        """All that is said."""
        return key(self.text(example))

    def identity(self, example: Dialogue) -> str:
        """All that is said, and by whom."""
        return "\0".join(f"{message['role']} {key(message['content'])}" for message in example.messages)

    def text(self, example: Dialogue) -> str:
        """All that is said."""
        return "\n".join(message["content"] for message in example.messages)

    def clean(self, example: Dialogue, clean: Callable[[str], str]) -> Dialogue:
        """The dialogue with all but its replies cleaned."""
        return replace(example, messages=cleaned(example.messages, clean))

    def corpus(self, example: Dialogue) -> Iterator[str]:
        """What is said, message by message."""
        return (message["content"] for message in example.messages)

    def encode(self, splits: Mapping[str, Sequence[Dialogue]], encoder: Encoder) -> Tables:
        """Columns `tokens` and `reply` (see `Transcript`). Of what is trained on: `messages` (JSON, to be varied),
        `packs`, the dialogues that share a sequence, and `text`, what the user first says in the first one, to be
        shown varied. Of the others: `before` (JSON) and `prompt` (tokens), what is said before the last reply, and
        `reference`, that reply. Details: the template and the special tokens it names."""
        template = ChatTemplate.of(encoder)
        columns: dict[str, dict[str, tuple[Sequence[Array], str]]] = {}
        facts: dict[str, str | int | float] = {}
        for split, dialogues in splits.items():
            places = [dialogue.where for dialogue in dialogues]
            found = template.transcripts([dialogue.messages for dialogue in dialogues], places)
            columns[split] = {
                "tokens": ([transcript.tokens[: self.context] for transcript in found], "int32"),
                "reply": ([transcript.reply[: self.context] for transcript in found], "uint8"),
            }
            facts |= self._facts(split, found)
            if split in ("train", MIX):
                together = packs([min(len(item.tokens), self.context) for item in found], self.context)
                texts = [encoded(json.dumps(dialogue.messages, ensure_ascii=False)) for dialogue in dialogues]
                columns[split] |= {"packs": (together, "int64"), "messages": (texts, "uint8")}
                columns[split]["text"] = ([encoded(_first_said(dialogues[0]))], "uint8")
                facts[f"{split}_packs"] = len(together)
            else:
                before = [dialogue.messages[: dialogue.last_reply] for dialogue in dialogues]
                replies = [encoded(dialogue.messages[dialogue.last_reply]["content"]) for dialogue in dialogues]
                columns[split] |= {
                    "prompt": (template.prompts(before, places), "int32"),
                    "before": ([encoded(json.dumps(messages, ensure_ascii=False)) for messages in before], "uint8"),
                    "reference": (replies, "uint8"),
                }
        examples = [shown(dialogue.messages) for dialogue in splits["train"][:3]]
        return Tables(columns, facts, {"template": template.text, "names": template.names, "examples": examples})

    def _facts(self, split: str, found: Sequence[Transcript]) -> dict[str, str | int | float]:
        replies = sum(int(transcript.reply[1 : self.context].sum()) for transcript in found)
        if replies == 0:
            raise DataError(
                f"model.context: must be long enough for some of the {split} split's replies, got {self.context} "
                "tokens, which hold none. Give a longer context."
            )
        return {
            f"{split}_tokens": sum(min(len(transcript.tokens), self.context) for transcript in found),
            f"{split}_reply_tokens": replies,
            f"{split}_truncated": sum(len(transcript.tokens) > self.context for transcript in found),
        }


def _first_said(dialogue: Dialogue) -> str:
    return next((message["content"] for message in dialogue.messages if message["role"] == "user"), "")


def packs(lengths: Sequence[int], room: int) -> list[npt.NDArray[np.int64]]:
    """Which of these fit into sequences of `room` tokens together: each once, by first fit, the longest first.

    lengths: 1 to `room` each. First-fit decreasing needs at most 11/9 of the fewest sequences possible, and one
    (Johnson 1973; Dosa 2007). Takes time N log N, by a tree over the room left.
    """
    leaves = 1 << max(0, len(lengths) - 1).bit_length()
    left = [room] * (2 * leaves)  # of each sequence, at leaves + its number; above, the most of the two below
    found: list[list[int]] = []
    for index in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        node = 1
        while node < leaves:
            node = 2 * node if left[2 * node] >= lengths[index] else 2 * node + 1
        if node - leaves == len(found):
            found.append([])
        found[node - leaves].append(index)
        left[node] -= lengths[index]
        while node > 1:
            node //= 2
            left[node] = max(left[2 * node], left[2 * node + 1])
    return [np.asarray(pack, dtype=np.int64) for pack in found]
