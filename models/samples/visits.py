"""What happened at the invented help desk, told in prose: a few sentences for each kind of visit.

The facts stand in `knowledge`, and agree with the answers in `exchanges`. Knows nothing of the articles made of
them.
"""

import random
from collections.abc import Callable

from models.samples import knowledge
from models.samples.knowledge import DAYS, NUMBERS, PRODUCTS, STREETS, TOWNS, a, clock

Visit = Callable[[random.Random, str], str]
"""Draws what happened to a customer of a name, as a few sentences."""


def parcel(rng: random.Random, name: str) -> str:
    order = rng.randrange(10_000, 100_000)
    asked = rng.choice(
        (
            f"{name} was waiting for order {order} and asked where it was.",
            f"{name} wanted to know what had become of order {order}.",
            f"A parcel had not arrived, and {name} gave us the number of the order: {order}.",
        )
    )
    told = {
        "packed": "It was still being packed and was to leave our warehouse on the next day.",
        "sent": "It was on its way and should arrive in two days.",
        "delivered": "It had been delivered the day before, and a neighbour had taken it.",
    }[knowledge.status(order)]
    return f"{asked} {told}"


def hours(rng: random.Random, name: str) -> str:
    town, day = rng.choice(TOWNS), rng.choice(DAYS)
    asked = rng.choice(
        (
            f"{name} wished to come to the shop in {town.name} on {day}.",
            f"{name} asked when the shop in {town.name} opens on {day}.",
        )
    )
    if (open_from := town.hours(day)) is None:
        return f"{asked} The shop in {town.name} is closed on {day}, so another day had to be found."
    first, last = clock(open_from[0]), clock(open_from[1])
    return f"{asked} It is open from {first} to {last} then, and you find it at {town.street}."


def purchase(rng: random.Random, name: str) -> str:
    product, count = rng.choice(PRODUCTS), rng.randrange(2, 6)
    total = product.price * count
    cost = knowledge.delivery_cost(total)
    delivery = f"The delivery cost {cost} euros." if cost else "The delivery was free."
    return rng.choice(
        (
            f"{name} bought {NUMBERS[count]} {product.plural} for {total} euros. {delivery}",
            f"{name} asked for the price of {NUMBERS[count]} {product.plural}. They cost {total} euros, "
            f"{product.price} euros each. {delivery}",
        )
    )


def login(rng: random.Random, name: str) -> str:
    address = f"{name.lower()}{rng.randrange(10, 100)}@example.org"
    return rng.choice(
        (
            f"{name} had forgotten the password. A link was sent to {address}, which can be used for "
            f"{knowledge.LINK_MINUTES} minutes.",
            f"{name} could not log in any more, so we sent a message to {address}. With its link {name} chose a new "
            f"password.",
        )
    )


def returned(rng: random.Random, name: str) -> str:
    product, days = rng.choice(PRODUCTS), rng.randrange(2, 60)
    asked = f"{name} had bought {a(product.name)} {days} days before and wanted to return it."
    if days <= knowledge.RETURN_DAYS:
        return f"{asked} That was soon enough, and {name} got {product.price} euros back."
    return f"{asked} We had to say no, because we take things back within {knowledge.RETURN_DAYS} days only."


def broken(rng: random.Random, name: str) -> str:
    product, years = rng.choice(PRODUCTS), rng.randrange(1, 7)
    asked = rng.choice(
        (
            f'"My {product.name} {product.fault}," wrote {name}.',
            f"{name} has {a(product.name)} that {product.fault}.",
        )
    )
    tip = f"We asked {name} to {product.tip}."
    if rng.random() < 0.4:
        return f"{asked} {tip} It worked, and {name} was glad."
    age = f"It did not help. The {product.name} was {NUMBERS[years]} year{'s' if years > 1 else ''} old,"
    if years <= product.warranty:
        return f"{asked} {tip} {age} so it was repaired free of charge."
    return f"{asked} {tip} {age} its warranty was over, and the repair cost {product.price // 2} euros."


def moved(rng: random.Random, name: str) -> str:
    order, town = rng.randrange(10_000, 100_000), rng.choice(TOWNS)
    street = f"{rng.randrange(1, 99)} {rng.choice(STREETS)}"
    asked = f"{name} had moved to {street} in {town.name} and wanted order {order} to go there."
    if knowledge.status(order) == "packed":
        return f"{asked} It was still being packed, and the address was changed."
    return f"{asked} It was too late for that: the order had left our warehouse."


def cancelled(rng: random.Random, name: str) -> str:
    order = rng.randrange(10_000, 100_000)
    asked = rng.choice((f"{name} wanted to cancel order {order}.", f"{name} did not need order {order} any more."))
    if knowledge.status(order) == "packed":
        return f"{asked} It was cancelled, and {name} paid nothing."
    return f"{asked} It had been sent already, but {name} can send it back within {knowledge.RETURN_DAYS} days."


def appointment(rng: random.Random, name: str) -> str:
    town, day, hour, product = rng.choice(TOWNS), rng.choice(DAYS), rng.randrange(7, 21), rng.choice(PRODUCTS)
    asked = f"{name} needed an appointment in {town.name} for {a(product.name)}, on {day} at {clock(hour)}."
    open_from = town.hours(day)
    if open_from is None:
        return f"{asked} But the shop in {town.name} stays closed on {day}."
    if open_from[0] <= hour < open_from[1]:
        return f"{asked} It was booked, and {name} will bring the {product.name} along."
    first, last = clock(open_from[0]), clock(open_from[1])
    return f"{asked} The shop is closed at that time, so we offered {name} the time from {first} to {last}."


def sought(rng: random.Random, name: str) -> str:
    product, town = rng.choice(PRODUCTS), rng.choice(TOWNS)
    asked = f"{name} was looking for {a(product.name)} in {town.name}."
    if knowledge.in_stock(product, town):
        return f"{asked} The shop there has {product.plural} in stock."
    other = knowledge.shop_with(product, town)
    return f"{asked} There were no {product.plural} in {town.name}, so we named the shop in {other.name}."


def mistaken(rng: random.Random, name: str) -> str:
    ordered, came = rng.sample(PRODUCTS, 2)
    return rng.choice(
        (
            f"In the parcel of {name} there was {a(came.name)} instead of {a(ordered.name)}. We were sorry for our "
            f"mistake and sent the {ordered.name} on the same day. The driver took the {came.name} back.",
            f"{name} had ordered {a(ordered.name)} but got {a(came.name)}. The {ordered.name} was sent at once, and "
            f"{name} gave the {came.name} to the driver.",
        )
    )


def redeemed(rng: random.Random, name: str) -> str:
    code, product = rng.choice(sorted(knowledge.VOUCHERS)), rng.choice(PRODUCTS)
    return (
        f"{name} had a voucher with the code {code} and got {knowledge.VOUCHERS[code]} per cent off the {product.name}."
    )


def wondered(rng: random.Random, name: str) -> str:
    thing = rng.choice(("the weather", "football", "a recipe", "music", "the trains", "politics", "a sore back"))
    return rng.choice(
        (
            f"{name} asked about {thing}. We know nothing about that and said so.",
            f"{name} had a question about {thing}, which is nothing for a help desk.",
        )
    )


VISITS: tuple[Visit, ...] = (
    *(parcel, hours, purchase, login, returned, broken, moved, cancelled, appointment, sought, mistaken),
    *(redeemed, wondered),
)
"""The kinds of visits."""
