"""Figures: colours, captions, trees; nothing cut off, nothing overlapping, no empty boxes."""

import json
import math
from collections import defaultdict

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.transforms import Bbox

from mmscratch import plots
from mmscratch.attention import Memory
from mmscratch.decoding import Candidate, SearchOptions, beam_search
from mmscratch.plots import (
    GREEN,
    GREY,
    RED,
    alignment_sheet,
    attention_sheet,
    caption_sheet,
    learning_curves,
    retrieval_sheet,
    search_tree,
    transcript_sheet,
)
from mmscratch.recurrent import LSTMDecoder
from mmscratch.text import EOS, PAD, Vocabulary


def pictures(n):
    return list(torch.randint(0, 256, (n, 3, 31, 31), dtype=torch.uint8))


def test_right_captions_are_green_and_wrong_ones_red_with_the_closest_reference_in_grey():
    references = [[["a", "red", "star"]], [["a", "big", "cat"], ["the", "blue", "anchor", "sinks"]]]
    written = [["a", "red", "star"], ["the", "red", "anchor", "sinks"]]
    right, wrong, nearest = caption_sheet(pictures(2), written, references).texts
    assert (right.get_text(), right.get_color()) == ("a red star", GREEN)
    assert (wrong.get_text(), wrong.get_color()) == ("the red anchor sinks", RED)
    assert (nearest.get_text(), nearest.get_color()) == ("the blue anchor sinks", GREY)


@pytest.mark.parametrize("n", [1, 3, 5, 12])
def test_caption_sheet_cuts_nothing_off_and_overlaps_nothing(n):
    long = (
        "there is a very long caption that goes on and on until it needs five lines to be written"
    )
    long = f"{long} out in full".split()
    figure = caption_sheet(pictures(n), [long] * n, [[long[::-1]]] * n)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.texts]
    boxes += [axis.images[0].get_window_extent() for axis in figure.axes if axis.images]
    assert len(boxes) == 3 * n
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_dollar_signs_are_no_formulas():
    text = "two bags with $_1 and a $ sign"
    captioned = caption_sheet(pictures(1), [text.split()])
    found = retrieval_sheet([text], [pictures(2)], [[False, True]])
    for figure in (captioned, found):
        figure.canvas.draw()
        assert "$_1" in " ".join(drawn.get_text() for drawn in figure.texts)
        assert not any(drawn.get_parse_math() for drawn in figure.texts)


@pytest.mark.parametrize("columns", [2, 5])
def test_retrieval_sheet_cuts_nothing_off_and_overlaps_nothing(columns):
    long = " ".join(["a very long caption that goes on and on until it needs several lines"] * 3)
    captions = [long, "a cat", long]
    found = [pictures(columns) for _ in captions]
    figure = retrieval_sheet(captions, found, [[False] * columns] * 3)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.texts]
    boxes += [axis.images[0].get_window_extent() for axis in figure.axes]
    assert len(boxes) == 3 + 3 * columns
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:i])
    assert " ".join(figure.texts[0].get_text().split()) == long


def test_retrieval_sheet_shows_each_row_below_its_caption_with_right_pictures_in_a_green_frame():
    found = [pictures(3), pictures(3)]
    right = [[False, True, False], [True, False, True]]
    figure = retrieval_sheet(["a cat", "two dogs"], found, right)
    figure.canvas.draw()
    first, second = [text.get_window_extent() for text in figure.texts]
    for i, axis in enumerate(figure.axes):
        row, column = divmod(i, 3)
        picture = axis.images[0]
        assert torch.equal(torch.tensor(picture.get_array()), found[row][column].permute(1, 2, 0))
        box = picture.get_window_extent()
        assert box.y1 < first.y0 and (box.y0 > second.y1) == (row == 0)
        colours = [to_rgb(patch.get_edgecolor()) for patch in axis.patches]
        assert colours == [to_rgb(GREEN)] * right[row][column]
    lefts = [axis.get_position().x0 for axis in figure.axes[:3]]
    assert lefts == sorted(lefts)


