"""Icon scenes: what is drawn, that what is said of it is true, and that what is false is caught as what it is."""

import copy
import hashlib
import os
import random
import re
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import combinations, permutations

import numpy as np
import pytest
from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font

from mmscratch.scenes import (
    COLOURS,
    LANGUAGES,
    NOUNS,
    SIZES,
    SPLITS,
    Judgement,
    Scene,
    Thing,
    box,
    caption,
    captions,
    colour_of,
    held_out,
    judge,
    mask_colours,
    mask_noun,
    name_thing,
    named_things,
    questions,
    render,
)
from mmscratch.text import MASKED, detokenize, tokenize

CELLS = [
    "in the top left corner", "at the top", "in the top right corner", "on the left", "in the middle", "on the right",
    "in the bottom left corner", "at the bottom", "in the bottom right corner",
]  # fmt: skip
GERMAN = {
    "m": "Regenschirm Schneemann Stern Totenkopf Anker König Turm Affe Smiley Mond Briefumschlag Bleistift Blitz",
    "f": "Sonne Wolke Tasse Schere Flagge Blume Schneeflocke Katze Maus Kuh Note Waage",
    "n": "Telefon Kleeblatt Herz Flugzeug Zahnrad Pferd Rad",
}
COLOUR_WORDS = {
    "en": {name: name for name in COLOURS},
    "de": {name: colour.german for name, colour in COLOURS.items()},
    "zh": {name: colour.chinese for name, colour in COLOURS.items()},
}
TRUE = Judgement(True, True, ())


def with_things(scene, things):
    """The same scene with other things."""
    scene = copy.copy(scene)
    scene.things = tuple(things)
    return scene


def changed(scene, which, **fields):
    """The same scene with one thing altered."""
    things = list(scene.things)
    things[which] = things[which]._replace(**fields)
    return with_things(scene, things)


def rearranged(scene, order):
    """The same scene with the same things, in each other's places."""
    return with_things(scene, [Thing(*thing[:3], *scene.things[i][3:]) for thing, i in zip(scene.things, order)])


def looks(scene):
    return [thing.look for thing in scene.things]


def pixels(scene, size=64):
    return np.asarray(render(scene, size)).astype(int)


# The pictures


def test_how_many_kinds_there_are():
    assert (len(NOUNS), len(COLOURS), len(SIZES)) == (32, 8, 2)


def test_every_icon_is_in_the_font():
    glyphs = FT2Font(findfont("DejaVu Sans")).get_charmap()
    for noun in NOUNS.values():
        assert len(noun.icon) == 1 and ord(noun.icon) in glyphs, noun


@pytest.mark.parametrize("size", SIZES)
def test_no_two_icons_look_alike(size):
    scene = Scene(0)
    drawn = [pixels(with_things(scene, [Thing(noun, "black", size, 1, 1, 0.5, 0.5)])) for noun in NOUNS]
    for one, other in combinations(drawn, 2):
        assert (abs(one - other).max(-1) > 60).sum() > 20


def test_colours_differ_from_each_other_and_from_every_background():
    colours = [np.array(colour.rgb) for colour in COLOURS.values()]
    assert min(abs(a - b).max() for a, b in combinations(colours, 2)) > 60
    assert min(abs(colour - Scene(seed).background).max() for colour in colours for seed in range(300)) > 50


def test_one_to_three_things_that_do_not_overlap_and_are_all_inside():
    for seed in range(3000):
        things = Scene(seed).things
        assert 1 <= len(things) <= 3
        for thing in things:
            half = SIZES[thing.size] / 2
            assert half <= thing.x <= 1 - half and half <= thing.y <= 1 - half
            assert (int(3 * thing.x), int(3 * thing.y)) == (thing.column, thing.row)
        for one, other in combinations(things, 2):
            apart = max(abs(one.x - other.x), abs(one.y - other.y))
            assert apart >= (SIZES[one.size] + SIZES[other.size]) / 2


def test_every_number_of_things_every_look_and_every_cell_comes_up():
    scenes = [Scene(seed) for seed in range(3000)]
    assert min(Counter(len(scene.things) for scene in scenes).values()) > 900
    things = [thing for scene in scenes for thing in scene.things]
    assert len({(thing.noun, thing.colour) for thing in things}) == 32 * 7
    assert len({(thing.size, thing.row, thing.column) for thing in things}) == 2 * 9
    repeats = Counter(max(Counter(looks(scene)).values()) for scene in scenes)
    assert repeats[2] > 100 and repeats[3] > 20


