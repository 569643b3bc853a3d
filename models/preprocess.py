"""How text is cleaned: the steps of `Preprocess`, each from text to text, put together in the order asked for.

Says too which texts a filter keeps, by what form duplicates are known, and which steps are odd for a task.
Knows nothing of files, splits or tokens: the same cleaner serves training, measuring and a served model. Light to
import; a step's library is imported when a cleaner with that step is made.

White space around a text is kept (paragraphs of running text end with their blank lines), and so are line ends
within it, unless a step says otherwise.
"""

import functools
import html as entities
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from models.configuration import Preprocess
from models.errors import SettingError, nearest

Clean = Callable[[str], str]


def cleaner(settings: Preprocess) -> Clean:
    """The steps that are switched on, as one function from text to text; the text itself where none is.

    The same text always gives the same result. A text of which nothing is left gives "". Raises SettingError for
    stop words of a language that is not known.
    """
    makers: dict[str, Callable[[], Clean] | None] = {
        "html": (lambda: _without_markup) if settings.html else None,
        "unicode": _FORMS.get(settings.unicode),
        "special_characters": _mender if settings.special_characters else None,
        "lowercase": (lambda: str.lower) if settings.lowercase else None,
        "sentences": (lambda: _one_sentence_a_line) if settings.sentences else None,
        "stop_words": None if settings.stop_words is None else lambda: _remover(stop_words(settings.stop_words or "")),
        "punctuation": _punctuation_remover if settings.punctuation else None,
        "words": _separator if settings.words else None,
    }
    steps = [make() for name in settings.order if (make := makers[name])]
    return _chain(steps, spaces_too=settings.special_characters) if steps else _unchanged


def _unchanged(text: str) -> str:
    return text


def _chain(steps: Sequence[Clean], *, spaces_too: bool) -> Clean:
    """The steps in turn on what stands between a text's outer white space.

    spaces_too: whether the outer white space is cleaned as well: only its line ends stay.
    """

    def clean(text: str) -> str:
        body = text.strip()
        start = len(text) - len(text.lstrip())
        before, after = text[:start], text[start + len(body) :]
        for step in steps:
            body = step(body)
        body = body.strip()
        if not body:
            return ""
        if spaces_too:
            before, after = "\n" * before.count("\n"), "\n" * after.count("\n")
        return before + body + after

    return clean


# html -----------------------------------------------------------------------------------------------------------

_MARKUP = re.compile(
    r"""<!--.*?-->
      | <!\[CDATA\[ (?P<raw>.*?) \]\]>
      | <[!?][a-zA-Z][^<>]*>
      | <(?P<closing>/?)(?P<name>[a-zA-Z][\w-]*(?::[a-zA-Z][\w-]*)?) (?P<rest>(?:[\s/](?:"[^"<]*"|'[^'<]*'|[^"'<>])*)?)>
      | <""",
    re.DOTALL | re.VERBOSE,
)
_PARAGRAPHS = re.compile("blockquote|dl|figure|h[1-6]|hr|ol|p|pre|table|title|ul")
_LINES = re.compile(
    "address|article|aside|body|caption|center|dd|details|dialog|div|dt|fieldset|figcaption|footer|form|head|header|"
    "html|legend|li|main|nav|option|section|select|summary|tbody|textarea|tfoot|thead|tr"
)
_ONE_LETTER = frozenset("abipqsu")
_PARAGRAPH, _LINE = "\x1d", "\x1e"  # control characters that no text needs; white space to `re` and `str`
_BREAKS = re.compile(rf"(?<!\s)\s*[{_PARAGRAPH}{_LINE}][\s{_PARAGRAPH}{_LINE}]*")


