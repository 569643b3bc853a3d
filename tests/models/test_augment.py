"""Variation: what each kind keeps, how much it changes, and that chance comes from the generator alone."""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.augment import augmenter, generator, neighbours
from models.configuration import Augment
from models.errors import DataError, SettingError

VOCABULARY = [
    *"abcdefghijklmnop",
    "Tea,",
    "milk",
    "Über",
    "sugar!",
    "42",
    "don't",
    "(and",
    "so)",
    "日本語",
    "naïve",
    "_",
]
STRENGTHS: dict[str, Any] = {
    "sentence_order": 1.0,
    "rotation": 1.0,
    "synonyms": 0.5,
    "word_dropout": 0.3,
    "word_swaps": 0.3,
    "word_shuffle": 3,
    "span_mask": 0.3,
    "characters": 0.2,
}
ORDERING = ["sentence_order", "rotation", "word_swaps", "word_shuffle"]
ODD_TEXTS = ["", " ", "\n\n", "word", "  word\n", "a", "a b", "a\nb", "...", "日本語", "a\u00a0b", ".", "x" * 200]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "synonyms.txt"
    path.write_text("\ufefftea, brew\n\nmilk, oat drink, cream\nsugar, sweet stuff\n", encoding="utf-8")
    return path


@pytest.fixture
def only(file: Path) -> Callable[..., Callable[[str, random.Random], str]]:
    """The augmenter of one kind, at its strength above or the one given."""

    def make(kind: str, strength: Any = None, **more: Any) -> Callable[[str, random.Random], str]:
        strength = STRENGTHS[kind] if strength is None else strength
        return augmenter(Augment(**{kind: strength, "synonyms_file": str(file), **more}))

    return make


Only = Callable[..., Callable[[str, random.Random], str]]


def texts(number: int = 300, *, most: int = 40) -> Iterator[str]:
    """Random texts of 1 to `most` words in sentences and lines."""
    chance = random.Random(0)
    for _ in range(number):
        words = chance.choices(VOCABULARY, k=chance.randint(1, most))
        gaps = chance.choices([" ", " ", " ", ". ", "? ", "\n", ".\n\n", "  "], k=len(words))
        yield "".join(word + gap for word, gap in zip(words, gaps, strict=True))


def long_text(words: int = 20_000) -> str:
    return " ".join(f"w{number}" for number in range(words))


@pytest.mark.parametrize("kind", STRENGTHS)
def test_strength_0_changes_nothing_and_draws_nothing(kind: str, only: Only) -> None:
    vary = only(kind, 0)
    chance = random.Random(3)
    before = chance.getstate()
    assert all(vary(text, chance) is text for text in texts(20))
    assert chance.getstate() == before


@pytest.mark.parametrize("kind", STRENGTHS)
def test_the_same_state_gives_the_same_text_and_another_epoch_another(kind: str, only: Only) -> None:
    first, second = only(kind), only(kind)
    long = [text for text in texts() if len(text) > 60]
    varied = [first(text, generator(1, 0, place)) for place, text in enumerate(long)]
    assert varied == [second(text, generator(1, 0, place)) for place, text in enumerate(long)]
    again = [first(text, generator(1, 1, place)) for place, text in enumerate(long)]
    assert sum(one != other for one, other in zip(varied, again, strict=True)) > len(long) / 4


@pytest.mark.parametrize("kind", STRENGTHS)
def test_texts_of_hardly_a_word_survive(kind: str, only: Only) -> None:
    for strength in (STRENGTHS[kind], 0.99 if kind != "word_shuffle" else 50):
        vary = only(kind, strength)
        for text in ODD_TEXTS:
            for example in range(30):
                varied = vary(text, generator(0, 0, example))
                assert bool(varied.strip()) == bool(text.strip())


