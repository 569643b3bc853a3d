"""How training text is varied: the kinds of `Augment`, each from a text to a text like it.

All chance comes from the generator that is handed in: the same state gives the same text, and `generator` makes
one for each example in each epoch. Words are runs without white space; the white space between them stays where
it is in the text, so that lines stay lines. Knows nothing of examples, batches or tokens; mixing in other data is
done where examples are drawn.
"""

import functools
import hashlib
import itertools
import math
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from models import synonyms
from models.configuration import Augment
from models.errors import SettingError
from models.preprocess import is_full_width, sentences
from models.synonyms import Piece, Synonyms

Vary = Callable[[str, random.Random], str]

SPAN_WORDS = 3.0
"""Mean length of a masked span (Lewis et al. 2020, BART, section 2.2)."""


def generator(seed: int, epoch: int, example: int) -> random.Random:
    """The stream of chance of one example in one epoch, whatever the batch it is in and the process that asks."""
    digest = hashlib.blake2b(f"{seed} {epoch} {example}".encode(), digest_size=16).digest()
    return random.Random(int.from_bytes(digest, "big"))


def augmenter(settings: Augment) -> Vary:
    """The kinds that are switched on, in the order of the settings, as one function; else the text itself.

    A text with a word in it never becomes empty. Reads `synonyms_file` once, here. Raises DataError for a file
    that cannot be used and SettingError for a mask of nothing.
    """
    kinds = _kinds(settings)
    if not kinds:
        return lambda text, chance: text

    def vary(text: str, chance: random.Random) -> str:
        body = text.strip()
        if not body:
            return text
        start = len(text) - len(text.lstrip())
        before, after = text[:start], text[start + len(body) :]
        for kind in kinds:
            body = kind(body, chance)
        return before + body + after

    return vary


def _kinds(settings: Augment) -> list[Vary]:
    kinds: list[Vary] = []
    if settings.sentence_order:
        kinds.append(_sometimes(settings.sentence_order, _shuffle_sentences))
    if settings.rotation:
        kinds.append(_sometimes(settings.rotation, _rotate))
    if settings.synonyms:
        kinds.append(functools.partial(_replace, settings.synonyms, synonyms.read(Path(settings.synonyms_file or ""))))
    if settings.word_dropout:
        kinds.append(functools.partial(_drop_words, settings.word_dropout))
    if settings.word_swaps:
        kinds.append(functools.partial(_swap_words, settings.word_swaps))
    if settings.word_shuffle:
        kinds.append(functools.partial(_shuffle_words, settings.word_shuffle))
    if settings.span_mask:
        if not settings.mask.strip():
            raise SettingError(
                f"augment.mask: must hold a character that is no white space, got {settings.mask!r}. "
                "Leave it out for '_'."
            )
        kinds.append(functools.partial(_mask_spans, settings.span_mask, settings.mask))
    if settings.characters:
        mistype = functools.partial(_mistype, settings.characters, neighbours(settings.keyboard))
        kinds.append(_outside(settings.mask, mistype) if settings.span_mask else mistype)
    return kinds


def _sometimes(probability: float, kind: Vary) -> Vary:
    return lambda text, chance: kind(text, chance) if chance.random() < probability else text


def _outside(mask: str, kind: Vary) -> Vary:
    """`kind` on what stands between masks, so that no mask is misspelt."""
    return lambda text, chance: mask.join(kind(part, chance) for part in text.split(mask))


_GAP = re.compile(r"(\s+)")


def _cut(text: str) -> list[str]:
    """A stripped text as word, white space, word, ... word: words at the even places."""
    return _GAP.split(text)


def _number(share: float, words: int, chance: random.Random) -> int:
    """`share * words`, rounded up or down by chance so that it is right on average."""
    return int(share * words + chance.random())


# Order ----------------------------------------------------------------------------------------------------------


