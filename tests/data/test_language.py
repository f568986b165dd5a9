"""The grammar of the scenes: named objects, and masked words."""

import copy
import random
import re

import pytest

from mmscratch.data.judge import judge
from mmscratch.data.language import (
    LANGUAGES,
    Mention,
    caption,
    captions,
    colour_of,
    mask_colours,
    mask_noun,
    name_object,
    named_objects,
)
from mmscratch.data.scenes import COLOURS, NOUNS, Object, Scene
from mmscratch.text import MASKED, tokenize

COLOUR_WORDS = {
    "en": {name: name for name in COLOURS},
    "de": {name: colour.german for name, colour in COLOURS.items()},
    "zh": {name: colour.chinese for name, colour in COLOURS.items()},
}


def with_objects(scene, objects):
    """The same scene with other objects."""
    scene = copy.copy(scene)
    scene.objects = tuple(objects)
    return scene


def test_words_name_an_object_only_if_no_other_fits():
    kinds = ("star", "red", "big"), ("lightning bolt", "blue", "small"), ("star", "red", "small")
    star, bolt, other = objects = [
        Object(*attributes, i, i, 0.2, 0.2) for i, attributes in enumerate(kinds)
    ]
    scene = with_objects(Scene(0), objects)
    for sentence, expected in (
        (
            "a big red star is left of a small blue lightning bolt",
            [(2, star), (3, star), (9, bolt), (10, bolt)],
        ),
        ("a red star and a star", []),  # either of two
        (
            "two small red stars and a small red star",
            [(7, other), (8, other)],
        ),  # a plural names no single object
        ("a big blue star above an orange bolt", []),  # neither is in the scene
        ("a lightning bolt", [(1, bolt)]),
        ("", []),
    ):
        assert named_objects(sentence.split(), scene) == expected, sentence


def test_captions_name_every_unique_object_of_a_scene():
    for seed in range(100):
        scene = Scene(seed)
        kinds = [obj.attributes for obj in scene.objects]
        for words in map(tokenize, captions(scene)):
            named = named_objects(words, scene)
            alone = [obj for obj in scene.objects if kinds.count(obj.attributes) == 1]
            assert sorted(obj for _, obj in named) == sorted(2 * alone)
            assert all(words[i] in (obj.colour, obj.noun.split()[0]) for i, obj in named)


def test_caption_returns_one_of_the_five():
    for language in LANGUAGES:
        assert [caption(Scene(13), which, language) for which in range(5)] == captions(
            Scene(13), language
        )


def test_unknown_languages_are_refused():
    for function in (captions, lambda scene, language: judge("a", scene, language)):
        with pytest.raises(ValueError, match="'fr'.*en, de, zh"):
            function(Scene(0), "fr")
    for mask in (mask_colours, lambda text, language: mask_noun(text, 0, language)):
        with pytest.raises(ValueError, match="'fr'.*en, de, zh"):
            mask("une étoile", "fr")


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


def test_masked_captions_do_not_depend_on_the_colours():
    for seed in range(500):
        scene, draw = Scene(seed), random.Random(seed)
        repaint = dict(zip(COLOURS, draw.sample(list(COLOURS), len(COLOURS))))
        other = with_objects(
            scene, [obj._replace(colour=repaint[obj.colour]) for obj in scene.objects]
        )
        for language in LANGUAGES:
            masked = [mask_colours(sentence, language) for sentence in captions(scene, language)]
            assert masked == [
                mask_colours(sentence, language) for sentence in captions(other, language)
            ]


def test_masking_does_not_reveal_an_initial_vowel():
    assert (
        mask_colours("there are an orange star and an orange king")
        == "there are a [v] star and a [v] king"
    )
    assert mask_colours("an orange anchor and an anchor") == "a [v] anchor and an anchor"
    assert mask_colours("ein orangefarbener Stern", "de") == "ein [v] Stern"
    assert mask_colours("一颗橙色的星星", "zh") == "一颗[v]的星星"
    assert mask_noun("an anchor and an orange airplane") == "a [v] and an orange airplane"


@pytest.mark.parametrize("leave_out, en, de, zh", [
    (0, "an orange star", "ein orangefarbener Stern", "一颗橙色的星星"),
    (1, "a big star", "ein großer Stern", "一颗大星星"),
    (2, "a big orange star", "ein großer orangefarbener Stern", "一颗橙色的大星星"),
])  # fmt: skip
def test_a_phrase_names_the_first_object(leave_out, en, de, zh):
    objects = (
        Object("star", "orange", "big", 1, 1, 0.5, 0.5),
        Object("cat", "red", "small", 0, 0, 0.2, 0.2),
    )
    scene = with_objects(Scene(0), objects)
    assert [name_object(scene, leave_out, language) for language in LANGUAGES] == [en, de, zh]
    assert leave_out < 2 or name_object(scene) == en
    with pytest.raises(ValueError, match="fr"):
        name_object(scene, leave_out, "fr")


