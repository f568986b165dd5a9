"""Scenes: every number is a scene, pictures show their objects, splits never overlap."""

import copy
import hashlib
import os
import random
import subprocess
import sys
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font

from mmscratch.data.language import LANGUAGES, captions
from mmscratch.data.scenes import (
    COLOURS,
    NOUNS,
    SIZES,
    SPLITS,
    Object,
    Scene,
    box,
    is_held_out_pair,
    render,
)


def with_objects(scene, objects):
    """The same scene with other objects."""
    scene = copy.copy(scene)
    scene.objects = tuple(objects)
    return scene


def attributes_of(scene):
    return [obj.attributes for obj in scene.objects]


def pixels(scene, size=64):
    return np.asarray(render(scene, size)).astype(int)


def test_numbers_of_nouns_colours_and_sizes():
    assert (len(NOUNS), len(COLOURS), len(SIZES)) == (32, 8, 2)


def test_every_icon_is_in_the_font():
    glyphs = FT2Font(findfont("DejaVu Sans")).get_charmap()
    for noun in NOUNS.values():
        assert len(noun.icon) == 1 and ord(noun.icon) in glyphs, noun


@pytest.mark.parametrize("size", SIZES)
def test_no_two_icons_look_alike(size):
    scene = Scene(0)
    drawn = [
        pixels(with_objects(scene, [Object(noun, "black", size, 1, 1, 0.5, 0.5)])) for noun in NOUNS
    ]
    for one, other in combinations(drawn, 2):
        assert (abs(one - other).max(-1) > 60).sum() > 20


def test_colours_differ_from_each_other_and_from_every_background():
    colours = [np.array(colour.rgb) for colour in COLOURS.values()]
    assert min(abs(a - b).max() for a, b in combinations(colours, 2)) > 60
    assert (
        min(abs(colour - Scene(seed).background).max() for colour in colours for seed in range(300))
        > 50
    )


def test_one_to_three_objects_inside_the_picture_without_overlap():
    for seed in range(3000):
        objects = Scene(seed).objects
        assert 1 <= len(objects) <= 3
        for obj in objects:
            half = SIZES[obj.size] / 2
            assert half <= obj.x <= 1 - half and half <= obj.y <= 1 - half
            assert (int(3 * obj.x), int(3 * obj.y)) == (obj.column, obj.row)
        for one, other in combinations(objects, 2):
            apart = max(abs(one.x - other.x), abs(one.y - other.y))
            assert apart >= (SIZES[one.size] + SIZES[other.size]) / 2


def test_every_count_attribute_and_cell_occurs():
    scenes = [Scene(seed) for seed in range(3000)]
    assert min(Counter(len(scene.objects) for scene in scenes).values()) > 900
    objects = [obj for scene in scenes for obj in scene.objects]
    assert len({(obj.noun, obj.colour) for obj in objects}) == 32 * 7
    assert len({(obj.size, obj.row, obj.column) for obj in objects}) == 2 * 9
    repeats = Counter(max(Counter(attributes_of(scene)).values()) for scene in scenes)
    assert repeats[2] > 100 and repeats[3] > 20


@pytest.mark.parametrize("size", [64, 97])
def test_the_picture_shows_each_object_whole_in_its_colour_and_nothing_else(size):
    for seed in range(150):
        scene = Scene(seed)
        expected = pixels(with_objects(scene, []), size)
        assert expected.shape == (size, size, 3) and (expected == scene.background).all()
        for obj in scene.objects:
            alone = pixels(with_objects(scene, [obj]), size)
            painted = (alone != scene.background).any(-1)
            in_the_middle = with_objects(scene, [obj._replace(x=0.5, y=0.5)])
            centred = (pixels(in_the_middle, size) != scene.background).any(-1)
            assert painted.sum() == centred.sum()  # nothing is cut off at the edge
            rows, columns = np.nonzero(painted)
            radius = SIZES[obj.size] * size / 2 + 1.5
            assert (
                max(abs(rows + 0.5 - obj.y * size).max(), abs(columns + 0.5 - obj.x * size).max())
                < radius
            )
            assert abs(alone - COLOURS[obj.colour].rgb).max(-1).min() < 30
            expected[painted] = alone[painted]
        assert (pixels(scene, size) == expected).all()


