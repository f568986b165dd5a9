"""The judge of captions, against sentences written by hand and rules written another way."""

import copy
import random
import re
from collections import Counter
from itertools import permutations

import pytest
import torch

from mmscratch.data.judge import Judgement, judge, true_pairs
from mmscratch.data.language import LANGUAGES, caption, captions, mask_colours
from mmscratch.data.scenes import COLOURS, NOUNS, SPLITS, Object, Scene
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


def with_objects(scene, objects):
    """The same scene with other objects."""
    scene = copy.copy(scene)
    scene.objects = tuple(objects)
    return scene


def changed(scene, which, **fields):
    """The same scene with one object changed."""
    objects = list(scene.objects)
    objects[which] = objects[which]._replace(**fields)
    return with_objects(scene, objects)


def rearranged(scene, order):
    """The same scene with its objects in a different order of places."""
    return with_objects(
        scene, [Object(*obj[:3], *scene.objects[i][3:]) for obj, i in zip(scene.objects, order)]
    )


def attributes_of(scene):
    return [obj.attributes for obj in scene.objects]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("split", SPLITS)
def test_every_reference_is_well_formed_and_true(split, language):
    for seed in range(SPLITS[split], SPLITS[split] + (2000 if split == "train" else 300)):
        scene = Scene(seed)
        references = captions(scene, language)
        assert len(set(references)) == 5
        for reference in references:
            assert judge(reference, scene, language) == TRUE, (seed, reference)


@pytest.mark.parametrize("language", LANGUAGES)
def test_tokenizing_a_caption_does_not_change_the_verdict(language):
    for seed in range(300):
        scene = Scene(seed)
        for reference in captions(scene, language):
            tokens = tokenize(reference)
            assert (
                judge(" ".join(tokens), scene, language)
                == judge(detokenize(tokens), scene, language)
                == TRUE
            )


def assert_describes(scene, english, german, chinese):
    for language, sentence in zip(LANGUAGES, (english, german, chinese)):
        assert sentence in captions(scene, language)
        assert judge(sentence, scene, language) == TRUE


def test_sentences_written_by_hand():
    anchor = Object("anchor", "red", "big", 0, 0, 0.2, 0.2)
    sun = Object("sun", "orange", "small", 2, 0, 0.8, 0.2)
    monkey = Object("monkey", "white", "small", 0, 2, 0.2, 0.8)
    heart = Object("heart", "yellow", "small", 1, 2, 0.5, 0.8)
    assert_describes(
        with_objects(Scene(0), [anchor]),
        "there is a big red anchor in the top left corner",
        "es gibt einen großen roten Anker oben links",
        "左上角有一个红色的大船锚",
    )
    assert_describes(
        with_objects(Scene(0), [sun, anchor]),
        "right of a big red anchor is a small orange sun",
        "rechts von einem großen roten Anker ist eine kleine orangefarbene Sonne",
        "一个红色的大船锚的右边有一个橙色的小太阳",
    )
    assert_describes(
        with_objects(Scene(0), [monkey, anchor]),
        "from top to bottom: a big red anchor and a small white monkey",
        "es gibt einen großen roten Anker über einem kleinen weißen Affen",
        "从上到下：一个红色的大船锚和一只白色的小猴子",
    )
    assert_describes(
        with_objects(Scene(0), [heart, sun, monkey]),
        "a small yellow heart is between a small white monkey and a small orange sun",
        "ein kleines gelbes Herz ist zwischen einem kleinen weißen Affen und einer kleinen orangefarbenen Sonne",
        "一颗黄色的小爱心在一只白色的小猴子和一个橙色的小太阳之间",
    )
    assert_describes(
        with_objects(Scene(0), [heart, heart._replace(column=0, x=0.2)]),
        "two small yellow hearts side by side",
        "zwei kleine gelbe Herzen nebeneinander",
        "两颗黄色的小爱心左右排列",
    )
    assert_describes(
        with_objects(Scene(0), [heart, heart._replace(column=0, x=0.2), sun]),
        "there are two small yellow hearts and a small orange sun",
        "das Bild zeigt eine kleine orangefarbene Sonne und zwei kleine gelbe Herzen",
        "有两颗黄色的小爱心和一个橙色的小太阳",
    )


