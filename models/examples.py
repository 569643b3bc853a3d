"""Examples of a task read, split, cleaned, filtered, tokenised and cached, for all trials at once.

A `Kind` says how rows become examples of one task; what is the same for all kinds is here: which example goes
to which split, that no text is in two of them, what is left out and counted, and the folder in the cache.
Examples are held in memory while they are prepared (as text: a gigabyte for some millions), and memory-mapped
afterwards. Knows nothing of models, of how tokens are batched, or of any one task.
"""

import json
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from models import cache, ragged
from models import preprocess as steps
from models.cache import Facts
from models.configuration import Augment, Data, Preprocess, Tokenizer
from models.corpora import SPLITS, drawn, own_splits
from models.errors import DataError
from models.ragged import Array, Ragged
from models.sources import HUB, Row, Rows, locate, rows
from models.tokenizers import Encoder, Shape, build, load

FORMAT = 1
"""Version of what a prepared folder holds; raise it when that or the way of the data changes."""

SAMPLES = Path(__file__).parent / "samples"
"""Where the built-in data is made; a part of it from the documentation that Python itself carries."""

MIX = "mix"
"""The name under which the examples of `augment.mix_source` are kept."""

T = TypeVar("T")


@dataclass(frozen=True)
class Tables:
    """What a kind makes of its examples.

    columns: by split (and `mix`), then by name: a row for each example, with the type of its values. facts:
    numbers worth showing. details: anything else worth keeping, as JSON.
    """

    columns: Mapping[str, Mapping[str, tuple[Sequence[Array], str]]]
    facts: Facts
    details: Mapping[str, Any]


class Kind(Protocol[T]):
    """How the rows of one task become examples of type T.

    name: of the task, for people. version: of what `encode` makes. columns: by the setting that names it,
    each column a row must have. shape: what the task needs of its tokenizer.
    """

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def columns(self) -> Mapping[str, str]: ...
    @property
    def shape(self) -> Shape: ...

    def sample(self) -> Iterator[Row]:
        """The rows of the built-in sample."""

    def parse(self, row: Row, where: str) -> T | None:
        """The example in a row, None for an empty one, which is left out. Raises DataError."""

    def key(self, example: T) -> str:
        """What may not be in two splits, in canonical form (`models.preprocess.key`)."""

    def identity(self, example: T) -> str:
        """By what a repeated example is recognised within a split."""

    def text(self, example: T) -> str:
        """The text whose words the filters by length count."""

    def clean(self, example: T, clean: Callable[[str], str]) -> T:
        """The example with what a model reads of it cleaned."""

    def corpus(self, example: T) -> Iterator[str]:
        """The texts a tokenizer is trained on."""

    def encode(self, splits: Mapping[str, Sequence[T]], encoder: Encoder) -> Tables:
        """The examples of all splits as tables. Raises DataError for what cannot be learned from."""


@dataclass(frozen=True)
class Prepared:
    """Examples on disk.

    facts: `dataset`, `digest`, `tokenizer`, `vocabulary`; by split `<split>_examples`, `_tokens`, `_truncated`
    (examples cut to the context), `_origin`; `train_duplicates`, `train_leaked`, `train_filtered`,
    `train_empty` (left out of it); and what the kind adds.
    """

    folder: Path
    facts: Facts
    shape: Shape

    @property
    def tokenizer(self) -> Path:
        """Folder that `AutoTokenizer.from_pretrained` loads."""
        return self.folder / "tokenizer"

    def encoder(self) -> Encoder:
        """The tokenizer, ready to encode."""
        return load(self.tokenizer, self.shape)

    @property
    def vocabulary(self) -> int:
        """Number of tokens there are."""
        return int(self.facts["vocabulary"])

    @property
    def end(self) -> int:
        """Id of the end-of-text token."""
        return int(self.facts["end_token"])

    @property
    def pad(self) -> int:
        """Id of the padding token."""
        return int(self.facts["pad_token"])

    @property
    def details(self) -> dict[str, Any]:
        """What the kind kept beside the tables."""
        found: dict[str, Any] = json.loads((self.folder / "details.json").read_text())
        return found

    def count(self, split: str, unit: str) -> int:
        """How much a split holds: unit is examples, tokens, or what the kind counts. 0 where it has none."""
        return int(self.facts.get(f"{split}_{unit}", 0))

    def column(self, split: str, name: str) -> Ragged:
        """One column of a split."""
        return ragged.read(self.folder, f"{split}.{name}")


