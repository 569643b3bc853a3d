"""Tokenisers: round trips, agreement of the fast tables with the saved file, what is unknown."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from tokenizers import processors
from transformers import AutoTokenizer

from models import cache, tokenizers
from models.configuration import Tokenizer
from models.errors import DataError

TEXTS = ["Hello,  wörld\n\n\tfoo  bar<|endoftext|> it's 12\r\n", "é ü 日本 \U0001f600 \x00 end"]
KINDS = ["characters", "bytes", "bpe"]
Kind = Literal["characters", "bytes", "bpe"]


def build(kind: Kind, texts: Sequence[str] = TEXTS, vocabulary: int = 300) -> tokenizers.Encoder:
    return tokenizers.build(Tokenizer(kind=kind, vocabulary=vocabulary), lambda: iter(texts), pretrained=None)


def load(encoder: tokenizers.Encoder, folder: Path) -> Any:
    encoder.save(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_gives_the_text_back(kind: Kind, tmp_path: Path) -> None:
    encoder = build(kind)
    loaded = load(encoder, tmp_path)
    for text, ids in zip(TEXTS, encoder.encode(TEXTS), strict=True):
        assert loaded.decode(ids.tolist()) == text


@pytest.mark.parametrize("kind", KINDS)
def test_the_saved_tokenizer_encodes_as_the_corpus_was(kind: Kind, tmp_path: Path) -> None:
    encoder = build(kind)
    loaded = load(encoder, tmp_path)
    text = TEXTS[0].replace("<|endoftext|>", "") + TEXTS[1]
    assert loaded(text)["input_ids"] == encoder.encode([text])[0].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_and_the_end_of_text_token_survive_saving(kind: Kind, tmp_path: Path) -> None:
    encoder = build(kind)
    loaded = load(encoder, tmp_path)
    assert (len(loaded), loaded.eos_token_id) == (encoder.vocabulary, encoder.end)


@pytest.mark.parametrize("kind", KINDS)
def test_an_end_of_text_token_spelled_out_in_a_text_is_text(kind: Kind) -> None:
    encoder = build(kind)
    assert encoder.end not in encoder.encode(TEXTS)[0]


def test_a_byte_is_its_own_id() -> None:
    assert build("bytes").encode(["aé"])[0].tolist() == list("aé".encode())


def test_an_unseen_character_is_one_unknown_token_as_in_the_saved_file(tmp_path: Path) -> None:
    encoder = build("characters", ["abc"])
    ids = encoder.encode(["aéb\U0001f600\n"])[0].tolist()
    assert ids == [0, encoder.unknown, 1, encoder.unknown, encoder.unknown]
    assert load(encoder, tmp_path)("aéb\U0001f600\n")["input_ids"] == ids


def test_bpe_learns_merges_up_to_its_vocabulary() -> None:
    encoder = build("bpe", ["low lower lowest " * 50], vocabulary=265)
    assert encoder.vocabulary <= 265
    assert len(encoder.encode(["lower"])[0]) < 5


def test_bpe_training_is_repeatable() -> None:
    first, second = build("bpe").encode(TEXTS), build("bpe").encode(TEXTS)
    assert [ids.tolist() for ids in first] == [ids.tolist() for ids in second]


def test_a_saved_tokenizer_serves_as_pretrained(tmp_path: Path) -> None:
    made = build("bpe")
    made.save(tmp_path)
    loaded = tokenizers.build(
        Tokenizer(kind="pretrained", path=str(tmp_path)), lambda: iter([]), pretrained=str(tmp_path)
    )
    assert loaded.encode(TEXTS)[0].tolist() == made.encode(TEXTS)[0].tolist()
    assert (loaded.vocabulary, loaded.end) == (made.vocabulary, made.end)


def test_a_missing_pretrained_folder_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"tokenizer\.path: cannot load .*nowhere.*: there is no such folder"):
        tokenizers.build(Tokenizer(kind="pretrained", path=missing), lambda: iter([]), pretrained=missing)


@pytest.mark.parametrize("own", ["byte level", "a token at the beginning"])
def test_a_pretrained_tokenizer_without_an_end_gets_one_where_the_task_needs_it(own: str, tmp_path: Path) -> None:
    made = build("bpe")
    first = processors.TemplateProcessing(single="B $A", special_tokens=[("B", 7)])
    made.backend.post_processor = processors.ByteLevel(trim_offsets=False) if own == "byte level" else first
    made.save(tmp_path / "own")
    shape = tokenizers.Shape(template="$A E", context=6)
    encoder = tokenizers.build(
        Tokenizer(kind="pretrained"), lambda: iter([]), pretrained=str(tmp_path / "own"), shape=shape
    )
    wanted = ([] if own == "byte level" else [7]) + made.encode(["Hello, this is long"])[0].tolist()
    wanted = [*wanted[:5], made.end]
    assert encoder.inputs(["Hello, this is long"])[0].tolist() == wanted
    loaded = load(encoder, tmp_path / "saved")
    assert loaded("Hello, this is long", truncation=True)["input_ids"] == wanted
    assert tokenizers.load(tmp_path / "saved", shape).inputs(["Hello, this is long"])[0].tolist() == wanted


def test_another_chat_template_is_another_tokenizer_to_the_cache(tmp_path: Path) -> None:
    build("bpe").save(tmp_path)
    before = cache.of_tokenizer(Tokenizer(kind="pretrained"), str(tmp_path))
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert cache.of_tokenizer(Tokenizer(kind="pretrained"), str(tmp_path)) != before