def test_german_genders():
    articles = {"m": "einen kleinen roten", "f": "eine kleine rote", "n": "ein kleines rotes"}
    names = {name: gender for gender in GERMAN for name in GERMAN[gender].split()}
    assert len(names) == 32
    for noun in NOUNS:
        sentence = captions(
            with_objects(Scene(0), [Object(noun, "red", "small", 1, 1, 0.5, 0.5)]), "de"
        )[2]
        name = NOUNS[noun].german
        written = "Affen" if name == "Affe" else name
        assert sentence == f"es gibt {articles[names[name]]} {written} in der Mitte"


def is_true(sentence, objects):
    """Does the sentence name exactly these objects, and is its claim about their order or place true?"""
    phrase = rf"\b(an?|two|three) (small|big) (\w+) ({'|'.join(f'{n.plural}|{name}' for name, n in NOUNS.items())})\b"
    singular = {noun.plural: name for name, noun in NOUNS.items()}
    named = []
    for number, size, colour, noun in re.findall(phrase, sentence):
        named += [(size, colour, singular.get(noun, noun))] * {"two": 2, "three": 3}.get(number, 1)
    if sorted(named) != sorted(obj.attributes for obj in objects):
        return False
    rows = []
    for axis in ("column", "row"):
        line = sorted(objects, key=lambda obj: getattr(obj, axis))
        apart = len({getattr(obj, axis) for obj in objects}) == len(objects)
        rows.append([obj.attributes for obj in line] if apart else [])
    across, down = rows
    if cell := next((cell for cell in CELLS if cell in sentence), None):
        return cell == CELLS[3 * objects[0].row + objects[0].column]
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
        assert all(is_true(sentence, scene.objects) for sentence in captions(scene))


def test_claims_of_order_are_judged_as_by_other_rules():
    verdicts = Counter()
    for seed in range(700):
        scene = Scene(seed)
        turned = [obj._replace(column=obj.row, row=obj.column) for obj in scene.objects]
        mirrored = [obj._replace(column=2 - obj.column, row=2 - obj.row) for obj in scene.objects]
        others = [with_objects(scene, turned), with_objects(scene, mirrored)]
        others += [rearranged(scene, order) for order in permutations(range(len(scene.objects)))]
        other = random.Random(seed).choice(others)
        english = captions(other)
        for language in LANGUAGES:
            # caption number `which` says the same in every language
            for which, sentence in enumerate(captions(other, language)):
                true = is_true(english[which], scene.objects)
                assert judge(sentence, scene, language) == (
                    TRUE if true else Judgement(True, False, ("place",))
                )
                verdicts[language, true] += 1
    assert min(verdicts.values()) > 500


def test_a_caption_of_another_scene_is_as_true_as_by_other_rules():
    draw = random.Random(3)
    for _ in range(3000):
        scene, other = Scene(draw.randrange(10**6)), Scene(draw.randrange(10**6))
        which, language = draw.randrange(5), draw.choice(LANGUAGES)
        verdict = judge(caption(other, which, language), scene, language)
        assert verdict.well_formed
        assert verdict.true == is_true(caption(other, which), scene.objects) == (not verdict.wrong)


def test_the_faults_of_one_object_are_exactly_its_wrong_attributes():
    draw = random.Random(5)
    scenes = [scene for scene in map(Scene, range(400)) if len(scene.objects) == 1]
    for _ in range(3000):
        scene, other = draw.choice(scenes), draw.choice(scenes)
        (obj,), (said,) = scene.objects, other.objects
        wrong = {
            name for name in ("noun", "colour", "size") if getattr(obj, name) != getattr(said, name)
        }
        if (obj.column, obj.row) != (said.column, said.row):
            wrong.add("place")
        language = draw.choice(LANGUAGES)
        verdict = judge(caption(other, draw.randrange(5), language), scene, language)
        assert set(verdict.wrong) == wrong and len(verdict.wrong) == len(wrong)
        assert (verdict.well_formed, verdict.true) == (True, not wrong)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("fault", ["colour", "noun", "size"])
