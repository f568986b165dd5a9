"""Figures show what they should: colours, every caption, nothing cut off, no empty boxes."""

import json

import pytest
import torch
from matplotlib.colors import to_rgb

from mmscratch import plots
from mmscratch.plots import GREEN, GREY, RED, attention_sheet, caption_sheet, learning_curves


def pictures(n):
    return list(torch.randint(0, 256, (n, 3, 31, 31), dtype=torch.uint8))


def test_right_captions_are_green_wrong_ones_red_with_the_nearest_reference_in_grey():
    references = [[["a", "red", "star"]], [["a", "big", "cat"], ["the", "blue", "anchor", "sinks"]]]
    written = [["a", "red", "star"], ["the", "red", "anchor", "sinks"]]
    right, wrong, nearest = caption_sheet(pictures(2), written, references).texts
    assert (right.get_text(), right.get_color()) == ("a red star", GREEN)
    assert (wrong.get_text(), wrong.get_color()) == ("the red anchor sinks", RED)
    assert (nearest.get_text(), nearest.get_color()) == ("the blue anchor sinks", GREY)


@pytest.mark.parametrize("n", [1, 3, 5, 12])
def test_nothing_is_cut_off_and_nothing_overlaps(n):
    long = "there is a very long caption that goes on and on until it needs five lines to be written out in full".split()
    figure = caption_sheet(pictures(n), [long] * n, [[long[::-1]]] * n)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.texts]
    boxes += [axis.images[0].get_window_extent() for axis in figure.axes if axis.images]
    assert len(boxes) == 3 * n
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_pictures_stand_upright_in_true_colours():
    picture = torch.zeros(3, 4, 6, dtype=torch.uint8)
    picture[0, 0, :] = 255  # the first row is red
    shown = caption_sheet([picture], [["x"]]).axes[0].images[0]
    assert shown.get_array().shape == (4, 6, 3)
    assert tuple(shown.get_array()[0, 0]) == (255, 0, 0)
    assert shown.origin == "upper"


def test_chinese_without_a_font_is_printed_and_never_drawn_as_boxes(monkeypatch, capsys):
    monkeypatch.setattr(plots, "_chinese_fonts", list)
    (text,) = caption_sheet(pictures(1), [list("一颗红色的大星星")]).texts
    assert text.get_text() == "(1)"
    assert "(1) 一颗红色的大星星" in capsys.readouterr().out


def test_learning_curves_show_both_losses(tmp_path):
    entries = [{"step": 1, "loss": 3.0}, {"step": 5, "loss": 2.0}, {"step": 5, "validation_loss": 2.5}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, entries)))
    axis = learning_curves(tmp_path / "metrics.jsonl").axes[0]
    training, validation = axis.lines
    assert list(training.get_ydata()) == [3.0, 2.0] and list(validation.get_ydata()) == [2.5]
    assert to_rgb(training.get_color()) != to_rgb(validation.get_color())
    assert axis.get_xlabel() and axis.get_ylabel()


def test_an_attention_sheet_is_lit_where_the_weights_are():
    words, maps = "a red star above".split(), torch.zeros(4, 8, 8)
    for t, place in enumerate(places := [(0, 0), (7, 0), (2, 5), (6, 6)]):
        maps[t][place] = 0.9
    figure = attention_sheet([torch.full((3, 64, 64), 255, dtype=torch.uint8)], [words], [maps])
    assert [text.get_text() for text in figure.texts] == ["", *words]
    whole, *lit = [axis.images[0].get_array() for axis in figure.axes]
    assert (whole == 1).all()
    for picture, (row, column) in zip(lit, places):
        y, x = divmod(int(picture[..., 0].argmax()), 64)
        assert (y // 8, x // 8) == (row, column) and picture.max() == pytest.approx(1)
        assert picture[(8 * row + 36) % 64, (8 * column + 36) % 64].max() < 0.4  # half a picture away


@pytest.mark.parametrize("lengths", [[3], [7, 8], [16, 1, 9]])
def test_nothing_of_an_attention_sheet_is_cut_off(lengths):
    captions = [["lightning"] * n for n in lengths]
    figure = attention_sheet(pictures(len(lengths)), captions, [torch.rand(n, 5, 5) for n in lengths])
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.texts if text.get_text()]
    boxes += [axis.images[0].get_window_extent() for axis in figure.axes]
    assert len(boxes) == 2 * sum(lengths) + len(lengths)
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:i])