def _without_markup(text: str) -> str:
    """The text that a page shows. A `<` that opens no tag stays, so `a < b` and `x<y and y>z` are text.

    Paragraphs are set apart by a blank line, other blocks and <br> by a line end, table cells by a space; inline
    tags go without a trace. A <script> that is never closed takes all that follows with it, as in a browser.
    """
    if "<" in text:
        text = _MARKUP.sub(_marked, text)
        if "<" in text:
            from bs4 import BeautifulSoup

            soup = BeautifulSoup(text, "html.parser")
            for element in soup(["script", "style", "template"]):
                element.decompose()
            text = soup.get_text()
        else:  # Beautiful Soup would take what is left for the name of a file
            text = entities.unescape(text)
        return _BREAKS.sub(lambda found: "\n\n" if _PARAGRAPH in found[0] else "\n", text)
    return entities.unescape(text) if "&" in text else text


def _marked(found: re.Match[str]) -> str:
    """A tag with the white space it stands for, nothing for comments and declarations, `&lt;` for a mere `<`."""
    if found["raw"] is not None:
        return entities.escape(found["raw"])
    if found["name"] is None:
        return "" if len(found[0]) > 1 else "&lt;"
    name, rest = found["name"].lower(), found["rest"]
    if len(name) == 1 and (name not in _ONE_LETTER or (rest.strip(" /\n\t") and "=" not in rest)):
        return found[0].replace("<", "&lt;")  # n<m and m>0: no tag of one letter has an attribute without a value
    if name == "br":
        return "\n"
    if name in ("td", "th"):
        return found[0] if found["closing"] else " " + found[0]
    mark = _PARAGRAPH if _PARAGRAPHS.fullmatch(name) else _LINE if _LINES.fullmatch(name) else ""
    return found[0] + mark if found["closing"] else mark + found[0]


# characters -----------------------------------------------------------------------------------------------------

_DASHES = str.maketrans({**dict.fromkeys("‐‑‒–−﹘﹣－", "-"), **dict.fromkeys("—―", " - ")})
# Joiners stay within scripts that spell with them (Persian, Hindi) and in emoji.
_INVISIBLE = re.compile(
    "[\u00ad\u180e\u200b\u200e\u200f\u2060\ufeff]|(?<![\u0590-\u1fff\u2190-\U0010ffff])[\u200c\u200d]"
)
_SPACES = re.compile(r"[^\S\n]+")
_SPACES_AT_LINE_ENDS = re.compile(r" ?\n ?")


_FORMS: Mapping[str, Callable[[], Clean]] = {
    "nfc": lambda: functools.partial(unicodedata.normalize, "NFC"),
    "nfkc": lambda: functools.partial(unicodedata.normalize, "NFKC"),
}


def _mender() -> Clean:
    """Wrong decodings mended, quotation marks and dashes straight, nothing invisible, single spaces.

    A dash as long as a word's pause (—) becomes ` - `, shorter ones a hyphen. Line ends stay, as \\n; guillemets,
    ligatures and wide letters are characters like others (`unicode: nfkc` changes the latter two).
    """
    import ftfy

    config = ftfy.TextFixerConfig(
        unescape_html=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        normalization=None,
        explain=False,
    )

    def mend(text: str) -> str:
        text = _INVISIBLE.sub("", ftfy.fix_text(text, config)).translate(_DASHES)
        return _SPACES_AT_LINE_ENDS.sub("\n", _SPACES.sub(" ", text))

    return mend


# sentences ------------------------------------------------------------------------------------------------------

_ODD_SPACE = re.compile(r"[^\S\n]|[\ud800-\udfff]")


def sentences(text: str) -> list[str]:
    """The sentences of `text`, each with the white space after it: put together they are the text again.

    By the rules of sentencex for English, which know abbreviations and initials and split text in lower case as
    well; other languages' ordinals (`3. Mai`) are taken for ends. A blank line ends a sentence, a line end alone
    does not.
    """
    from sentencex import segment

    # sentencex 1.0.32 panics at an initial before a white space of several bytes ("J.\u00a0K."), and cannot read
    # half a surrogate pair; lengths stay, so its pieces are cut from the text as it is.
    found: list[str] = []
    start = 0
    for length in map(len, segment("en", _ODD_SPACE.sub(" ", text))):
        piece = text[start : start + length]
        start += length
        body = piece.lstrip()
        if not found:
            found.append(piece)
        elif not found[-1].strip() or not (body != piece or found[-1][-1].isspace() or is_full_width(found[-1])):
            found[-1] += piece  # "U.S.Army": no end without white space
        else:
            found[-1] += piece[: len(piece) - len(body)]
            if body:
                found.append(body)
    return found