def _shuffle_sentences(text: str, chance: random.Random) -> str:
    """Sentences in a random order; the white space between the first and the second place stays there, and so on."""
    found = sentences(text)
    if len(found) < 2:
        return text
    bodies = [sentence.rstrip() for sentence in found]
    gaps = [sentence[len(body) :] for sentence, body in zip(found, bodies, strict=True)]
    chance.shuffle(bodies)
    parts = [bodies[0]]
    for gap, body in zip(gaps, bodies[1:], strict=False):
        # Sentences that no space parted (Chinese, Japanese) need one where they come next to others.
        parts.append(gap or ("" if is_full_width(parts[-1]) else " "))
        parts.append(body)
    return "".join(parts)


def _rotate(text: str, chance: random.Random) -> str:
    """The text from a word drawn at random, wrapped around; the white space at the cut goes where it is wrapped."""
    gaps = list(_GAP.finditer(text))
    cut = chance.randrange(len(gaps) + 1)
    if cut == 0:
        return text
    gap = gaps[cut - 1]
    return text[gap.end() :] + gap[0] + text[: gap.start()]


def _swap_words(share: float, text: str, chance: random.Random) -> str:
    """EDA's random swap (Wei & Zou 2019, section 2): `share` times the number of words, two different places
    drawn at random change words. At most twice the share of the words has moved then."""
    parts = _cut(text)
    words = len(parts) // 2 + 1
    if words < 2:
        return text
    for _ in range(_number(share, words, chance)):
        first = int(chance.random() * words)
        second = (first + 1 + int(chance.random() * (words - 1))) % words
        parts[2 * first], parts[2 * second] = parts[2 * second], parts[2 * first]
    return "".join(parts)


def _shuffle_words(most: int, text: str, chance: random.Random) -> str:
    """Words sorted by their place plus a number drawn from [0, most + 1): none moves more than `most` places
    (Lample et al. 2018, section 2.3)."""
    parts = _cut(text)
    words = parts[::2]
    places = [place + (most + 1) * chance.random() for place in range(len(words))]
    parts[::2] = [words[place] for place in sorted(range(len(words)), key=places.__getitem__)]
    return "".join(parts)


# Words left out, masked and replaced ----------------------------------------------------------------------------


def _drop_words(share: float, text: str, chance: random.Random) -> str:
    """Each word is left out with probability `share`; one drawn at random stays where all would be."""
    parts = _cut(text)
    words = len(parts) // 2 + 1
    kept = [place for place in range(words) if chance.random() >= share]
    if len(kept) == words:
        return text
    if not kept:
        kept = [int(chance.random() * words)]
    return _joined(parts, [(place, place + 1, parts[2 * place]) for place in kept])


def _joined(parts: list[str], pieces: list[Piece]) -> str:
    """Text from pieces, each the first word it stands for, the one after the last, and what is written.

    Of the white space between two pieces that which breaks most lines is kept. A piece that stands for no word
    (an inserted mask) takes a space.
    """
    joined = [pieces[0][2]]
    for (_, end, _), (start, _, text) in itertools.pairwise(pieces):
        gaps = parts[2 * end - 1 : 2 * start : 2] if end else []
        gap = gaps[0] if len(gaps) == 1 else max(gaps, key=_lines, default=" ")
        joined += (gap, text)
    return "".join(joined)


def _lines(gap: str) -> int:
    return gap.count("\n")


def _replace(share: float, listed: Synonyms, text: str, chance: random.Random) -> str:
    parts = _cut(text)
    pieces = listed.replace(share, parts[::2], chance)
    return text if pieces is None else _joined(parts, pieces)