def test_pictures_are_upright_in_true_colours():
    picture = torch.zeros(3, 4, 6, dtype=torch.uint8)
    picture[0, 0, :] = 255  # the first row is red
    shown = caption_sheet([picture], [["x"]]).axes[0].images[0]
    assert shown.get_array().shape == (4, 6, 3)
    assert tuple(shown.get_array()[0, 0]) == (255, 0, 0)
    assert shown.origin == "upper"


def test_chinese_without_a_font_is_printed_instead_of_drawn_as_boxes(monkeypatch, capsys):
    monkeypatch.setattr(plots, "_chinese_fonts", list)
    (text,) = caption_sheet(pictures(1), [list("一颗红色的大星星")]).texts
    assert text.get_text() == "(1)"
    assert "(1) 一颗红色的大星星" in capsys.readouterr().out


def test_learning_curves_show_both_losses(tmp_path):
    entries = [
        {"step": 1, "loss": 3.0},
        {"step": 5, "loss": 2.0},
        {"step": 5, "validation_loss": 2.5},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, entries)))
    axis = learning_curves(tmp_path / "metrics.jsonl").axes[0]
    training, validation = axis.lines
    assert list(training.get_ydata()) == [3.0, 2.0] and list(validation.get_ydata()) == [2.5]
    assert to_rgb(training.get_color()) != to_rgb(validation.get_color())
    assert axis.get_xlabel() and axis.get_ylabel()


def test_attention_sheet_is_bright_where_the_weights_are_large():
    words = "a red star above".split()
    maps = torch.zeros(4, 8, 8)
    positions = [(0, 0), (7, 0), (2, 5), (6, 6)]
    for t, position in enumerate(positions):
        maps[t][position] = 0.9
    figure = attention_sheet([torch.full((3, 64, 64), 255, dtype=torch.uint8)], [words], [maps])
    assert [text.get_text() for text in figure.texts] == ["", *words]
    whole, *lit = [axis.images[0].get_array() for axis in figure.axes]
    assert (whole == 1).all()
    for picture, (row, column) in zip(lit, positions):
        y, x = divmod(int(picture[..., 0].argmax()), 64)
        assert (y // 8, x // 8) == (row, column) and picture.max() == pytest.approx(1)
        half_away = (8 * row + 36) % 64, (8 * column + 36) % 64  # half a picture
        assert picture[half_away].max() < 0.4


@pytest.mark.parametrize("lengths", [[3], [7, 8], [16, 1, 9]])
def test_attention_sheet_cuts_nothing_off_and_overlaps_nothing(lengths):
    captions = [["lightning"] * n for n in lengths]
    maps = [torch.rand(n, 5, 5) for n in lengths]
    figure = attention_sheet(pictures(len(lengths)), captions, maps)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.texts if text.get_text()]
    boxes += [axis.images[0].get_window_extent() for axis in figure.axes]
    assert len(boxes) == 2 * sum(lengths) + len(lengths)
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:i])


SOURCE = "a horse jumps".split()
WRITTEN = "ein pferd springt hoch .".split()


def test_alignment_sheet_is_dark_where_the_weights_are_large():
    looked = [2, 0, 1, 2, 0]
    weights = torch.zeros(5, 3)
    weights[range(5), looked] = torch.tensor([1.0, 0.9, 0.8, 0.7, 0.6])
    figure = alignment_sheet([SOURCE], [WRITTEN], [weights], ["a title"])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    [axis] = figure.axes
    assert [text.get_text() for text in axis.get_xticklabels()] == SOURCE
    assert [text.get_text() for text in axis.get_yticklabels()] == WRITTEN
    assert [text.get_text() for text in figure.texts] == ["a title"]
    width, height = canvas.get_width_height()
    drawn = torch.frombuffer(canvas.buffer_rgba(), dtype=torch.uint8).view(height, width, 4)[..., 0]
    shades = torch.empty(5, 3)  # at the height of a word and below a source word: (T, S)
    for t, word in enumerate(axis.get_yticklabels()):
        for s, source in enumerate(axis.get_xticklabels()):
            row, column = word.get_window_extent(), source.get_window_extent()
            y, x = int((row.y0 + row.y1) / 2), int((column.x0 + column.x1) / 2)
            shades[t, s] = drawn[height - y, x]
    assert shades.argmin(1).tolist() == looked
    darkest = shades.amin(1).tolist()
    assert darkest[0] == 0 and darkest == sorted(darkest) and len(set(darkest)) == 5
    assert (shades.sort(1).values[:, 1:] > 250).all()