def is_full_width(sentence: str) -> bool:
    """Whether a sentence ends with a stop after which no space is needed (Chinese, Japanese)."""
    return sentence.rstrip("」』”’）)\"'")[-1:] in tuple("。！？｡．")


def _one_sentence_a_line(text: str) -> str:
    """A sentence that was spread over lines is put on one; blank lines stay."""
    lines = []
    for sentence in sentences(text):
        body = sentence.rstrip()
        lines.append(" ".join(body.splitlines()) + ("\n\n" if sentence.count("\n", len(body)) > 1 else "\n"))
    return "".join(lines)


# stop words and punctuation -------------------------------------------------------------------------------------

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_GONE = "\x00"
_GAPS = re.compile(rf"(?<![^\S\n])[^\S\n]*{_GONE}(?:[^\S\n]|{_GONE})*")


def stop_words(codes: str) -> frozenset[str]:
    """The stop words, in case-folded form, of the languages in `codes`: ISO 639-1, separated by commas.

    The lists of the package stop-words, 94 to 420 words (Vietnamese: 1943). Raises SettingError for other codes.
    """
    from stop_words import LANGUAGE_MAPPING, get_stop_words

    known = {"cs" if code == "cz" else code: name for code, name in LANGUAGE_MAPPING.items()}
    words: set[str] = set()
    for code in (code.strip().lower() for code in codes.split(",")):
        if code not in known:
            raise SettingError(
                f"preprocess.stop_words: must be codes of languages separated by commas, got {code!r}."
                f"{nearest(code, known)} Known: {', '.join(sorted(known))}."
            )
        words.update(word.casefold() for word in get_stop_words(known[code]))
    return frozenset(words - {""})


def _remover(words: frozenset[str]) -> Clean:
    """Takes `words` out. Words joined by hyphen or apostrophe are one: `state-of-the-art` stays whole.

    Punctuation stays, but no space before it where a word has gone.
    """

    def judge(found: re.Match[str]) -> str:
        return _GONE if found[0].casefold().replace("’", "'") in words else found[0]

    return lambda text: _GAPS.sub(_gap, _WORD.sub(judge, text.replace(_GONE, " ")))


def _gap(found: re.Match[str]) -> str:
    """What stands where something has gone: a space between words, nothing at a line's edge or inside brackets."""
    text, start, end = found.string, found.start(), found.end()
    edge = start == 0 or end == len(text) or text[start - 1] in "\n([{" or text[end] in "\n)]},.;:!?"
    return "" if edge else " "


@functools.cache
def _punctuation() -> Any:
    """Unicode's punctuation (categories P*), but an apostrophe within a word and a sign within a number."""
    import regex

    kept = r"(?<=[\p{L}\p{M}])['’](?=\p{L})|(?<=\p{Nd})[.,:](?=\p{Nd})"
    return regex.compile(rf"(?:{kept})(*SKIP)(*FAIL)|\p{{P}}")


def _punctuation_remover() -> Clean:
    """Takes punctuation out: each sign becomes a space, runs of spaces that it makes become one.

    So `and/or` is `and or`, while `don't` and `3.50` stay. Symbols (`$`, `+`, `<`, emoji) are no punctuation; `%`,
    `&`, `@`, `#`, `*` and `_` are.
    """
    pattern = _punctuation()
    return lambda text: _GAPS.sub(_gap, pattern.sub(_GONE, text.replace(_GONE, " ")))


