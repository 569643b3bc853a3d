"""Tokenised once: what is kept, when it is found again, and what happens when several ask at once."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from models import cache, preparation
from models.configuration import Preprocess, TextData, Tokenizer
from models.errors import DataError
from models.preparation import Prepared


def prepare(source: Path | str, kind: Any = "bytes", **settings: Any) -> Prepared:
    return preparation.prepare(
        TextData(source=str(source), **settings), Tokenizer(kind=kind), Preprocess(), pretrained=None
    )


@pytest.mark.parametrize("kind", ["characters", "bytes", "bpe"])
def test_the_tokens_on_disk_decode_to_the_text(text_file: Path, kind: str) -> None:
    found = prepare(text_file, kind, split_by="position", validation=0.2, test=0.0)
    tokenizer = AutoTokenizer.from_pretrained(found.tokenizer)
    parts = [tokenizer.decode(found.tokens(split).tolist()) for split in ("train", "validation")]
    assert "".join(parts) == text_file.read_text()


def test_facts_count_what_is_there(text_file: Path) -> None:
    found = prepare(text_file)
    sizes = [len(found.tokens(split)) for split in ("train", "validation", "test")]
    assert [found.count(split, "tokens") for split in ("train", "validation", "test")] == sizes
    assert sum(sizes) == text_file.stat().st_size
    assert (found.facts["dataset"], found.vocabulary) == (str(text_file), 257)


def test_each_document_of_a_table_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(100)))
    found = prepare(path)
    ends = int((found.tokens("train") == found.end_token).sum())
    assert ends == found.count("train", "texts") == found.count("train", "tokens") - found.count("train", "bytes")


def test_characters_that_only_validation_has_are_counted_as_unknown(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ab" * 450 + "xyz" + "ab" * 48 + "a")
    found = prepare(tmp_path / "a.txt", "characters", split_by="position", validation=0.1, test=0.0)
    assert found.count("validation", "unknown") == 3
    assert found.count("train", "unknown") == 0


def test_a_second_call_builds_nothing(text_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(text_file)
    monkeypatch.setattr(preparation, "_build", None)
    assert prepare(text_file) == first


def test_an_unchanged_file_is_not_read_again(text_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(text_file)
    monkeypatch.setattr(cache.hashlib, "file_digest", None)
    assert prepare(text_file) == first


def test_the_digest_is_of_the_content_wherever_it_lies(text_file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.txt"
    copy.write_bytes(text_file.read_bytes())
    assert prepare(copy).facts["digest"] == prepare(text_file).facts["digest"]


def test_changed_content_or_settings_are_prepared_anew(text_file: Path) -> None:
    digests = [prepare(text_file).facts["digest"], prepare(text_file, validation=0.2).facts["digest"]]
    digests.append(prepare(text_file, "characters").facts["digest"])
    text_file.write_text(text_file.read_text().replace("fox", "cat"))
    digests.append(prepare(text_file).facts["digest"])
    assert len(set(digests)) == 4


def test_processes_that_start_together_tokenise_once(text_file: Path) -> None:
    code = (
        "from models import preparation; from models.configuration import *; built = []; real = preparation._build;"
        "preparation._build = lambda *a: (built.append(1), real(*a))[1];"
        f"preparation.prepare(TextData(source={str(text_file)!r}), Tokenizer(kind='bytes'), Preprocess(), pretrained=None);"
        "print(len(built))"
    )
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    built = [process.communicate()[0] for process in processes]
    assert sorted(built) == ["0\n", "0\n", "0\n", "1\n"]


def test_a_failed_preparation_leaves_nothing_behind(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match="offset 0"):
        prepare(tmp_path / "a.txt")
    assert [path for path in (cache / "data").iterdir() if path.suffix != ".lock"] == []


def test_a_split_without_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one paragraph only, which the hash sends to one split\n")
    with pytest.raises(
        DataError, match=r"the \w+ split \(train, by hash\) must hold text, got 0 texts.*split_by to position"
    ):
        prepare(tmp_path / "a.txt")


def test_a_large_vocabulary_gets_wider_tokens(text_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from models import tokenizers

    real = tokenizers.build
    wide = lambda *a, **k: tokenizers.Encoder(real(*a, **k).backend, 70_000, 256, by_byte=True)  # noqa: E731
    monkeypatch.setattr(tokenizers, "build", wide)
    assert prepare(text_file).tokens("train").dtype == np.uint32
