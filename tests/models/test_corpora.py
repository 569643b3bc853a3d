"""Sources and splits: what is read, what is cut where, and what is said when it cannot be."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from models.configuration import Preprocess, TextData
from models.corpora import SPLITS, Corpus, Split, read
from models.errors import DataError
from models.sources import locate, sample, streams


def corpus(**settings: Any) -> Corpus:
    data = TextData(**settings)
    return read(data, locate(data), Preprocess())


def whole(read_corpus: Corpus, split: Split) -> str:
    return "".join(read_corpus.texts[split]())


def write_jsonl(path: Path, rows: Sequence[Any], column: str = "text") -> str:
    path.write_text("".join(json.dumps({column: row}) + "\n" for row in rows))
    return str(path)


def test_no_paragraph_of_the_sample_is_in_two_splits_or_twice() -> None:
    found = corpus(source="sample")
    texts = [text.strip() for split in SPLITS for text in found.texts[split]()]
    assert len(texts) == len(set(texts)) == sum(1 for _ in sample())


def test_the_sample_is_cut_by_about_the_shares() -> None:
    found = corpus(source="sample", validation=0.1, test=0.2)
    sizes = {split: len(whole(found, split)) for split in SPLITS}
    assert sizes["validation"] / sum(sizes.values()) == pytest.approx(0.1, abs=0.03)
    assert sizes["test"] / sum(sizes.values()) == pytest.approx(0.2, abs=0.03)


def test_position_cuts_plain_text_as_nanogpt_does(tmp_path: Path) -> None:
    text = "".join(f"line {n}\n" for n in range(20_001))
    (tmp_path / "all.txt").write_text(text)
    found = corpus(source=str(tmp_path / "all.txt"), split_by="position", validation=0.1, test=0.0)
    cut = int(len(text) * 0.9)
    assert (whole(found, "train"), whole(found, "validation")) == (text[:cut], text[cut:])
    assert set(found.texts) == {"train", "validation"}


def test_position_keeps_the_order_train_validation_test(tmp_path: Path) -> None:
    text = "".join(chr(97 + n % 26) for n in range(1000))
    (tmp_path / "all.txt").write_text(text)
    found = corpus(source=str(tmp_path / "all.txt"), split_by="position", validation=0.2, test=0.1)
    assert "".join(whole(found, split) for split in SPLITS) == text
    assert [len(whole(found, split)) for split in SPLITS] == [700, 200, 100]


def test_position_keeps_documents_whole(tmp_path: Path) -> None:
    rows = [f"document {n:03} " * 5 for n in range(100)]
    found = corpus(source=write_jsonl(tmp_path / "a.jsonl", rows), split_by="position", validation=0.2, test=0.1)
    parts = [list(found.texts[split]()) for split in SPLITS]
    assert [row for part in parts for row in part] == rows
    assert [len(part) for part in parts] == [70, 20, 10]


def test_hash_sends_equal_paragraphs_to_one_split(text_file: Path) -> None:
    text_file.write_text("".join(f"paragraph {n % 50} of fifty\n\n" for n in range(500)))
    found = corpus(source=str(text_file), validation=0.3, test=0.3)
    parts = [{text.strip() for text in found.texts[split]()} for split in SPLITS]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 50


def test_hash_loses_no_character_of_plain_text(text_file: Path) -> None:
    found = corpus(source=str(text_file))
    assert sorted("".join(whole(found, split) for split in SPLITS)) == sorted(text_file.read_text())


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_tables_give_the_texts_of_their_column(tmp_path: Path, kind: str) -> None:
    rows = [f"row {n}, with a comma" for n in range(200)]
    path = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        write_jsonl(path, rows, "body")
    elif kind == "csv":
        with path.open("w", newline="") as output:
            csv.writer(output).writerows([["id", "body"], *enumerate(rows)])
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"body": rows}), path)
    found = corpus(source=str(path), text_column="body")
    assert sorted(text for split in SPLITS for text in found.texts[split]()) == sorted(rows)
    assert found.ended


def test_files_named_like_splits_are_the_splits(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "dev", "test"):
        write_jsonl(tmp_path / f"{name}.jsonl", [f"text of {name}"])
    found = corpus(source=str(tmp_path))
    assert list(found.texts["train"]()) == ["text of train-00000-of-00002", "text of train-00001-of-00002"]
    assert list(found.texts["validation"]()) == ["text of dev"]
    assert list(found.texts["test"]()) == ["text of test"]


def test_a_glob_takes_the_files_it_matches(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"text {name}")
    found = corpus(source=str(tmp_path / "[ab].txt"), split_by="position", validation=0.01, test=0.0)
    assert whole(found, "train") + whole(found, "validation") == "text a\n\ntext b"


def test_a_wrong_path_names_the_nearest(text_file: Path) -> None:
    with pytest.raises(DataError, match=r"no file or folder .*wrods\.txt.* Did you mean 'words\.txt'\?"):
        corpus(source=str(text_file.with_name("wrods.txt")))


def test_a_hub_name_without_its_prefix_is_pointed_out() -> None:
    with pytest.raises(DataError, match="is written hub:Salesforce/wikitext"):
        corpus(source="Salesforce/wikitext")


def test_a_missing_column_names_the_nearest(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ["a"], "txet")
    with pytest.raises(DataError, match=r"a\.jsonl: no column 'text' .* it has 'txet'\. Did you mean 'txet'"):
        corpus(source=path)


def test_a_row_without_text_is_named(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [3, 4])
    with pytest.raises(DataError, match=r"row 1: column 'text' must hold text, got int 3"):
        list(corpus(source=path).texts["train"]())


@pytest.mark.parametrize("suffix", ["txt", "csv"])
def test_bad_encoding_names_the_byte_and_its_offset(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"latin.{suffix}"
    path.write_bytes(b"text\nna\xefve\n")
    with pytest.raises(DataError, match=rf"latin\.{suffix}: must be UTF-8, got the byte 0xef at offset 7"):
        list(corpus(source=str(path)).texts["train"]())


def test_broken_json_lines_name_the_file_and_the_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text('{"text": "a"}\n\n{"text": \n')
    with pytest.raises(DataError, match=r"broken\.jsonl:3: must be JSON, a row a line, got '{\"text\": '"):
        list(corpus(source=str(path)).texts["train"]())
    assert capfd.readouterr().err + caplog.text == ""  # said once


def test_what_is_no_json_lines_at_all_is_said_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "prose.jsonl"
    path.write_text("Once upon a time\n")
    with pytest.raises(DataError, match=r"prose\.jsonl: cannot be read as jsonl"):
        list(corpus(source=str(path)).texts["train"]())


def test_files_of_two_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.csv").write_text("text\nb\n")
    with pytest.raises(DataError, match=r"must have one known suffix .* got \.csv, \.txt"):
        corpus(source=str(tmp_path))


def test_a_named_split_that_is_missing_is_told_with_those_there(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", ["a"])
    write_jsonl(tmp_path / "check.jsonl", ["b"])
    with pytest.raises(DataError, match=r"data\.validation_split: .* no split 'chek'; it has .*Did you mean 'check'"):
        corpus(source=str(tmp_path), validation_split="chek")


def test_an_unreachable_hub_data_set_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach 'nobody/nothing' on the Hub (OfflineModeIsEnabled)")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataError, match=r"cannot load 'nobody/nothing' from the Hugging Face hub: Couldn't reach"):
        corpus(source="hub:nobody/nothing")


def test_a_hub_data_set_is_used_with_its_own_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load(*arguments: Any, **keywords: Any) -> Any:
        asked.append((arguments, keywords))
        splits = {"train": ["a", "", "b"], "validation": ["c"], "test": ["d"]}
        return datasets.DatasetDict({name: datasets.Dataset.from_dict({"text": t}) for name, t in splits.items()})

    monkeypatch.setattr(datasets, "load_dataset", load)
    found = corpus(source="hub:Salesforce/wikitext", configuration="wikitext-2-raw-v1", revision="v1")
    assert [list(found.texts[split]()) for split in SPLITS] == [["a", "b"], ["c"], ["d"]]
    assert asked == [(("Salesforce/wikitext", "wikitext-2-raw-v1"), {"revision": "v1", "streaming": False})]


def test_words_that_pandas_takes_for_empty_cells_are_text(tmp_path: Path) -> None:
    path = tmp_path / "texts.csv"
    path.write_text("text\nnull\nNA\nNone\nhello\n")
    data = TextData(source=str(path))
    assert list(streams(data, locate(data))["train"]()) == ["null", "NA", "None", "hello"]


def test_a_file_of_a_held_out_split_is_never_trained_on_by_mistake(tmp_path: Path) -> None:
    for name in ("training", "validation", "test"):
        (tmp_path / f"{name}.txt").write_text("some text")
    with pytest.raises(DataError, match=r"data\.train_split: .* none named 'train'; it has 'test', 'training', 'val"):
        corpus(source=str(tmp_path))


def test_numbers_in_a_csv_column_of_text_are_text(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("text,other\n12,1\n007,2\n")
    found = corpus(source=str(tmp_path / "n.csv"), validation=0.01, test=0.0)
    assert sorted(text for split in found.texts for text in found.texts[split]()) == ["007", "12"]
