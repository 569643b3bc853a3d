"""A corpus tokenised once, for all trials: a folder of memory-mapped tokens and their facts.

The folder's name is a digest of what it was made from (the content of the files, the settings of data and
tokenizer, the format of the folder), so whoever asks for the same finds it. It is built under a file lock, in
a temporary folder that is renamed when it is whole: trials that start together wait for the first, then
share. A later call reads two small files. Knows nothing of models or training.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.configuration import TextData, Tokenizer
from models.corpora import SPLITS, Corpus, Split, read
from models.errors import DataError
from models.sources import HUB, Source, locate

FORMAT = 1
"""Version of what a prepared folder holds; raise it when that, the cutting or the tokenisers change."""

BATCH_CHARACTERS = 4_000_000

Facts = dict[str, str | int | float]


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


def cache() -> Path:
    """Folder for what can be made again: `$HPO_CACHE`, else `~/.cache/hpo`."""
    return Path(os.environ.get("HPO_CACHE") or "~/.cache/hpo").expanduser()


def prepare(data: TextData, tokenizer: Tokenizer, *, pretrained: str | None) -> Prepared:
    """Find the tokenised corpus, or make it.

    pretrained: folder or hub name of a pretrained tokenizer. Raises DataError for whatever cannot be read or
    used.
    """
    source = locate(data)
    digest = _digest(data, tokenizer, source, pretrained)
    folder = cache() / "data" / digest
    if not (folder / "facts.json").exists():
        import filelock

        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder.parent / f"{digest}.lock"):
            if not (folder / "facts.json").exists():
                _build(folder, read(data, source), tokenizer, pretrained)
    facts = json.loads((folder / "facts.json").read_text())
    return Prepared(folder, {"dataset": data.source, "digest": digest, **facts})


def _digest(data: TextData, tokenizer: Tokenizer, source: Source, pretrained: str | None) -> str:
    settings = asdict(data)
    content: Any = None
    if source.format == "sample":
        from pydoc_data import topics

        content = _content_hash(Path(topics.__file__))
    elif source.format == "hub":
        content = settings["source"].removeprefix(HUB)
    else:
        content = {name: [_content_hash(file) for file in files] for name, files in sorted(source.files.items())}
    del settings["source"]  # the content counts, not where it lies
    local = Path(pretrained).expanduser() / "tokenizer.json" if pretrained else None
    made_from = {
        "format": FORMAT,
        "data": {**settings, "format": source.format, "content": content},
        "tokenizer": asdict(tokenizer) | {"path": None, "vocabulary": tokenizer.kind == "bpe" and tokenizer.vocabulary},
        "pretrained": _content_hash(local) if local and local.is_file() else pretrained,
    }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]


def _content_hash(file: Path) -> str:
    """SHA-256 of a file, remembered under its path, size and time of change: a large file is read once."""
    status = file.stat()
    key = f"{file.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}"
    memo = cache() / "hashes" / hashlib.sha256(key.encode()).hexdigest()[:32]
    try:
        return memo.read_text()
    except FileNotFoundError:
        with file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
    memo.parent.mkdir(parents=True, exist_ok=True)
    temporary = memo.with_suffix(f".{os.getpid()}")
    temporary.write_text(found)
    temporary.rename(memo)
    return found


def _build(folder: Path, corpus: Corpus, settings: Tokenizer, pretrained: str | None) -> None:
    from models import tokenizers

    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
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
                facts |= _write(temporary / f"{split}.bin", corpus, split, encoder, dtype)
        encoder.save(temporary / "tokenizer")
        _write_facts(temporary / "facts.json", facts)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
            f"{tokens} tokens. Give more text, another share, or another split"
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


def _write_facts(file: Path, facts: Facts) -> None:
    with file.open("w") as output:
        json.dump(facts, output, indent=2)
        output.flush()
        os.fsync(output.fileno())
