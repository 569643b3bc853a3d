"""Appointments in English and German: a small generated grammar to learn translation from.

Every pair is correct, and the German cannot be had word by word: cases and genders, separable verbs, the verb
second, first or last, relative clauses, time before place, `half past four` against `halb fünf`, pm against 24
hours, `twenty-one` against `einundzwanzig`. Not a benchmark and not natural text: under a thousand words a
language, many of them rare, and one translation for each sentence. Knows nothing of splits.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from models.samples import lexicon
from models.samples.german import ARTICLES, Case, Noun, Person, Verb, english_number, german_number, german_phrase

T = TypeVar("T")

PAIRS = 4_000
LENGTHS = range(5, 21)
"""Words a side, white space between them."""

Pair = tuple[str, str]
"""The same in English and German."""


@dataclass(frozen=True)
class Party:
    """Somebody who acts or is acted upon.

    subject: English and German. forms: English, German accusative and dative as object. names: whom it is about,
    in English. relative: the German pronoun that a relative clause starts with; empty where there can be none.
    """

    subject: Pair
    person: Person
    forms: tuple[str, str, str]
    names: frozenset[str]
    pronoun: bool = False
    relative: str = ""

    def german_object(self, case: Case) -> str:
        return self.forms[1 if case == "accusative" else 2]


@dataclass(frozen=True)
class Clause:
    """The parts of a sentence before they are put in order; each may be empty but the verb and its parties."""

    subject: Party
    verb: Verb
    other: Party
    place: Pair
    time: Pair


def dates() -> Iterator[dict[str, str]]:
    """`PAIRS` rows of `source`, an English sentence about an appointment, and `target`, the same in German.

    Sources are distinct, and each has one target. 5 to 20 words a side.
    """
    rng = random.Random(2_017)
    seen: set[str] = set()
    while len(seen) < PAIRS:
        source, target = _sentence(rng)
        if source not in seen and len(source.split()) in LENGTHS and len(target.split()) in LENGTHS:
            seen.add(source)
            yield {"source": source, "target": target}


def _sentence(rng: random.Random) -> Pair:
    clauses = (_statement, _fronted, _question, _modal, _modal_question, _because)
    others = (_event, _moved, _duration, _purchase)
    english, german = rng.choice(clauses if rng.random() < 0.8 else others)(rng)
    for mark in ".?,":
        german = german.replace(f",{mark}", mark)  # the comma after a relative clause gives way
    return english[0].upper() + english[1:], german[0].upper() + german[1:]


def _statement(rng: random.Random) -> Pair:
    clause = _clause(rng)
    first, *rest = _middle(clause)
    english = _join(clause.subject.subject[0], _english_verb(clause), clause.place[0], clause.time[0])
    verb = clause.verb.german(clause.subject.person)
    return f"{english}.", f"{_join(clause.subject.subject[1], verb, first, *rest, clause.verb.prefix)}."


def _fronted(rng: random.Random) -> Pair:
    """The time first; in German the verb stays second."""
    clause = _clause(rng, timed=True)
    english = _join(clause.time[0] + ",", clause.subject.subject[0], _english_verb(clause), clause.place[0])
    verb = clause.verb.german(clause.subject.person)
    middle = _middle(clause, timed=False)
    return f"{english}.", f"{_join(clause.time[1], verb, clause.subject.subject[1], *middle, clause.verb.prefix)}."


def _question(rng: random.Random) -> Pair:
    clause = _clause(rng)
    auxiliary = "does" if clause.subject.person == "er" else "do"
    verb = clause.verb.english.format(clause.other.forms[0])
    english = _join(auxiliary, clause.subject.subject[0], verb, clause.place[0], clause.time[0])
    german = clause.verb.german(clause.subject.person)
    return f"{english}?", f"{_join(german, clause.subject.subject[1], *_middle(clause), clause.verb.prefix)}?"


def _modal(rng: random.Random) -> Pair:
    """A modal verb; in German the infinitive goes to the end."""
    clause, modal = _clause(rng), rng.choice(lexicon.MODALS)
    word = modal.third if clause.subject.person == "er" else modal.english
    verb = clause.verb.english.format(clause.other.forms[0])
    english = _join(clause.subject.subject[0], word, verb, clause.place[0], clause.time[0])
    middle = _middle(clause, negated=modal.negated)
    verb = clause.verb.prefix + clause.verb.stem
    return f"{english}.", f"{_join(clause.subject.subject[1], modal.german(clause.subject.person), *middle, verb)}."


def _modal_question(rng: random.Random) -> Pair:
    clause, modal = _clause(rng), rng.choice(lexicon.MODALS[:3])  # those that make a question without `do`
    verb = clause.verb.english.format(clause.other.forms[0])
    english = _join(modal.english, clause.subject.subject[0], verb, clause.place[0], clause.time[0])
    middle, verb = _middle(clause), clause.verb.prefix + clause.verb.stem
    return f"{english}?", f"{_join(modal.german(clause.subject.person), clause.subject.subject[1], *middle, verb)}?"


def _because(rng: random.Random) -> Pair:
    """A subordinate clause; in German its verb goes to the end."""
    clause, (english, german) = _clause(rng), rng.choice(lexicon.REASONS)
    english = _join(english, "because", clause.subject.subject[0], _english_verb(clause), clause.time[0])
    verb = clause.verb.prefix + clause.verb.german(clause.subject.person)
    middle = _middle(clause, placed=False)
    return f"{english}.", f"{german}, {_join('weil', clause.subject.subject[1], *middle, verb)}."


def _event(rng: random.Random) -> Pair:
    english, german = _noun(rng, lexicon.EVENTS)
    begins, beginnt = rng.choice((("begins", "beginnt"), ("ends", "endet"), ("takes place", "findet statt")))
    time, place = _time(rng), _common(rng, lexicon.PLACES)
    verb, _, prefix = beginnt.partition(" ")
    return f"{_join(english, begins, place[0], time[0])}.", f"{_join(german, verb, time[1], place[1], prefix)}."


def _moved(rng: random.Random) -> Pair:
    english, german = _noun(rng, lexicon.EVENTS)
    first, second = rng.sample(lexicon.DAYS, 2)
    clock = _clock(rng)
    place = _sometimes(rng, lexicon.PLACES)
    source = _join(english, place[0], "is moved from", first[0], "to", second[0], clock[0])
    return f"{source}.", f"{_join(german, place[1], 'wird von', first[1], 'auf', second[1], clock[1])} verschoben."


def _duration(rng: random.Random) -> Pair:
    (english, german), time, minutes = _noun(rng, lexicon.EVENTS), _day(rng), rng.randrange(2, 100)
    source = _join(english, time[0], "lasts", english_number(minutes), "minutes")
    return f"{source}.", f"{_join(german, time[1], 'dauert', german_number(minutes))} Minuten."


def _purchase(rng: random.Random) -> Pair:
    """Goods by number and price; in German the goods stand after the time."""
    subject, verb, goods = _subject(rng), rng.choice(lexicon.PURCHASES), _common(rng, lexicon.GOODS)
    count, price, time = rng.randrange(2, 13), rng.randrange(2, 100), _day(rng)
    english = f"{english_number(count)} {goods[0]}"
    verb_english = (verb.third if subject.person == "er" else verb.english).format(english)
    source = _join(subject.subject[0], verb_english, "for", english_number(price), "euros", time[0])
    german = f"{german_number(count)} {goods[1]} für {german_number(price)} Euro"
    return f"{source}.", f"{_join(subject.subject[1], verb.german(subject.person), time[1], german, verb.prefix)}."


def _clause(rng: random.Random, *, timed: bool = False) -> Clause:
    subject, other = _subject(rng), _party(rng)
    while _same(subject, other):
        other = _party(rng)
    time = _time(rng) if timed or rng.random() < 0.8 else ("", "")
    return Clause(subject, _common(rng, lexicon.VERBS), other, _sometimes(rng, lexicon.PLACES), time)


def _same(subject: Party, other: Party) -> bool:
    """Whether somebody would act upon himself, or two pronouns leave open who does: he meets him."""
    if subject.pronoun and other.pronoun:
        first, third = {"ich", "wir"}, {"er", "sie"}
        same = subject.person == other.person
        return same or {subject.person, other.person} <= first or {subject.person, other.person} <= third
    return bool(subject.names & other.names)


def _middle(
    clause: Clause, *, timed: bool = True, placed: bool = True, negated: bool = False
) -> tuple[str, str, str, str, str]:
    """The German middle: a pronoun, time, object, `nicht`, place and an object with a preposition, in this order."""
    verb, time, place = clause.verb, clause.time[1] if timed else "", clause.place[1] if placed else ""
    noun, no = clause.other.german_object(verb.case), "nicht" if negated else ""
    if verb.preposition:
        return time, no, place, verb.preposition, noun
    if clause.other.pronoun:
        return noun, time, no, place, ""
    return time, noun, no, place, ""


def _english_verb(clause: Clause) -> str:
    pattern = clause.verb.third if clause.subject.person == "er" else clause.verb.english
    return pattern.format(clause.other.forms[0])


def _subject(rng: random.Random) -> Party:
    """A party, sometimes with a relative clause, whose verb German puts last."""
    party = _party(rng)
    if not party.relative or rng.random() > 0.4:
        return party
    other, verb = _party(rng), _common(rng, lexicon.VERBS)
    while _same(party, other):
        other = _party(rng)
    english = _join(party.subject[0], "who", verb.third.format(other.forms[0]))
    words = _join(verb.preposition, other.german_object(verb.case), verb.prefix + verb.german("er"))
    return replace(party, subject=(english, f"{party.subject[1]}, {party.relative} {words},"))


def _party(rng: random.Random) -> Party:
    """A pronoun, a name, a person, or two of these two."""
    draw = rng.random()
    if draw < 0.3:
        english, german, person, other, accusative, dative = rng.choice(lexicon.PRONOUNS)
        return Party((english, german), person, (other, accusative, dative), frozenset((english,)), pronoun=True)
    if draw < 0.8:
        return _single(rng)
    first, second = _single(rng), _single(rng)
    while _same(first, second):
        second = _single(rng)
    english, accusative, dative = (
        f"{one} {word} {two}" for one, word, two in zip(first.forms, ("and", "und", "und"), second.forms, strict=True)
    )
    german = f"{first.subject[1]} und {second.subject[1]}"
    return Party((english, german), "sie", (english, accusative, dative), first.names | second.names)


def _single(rng: random.Random) -> Party:
    """A name or a person."""
    if rng.random() < 0.2:
        name, nominative, other = rng.choice(lexicon.NAMES)
        return Party((name, nominative), "er", (name, other, other), frozenset((name,)))
    article, noun = rng.choice(("the", "my", "our", "a")), _common(rng, lexicon.PEOPLE)
    adjective = _common(rng, lexicon.ADJECTIVES) if rng.random() < 0.4 else ("", "")
    english = _english_phrase(article, adjective[0], noun)
    forms: tuple[Case, ...] = ("nominative", "accusative", "dative")
    subject, accusative, dative = (german_phrase(article, adjective[1], noun, case) for case in forms)
    relative = ARTICLES["the"][noun.gender][0]
    names = frozenset((noun.english,))
    return Party((english, subject), "er", (english, accusative, dative), names, relative=relative)


def _noun(rng: random.Random, nouns: tuple[Noun, ...]) -> Pair:
    """A noun as subject."""
    article, noun = rng.choice(("the", "my", "our")), rng.choice(nouns)
    adjective = _sometimes(rng, (("new", "neu"), ("first", "erst"), ("last", "letzt"), ("long", "lang")), 0.5)
    return _english_phrase(article, adjective[0], noun), german_phrase(article, adjective[1], noun, "nominative")


def _english_phrase(article: str, adjective: str, noun: Noun) -> str:
    words = _join(adjective, noun.english)
    return f"{'an' if article == 'a' and words[0] in 'aeiou' else article} {words}"


def _time(rng: random.Random) -> Pair:
    """A day, mostly with the time of day."""
    day, clock = _day(rng), _clock(rng) if rng.random() < 0.6 else ("", "")
    if day in lexicon.SPANS:
        return day
    between = "," if clock[1] and "," in day[1] else ""  # the date after a day's name stands between commas
    return _join(day[0], clock[0]), _join(day[1] + between, clock[1])


def _day(rng: random.Random) -> Pair:
    """A day by name, by name and date, by date in one of two notations, or from today on."""
    day, month, date = rng.choice(lexicon.DAYS), rng.choice(lexicon.MONTHS), rng.randrange(1, 29)
    draw = rng.random()
    if draw < 0.3:
        return f"on {day[0]}", f"am {day[1]}"
    if draw < 0.5:
        return f"on {day[0]}, {date} {month[0]}", f"am {day[1]}, dem {date}. {month[1]}"
    if draw < 0.7:
        english = f"on {date} {month[0]}" if draw < 0.6 else f"on {month[0]} {date}"
        return english, f"am {date}. {month[1]}"
    if draw < 0.8:
        return f"every {day[0]}", f"jeden {day[1]}"
    return rng.choice(lexicon.NEAR_DAYS + lexicon.SPANS)


def _clock(rng: random.Random) -> Pair:
    """A time of day in words, or in digits of 12 hours against 24."""
    hour, draw = rng.randrange(1, 13), rng.random()
    english, german = english_number(hour), german_number(hour)
    following = german_number(hour % 12 + 1)
    if draw < 0.2:
        return f"at {english} o'clock", f"um {'ein' if hour == 1 else german} Uhr"
    if draw < 0.4:
        return f"at half past {english}", f"um halb {following}"
    if draw < 0.5:
        return f"at quarter past {english}", f"um Viertel nach {german}"
    if draw < 0.6:
        return f"at quarter to {english_number(hour % 12 + 1)}", f"um Viertel vor {following}"
    if draw < 0.75:
        minutes = rng.choice((5, 10, 20))
        return f"at {english_number(minutes)} past {english}", f"um {german_number(minutes)} nach {german}"
    minutes, afternoon = rng.choice((0, 10, 15, 30, 45, 50)), rng.random() < 0.5
    hours = hour % 12 + (12 if afternoon else 0)
    return f"at {hour}:{minutes:02} {'pm' if afternoon else 'am'}", f"um {hours}:{minutes:02} Uhr"


def _sometimes(rng: random.Random, pairs: tuple[Pair, ...], share: float = 0.5) -> Pair:
    return _common(rng, pairs) if rng.random() < share else ("", "")


def _common(rng: random.Random, words: Sequence[T]) -> T:
    """One of the words, the first ones more often than the last ones, as in every language (Zipf 1949)."""
    place = int((len(words) + 1) ** rng.random()) - 1
    return words[min(place, len(words) - 1)]


def _join(*words: str) -> str:
    return " ".join(word for word in words if word)
