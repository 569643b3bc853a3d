"""Dialogues of an invented help desk, and better and worse replies in them.

Generated from the topics of `exchanges`: a reply follows from the customer's words and from a small fixed set of
facts, which a model can learn from the dialogues. Not a benchmark: every dialogue is made of the same few
hundred phrases. Knows nothing of splits and chat templates.
"""

import random
from collections.abc import Iterator, Sequence
from typing import TypedDict

from models.samples.exchanges import TOPICS, Exchange
from models.samples.knowledge import NAMES, TOWNS, Town

DIALOGUES = 2_500
MOST_MESSAGES = 8
"""Of customer and desk together; a system message comes on top."""
PREFERENCES = 1_200


class Message(TypedDict):
    """role: system, user or assistant."""

    role: str
    content: str


class Dialogue(TypedDict):
    messages: list[Message]


class Preference(TypedDict):
    """prompt: ends with the user. chosen, rejected: replies of the assistant."""

    prompt: list[Message]
    chosen: str
    rejected: str


SYSTEMS = (
    "You are the help desk of a shop. Answer politely and briefly.",
    "You help the customers of a shop with orders, products and opening hours.",
    "You are a friendly assistant. Say so when you cannot help.",
)
GREETINGS = ("Hello.", "Good morning.", "Hi, can you help me?", "Good afternoon.", "Hello, I have a question.")
OFFERS = ("How can I help you?", "What can I do for you?", "Please tell me how I can help.")
THANKS = ("Thank you.", "Thanks a lot.", "Great, thank you.", "Thank you for your help.", "That is all, thank you.")
CLOSINGS = ("You are welcome{}.", "My pleasure{}.", "You are welcome{}. Have a nice day.", "Gladly{}. Goodbye.")
RUDE = (
    "Can you not read? It is all on our pages.",
    "That is your problem, not mine.",
    "Stop asking me such boring questions.",
    "I have better things to do than this.",
    "You again? Find it out yourself.",
    "Nobody else has ever asked something so silly.",
    "I do not care, and I do not like your tone.",
    "What a stupid question.",
)
EVASIVE = (
    "That depends on many things.",
    "Somebody will surely know. Please ask again another day.",
    "There are several opinions about that.",
    "This is an interesting question, and I thank you for it. We take all questions seriously.",
    "I would rather not say anything about that.",
    "Perhaps. Perhaps not. One never knows.",
    "Please read the conditions, all of them, from the first page to the last.",
    "We are working on it and hope to know more at some time.",
)


def help_desk() -> Iterator[Dialogue]:
    """`DIALOGUES` rows of `messages`: user and assistant in turn, 2 to 8 of them, after a system message in a
    third of the dialogues. The assistant has the last word. Dialogues are distinct."""
    rng = random.Random(2_022)
    seen: set[str] = set()
    while len(seen) < DIALOGUES:
        messages = _dialogue(rng)
        if (key := _key(messages)) not in seen:
            seen.add(key)
            yield {"messages": messages}


def preferences() -> Iterator[Preference]:
    """`PREFERENCES` rows of `prompt`, `chosen` and `rejected`.

    The chosen reply is right and polite. The rejected one is, in equal parts, false or about something else than
    was asked, the answer to another question, evasive, or rude, half of the rude ones with the right answer.
    Prompts are distinct.
    """
    rng = random.Random(2_023)
    seen: set[str] = set()
    while len(seen) < PREFERENCES:
        town = _town(rng)
        *before, last = rng.choice(TOPICS)(rng, town)
        prompt = [*_system(rng, town), *_spoken(before), _message("user", last.question)]
        rejected = _rejected(rng, last, len(seen) % 4)
        if (key := _key(prompt)) not in seen and rejected != last.answer:
            seen.add(key)
            yield {"prompt": prompt, "chosen": last.answer, "rejected": rejected}


def _dialogue(rng: random.Random) -> list[Message]:
    """One or two topics, sometimes between a greeting and thanks."""
    town = _town(rng)
    name = rng.choice(NAMES) if rng.random() < 0.4 else ""
    exchanges: list[tuple[str, str]] = []
    if name or rng.random() < 0.2:
        greeting = rng.choice(GREETINGS) + (f" My name is {name}." if name else "")
        exchanges.append((greeting, f"Hello{name and ' ' + name}. {rng.choice(OFFERS)}"))
    for topic in rng.sample(TOPICS, 2 if rng.random() < 0.4 else 1):
        exchanges += [(each.question, each.answer) for each in topic(rng, town)]
    if rng.random() < 0.4:
        exchanges.append((rng.choice(THANKS), rng.choice(CLOSINGS).format(name and f", {name}")))
    messages = [_message(*pair) for each in exchanges for pair in zip(("user", "assistant"), each, strict=True)]
    return [*_system(rng, town), *messages[:MOST_MESSAGES]]


def _town(rng: random.Random) -> Town | None:
    """The town that the system message names, where it names one."""
    return rng.choice(TOWNS) if rng.random() < 0.15 else None


def _system(rng: random.Random, town: Town | None) -> list[Message]:
    if town is not None:
        return [_message("system", f"You are the help desk of the shop in {town.name}.")]
    return [_message("system", rng.choice(SYSTEMS))] if rng.random() < 0.2 else []


def _rejected(rng: random.Random, exchange: Exchange, kind: int) -> str:
    """A worse reply: 0 false, 1 to another question, 2 evasive, 3 rude."""
    match kind:
        case 0:
            return exchange.wrong
        case 1:
            return rng.choice(TOPICS)(rng, None)[-1].answer
        case 2:
            return rng.choice(EVASIVE)
        case _:
            return rng.choice(RUDE) if rng.random() < 0.5 else f"{rng.choice(RUDE)} {exchange.answer}"


def _spoken(exchanges: Sequence[Exchange]) -> list[Message]:
    roles = ("user", "assistant")
    return [
        _message(role, content)
        for each in exchanges
        for role, content in zip(roles, (each.question, each.answer), strict=True)
    ]


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _key(messages: Sequence[Message]) -> str:
    return "\n".join(message["content"] for message in messages if message["role"] != "system")