@pytest.mark.parametrize(
    "sizes, title",
    [([(3, 2)], "one"), ([(11, 13), (2, 3), (17, 1)], "one"), ([(5, 7), (1, 1)], "")],
)
def test_alignment_sheet_cuts_nothing_off_and_overlaps_nothing(sizes, title):
    sources = [["schwimmwesten", *["lightning"] * (S - 1)] for _, S in sizes]
    translations = [["schwimmwesten", *["lightning"] * (T - 1)] for T, _ in sizes]
    maps = [torch.rand(size) for size in sizes]
    titles = [title] * len(sizes) if title else ()
    figure = alignment_sheet(sources, translations, maps, titles)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.texts]
    for axis, (T, S) in zip(figure.axes, sizes, strict=True):
        labels = [*axis.get_xticklabels(), *axis.get_yticklabels()]
        assert len(labels) == T + S
        boxes += [label.get_window_extent() for label in labels]
        boxes.append(axis.images[0].get_window_extent())
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_alignment_sheet_needs_a_weight_for_each_pair_of_words():
    message = r"sentence 1: 5 words from 3 need as many weights, not \(3, 5\)"
    with pytest.raises(ValueError, match=message):
        alignment_sheet([SOURCE] * 2, [WRITTEN] * 2, [torch.rand(5, 3), torch.rand(3, 5)])


def test_right_transcripts_are_green_and_wrong_ones_red_with_the_closest_reference_in_grey():
    written = [["a", "red", "star"], ["a", "blue", "car"], []]
    references = [[["a", "red", "star"]], [["no"], ["a", "blue", "cat"]], [["yes"]]]
    figure = transcript_sheet([torch.rand(n, 80) for n in (31, 53, 7)], written, references)
    texts = [(text.get_text(), text.get_color()) for text in figure.texts]
    assert texts == [
        ("a red star", GREEN),
        ("a blue car", RED),
        ("a blue cat", GREY),
        ("(nothing)", RED),
        ("yes", GREY),
    ]


def test_transcript_sheet_draws_low_frequencies_below_and_time_in_seconds():
    sound = torch.zeros(130, 80)
    sound[37, 11] = 1.0
    figure = transcript_sheet([sound], [["one"]], [[["one"]]], [torch.rand(1, 65)])
    spectrogram, hearing = figure.axes
    image = spectrogram.images[0]
    assert image.get_extent() == [0, 1.3, 0, 80] and image.origin == "lower"
    row, column = divmod(int(image.get_array().argmax()), 130)
    assert (row, column) == (11, 37)
    assert spectrogram.get_xlim() == hearing.get_xlim() == (0, 1.3)
    assert hearing.get_xlabel() == "seconds" and spectrogram.get_ylabel() == "mel band"


def test_transcript_sheet_is_dark_where_and_when_a_word_was_heard():
    heard = [5, 23, 40]  # of 65 positions
    weights = torch.full((3, 65), 0.001)
    weights[range(3), heard] = torch.tensor([0.9, 0.5, 0.02])
    figure = transcript_sheet([torch.rand(130, 80)], [list("abcd")], [[list("abcd")]], [weights])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    hearing = figure.axes[1]
    labels = hearing.get_yticklabels()
    assert [label.get_text() for label in labels] == list("abc")  # those with weights
    width, height = canvas.get_width_height()
    drawn = torch.frombuffer(canvas.buffer_rgba(), dtype=torch.uint8).view(height, width, 4)[..., 0]
    times = hearing.transData.transform([((n + 0.5) * 0.02, 0) for n in range(65)])[:, 0]
    for label, position in zip(labels, heard):
        box = label.get_window_extent()
        y = height - int((box.y0 + box.y1) / 2)
        shades = drawn[y, torch.from_numpy(times).long()]
        assert shades.argmin() == position and shades[position] < 60  # the largest weight is black
        others = torch.cat([shades[: position - 1], shades[position + 2 :]])
        assert others.min() > 225


