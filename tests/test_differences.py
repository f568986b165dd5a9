"""What a checker says about a result that is not as expected."""

import pytest
import torch

from chapters.assignments.differences import describe, show_small

torch.manual_seed(0)
X = torch.randn(5, 7)
MASK = torch.rand(5, 7) > 0.5
SQUARE = torch.randn(3, 5, 5)
ROW = X.clone()
ROW[1:] += torch.rand(4, 7) + 1
COLUMN = X.clone()
COLUMN[:, 2] = 9
HOLED = X.clone()
HOLED[3] = float("nan")
CASES = {
    "divided by 13": (X / 13, X, "yours is the expected divided by 13"),
    "times 3": (3 * X, X, "yours is the expected times 3"),
    "divided by a root": (X / 7**0.5, X, "yours is the expected divided by the square root of 7"),
    "opposite sign": (-X, X, "opposite sign"),
    "another factor": (X * 1.234, X, "yours is the expected times 1.234"),
    "plus one": (X + 1, X, "yours is the expected plus 1 everywhere"),
    "zeros": (torch.zeros(5, 7), X, "yours is 0 everywhere"),
    "one row": (ROW, X, "right at 0 along dimension 0 only"),
    "one column": (COLUMN, X, "wrong at 2 along dimension 1 only"),
    "not a number": (HOLED, X, "yours is NaN in 7 of 35 places: in row 3"),
    "masked": (torch.where(MASK, X, 9.0), X, "right where mask is True, wrong elsewhere"),
    "transposed": (SQUARE.transpose(1, 2), SQUARE, "dimensions 1 and 2 exchanged"),
    "flipped": (X.flip(1), X, "in reverse order along dimension 1"),
    "shifted": (X.roll(1, 1), X, "shifted by one along dimension 1"),
    "permuted": (
        X[[1, 0, 2, 4, 3]][:, [3, 0, 1, 2, 6, 5, 4]],
        X,
        "the same numbers in another order",
    ),
    "shape": (X.T, X, "shape (7, 5), expected is (5, 7): its dimensions are in another order"),
    "left over": (X.unsqueeze(1), X, "a dimension of size 1 is left over"),
    "negated mask": (~MASK, MASK, "True and False are exchanged"),
    "another type": ((X, X), X, "yours is a tuple, expected is a Tensor"),
    "fewer parts": ((X,), (X, X), "yours has 1 parts, expected are 2"),
    "second part": ((X, X / 2), (X, X), "part 1: yours is the expected divided by 2"),
}


@pytest.mark.parametrize("got, expected, says", CASES.values(), ids=CASES)
def test_the_difference_is_described(got, expected, says):
    assert says in describe(got, expected, {"mask": MASK})


def test_nothing_is_said_where_there_is_nothing_plain_to_say():
    noise = torch.randn(5, 7)
    assert describe(noise, X, {"mask": MASK}) == ""
    assert describe(3, 4, {}) == "" and describe("a", "b", {}) == ""
    assert describe(X, X, {}) in ("", "yours is nearly the expected: the numbers are less exact")


def test_small_tensors_are_shown_whole():
    assert show_small(torch.tensor([[1, 0], [0, 1]])) == "[[1, 0], [0, 1]]"
    assert show_small(torch.tensor([0.5, 1 / 3])) == "[0.5, 0.3333]"
    assert show_small(torch.tensor([True])) == "[True]"
    assert show_small(X) == "" and show_small(torch.empty(0)) == "" and show_small(3) == ""
