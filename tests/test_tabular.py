"""The encoder of rows: against rtdl_revisiting_models, and with missing cells."""

import math

import pytest
import rtdl_revisiting_models
import torch
from helpers import assert_same_gradients
from torch.testing import assert_close

from mmscratch.tabular import TableEncoder

NUM_CATEGORIES = [0, 3, 5, 0, 2, 0]


def reference_tokens(encoder, rows):
    """What rtdl_revisiting_models makes of the same weights: numbers first, then categories."""
    linear = rtdl_revisiting_models.LinearEmbeddings(3, 7)
    categorical = rtdl_revisiting_models.CategoricalEmbeddings([3, 5, 2], 7)
    linear.weight = encoder.weight
    linear.bias = torch.nn.Parameter(encoder.bias[:3].detach())
    categorical.bias = torch.nn.Parameter(encoder.bias[3:].detach())
    first = 0
    for table, count in zip(categorical.embeddings, [3, 5, 2]):
        table.weight = torch.nn.Parameter(encoder.embedding.weight[first : first + count].detach())
        first += count
    numbers = linear(rows[:, [0, 3, 5]])
    return torch.cat([numbers, categorical(rows[:, [1, 2, 4]].long())], dim=1)


def random_rows(count):
    columns = []
    for categories in NUM_CATEGORIES:
        if categories:
            columns.append(torch.randint(categories, (count,)).float())
        else:
            columns.append(torch.randn(count))
    return torch.stack(columns, dim=1)


def test_tokens_are_those_of_rtdl_revisiting_models():
    encoder = TableEncoder(7, NUM_CATEGORIES)
    rows = random_rows(11)
    memory = encoder(rows)
    assert encoder.order == [0, 3, 5, 1, 2, 4] and memory.mask.all()
    assert_close(memory.tokens, reference_tokens(encoder, rows))


def test_gradients_are_those_of_the_formula():
    encoder = TableEncoder(7, [0, 3]).double()
    rows = torch.stack([torch.randn(5), torch.randint(3, (5,))], dim=1).double()
    tokens = encoder(rows).tokens
    numbers = rows[:, :1, None] * encoder.weight + encoder.bias[:1]
    one_hot = torch.nn.functional.one_hot(rows[:, 1].long(), 3).double()
    categories = (one_hot @ encoder.embedding.weight + encoder.bias[1]).unsqueeze(1)
    expected = torch.cat([numbers, categories], dim=1)
    assert_same_gradients(encoder, encoder, [tokens], [expected], [])


@pytest.mark.parametrize("missing", [0, 1, 4, 5])
def test_a_missing_column_is_as_if_it_were_not_there(missing):
    encoder = TableEncoder(8, NUM_CATEGORIES, num_layers=2, num_heads=2).eval()
    rows = random_rows(5)
    rows[:, missing] = math.nan
    before = rows.clone()
    memory = encoder(rows)
    assert_close(rows, before, rtol=0, atol=0, equal_nan=True)  # not changed
    place = encoder.order.index(missing)
    assert not memory.mask[:, place].any() and memory.mask.sum() == 25
    assert not memory.tokens.isnan().any()

    kept = [i for i in range(6) if i != missing]
    smaller = TableEncoder(8, [NUM_CATEGORIES[i] for i in kept], num_layers=2, num_heads=2).eval()
    smaller.blocks, smaller.norm = encoder.blocks, encoder.norm
    places = [encoder.order.index(kept[i]) for i in smaller.order]
    smaller.bias.data = encoder.bias.data[places]
    numbers = [i for i in kept if not NUM_CATEGORIES[i]]
    smaller.weight.data = encoder.weight.data[[[0, 3, 5].index(i) for i in numbers]]
    starts = {1: 0, 2: 3, 4: 8}
    words = [starts[i] + k for i in kept if NUM_CATEGORIES[i] for k in range(NUM_CATEGORIES[i])]
    smaller.embedding.weight.data = encoder.embedding.weight.data[words]
    expected = smaller(rows[:, kept])
    assert_close(memory.tokens[:, places], expected.tokens)


def test_a_row_without_any_value_has_nothing_to_attend_to():
    encoder = TableEncoder(8, NUM_CATEGORIES, num_layers=1, num_heads=2)
    memory = encoder(torch.full((2, 6), math.nan))
    assert not memory.mask.any() and memory.tokens.isfinite().all()


@pytest.mark.parametrize("num_categories", [[0, 0], [3, 2]], ids=["numbers", "categories"])
def test_tables_of_one_kind_of_column(num_categories):
    memory = TableEncoder(4, num_categories)(torch.ones(3, 2))
    assert memory.tokens.shape == (3, 2, 4)


def test_blocks_and_a_norm_follow():
    encoder = TableEncoder(8, NUM_CATEGORIES, num_layers=2, num_heads=2).eval()
    torch.nn.init.normal_(encoder.norm.weight)
    torch.nn.init.normal_(encoder.norm.bias)
    plain = TableEncoder(8, NUM_CATEGORIES)
    plain.load_state_dict(
        {name: x for name, x in encoder.state_dict().items() if name in plain.state_dict()}
    )
    rows = random_rows(5)
    x = plain(rows).tokens
    for block in encoder.blocks:
        x, _, _ = block(x)
    assert_close(encoder(rows).tokens, encoder.norm(x))
