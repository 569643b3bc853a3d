"""The built-in data: what its rows are, that a fresh process draws the same ones, and that it is not trivial."""

import functools
import hashlib
import json
import os
import re
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models import samples
from models.errors import DataError
from models.samples import documentation, german, knowledge, lexicon

FUNCTIONS = ("docstrings", "dates", "help_desk", "preferences", "dialogue_text")

DIGESTS = """
import hashlib, json, sys
from models import samples
for name in sys.argv[1:]:
    print(name, hashlib.sha256(json.dumps(list(getattr(samples, name)())).encode()).hexdigest())
"""


def rows(name: str) -> list[Any]:
    """A fresh pass."""
    return list(getattr(samples, name)())


@functools.cache
def first_rows(name: str) -> list[Any]:
    """The rows of a first pass, for tests that only look at them."""
    return rows(name)


def digests_in_a_process(hash_seed: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", DIGESTS, *FUNCTIONS],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout


def key(row: Any) -> str:
    return json.dumps(row, sort_keys=True)


@pytest.mark.parametrize("name", FUNCTIONS[1:])  # two processes read the docstrings below
def test_a_second_pass_starts_afresh_and_gives_the_same_rows(name: str) -> None:
    function = getattr(samples, name)
    first: Iterator[Any] = function()
    next(first)
    assert rows(name) == first_rows(name)
    assert isinstance(first, Iterator)


def test_every_process_draws_the_same_rows_whatever_its_hash_seed() -> None:
    assert digests_in_a_process("1") == digests_in_a_process("2")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dates", "8a61687e680e6f51"),
        ("help_desk", "078f81e10b90d5fb"),
        ("preferences", "62518f617035b5e9"),
        ("dialogue_text", "764650e0da55ae7c"),
    ],
)
def test_the_generated_rows_are_those_of_every_python_version(name: str, expected: str) -> None:
    assert hashlib.sha256(json.dumps(first_rows(name)).encode()).hexdigest()[:16] == expected


def test_the_samples_import_nothing_heavy() -> None:
    code = "import sys, models.samples; print(sorted({'torch', 'numpy', 'datasets', 'pydantic'} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "fewest", "most"),
    [
        ("docstrings", 1_500, 4_000),
        ("dates", 4_000, 4_000),
        ("help_desk", 2_500, 2_500),
        ("preferences", 1_200, 1_200),
        ("dialogue_text", 500, 700),
    ],
)
def test_there_are_as_many_distinct_rows_as_promised(name: str, fewest: int, most: int) -> None:
    found = first_rows(name)
    assert fewest <= len(found) <= most
    assert len({key(row) for row in found}) == len(found)


def test_docstrings_are_short_and_distinct() -> None:
    texts = [row["text"] for row in first_rows("docstrings")]
    assert len(set(texts)) == len(texts)
    assert all(documentation.FEWEST_WORDS <= len(text.split()) <= documentation.WORDS for text in texts)
    assert not any("\n" in text for text in texts)


def test_every_subject_has_its_share_of_docstrings() -> None:
    counts = Counter(row["label"] for row in first_rows("docstrings"))
    assert counts.keys() == documentation.SUBJECTS.keys()
    assert min(counts.values()) >= 150
    assert max(counts.values()) <= 4 * min(counts.values())


def test_a_module_that_this_python_lacks_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documentation, "SUBJECTS", {"some": ("no_such_module", "json"), "none": ("no_such_package",)})
    assert {row["label"] for row in rows("docstrings")} == {"some"}


def test_a_text_that_two_subjects_have_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shared, own = '"""Both modules say the very same."""', '"""Only one of the modules says this."""'
    (tmp_path / "one.py").write_text(f"def f():\n    {shared}\n\ndef g():\n    {own}\n")
    (tmp_path / "two.py").write_text(f"def f():\n    {shared}\n")
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setattr(documentation, "SUBJECTS", {"a": ("one",), "b": ("two",)})
    assert rows("docstrings") == [{"text": "Only one of the modules says this.", "label": "a"}]


def test_a_python_without_source_files_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(DataError, match=r"data\.source: the built-in texts to classify .* got none in"):
        rows("docstrings")


def test_dates_have_distinct_sources_of_5_to_20_words_a_side() -> None:
    pairs = first_rows("dates")
    assert len({pair["source"] for pair in pairs}) == len(pairs)
    assert all(5 <= len(pair[side].split()) <= 20 for pair in pairs for side in ("source", "target"))