PHRASES = [  # (count, size, colour, noun, definite), English, the German cases, Chinese
    ((1, None, "red", "star", True), "the red star",
     ("der rote Stern", "den roten Stern", "dem roten Stern"), "红色的星星"),
    ((1, "big", None, "cat", True), "the big cat",
     ("die große Katze", "die große Katze", "der großen Katze"), "大猫"),
    ((1, "small", "orange", "heart", True), "the small orange heart",
     ("das kleine orangefarbene Herz", "das kleine orangefarbene Herz", "dem kleinen orangefarbenen Herzen"),
     "橙色的小爱心"),
    ((1, None, None, "monkey", True), "the monkey", ("der Affe", "den Affen", "dem Affen"), "猴子"),
    ((1, None, "blue", None, True), "the blue thing",
     ("das blaue Ding", "das blaue Ding", "dem blauen Ding"), "蓝色的东西"),
    ((1, None, "orange", None, False), "an orange thing",
     ("ein orangefarbenes Ding", "ein orangefarbenes Ding", "einem orangefarbenen Ding"), "一个橙色的东西"),
    ((1, None, None, "envelope", False), "an envelope",
     ("ein Briefumschlag", "einen Briefumschlag", "einem Briefumschlag"), "一个信封"),
    ((0, "big", "white", "mouse", False), "big white mice",
     ("große weiße Mäuse", "große weiße Mäuse", None), "白色的大老鼠"),
    ((0, "small", None, None, False), "small things", ("kleine Dinge", "kleine Dinge", None), "小东西"),
    ((2, None, "black", "horse", False), "two black horses",
     ("zwei schwarze Pferde", "zwei schwarze Pferde", None), "两匹黑色的马"),
]  # fmt: skip


@pytest.mark.parametrize("said, english, german, chinese", PHRASES, ids=[row[1] for row in PHRASES])
def test_noun_phrases_in_three_languages(said, english, german, chinese):
    assert format(Mention("en", *said)) == english
    assert format(Mention("zh", *said)) == chinese
    for case, phrase in zip(("nom", "acc", "dat"), german):
        if phrase:  # no template has a plural in the dative
            assert format(Mention("de", *said), case) == phrase


def test_masked_nouns_by_hand():
    two = "a big red star is left of two pairs of scissors"
    first, second = (
        "a big red [v] is left of two pairs of scissors",
        "a big red star is left of two [v]",
    )
    assert [mask_noun(two, which) for which in range(4)] == [
        first,
        second,
        first,
        second,
    ] and mask_noun(two) == first
    assert (
        mask_noun("links von einem Herzen ist ein Zahnrad", 0, "de")
        == "links von einem [v] ist ein Zahnrad"
    )
    assert (
        mask_noun("links von einem Herzen ist ein Zahnrad", 1, "de")
        == "links von einem Herzen ist ein [v]"
    )
    assert mask_noun("一片白色的雪花", 0, "zh") == "一片白色的[v]"
    assert mask_noun("a big red thing", 1) == "a big red thing"


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_noun_is_masked_and_nothing_else(language):
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
def test_colours_of_a_caption_are_recognised_by_their_tokens(language):
    names = {stem: name for name, stem in COLOUR_WORDS[language].items()}
    for seed in range(89):
        scene = Scene(seed)
        for sentence in captions(scene, language):
            found = [name for token in tokenize(sentence) if (name := colour_of(token, language))]
            assert found == [names[stem] for stem in re.findall("|".join(names), sentence)]
            assert set(found) == {obj.colour for obj in scene.objects}


def test_german_colours_are_recognised_with_every_ending():
    for name, stem in COLOUR_WORDS["de"].items():
        assert {colour_of(stem + ending, "de") for ending in ("", "e", "er", "es", "en", "em")} == {
            name
        }, stem
    others = ["e", "er", "es", "en", "ein", "einer", "red", "rote-", "großer", "[v]", "erde"]
    assert [colour_of(word, "de") for word in others] == [None] * len(others)
    assert [colour_of(word) for word in ("red", "rotes", "reds", "[v]")] == [
        "red",
        None,
        None,
        None,
    ]


def test_masked_colours_by_hand():
    assert mask_colours("a big red star") == "a big [v] star"
    assert mask_colours("a tired star, redder than orange") == "a tired star, redder than [v]"
    assert (
        mask_colours("ein roter Stern und zwei grüne Affen", "de")
        == "ein [v] Stern und zwei [v] Affen"
    )
    assert mask_colours("一颗红色的大星星", "zh") == "一颗[v]的大星星"