def _separator() -> Clean:
    """Puts spaces between words and punctuation as the Moses tokeniser does for English; lines stay lines.

    Letters of several code points are composed first (NFC), since Moses would take them apart.
    """
    from sacremoses import MosesTokenizer

    moses: Any = MosesTokenizer("en")

    def separate(line: str) -> str:
        # Moses takes off a full stop at the end of what it is given, so it is given sentences.
        parts = (moses.tokenize(sentence, escape=False, return_str=True) for sentence in sentences(line))
        return " ".join(part for part in parts if part)

    return lambda text: "\n".join(map(separate, unicodedata.normalize("NFC", text).split("\n")))


# filters --------------------------------------------------------------------------------------------------------


@functools.cache
def _letters() -> Any:
    import regex

    return regex.compile(r"(?:\p{L}\p{M}*|\p{N})+")


def key(text: str) -> str:
    """The form by which duplicates are known: letters (with their marks) and digits, compatible forms as one
    (NFKC), without case. The text itself, stripped, where it has neither."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(_letters().findall(plain)) or text.strip()


def keeps(settings: Preprocess, text: str) -> bool:
    """Whether a cleaned text has as many words (runs without white space) as the filters ask for."""
    if settings.min_words == 0 and settings.max_words is None:
        return True
    words = len(text.split())
    return words >= settings.min_words and (settings.max_words is None or words <= settings.max_words)


# cautions -------------------------------------------------------------------------------------------------------

_READ_OR_WRITTEN = {
    "language modelling": "a language model that never sees {} cannot write {}",
    "translation": "a translation must render {} of the source, and the model would never see {}",
    "chat": "a reply can depend on {} in what the user says, and the model would never see {}",
    "preference": "which reply is better can depend on {}, and the model would never see {}",
}


def cautions(settings: Preprocess, task: str) -> list[str]:
    """One sentence for each step that is allowed but seldom makes sense for a task.

    task: language modelling, translation, classification, chat or preference.
    """
    found = []
    if settings.stop_words is not None:
        found.append(_caution("stop_words", task, "function words", "them"))
    if settings.punctuation:
        found.append(_caution("punctuation", task, "punctuation", "it"))
    if settings.lowercase and task != "classification":
        found.append(_caution("lowercase", task, "capitals", "them"))
    if settings.stop_words is not None and task == "classification":
        found.append("preprocess.stop_words: the lists hold negations such as `not`, which a sentiment can turn on.")
    if settings.words and task != "classification":
        found.append(
            "preprocess.words: meant for tokenizers that cut at spaces; bpe and pretrained ones find words themselves "
            "and learn from the spaces of plain text."
        )
    lossy = [step for step in ("stop_words", "punctuation", "lowercase") if getattr(settings, step)]
    if lossy and task == "language modelling":
        found.append(
            f"preprocess.{lossy[0]}: the loss is measured on cleaned text, so compare it only between trials that "
            "clean alike."
        )
    return [sentence for sentence in found if sentence] + _order_cautions(settings)


def _caution(step: str, task: str, what: str, it: str) -> str:
    """The sentence for a step that takes `what` away, or "" where the task can do without."""
    reason = _READ_OR_WRITTEN.get(task)
    return f"preprocess.{step}: {reason.format(what, it)}." if reason else ""


def _order_cautions(settings: Preprocess) -> list[str]:
    on = [step for step in settings.order if getattr(settings, step) not in (False, None, "none")]
    reasons = {
        ("punctuation", "sentences"): "without punctuation hardly an end of a sentence is found",
        ("special_characters", "html"): "entities become special characters only after those were mended",
        ("words", "stop_words"): "`don't` is in two pieces by then and no longer in the list",
    }
    if settings.unicode == "nfkc":
        reasons["unicode", "special_characters"] = "nfkc makes wrongly decoded text impossible to mend (™ becomes tm)"
    return [
        f"preprocess.order: {first} comes before {second}, but {reason}."
        for (first, second), reason in reasons.items()
        if first in on and second in on and on.index(first) < on.index(second)
    ]
