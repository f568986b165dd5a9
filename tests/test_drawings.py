"""The drawings: each is called by its own chapter, and nothing in it is cut off."""

import ast
import importlib
import inspect
from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from chapters import drawings
from chapters.__main__ import book
from chapters.chapter import ROOT
from mmscratch.data.speech import Segment
from mmscratch.plots import caption_sheet

MODULES = sorted(path.stem for path in (ROOT / "chapters" / "drawings").glob("ch*.py"))

each_module = pytest.mark.parametrize("name", MODULES)


def module(name):
    return importlib.import_module(f"chapters.drawings.{name}")


def functions(name):
    """The drawings of a module, by name: the public functions that it defines."""
    found = {}
    for key, function in inspect.getmembers(module(name), inspect.isfunction):
        if function.__module__ == f"chapters.drawings.{name}" and not key.startswith("_"):
            found[key] = function
    return found


ALL = [f"{name}.{drawing}" for name in MODULES for drawing in functions(name)]

# ----------------------------------------------------------------------------------------------
# Who calls them


def imported_and_called(path):
    """The modules of drawings that a chapter imports, and the names it uses from them."""
    imported, called = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "chapters.drawings":
            imported |= {alias.name for alias in node.names}
        of_drawings = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if of_drawings and node.value.id == "drawings":
            called.add(node.attr)
    return imported, called


@pytest.mark.parametrize("entry", book(), ids=lambda entry: entry.path.stem)
def test_chapter_calls_all_of_its_own_drawings_and_no_others(entry):
    name = f"ch{entry.number:02}"
    imported, called = imported_and_called(entry.path)
    if name in MODULES:
        assert imported == {name} and called == set(functions(name))
    else:
        assert imported == called == set()


def test_each_module_belongs_to_a_chapter():
    assert set(MODULES) <= {f"ch{entry.number:02}" for entry in book()}


@each_module
def test_modules_and_drawings_have_docstrings(name):
    assert inspect.getdoc(drawings) and inspect.getdoc(module(name))
    assert all(inspect.getdoc(function) for function in functions(name).values())


# ----------------------------------------------------------------------------------------------
# What they draw

PICTURE = torch.arange(3 * 64 * 64).remainder(251).view(3, 64, 64).to(torch.uint8)
WORDS = "there is a big yellow skull left of a small red cow".split()
TEXT = " ".join(WORDS)
SEGMENTS = [
    Segment("scissors", "S", 0.12, 0.23),
    Segment("scissors", "IH", 0.23, 0.31),
    Segment("umbrella", "AH", 0.31, 0.47),
]
WORD_TIMES = [("scissors", 0.12, 0.31), ("umbrella", 0.31, 0.47)]
QUESTION = "what colour is the first thing right of the small purple pair of scissors?"


def some_attention(queries, keys, values, causal):
    """Made-up scores, weights and outputs of five words."""
    return [[0.5] * 5] * 5, [[0.2] * 5] * 5, [[0.75] * 4] * 5


