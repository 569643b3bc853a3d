"""Rows as texts with labels: what is read, what is refused, and what becomes of it."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import examples, labelled_texts
from models.configuration import Augment, Classifier, LabelledData, Preprocess, Tokenizer
from models.errors import DataError
from models.examples import Prepared
from models.labelled_texts import LabelledTexts, baseline, notes, targets
from models.tokenizers import END, PAD

Rows = Sequence[Mapping[str, Any]]


def rows(count: int, labels: Sequence[Any] = ("left", "right"), text: str = "word{}") -> list[dict[str, Any]]:
    return [{"text": f"{text.format(n)} number {n}", "label": labels[n % len(labels)]} for n in range(count)]


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., str]:
    """A folder with a file for each split that is given."""

    def write(**splits: Rows) -> str:
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        for split, found in splits.items():
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
        return str(folder)

    return write


def prepare(source: str, *, context: int = 16, mix: str | None = None, family: str = "bert", **data: Any) -> Prepared:
    settings = LabelledData(source=source, **data)
    kind = LabelledTexts(settings, Classifier(family=family, context=context))  # type: ignore[arg-type]
    tokenizer, augment = Tokenizer(kind="words"), Augment(mix_source=mix)
    return examples.prepare(kind, examples.request(settings, Preprocess(), tokenizer, augment, None))


def test_labels_are_those_of_the_training_split_sorted(source: Callable[..., str]) -> None:
    prepared = prepare(source(train=rows(9, ["c", "a", "b"]), test=rows(3, "ab", "t{}"), valid=rows(3, "c", "v{}")))
    assert prepared.details["labels"] == ["a", "b", "c"]
    assert targets(prepared, "train", multi_label=False).tolist() == [2, 0, 1] * 3
    assert targets(prepared, "validation", multi_label=False).tolist() == [2, 2, 2]


def test_whole_numbers_as_labels_are_sorted_by_size(source: Callable[..., str]) -> None:
    splits = {"test": rows(3, [2], "t{}"), "valid": rows(3, [10], "v{}")}
    prepared = prepare(source(train=rows(9, [10, 2, -1]), **splits))
    assert prepared.details["labels"] == ["-1", "2", "10"]


@pytest.mark.parametrize(
    ("text", "template"), [("bert", [END, "one", "two"]), ("gpt2", ["one", "two", END])], ids=["encoder", "decoder"]
)
def test_an_encoder_reads_the_end_of_text_first_and_a_decoder_last(
    source: Callable[..., str], text: str, template: list[str]
) -> None:
    found = [{"text": "one two", "label": "a"}, {"text": "two", "label": "b"}]
    prepared = prepare(source(train=found, valid=rows(1, "a"), test=rows(1, "a", "t{}")), family=text)
    backend = prepared.encoder().backend
    assert [backend.id_to_token(token) for token in prepared.column("train", "tokens")[0].tolist()] == template
    assert backend.token_to_id(PAD) == prepared.pad != prepared.end


@pytest.mark.parametrize("written", ["a; b", ["b", "a"], ["a", "b", "a"]])
def test_several_labels_are_a_list_or_one_text(source: Callable[..., str], written: Any) -> None:
    train = [{"text": "one", "label": written}, {"text": "two", "label": "b"}, {"text": "three", "label": None}]
    folder = source(train=train, valid=rows(2, ["a"]), test=rows(2, ["b"], "t{}"))
    prepared = prepare(folder, multi_label=True, label_separator=";")
    assert targets(prepared, "train", multi_label=True).tolist() == [[1, 1], [0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (None, r"train\.jsonl: row 4: column 'label' must hold a label, text or a whole number, got none"),
        (" ", "row 4: .* got none"),
        (0.5, r"row 4: .* got float 0\.5\. Mend the row, or set data\.label_column"),
        (["a"], "row 4: .* got list"),
    ],
)
def test_what_is_no_label_is_told_with_its_row(source: Callable[..., str], label: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare(source(train=[*rows(3), {"text": "here", "label": label}]))


def test_a_column_that_is_not_there_is_told(source: Callable[..., str]) -> None:
    with pytest.raises(DataError, match=r"no column 'label' \(data\.label_column\); it has 'text', 'class'"):
        prepare(source(train=[{"text": "a", "class": "b"}]))


def test_text_that_is_no_text_is_told(source: Callable[..., str]) -> None:
    with pytest.raises(DataError, match=r"column 'text' must hold text, got int 3"):
        prepare(source(train=[{"text": 3, "label": "b"}]))


def test_a_wrong_encoding_is_told(tmp_path: Path) -> None:
    file = tmp_path / "latin.csv"
    file.write_bytes("text,label\nGrüße,a\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"must be UTF-8, got the byte 0xfc"):
        prepare(str(file))


def test_one_label_alone_cannot_be_learned(source: Callable[..., str]) -> None:
    with pytest.raises(DataError, match=r"at least 2 different labels in column 'label', got only 'same'"):
        prepare(source(train=rows(60, ["same"])))


def test_a_label_that_training_lacks_is_told_with_its_count(source: Callable[..., str]) -> None:
    folder = source(train=rows(9), valid=rows(3), test=rows(6, ["rihgt", "left"], "t{}"))
    with pytest.raises(DataError, match=r"the test split .* label 'rihgt' \(3 examples\), .* Did you mean 'right'"):
        prepare(folder)


def test_a_label_lost_to_the_limit_is_told_as_that(source: Callable[..., str]) -> None:
    train = [*rows(4), {"text": "last", "label": "late"}]
    with pytest.raises(DataError, match=r"'late' \(2 examples\).* raise data\.limit"):
        prepare(source(train=train, valid=rows(2, ["late"], "v{}"), test=rows(2, text="t{}")), limit=4)


def test_a_label_that_only_the_mixed_data_has_is_told(source: Callable[..., str], tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"text": "more", "label": "new"}) + "\n")
    with pytest.raises(DataError, match=r"augment\.mix_source has the label 'new'"):
        prepare(source(train=rows(60)), mix=str(other))


def test_empty_texts_are_left_out_and_counted(source: Callable[..., str]) -> None:
    prepared = prepare(source(train=[*rows(60), {"text": " ", "label": "left"}, {"text": None, "label": "right"}]))
    assert prepared.facts["train_empty"] == 2


def test_filters_that_leave_nothing_are_told(source: Callable[..., str]) -> None:
    settings = LabelledData(source=source(train=rows(60)))
    wanted = examples.request(settings, Preprocess(min_words=10), Tokenizer(), Augment(), None)
    with pytest.raises(DataError, match=r"must hold examples, got 0; left out: \d+ by preprocess filters"):
        examples.prepare(LabelledTexts(settings, Classifier()), wanted)


def test_longer_texts_are_cut_and_counted(source: Callable[..., str]) -> None:
    train = [*rows(8), {"text": "a b c d e f", "label": "left"}, {"text": "a b c", "label": "left"}]
    prepared = prepare(source(train=train, valid=rows(2, text="v{}"), test=rows(2, text="t{}")), context=4)
    assert prepared.facts["train_truncated"] == 1
    assert prepared.column("train", "tokens").lengths.max() == 4


def test_a_text_with_two_labels_is_kept_with_both_and_counted(source: Callable[..., str]) -> None:
    train = [*rows(4), {"text": "Same!", "label": "left"}, {"text": "same", "label": "right"}]
    prepared = prepare(source(train=train, valid=rows(2, text="v{}"), test=rows(2, text="t{}")))
    assert prepared.facts["train_examples"] == 6
    assert prepared.facts["train_contradictory"] == 1
    assert "texts that occur in train with different labels: 1" in notes(prepared, multi_label=False)


def test_the_notes_tell_the_balance_and_what_simple_answers_reach(source: Callable[..., str]) -> None:
    train = [{"text": f"{side} {n}", "label": side} for n in range(9) for side in ("left", "right", "right ")]
    for n, row in enumerate(train):
        row["text"] += f" x{n}"
    valid = [{"text": f"{side} v{n}", "label": side} for n in range(3) for side in ("left", "right")]
    prepared = prepare(source(train=train, valid=valid, test=rows(2, text="t{}")))
    found = notes(prepared, multi_label=False)
    assert found[0] == "2 labels in train: right 66.7%, left 33.3%"
    assert found[1] == "always answering right has an accuracy of 0.500 on validation"
    assert found[-1].endswith("a macro-F1 of 1.000 and an accuracy of 1.000 on validation")


def test_the_linear_baseline_is_fitted_once(source: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(source(train=rows(60)))
    first = baseline(prepared, "test", multi_label=False)
    monkeypatch.setattr(labelled_texts, "_baseline", None)
    assert baseline(prepared, "test", multi_label=False) == first
    assert set(first) == {"linear_macro_f1", "linear_accuracy", "linear_strength"}


def test_the_built_in_sample_has_its_subjects(source: Callable[..., str]) -> None:
    prepared = prepare("sample", text_column="body", label_column="subject")
    assert "files" in prepared.details["labels"]
    balance = np.bincount(targets(prepared, "train", multi_label=False)) / prepared.count("train", "examples")
    assert balance.min() > 0.02
