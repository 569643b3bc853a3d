"""Texts with labels: what a classification is learned from.

The data room of `models.classification`: how rows become texts with labels, and how those become tokens and numbers,
and what the linear baseline reaches on them. Labels are those of the training split. Light: no torch. Knows nothing
of models or batches.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models import linear, pretrained, samples, scores
from models.cache import Facts
from models.configuration import Classifier, LabelledData
from models.errors import DataError, nearest
from models.examples import MIX, Prepared, Tables
from models.preprocess import key
from models.ragged import Array, encoded
from models.sources import Row, text_of
from models.tokenizers import PAD, Encoder, Shape

FIRST_IS_CLASSIFIED, LAST_IS_CLASSIFIED = "E $A", "$A E"
SHOWN_LABELS = 12
"""Labels that a note about their balance names, the most frequent first."""

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text and its labels: one, or where there may be several, any number of them, sorted."""

    text: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class LabelledTexts:
    """How rows become texts with labels (`models.examples.Kind`)."""

    data: LabelledData
    model: Classifier
    name: str = "classification"
    version: int = 1

    @property
    def columns(self) -> Mapping[str, str]:
        """The columns a row must have."""
        return {"data.text_column": self.data.text_column, "data.label_column": self.data.label_column}

    @property
    def shape(self) -> Shape:
        """An encoder reads the end-of-text token first; a decoder last, where it has seen the whole text."""
        decoder = is_decoder(self.model)
        template = LAST_IS_CLASSIFIED if decoder else FIRST_IS_CLASSIFIED
        return Shape(specials=(PAD,), template=template, context=self.model.context)

    def sample(self) -> Iterator[Row]:
        """Documentation strings of Python's standard library by subject."""
        for row in samples.docstrings():
            yield {self.data.text_column: row["text"], self.data.label_column: row["label"]}

    def parse(self, row: Row, where: str) -> LabelledText | None:
        """The text and labels in a row, None where there is no text. Raises DataError."""
        text = text_of(row, self.data.text_column, where, "data.text_column")
        if not text.strip():
            return None
        return LabelledText(text, self._labels(row.get(self.data.label_column), where))

    def _labels(self, value: Any, where: str) -> tuple[str, ...]:
        if not self.data.multi_label:
            return (self._label(value, where),)
        if value is None:  # an empty cell: a text without labels
            return ()
        if isinstance(value, str):
            value = [part for part in value.split(self.data.label_separator) if part.strip()]
        elif not isinstance(value, list | tuple):
            value = [value]
        return tuple(sorted({self._label(part, where) for part in value}))

    def _label(self, value: Any, where: str) -> str:
        name = value.strip() if isinstance(value, str) else str(value)
        if not isinstance(value, str | int) or not name:
            got = "none" if value is None or name == "" else f"{type(value).__name__} {value!r}"
            raise DataError(
                f"{where}: column {self.data.label_column!r} must hold a label, text or a whole number, got {got}. "
                "Mend the row, or set data.label_column."
            )
        return name

    def key(self, example: LabelledText) -> str:
        """A text is in one split, whatever its labels."""
        return key(example.text)

    def identity(self, example: LabelledText) -> str:
        """Text and labels: a text that occurs with different ones is kept with each, and counted."""
        return "\0".join((key(example.text), *example.labels))

    def text(self, example: LabelledText) -> str:
        """The text."""
        return example.text

    def clean(self, example: LabelledText, clean: Callable[[str], str]) -> LabelledText:
        """The text cleaned."""
        return replace(example, text=clean(example.text))

    def corpus(self, example: LabelledText) -> Iterator[str]:
        """The text."""
        yield example.text

    def encode(self, splits: Mapping[str, Sequence[LabelledText]], encoder: Encoder) -> Tables:
        """Columns `tokens`, `text` (to be varied, and for the linear baseline) and `labels` (numbers of labels, in
        the order of `details["labels"]`)."""
        labels = self._known(splits)
        numbers = {label: number for number, label in enumerate(labels)}
        columns: dict[str, dict[str, tuple[Sequence[Array], str]]] = {}
        facts: Facts = {"labels": len(labels), "train_contradictory": _contradictory(splits["train"])}
        counts: dict[str, dict[str, int]] = {}
        for split, examples in splits.items():
            texts = [example.text for example in examples]
            tokens = inputs(encoder, texts)
            columns[split] = {
                "tokens": (tokens, "int32"),
                "text": ([encoded(text) for text in texts], "uint8"),
                "labels": ([np.asarray([numbers[label] for label in item.labels]) for item in examples], "int32"),
            }
            facts |= {
                f"{split}_tokens": sum(map(len, tokens)),
                f"{split}_truncated": int((encoder.lengths(texts) > self.model.context).sum()),
                f"{split}_unknown": sum(int((row == encoder.unknown).sum()) for row in tokens),
            }
            counts[split] = dict(Counter(label for example in examples for label in example.labels))
        shown = [f"{', '.join(item.labels) or 'no label'}: {item.text}" for item in splits["train"][:3]]
        return Tables(columns, facts, {"labels": labels, "counts": counts, "examples": shown})

    def _known(self, splits: Mapping[str, Sequence[LabelledText]]) -> list[str]:
        """The labels of the training split, sorted; whole numbers by their size.

        Raises DataError where there is nothing to tell apart, and for a label that only another split has.
        """
        found = {label for example in splits["train"] for label in example.labels}
        fewest = 1 if self.data.multi_label else 2
        if len(found) < fewest:
            only = f"only {next(iter(found))!r}" if found else "none"
            raise DataError(
                f"data.label_column: the train split must have at least {fewest} different "
                f"label{'s' if fewest > 1 else ''} in column {self.data.label_column!r}, got {only}. Name another "
                "column, or give more data."
            )
        for split, examples in splits.items():
            unseen = Counter(label for example in examples for label in example.labels if label not in found)
            for label, count in unseen.most_common(1):
                raise self._unseen(split, label, count, len(unseen), found)
        whole = all(label.removeprefix("-").isdecimal() for label in found)
        return sorted(found, key=lambda label: (int(label), label)) if whole else sorted(found)

    def _unseen(self, split: str, label: str, count: int, labels: int, known: set[str]) -> DataError:
        where = "augment.mix_source" if split == MIX else f"the {split} split of {self.data.source!r}"
        more = f" (and {labels - 1} more labels)" if labels > 1 else ""
        times = f"{count:,} example{'' if count == 1 else 's'}"
        limit = ", raise data.limit" if self.data.limit is not None and split != MIX else ""
        return DataError(
            f"data.label_column: {where} has the label {label!r} ({times}){more}, which no training example has."
            f"{nearest(label, known)} Give training examples of it{limit}, mend the label, or leave those rows out."
        )