@pytest.mark.parametrize("lengths", [[3], [13, 1, 0], [7, 20, 2, 5]])
@pytest.mark.parametrize("has_maps", [True, False])
def test_transcript_sheet_cuts_nothing_off_and_overlaps_nothing(lengths, has_maps):
    written = [["lightning"] * n for n in lengths]
    references = [[["lightning"] * 17 + ["bolt"]] for _ in lengths]
    sounds = [torch.rand(50 + 70 * n, 80) for n in lengths]
    maps = [torch.rand(n, 25 + 35 * n) for n in lengths] if has_maps else ()
    figure = transcript_sheet(sounds, written, references, maps)
    FigureCanvasAgg(figure).draw()
    boxes = [text.get_window_extent() for text in figure.texts]
    boxes += [axis.get_tightbbox() for axis in figure.axes]  # with all their labels
    hearing = sum(n > 0 for n in lengths) if has_maps else 0
    assert len(figure.axes) == len(lengths) + hearing
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        for other in boxes[:i]:
            shrunk = Bbox.from_extents(box.x0 + 2, box.y0 + 2, box.x1 - 2, box.y1 - 2)
            assert not shrunk.overlaps(other), (box, other)


WORDS = Vocabulary(
    ["a", "small", "snowflake", "telephone", "orange", "above", "scissors", "clover"]
)


def grow(*nodes):
    """A tree of (parent, word, probability of the word, score, status)."""
    tree = []
    for parent, word, probability, score, status in nodes:
        before = tree[parent].log_prob if parent >= 0 else 0.0
        log_prob = before + math.log(probability) if probability else -math.inf
        tree.append(Candidate(parent, WORDS.words.index(word), log_prob, score, status))
    return tree


TWO_BEAMS = grow(
    (-1, "a", 0.5, -0.7, "kept"),
    (-1, "telephone", 0.33, -1.1, "kept"),
    (-1, "small", 0.12, -2.1, "dropped"),
    (-1, "<pad>", 0, -math.inf, "dropped"),
    (0, "<eos>", 0.43, -0.77, "finished"),
    (1, "snowflake", 0.61, -0.8, "kept"),
    (0, "small", 0.31, -0.93, "kept"),
    (0, "above", 0.07, -1.7, "dropped"),
    (6, "orange", 0.71, -0.74, "kept"),
    (5, "<eos>", 0.59, -0.71, "finished"),
    (5, "clover", 0.23, -1.01, "kept"),
    (6, "<pad>", 0, -math.inf, "dropped"),
    (10, "<eos>", 0.97, -1.12, "finished"),
    (8, "<eos>", 0.81, -0.62, "finished"),
    (10, "a", 0.02, -1.4, "dropped"),
    (8, "a", 0.19, -1.9, "dropped"),
)
ONE_STEP = grow(
    (-1, "a", 0.53, -0.635, "finished"),
    (-1, "<eos>", 0.27, -1.31, "finished"),
    (-1, "small", 0.17, -1.77, "dropped"),
    (-1, "clover", 0.03, -3.5, "dropped"),
)
ONE_BEAM = grow(
    (-1, "a", 0.9, -0.1, "kept"),
    (-1, "small", 0.1, -2.3, "dropped"),
    (0, "<eos>", 0.8, -0.16, "finished"),
    (0, "telephone", 0.2, -0.86, "dropped"),
)
# the order of the children is not that of their parents
UPSIDE_DOWN = grow(
    (-1, "a", 0.1, -2.3, "kept"),
    (-1, "clover", 0.9, -0.1, "kept"),
    (1, "<eos>", 0.9, -0.1, "finished"),
    (0, "<eos>", 0.5, -1.5, "finished"),
    (1, "scissors", 0.1, -1.2, "dropped"),
    (0, "orange", 0.5, -1.5, "dropped"),
)