def _mask_spans(share: float, mask: str, text: str, chance: random.Random) -> str:
    """Text infilling (Lewis et al. 2020, BART, section 2.2): spans of Poisson(3) words, each one mask.

    Spans are drawn until they hold the share of words, the last cut to fit; a span of no word inserts a mask.
    They stand at places drawn at random and never overlap. At least one word stays.
    """
    parts = _cut(text)
    words = len(parts) // 2 + 1
    masked = min(_number(share, words, chance), words - 1)
    if masked == 0:
        return text
    lengths: list[int] = []
    left = masked
    while left > 0:
        lengths.append(min(_poisson(chance), left))
        left -= lengths[-1]
    chance.shuffle(lengths)  # the one that was cut need not be the last in the text
    units = words - masked + len(lengths)
    spans = iter(lengths)
    places = set(chance.sample(range(units), len(lengths)))
    pieces: list[Piece] = []
    place = 0
    for unit in range(units):
        length, written = (next(spans), mask) if unit in places else (1, parts[2 * place])
        pieces.append((place, place + length, written))
        place += length
    return _joined(parts, pieces)


_NO_EVENT = math.exp(-SPAN_WORDS)


def _poisson(chance: random.Random) -> int:
    """A number from the Poisson distribution with mean SPAN_WORDS, by inversion."""
    drawn = chance.random()
    number, probability = 0, _NO_EVENT
    while drawn >= probability and number < 50:  # beyond, probabilities vanish in rounding
        drawn -= probability
        number += 1
        probability *= SPAN_WORDS / number
    return number


# Characters -----------------------------------------------------------------------------------------------------

_ROWS: Mapping[str, tuple[str, ...]] = {
    "qwerty": ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm"),
    "qwertz": ("1234567890ß", "qwertzuiopü", "asdfghjklöä", "yxcvbnm"),
    "azerty": ("&é\"'(-è_çà", "azertyuiop", "qsdfghjklmù", "wxcvbn"),
}
_OFFSETS = (0.0, 0.5, 0.75, 1.25)  # where a row begins, in keys


def neighbours(keyboard: str) -> dict[str, str]:
    """By letter, the letters whose keys touch its own: on its row and on those above and below. Capitals too."""
    keys = {
        key: (row, column + _OFFSETS[row])
        for row, letters in enumerate(_ROWS[keyboard])
        for column, key in enumerate(letters)
        if key.isalpha()
    }
    near = {
        key: "".join(other for other, there in keys.items() if other != key and _touch(here, there))
        for key, here in keys.items()
    }
    capitals = {key.upper(): "".join(_capital(other) for other in others) for key, others in near.items() if key != "ß"}
    return near | capitals


def _touch(here: tuple[int, float], there: tuple[int, float]) -> bool:
    return abs(here[0] - there[0]) <= 1 and abs(here[1] - there[1]) <= 1


def _capital(letter: str) -> str:
    return letter if letter == "ß" else letter.upper()


def _mistype(share: float, near: Mapping[str, str], text: str, chance: random.Random) -> str:
    """Each letter has a typing error with probability `share`; which of those possible is drawn evenly."""
    hits = [place for place, letter in enumerate(text) if letter.isalpha() and chance.random() < share]
    if not hits:
        return text
    hit = set(hits)
    typed: list[str] = []
    done = 0
    for place in hits:
        typed.append(text[done:place])
        written, done = _typed(text, place, hit, near, chance)
        typed.append(written)
    typed.append(text[done:])
    return "".join(typed)


def _typed(text: str, place: int, hit: set[int], near: Mapping[str, str], chance: random.Random) -> tuple[str, int]:
    """What is typed for the letter at `place`, and the place after the letters that this stands for.

    The letter after it takes part only where it has no error of its own, so that the share of errors is kept.
    A letter is dropped only beside one that is typed, so that no word goes with it.
    """
    letter, after = text[place], text[place + 1 : place + 2]
    free = after.isalpha() and place + 1 not in hit
    errors = ["doubled"]
    if letter in near:
        errors.append("neighbour")
    if free or (text[place - 1 : place].isalpha() and place - 1 not in hit):
        errors.append("dropped")
    if free and after != letter:
        errors.append("swapped")
    match errors[int(chance.random() * len(errors))]:
        case "neighbour":
            return chance.choice(near[letter]), place + 1
        case "dropped":
            return "", place + 1
        case "swapped":
            return after + letter, place + 2
        case _:
            return letter + letter, place + 1
