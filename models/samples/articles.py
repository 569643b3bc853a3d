"""Running text about the invented help desk: articles on its products and shops, and diaries of its days.

For training a base model, which can then be taught the dialogues of `help_desk`: the same facts and words, told
as prose and not as dialogues. Generated from a few hundred phrases; not a benchmark. Knows nothing of splits.
"""

import itertools
import random
from collections.abc import Iterator, Sequence

from models.samples import knowledge
from models.samples.knowledge import DAYS, MONTHS, NAMES, NUMBERS, PRODUCTS, TOWNS, Product, Town, a, clock, listed
from models.samples.visits import VISITS

DIARIES = 420
COMPARISONS = 120

RULES = (
    "Returns\n\nA customer may return a product within {days} days and gets the whole price back. It does not matter "
    "why. We count from the day of the purchase. After {days} days we cannot take anything back, but the warranty "
    "goes on: what breaks while it lasts is repaired free of charge. Please be polite when you say no, and give the "
    "number of days that have passed.",
    "Delivery\n\nDelivery costs {cost} euros. It is free for orders of at least {free} euros. Express delivery costs "
    "{express} euros more and arrives on the next day. Every order is packed in our warehouse first, then it is sent, "
    "and two days later it should be delivered. The driver takes wrong parcels back.",
    "Orders\n\nEvery order has a number of five digits. Ask for it before you look anything up. An order can be "
    "cancelled, and its address can be changed, for as long as it is being packed. When it is on its way it is too "
    "late. The customer can then send the goods back within {days} days.",
    "Passwords\n\nWhen a customer cannot log in, ask for the e-mail address and send a link to it. The link can be "
    "used for {link} minutes. The customer opens the message and chooses a new password. Never ask for the old one.",
    "Repairs\n\nFirst give a tip: most faults can be mended at home. If it does not help, ask when the product was "
    "bought. While the warranty lasts the repair is free of charge. After that it costs half the price of the product. "
    "The customer may bring the product to any shop while it is open and should make an appointment.",
    "Wrong parcels\n\nWhen there is a wrong product in a parcel, say that you are sorry for our mistake. Send the "
    "right product on the same day. The customer gives the wrong one to the driver and pays nothing.",
    "Tone\n\nA good answer is short and polite. It repeats the name of the product, the town or the number of the "
    "order, so that the customer sees what is meant. It says what we can do, and if we can do nothing it says why. We "
    "know nothing about the weather, football or recipes, and we say so. Then we offer to help with orders, products "
    "and our shops.",
    "Invoices\n\nAn invoice is sent by e-mail. Ask for the number of the order and the address, and repeat both.",
)


def dialogue_text() -> Iterator[dict[str, str]]:
    """Rows of `text`: articles of the help desk's handbook, then diaries of single days. About half a million
    characters; documents are distinct, 100 to 1,300 characters each, paragraphs parted by a blank line."""
    rng = random.Random(2_018)
    documents = itertools.chain(
        _rules(),
        (_product_page(rng, product) for product in PRODUCTS),
        (_shop_page(town) for town in TOWNS),
        (_stock_page(town) for town in TOWNS),
        (_comparison(rng, *pair) for pair in rng.sample(list(itertools.combinations(PRODUCTS, 2)), COMPARISONS)),
        (_diary(rng) for _ in range(DIARIES)),
    )
    for text in documents:
        yield {"text": text}


def _rules() -> Iterator[str]:
    for rule in RULES:
        yield rule.format(
            days=knowledge.RETURN_DAYS,
            cost=knowledge.DELIVERY_COST,
            free=knowledge.FREE_DELIVERY,
            express=knowledge.EXPRESS_COST,
            link=knowledge.LINK_MINUTES,
        )
    vouchers = [f"{code} takes {share} per cent off" for code, share in sorted(knowledge.VOUCHERS.items())]
    yield f"Vouchers\n\nThere are {NUMBERS[len(vouchers)]} vouchers. {'. '.join(vouchers)}. Use one at a time."


