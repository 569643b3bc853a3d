"""Cleaning: each step on real cases, the order of steps, filters, duplicates, cautions."""

import random
import subprocess
import sys
from typing import Any

import pytest

from models.configuration import Preprocess
from models.configuration.data import STEPS
from models.errors import SettingError
from models.preprocess import cautions, cleaner, keeps, key, sentences


def clean(text: str, **settings: Any) -> str:
    return cleaner(Preprocess(**settings))(text)


def order(*first: str) -> tuple[str, ...]:
    return (*first, *(step for step in STEPS if step not in first))


def test_without_a_step_a_text_stays_as_it_is() -> None:
    text = " \t<b>Don’t</b>\u200b  stop \r\n\n"
    assert clean(text) is text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Great film.<br /><br />I liked it.", "Great film.\n\nI liked it."),
        ("<p>One</p><p>Two", "One\n\nTwo"),
        ("<ul><li>tea</li><li>milk</li></ul>", "tea\nmilk"),
        ("<div>a</div><div>b</div>", "a\nb"),
        ("wo<b>r</b>d and <A HREF='x?a=1&b=2'>link</A>", "word and link"),
        ('<img alt="a > b">seen<hr>below', "seen\n\nbelow"),
        ("<table><tr><td>1</td><td>2</td></tr><tr><td>3</td></tr></table>", "1 2\n3"),
        ("x<script>if (a<b && c>d) alert('<p>')</script>y<STYLE>p {}</STYLE>z", "xyz"),
        ("a <!-- <b> hidden -- > --> b", "a  b"),
        ("<!DOCTYPE html><html><head><title>T</title></head><body>B</body></html>", "T\n\nB"),
        ('<?xml version="1.0"?><note>hi</note>', "hi"),
        ("<![CDATA[1 < 2 & <b>]]>", "1 < 2 & <b>"),
        ("Fish &amp; chips &lt;b&gt; &#233;&eacute;&#x20AC;", "Fish & chips <b> éé€"),
        ("&amp;lt;", "&lt;"),
        ("if a < b and c > d", "if a < b and c > d"),
        ("x<y and y>z, i<n", "x<y and y>z, i<n"),
        ("a<b and c>d, <3 and <- or <http://a.org> <<", "a<b and c>d, <3 and <- or <http://a.org> <<"),
        ("1 <2 <b>bold</b>", "1 <2 bold"),
        ("<p>unclosed <i>all <b>over", "unclosed all over"),
        ("https://example.org/a.html", "https://example.org/a.html"),
        ("<b></b>index.html", "index.html"),
        ("a <!-- never closed", "a <!-- never closed"),
        ("<svg:path d='1'/>x<my-tag>y</my-tag>", "xy"),
        ("first\n\nsecond, no tag", "first\n\nsecond, no tag"),
        ("<p></p>", ""),
    ],
)
def test_html_leaves_the_text_that_a_page_shows(text: str, expected: str) -> None:
    assert clean(text, html=True) == expected


def test_html_is_linear_in_hostile_markup() -> None:
    for text in ("<" * 20_000, "<a " * 20_000, '<a "' * 20_000, " " * 50_000 + "<b>x", "<p>" * 5_000):
        clean("x" + text + "y", html=True)


@pytest.mark.parametrize(("form", "expected"), [("nfc", "é ﬁ ²"), ("nfkc", "é fi 2")])
def test_unicode_is_normalised(form: str, expected: str) -> None:
    assert clean("e\u0301 ﬁ ²", unicode=form) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("schÃ¶n, donâ€™t", "schön, don't"),
        ("“curly” ‘quotes’ „unten“ ‚so‘", "\"curly\" 'quotes' \"unten\" 'so'"),
        ("1914–1918, well‑known, word—word, − 5", "1914-1918, well-known, word - word, - 5"),
        ("a\u200bb\ufeffc\u00add\u2060e\x07f\x1b[31mg", "abcdefg"),
        ("in\u200dter\u200cnal", "internal"),
        ("می\u200cخواهم 👨\u200d👩\u200d👧", "می\u200cخواهم 👨\u200d👩\u200d👧"),
        ("a \t\u00a0 b", "a b"),
        ("one  \r\n\t two\n\n\nthree", "one\ntwo\n\n\nthree"),
        ("ﬁne &amp; Ａ «so»", "ﬁne &amp; Ａ «so»"),
    ],
)
def test_special_characters_are_mended(text: str, expected: str) -> None:
    assert clean(text, special_characters=True) == expected


def test_white_space_around_a_text_stays_so_that_paragraphs_do_not_run_together() -> None:
    assert clean("  A.\t\n\n", lowercase=True) == "  a.\t\n\n"
    assert clean("  A.\t\n\n", special_characters=True) == "A.\n\n"
    assert clean("The\n\n", stop_words="en") == ""


