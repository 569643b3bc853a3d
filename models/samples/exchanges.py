"""Questions to the invented help desk and their answers, by topic, phrased in several ways.

A topic is a function that draws what it is about and gives one or two exchanges, each with the right answer and
a wrong one: as polite, but for something else than was asked or with a false fact. The facts stand in
`knowledge`. Knows nothing of dialogues.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from models.samples import knowledge
from models.samples.knowledge import NUMBERS, PRODUCTS, TOWNS, Product, Town, a, clock

T = TypeVar("T")


@dataclass(frozen=True)
class Exchange:
    """What a customer says, the right answer, and an answer that is false or about something else."""

    question: str
    answer: str
    wrong: str


Topic = Callable[[random.Random, Town | None], list[Exchange]]
"""Draws exchanges. The town is the one that the desk answers for where a customer names none."""

_STATUS = {
    "packed": "is being packed and leaves our warehouse tomorrow",
    "sent": "is on its way and should arrive in two days",
    "delivered": "was delivered yesterday",
}


def order_status(rng: random.Random, _: Town | None) -> list[Exchange]:
    order, other = _order(rng), _order(rng)
    state, false = _STATUS[knowledge.status(order)], _STATUS[knowledge.status(order + 5)]
    answer = rng.choice((f"Order {order} {state}.", f"Thank you for waiting. Your order {order} {state}."))
    wrong = rng.choice((f"Order {other} {_STATUS[knowledge.status(other)]}.", f"Your order {order} {false}."))
    if rng.random() < 0.5:
        question = rng.choice(
            (
                f"Where is my order {order}?",
                f"I am waiting for order {order}. When does it arrive?",
                f"Could you tell me what has become of order {order}, please?",
                f"Has order {order} been sent yet?",
            )
        )
        return [Exchange(question, answer, wrong)]
    first = rng.choice(("Where is my parcel?", "My order has not arrived.", "I would like to know where my order is."))
    ask = rng.choice(("What is the number of your order, please?", "I will gladly look. Which number does it have?"))
    given = rng.choice((f"{order}", f"It is {order}.", f"The number is {order}.", f"Order {order}."))
    return [Exchange(first, ask, "Please tell me your favourite colour first."), Exchange(given, answer, wrong)]


def opening_hours(rng: random.Random, here: Town | None) -> list[Exchange]:
    town, day = here or rng.choice(TOWNS), rng.choice(knowledge.DAYS)
    place = "" if here else f" in {town.name}"
    question = rng.choice(
        (
            f"When is the shop{place} open on {day}?",
            f"Are you open{place} on {day}?",
            f"What are your opening hours{place} on {day}?",
            f"Can I come to the shop{place} on {day}?",
        )
    )
    hours = town.hours(day)
    false = None if hours and rng.random() < 0.5 else (7, 22)  # no shop is open that long
    return [Exchange(question, _hours(rng, town, hours, day), _hours(rng, town, false, day))]


def _hours(rng: random.Random, town: Town, hours: tuple[int, int] | None, day: str) -> str:
    if hours is None:
        return rng.choice(
            (
                f"I am sorry, our shop in {town.name} is closed on {day}.",
                f"On {day} the shop in {town.name} stays closed, I am afraid.",
            )
        )
    first, last = clock(hours[0]), clock(hours[1])
    return rng.choice(
        (
            f"Our shop in {town.name} is open from {first} to {last} on {day}.",
            f"Yes, on {day} you can visit us in {town.name} between {first} and {last}.",
        )
    )


def price(rng: random.Random, _: Town | None) -> list[Exchange]:
    product, count = rng.choice(PRODUCTS), rng.choice((1, 1, 1, 2, 3, 4, 5))
    goods = a(product.name) if count == 1 else f"{NUMBERS[count]} {product.plural}"
    question = rng.choice(
        (
            f"How much {'is' if count == 1 else 'are'} {goods}?",
            f"What do you charge for {goods}?",
            f"I would like to buy {goods}. What is the price?",
        )
    )
    total = product.price * count

    def said(goods: str, euros: int) -> str:
        sentence = f"{goods[0].upper()}{goods[1:]} {'costs' if count == 1 else 'cost'} {euros} euros."
        if count > 1 and rng.random() < 0.5:
            sentence += f" That is {euros // count} euros each."
        return sentence

    other = rng.choice([each for each in PRODUCTS if each.price != product.price])
    false = a(other.name) if count == 1 else f"{NUMBERS[count]} {other.plural}"
    wrong = rng.choice(((false, other.price * count), (goods, other.price * count)))
    return [Exchange(question, said(goods, total), said(*wrong))]


def password(rng: random.Random, _: Town | None) -> list[Exchange]:
    address, other = _address(rng), _address(rng)

    def said(to: str) -> str:
        return rng.choice(
            (
                f"I have sent a link to {to}. You can use it for {knowledge.LINK_MINUTES} minutes.",
                f"No problem. Please open the message to {to} and choose a new password within "
                f"{knowledge.LINK_MINUTES} minutes.",
            )
        )

    problem = rng.choice(("I forgot my password.", "I cannot log in any more.", "My password does not work."))
    if rng.random() < 0.5:
        return [Exchange(f"{problem} My address is {address}.", said(address), said(other))]
    ask = rng.choice(("Which e-mail address do you use with us?", "I can help. What is your e-mail address?"))
    given = rng.choice((address, f"It is {address}.", f"I use {address}."))
    return [Exchange(problem, ask, "Please come back next year."), Exchange(given, said(address), said(other))]


def refund(rng: random.Random, _: Town | None) -> list[Exchange]:
    product, days = rng.choice(PRODUCTS), rng.randrange(2, 60)
    question = rng.choice(
        (
            f"I bought {a(product.name)} {days} days ago. Can I return it?",
            f"Do I get my money back for {a(product.name)} that I bought {days} days ago?",
            f"I do not like my {product.name}. I have had it for {days} days. May I send it back?",
        )
    )

    def said(product: Product, back: bool) -> str:
        if back:
            return rng.choice(
                (
                    f"Yes, {days} days are within our {knowledge.RETURN_DAYS} days. Send the {product.name} back "
                    f"and we return {product.price} euros.",
                    f"Of course. You get {product.price} euros back as soon as the {product.name} is here.",
                )
            )
        return rng.choice(
            (
                f"I am sorry, you can return the {product.name} within {knowledge.RETURN_DAYS} days only, and you "
                f"bought it {days} days ago.",
                f"Unfortunately {days} days are too long: we take {a(product.name)} back within "
                f"{knowledge.RETURN_DAYS} days.",
            )
        )

    back = days <= knowledge.RETURN_DAYS
    wrong = said(product, not back) if rng.random() < 0.5 else said(_other(rng, PRODUCTS, product), back)
    return [Exchange(question, said(product, back), wrong)]


def fault(rng: random.Random, _: Town | None) -> list[Exchange]:
    product = rng.choice(PRODUCTS)
    other = _other(rng, PRODUCTS, product)
    question = rng.choice(
        (
            f"My {product.name} {product.fault}.",
            f"Please help me, my {product.name} {product.fault}.",
            f"What can I do? The {product.name} {product.fault}.",
        )
    )
    opening = rng.choice(("I am sorry to hear that. Please", "That can be mended. Please", "Let us try this: please"))
    first = Exchange(question, f"{opening} {product.tip}.", f"{opening} {other.tip}.")
    draw = rng.random()
    if draw < 0.3:
        return [first]
    if draw < 0.65:
        thanks = rng.choice(("That worked.", "It works again.", "Now it is fine."))
        glad = rng.choice((f"I am glad that your {product.name} works again.", "That is good to hear."))
        return [first, Exchange(thanks, glad, f"I am sorry that your {other.name} still does not work.")]
    years = rng.randrange(1, 7)
    follow = rng.choice(("That did not help.", "It is still the same.", "I have tried that without success."))
    follow += f" I bought it {NUMBERS[years]} year{'s' if years > 1 else ''} ago."
    return [first, Exchange(follow, _repair(product, years), _repair(product, years, inverted=True))]


def _repair(product: Product, years: int, *, inverted: bool = False) -> str:
    """A repair is free for as long as the warranty lasts."""
    warranty = f"{NUMBERS[product.warranty]} year{'s' if product.warranty > 1 else ''}"
    if (years <= product.warranty) != inverted:
        return f"Then we repair your {product.name} free of charge: its warranty lasts {warranty}."
    return (
        f"The warranty of the {product.name} lasts {warranty} and is over. A repair costs {product.price // 2} euros."
    )


def change_address(rng: random.Random, _: Town | None) -> list[Exchange]:
    order, street = _order(rng), f"{rng.randrange(1, 99)} {rng.choice(knowledge.STREETS)}"
    other = f"{rng.randrange(1, 99)} {rng.choice(knowledge.STREETS)}"
    town = rng.choice(TOWNS).name
    question = rng.choice(
        (
            f"Please send order {order} to {street} in {town} instead.",
            f"I have moved to {street} in {town}. Can you change the address of order {order}?",
        )
    )
    if knowledge.status(order) == "packed":
        return [
            Exchange(question, *(f"Certainly. Order {order} now goes to {to} in {town}." for to in (street, other)))
        ]
    answer = f"I am sorry, order {order} {_STATUS[knowledge.status(order)]}, so I cannot change the address."
    return [Exchange(question, answer, f"Certainly. Order {order} now goes to {other} in {town}.")]


def cancel(rng: random.Random, _: Town | None) -> list[Exchange]:
    order = _order(rng)
    question = rng.choice(
        (
            f"I want to cancel order {order}.",
            f"Please stop order {order}, I do not need it any more.",
            f"Can I still cancel order {order}?",
        )
    )
    done = rng.choice((f"I have cancelled order {order} for you.", f"Order {order} is cancelled, you pay nothing."))
    late = (
        f"I am afraid it is too late: order {order} {_STATUS['sent' if order % 10 < 7 else 'delivered']}. You can send "
        f"it back within {knowledge.RETURN_DAYS} days."
    )
    return [Exchange(question, *((done, late) if knowledge.status(order) == "packed" else (late, done)))]


def repair_appointment(rng: random.Random, here: Town | None) -> list[Exchange]:
    town, day, hour = here or rng.choice(TOWNS), rng.choice(knowledge.DAYS), rng.randrange(7, 21)
    product = rng.choice(PRODUCTS)
    place = "" if here else f" in {town.name}"
    question = rng.choice(
        (
            f"May I bring my {product.name} to the shop{place} on {day} at {clock(hour)}?",
            f"I need an appointment{place} for my {product.name} on {day} at {clock(hour)}.",
        )
    )
    booked = f"You are booked in {town.name} on {day} at {clock(hour)}. Please bring the {product.name} with you."
    hours = town.hours(day)
    if hours is None:
        return [Exchange(question, _hours(rng, town, None, day), booked)]
    if hours[0] <= hour < hours[1]:
        return [Exchange(question, booked, booked.replace(day, _other(rng, knowledge.DAYS, day)))]
    closed = f"At {clock(hour)} we are closed. In {town.name} we can see you on {day} from {clock(hours[0])} to "
    return [Exchange(question, f"{closed}{clock(hours[1])}.", booked)]


def delivery(rng: random.Random, _: Town | None) -> list[Exchange]:
    amount = rng.randrange(8, 130)
    if rng.random() < 0.3:
        question = rng.choice(("How much is express delivery?", "Can I have my order tomorrow?"))
        question += f" I am ordering goods for {amount} euros."
        answer = f"Express delivery costs {knowledge.EXPRESS_COST} euros more and arrives on the next day."
        return [Exchange(question, answer, answer.replace(str(knowledge.EXPRESS_COST), str(amount)))]
    question = rng.choice(
        (
            f"How much is delivery for an order of {amount} euros?",
            f"My basket holds goods for {amount} euros. What does the delivery cost?",
        )
    )
    free = f"Delivery is free, because {amount} euros are at least {knowledge.FREE_DELIVERY} euros."
    paid = (
        f"Delivery costs {knowledge.DELIVERY_COST} euros. It is free from {knowledge.FREE_DELIVERY} euros on, and "
        f"{amount} euros are less."
    )
    return [Exchange(question, *((paid, free) if knowledge.delivery_cost(amount) else (free, paid)))]


def warranty(rng: random.Random, _: Town | None) -> list[Exchange]:
    product = rng.choice(PRODUCTS)
    other = rng.choice([each for each in PRODUCTS if each.warranty != product.warranty])
    question = rng.choice(
        (
            f"How long is the warranty of the {product.name}?",
            f"For how many years is {a(product.name)} under warranty?",
        )
    )
    answer, wrong = (
        f"The warranty of the {product.name} lasts {NUMBERS[years]} year{'s' if years > 1 else ''}."
        for years in (product.warranty, other.warranty)
    )
    return [Exchange(question, answer, wrong)]


def stock(rng: random.Random, here: Town | None) -> list[Exchange]:
    product, town = rng.choice(PRODUCTS), here or rng.choice(TOWNS)
    place = "" if here else f" in {town.name}"
    question = rng.choice(
        (
            f"Do you have {product.plural} in stock{place}?",
            f"Can I buy {a(product.name)} in your shop{place} today?",
        )
    )
    yes = f"Yes, our shop in {town.name} has {product.plural} in stock."
    next_shop = knowledge.shop_with(product, town)
    no = f"I am sorry, there are no {product.plural} in {town.name} now. The shop in {next_shop.name} has some."
    return [Exchange(question, *((yes, no) if knowledge.in_stock(product, town) else (no, yes)))]


def wrong_item(rng: random.Random, _: Town | None) -> list[Exchange]:
    ordered, order = rng.choice(PRODUCTS), _order(rng)
    came = _other(rng, PRODUCTS, ordered)
    question = rng.choice(
        (
            f"I ordered {a(ordered.name)} but got {a(came.name)}. The order is {order}.",
            f"There was {a(came.name)} in my parcel {order} instead of {a(ordered.name)}.",
        )
    )
    answer, wrong = (
        f"I am sorry for our mistake with order {order}. We send you {a(right.name)} today. Please give the "
        f"{false.name} to the driver."
        for right, false in ((ordered, came), (came, ordered))
    )
    return [Exchange(question, answer, wrong)]


def invoice(rng: random.Random, _: Town | None) -> list[Exchange]:
    order, address = _order(rng), _address(rng)
    question = rng.choice(
        (
            f"Please send the invoice of order {order} to {address}.",
            f"I need the invoice of order {order}. My address is {address}.",
        )
    )
    other = rng.choice(((_order(rng), address), (order, _address(rng))))
    answer, wrong = (f"The invoice of order {n} is on its way to {to}." for n, to in ((order, address), other))
    return [Exchange(question, answer, wrong)]


def voucher(rng: random.Random, _: Town | None) -> list[Exchange]:
    code, product = rng.choice(sorted(knowledge.VOUCHERS)), rng.choice(PRODUCTS)
    other = _other(rng, sorted(knowledge.VOUCHERS), code)
    question = rng.choice(
        (
            f"What is the voucher {code} worth?",
            f"I have a voucher with the code {code}. May I use it for {a(product.name)}?",
        )
    )
    goods = f" the {product.name}" if product.name in question else ""
    answer, wrong = (f"With {code} you get {knowledge.VOUCHERS[each]} per cent off{goods}." for each in (code, other))
    return [Exchange(question, answer, wrong)]


def cheaper(rng: random.Random, _: Town | None) -> list[Exchange]:
    first = rng.choice(PRODUCTS)
    second = rng.choice([each for each in PRODUCTS if each.price != first.price])
    question = rng.choice(
        (
            f"Which is cheaper, the {first.name} or the {second.name}?",
            f"I have to choose between {a(first.name)} and {a(second.name)}. What costs less?",
        )
    )
    low, high = sorted((first, second), key=lambda product: product.price)
    answer, wrong = (
        f"The {one.name} is cheaper: it costs {one.price} euros, the {two.name} {two.price} euros."
        for one, two in ((low, high), (high, low))
    )
    return [Exchange(question, answer, wrong)]


def street(rng: random.Random, here: Town | None) -> list[Exchange]:
    town = here or rng.choice(TOWNS)
    place = "" if here else f" in {town.name}"
    question = rng.choice((f"Where is your shop{place}?", f"What is the address of the shop{place}?"))
    answer, wrong = (f"You find our shop in {town.name} at {each.street}." for each in (town, _other(rng, TOWNS, town)))
    return [Exchange(question, answer, wrong)]


def colour(rng: random.Random, _: Town | None) -> list[Exchange]:
    product = rng.choice(PRODUCTS)
    other = rng.choice([each for each in PRODUCTS if each.colours != product.colours])
    question = rng.choice(
        (f"Which colours does the {product.name} come in?", f"What colours of {product.name} are there?")
    )
    answer, wrong = (
        f"The {product.name} comes in {each.colours[0]} and {each.colours[1]}." for each in (product, other)
    )
    return [Exchange(question, answer, wrong)]


def beyond(rng: random.Random, _: Town | None) -> list[Exchange]:
    """A question that the desk has no answer to, and says so."""
    thing, asked = rng.choice(
        (
            ("the weather", "Will it rain tomorrow?"),
            ("football", "Who wins the match on Sunday?"),
            ("recipes", "How do I bake a cake?"),
            ("music", "What is the best song of this year?"),
            ("travel", "Which train goes to the sea?"),
            ("politics", "Whom should I vote for?"),
            ("health", "Why does my back hurt?"),
        )
    )
    answer = rng.choice(
        (
            f"I am afraid I know nothing about {thing}. I can help with orders, products and our shops.",
            f"I cannot answer questions about {thing}, but I gladly help with orders, products and our shops.",
        )
    )
    return [Exchange(asked, answer, f"I know everything about {thing}, and the answer is always yes.")]


def _order(rng: random.Random) -> int:
    return rng.randrange(10_000, 100_000)


def _address(rng: random.Random) -> str:
    return f"{rng.choice(knowledge.NAMES).lower()}{rng.randrange(10, 100)}@example.org"


def _other(rng: random.Random, choices: Sequence[T], not_this: T) -> T:
    return rng.choice([each for each in choices if each != not_this])


TOPICS: tuple[Topic, ...] = (
    *(order_status, opening_hours, price, password, refund, fault, change_address, cancel, repair_appointment),
    *(delivery, warranty, stock, wrong_item, invoice, voucher, cheaper, street, colour, beyond),
)