@pytest.mark.parametrize("kind", ORDERING)
def test_what_changes_the_order_keeps_the_words_and_the_white_space(kind: str, only: Only) -> None:
    vary = only(kind)
    for example, text in enumerate(texts()):
        varied = vary(text, generator(0, 0, example))
        assert Counter(varied.split()) == Counter(text.split())
        assert Counter(re.findall(r"\s+", varied)) == Counter(re.findall(r"\s+", text))


def test_all_kinds_together_keep_the_white_space_around_a_text(file: Path) -> None:
    vary = augmenter(Augment(**STRENGTHS, synonyms_file=str(file)))
    for example, text in enumerate(texts()):
        varied = vary("\n  " + text, generator(0, 0, example))
        assert varied.startswith("\n  ")
        assert not varied[3].isspace()
        assert varied[len(varied.rstrip()) :] == text[len(text.rstrip()) :]


def test_sentences_stay_whole_and_each_order_comes_up(only: Only) -> None:
    vary = only("sentence_order")
    orders = Counter(vary("One is. Two was! Three?\nMr. Fox.", generator(0, 0, example)) for example in range(2400))
    assert len(orders) == 24
    assert all("Mr. Fox." in order and order.count("\n") == 1 for order in orders)
    assert min(orders.values()) > 60  # of 100 expected; the deviation is 10


def test_sentences_without_spaces_between_them_get_none(only: Only) -> None:
    vary = only("sentence_order")
    assert {vary("一。二。", generator(0, 0, example)) for example in range(20)} == {"一。二。", "二。一。"}


def test_a_text_begins_at_each_of_its_words_and_wraps_around(only: Only) -> None:
    vary = only("rotation")
    text = "a b c.\n\nd e"
    seen = Counter(vary(text, generator(0, 0, example)) for example in range(1000))
    assert set(seen) == {text, "b c.\n\nd e a", "c.\n\nd e a b", "d e\n\na b c.", "e a b c.\n\nd"}
    assert min(seen.values()) > 140  # of 200 expected; the deviation is 13


@pytest.mark.parametrize("kind", ["sentence_order", "rotation"])
def test_a_probability_is_how_often_a_text_is_varied(kind: str, only: Only) -> None:
    vary = only(kind, 0.3)
    text = " ".join(f"Number {number}." for number in range(30))
    share = sum(vary(text, generator(0, 0, example)) != text for example in range(1000)) / 1000
    assert 0.22 < share < 0.37


@pytest.mark.parametrize("most", [1, 3, 10])
def test_shuffled_words_move_at_most_so_many_places(most: int, only: Only) -> None:
    vary = only("word_shuffle", most)
    furthest = 0
    for example in range(300):
        varied = vary(long_text(40), generator(0, 0, example)).split()
        furthest = max(furthest, *(abs(place - int(word[1:])) for place, word in enumerate(varied)))
    assert min(most, 8) <= furthest <= most


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_the_share_of_words_swapped_is_that_of_eda(share: float, only: Only) -> None:
    moved = 0
    for example in range(200):
        varied = only("word_swaps", share)(long_text(15), generator(0, 0, example)).split()
        moved += sum(word != f"w{place}" for place, word in enumerate(varied))
    assert share * 1.4 < moved / 200 / 15 < share * 2.2  # two words a swap; some are swapped twice


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_the_share_of_words_is_dropped_and_the_rest_stays_in_order(share: float, only: Only) -> None:
    kept = [int(word[1:]) for word in only("word_dropout", share)(long_text(), generator(0, 0, 0)).split()]
    assert kept == sorted(kept)
    assert abs(1 - len(kept) / 20_000 - share) < 0.02


def test_lines_stay_apart_when_words_between_them_are_dropped(only: Only) -> None:
    vary = only("word_dropout", 0.5)
    for example in range(200):
        varied = vary("a b c\n\nd e f", generator(0, 0, example))
        assert ("\n\n" in varied) == bool(set("abc") & set(varied) and set("def") & set(varied))
        assert "  " not in varied


