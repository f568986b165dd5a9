"""Listings: things for sale, with a picture, a form, and a price by a rule that is known.

Some of what makes the price is only in the picture, some only in the form, and some is chance. So
it is known how well a price can be predicted from either and from both, and every claim about
"does the picture help?" can be checked.

    listing = Listing(7)                        # every number is a listing, always the same one
    listing.form, listing.price                 # {"age (years)": "12", …}, in euros
    expected_log_price(listing, "row")          # the best that anybody can say who sees the form
"""

import math
import random
from collections.abc import Collection, Sequence
from functools import cache, partial

from ..tables import Schema
from .dataset import DataSet, LazyColumn
from .scenes import COLOURS, NOUNS, SIZES, Scene, draw, first_of_split
from .tables import Target, learn_target

# The logarithm of a price is a sum of these. Only the picture shows the thing and its colour:
THING = {noun: 4.0 + 1.6 * (7 * i % 32) / 31 for i, noun in enumerate(NOUNS)}
COLOUR = {colour: 0.08 * (i - 3.5) for i, colour in enumerate(COLOURS)}
# both show how large it is, if the seller has stated it:
SIZE = {"small": 0.0, "big": 0.5}
# only the form shows the rest:
PER_YEAR = -0.05  # of age, from 0 to 20 years
CONDITION = {"new": 0.0, "good": -0.2, "worn": -0.5, "broken": -1.0}
SELLER = {"private": 0.0, "shop": 0.2}
NOISE = 0.15  # the standard deviation of what nobody can know
STATED = 0.7  # the share of sellers who state the size
OLDEST = 20
CENTIMETRES = {"small": (15, 30), "big": (31, 50)}
PRICE = "price (EUR)"
LEARNED_FROM = 2000  # training listings, from which the columns and brackets are learned


class Listing:
    """The listing with this number: `form`, `scene`, `log_price`, and `price` in whole euros."""

    def __init__(self, number: int):
        chance = random.Random(f"listing {number}")
        self.number = number
        self.noun = chance.choice(tuple(NOUNS))
        self.colour = chance.choice(tuple(COLOURS))
        self.size = chance.choice(tuple(SIZES))
        self.age = chance.randint(0, OLDEST)
        self.condition = chance.choice(tuple(CONDITION))
        self.seller = chance.choice(tuple(SELLER))
        self.is_stated = chance.random() < STATED
        centimetres = chance.randint(*CENTIMETRES[self.size])
        noise = chance.gauss(0, NOISE)
        self.scene = Scene.compose(chance, [(self.size, self.colour, self.noun)])
        self.form = {
            "size (cm)": str(centimetres) if self.is_stated else "",
            "age (years)": str(self.age),
            "condition": self.condition,
            "seller": self.seller,
        }
        self.log_price = expected_log_price(self) + noise
        self.price = round(math.exp(self.log_price))


def expected_log_price(
    listing: Listing, known: str = "both", things: Collection[str] = NOUNS.keys()
) -> float:
    """What the logarithm of a price is on average, if the picture ("image"), the form ("row") or
    both are known, and that it is one of these things. No prediction has a smaller squared error.
    """
    sees = known in ("both", "image")
    reads = known in ("both", "row")
    knows_size = sees or (reads and listing.is_stated)
    return (
        (THING[listing.noun] if sees else _mean({thing: THING[thing] for thing in things}))
        + (COLOUR[listing.colour] if sees else _mean(COLOUR))
        + (SIZE[listing.size] if knows_size else _mean(SIZE))
        + PER_YEAR * (listing.age if reads else OLDEST / 2)
        + (CONDITION[listing.condition] if reads else _mean(CONDITION))
        + (SELLER[listing.seller] if reads else _mean(SELLER))
    )


def _mean(values: dict[str, float]) -> float:
    return sum(values.values()) / len(values)


@cache
def learned() -> tuple[Schema, Target]:
    """The schema of the form and the brackets of the price, from some training listings."""
    listings = [Listing(i) for i in range(LEARNED_FROM)]
    schema = Schema.learn([listing.form for listing in listings])
    return schema, learn_target(PRICE, [str(listing.price) for listing in listings])


class Listings(DataSet):
    """The first `count` listings of a split, drawn on access: pictures and forms.

    inputs  "both", or only "image" or "row"

    schema, target, labels, values and groups are those of `tables.TableData`.
    """

    most_files = 1

    def __init__(self, split: str, count: int, size: int = 64, inputs: str = "both"):
        super().__init__()
        first = first_of_split(split)
        self.set_listings([Listing(first + i) for i in range(count)], size, inputs)

    def set_listings(
        self, listings: Sequence[Listing], size: int = 64, inputs: str = "both"
    ) -> None:
        """Replace the examples by these listings."""
        self.listings = list(listings)
        self.schema, self.target = learned()
        self.names = [f"listing {listing.number}" for listing in self.listings]
        self.groups = self.names
        self.values = [float(listing.price) for listing in self.listings]
        self.labels = [self.target.label(str(listing.price)) for listing in self.listings]
        if inputs != "row" and size:
            scenes = [listing.scene for listing in self.listings]
            self.columns["image"] = LazyColumn(partial(draw, size=size), scenes)
        if inputs != "image":
            forms = [listing.form for listing in self.listings]
            self.columns["row"] = LazyColumn(self.schema.encode, forms)
        self.texts = [[label] for label in self.labels]
        self.references = [[[label]] for label in self.labels]