def real_tree(beams, max_length=9, length_penalty=1.0):
    """The tree and the best hypothesis of a real search with a random decoder of 12 words."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(5)
        decoder = LSTMDecoder(len(WORDS), 22, 13, 1, "prefix").eval()
        for parameter in decoder.parameters():
            parameter.mul_(3)
        decoder.bias[EOS] = 0.5
        memory = Memory(torch.randn(1, 7, 22), torch.ones(1, 7).bool())
        trees = []
    [[best]] = beam_search(decoder, memory, beams, max_length, SearchOptions(length_penalty), trees)
    return trees[0], best


def far_tree():
    """Long sentences of the longest words, with scores of many digits."""
    return grow(
        *[(i - 1, "telephone", 0.5, -123.4, "kept") for i in range(17)],
        (16, "<eos>", 0.4, -1234.56, "finished"),
    )


TREES = {
    "two beams": TWO_BEAMS,
    "one step": ONE_STEP,
    "one beam": ONE_BEAM,
    "upside down": UPSIDE_DOWN,
    "far": far_tree(),
    "real 1": real_tree(1)[0],
    "real 3": real_tree(3)[0],
    "real 5": real_tree(5)[0],
    "real step": real_tree(4, 1)[0],
    "real sum": real_tree(4, 30, 0.0)[0],
}


def possible(tree):
    """The candidates whose probability is not 0."""
    return [i for i, candidate in enumerate(tree) if candidate.log_prob > -math.inf]


def path_of(tree, node):
    """The nodes from the root to this one."""
    return path_of(tree, tree[node].parent) + [node] if node >= 0 else []


def read_tree(tree):
    """Read a figure by positions: {node: (line, texts of word, probability and score or None)}.

    Each line starts where that of its parent ends, and siblings are in the order of the tree. Also
    returns the figure.
    """
    figure = search_tree(tree, WORDS)
    [axis] = figure.axes
    lines = defaultdict(list)  # by where they start
    for line in axis.lines:
        lines[line.get_xdata()[0], line.get_ydata()[0]].append(line)
    found = {}
    [root] = {start for start in lines if start[0] == min(x for x, _ in lines)}
    assert root[0] == 0 and len(axis.lines) == len(possible(tree))
    ends = {-1: root}
    for parent in [-1, *possible(tree)]:
        below = sorted(lines.pop(ends[parent], []), key=lambda line: line.get_ydata()[-1])
        nodes = [i for i in possible(tree) if tree[i].parent == parent]
        assert len(below) == len(nodes)
        for node, line in zip(nodes, below):
            x, y = ends[node] = line.get_xdata()[-1], line.get_ydata()[-1]
            on_line, behind = [], []
            for text in axis.texts:
                text_x, text_y = text.get_position()
                if x - 1 < text_x < x and abs(text_y - y) < 0.2:
                    on_line.append(text)
                elif x < text_x < x + 0.3 and text_y == y:
                    behind.append(text)
            word, probability = sorted(on_line, key=lambda text: text.get_position()[1])
            found[node] = line, word, probability, *(behind or [None])
    assert not lines, "a line starts at no node"
    scores = [score for *_, score in found.values() if score is not None]
    assert len(axis.texts) == 2 * len(found) + len(scores)
    assert axis.yaxis_inverted()
    return found, figure


@pytest.mark.parametrize("name", TREES)
def test_search_tree_draws_every_possible_candidate_once_with_word_and_probability(name):
    tree = TREES[name]
    found, _ = read_tree(tree)
    assert sorted(found) == possible(tree)
    for node, (_, word, probability, score) in found.items():
        parent = tree[node].parent
        before = tree[parent].log_prob if parent >= 0 else 0.0
        assert word.get_text() == WORDS.words[tree[node].token]
        assert probability.get_text() == f"{math.exp(tree[node].log_prob - before):.2f}"
        if tree[node].status == "finished":
            assert score.get_text() == f"{tree[node].score:.2f}"
        else:
            assert score is None


@pytest.mark.parametrize("name", TREES)
def test_search_tree_draws_the_best_path_thick_and_green_and_dropped_candidates_grey(name):
    tree = TREES[name]
    found, _ = read_tree(tree)
    finished = [i for i, candidate in enumerate(tree) if candidate.status == "finished"]
    winner = max(finished, key=lambda i: tree[i].score)
    path = path_of(tree, winner)
    for node, (line, word, _, score) in found.items():
        if node in path:
            colour = GREEN
            assert line.get_linewidth() > 2
        else:
            colour = GREY if tree[node].status == "dropped" else "black"
            assert line.get_linewidth() < 1
        assert (line.get_color(), word.get_color()) == (colour, colour)
        if score:
            assert score.get_color() == colour
            assert (score.get_weight() == "bold") == (node == winner)
    best = [found[node][0].get_zorder() for node in path]
    others = [found[node][0].get_zorder() for node in found.keys() - path]
    assert not others or min(best) > max(others), "the thick line lies above the others"


@pytest.mark.parametrize("name", TREES)
def test_search_tree_grows_to_the_right_with_siblings_below_one_another(name):
    tree = TREES[name]
    found, _ = read_tree(tree)
    height = {}
    children = defaultdict(list)
    for node, (line, word, probability, _) in found.items():
        depth = len(path_of(tree, node))
        (*_, x) = line.get_xdata()
        (start, *_, y) = line.get_ydata()
        assert x == depth
        for text in (word, probability):
            assert depth - 1 < text.get_position()[0] < depth
        # the word is above the line, the probability below
        assert word.get_position()[1] < y < probability.get_position()[1]
        height[node] = y
        height[tree[node].parent] = start
        children[tree[node].parent].append(node)
    for parent, nodes in children.items():
        heights = [height[node] for node in nodes]
        assert heights == sorted(heights)
        assert height[parent] == pytest.approx((heights[0] + heights[-1]) / 2)
    leaves = sorted(height[node] for node in height if not children[node])
    assert leaves == list(range(len(leaves))), "one row for each leaf"


@pytest.mark.parametrize("name", TREES)
def test_search_tree_cuts_nothing_off_and_overlaps_nothing(name):
    found, figure = read_tree(TREES[name])
    figure.canvas.draw()
    [axis] = figure.axes
    texts = [text.get_window_extent() for text in axis.texts]
    for i, box in enumerate(texts):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in texts[:i]), axis.texts[i]
    for line, word, *_ in found.values():
        pixels = axis.transData.transform(line.get_path().vertices)
        box = word.get_window_extent()
        assert (pixels >= 0).all() and (pixels <= figure.bbox.size).all()
        assert pixels[1, 0] <= box.x0 and box.x1 <= pixels[-1, 0], "a word lies on its own line"


def test_search_tree_of_a_real_search_ends_in_its_best_hypothesis():
    for beams in (1, 3, 5):
        tree, best = real_tree(beams)
        found, _ = read_tree(tree)
        assert {candidate.status for candidate in tree} == {"kept", "finished", "dropped"}
        assert PAD not in best.tokens
        scores = [(node, score) for node, (*_, score) in found.items() if score]
        [(winner, score)] = [pair for pair in scores if pair[1].get_weight() == "bold"]
        tokens = [tree[node].token for node in path_of(tree, winner)]
        assert tokens[: len(best.tokens)] == best.tokens
        assert score.get_text() == f"{best.score:.2f}" and len(best.tokens) > 1
    impossible = [candidate for candidate in TREES["real 5"] if candidate.log_prob == -math.inf]
    assert impossible, "some candidates are not drawn"


def test_a_caption_that_is_right_in_other_words_is_green():
    hypotheses = [["a", "star"], ["a", "sun"]]
    references = [[["two", "stars"]], [["a", "moon"]]]
    figure = caption_sheet(pictures(2), hypotheses, references, right=[True, False])
    texts = {text.get_text(): text.get_color() for text in figure.texts}
    assert texts["a star"] != texts["a sun"] and "two stars" not in texts and "a moon" in texts