@pytest.mark.parametrize("share", [0.15, 0.3, 0.6])
def test_the_share_of_words_is_masked_in_spans_of_three(share: float, only: Only) -> None:
    varied = only("span_mask", share, mask="<mask>")(long_text(), generator(0, 0, 0)).split()
    masks = varied.count("<mask>")
    masked = 20_000 - (len(varied) - masks)
    assert masked == pytest.approx(share * 20_000, abs=1)
    assert masked / masks == pytest.approx(3, rel=0.06)
    kept = [int(word[1:]) for word in varied if word != "<mask>"]
    assert kept == sorted(kept)


def test_short_texts_are_masked_to_the_share_on_average(only: Only) -> None:
    vary = only("span_mask", 0.25)
    words = [sum(word != "_" for word in vary(long_text(6), generator(0, 0, n)).split()) for n in range(2000)]
    assert 1 - sum(words) / 2000 / 6 == pytest.approx(0.25, abs=0.02)
    assert set(words) == {4, 5}


def test_masks_are_inserted_and_stand_anywhere(only: Only) -> None:
    vary = only("span_mask", 0.3)
    varied = [vary(long_text(10), generator(0, 0, example)).split() for example in range(1000)]
    assert sum(words[0] == "_" for words in varied) > 60
    assert sum(words[-1] == "_" for words in varied) > 60
    assert sum(len(words) > 10 for words in varied) < 20
    # More masks than words masked: a span of no word.
    assert any(words.count("_") > 10 - sum(word != "_" for word in words) for words in varied)


@pytest.mark.parametrize("mask", ["", " \n"])
def test_a_mask_of_nothing_is_an_error(mask: str, only: Only) -> None:
    with pytest.raises(SettingError, match=r"^augment\.mask: "):
        only("span_mask", 0.3, mask=mask)


def test_no_mask_is_misspelt(file: Path) -> None:
    vary = augmenter(Augment(span_mask=0.4, mask="<mask>", characters=1.0))
    for example in range(100):
        assert "<mask>" in vary(long_text(10), generator(0, 0, example)).split()


def test_synonyms_keep_capitals_punctuation_and_lines(only: Only) -> None:
    vary = only("synonyms", 1.0)
    text = "Tea,\n(milk) and TEA! Sugar? teapot"
    seen = {vary(text, generator(0, 0, example)) for example in range(40)}
    assert seen == {f"Brew,\n({milk}) and Brew! Sweet stuff? teapot" for milk in ("oat drink", "cream")}


def test_phrases_are_replaced_whole_and_the_longest_first(tmp_path: Path) -> None:
    path = tmp_path / "s.txt"
    path.write_text("new york, the city\nnew york city, NYC\nnew, fresh\ne.g., for example\n")
    vary = augmenter(Augment(synonyms=1.0, synonyms_file=str(path)))
    for text, expected in {
        "In New  York City!": "In NYC!",
        "(new\nyork) too": "(the city) too",
        "new, york": "fresh, york",
        "New Yorkers": "Fresh Yorkers",
        "The city sleeps": "New york sleeps",
        "so e.g. this": "so for example this",
    }.items():
        assert vary(text, generator(0, 0, 0)) == expected


def test_a_word_in_several_lines_has_the_alternatives_of_all(tmp_path: Path) -> None:
    path = tmp_path / "s.txt"
    path.write_text("bank, shore\nbank, lender\n")
    vary = augmenter(Augment(synonyms=1.0, synonyms_file=str(path)))
    assert {vary("bank", generator(0, 0, example)) for example in range(40)} == {"shore", "lender"}
    assert vary("shore", generator(0, 0, 0)) == "bank"