EXAMPLES = {  # drawing -> its arguments
    "ch01.picture_and_caption": (PICTURE, WORDS[:6], range(4, 10)),
    "ch01.preprocessing": (Image.new("RGB", (60, 40)), PICTURE, PICTURE.float()),
    "ch01.padding_and_mask": (
        [[*"abcd", "<eos>"], ["a", "<eos>"], ["e", "b", "<eos>"]],
        torch.tensor([[5, 6, 7, 8, 2], [5, 2, 0, 0, 0], [9, 6, 2, 0, 0]]),
        torch.tensor([[5, 6, 7, 8, 2], [5, 2, 0, 0, 0], [9, 6, 2, 0, 0]]) != 0,
    ),
    "ch01.batches_as_blocks": (
        {
            "scene captions, not bucketed": [[(7, "red"), (3, "blue")], [(5, "blue")]],
            "scene captions, bucketed": [[(7, "red"), (5, "blue")], [(3, "blue")]],
        },
        {"red": "one object", "blue": "two"},
    ),
    "ch02.sliding_filter": (PICTURE, torch.arange(9.0).view(3, 3), torch.zeros(62, 62)),
    "ch02.stride_and_padding": ({(1, 0): 5, (1, 1): 7, (2, 0): 3, (2, 1): 4},),
    "ch02.what_filters_see": (
        {
            "blur": torch.ones(13, 17),
            "edges, top to bottom": torch.ones(13, 17),
            "red against the rest": torch.ones(13, 17),
            "outline": torch.ones(13, 17),
        },
    ),
    "ch02.receptive_fields": (
        PICTURE,
        {stage: ((16, 16), range(20, 31), range(21, 38)) for stage in ("stem", "layer1", "layer2")},
    ),
    "ch03.vector_becomes_sentence": (PICTURE, [*WORDS[:6], "<eos>"]),
    "ch04.words_look_back": (PICTURE, WORDS[2:7], SimpleNamespace(x=0.2, y=0.3)),
    "ch04.attention_tables": (
        ["the", "big", "red", "star", "above"],
        [[0, 5, 0, 5]] * 5,
        [[5, 0, 5, 0]] * 5,
        [[1, 0, 2, 0]] * 5,
        some_attention,
    ),
    "ch04.attention_masks": (
        {name: torch.ones(9, 9).tril() for name in ("all", "causal", "local", "picture, words")},
    ),
    "ch05.words_attend_to_objects": (
        PICTURE,
        WORDS,
        {5: SimpleNamespace(x=0.2, y=0.3), 11: SimpleNamespace(x=0.9, y=0.8)},
    ),
    "ch06.five_lines": (),
    "ch06.fetching_and_computing": (
        [
            ("no worker", [(0.9, 0.95, 1.0, 1.1), (1.1, 1.2, 1.2, 1.3)]),
            ("1 worker", [(0.8, 0.9, 1.0, 1.1), (0.9, 1.0, 1.1, 1.6)]),
        ],
    ),
    "ch07.what_each_method_trains": (
        ("stem", "stage 1", "projection", "encoder block", "decoder block 1", "embeddings, in, out"),
        {
            "from scratch": {},
            "frozen encoder": {"freeze": "encoder"},
            "all": {},
            "layer-wise decay": {"layer_decay": 0.7},
            "LoRA": {"lora": 8},
        },
    ),
    "ch07.pictures_and_captions": (
        {"what the base knows": (PICTURE, TEXT), "noisy": (PICTURE, TEXT), "new": (PICTURE, TEXT)},
    ),
    "ch07.label_rows": (caption_sheet([PICTURE] * 8, [WORDS] * 8), ["German: LoRA"] * 2),
    "ch08.all_sentences": (
        {
            (): {"a": 0.6, "two": 0.4},
            ("a",): {"star": 0.4, "sun": 0.35, "heart": 0.25},
            ("two",): {"stars": 0.9, "suns": 0.1},
        },
    ),
    "ch08.greedy_and_beams": (
        (PICTURE, PICTURE),
        ([(-12.34, TEXT, False), *[(-1.23, TEXT, True)] * 5], [(-9.87, TEXT, True)] * 6),
    ),
    "ch09.shared_ngrams": (
        PICTURE,
        [WORDS] * 6,
        [[0, 0, 1, 2, 2, 3, 3, 3, 4, 4, 4, 4]] * 6,
    ),
    "ch09.common_subsequence": (
        WORDS[:11],
        WORDS[:7],
        [[min(i, j) for j in range(8)] for i in range(12)],
        {(i, i) for i in range(1, 8)},
    ),
    "ch10.where_words_come_from": (
        "people are waiting to cross the street".split(),
        "leute warten darauf , die straße zu überqueren".split(),
        {"überqueren": "cross"},
    ),
    "ch11.picture_or_sentence": (
        PICTURE,
        ["a", "[v]", "cloud"],
        ["eine", "rote", "wolke"],
        (16, 5, 18),
    ),
    "ch11.words_and_bleu": (
        {
            (kind, "no picture"): SimpleNamespace(right=(9, 8, 12), bleu=(99, 95, 100))
            for kind in ("nothing", "colours", "noun")
        },
        {"no picture": "blue"},
        {"colours": 14.3},
    ),
    "ch11.with_either_picture": (
        [(PICTURE, PICTURE, [("given", TEXT, None), *[("another picture", TEXT, False)] * 4])] * 4,
    ),
    "ch12.late_and_early": (PICTURE, "where is the small pair of scissors?", "yellow"),
    "ch12.balanced_pairs": (
        [(QUESTION, (PICTURE, PICTURE), ("in the bottom right corner", "yes"))] * 8,
    ),
    "ch12.where_it_looks": (
        [(PICTURE, QUESTION, "in the bottom right corner", True, torch.rand(8, 8))] * 8,
    ),
    "ch13.two_towers": ([PICTURE] * 4, ["a big red pair of scissors in the bottom left corner"] * 4),
    "ch13.space": (
        torch.tensor([[0.1, 0.5], [-0.4, 0.2], [0.4, -0.3], [0.0, 0.0]]),
        torch.tensor([[0.2, 0.6], [-0.5, 0.1], [0.6, -0.4], [0.1, 0.0]]),
        [PICTURE] * 4,
        ["the picture shows a big red pair of scissors in the bottom left corner"] * 3,
    ),
    "ch15.what_photographs_need": (),
    "ch15.convolutions": (),
    "ch16.a_row_as_memory": (),
    "ch17.one_model": (),
    "ch17.shares": ({"captions": 60_000, "translations": 6000, "questions": 600}, {1: [0.9, 0.09, 0.01], 5: [0.5, 0.3, 0.2]}),
    "ch17.said_and_written": (
        PICTURE,
        ["describe the picture in english"] * 4,
        ["the picture shows a big red pair of scissors in the bottom left corner"] * 4,
    ),
    "ch14.sound_to_words": (torch.rand(997) - 0.5, torch.rand(61, 80), WORDS[:6]),
    "ch14.phones": (torch.rand(61, 80), SEGMENTS, WORD_TIMES),
    "ch14.alignments": (["a", "b"], 5),
    "ch14.where_words_are": (
        torch.rand(61, 80),
        WORD_TIMES,
        {"scissors": torch.rand(31), "umbrella": torch.rand(31)},
        {"scissors": torch.rand(31), "umbrella": torch.rand(31)},
        0.01,
    ),
}


def cut_off(figure):
    """Does anything reach over the edge of the figure?"""
    figure.draw_without_rendering()  # computes the layout
    drawn = figure.get_tightbbox()  # inches
    width, height = figure.get_size_inches()
    return min(drawn.x0, drawn.y0, width - drawn.x1, height - drawn.y1) < -0.01


@pytest.mark.parametrize("drawing", ALL)
def test_nothing_in_a_drawing_is_cut_off(drawing):
    assert drawing in EXAMPLES, "add an example of its arguments to EXAMPLES"
    name, function = drawing.split(".")
    figure = functions(name)[function](*EXAMPLES[drawing])
    assert isinstance(figure, Figure)
    assert any(text.get_text() for text in figure.findobj(Text))
    assert not cut_off(figure)


@pytest.mark.parametrize("x, found", [(0.5, False), (0.99, True), (-0.1, True)])
def test_text_over_the_edge_is_detected(x, found):
    figure = Figure(figsize=(2, 1))
    figure.text(x, 0.5, "word", va="center", fontsize=9)
    assert cut_off(figure) == found