def test_one_wrong_word_is_a_fault_of_its_kind(fault, language):
    checked = 0
    for seed in range(600):
        scene, draw = Scene(seed), random.Random(seed)
        which = draw.randrange(len(scene.objects))
        there = {getattr(obj, fault) for obj in scene.objects}
        if fault == "size":
            new = "big" if scene.objects[which].size == "small" else "small"
        else:
            new = draw.choice(sorted({"colour": COLOURS, "noun": NOUNS}[fault].keys() - there))
        false = changed(scene, which, **{fault: new})
        if set(attributes_of(false)) == set(attributes_of(scene)):
            continue  # one fewer of one kind and one more of another: a wrong number, see below
        for sentence in captions(false, language):
            assert judge(sentence, scene, language) == Judgement(True, False, (fault,)), (
                seed,
                sentence,
            )
            checked += 1
    assert checked > 2500


def test_a_replaced_colour_word_is_a_wrong_colour():
    for seed in range(600):
        scene = Scene(seed)
        new = next(
            colour for colour in COLOURS if all(colour != obj.colour for obj in scene.objects)
        )
        for language in LANGUAGES:
            sentence = random.Random(seed).choice(captions(scene, language))
            words = COLOUR_WORDS[language]
            false = sentence.replace(words[scene.objects[-1].colour], words[new])
            assert judge(false, scene, language) == Judgement(True, False, ("colour",))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_wrong_order_or_place_is_a_wrong_place(language):
    checked = Counter()
    for seed in range(600):
        scene = Scene(seed)
        if len(scene.objects) == 1:
            column, row = scene.objects[0].column, scene.objects[0].row
            false = changed(scene, 0, column=(column + 1 + seed % 2) % 3, row=(row + seed % 3) % 3)
        elif len(set(attributes_of(scene))) == 2 == len(scene.objects):
            false = rearranged(scene, (1, 0))
        else:
            continue
        for sentence in captions(false, language):
            assert judge(sentence, scene, language) == Judgement(True, False, ("place",)), (
                seed,
                sentence,
            )
            checked[len(scene.objects)] += 1
    assert min(checked.values()) > 500


@pytest.mark.parametrize("language", LANGUAGES)
def test_one_object_too_few_or_too_many_is_a_wrong_number(language):
    for seed in range(600):
        scene = Scene(seed)
        if len(scene.objects) == 1:
            continue
        fewer = with_objects(scene, scene.objects[: seed % 2] + scene.objects[seed % 2 + 1 :])
        for sentence in captions(fewer, language):
            assert judge(sentence, scene, language) == Judgement(True, False, ("number",)), (
                seed,
                sentence,
            )
        for sentence in captions(scene, language):
            assert judge(sentence, fewer, language) == Judgement(True, False, ("number",)), (
                seed,
                sentence,
            )


def test_a_replaced_number_word_is_a_wrong_number():
    scenes = [
        scene
        for scene in map(Scene, range(1000))
        if len(set(attributes_of(scene))) == 1 and len(scene.objects) == 2
    ]
    assert len(scenes) > 50
    for scene in scenes:
        for language, two, three in (
            ("en", "two", "three"),
            ("de", "zwei", "drei"),
            ("zh", "两", "三"),
        ):
            for sentence in captions(scene, language):
                assert judge(sentence.replace(two, three), scene, language) == Judgement(
                    True, False, ("number",)
                )