@pytest.mark.parametrize("size", [64, 97])
def test_the_picture_shows_each_thing_whole_in_its_colour_and_nothing_else(size):
    for seed in range(150):
        scene = Scene(seed)
        expected = pixels(with_things(scene, []), size)
        assert expected.shape == (size, size, 3) and (expected == scene.background).all()
        for thing in scene.things:
            alone = pixels(with_things(scene, [thing]), size)
            painted = (alone != scene.background).any(-1)
            centred = (pixels(with_things(scene, [thing._replace(x=0.5, y=0.5)]), size) != scene.background).any(-1)
            assert painted.sum() == centred.sum()  # nothing is cut off at the edge
            rows, columns = np.nonzero(painted)
            radius = SIZES[thing.size] * size / 2 + 1.5
            assert max(abs(rows + 0.5 - thing.y * size).max(), abs(columns + 0.5 - thing.x * size).max()) < radius
            assert abs(alone - COLOURS[thing.colour].rgb).max(-1).min() < 30
            expected[painted] = alone[painted]
        assert (pixels(scene, size) == expected).all()


@pytest.mark.parametrize("size", [64, 97, 256])
def test_the_box_of_a_thing_holds_all_of_it_and_no_more(size):
    for seed in range(50):
        scene = Scene(seed)
        for thing in scene.things:
            drawn = (pixels(with_things(scene, [thing]), size) != scene.background).any(-1)  # (size, size)
            left, top, right, bottom = box(thing, size)
            inside = drawn[top:bottom, left:right]
            assert inside.sum() == drawn.sum()
            assert all(edge.any() for edge in (inside[:2], inside[-2:], inside[:, :2], inside[:, -2:]))  # some edges are faint


def test_words_name_the_thing_that_they_fit_and_no_other():
    looks = ("star", "red", "big"), ("lightning bolt", "blue", "small"), ("star", "red", "small")
    star, bolt, other = things = [Thing(*look, i, i, 0.2, 0.2) for i, look in enumerate(looks)]
    scene = with_things(Scene(0), things)
    for sentence, expected in (
        ("a big red star is left of a small blue lightning bolt", [(2, star), (3, star), (9, bolt), (10, bolt)]),
        ("a red star and a star", []),  # either of two
        ("two small red stars and a small red star", [(7, other), (8, other)]),  # a plural names no single thing
        ("a big blue star above an orange bolt", []),  # neither is there
        ("a lightning bolt", [(1, bolt)]),
        ("", []),
    ):
        assert named_things(sentence.split(), scene) == expected, sentence


def test_every_thing_of_a_scene_is_named_by_its_captions_where_it_is_the_only_one():
    for seed in range(100):
        scene = Scene(seed)
        looks = [thing.look for thing in scene.things]
        for words in map(tokenize, captions(scene)):
            named = named_things(words, scene)
            alone = [thing for thing in scene.things if looks.count(thing.look) == 1]
            assert sorted(thing for _, thing in named) == sorted(2 * alone)
            assert all(words[i] in (thing.colour, thing.noun.split()[0]) for i, thing in named)


def test_the_same_number_is_the_same_scene():
    scenes = [Scene(seed) for seed in range(500)]
    random.seed(7)
    for scene in scenes:
        again = Scene(scene.seed)
        assert (again.things, again.background) == (scene.things, scene.background)
        assert captions(again, "de") == captions(scene, "de") and questions(again) == questions(scene)
    assert render(Scene(11)).tobytes() == render(Scene(11)).tobytes()
    assert len({render(scene).tobytes() for scene in scenes}) == 500


def test_another_process_makes_the_same_scenes():
    code = """
        import hashlib
        from mmscratch.scenes import *
        made = [(render(s).tobytes(), [captions(s, l) for l in LANGUAGES], questions(s)) for s in map(Scene, range(97))]
        print(hashlib.sha256(repr(made).encode()).hexdigest())
    """.replace("\n        ", "\n")
    made = [(render(s).tobytes(), [captions(s, l) for l in LANGUAGES], questions(s)) for s in map(Scene, range(97))]
    for hash_seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        answer = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert answer.stdout.strip() == hashlib.sha256(repr(made).encode()).hexdigest()


def test_drawing_scenes_leaves_the_global_randomness_alone():
    random.seed(5)
    state = random.getstate()
    questions(Scene(3)), captions(Scene(3)), render(Scene(3))
    assert random.getstate() == state


def test_a_negative_number_is_refused():
    with pytest.raises(ValueError, match="-1"):
        Scene(-1)


@pytest.mark.parametrize("split", SPLITS)
def test_only_the_compositional_test_shows_held_out_pairs(split):
    for seed in range(SPLITS[split], SPLITS[split] + 2000):
        novel = any(held_out(thing.noun, thing.colour) for thing in Scene(seed).things)
        assert novel == (split == "compositional_test")


