"""How German words bend: nouns by case, adjectives by article, verbs by person, numbers in words.

Covers what the generated appointments need, no more. Knows no vocabulary and no sentences.
"""

from dataclasses import dataclass
from typing import Literal

Case = Literal["nominative", "accusative", "dative"]
Person = Literal["ich", "du", "er", "wir", "sie"]
"""By the German pronoun; `er` stands for every third person singular, `sie` for the plural."""


@dataclass(frozen=True)
class Noun:
    """english, german: in the singular. gender: m, f or n. weak: the form with -n in the other cases of a weak
    masculine noun, else empty."""

    english: str
    german: str
    gender: Literal["m", "f", "n"]
    weak: str = ""

    def inflected(self, case: Case) -> str:
        return self.weak if self.weak and case != "nominative" else self.german


@dataclass(frozen=True)
class Verb:
    """A verb and what follows it.

    english: the infinitive, `{}` where the object stands. third: third person singular. forms: German ich, du,
    er; wir and sie have the infinitive's form. stem: the infinitive without `prefix`, the part that a
    separable verb sends to the end. case: of the object. preposition: before the object, or empty.
    """

    english: str
    third: str
    forms: tuple[str, str, str]
    stem: str
    prefix: str = ""
    case: Case = "accusative"
    preposition: str = ""

    def german(self, person: Person) -> str:
        return dict(zip(("ich", "du", "er"), self.forms, strict=True)).get(person, self.stem)


@dataclass(frozen=True)
class Modal:
    """english: with `cannot` for a negation. third: third person singular. forms: German ich, du, er, wir."""

    english: str
    third: str
    forms: tuple[str, str, str, str]
    negated: bool = False

    def german(self, person: Person) -> str:
        return dict(zip(("ich", "du", "er", "wir"), self.forms, strict=True)).get(person, self.forms[3])


ENGLISH_NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
GERMAN_NUMBERS = (
    *("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf"),
    *("dreizehn", "vierzehn", "fünfzehn", "sechzehn", "siebzehn", "achtzehn", "neunzehn"),
)
ENGLISH_TENS = ("", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
GERMAN_TENS = ("", "zehn", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig")


def english_number(number: int) -> str:
    """1 to 99 in words."""
    tens, ones = divmod(number, 10)
    if number < 20:
        return ENGLISH_NUMBERS[number]
    return f"{ENGLISH_TENS[tens]}-{ENGLISH_NUMBERS[ones]}" if ones else ENGLISH_TENS[tens]


def german_number(number: int) -> str:
    """1 to 99 in words."""
    tens, ones = divmod(number, 10)
    if number < 20:
        return GERMAN_NUMBERS[number]
    return f"{'ein' if ones == 1 else GERMAN_NUMBERS[ones]}und{GERMAN_TENS[tens]}" if ones else GERMAN_TENS[tens]


ARTICLES = {
    "the": {"m": ("der", "den", "dem"), "f": ("die", "die", "der"), "n": ("das", "das", "dem")},
    "my": {"m": ("mein", "meinen", "meinem"), "f": ("meine", "meine", "meiner"), "n": ("mein", "mein", "meinem")},
    "our": {
        "m": ("unser", "unseren", "unserem"),
        "f": ("unsere", "unsere", "unserer"),
        "n": ("unser", "unser", "unserem"),
    },
    "a": {"m": ("ein", "einen", "einem"), "f": ("eine", "eine", "einer"), "n": ("ein", "ein", "einem")},
}
"""German articles by the English one and the gender: nominative, accusative, dative."""


def german_phrase(article: str, adjective: str, noun: Noun, case: Case) -> str:
    """Article, adjective (or empty) and noun in a case, such as `meinen alten Nachbarn`."""
    column = ("nominative", "accusative", "dative").index(case)
    words = [ARTICLES[article][noun.gender][column], noun.inflected(case)]
    if adjective:
        words.insert(1, adjective.removesuffix("e") + _ending(article, noun.gender, case))
    return " ".join(words)


def _ending(article: str, gender: str, case: Case) -> str:
    """Of an adjective: weak after the definite article, mixed after the others."""
    if case == "dative" or (case == "accusative" and gender == "m"):
        return "en"
    return "e" if article == "the" or gender == "f" else "er" if gender == "m" else "es"
