"""The order in which a run sees its training tokens, and the windows a split is measured in.

A sequence's place in the run is all that says what it holds: the order is drawn from (seed, epoch) alone. So
trials with one seed see the same sequences in the same order whatever their batch size, and a resumed run
needs nothing but the count of sequences it has seen. Knows nothing of models, losses or devices.

Shape suffixes: B sequences, T tokens of context, S = T + 1.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.errors import DataError

Tokens = npt.NDArray[np.unsignedinteger[Any]]


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

    def _of_epoch(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch != self._epoch:
            generator = np.random.default_rng((self.seed, epoch))
            offset = generator.integers(self.context)
            self._starts = offset + self.context * generator.permutation(self.epoch_sequences)
            self._epoch = epoch
        return self._starts


def windows(tokens: Tokens, *, context: int, batch_tokens: int) -> Iterator[torch.Tensor]:
    """A split in windows one after the other, in which every token but the first is predicted exactly once.

    tokens: shape (tokens,), at least 2. batch_tokens: about how many tokens a batch holds. Yields shape (B,
    S), int64; the last window is shorter where the split does not divide by T.
    """
    rows = max(1, batch_tokens // context)
    whole = (len(tokens) - 1) // context
    for first in range(0, whole, rows):
        starts_B = context * np.arange(first, min(first + rows, whole))
        yield torch.from_numpy(tokens[starts_B[:, None] + np.arange(context + 1)].astype(np.int64))
    if len(tokens) - 1 > whole * context:
        yield torch.from_numpy(tokens[None, whole * context :].astype(np.int64))