def test_sentences_take_a_line_each() -> None:
    text = 'Dr. Smith, e.g., paid $3.50. He\nsaid: "Stop! Now." Then? He left.\n\nA new one.\n'
    expected = 'Dr. Smith, e.g., paid $3.50.\nHe said: "Stop! Now."\nThen?\nHe left.\n\nA new one.\n'
    assert clean(text, sentences=True) == expected


@pytest.mark.parametrize(
    "odd", ["J.\u00a0K. Rowling", "A.\u2028B", "half \ud800. Pair.", "これは。次の。", "Äh.So x.Y"]
)
def test_sentences_put_together_are_the_text(odd: str) -> None:
    chance = random.Random(0)
    assert "".join(sentences(odd)) == odd
    for _ in range(500):
        text = "".join(chance.choices("aBÄ .!?\n。'\")\u00a0\u2028\r\t1…", k=chance.randint(0, 30))) + odd
        assert "".join(sentences(text)) == text


def test_a_sentence_does_not_end_without_white_space_but_in_chinese_and_japanese() -> None:
    assert sentences("Ăħȍ.Bar foo.") == ["Ăħȍ.Bar foo."]
    assert sentences("これは文です。次の文です。") == ["これは文です。", "次の文です。"]


@pytest.mark.parametrize(
    ("codes", "text", "expected"),
    [
        ("en", "The cat and the dog, who isn’t here, sat.", "cat dog,, sat."),
        ("en", "It was state-of-the-art (the best).", "state-of-the-art (best)."),
        ("en", "THE\nend of it\nAnd more", "\nend\n"),
        ("de", "Der Hund und die Katze, aber nicht über Nacht.", "Hund Katze, Nacht."),
        ("de , EN", "Der Hund is the dog", "Hund dog"),
        ("cs", "ale Praha", "Praha"),
    ],
)
def test_stop_words_are_removed(codes: str, text: str, expected: str) -> None:
    assert clean(text, stop_words=codes) == expected.strip()


def test_important_words_are_no_stop_words() -> None:
    text = "important interesting information microsoft 10"
    assert clean(text, stop_words="en") == text


@pytest.mark.parametrize("codes", ["xx", "en,", "deu"])
def test_stop_words_of_an_unknown_language_are_an_error_with_the_known_ones(codes: str) -> None:
    with pytest.raises(SettingError, match=r"^preprocess\.stop_words: .*Known: ar, bg, .*cs.*, vi\.$"):
        cleaner(Preprocess(stop_words=codes))


def test_the_nearest_language_is_proposed() -> None:
    with pytest.raises(SettingError, match=r"got 'enn'\. Did you mean 'en'"):
        cleaner(Preprocess(stop_words="enn"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('He said, "don’t" – and/or: go!', "He said don’t and or go"),
        ("It cost $3.50 (1,000 + 5%) at 12:30.", "It cost $3.50 1,000 + 5 at 12:30"),
        ("'quoted' dogs' rock'n'roll", "quoted dogs rock'n'roll"),
        ("well-known; line.\n- item\n", "well known line\nitem\n"),
        ("¿Qué? «Oui» 。と、", "Qué Oui と"),
        ("a  b", "a  b"),
        ("...", ""),
    ],
)
def test_punctuation_is_removed_but_within_words_and_numbers(text: str, expected: str) -> None:
    assert clean(text, punctuation=True) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('Don\'t say "hello, world". It is $3.50.', 'Don \'t say " hello , world " . It is $ 3.50 .'),
        ("went home. and slept.\nThe U.S. & co", "went home . and slept .\nThe U.S. & co"),
        ("cafe\u0301 <s> [x] a|b", "café < s > [ x ] a | b"),
    ],
)
def test_words_stand_apart(text: str, expected: str) -> None:
    assert clean(text, words=True) == expected


def test_words_keep_every_letter() -> None:
    text = "नमस्ते दुनिया السلام عليكم Straße naïve 日本語"
    assert clean(text, words=True).replace(" ", "") == text.replace(" ", "")


def test_the_order_of_steps_is_that_of_the_settings() -> None:
    on = {"html": True, "special_characters": True}
    assert clean("a&nbsp;&ldquo;b&rdquo;", **on) == 'a "b"'
    assert clean("a&nbsp;&ldquo;b&rdquo;", **on, order=order("special_characters", "html")) == "a\u00a0“b”"

    split = {"punctuation": True, "sentences": True}
    assert clean("One. Two.", **split) == "One\nTwo"
    assert clean("One. Two.", **split, order=order("punctuation", "sentences")) == "One Two"


def test_stop_words_are_known_before_and_after_lower_case() -> None:
    on = {"lowercase": True, "stop_words": "en,de"}
    for first in (("lowercase", "stop_words"), ("stop_words", "lowercase")):
        assert clean("The Cat UND The Dog", **on, order=order(*first)) == "cat dog"