def test_swapped_counts_are_a_wrong_number():
    scenes = [
        scene
        for scene in map(Scene, range(2000))
        if len(set(attributes_of(scene))) == 2 and len(scene.objects) == 3
    ]
    assert len(scenes) > 50
    for scene in scenes:
        common, rare = (attributes for attributes, _ in Counter(attributes_of(scene)).most_common())
        size, colour, noun = rare
        false = changed(
            scene, attributes_of(scene).index(common), noun=noun, colour=colour, size=size
        )
        for language in LANGUAGES:
            for sentence in captions(false, language):
                assert judge(sentence, scene, language) == Judgement(True, False, ("number",))


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
    heart, monkey = (
        Object("heart", "red", "big", 0, 1, 0.2, 0.5),
        Object("monkey", "red", "big", 2, 1, 0.8, 0.5),
    )
    scene = with_objects(Scene(0), [heart, monkey])
    for good, bad in [
        ("rechts von einem großen roten Herzen ist ein großer roter Affe", "Affen"),
        ("ein großes rotes Herz ist links von einem großen roten Affen", "Affe"),
        ("es gibt ein großes rotes Herz links von einem großen roten Affen", "Affe"),
    ]:
        assert judge(good, scene, "de") == TRUE
        assert_bad_grammar(" ".join([*good.split()[:-1], bad]), scene, "de")
    assert_bad_grammar("rechts von einem großen roten Herz ist ein großer roter Affe", scene, "de")
    two = with_objects(Scene(0), [monkey, monkey._replace(column=1, x=0.5)])
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
                other = draw.choice(
                    [classifier for classifier in classifiers if classifier != match[1]]
                )
                false = sentence[: match.start(1)] + other + sentence[match.end() :]
                assert judge(false, scene, "zh") == Judgement(False, False, ("grammar",)), false


def test_an_only_before_a_vowel_and_plurals_only_for_several():
    for seed in range(300):
        scene = Scene(seed)
        for sentence in captions(scene):
            if re.search(r"\ba (small|big) ", sentence):
                assert judge(re.sub(r"\ba ", "an ", sentence, count=1), scene) == Judgement(
                    False, False, ("grammar",)
                )
        noun = NOUNS[scene.objects[0].noun]
        for sentence in captions(scene):
            if noun.plural in sentence:
                assert_bad_grammar(
                    sentence.replace(noun.plural, scene.objects[0].noun), scene, "en"
                )
            else:
                assert_bad_grammar(
                    sentence.replace(scene.objects[0].noun, noun.plural), scene, "en"
                )
    scene = with_objects(Scene(0), [Object("umbrella", "orange", "big", 1, 1, 0.5, 0.5)])
    assert (
        judge("an orange umbrella in the middle", scene)
        == judge("an umbrella in the middle", scene)
        == TRUE
    )
    for bad in (
        "a orange umbrella in the middle",
        "a umbrella in the middle",
        "an big umbrella in the middle",
    ):
        assert judge(bad, scene) == Judgement(False, False, ("grammar",))