def is_decoder(settings: Classifier) -> bool:
    """Whether the last token is classified; of a pretrained model its configuration says so."""
    if settings.pretrained is None:
        return settings.family in ("gpt2", "llama")
    file = Path(settings.pretrained).expanduser() / "config.json"
    try:
        if file.is_file():  # the usual case, without the weight of transformers
            return "bert" not in str(json.loads(file.read_text())["model_type"])
        from transformers import AutoConfig

        return "bert" not in str(pretrained.load(AutoConfig, settings.pretrained).model_type)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"model.pretrained: cannot load {settings.pretrained!r}: {pretrained.brief(error)} "
            "Give a folder with a config.json and safetensors, or a hub name."
        ) from error


def inputs(encoder: Encoder, texts: Sequence[str]) -> list[Array]:
    """What a model reads of each text; of one without any token (a pretrained tokenizer may put none of its own), the
    end-of-text token."""
    return [row if len(row) else np.asarray([encoder.end], dtype=np.uint32) for row in encoder.inputs(texts)]


def _contradictory(examples: Sequence[LabelledText]) -> int:
    """How many different texts occur with different labels."""
    found: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for example in examples:
        found[key(example.text)].add(example.labels)
    return sum(len(labels) > 1 for labels in found.values())


def targets(prepared: Prepared, split: str, *, multi_label: bool) -> Labels:
    """The labels of a split: the number of each example's, shape (N,); of several, 0 or 1, shape (N, L)."""
    rows = prepared.column(split, "labels")
    if not multi_label:
        return np.asarray(rows.values, dtype=np.int64)
    found = np.zeros((len(rows), len(prepared.details["labels"])), dtype=np.int64)
    found[np.repeat(np.arange(len(rows)), rows.lengths), rows.values] = 1
    return found