def test_all_steps_together_clean_a_real_mess() -> None:
    everything = Preprocess(
        html=True,
        unicode="nfkc",
        special_characters=True,
        lowercase=True,
        sentences=True,
        stop_words="en",
        punctuation=True,
        words=True,
        order=order("html", "special_characters", "unicode"),  # type: ignore[arg-type]
    )
    text = "<p>The ﬁlm wasnâ€™t bad&hellip;</p><p>I paid&nbsp;$9.50 – “worth it”! See more.</p>\n\n"
    assert cleaner(everything)(text) == "film bad\n\npaid $ 9.50 worth\nsee\n\n"


def test_cleaning_twice_changes_nothing_more_where_steps_only_take_away() -> None:
    chance = random.Random(1)
    on = cleaner(Preprocess(special_characters=True, lowercase=True, punctuation=True))
    for _ in range(300):
        text = "".join(chance.choices("thea it's  .,-\n\t(“”)é5", k=40))
        once = on(text)
        assert on(once) == once, text


def test_any_text_can_be_cleaned_by_all_steps() -> None:
    chance = random.Random(2)
    settings = dict.fromkeys(STEPS, True) | {"unicode": "nfkc", "stop_words": "en"}
    on = cleaner(Preprocess(**settings))  # type: ignore[arg-type]
    alphabet = "aB .!?\n<>&;/'\"-()#=\x00\x1d\x1e\x85\u00a0\u200d\ufeff\ud800é日👨" + "".join(
        map(chr, range(0x2000, 0x2070))
    )
    for _ in range(400):
        on("".join(chance.choices(alphabet, k=60)))


@pytest.mark.parametrize(
    "same", ["hello world", "HELLO, World!", " hello\nworld ", "ｈｅｌｌｏ　world", "“Hello” — WORLD…"]
)
def test_a_text_is_a_duplicate_but_for_case_punctuation_and_spaces(same: str) -> None:
    assert key(same) == "helloworld"


@pytest.mark.parametrize(
    ("one", "other"),
    [("hello 1", "hello 2"), ("!!!", "???"), ("❤️", "☀️"), ("कि", "की"), ("resume", "résumé"), ("", "-")],
)
def test_other_texts_are_no_duplicates(one: str, other: str) -> None:
    assert key(one) != key(other)


def test_composed_and_decomposed_letters_and_sharp_s_are_the_same() -> None:
    assert key("STRASSE é") == key("Straße e\u0301")


@pytest.mark.parametrize(
    ("words", "low", "high", "kept"),
    [(0, 0, None, True), (2, 3, None, False), (3, 3, 3, True), (4, 0, 3, False), (0, 1, None, False)],
)
def test_filters_count_words(words: int, low: int, high: int | None, kept: bool) -> None:
    assert keeps(Preprocess(min_words=low, max_words=high), " word\n" * words) is kept


def test_plain_settings_need_no_caution() -> None:
    harmless = Preprocess(html=True, unicode="nfc", special_characters=True, sentences=True)
    for task in ("language modelling", "translation", "classification", "chat", "preference"):
        assert cautions(harmless, task) == []


@pytest.mark.parametrize("task", ["language modelling", "translation", "chat", "preference"])
def test_what_takes_away_from_a_generating_task_is_cautioned_against(task: str) -> None:
    settings = Preprocess(stop_words="en", punctuation=True, lowercase=True, words=True)
    found = cautions(settings, task)
    for step in ("stop_words", "punctuation", "lowercase", "words"):
        assert any(sentence.startswith(f"preprocess.{step}: ") for sentence in found), step
    assert all(sentence.endswith(".") and "{" not in sentence for sentence in found)


def test_a_classifier_is_cautioned_against_losing_negations_only() -> None:
    (found,) = cautions(Preprocess(stop_words="en", punctuation=True, lowercase=True, words=True), "classification")
    assert "`not`" in found
    assert clean("not", stop_words="en") == ""


def test_an_order_that_defeats_a_step_is_cautioned_against() -> None:
    steps = order("punctuation", "unicode", "special_characters", "words")
    on = Preprocess(
        **dict.fromkeys(("html", "special_characters", "punctuation", "sentences", "words"), True),
        unicode="nfkc",
        stop_words="en",
        order=steps,
    )
    assert [sentence.split(",")[0] for sentence in cautions(on, "translation") if ".order" in sentence] == [
        "preprocess.order: punctuation comes before sentences",
        "preprocess.order: special_characters comes before html",
        "preprocess.order: words comes before stop_words",
        "preprocess.order: unicode comes before special_characters",
    ]


def test_no_library_is_imported_before_a_step_needs_it() -> None:
    program = (
        "import sys, models.augment, models.preprocess\n"
        "heavy = {'bs4', 'ftfy', 'regex', 'sacremoses', 'sentencex', 'stop_words', 'numpy', 'torch'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