def test_bad_grammar_and_a_false_claim_are_both_reported():
    scene = with_objects(Scene(0), [Object("anchor", "red", "big", 1, 1, 0.5, 0.5)])
    assert judge("eine großer roter Stern oben links", scene, "de") == (
        False,
        False,
        ("grammar", "noun", "place"),
    )
    assert judge("an small red anchor in the middle", scene, "en") == (
        False,
        False,
        ("grammar", "size"),
    )
    assert judge("中间有一只绿色的大船锚", scene, "zh") == (False, False, ("grammar", "colour"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_nonsense_is_bad_grammar(language):
    nonsense = Judgement(False, False, ("grammar",))
    for sentence in (
        "",
        " ",
        "a",
        "ein",
        "一",
        ".",
        "<unk>",
        "colourless green ideas sleep furiously",
        "a " * 500,
    ):
        assert judge(sentence, Scene(1), language) == nonsense
    for seed in range(200):
        scene = Scene(seed)
        for sentence in captions(scene, language):
            tokens = tokenize(sentence)
            for false in (tokens[::-1], tokens * 2, [*tokens, tokens[-1]]):
                assert judge(detokenize(false), scene, language) == nonsense, false
            # "zwei rote Sterne (nebeneinander)" is also right without its last word
            if len(set(attributes_of(scene))) == len(scene.objects):
                assert judge(detokenize(tokens[:-1]), scene, language) == nonsense, tokens
            for other in set(LANGUAGES) - {language}:
                assert judge(sentence, scene, other) == nonsense


@pytest.mark.parametrize("language, space", [("en", " "), ("de", " "), ("zh", "的")])
def test_a_colour_may_be_left_out(language, space):
    for seed in range(300):
        scene = Scene(seed)
        for sentence in captions(scene, language):
            assert (
                judge(mask_colours(sentence, language).replace(MASKED + space, ""), scene, language)
                == TRUE
            )


@pytest.mark.parametrize("language, small, big", [("en", "small ", "big "), ("zh", "小", "大")])
def test_a_size_may_be_left_out(language, small, big):
    for seed in range(300):
        scene = Scene(seed)
        for sentence in captions(scene, language):
            shorter = sentence.replace(small, "").replace(big, "").replace("a orange", "an orange")
            assert judge(shorter, scene, language) == TRUE, shorter


def captions_of_all_kinds(scenes, language):
    """A true caption of each scene; and, now and then, one that is no sentence or upside down."""
    sentences = [caption(scene, i % 5, language) for i, scene in enumerate(scenes)]
    sentences[3] = sentences[3].upper()
    sentences[5] = "nonsense"
    sentences[7] = ""
    sentences[11] += sentences[11]
    return sentences


@pytest.mark.parametrize("language, count", [("en", 107), ("de", 103), ("zh", 101)])
def test_true_pairs_are_those_of_the_judge(language, count):
    draw = random.Random(0)
    # Few nouns and colours, so that a caption is often true of several scenes.
    scenes = []
    for i in range(count):
        number = draw.randint(1, 3)
        kinds = [("big", draw.choice(("red", "blue")), draw.choice(("sun", "king", "mouse")))]
        while len(kinds) < number:
            kinds.append(draw.choice((kinds[0], ("small", "red", "king"))))
        scenes.append(Scene.compose(draw, kinds))
    sentences = captions_of_all_kinds(scenes, language)
    for i in range(13, 43):  # mistakes of grammar, if these words occur
        for right, wrong in (("a big", "an big"), ("großer", "großes"), ("一个", "一只")):
            sentences[i] = sentences[i].replace(right, wrong)
    faults = [judge(*pair, language).wrong for pair in zip(sentences, scenes)]
    assert ("grammar",) in faults[13:43], "true apart from the grammar"
    found = true_pairs(sentences, scenes, language)
    expected = []
    for sentence in sentences:
        expected.append([judge(sentence, scene, language).true for scene in scenes])
    assert found.tolist() == expected
    assert found.shape == (count, count) and found.dtype == torch.bool
    assert count < found.sum() < count**2 / 4, "not only those on the diagonal, nor most"
    assert (found != found.T).any(), "a caption may fit a scene whose own does not fit back"


def test_true_pairs_of_the_scenes_of_each_split_are_those_of_the_judge():
    scenes = [Scene(first + i) for first in SPLITS.values() for i in range(17)]
    sentences = captions_of_all_kinds(scenes, "en")[:-1]
    found = true_pairs(sentences, scenes)
    assert found.shape == (67, 68)
    for i, sentence in enumerate(sentences):
        assert found[i].tolist() == [judge(sentence, scene).true for scene in scenes]


def test_true_pairs_of_nothing_and_of_an_unknown_language():
    assert true_pairs([], [Scene(0)]).shape == (0, 1)
    assert true_pairs(["a big red star"], []).shape == (1, 0)
    with pytest.raises(ValueError):
        true_pairs([], [], "fr")
