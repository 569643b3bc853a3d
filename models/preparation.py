"""A corpus tokenised once, for all trials: a folder of memory-mapped tokens and their facts.

The folder's name is a digest of what it was made from (the content of the files, the settings of data and
tokenizer, the format of the folder), so whoever asks for the same finds it (`models.cache`). A later call reads
two small files. Knows nothing of models or training.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models import cache
from models.cache import Facts
from models.configuration import Preprocess, TextData, Tokenizer
from models.corpora import SPLITS, Corpus, Split, read
from models.errors import DataError
from models.sources import Source, help_desk, locate

FORMAT = 2
"""Version of what a prepared folder holds; raise it when that, the cutting or the tokenisers change."""

BATCH_CHARACTERS = 4_000_000


@dataclass(frozen=True)
class Prepared:
    """A tokenised corpus on disk.

    facts: `dataset` (the source as given), `digest`, `tokenizer`, `vocabulary`, `end_token` (its id), and by
    split `train_tokens`, `train_bytes` (UTF-8), `train_texts`, `train_unknown` (tokens for what the
    vocabulary lacks, which are predicted like any other), `train_origin`; likewise `validation_` and, if
    there is one, `test_`.
    """

    folder: Path
    facts: Facts

    @property
    def tokenizer(self) -> Path:
        """Folder that `AutoTokenizer.from_pretrained` loads."""
        return self.folder / "tokenizer"

    @property
    def vocabulary(self) -> int:
        """Number of tokens there are."""
        return int(self.facts["vocabulary"])

    @property
    def end_token(self) -> int:
        """Id of the end-of-text token."""
        return int(self.facts["end_token"])

    def count(self, split: Split, unit: str) -> int:
        """How much a split holds: unit is tokens, bytes, texts or unknown. 0 for a split that is not
        there."""
        return int(self.facts.get(f"{split}_{unit}", 0))

    def tokens(self, split: Split) -> npt.NDArray[np.unsignedinteger[Any]]:
        """A split's tokens, shape (tokens,), memory-mapped, read-only."""
        return np.memmap(self.folder / f"{split}.bin", dtype=str(self.facts["dtype"]), mode="r")


def prepare(data: TextData, tokenizer: Tokenizer, preprocess: Preprocess, *, pretrained: str | None) -> Prepared:
    """Find the tokenised corpus, or make it.

    pretrained: folder or hub name of a pretrained tokenizer. Raises DataError for whatever cannot be read or
    used.
    """
    source = locate(data)
    name = _digest(data, tokenizer, preprocess, source, pretrained)

    def build(folder: Path) -> Facts:
        return _build(folder, read(data, source, preprocess), tokenizer, pretrained)

    folder, facts = cache.folder(name, build)
    return Prepared(folder, {"dataset": data.source, "digest": name, **facts})


def _digest(
    data: TextData, tokenizer: Tokenizer, preprocess: Preprocess, source: Source, pretrained: str | None
) -> str:
    content = source.content(data)
    if source.format == "sample":
        from pydoc_data import topics

        content = cache.content_hash(Path(topics.__file__))
    elif source.format == "help desk":
        content = hashlib.sha256("".join(help_desk()).encode()).hexdigest()
    return cache.digest(
        {
            "format": FORMAT,
            "data": {
                **asdict(data),
                "source": content,
                "format": source.format,
            },  # the content counts, not where it lies
            "preprocess": asdict(preprocess),
            "tokenizer": cache.of_tokenizer(tokenizer, pretrained),
        }
    )


def _build(folder: Path, corpus: Corpus, settings: Tokenizer, pretrained: str | None) -> Facts:
    from models import tokenizers

    encoder = tokenizers.build(settings, corpus.texts["train"], pretrained=pretrained)
    dtype = np.dtype(np.uint16 if encoder.vocabulary <= 2**16 else np.uint32)
    facts: Facts = {
        "tokenizer": settings.kind if pretrained is None else pretrained,
        "vocabulary": encoder.vocabulary,
        "end_token": encoder.end,
        "dtype": dtype.name,
    }
    for split in SPLITS:
        if split in corpus.texts:
            facts |= _write(folder / f"{split}.bin", corpus, split, encoder, dtype)
    encoder.save(folder / "tokenizer")
    return facts


def _write(file: Path, corpus: Corpus, split: Split, encoder: Any, dtype: np.dtype[Any]) -> Facts:
    """Tokenise one split into `file`, a batch of texts at a time; its facts."""
    tokens = utf8_bytes = texts = unknown = 0
    with file.open("wb") as output:
        for batch in _batches(corpus.texts[split]()):
            for text, ids in zip(batch, encoder.encode(batch), strict=True):
                ended = np.append(ids, np.uint32(encoder.end)) if corpus.ended else ids
                output.write(ended.astype(dtype).tobytes())
                tokens += len(ended)
                utf8_bytes += len(text.encode())
                unknown += 0 if encoder.unknown is None else int((ids == encoder.unknown).sum())
            texts += len(batch)
        output.flush()
        os.fsync(output.fileno())
    if tokens < 2:
        raise DataError(
            f"data: the {split} split ({corpus.origin[split]}) must hold text, got {texts} texts with "
            f"{tokens} tokens. Give more text, another share or split, loosen the filters of preprocess, set "
            "data.split_by to position for text without paragraphs"
            f"{', or data.test 0 for no test split' if split == 'test' else ''}."
        )
    counts: Facts = {"tokens": tokens, "bytes": utf8_bytes, "texts": texts, "unknown": unknown}
    return {f"{split}_{unit}": count for unit, count in {**counts, "origin": corpus.origin[split]}.items()}


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