def test_every_noun_and_every_colour_has_held_out_pairs():
    pairs = [(noun, colour) for noun in NOUNS for colour in COLOURS if held_out(noun, colour)]
    assert set(Counter(noun for noun, _ in pairs).values()) == {1} and len(pairs) == 32
    assert Counter(colour for _, colour in pairs) == dict.fromkeys(COLOURS, 4)
    begin = SPLITS["compositional_test"]
    shown = {(thing.noun, thing.colour) for seed in range(begin, begin + 500) for thing in Scene(seed).things}
    assert set(pairs) <= shown


# The captions


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("split", SPLITS)
def test_every_reference_is_well_formed_and_true(split, language):
    for seed in range(SPLITS[split], SPLITS[split] + (2000 if split == "train" else 300)):
        scene = Scene(seed)
        references = captions(scene, language)
        assert len(set(references)) == 5
        for reference in references:
            assert judge(reference, scene, language) == TRUE, (seed, reference)


def test_caption_gives_one_of_the_five():
    for language in LANGUAGES:
        assert [caption(Scene(13), which, language) for which in range(5)] == captions(Scene(13), language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_the_tokenizer_does_to_a_caption_does_not_change_the_verdict(language):
    for seed in range(300):
        scene = Scene(seed)
        for reference in captions(scene, language):
            tokens = tokenize(reference)
            assert judge(" ".join(tokens), scene, language) == judge(detokenize(tokens), scene, language) == TRUE


def assert_describes(scene, english, german, chinese):
    for language, sentence in zip(LANGUAGES, (english, german, chinese)):
        assert sentence in captions(scene, language)
        assert judge(sentence, scene, language) == TRUE


def test_sentences_written_by_hand():
    anchor = Thing("anchor", "red", "big", 0, 0, 0.2, 0.2)
    sun = Thing("sun", "orange", "small", 2, 0, 0.8, 0.2)
    monkey = Thing("monkey", "white", "small", 0, 2, 0.2, 0.8)
    heart = Thing("heart", "yellow", "small", 1, 2, 0.5, 0.8)
    assert_describes(
        with_things(Scene(0), [anchor]),
        "there is a big red anchor in the top left corner",
        "es gibt einen großen roten Anker oben links",
        "左上角有一个红色的大船锚",
    )
    assert_describes(
        with_things(Scene(0), [sun, anchor]),
        "right of a big red anchor is a small orange sun",
        "rechts von einem großen roten Anker ist eine kleine orangefarbene Sonne",
        "一个红色的大船锚的右边有一个橙色的小太阳",
    )
    assert_describes(
        with_things(Scene(0), [monkey, anchor]),
        "from top to bottom: a big red anchor and a small white monkey",
        "es gibt einen großen roten Anker über einem kleinen weißen Affen",
        "从上到下：一个红色的大船锚和一只白色的小猴子",
    )
    assert_describes(
        with_things(Scene(0), [heart, sun, monkey]),
        "a small yellow heart is between a small white monkey and a small orange sun",
        "ein kleines gelbes Herz ist zwischen einem kleinen weißen Affen und einer kleinen orangefarbenen Sonne",
        "一颗黄色的小爱心在一只白色的小猴子和一个橙色的小太阳之间",
    )
    assert_describes(
        with_things(Scene(0), [heart, heart._replace(column=0, x=0.2)]),
        "two small yellow hearts side by side",
        "zwei kleine gelbe Herzen nebeneinander",
        "两颗黄色的小爱心左右排列",
    )
    assert_describes(
        with_things(Scene(0), [heart, heart._replace(column=0, x=0.2), sun]),
        "there are two small yellow hearts and a small orange sun",
        "das Bild zeigt eine kleine orangefarbene Sonne und zwei kleine gelbe Herzen",
        "有两颗黄色的小爱心和一个橙色的小太阳",
    )


def test_german_genders():
    articles = {"m": "einen kleinen roten", "f": "eine kleine rote", "n": "ein kleines rotes"}
    names = {name: gender for gender in GERMAN for name in GERMAN[gender].split()}
    assert len(names) == 32
    for noun in NOUNS:
        sentence = captions(with_things(Scene(0), [Thing(noun, "red", "small", 1, 1, 0.5, 0.5)]), "de")[2]
        name = NOUNS[noun].german
        written = "Affen" if name == "Affe" else name
        assert sentence == f"es gibt {articles[names[name]]} {written} in der Mitte"


def test_only_the_known_languages():
    for function in (captions, lambda scene, language: judge("a", scene, language)):
        with pytest.raises(ValueError, match="'fr'.*en, de, zh"):
            function(Scene(0), "fr")
    for mask in (mask_colours, lambda text, language: mask_noun(text, 0, language)):
        with pytest.raises(ValueError, match="'fr'.*en, de, zh"):
            mask("une étoile", "fr")


# The truth, read from the English sentence by rules of this file


def is_true(sentence, things):
    """Does the sentence name just these things, and is what it says of their order or place so?"""
    phrase = rf"\b(an?|two|three) (small|big) (\w+) ({'|'.join(f'{n.plural}|{name}' for name, n in NOUNS.items())})\b"
    singular = {noun.plural: name for name, noun in NOUNS.items()}
    named = []
    for number, size, colour, noun in re.findall(phrase, sentence):
        named += [(size, colour, singular.get(noun, noun))] * {"two": 2, "three": 3}.get(number, 1)
    if sorted(named) != sorted(thing.look for thing in things):
        return False
    rows = []
    for axis in ("column", "row"):
        line = sorted(things, key=lambda thing: getattr(thing, axis))
        apart = len({getattr(thing, axis) for thing in things}) == len(things)
        rows.append([thing.look for thing in line] if apart else [])
    across, down = rows
    if cell := next((cell for cell in CELLS if cell in sentence), None):
        return cell == CELLS[3 * things[0].row + things[0].column]
    if "side by side" in sentence:
        return bool(across)
    if "one above the other" in sentence:
        return bool(down)
    if "between" in sentence:
        middle, first, last = named
        return any(line in ([first, middle, last], [last, middle, first]) for line in rows)
    if sentence.startswith(("left of", "above")):
        middle, first, last = named
        return [first, middle, last] == (across if sentence.startswith("left of") else down)
    if sentence.startswith(("right of", "below")):
        return named == (across if sentence.startswith("right of") else down)
    claims = [("left of", "left to right", across), ("right to left", across[::-1]),
              ("above", "top to bottom", down), ("bottom to top", down[::-1])]  # fmt: skip
    return all(named == line for *words, line in claims if any(word in sentence for word in words))


def test_every_english_reference_is_true_by_other_rules():
    for seed in range(2000):
        scene = Scene(seed)
        assert all(is_true(sentence, scene.things) for sentence in captions(scene))


def test_claims_of_order_are_judged_as_by_other_rules():
    verdicts = Counter()
    for seed in range(700):
        scene = Scene(seed)
        turned = [thing._replace(column=thing.row, row=thing.column) for thing in scene.things]
        mirrored = [thing._replace(column=2 - thing.column, row=2 - thing.row) for thing in scene.things]
        others = [with_things(scene, turned), with_things(scene, mirrored)]
        others += [rearranged(scene, order) for order in permutations(range(len(scene.things)))]
        other = random.Random(seed).choice(others)
        english = captions(other)
        for language in LANGUAGES:
            for which, sentence in enumerate(captions(other, language)):  # the languages say the same in the same order
                true = is_true(english[which], scene.things)
                assert judge(sentence, scene, language) == (TRUE if true else Judgement(True, False, ("place",)))
                verdicts[language, true] += 1
    assert min(verdicts.values()) > 500


def test_a_caption_of_another_scene_is_as_true_as_by_other_rules():
    draw = random.Random(3)
    for _ in range(3000):
        scene, other = Scene(draw.randrange(10**6)), Scene(draw.randrange(10**6))
        which, language = draw.randrange(5), draw.choice(LANGUAGES)
        verdict = judge(caption(other, which, language), scene, language)
        assert verdict.well_formed
        assert verdict.true == is_true(caption(other, which), scene.things) == (not verdict.wrong)


def test_the_faults_of_one_thing_are_exactly_what_differs():
    draw = random.Random(5)
    scenes = [scene for scene in map(Scene, range(400)) if len(scene.things) == 1]
    for _ in range(3000):
        scene, other = draw.choice(scenes), draw.choice(scenes)
        (thing,), (said,) = scene.things, other.things
        wrong = {name for name in ("noun", "colour", "size") if getattr(thing, name) != getattr(said, name)}
        if (thing.column, thing.row) != (said.column, said.row):
            wrong.add("place")
        language = draw.choice(LANGUAGES)
        verdict = judge(caption(other, draw.randrange(5), language), scene, language)
        assert set(verdict.wrong) == wrong and len(verdict.wrong) == len(wrong)
        assert (verdict.well_formed, verdict.true) == (True, not wrong)


# Captions made false on purpose


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("fault", ["colour", "noun", "size"])
def test_one_wrong_word_is_caught_as_what_it_is(fault, language):
    checked = 0
    for seed in range(600):
        scene, draw = Scene(seed), random.Random(seed)
        which = draw.randrange(len(scene.things))
        there = {getattr(thing, fault) for thing in scene.things}
        if fault == "size":
            new = "big" if scene.things[which].size == "small" else "small"
        else:
            new = draw.choice(sorted({"colour": COLOURS, "noun": NOUNS}[fault].keys() - there))
        false = changed(scene, which, **{fault: new})
        if set(looks(false)) == set(looks(scene)):
            continue  # one fewer of this and one more of that: a wrong number, below
        for sentence in captions(false, language):
            assert judge(sentence, scene, language) == Judgement(True, False, (fault,)), (seed, sentence)
            checked += 1
    assert checked > 2500


def test_a_replaced_colour_word_is_a_wrong_colour():
    for seed in range(600):
        scene = Scene(seed)
        new = next(colour for colour in COLOURS if all(colour != thing.colour for thing in scene.things))
        for language in LANGUAGES:
            sentence = random.Random(seed).choice(captions(scene, language))
            words = COLOUR_WORDS[language]
            false = sentence.replace(words[scene.things[-1].colour], words[new])
            assert judge(false, scene, language) == Judgement(True, False, ("colour",))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_wrong_order_or_place_is_caught_as_place(language):
    checked = Counter()
    for seed in range(600):
        scene = Scene(seed)
        if len(scene.things) == 1:
            column, row = scene.things[0].column, scene.things[0].row
            false = changed(scene, 0, column=(column + 1 + seed % 2) % 3, row=(row + seed % 3) % 3)
        elif len(set(looks(scene))) == 2 == len(scene.things):
            false = rearranged(scene, (1, 0))
        else:
            continue
        for sentence in captions(false, language):
            assert judge(sentence, scene, language) == Judgement(True, False, ("place",)), (seed, sentence)
            checked[len(scene.things)] += 1
    assert min(checked.values()) > 500


@pytest.mark.parametrize("language", LANGUAGES)
def test_one_too_few_and_one_too_many_are_caught_as_number(language):
    for seed in range(600):
        scene = Scene(seed)
        if len(scene.things) == 1:
            continue
        fewer = with_things(scene, scene.things[: seed % 2] + scene.things[seed % 2 + 1 :])
        for sentence in captions(fewer, language):
            assert judge(sentence, scene, language) == Judgement(True, False, ("number",)), (seed, sentence)
        for sentence in captions(scene, language):
            assert judge(sentence, fewer, language) == Judgement(True, False, ("number",)), (seed, sentence)


def test_a_replaced_number_word_is_a_wrong_number():
    scenes = [scene for scene in map(Scene, range(1000)) if len(set(looks(scene))) == 1 and len(scene.things) == 2]
    assert len(scenes) > 50
    for scene in scenes:
        for language, two, three in (("en", "two", "three"), ("de", "zwei", "drei"), ("zh", "两", "三")):
            for sentence in captions(scene, language):
                assert judge(sentence.replace(two, three), scene, language) == Judgement(True, False, ("number",))


def test_two_of_the_one_and_one_of_the_other_is_not_the_other_way_round():
    scenes = [scene for scene in map(Scene, range(2000)) if len(set(looks(scene))) == 2 and len(scene.things) == 3]
    assert len(scenes) > 50
    for scene in scenes:
        common, rare = (look for look, _ in Counter(looks(scene)).most_common())
        size, colour, noun = rare
        false = changed(scene, looks(scene).index(common), noun=noun, colour=colour, size=size)
        for language in LANGUAGES:
            for sentence in captions(false, language):
                assert judge(sentence, scene, language) == Judgement(True, False, ("number",))


# Captions that are not well formed


def assert_bad_grammar(sentence, scene, language):
    verdict = judge(sentence, scene, language)
    assert not verdict.well_formed and not verdict.true and verdict.wrong[0] == "grammar", sentence


def test_every_other_german_article_is_wrong():
    forms = ("ein", "eine", "einen", "einem", "einer", "eines")
    for seed in range(150):
        scene = Scene(seed)
        for sentence in captions(scene, "de"):
            for match in re.finditer(r"\beine?[nmrs]?\b", sentence):
                for form in set(forms) - {match[0]}:
                    false = sentence[: match.start()] + form + sentence[match.end() :]
                    verdict = judge(false, scene, "de")
                    assert verdict == Judgement(False, False, ("grammar",)), false


def test_every_other_german_ending_is_wrong():
    stems = "|".join(["klein", "groß", *COLOUR_WORDS["de"].values()])
    for seed in range(120):
        scene = Scene(seed)
        for sentence in captions(scene, "de"):
            for match in re.finditer(rf"\b({stems})(e[nmrs]?)\b", sentence):
                for ending in {"", "e", "er", "es", "en", "em"} - {match[2]}:
                    false = sentence[: match.start(2)] + ending + sentence[match.end() :]
                    assert judge(false, scene, "de") == Judgement(False, False, ("grammar",)), false


def test_german_nouns_have_their_own_endings_and_plurals():
    heart, monkey = Thing("heart", "red", "big", 0, 1, 0.2, 0.5), Thing("monkey", "red", "big", 2, 1, 0.8, 0.5)
    scene = with_things(Scene(0), [heart, monkey])
    for good, bad in [
        ("rechts von einem großen roten Herzen ist ein großer roter Affe", "Affen"),
        ("ein großes rotes Herz ist links von einem großen roten Affen", "Affe"),
        ("es gibt ein großes rotes Herz links von einem großen roten Affen", "Affe"),
    ]:
        assert judge(good, scene, "de") == TRUE
        assert_bad_grammar(" ".join([*good.split()[:-1], bad]), scene, "de")
    assert_bad_grammar("rechts von einem großen roten Herz ist ein großer roter Affe", scene, "de")
    two = with_things(Scene(0), [monkey, monkey._replace(column=1, x=0.5)])
    assert judge("zwei große rote Affen", two, "de") == TRUE
    assert_bad_grammar("zwei große rote Affe", two, "de")
    assert_bad_grammar("zwei großen roten Affen", two, "de")


def test_every_other_chinese_classifier_is_wrong():
    classifiers = sorted({noun.classifier for noun in NOUNS.values()})
    assert len(classifiers) > 10
    for seed in range(300):
        scene, draw = Scene(seed), random.Random(seed)
        for sentence in captions(scene, "zh"):
            for match in re.finditer("[一两三]([^叶])", sentence):
                other = draw.choice([classifier for classifier in classifiers if classifier != match[1]])
                false = sentence[: match.start(1)] + other + sentence[match.end() :]
                assert judge(false, scene, "zh") == Judgement(False, False, ("grammar",)), false


def test_an_only_before_a_vowel_and_plurals_only_of_many():
    for seed in range(300):
        scene = Scene(seed)
        for sentence in captions(scene):
            if re.search(r"\ba (small|big) ", sentence):
                assert judge(re.sub(r"\ba ", "an ", sentence, count=1), scene) == Judgement(False, False, ("grammar",))
        noun = NOUNS[scene.things[0].noun]
        for sentence in captions(scene):
            if noun.plural in sentence:
                assert_bad_grammar(sentence.replace(noun.plural, scene.things[0].noun), scene, "en")
            else:
                assert_bad_grammar(sentence.replace(scene.things[0].noun, noun.plural), scene, "en")
    scene = with_things(Scene(0), [Thing("umbrella", "orange", "big", 1, 1, 0.5, 0.5)])
    assert judge("an orange umbrella in the middle", scene) == judge("an umbrella in the middle", scene) == TRUE
    for bad in ("a orange umbrella in the middle", "a umbrella in the middle", "an big umbrella in the middle"):
        assert judge(bad, scene) == Judgement(False, False, ("grammar",))


def test_bad_grammar_and_a_false_claim_are_both_named():
    scene = with_things(Scene(0), [Thing("anchor", "red", "big", 1, 1, 0.5, 0.5)])
    assert judge("eine großer roter Stern oben links", scene, "de") == (False, False, ("grammar", "noun", "place"))
    assert judge("an small red anchor in the middle", scene, "en") == (False, False, ("grammar", "size"))
    assert judge("中间有一只绿色的大船锚", scene, "zh") == (False, False, ("grammar", "colour"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_nonsense_is_bad_grammar(language):
    nonsense = Judgement(False, False, ("grammar",))
    for sentence in ("", " ", "a", "ein", "一", ".", "<unk>", "colourless green ideas sleep furiously", "a " * 500):
        assert judge(sentence, Scene(1), language) == nonsense
    for seed in range(200):
        scene = Scene(seed)
        for sentence in captions(scene, language):
            tokens = tokenize(sentence)
            for false in (tokens[::-1], tokens * 2, [*tokens, tokens[-1]]):
                assert judge(detokenize(false), scene, language) == nonsense, false
            if len(set(looks(scene))) == len(scene.things):  # "zwei rote Sterne (nebeneinander)" could lose its last
                assert judge(detokenize(tokens[:-1]), scene, language) == nonsense, tokens
            for other in set(LANGUAGES) - {language}:
                assert judge(sentence, scene, other) == nonsense


# What may be left out, and what is hidden


@pytest.mark.parametrize("language, space", [("en", " "), ("de", " "), ("zh", "的")])
def test_a_colour_may_be_left_out(language, space):
    for seed in range(300):
        scene = Scene(seed)
        for sentence in captions(scene, language):
            assert judge(mask_colours(sentence, language).replace(MASKED + space, ""), scene, language) == TRUE


@pytest.mark.parametrize("language, small, big", [("en", "small ", "big "), ("zh", "小", "大")])
def test_a_size_may_be_left_out(language, small, big):
    for seed in range(300):
        scene = Scene(seed)
        for sentence in captions(scene, language):
            shorter = sentence.replace(small, "").replace(big, "").replace("a orange", "an orange")
            assert judge(shorter, scene, language) == TRUE, shorter


@pytest.mark.parametrize("language", LANGUAGES)
def test_masking_leaves_no_colour_word(language):
    words = COLOUR_WORDS[language].values()
    for seed in range(1000):
        scene = Scene(seed)
        for sentence in captions(scene, language):
            masked = mask_colours(sentence, language)
            mentions = sum(sentence.count(word) for word in words)
            assert masked.count(MASKED) == tokenize(masked).count(MASKED) == mentions >= 1
            assert not any(word in masked.lower() for word in words) and "色" not in masked, masked


def test_masked_captions_are_the_same_whatever_the_colours():
    for seed in range(500):
        scene, draw = Scene(seed), random.Random(seed)
        repaint = dict(zip(COLOURS, draw.sample(list(COLOURS), len(COLOURS))))
        other = with_things(scene, [thing._replace(colour=repaint[thing.colour]) for thing in scene.things])
        for language in LANGUAGES:
            masked = [mask_colours(sentence, language) for sentence in captions(scene, language)]
            assert masked == [mask_colours(sentence, language) for sentence in captions(other, language)]


def test_masking_does_not_tell_that_the_word_begins_with_a_vowel():
    assert mask_colours("there are an orange star and an orange king") == "there are a [v] star and a [v] king"
    assert mask_colours("an orange anchor and an anchor") == "a [v] anchor and an anchor"
    assert mask_colours("ein orangefarbener Stern", "de") == "ein [v] Stern"
    assert mask_colours("一颗橙色的星星", "zh") == "一颗[v]的星星"
    assert mask_noun("an anchor and an orange airplane") == "a [v] and an orange airplane"


@pytest.mark.parametrize("leave_out, en, de, zh", [
    (0, "an orange star", "ein orangefarbener Stern", "一颗橙色的星星"),
    (1, "a big star", "ein großer Stern", "一颗大星星"),
    (2, "a big orange star", "ein großer orangefarbener Stern", "一颗橙色的大星星"),
])  # fmt: skip
def test_a_thing_is_named_by_itself(leave_out, en, de, zh):
    things = Thing("star", "orange", "big", 1, 1, 0.5, 0.5), Thing("cat", "red", "small", 0, 0, 0.2, 0.2)
    scene = with_things(Scene(0), things)
    assert [name_thing(scene, leave_out, language) for language in LANGUAGES] == [en, de, zh]
    assert leave_out < 2 or name_thing(scene) == en
    with pytest.raises(ValueError, match="fr"):
        name_thing(scene, leave_out, "fr")


def test_masking_a_noun_by_hand():
    two = "a big red star is left of two pairs of scissors"
    first, second = "a big red [v] is left of two pairs of scissors", "a big red star is left of two [v]"
    assert [mask_noun(two, which) for which in range(4)] == [first, second, first, second] and mask_noun(two) == first
    assert mask_noun("links von einem Herzen ist ein Zahnrad", 0, "de") == "links von einem [v] ist ein Zahnrad"
    assert mask_noun("links von einem Herzen ist ein Zahnrad", 1, "de") == "links von einem Herzen ist ein [v]"
    assert mask_noun("一片白色的雪花", 0, "zh") == "一片白色的[v]"
    assert mask_noun("a big red thing", 1) == "a big red thing"


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_noun_is_masked_in_turn_and_nothing_else(language):
    forms = {"en": [form for name, noun in NOUNS.items() for form in (name, noun.plural)],
             "de": [form for noun in NOUNS.values() for form in (noun.german, noun.german_plural)] + ["Affen", "Herzen"],
             "zh": [noun.chinese for noun in NOUNS.values()]}[language]  # fmt: skip
    for seed in range(89):
        scene = Scene(seed)
        for sentence in captions(scene, language):
            masked = [mask_noun(sentence, which, language) for which in range(6)]
            number = mask_colours(sentence, language).count(MASKED)  # each noun has a colour
            assert len(set(masked)) == number and masked == (masked[:number] * 6)[:6]
            for text in masked[:number]:
                assert text.count(MASKED) == tokenize(text).count(MASKED) == 1
                restored = {re.sub(r"\ban? ", "a ", text.replace(MASKED, form)) for form in forms}
                assert re.sub(r"\ban? ", "a ", sentence) in restored


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_colours_of_a_caption_are_known_by_their_tokens(language):
    names = {stem: name for name, stem in COLOUR_WORDS[language].items()}
    for seed in range(89):
        scene = Scene(seed)
        for sentence in captions(scene, language):
            found = [name for token in tokenize(sentence) if (name := colour_of(token, language))]
            assert found == [names[stem] for stem in re.findall("|".join(names), sentence)]
            assert set(found) == {thing.colour for thing in scene.things}


def test_every_german_ending_of_a_colour_is_known():
    for name, stem in COLOUR_WORDS["de"].items():
        assert {colour_of(stem + ending, "de") for ending in ("", "e", "er", "es", "en", "em")} == {name}, stem
    others = ["e", "er", "es", "en", "ein", "einer", "red", "rote-", "großer", "[v]", "erde"]
    assert [colour_of(word, "de") for word in others] == [None] * len(others)
    assert [colour_of(word) for word in ("red", "rotes", "reds", "[v]")] == ["red", None, None, None]


def test_masking_by_hand():
    assert mask_colours("a big red star") == "a big [v] star"
    assert mask_colours("ein roter Stern und zwei grüne Affen", "de") == "ein [v] Stern und zwei [v] Affen"
    assert mask_colours("一颗红色的大星星", "zh") == "一颗[v]的大星星"


# The questions


def answer_of(question, things):
    """The answer, worked out anew from the things; the things that a question points to must be just one."""
    singular = {noun.plural: name for name, noun in NOUNS.items()}
    if match := re.fullmatch(r"what colour is the (.+)\?", question):
        (thing,) = [thing for thing in things if thing.noun == match[1]]
        return thing.colour
    if match := re.fullmatch(r"what is the (\w+) (\w+) thing\?", question):
        (thing,) = [thing for thing in things if (thing.size, thing.colour) == match.groups()]
        return thing.noun
    if match := re.fullmatch(r"where is the (.+)\?", question):
        (thing,) = [thing for thing in things if thing.noun == match[1]]
        return CELLS[3 * int(3 * thing.y) + int(3 * thing.x)]
    if match := re.fullmatch(r"how many (.+) are there\?", question):
        what = singular.get(match[1]) or match[1].removesuffix(" things")
        return ("zero", "one", "two", "three")[sum(what in thing.look for thing in things)]
    article, colour, noun = re.fullmatch(r"is there (an?) (\w+) (.+)\?", question).groups()
    assert article == ("an" if colour == "orange" else "a")
    return "yes" if any((thing.colour, thing.noun) == (colour, noun) for thing in things) else "no"


def kind_of(question):
    return " ".join(question.split()[:2])


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_true(split):
    kinds = Counter()
    for seed in range(SPLITS[split], SPLITS[split] + 1500):
        scene = Scene(seed)
        asked = questions(scene)
        for question, answer in asked:
            assert answer == answer_of(question, scene.things), (seed, question)
        assert len({kind_of(question) for question, _ in asked}) == len(asked)
        kinds.update(kind_of(question) for question, _ in asked)
    assert kinds.keys() == {"what colour", "what is", "where is", "how many", "is there"}
    assert kinds["how many"] == kinds["is there"] == 1500 and min(kinds.values()) > 1200


@pytest.mark.parametrize("split", SPLITS)
def test_yes_and_no_are_balanced(split):
    answers = {True: Counter(), False: Counter()}  # of pairs that are held out and of those that are not
    for seed in range(SPLITS[split], SPLITS[split] + 2000):
        question, answer = questions(Scene(seed))[-1]
        colour, noun = re.fullmatch(r"is there an? (\w+) (.+)\?", question).groups()
        answers[held_out(noun, colour)][answer] += 1
    for counts in answers.values():  # three standard deviations
        assert abs(counts["yes"] - counts["no"]) <= 3 * counts.total() ** 0.5
    assert (answers[True].total() > 0) == (split == "compositional_test")


def test_a_no_is_a_near_miss():
    near = Counter()
    for seed in range(2000):
        things = Scene(seed).things
        question, answer = questions(Scene(seed))[-1]
        if answer == "no":
            colour, noun = re.fullmatch(r"is there an? (\w+) (.+)\?", question).groups()
            near["colour"] += any(thing.colour == colour for thing in things)
            near["noun"] += any(thing.noun == noun for thing in things)
            near["none"] += all(thing.colour != colour and thing.noun != noun for thing in things)
    assert near["none"] == 0 and min(near["colour"], near["noun"]) > 100


def test_the_question_alone_does_not_give_the_answer():
    answers = defaultdict(Counter)
    for seed in range(6000):
        for question, answer in questions(Scene(seed)):
            answers[question][answer] += 1
    right = defaultdict(list)
    for seed in range(SPLITS["validation"], SPLITS["validation"] + 2500):
        for question, answer in questions(Scene(seed)):
            guess = max(answers[question], key=answers[question].get, default=None)
            right[kind_of(question)].append(guess == answer)
    share = {kind: sum(hits) / len(hits) for kind, hits in right.items()}
    assert share["what colour"] < 0.25 and share["what is"] < 0.15 and share["where is"] < 0.25
    assert share["how many"] < 0.55 and share["is there"] < 0.55
    assert sum(map(sum, right.values())) / sum(map(len, right.values())) < 0.35