@dataclass(frozen=True)
class Request:
    """What to prepare: the settings that decide over it. pretrained: folder or hub name of a tokenizer."""

    data: Data
    preprocess: Preprocess
    tokenizer: Tokenizer
    mix_source: str | None = None
    pretrained: str | None = None


def request(data: Data, preprocess: Preprocess, tokenizer: Tokenizer, augment: Augment, model: str | None) -> Request:
    """The request of a configuration. model: its `model.pretrained`."""
    pretrained = (tokenizer.path or model) if tokenizer.kind == "pretrained" else None
    return Request(data, preprocess, tokenizer, augment.mix_source, pretrained)


def prepare(kind: Kind[Any], wanted: Request) -> Prepared:
    """Find the prepared examples, or make them. Raises DataError for whatever cannot be read or used."""
    name = _digest(kind, wanted)
    folder, facts = cache.folder(name, lambda folder: _build(folder, kind, wanted))
    return Prepared(folder, {"dataset": wanted.data.source, "digest": name, **facts}, kind.shape)


def _digest(kind: Kind[Any], wanted: Request) -> str:
    sources = [wanted.data.source, *([wanted.mix_source] if wanted.mix_source else [])]
    contents = []
    for source in sources:
        data = _other_source(wanted.data, source)
        content = locate(data).content(data)
        if content == "sample":
            content = [platform.python_version(), *map(cache.content_hash, sorted(SAMPLES.glob("*.py")))]
        contents.append(content)
    return cache.digest(
        {
            "format": [FORMAT, kind.name, kind.version, asdict(kind.shape)],
            "data": {**asdict(wanted.data), "source": contents},
            # 2: how what is cleaned is held apart.
            "preprocess": [asdict(wanted.preprocess), 2] if wanted.preprocess.cleans else asdict(wanted.preprocess),
            "tokenizer": cache.of_tokenizer(wanted.tokenizer, wanted.pretrained),
        }
    )


def _other_source(data: Data, source: str) -> Data:
    if source == data.source:
        return data
    # It is trained on alone: it need not have the splits that validate and test.
    other: dict[str, Any] = {"source": source, "validation_split": None, "test_split": None}
    if not source.startswith(HUB):  # refused of files
        other |= {"configuration": None, "revision": None, "streaming": False}
    return replace(data, **other)


def _build(folder: Path, kind: Kind[Any], wanted: Request) -> Facts:
    splits, facts = _read(kind, wanted)
    for split, found in splits.items():
        if not found:
            raise _empty(kind, wanted.data, split, facts)
    train = splits["train"]
    encoder = build(
        wanted.tokenizer,
        lambda: (text for example in train for text in kind.corpus(example)),
        pretrained=wanted.pretrained,
        shape=kind.shape,
    )
    tables = kind.encode(splits, encoder)
    for split, columns in tables.columns.items():
        for name, (values, dtype) in columns.items():
            ragged.write(folder, f"{split}.{name}", values, dtype)
    encoder.save(folder / "tokenizer")
    (folder / "details.json").write_text(json.dumps(tables.details, ensure_ascii=False))
    return {
        "task": kind.name,
        "tokenizer": wanted.tokenizer.kind if wanted.pretrained is None else wanted.pretrained,
        "vocabulary": encoder.vocabulary,
        "end_token": encoder.end,
        "pad_token": encoder.pad,
        **facts,
        **tables.facts,
    }


def _read(kind: Kind[Any], wanted: Request) -> tuple[dict[str, list[Any]], Facts]:
    """The examples of each split, cleaned and filtered, and what was left out."""
    counts: Counter[str] = Counter()
    data = wanted.data
    splits, origin = _splits(kind, data, counts)
    facts: Facts = {f"{split}_origin": text for split, text in origin.items()}
    if wanted.mix_source is not None:
        mixed, _ = _splits(kind, _other_source(data, wanted.mix_source), Counter(), cut=False)
        splits[MIX] = mixed["train"]
    _hold_apart(kind, splits, counts)
    clean = steps.cleaner(wanted.preprocess)
    for split in splits:
        if wanted.preprocess.cleans:
            splits[split] = [kind.clean(example, clean) for example in splits[split]]
    if wanted.preprocess.cleans:  # what only markup or a stop word told apart; validation and test stay as they are
        _hold_apart(kind, splits, counts, given_way=("train", MIX))
    for split in splits:
        if split in ("train", MIX):
            splits[split] = _filtered(kind, splits[split], wanted.preprocess, counts, split)
    splits["train"] = splits["train"][: data.limit]
    for name in ("duplicates", "leaked", "filtered", "empty"):
        facts[f"train_{name}"] = counts[f"train_{name}"]
    for split in ("validation", "test"):
        facts |= {name: counts[name] for name in (f"{split}_leaked", f"{split}_empty") if counts[name]}
    facts |= {f"{split}_examples": len(found) for split, found in splits.items()}
    return splits, facts