@pytest.mark.parametrize("size", [64, 97, 256])
def test_boxes_are_tight(size):
    for seed in range(50):
        scene = Scene(seed)
        for obj in scene.objects:
            picture = pixels(with_objects(scene, [obj]), size)
            drawn = (picture != scene.background).any(-1)  # (size, size)
            left, top, right, bottom = box(obj, size)
            inside = drawn[top:bottom, left:right]
            assert inside.sum() == drawn.sum()
            # some edges are faint
            assert all(
                edge.any() for edge in (inside[:2], inside[-2:], inside[:, :2], inside[:, -2:])
            )


def test_equal_seeds_give_equal_scenes():
    scenes = [Scene(seed) for seed in range(500)]
    random.seed(7)
    for scene in scenes:
        again = Scene(scene.seed)
        assert (again.objects, again.background) == (scene.objects, scene.background)
        assert captions(again, "de") == captions(scene, "de")
    assert render(Scene(11)).tobytes() == render(Scene(11)).tobytes()
    assert len({render(scene).tobytes() for scene in scenes}) == 500


def test_scenes_are_the_same_in_another_process():
    code = """
        import hashlib
        from mmscratch.data.language import *
        from mmscratch.data.scenes import *
        made = [(render(s).tobytes(), [captions(s, l) for l in LANGUAGES]) for s in map(Scene, range(97))]
        print(hashlib.sha256(repr(made).encode()).hexdigest())
    """.replace("\n        ", "\n")
    made = [
        (render(s).tobytes(), [captions(s, l) for l in LANGUAGES]) for s in map(Scene, range(97))
    ]
    for hash_seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        answer = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert answer.stdout.strip() == hashlib.sha256(repr(made).encode()).hexdigest()


def test_drawing_scenes_does_not_touch_the_global_random_state():
    random.seed(5)
    state = random.getstate()
    captions(Scene(3)), render(Scene(3))
    assert random.getstate() == state


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="-1"):
        Scene(-1)


@pytest.mark.parametrize("split", SPLITS)
def test_only_the_compositional_test_shows_held_out_pairs(split):
    for seed in range(SPLITS[split], SPLITS[split] + 2000):
        novel = any(is_held_out_pair(obj.noun, obj.colour) for obj in Scene(seed).objects)
        assert novel == (split == "compositional_test")


def test_every_noun_and_every_colour_has_held_out_pairs():
    pairs = [
        (noun, colour) for noun in NOUNS for colour in COLOURS if is_held_out_pair(noun, colour)
    ]
    assert set(Counter(noun for noun, _ in pairs).values()) == {1} and len(pairs) == 32
    assert Counter(colour for _, colour in pairs) == dict.fromkeys(COLOURS, 4)
    begin = SPLITS["compositional_test"]
    shown = {
        (obj.noun, obj.colour) for seed in range(begin, begin + 500) for obj in Scene(seed).objects
    }
    assert set(pairs) <= shown


def test_composed_scene_has_the_given_objects_apart_and_in_order():
    attributes = [("big", "red", "star"), ("small", "blue", "cat"), ("big", "red", "star")]
    cells = set()
    for seed in range(97):
        scene = Scene.compose(random.Random(seed), attributes)
        assert scene.seed is None and attributes_of(scene) == attributes
        for one, other in combinations(scene.objects, 2):
            apart = max(abs(one.x - other.x), abs(one.y - other.y))
            assert apart >= (SIZES[one.size] + SIZES[other.size]) / 2
        positions = [obj.cell for obj in scene.objects]
        assert 3 in [len(set(axis)) for axis in zip(*positions)]  # columns or rows order them
        again = Scene.compose(random.Random(seed), attributes)
        assert (again.objects, again.background) == (scene.objects, scene.background)
        cells |= set(positions)
    assert len(cells) == 9
