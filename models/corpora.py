"""Which text trains, which validates, which is kept for the test.

Takes the splits a source has and cuts the missing ones off its training split, by a hash of each text or by
position; then cleans and filters them. Passes over the texts and never holds them, but for plain text, which
is read a file at a time. Knows nothing of tokens.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from models import preprocess as steps
from models.configuration import Data, Preprocess, TextData
from models.errors import DataError, nearest
from models.sources import Source, Stream, streams

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

USUAL_NAMES: Mapping[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
"""Under what name a source has a split when `data` names none; the first that is there."""

PIECE_CHARACTERS = 65_536
"""Running text is handed on in pieces of about this size, so that no tokenizer is given a gigabyte at
once."""


@dataclass(frozen=True)
class Corpus:
    """The texts of each split.

    texts: by split, a function that starts a fresh pass. ended: whether each text is a document, to be
    followed by an end-of-text token; otherwise the texts of a split, put together, are its text. origin: by
    split, where it came from.
    """

    texts: Mapping[Split, Stream]
    ended: bool
    origin: Mapping[Split, str]


def read(data: TextData, source: Source, preprocess: Preprocess) -> Corpus:
    """The corpus that `data` asks for, from the source that `sources.locate` found for it.

    A split named in `data`, or that the source has under its usual name, is used as it is; validation and
    test are otherwise cut off the training split. Raises DataError for a named split that is not there.
    """
    available = streams(data, source)
    own = own_splits(data, available)
    cut = {"validation": data.validation, "test": data.test}
    cut = {split: share for split, share in cut.items() if split not in own and share > 0}
    texts: dict[Split, Stream] = {}
    origin: dict[Split, str] = {}
    for split in SPLITS:
        if split in own and (split != "train" or not cut):
            texts[split] = _pieces_of(available[own[split]]) if source.plain else available[own[split]]
            origin[split] = own[split]
        elif split in cut or split == "train":
            texts[split] = _part(available[own["train"]], data.split_by, cut, split, source.plain)
            origin[split] = f"{own['train']}, by {data.split_by}"
        if split in texts:
            texts[split] = _prepared(texts[split], data, preprocess, split, source.plain)
    return Corpus(texts=texts, ended=not source.plain, origin=origin)


def own_splits(data: Data, available: Iterable[str]) -> dict[Split, str]:
    """Which of a source's own splits trains, validates and tests: those that `data` names, else the usual names.

    Raises DataError for a named split that is not there, and where there is none to train on.
    """
    has = f"it has {', '.join(map(repr, available))}"
    wanted: dict[Split, str | None] = {
        "train": data.train_split,
        "validation": data.validation_split,
        "test": data.test_split,
    }
    own: dict[Split, str] = {}
    for split, name in wanted.items():
        if name is not None and name not in available:
            raise DataError(
                f"data.{split}_split: {data.source!r} has no split {name!r}; {has}.{nearest(name, available)}"
            )
        if found := name or next((usual for usual in USUAL_NAMES[split] if usual in available), None):
            own[split] = found
    if "train" not in own:
        raise DataError(f"data.train_split: {data.source!r} has no split 'train'; {has}. Name the one to train on.")
    return own


def _prepared(stream: Stream, data: TextData, preprocess: Preprocess, split: Split, plain: bool) -> Stream:
    """The texts cleaned, and those of the training split filtered: by paragraphs of running text, else whole."""
    filtered = split == "train" and (preprocess.counts_words or preprocess.deduplicate or data.limit)
    if not filtered and not preprocess.cleans:
        return stream
    clean = steps.cleaner(preprocess)
    units = _paragraphs_of(stream) if plain else stream

    def texts() -> Iterator[str]:
        cleaned = (_cleaned(text, clean) for text in units())
        if not filtered:
            return (text for text in cleaned if text)
        seen: set[str] | None = set() if preprocess.deduplicate else None
        kept = (text for text in cleaned if text and _kept(text, preprocess, seen))
        return itertools.islice(kept, data.limit)

    return texts


def _cleaned(text: str, clean: Callable[[str], str]) -> str:
    """A text cleaned, with the white space at its end as it was: between paragraphs it holds them apart."""
    body = text.rstrip()
    cleaned = clean(body)
    return cleaned + text[len(body) :] if cleaned else ""


def _kept(text: str, preprocess: Preprocess, seen: set[str] | None) -> bool:
    if not steps.keeps(preprocess, text):
        return False
    if seen is not None:
        key = steps.key(text)
        if key in seen:
            return False
        seen.add(key)
    return True


def _part(stream: Stream, split_by: str, cut: Mapping[str, float], split: Split, plain: bool) -> Stream:
    """One split's share of `stream`. cut: share of each split that is cut off, 0 < share < 1."""
    validation, test = cut.get("validation", 0.0), cut.get("test", 0.0)
    if split_by == "hash":
        units = _paragraphs_of(stream) if plain else stream
        return lambda: (text for text in units() if drawn(text.strip(), validation, test) == split)
    if plain:
        return lambda: _pieces(_cut_text("".join(stream()), validation, test)[split])
    return lambda: _cut_documents(stream, validation, test, split)


def drawn(key: str, validation: float, test: float) -> Split:
    """The split that the hash of a text sends it to: the same in every corpus, whatever stands around the text."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    return "test" if place < test else "validation" if place < test + validation else "train"


def _edges(characters: int, validation: float, test: float) -> tuple[int, int]:
    """Where validation and where test begin, in characters: first train, then validation, then test.

    With validation 0.1 and test 0 it is the cut of karpathy/nanoGPT, data/shakespeare_char/prepare.py.
    """
    return int(characters * (1 - validation - test)), int(characters * (1 - test))


def _cut_text(text: str, validation: float, test: float) -> dict[Split, str]:
    first, second = _edges(len(text), validation, test)
    return {"train": text[:first], "validation": text[first:second], "test": text[second:]}


def _cut_documents(stream: Stream, validation: float, test: float, split: Split) -> Iterator[str]:
    """Documents whole, each in the split in which its first character falls."""
    first, second = _edges(sum(len(text) for text in stream()), validation, test)
    position = 0
    for text in stream():
        if split == ("train" if position < first else "validation" if position < second else "test"):
            yield text
        position += len(text)


def _paragraphs_of(stream: Stream) -> Stream:
    return lambda: (paragraph for text in stream() for paragraph in _paragraphs(text))


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs with the blank lines after them, so that those of one split make readable text again."""
    lines: list[str] = []
    blank = False
    for line in text.splitlines(keepends=True):
        if blank and line.strip():
            yield "".join(lines)
            lines = []
        lines.append(line)
        blank = not line.strip()
    if lines:
        yield "".join(lines)


def _pieces_of(stream: Stream) -> Stream:
    return lambda: (piece for text in stream() for piece in _pieces(text))


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces of at least PIECE_CHARACTERS, each ending at a line's end where there is one."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + PIECE_CHARACTERS) + 1 or len(text)
        yield text[start:end]
        start = end