def test_the_share_of_listed_words_is_replaced(only: Only) -> None:
    varied = only("synonyms", 0.25)("tea other " * 5000, generator(0, 0, 0)).split()
    assert 0.23 < varied.count("brew") / 5000 < 0.27
    assert varied.count("other") == 5000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"tea, brew\nmilk\n", r"s\.txt:2: must hold at least two different alternatives .*got 'milk'"),
        (b"tea, Tea\n", r"s\.txt:1: must hold at least two"),
        (b"tea,\n", r"s\.txt:1: must hold at least two"),
        (b"tea, brew\n\nf\xfcr, pro\n", r"s\.txt:3: must be UTF-8, got byte 0xfc at byte 2"),
        (b"\n\n", "got an empty file"),
        (None, r"cannot read .*s\.txt': No such file"),
    ],
)
def test_a_file_of_synonyms_that_cannot_be_used_is_an_error(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "s.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"^augment\.synonyms_file: .*" + message):
        augmenter(Augment(synonyms=0.1, synonyms_file=str(path)))


def test_the_file_is_read_once_and_not_where_it_is_not_needed(file: Path, only: Only) -> None:
    vary = only("synonyms", 1.0)
    file.unlink()
    assert vary("tea", generator(0, 0, 0)) == "brew"
    augmenter(Augment(rotation=1.0, synonyms_file=str(file)))


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_the_share_of_letters_is_mistyped_and_nothing_else(share: float, only: Only) -> None:
    """A word of one letter shows a typing error as another letter or as two."""
    varied = only("characters", share)("j 1. " * 5000, generator(0, 0, 0)).split(" ")
    assert set(varied[1::2][:5000]) == {"1."}
    typed = Counter(varied[::2][:5000])
    assert 1 - typed["j"] / 5000 == pytest.approx(share, abs=0.03)
    assert set(typed) - {"j"} == {"jj", *"uikhnm"}


def test_each_typing_error_comes_up_and_every_word_stays(only: Only) -> None:
    vary = only("characters", 0.3)
    seen = Counter(vary("ab", generator(0, 0, example)) for example in range(3000))
    assert {"ba", "b", "a", "aab", "abb", "qb", "an"} <= set(seen)
    assert "" not in seen
    for example, text in enumerate(texts()):
        assert len(vary(text, generator(0, 0, example)).split()) == len(text.split())


def test_a_capital_is_mistyped_as_a_capital(only: Only) -> None:
    vary = only("characters", 1.0, keyboard="qwertz")
    typed = {vary("1Ö1", generator(0, 0, example)) for example in range(200)}
    assert {"1Ä1", "1L1", "1Ü1", "1P1", "1ÖÖ1"} == typed


@pytest.mark.parametrize(
    ("keyboard", "key", "near"),
    [
        ("qwerty", "a", "qwsz"),
        ("qwerty", "g", "tyfhvb"),
        ("qwerty", "P", "OL"),
        ("qwertz", "y", "asx"),
        ("qwertz", "z", "tugh"),
        ("qwertz", "ä", "üö"),
        ("qwertz", "ß", "pü"),
        ("azerty", "a", "zéq"),
        ("azerty", "m", "plù"),
        ("azerty", "é", "az"),
    ],
)
def test_neighbouring_keys_are_those_of_the_layout(keyboard: str, key: str, near: str) -> None:
    assert sorted(neighbours(keyboard)[key]) == sorted(near)


@pytest.mark.parametrize("keyboard", ["qwerty", "qwertz", "azerty"])
def test_neighbours_are_mutual(keyboard: str) -> None:
    near = neighbours(keyboard)
    assert all(key in near[other] for key in near if key.islower() for other in near[key])


def test_no_two_examples_epochs_or_seeds_share_a_stream() -> None:
    drawn = {generator(seed, epoch, n).random() for seed in (0, 1, -1) for epoch in range(10) for n in range(100)}
    assert len(drawn) == 3000
    assert generator(1, 12, 3).random() != generator(11, 2, 3).random()


def test_the_stream_of_an_example_is_the_same_in_every_process_and_version() -> None:
    assert generator(1, 2, 3).random() == 0.9510323539160889