def _product_page(rng: random.Random, product: Product) -> str:
    count = rng.randrange(2, 6)
    years = f"{NUMBERS[product.warranty]} year{'s' if product.warranty > 1 else ''}"
    cost = knowledge.delivery_cost(product.price)
    delivery = "Its delivery is free." if not cost else f"Its delivery costs {cost} euros."
    shops = [town.name for town in TOWNS if knowledge.in_stock(product, town)]
    return (
        f"The {product.name}\n\n"
        f"The {product.name} is made for {product.use}. It comes in {listed(product.colours)}. "
        f"It costs {product.price} euros, so {NUMBERS[count]} {product.plural} cost {count * product.price} euros. "
        f"{delivery} The warranty lasts {years}.\n\n"
        f"Sometimes {a(product.name)} {product.fault}. In that case, {product.tip}. If this does not help, we repair "
        f"it: free of charge within {years}, later for {product.price // 2} euros.\n\n"
        f"You can buy it in our shops in {listed(shops)}."
    )


def _shop_page(town: Town) -> str:
    saturday = (
        f"On Saturday it closes at {clock(town.saturday)}." if town.saturday else "It does not open on Saturday at all."
    )
    return (
        f"Our shop in {town.name}\n\n"
        f"You find our shop in {town.name} at {town.street}. From Monday to Friday it is open from {clock(town.opens)} "
        f"to {clock(town.closes)}. {saturday} On Sunday it is closed. Bring your broken things at any time between "
        f"{clock(town.opens)} and {clock(town.closes)}, but please make an appointment first."
    )


def _stock_page(town: Town) -> str:
    """The next shop has all that this one lacks."""
    there = [product.plural for product in PRODUCTS if knowledge.in_stock(product, town)]
    missing = [product for product in PRODUCTS if not knowledge.in_stock(product, town)]
    elsewhere = (
        f"For {listed([product.plural for product in missing])} go to {knowledge.shop_with(missing[0], town).name}."
    )
    return f"In stock in {town.name}\n\nThe shop in {town.name} has {listed(there)}. {elsewhere}"


def _comparison(rng: random.Random, first: Product, second: Product) -> str:
    low, high = sorted((first, second), key=lambda product: product.price)
    lasting, other = sorted((first, second), key=lambda product: -product.warranty)
    years = (NUMBERS[lasting.warranty], NUMBERS[other.warranty])
    title = rng.choice((f"{low.name} or {high.name}?", f"Which one: the {high.name} or the {low.name}?"))
    name = rng.choice(NAMES)
    prices = f"The {low.name} costs {low.price} euros and the {high.name} {high.price} euros"
    gap = f", which is {high.price - low.price} euros more." if high.price > low.price else ": no difference there."
    longer = f"longer for the {lasting.name}" if lasting.warranty > other.warranty else "the same for both"
    end = rng.choice(
        (
            f"In the end {name} took both and paid {low.price + high.price} euros.",
            f"{name} thought of {low.use} and chose the {low.name}.",
            f"{name} thought of {high.use} and chose the {high.name}.",
        )
    )
    return (
        f"{title[0].upper()}{title[1:]}\n\n{name} could not choose between {a(first.name)} and {a(second.name)} and "
        f"asked the help desk. {prices}{gap} The warranty is {longer}: {years[0]} against {years[1]} years. "
        f"The {first.name} comes in {listed(first.colours)}, the {second.name} in {listed(second.colours)}. {end}"
    )


def _diary(rng: random.Random) -> str:
    """A day at the desk: five to nine customers, each a few sentences."""
    day, date, month = rng.choice(DAYS), rng.randrange(1, 29), rng.choice(MONTHS)
    clerk, *names = rng.sample(NAMES, rng.randrange(6, 11))
    opening = rng.choice(
        (
            f"On {day}, {date} {month}, {clerk} answered the questions of our customers.",
            f"It was {day}, {date} {month}, and {clerk} sat at the help desk.",
            f"{clerk} worked at the help desk on {date} {month}, which was a {day}.",
        )
    )
    visits = [visit(rng, name) for visit, name in zip(rng.sample(VISITS, len(names)), names, strict=True)]
    count = NUMBERS[len(names)].capitalize() if len(names) < len(NUMBERS) else "Many"
    closing = rng.choice(
        (
            f"Then {clerk} went home.",
            f"{count} customers were helped that day.",
            f"{clerk} was glad when the day was over.",
            "It was a long day, and nobody had to wait.",
        )
    )
    return "\n\n".join((opening, *_paragraphs(visits), closing))


def _paragraphs(visits: Sequence[str]) -> Iterator[str]:
    """Two visits a paragraph."""
    for start in range(0, len(visits), 2):
        yield " ".join(visits[start : start + 2])