def _splits(
    kind: Kind[Any], data: Data, counts: Counter[str], *, cut: bool = True
) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """The examples by split: a source's own, and what is cut off its training split."""
    source = locate(data)
    if source.format == "sample":
        available: dict[str, Rows] = {"train": lambda: (("the sample", row) for row in kind.sample())}
    else:
        available = rows(data, source, kind.columns)
    own = own_splits(data, available)
    shares = {"validation": data.validation, "test": data.test} if cut else {}
    shares = {split: share for split, share in shares.items() if split not in own and share > 0}
    found: dict[str, list[Any]] = {}
    for split in SPLITS:
        if split in own and (cut or split == "train"):
            parsed = [kind.parse(row, where) for where, row in available[own[split]]()]
            found[split] = [example for example in parsed if example is not None]
            counts[f"{split}_empty"] += len(parsed) - len(found[split])
    origin: dict[str, str] = {split: own[split] for split in SPLITS if split in own}
    if shares:
        cut_off = _cut(kind, found["train"], data.split_by, shares)
        found |= {split: cut_off[split] for split in ("train", *shares)}
        origin |= dict.fromkeys(("train", *shares), f"{own['train']}, by {data.split_by}")
    return found, origin


def _cut(kind: Kind[Any], examples: list[Any], by: str, shares: Mapping[str, float]) -> dict[str, list[Any]]:
    validation, test = shares.get("validation", 0.0), shares.get("test", 0.0)
    if by == "position":
        first = int(len(examples) * (1 - validation - test))
        second = int(len(examples) * (1 - test))
        return {"train": examples[:first], "validation": examples[first:second], "test": examples[second:]}
    parts: dict[str, list[Any]] = {split: [] for split in SPLITS}
    for example in examples:
        parts[drawn(kind.key(example), validation, test)].append(example)
    return parts


def _hold_apart(
    kind: Kind[Any],
    splits: dict[str, list[Any]],
    counts: Counter[str],
    given_way: Sequence[str] = ("test", "validation", "train", MIX),
) -> None:
    """Take out of each split what a split it must not know holds: train knows neither of the others, validation
    not the test. A published test set stays as it is. given_way: the splits that something may be taken out of."""
    held: set[str] = set()
    for split in ("test", "validation", "train", MIX):
        if split in splits:
            keys = [kind.key(example) for example in splits[split]]
            out = held if split in given_way else set()
            kept = [example for example, key in zip(splits[split], keys, strict=True) if key not in out]
            counts[f"{split}_leaked"] += len(keys) - len(kept)
            splits[split] = kept
            if split in ("test", "validation"):
                held.update(keys)


def _filtered(
    kind: Kind[Any], examples: list[Any], preprocess: Preprocess, counts: Counter[str], split: str
) -> list[Any]:
    seen: set[str] = set()
    kept = []
    for example in examples:
        text = kind.text(example)
        if not text.strip() or not steps.keeps(preprocess, text):
            counts[f"{split}_filtered"] += 1
            continue
        identity = kind.identity(example)
        if preprocess.deduplicate is not False and identity in seen:
            counts[f"{split}_duplicates"] += 1
            continue
        seen.add(identity)
        kept.append(example)
    return kept


def _empty(kind: Kind[Any], data: Data, split: str, facts: Facts) -> DataError:
    if split == "train":
        left_out = ", ".join(
            f"{facts[f'train_{why}']} {words}"
            for why, words in (
                ("filtered", "by preprocess filters"),
                ("duplicates", "as duplicates"),
                ("leaked", "because validation or test has them"),
                ("empty", "as empty"),
            )
            if facts[f"train_{why}"]
        )
        return DataError(
            f"data: the train split of {data.source!r} must hold examples, got 0"
            f"{f'; left out: {left_out}' if left_out else ''}. Give more data, or loosen preprocess."
        )
    if split == MIX:
        return DataError(f"augment.mix_source: must hold training examples for {kind.name}, got none that are left.")
    return DataError(
        f"data.{split}: the {split} split of {data.source!r} ({facts[f'{split}_origin']}) must hold examples, got 0. "
        f"Give more data, a larger data.{split}, or name data.{split}_split"
        f"{', or set data.test 0 for no test split' if split == 'test' else ''}."
    )
