"""The order in which a run sees its training sequences or examples, and what a split is measured in.

A sequence's place in the run is all that says what it holds: the order is drawn from (seed, epoch) alone. So
trials with one seed see the same sequences in the same order whatever their batch size, and a resumed run
needs nothing but the count of sequences it has seen. Knows nothing of models, losses or devices.

Shape suffixes: B sequences, T tokens of context, S = T + 1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models import memory
from models.errors import DataError

Tokens = npt.NDArray[np.unsignedinteger[Any]]

POOL, BLOCK = 4096, 256
"""Examples of like length are put together: each pool of examples, drawn at random, is sorted by length and cut into
blocks, which are shuffled. Neither depends on the batch size, so the order is the same for all."""


class Sequences:
    """Endless training sequences of `context` tokens and the token after, from memory-mapped tokens.

    Each epoch cuts the tokens into blocks at a random offset below `context` and shuffles the blocks, so that
    where the cuts fall differs between epochs. An epoch has the same number of sequences at any offset.
    """

    def __init__(self, tokens: Tokens, *, context: int, seed: int) -> None:
        """tokens: shape (tokens,). context: T. seed: of the order, at least 0."""
        self.tokens = tokens
        self.context = context
        self.seed = seed
        self.epoch_sequences = (len(tokens) - context) // context
        if self.epoch_sequences < 1:
            raise DataError(
                f"model.context: the train split must hold at least twice as many tokens, got context "
                f"{context} and {len(tokens)} tokens. Give more text or a shorter context."
            )
        self._epoch = -1
        self._starts: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def draw(self, first: int, count: int) -> torch.Tensor:
        """Sequences `first` to `first + count` of the run; shape (B, S), int64."""
        starts: list[npt.NDArray[np.int64]] = []
        while count:
            epoch, place = divmod(first, self.epoch_sequences)
            taken = self._of_epoch(epoch)[place : place + count]
            starts.append(taken)
            first, count = first + len(taken), count - len(taken)
        index_BS = np.concatenate(starts)[:, None] + np.arange(self.context + 1)
        return torch.from_numpy(self.tokens[index_BS].astype(np.int64))

    def following(self, place: int) -> list[int]:
        """The tokens after sequence `place` of the run, as many as it has; at the end of the text they go on at its
        beginning."""
        epoch, within = divmod(place, self.epoch_sequences)
        end = int(self._of_epoch(epoch)[within]) + self.context + 1
        found: list[int] = self.tokens[end : end + self.context + 1].tolist()
        found += self.tokens[: self.context + 1 - len(found)].tolist()
        return found

    def _of_epoch(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch != self._epoch:
            generator = np.random.default_rng((self.seed, epoch))
            offset = generator.integers(self.context)
            self._starts = offset + self.context * generator.permutation(self.epoch_sequences)
            self._epoch = epoch
        return self._starts


def windows(tokens: Tokens, *, context: int, batch_tokens: int) -> Iterator[torch.Tensor]:
    """A split in windows one after the other, in which every token but the first is predicted exactly once.

    tokens: shape (tokens,), at least 2. batch_tokens: about how many tokens a batch holds (see `memory.rows`). Yields
    shape (B, S), int64; the last window is shorter where the split does not divide by T.
    """
    rows = memory.rows(batch_tokens, context)
    whole = (len(tokens) - 1) // context
    for first in range(0, whole, rows):
        starts_B = context * np.arange(first, min(first + rows, whole))
        yield torch.from_numpy(tokens[starts_B[:, None] + np.arange(context + 1)].astype(np.int64))
    if len(tokens) - 1 > whole * context:
        yield torch.from_numpy(tokens[None, whole * context :].astype(np.int64))


@dataclass(frozen=True)
class Drawn:
    """An example of the training data. epoch: from 0. mixed: whether `index` counts the data mixed in."""

    epoch: int
    index: int
    mixed: bool = False


class Examples:
    """Endless training examples, each once an epoch, those of like length near one another.

    mix: share of them that is replaced by examples drawn from other data, with replacement.
    """

    def __init__(self, lengths: npt.NDArray[np.int64], *, seed: int, mix: float = 0.0, mixed: int = 0) -> None:
        """lengths: shape (examples,). seed: of the order, at least 0. mixed: how many there are to mix in."""
        self.lengths = lengths
        self.seed = seed
        self.mix = mix
        self.mixed = mixed
        self._epoch = -1
        self._order: list[Drawn] = []

    def draw(self, first: int, count: int) -> list[Drawn]:
        """Examples `first` to `first + count` of the run."""
        found: list[Drawn] = []
        while len(found) < count:
            epoch, place = divmod(first + len(found), len(self.lengths))
            found += self._of_epoch(epoch)[place : place + count - len(found)]
        return found

    def _of_epoch(self, epoch: int) -> list[Drawn]:
        if epoch != self._epoch:
            generator = np.random.default_rng((self.seed, epoch))
            order = generator.permutation(len(self.lengths))
            blocks: list[npt.NDArray[np.int64]] = []
            for start in range(0, len(order), POOL):
                pool = order[start : start + POOL]
                pool = pool[np.argsort(self.lengths[pool], kind="stable")]
                blocks += [pool[edge : edge + BLOCK] for edge in range(0, len(pool), BLOCK)]
            ordered = np.concatenate([blocks[number] for number in generator.permutation(len(blocks))])
            self._order = [Drawn(epoch, int(index)) for index in ordered]
            for place in np.flatnonzero(generator.random(len(ordered)) < self.mix):
                self._order[place] = Drawn(epoch, int(generator.integers(self.mixed)), mixed=True)
            self._epoch = epoch
        return self._order


def by_length(lengths: Sequence[int] | npt.NDArray[np.int64], *, batch_tokens: int) -> Iterator[npt.NDArray[np.int64]]:
    """Examples in batches of like length, the longest first; padded, a batch holds at most `batch_tokens`
    (or one example; see `memory.rows`)."""
    order = np.argsort(-np.asarray(lengths), kind="stable")
    start = 0
    while start < len(order):
        rows = memory.rows(batch_tokens, int(lengths[order[start]]))
        yield order[start : start + rows]
        start += rows


def padded(rows: Sequence[npt.NDArray[Any]], value: int, *, left: bool = False) -> torch.Tensor:
    """Rows of different lengths as one tensor, shape (rows, longest), int64, filled up with `value`."""
    longest = max(len(row) for row in rows)
    found = np.full((len(rows), longest), value, dtype=np.int64)
    for place, row in zip(found, rows, strict=True):
        if left:
            place[longest - len(row) :] = row
        else:
            place[: len(row)] = row
    return torch.from_numpy(found)
