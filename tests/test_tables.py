"""Rows of tables: schemas, and splits by group."""

import math
import random
from collections import Counter

import pytest
import torch
from sklearn.model_selection import StratifiedGroupKFold

from mmscratch.tables import (
    MAX_CATEGORIES,
    Schema,
    is_missing,
    parse_number,
    split_groups,
)

ROWS = [
    {"age (years)": "30", "sex": "male", "visit": "2020-01-01", "smoker": "yes", "note": ""},
    {"age (years)": "50", "sex": "Female", "visit": "2020-12-31", "smoker": "No", "note": "NA"},
    {"age (years)": "", "sex": "female", "visit": "2021-07-02", "smoker": "no", "note": " "},
]


@pytest.mark.parametrize(
    "cell, number",
    [
        ("12", 12),
        (" -3.5 ", -3.5),
        ("1e3", 1000),
        ("1,250,000", 1250000),
        ("$869,500", 869500),
        ("2019-01-01", 2019),
        ("2020-12-31", 2020 + 365 / 365.25),
        ("12 cm", None),
        ("nan", None),
        ("inf", None),
        ("", None),
        ("2019-13-01", None),
    ],
)
def test_numbers_and_dates_are_parsed(cell, number):
    assert parse_number(cell) == number


@pytest.mark.parametrize(
    "cell", ["", "  ", "NA", "n/a", "NaN", "null", "None", "unknown", "-", "?"]
)
def test_missing_cells(cell):
    assert is_missing(cell)


@pytest.mark.parametrize("cell", ["0", "no", "false", "nano", "0.0"])
def test_zero_is_not_missing(cell):
    assert not is_missing(cell)


def test_a_schema_has_means_scales_and_categories_of_the_training_rows():
    schema = Schema.learn(ROWS)
    assert [column.name for column in schema.columns] == ["age (years)", "sex", "visit", "smoker"]
    age, sex, visit, smoker = schema.columns
    assert (age.mean, age.scale, age.values) == (40, 10, ())
    assert sex.values == ("female", "male") and smoker.values == ("no", "yes")
    dates = [2020, 2020 + 365 / 365.25, 2021 + 182 / 365.25]
    mean = sum(dates) / 3
    assert visit.mean == pytest.approx(mean)
    assert visit.scale == pytest.approx(math.sqrt(sum((date - mean) ** 2 for date in dates) / 3))
    assert schema.num_categories() == [0, 3, 0, 3]


def test_rows_are_encoded():
    schema = Schema.learn(ROWS)
    row = {"age (years)": "60", "sex": "FEMALE", "visit": "?", "smoker": "sometimes", "more": "x"}
    encoded = schema.encode(row)
    assert encoded[:2].tolist() == [2, 1] and encoded[2].isnan() and encoded[3] == 0
    assert schema.encode({}).isnan().all()  # a column that is not there is missing
    assert schema.encode(row | {"age (years)": "0"})[0] == -4  # 0 is a number


def test_encoding_does_not_depend_on_rows_that_were_not_for_training():
    schema = Schema.learn(ROWS[:2])
    before = schema.encode(ROWS[0])
    schema.encode({"age (years)": "1000", "sex": "other"})
    assert torch.equal(schema.encode(ROWS[0]), before)


def test_a_number_that_is_none_is_named():
    with pytest.raises(ValueError, match=r"age \(years\)"):
        Schema.learn(ROWS).encode({"age (years)": "old"})


def test_a_column_with_one_odd_cell_in_ten_holds_numbers():
    cells = [str(i) for i in range(9)] + ["about 9"]
    (column,) = Schema.learn([{"a": cell} for cell in cells]).columns
    assert column.mean == 4 and not column.values
    (column,) = Schema.learn([{"a": cell} for cell in [*cells, "ten"]]).columns
    assert len(column.values) == 11


def test_equal_numbers_have_a_scale_of_one():
    schema = Schema.learn([{"a": "7"}, {"a": "7"}])
    assert schema.encode({"a": "8"}).tolist() == [1]


def test_a_column_that_names_rows_is_refused():
    rows = [{"id": f"row {i}"} for i in range(MAX_CATEGORIES + 1)]
    with pytest.raises(ValueError, match="column 'id' has 101 different texts"):
        Schema.learn(rows)
    assert Schema.learn(rows[:-1]).num_categories() == [MAX_CATEGORIES + 1]
    with pytest.raises(ValueError, match="at least one row"):
        Schema.learn([])


def test_a_schema_is_saved_and_read_again():
    schema = Schema.learn(ROWS)
    again = Schema.from_state(schema.state())
    assert again.columns == schema.columns


# -------------------------------------------------------------------------------------------------
# Splits by group.


def table_of_groups(count, seed=0):
    """Groups of 1 to 6 rows, all of the same class, one of which is rare."""
    chance = random.Random(seed)
    groups, labels = [], []
    for i in range(count):
        label = chance.choices("abc", (70, 25, 5))[0]
        for _ in range(chance.randint(1, 6)):
            groups.append(f"group {i}")
            labels.append(label)
    return groups, labels


@pytest.mark.parametrize("shares", [(70, 15, 15), (1, 1), (1, 1, 1, 1, 1)])
def test_a_group_is_in_one_part_and_parts_have_their_share_of_each_class(shares):
    groups, labels = table_of_groups(400)
    parts = split_groups(groups, labels, shares)
    assert len({*zip(groups, parts)}) == 400
    totals = Counter(labels)
    for part, share in enumerate(shares):
        counts = Counter(label for label, p in zip(labels, parts) if p == part)
        for label, total in totals.items():
            assert counts[label] == pytest.approx(total * share / sum(shares), abs=4)


def test_folds_are_as_balanced_as_those_of_scikit_learn():
    groups, labels = table_of_groups(83, seed=1)

    def imbalance(folds):
        counts = Counter(zip(folds, labels))
        totals = Counter(labels)
        return sum((counts[f, c] - totals[c] / 5) ** 2 for f in range(5) for c in totals)

    theirs = [0] * len(groups)
    for fold, (_, test) in enumerate(StratifiedGroupKFold(5).split(groups, labels, groups)):
        for i in test:
            theirs[i] = fold
    assert imbalance(split_groups(groups, labels, [1] * 5)) <= imbalance(theirs)


def test_the_split_depends_on_seed_and_groups_and_not_on_the_order_of_the_rows():
    groups, labels = table_of_groups(60)
    parts = dict(zip(groups, split_groups(groups, labels, (3, 1))))
    assert parts == dict(zip(groups, split_groups(groups, labels, (3, 1))))
    order = list(range(len(groups)))
    random.Random(2).shuffle(order)
    shuffled = split_groups([groups[i] for i in order], [labels[i] for i in order], (3, 1))
    assert parts == {groups[i]: part for i, part in zip(order, shuffled)}
    assert parts != dict(zip(groups, split_groups(groups, labels, (3, 1), seed=1)))


def test_fewer_groups_than_parts_are_refused():
    with pytest.raises(ValueError):
        split_groups(["a", "b", "a"], [0, 1, 0], (1, 1, 1))
