"""A file of synonyms, and the replacement of words and phrases by them.

Knows words as a list, not the text they stand in; when texts are varied is said by `augment`.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from models.errors import DataError

Piece = tuple[int, int, str]
"""The first of the words that a piece of text stands for, the one after the last, and what is written."""

AROUND_WORDS = ".,;:!?…\"'“”„‘’«»()[]{}"


class _Word(NamedTuple):
    """A word between the punctuation around it. key: case-folded."""

    before: str
    core: str
    after: str
    key: str


@dataclass(frozen=True)
class Synonyms:
    """alternatives: by phrase (case-folded, single spaces), what may stand for it, without the phrase itself.
    longest: by the first word of phrases, the number of words of the longest. words: all words of phrases."""

    alternatives: Mapping[str, tuple[str, ...]]
    longest: Mapping[str, int]
    words: frozenset[str]

    def replace(self, share: float, words: Sequence[str], chance: random.Random) -> list[Piece] | None:
        """A synonym, drawn at random, in the place of each phrase that has one, with probability `share`.

        The longest phrase that fits is taken. Punctuation around a phrase stays, none may stand within it; a
        capital at its beginning stays. None where no word is listed.
        """
        read = [self._word(word) for word in words]
        if self.words.isdisjoint(word.key for word in read):
            return None
        pieces: list[Piece] = []
        place = 0
        while place < len(read):
            length = self._phrase(read, place)
            if length and chance.random() < share:
                pieces.append((place, place + length, self._drawn(read[place : place + length], chance)))
            else:
                length = max(length, 1)
                pieces += [(here, here + 1, words[here]) for here in range(place, place + length)]
            place += length
        return pieces

    def _word(self, written: str) -> _Word:
        """A word listed with its punctuation (`e.g.`) is taken as it is."""
        key = written.casefold()
        if key in self.words:
            return _Word("", written, "", key)
        core = written.strip(AROUND_WORDS)
        start = written.find(core)
        return _Word(written[:start], core, written[start + len(core) :], core.casefold())

    def _phrase(self, words: Sequence[_Word], place: int) -> int:
        """Words of the longest phrase that begins at `place`; 0 where none does."""
        longest = self.longest.get(words[place].key)
        if longest is None:
            return 0
        for length in range(min(longest, len(words) - place), 0, -1):
            phrase = words[place : place + length]
            unbroken = not any(word.after for word in phrase[:-1]) and not any(word.before for word in phrase[1:])
            if unbroken and " ".join(word.key for word in phrase) in self.alternatives:
                return length
        return 0

    def _drawn(self, phrase: Sequence[_Word], chance: random.Random) -> str:
        synonym = chance.choice(self.alternatives[" ".join(word.key for word in phrase)])
        if phrase[0].core[0].isupper():
            synonym = synonym[0].upper() + synonym[1:]
        return phrase[0].before + synonym + phrase[-1].after


def read(path: Path) -> Synonyms:
    """The file's groups: a phrase that is in several has the alternatives of all. Blank lines are left out.

    Raises DataError, with the line, for what cannot be read, is not UTF-8, or has fewer than two alternatives.
    """
    try:
        lines = path.expanduser().read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise DataError(
            f"augment.synonyms_file: cannot read {str(path)!r}: {error.strerror}. Give a text file that is there."
        ) from error
    alternatives: dict[str, dict[str, str]] = {}
    for number, line in enumerate(lines, 1):
        group = _group(line, f"augment.synonyms_file: {path}:{number}")
        for phrase in group:
            others = alternatives.setdefault(phrase, {})
            others.update((key, other) for key, other in group.items() if key != phrase)
    if not alternatives:
        raise DataError(f"augment.synonyms_file: {path}: must have words in it, got an empty file. Give another.")
    longest: dict[str, int] = {}
    for phrase in alternatives:
        words = phrase.split()
        longest[words[0]] = max(longest.get(words[0], 1), len(words))
    return Synonyms(
        {phrase: tuple(others.values()) for phrase, others in alternatives.items()},
        longest,
        frozenset(word for phrase in alternatives for word in phrase.split()),
    )


def _group(line: bytes, where: str) -> dict[str, str]:
    """One line's phrases by their case-folded form; none of a blank line. where: for the message."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: must be UTF-8, got byte 0x{line[error.start]:02x} at byte {error.start + 1} of the line. "
            "Save the file as UTF-8."
        ) from error
    phrases = [" ".join(phrase.split()) for phrase in text.split(",")]
    group = {phrase.casefold(): phrase for phrase in phrases if phrase}
    if text.strip() and len(group) < 2:
        raise DataError(
            f"{where}: must hold at least two different alternatives separated by commas, got {text.strip()!r}. "
            "Add one or take the line out."
        )
    return group
