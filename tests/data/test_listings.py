"""Listings: a price by a known rule, part of which is only in the picture or only in the form."""

import math
import random

import pytest
import torch

from mmscratch.classification import r_squared
from mmscratch.data import listings
from mmscratch.data.listings import Listing, Listings, expected_log_price
from mmscratch.data.scenes import draw, first_of_split


def many(count=4000):
    first = first_of_split("test")
    return [Listing(first + i) for i in range(count)]


def test_a_number_is_always_the_same_listing():
    one, other = Listing(7), Listing(7)
    assert (one.form, one.price, one.scene.objects) == (
        other.form,
        other.price,
        other.scene.objects,
    )
    assert Listing(8).form != one.form or Listing(8).price != one.price


def test_the_price_is_the_rule_plus_noise():
    noise = [each.log_price - expected_log_price(each) for each in many()]
    assert sum(noise) / len(noise) == pytest.approx(0, abs=0.01)
    spread = math.sqrt(sum(x * x for x in noise) / len(noise))
    assert spread == pytest.approx(listings.NOISE, rel=0.05)
    assert all(each.price == round(math.exp(each.log_price)) for each in many(50))


@pytest.mark.parametrize("known", ["image", "row"])
def test_what_is_not_known_is_averaged(known):
    """The expectation is the mean over listings that look, or read, the same."""
    chance = random.Random(0)
    for each in many(12):
        totals = []
        for _ in range(3000):
            other = Listing(chance.randrange(10**6))
            if known == "row":
                keep = ("age", "condition", "seller", "is_stated")
                keep += ("size",) if each.is_stated else ()
            else:
                keep = ("noun", "colour", "size")
            for name in keep:
                setattr(other, name, getattr(each, name))
            totals.append(expected_log_price(other))
        mean = sum(totals) / len(totals)
        assert expected_log_price(each, known) == pytest.approx(mean, abs=0.05)


def test_picture_and_form_each_explain_about_half():
    sample = many()
    true = torch.tensor([each.log_price for each in sample])
    explained = {}
    for known in ("both", "image", "row"):
        expected = torch.tensor([expected_log_price(each, known) for each in sample])
        explained[known] = r_squared(expected, true)
    assert explained["both"] == pytest.approx(0.96, abs=0.01)
    assert explained["image"] == pytest.approx(0.56, abs=0.03)
    assert explained["row"] == pytest.approx(0.51, abs=0.03)


def test_the_form_says_nothing_about_what_it_is():
    form = {name: set() for name in Listing(0).form}
    for each in many(300):
        for name, cell in each.form.items():
            form[name].add(cell)
        assert (each.form["size (cm)"] == "") != each.is_stated
    assert form["condition"] == set(listings.CONDITION) and form["seller"] == set(listings.SELLER)


@pytest.mark.parametrize(
    "inputs, modalities", [("both", {"image", "row"}), ("image", {"image"}), ("row", {"row"})]
)
def test_examples(inputs, modalities):
    data = Listings("validation", 5, 16, inputs)
    assert len(data) == 5 and data[3].keys() == modalities
    if "image" in modalities:
        assert torch.equal(data[3]["image"], draw(data.listings[3].scene, 16))
    if "row" in modalities:
        assert torch.equal(
            data[3]["row"].isnan(), data.schema.encode(data.listings[3].form).isnan()
        )
    assert data.labels[3] == data.target.label(str(data.listings[3].price))
    assert data.references[3] == [[data.labels[3]]] and data.values[3] == data.listings[3].price


def test_splits_never_meet():
    numbers = [data.listings[0].number for data in (Listings(s, 1, 0) for s in ("train", "test"))]
    assert numbers == [0, first_of_split("test")]
