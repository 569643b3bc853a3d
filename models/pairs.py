"""Pairs of texts: what a translation, a summary or a rewriting is learned from.

The data room of `models.translation`: how rows become pairs, and how pairs become tokens. What a model reads and
writes is cleaned; the references that its texts are scored against are kept as they are in the data. Light: no
torch. Knows nothing of models or batches.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from models import samples
from models.configuration import PairData
from models.errors import DataError
from models.examples import Tables
from models.preprocess import key
from models.ragged import Array, encoded
from models.sources import Row, text_of
from models.tokenizers import PAD, Encoder, Shape


@dataclass(frozen=True, slots=True)
class Pair:
    """A text to read, the one to write, and that one as it is in the data."""

    source: str
    target: str
    reference: str


@dataclass(frozen=True)
class Pairs:
    """How rows become pairs (`models.examples.Kind`).

    side: longest source, and longest target, in tokens, the end-of-text token included.
    """

    data: PairData
    side: int
    name: str = "translation"
    version: int = 1

    @property
    def columns(self) -> Mapping[str, str]:
        """The columns a row must have."""
        return {"data.source_column": self.data.source_column, "data.target_column": self.data.target_column}

    @property
    def shape(self) -> Shape:
        """Each text ends with the end-of-text token."""
        return Shape(specials=(PAD,), template="$A E", context=self.side)

    def sample(self) -> Iterator[Row]:
        """Appointments in English and German, generated."""
        for row in samples.dates():
            yield {self.data.source_column: row["source"], self.data.target_column: row["target"]}

    def parse(self, row: Row, where: str) -> Pair | None:
        """The pair in a row, None where one side is empty. Raises DataError."""
        source, target = (text_of(row, column, where, setting) for setting, column in self.columns.items())
        return Pair(source, target, target) if source.strip() and target.strip() else None

    def key(self, example: Pair) -> str:
        """Pairs with one source belong together, whatever their targets."""
        return key(example.source)

    def identity(self, example: Pair) -> str:
        """Source and target."""
        return f"{key(example.source)}\0{key(example.target)}"

    def text(self, example: Pair) -> str:
        """The source; nothing where cleaning has left nothing of the target, so that the pair is left out."""
        return example.source if example.target.strip() else ""

    def clean(self, example: Pair, clean: Callable[[str], str]) -> Pair:
        """Both sides cleaned, the reference as it was."""
        return replace(example, source=clean(example.source), target=clean(example.target))

    def corpus(self, example: Pair) -> Iterator[str]:
        """Both sides: one vocabulary for the two."""
        yield example.source
        yield example.target

    def encode(self, splits: Mapping[str, Sequence[Pair]], encoder: Encoder) -> Tables:
        """Columns `source`, `target` (tokens), `text` (the source as text, to be varied) and `reference`."""
        columns: dict[str, dict[str, tuple[Sequence[Array], str]]] = {}
        facts: dict[str, str | int | float] = {}
        for split, pairs in splits.items():
            sides = [encoder.inputs([getattr(pair, side) for pair in pairs]) for side in ("source", "target")]
            columns[split] = {
                "source": (sides[0], "int32"),
                "target": (sides[1], "int32"),
                "text": ([encoded(pair.source) for pair in pairs], "uint8"),
                "reference": ([encoded(pair.reference) for pair in pairs], "uint8"),
            }
            lengths = [np.asarray([len(row) for row in side]) for side in sides]
            full = [encoder.lengths([getattr(pair, side) for pair in pairs]) for side in ("source", "target")]
            facts |= {
                f"{split}_tokens": int(sum(side.sum() for side in lengths)),
                f"{split}_target_tokens": int(lengths[1].sum()),
                f"{split}_truncated": int(((full[0] > self.side) | (full[1] > self.side)).sum()),
            }
        details: dict[str, Any] = {"examples": [f"{pair.source}  ->  {pair.target}" for pair in splits["train"][:3]]}
        if all(len(row) <= 1 for row in columns["train"]["target"][0]):
            raise DataError(
                f"{self.data.source}: column {self.data.target_column!r} must hold text after preprocess, got none."
            )
        return Tables(columns, facts, details)