def test_a_date_keeps_its_number_day_month_and_mark_in_the_translation() -> None:
    for pair in first_rows("dates"):
        source, target = pair["source"], pair["target"]
        for english, translated in (*lexicon.DAYS, *lexicon.MONTHS[:4]):  # May is a verb as well
            assert (re.search(rf"\b{english}\b", source) is None) == (
                re.search(rf"\b{translated}\b", target) is None
            ), pair
        assert source[-1] == target[-1]
        assert ("half past" in source) == ("um halb" in target)


@pytest.mark.parametrize(
    ("article", "adjective", "noun", "case", "expected"),
    [
        ("my", "alt", "neighbour", "accusative", "meinen alten Nachbarn"),
        ("a", "müde", "child", "nominative", "ein müdes Kind"),
        ("the", "neu", "doctor", "nominative", "der neue Arzt"),
        ("our", "nett", "sister", "dative", "unserer netten Schwester"),
        ("the", "", "team", "dative", "dem Team"),
    ],
)
def test_german_phrases_are_inflected(
    article: str, adjective: str, noun: str, case: german.Case, expected: str
) -> None:
    found = next(each for each in lexicon.PEOPLE if each.english == noun)
    assert german.german_phrase(article, adjective, found, case) == expected


@pytest.mark.parametrize(
    ("number", "english", "written"),
    [
        (1, "one", "eins"),
        (17, "seventeen", "siebzehn"),
        (21, "twenty-one", "einundzwanzig"),
        (70, "seventy", "siebzig"),
    ],
)
def test_numbers_are_written_out(number: int, english: str, written: str) -> None:
    assert (german.english_number(number), german.german_number(number)) == (english, written)


def test_dialogues_take_turns_and_the_assistant_has_the_last_word() -> None:
    with_system = 0
    for dialogue in first_rows("help_desk"):
        messages = dialogue["messages"]
        if messages[0]["role"] == "system":
            with_system += 1
            messages = messages[1:]
        assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert 2 <= len(messages) <= 8
        assert all(message["content"].strip() == message["content"] != "" for message in messages)
    assert 500 < with_system < 1_200


def test_the_desk_answers_about_the_order_that_was_asked_for() -> None:
    asked = 0
    for dialogue in first_rows("help_desk"):
        for before, reply in zip(dialogue["messages"], dialogue["messages"][1:], strict=False):
            if before["role"] == "user" and (numbers := re.findall(r"\b\d{5}\b", before["content"])):
                asked += 1
                assert re.findall(r"\b\d{5}\b", reply["content"]) == numbers
                if "is being packed" in reply["content"]:
                    assert knowledge.status(int(numbers[0])) == "packed"
    assert asked > 500


def test_the_desk_names_the_price_of_the_product_that_was_asked_for() -> None:
    prices = {product.name: product.price for product in knowledge.PRODUCTS}
    found = [
        match.groups()
        for dialogue in first_rows("help_desk")
        for message in dialogue["messages"]
        if (match := re.fullmatch(r"An? (.+) costs (\d+) euros\.", message["content"]))
    ]
    assert len(found) > 50
    assert all(prices[name] == int(price) for name, price in found)


def test_preferences_prefer_a_reply_that_is_not_the_rejected_one() -> None:
    pairs = first_rows("preferences")
    assert len({key([message for message in pair["prompt"] if message["role"] != "system"]) for pair in pairs}) == 1_200
    for pair in pairs:
        assert pair["prompt"][-1]["role"] == "user"
        assert pair["chosen"] != pair["rejected"]
        assert pair["chosen"].strip()
        assert pair["rejected"].strip()


def test_the_longer_reply_is_not_mostly_the_chosen_one() -> None:
    pairs = first_rows("preferences")
    assert 0.35 < sum(len(pair["chosen"]) > len(pair["rejected"]) for pair in pairs) / len(pairs) < 0.65


def test_dialogue_text_is_about_half_a_million_characters_of_prose() -> None:
    texts = [row["text"] for row in first_rows("dialogue_text")]
    assert 400_000 < sum(map(len, texts)) < 600_000
    assert all(100 <= len(text) <= 2_000 and text.endswith(".") for text in texts)


def test_dialogue_text_repeats_no_dialogue() -> None:
    prose = "\n".join(row["text"] for row in first_rows("dialogue_text"))
    for dialogue in first_rows("help_desk"):
        contents = [message["content"] for message in dialogue["messages"]]
        assert " ".join(contents) not in prose
        assert "\n".join(contents) not in prose
