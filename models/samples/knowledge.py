"""What the invented help desk knows: its shops, its products and its rules.

Facts alone, so that dialogues, preferences and articles agree. The shop, its towns and its customers are made up.
Knows nothing of how anything is phrased, but for the few words that a fact needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

RETURN_DAYS = 30
FREE_DELIVERY = 50
"""From this amount in euros delivery is free."""
DELIVERY_COST = 5
EXPRESS_COST = 9
LINK_MINUTES = 30
"""How long the link to a new password can be used."""


@dataclass(frozen=True)
class Product:
    """price: in euros. warranty: in years. fault: what most often goes wrong, after `my kettle`. tip: what helps
    against it, as an order. use: what it is for, after `it is made for`."""

    name: str
    plural: str
    price: int
    warranty: int
    colours: tuple[str, str]
    fault: str
    tip: str
    use: str


@dataclass(frozen=True)
class Town:
    """A shop by its town. opens, closes: full hours on Monday to Friday. saturday: when it closes on Saturday, 0 for
    not open at all; it opens at the same hour as on other days. No shop is open on Sunday."""

    name: str
    street: str
    opens: int
    closes: int
    saturday: int

    def hours(self, day: str) -> tuple[int, int] | None:
        """When the shop opens and closes on a day of the week, None when it stays closed."""
        if day == "Sunday" or (day == "Saturday" and not self.saturday):
            return None
        return self.opens, self.saturday if day == "Saturday" else self.closes


PRODUCTS = (
    Product(
        "kettle",
        "kettles",
        24,
        2,
        ("white", "black"),
        "does not get hot",
        "fill it at least to the lower line",
        "tea and soup",
    ),
    Product(
        "desk lamp",
        "desk lamps",
        40,
        3,
        ("grey", "green"),
        "flickers",
        "turn the bulb until it sits tight",
        "reading at night",
    ),
    Product(
        "toaster",
        "toasters",
        32,
        2,
        ("silver", "red"),
        "burns the bread",
        "empty the tray and choose level two",
        "four slices of bread",
    ),
    Product(
        "keyboard",
        "keyboards",
        55,
        3,
        ("black", "white"),
        "does not answer",
        "change both batteries",
        "long days of writing",
    ),
    Product(
        "radio",
        "radios",
        48,
        2,
        ("brown", "blue"),
        "only makes noise",
        "pull the aerial out to its full length",
        "the kitchen and the garden",
    ),
    Product(
        "blender",
        "blenders",
        65,
        2,
        ("white", "red"),
        "stops after a minute",
        "let it cool down for ten minutes",
        "fruit and vegetables",
    ),
    Product(
        "heater",
        "heaters",
        80,
        4,
        ("white", "grey"),
        "switches itself off",
        "move it away from the wall",
        "small rooms",
    ),
    Product(
        "alarm clock",
        "alarm clocks",
        18,
        1,
        ("yellow", "blue"),
        "rings at the wrong time",
        "set the time zone again",
        "people who sleep deeply",
    ),
    Product(
        "bike light",
        "bike lights",
        15,
        1,
        ("black", "silver"),
        "goes out on bumps",
        "tighten the screw below it",
        "dark roads",
    ),
    Product(
        "coffee grinder",
        "coffee grinders",
        70,
        3,
        ("black", "copper"),
        "is stuck",
        "take the beans out and brush the blades",
        "fresh coffee",
    ),
    Product(
        "office chair",
        "office chairs",
        120,
        5,
        ("black", "grey"),
        "sinks slowly",
        "press the lever down until it clicks",
        "eight hours at a desk",
    ),
    Product(
        "monitor",
        "monitors",
        150,
        3,
        ("black", "white"),
        "stays dark",
        "pull the plug for one minute",
        "games and films",
    ),
    Product(
        "headset",
        "headsets",
        60,
        2,
        ("black", "pink"),
        "has no sound on the left",
        "push the plug in until it clicks",
        "calls and music",
    ),
    Product(
        "printer",
        "printers",
        110,
        2,
        ("white", "grey"),
        "prints stripes",
        "start the cleaning twice",
        "letters and photographs",
    ),
    Product(
        "router",
        "routers",
        90,
        3,
        ("white", "black"),
        "loses the network",
        "hold the button at the back for five seconds",
        "flats of up to four rooms",
    ),
    Product("scale", "scales", 22, 2, ("white", "green"), "shows a wrong weight", "put it on a hard floor", "baking"),
    Product("fan", "fans", 35, 2, ("white", "blue"), "rattles", "tighten the ring around the grid", "hot nights"),
    Product(
        "torch", "torches", 12, 1, ("red", "black"), "is too weak", "clean the contacts with a dry cloth", "camping"
    ),
    Product(
        "rucksack",
        "rucksacks",
        75,
        5,
        ("green", "orange"),
        "has a stuck zip",
        "rub the zip with a candle",
        "walks of several days",
    ),
    Product(
        "vacuum cleaner",
        "vacuum cleaners",
        130,
        4,
        ("red", "grey"),
        "has lost its power",
        "wash the filter and let it dry",
        "carpets and wooden floors",
    ),
)
TOWNS = (
    Town("Oakridge", "12 Mill Lane", 9, 18, 14),
    Town("Westmere", "3 Harbour Street", 10, 19, 16),
    Town("Northhaven", "45 Station Road", 8, 17, 0),
    Town("Larkfield", "7 Church Square", 9, 17, 13),
    Town("Stonebrook", "28 Bridge Street", 10, 20, 18),
    Town("Fernvale", "61 Garden Row", 8, 18, 12),
    Town("Millford", "5 Market Place", 9, 19, 15),
    Town("Eastbury", "90 Park Avenue", 10, 18, 0),
)
VOUCHERS = {"WELCOME": 10, "SPRING": 20, "THANKS": 25, "FRIENDS": 50}
"""Per cent off, by the code."""

NAMES = (
    *("Mara", "Tom", "Elin", "Jonas", "Priya", "Samuel", "Nora", "Felix", "Aisha", "Ben", "Clara", "David", "Emma"),
    *("Farid", "Greta", "Hugo", "Ines", "Jakob", "Kim", "Liam", "Mina", "Noah", "Olga", "Pavel", "Rosa", "Sven"),
    *("Tara", "Umut", "Vera", "Wanda", "Yusuf", "Zoe"),
)
STREETS = ("Rose Lane", "High Street", "River Road", "Forest Way", "Hill Street", "Lake View", "School Lane")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September", "October"),
    *("November", "December"),
)
NUMBERS = ("no", "one", "two", "three", "four", "five", "six")


def status(order: int) -> str:
    """Where an order is, by the last digit of its number: packed, sent or delivered."""
    return "packed" if order % 10 < 3 else "sent" if order % 10 < 7 else "delivered"


def delivery_cost(amount: int) -> int:
    """In euros, for goods of `amount` euros."""
    return 0 if amount >= FREE_DELIVERY else DELIVERY_COST


def in_stock(product: Product, town: Town) -> bool:
    """Two of three shops have a product."""
    return (PRODUCTS.index(product) + TOWNS.index(town)) % 3 != 0


def shop_with(product: Product, after: Town) -> Town:
    """The next shop in the list that has the product."""
    start = TOWNS.index(after)
    return next(town for town in (*TOWNS[start + 1 :], *TOWNS) if in_stock(product, town))


def clock(hour: int) -> str:
    """A full hour from 1 to 23 as people say it."""
    return "noon" if hour == 12 else f"{hour} am" if hour < 12 else f"{hour - 12} pm"


def a(words: str) -> str:
    """With the indefinite article."""
    return f"{'an' if words[0] in 'aeio' else 'a'} {words}"


def listed(words: Sequence[str]) -> str:
    """Two or more words as a list: `one, two and three`."""
    return f"{', '.join(words[:-1])} and {words[-1]}"