def baseline(prepared: Prepared, split: str, *, multi_label: bool) -> dict[str, float]:
    """What the linear baseline reaches on a split, fitted to the training split with its strength chosen on
    validation: `linear_macro_f1`, `linear_accuracy` and `linear_strength`. Computed once, and kept beside the
    prepared data."""
    file = prepared.folder / f"linear_{split}.json"
    if not file.exists():
        found = _baseline(prepared, split, multi_label=multi_label)
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        temporary.write_text(json.dumps(found))
        temporary.rename(file)
    kept: dict[str, float] = json.loads(file.read_text())
    return kept


def _baseline(prepared: Prepared, split: str, *, multi_label: bool) -> dict[str, float]:
    labels: list[str] = prepared.details["labels"]
    parts = {name: _examples(prepared, name, multi_label) for name in {"train", "validation", split}}
    fitted = linear.fit(parts["train"], parts["validation"], classes=len(labels))
    predicted = fitted.predict(parts[split].texts)
    reached = scores.classification("", predicted, parts[split].labels, labels)
    return {
        "linear_macro_f1": reached["macro_f1"],
        "linear_accuracy": reached["accuracy"],
        "linear_strength": fitted.strength,
    }


def _examples(prepared: Prepared, split: str, multi_label: bool) -> linear.Examples:
    texts = prepared.column(split, "text")
    return linear.Examples(
        [texts.text(row) for row in range(len(texts))], targets(prepared, split, multi_label=multi_label)
    )


def notes(prepared: Prepared, *, multi_label: bool) -> list[str]:
    """What a person should know of the labels, in sentences: their balance, contradictions, unknown words, and what
    the linear baseline reaches on validation."""
    counts, train = prepared.details["counts"], prepared.count("train", "examples")
    ordered = sorted(counts["train"].items(), key=lambda item: (-item[1], item[0]))
    shares = ", ".join(f"{label} {count / train:.1%}" for label, count in ordered[:SHOWN_LABELS])
    more = f", and {len(ordered) - SHOWN_LABELS} more" if len(ordered) > SHOWN_LABELS else ""
    found = [f"{len(ordered)} labels in train: {shares}{more}"]
    if not multi_label:
        most = ordered[0][0]
        share = counts["validation"].get(most, 0) / prepared.count("validation", "examples")
        found.append(f"always answering {most} has an accuracy of {share:.3f} on validation")
    if missing := [label for label in counts["train"] if label not in counts["validation"]]:
        found.append(
            f"no validation example has {', '.join(sorted(missing)[:SHOWN_LABELS])}: nothing is measured there"
        )
    if contradictory := prepared.count("train", "contradictory"):
        found.append(f"texts that occur in train with different labels: {contradictory:,}")
    if unknown := prepared.count("validation", "unknown"):
        found.append(
            f"{unknown / prepared.count('validation', 'tokens'):.1%} of the validation tokens are unknown to the "
            "tokenizer"
        )
    linear_ = baseline(prepared, "validation", multi_label=multi_label)
    found.append(
        f"the linear baseline (TF-IDF of words and pairs of words, logistic regression) has a macro-F1 of "
        f"{linear_['linear_macro_f1']:.3f} and an accuracy of {linear_['linear_accuracy']:.3f} on validation"
    )
    return found
