"""The grammar of the scenes: what it says of them in English, German and Chinese."""

import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from ..text import MASKED
from .scenes import COLOURS, NOUNS, SIZES, Object, Scene

LANGUAGES = ("en", "de", "zh")


def named_objects(words: Sequence[str], scene: Scene) -> list[tuple[int, Object]]:
    """Which word of an English caption names which thing: pairs of the word's index and the thing.

    These are the colour and the noun (its first word) of every phrase in the singular that fits one thing of the scene
    and no other: "a big red star" of the one star that is big and red.
    """
    named, attributes = (
        [],
        {},
    )  # of the phrase being read: its size and colour, and where they stand
    for i, word in enumerate(words):
        if word in ("a", "an", "two", "three"):
            attributes = {}
        elif word in SIZES or word in COLOURS:
            attributes[word] = i
        for noun in NOUNS:
            if list(words[i : i + len(noun.split())]) == noun.split():
                objects = [
                    obj
                    for obj in scene.objects
                    if obj.noun == noun and attributes.keys() <= set(obj.attributes)
                ]
                if len(objects) == 1:
                    named += [
                        (place, objects[0]) for word, place in attributes.items() if word in COLOURS
                    ] + [(i, objects[0])]
                attributes = {}
    return named


_TEMPLATES = {
    "en": {
        "one": ("{0} {place}", "{0} is {place}", "there is {0} {place}", "{place} there is {0}",
                "the picture shows {0} {place}"),
        "two": ("{0} is {before} {1}", "{0} {before} {1}", "there is {0} {before} {1}", "{after} {0} is {1}",
                "{order}: {0} and {1}"),
        "three": ("{order}: {0}, {1} and {2}", "{order} there are {0}, {1} and {2}", "{reverse}: {2}, {1} and {0}",
                  "{1} is between {0} and {2}", "{before} {1} is {0}, {after} it {2}"),
        "alike": ("{n}", "there are {n}", "the picture shows {n}", "you can see {n}", "{n} {beside}"),
        "mixed": ("{n} and {m}", "{m} and {n}", "there are {n} and {m}", "the picture shows {m} and {n}",
                  "{order}: {0}, {1} and {2}"),
    },
    "de": {
        "one": ("{0} {place}", "{0} ist {place}", "es gibt {0:acc} {place}", "{place} ist {0}",
                "das Bild zeigt {0:acc} {place}"),
        "two": ("{0} ist {before} {1:dat}", "{0} {before} {1:dat}", "es gibt {0:acc} {before} {1:dat}",
                "{after} {0:dat} ist {1}", "{order}: {0} und {1}"),
        "three": ("{order}: {0}, {1} und {2}", "{order} gibt es {0:acc}, {1:acc} und {2:acc}",
                  "{reverse}: {2}, {1} und {0}", "{1} ist zwischen {0:dat} und {2:dat}", "{before} {1:dat} ist {0}, {thereafter} {2}"),
        "alike": ("{n}", "es gibt {n:acc}", "das Bild zeigt {n:acc}", "man sieht {n:acc}", "{n} {beside}"),
        "mixed": ("{n} und {m}", "{m} und {n}", "es gibt {n:acc} und {m:acc}", "das Bild zeigt {m:acc} und {n:acc}",
                  "{order}: {0}, {1} und {2}"),
    },
    "zh": {
        "one": ("{0}在{place}", "{place}有{0}", "{place}是{0}", "图中{place}有{0}", "可以看到{0}在{place}"),
        "two": ("{0}在{1}的{before}", "图中{0}在{1}的{before}", "可以看到{0}在{1}的{before}", "{0}的{after}有{1}",
                "{order}：{0}和{1}"),
        "three": ("{order}：{0}、{1}和{2}", "{order}有{0}、{1}和{2}", "{reverse}：{2}、{1}和{0}", "{1}在{0}和{2}之间",
                  "{1}的{before}是{0}，{after}是{2}"),
        "alike": ("{n}", "有{n}", "图中有{n}", "可以看到{n}", "{n}{beside}"),
        "mixed": ("{n}和{m}", "{m}和{n}", "有{n}和{m}", "图中有{m}和{n}", "{order}：{0}、{1}和{2}"),
    },
}  # fmt: skip
_AXIS_FIELDS = ("before", "after", "thereafter", "order", "reverse", "beside")
_AXES = {  # the words of the two axes: 0, left to right, and 1, top to bottom
    "en": (("left of", "right of", "", "from left to right", "from right to left", "side by side"),
           ("above", "below", "", "from top to bottom", "from bottom to top", "one above the other")),
    "de": (("links von", "rechts von", "rechts davon", "von links nach rechts", "von rechts nach links",
            "nebeneinander"),
           ("über", "unter", "darunter", "von oben nach unten", "von unten nach oben", "übereinander")),
    "zh": (("左边", "右边", "", "从左到右", "从右到左", "左右排列"), ("上面", "下面", "", "从上到下", "从下到上", "上下排列")),
}  # fmt: skip
_PLACES = {  # the nine cells, row by row
    "en": ("in the top left corner", "at the top", "in the top right corner", "on the left", "in the middle",
           "on the right", "in the bottom left corner", "at the bottom", "in the bottom right corner"),
    "de": ("oben links", "oben in der Mitte", "oben rechts", "links in der Mitte", "in der Mitte", "rechts in der Mitte",
           "unten links", "unten in der Mitte", "unten rechts"),
    "zh": ("左上角", "上方", "右上角", "左侧", "中间", "右侧", "左下角", "下方", "右下角"),
}  # fmt: skip
_NUMBERS = {
    "en": ("", "a", "two", "three"),
    "de": ("", "ein", "zwei", "drei"),
    "zh": ("", "一", "两", "三"),
}
_SIZE_WORDS = {
    "en": {"small": "small", "big": "big"},
    "de": {"small": "klein", "big": "groß"},
    "zh": {"small": "小", "big": "大"},
}
_WEAK = {
    ("Affe", "acc"): "Affen",
    ("Affe", "dat"): "Affen",
    ("Herz", "dat"): "Herzen",
}  # nouns with endings of their own
_ARTICLES = {"nom": {"m": "ein", "f": "eine", "n": "ein"}, "acc": {"m": "einen", "f": "eine", "n": "ein"},
             "dat": {"m": "einem", "f": "einer", "n": "einem"}}  # fmt: skip
_ENDINGS = {"nom": {"m": "er", "f": "e", "n": "es"}, "acc": {"m": "en", "f": "e", "n": "es"},
            "dat": {"m": "en", "f": "en", "n": "en"}}  # fmt: skip


class Mention(NamedTuple):
    """A noun phrase: "two big red stars". In a template, its format is the German case: nom, acc or dat."""

    language: str
    count: int
    size: str | None
    colour: str | None
    noun: str

    def __format__(self, case: str) -> str:
        number, noun = _NUMBERS[self.language][self.count], NOUNS[self.noun]
        size = _SIZE_WORDS[self.language][self.size] if self.size else ""
        if self.language == "zh":
            colour = COLOURS[self.colour].chinese + "的" if self.colour else ""
            return number + noun.classifier + colour + size + noun.chinese
        if self.language == "en":
            rest = " ".join(
                filter(None, (size, self.colour, self.noun if self.count == 1 else noun.plural))
            )
            return ("an" if number == "a" and rest[0] in "aeiou" else number) + " " + rest
        case, ending, name = case or "nom", "e", noun.german_plural
        if self.count == 1:
            number, ending = _ARTICLES[case][noun.gender], _ENDINGS[case][noun.gender]
            name = _WEAK.get((noun.german, case), noun.german)
        colour = COLOURS[self.colour].german if self.colour else ""
        return " ".join([number, *(stem + ending for stem in (size, colour) if stem), name])


def captions(scene: Scene, language: str = "en") -> list[str]:
    """Five true sentences about the whole scene, each naming the size, the colour and the noun of every thing."""
    return [caption(scene, which, language) for which in range(5)]


def caption(scene: Scene, which: int, language: str = "en") -> str:
    """One of the five, 0 to 4."""
    _check_language(language)
    objects = scene.objects
    attributes = [obj.attributes for obj in objects]
    most = max(attributes, key=attributes.count)
    n, rest = attributes.count(most), [a for a in attributes if a != most]
    kind = (
        "alike"
        if n == len(attributes) > 1
        else "mixed"
        if n > 1
        else ("one", "two", "three")[len(attributes) - 1]
    )
    axis = (
        0 if _is_spread(0)(objects) else 1
    )  # things that stand diagonally are told from left to right
    words = dict(zip(_AXIS_FIELDS, _AXES[language][axis]))
    words["place"] = _PLACES[language][objects[0].row * 3 + objects[0].column]
    words |= {"n": Mention(language, n, *most), "m": rest and Mention(language, 1, *rest[0])}
    ordered = sorted(objects, key=lambda obj: obj[3 + axis])
    mentions = (Mention(language, 1, *obj.attributes) for obj in ordered)
    return _TEMPLATES[language][kind][which].format(*mentions, **words)


def name_object(scene: Scene, leave_out: int = 2, language: str = "en") -> str:
    """The first thing of a scene by itself: "a big red star". Left out is 0 its size, 1 its colour, 2 nothing."""
    _check_language(language)
    size, colour, noun = scene.objects[0].attributes
    return format(
        Mention(
            language, 1, None if leave_out == 0 else size, None if leave_out == 1 else colour, noun
        )
    )


def mask_colours(caption: str, language: str = "en") -> str:
    """Hide the colour words: "a big red star" -> "a big [v] star"; and "an orange star" -> "a [v] star"."""
    _check_language(language)
    if language == "en":
        pattern = rf"\b({'|'.join(COLOURS)})\b"
    elif language == "de":
        pattern = rf"\b({'|'.join(colour.german for colour in COLOURS.values())})(e[rsnm]?)?\b"
    else:
        pattern = "|".join(colour.chinese for colour in COLOURS.values())
    return _without_an(re.sub(pattern, MASKED, caption))


def mask_noun(caption: str, which: int = 0, language: str = "en") -> str:
    """Hide one of the nouns, number `which`, counted on from the start when they are fewer: "a big red [v]"."""
    _check_language(language)
    nouns = "|".join(sorted(map(re.escape, _lexicon(language)[2]), key=len, reverse=True))
    found = list(
        re.finditer(nouns if language == "zh" else rf"\b(?:{nouns})\b", caption, re.IGNORECASE)
    )
    if not found:
        return caption
    start, end = found[which % len(found)].span()
    return _without_an(caption[:start] + MASKED + caption[end:])


def _without_an(masked: str) -> str:
    """ "an [v] star" would tell that the word begins with a vowel, and of the colours only orange does."""
    return re.sub(rf"\ban (?={re.escape(MASKED)})", "a ", masked)


def colour_of(token: str, language: str = "en") -> str | None:
    """The English name of the colour that a token names in a language, "red" for "rotes"; None for all other words."""
    colours = _lexicon(language)[1]
    if (
        language == "zh"
    ):  # of which a token is one character; the first of each colour stands for nothing else
        return next((name for word, name in colours.items() if word[0] == token), None)
    return colours.get(token) or colours.get(
        re.sub(r"e[rsnm]?$", "", token) if language == "de" else token
    )


def _is_spread(axis):
    return lambda objects: len({obj[3 + axis] for obj in objects}) == len(objects)


@cache
def _lexicon(language: str) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Every lower-case form of the words for sizes, colours and nouns -> its name in SIZES, COLOURS and NOUNS."""
    if language == "en":
        colours = {name: name for name in COLOURS}
        nouns = {form: name for name, noun in NOUNS.items() for form in (name, noun.plural)}
    elif language == "de":
        colours = {colour.german: name for name, colour in COLOURS.items()}
        weak = {nominative: form for (nominative, _), form in _WEAK.items()}
        forms = {
            name: (n.german, n.german_plural, weak.get(n.german, n.german))
            for name, n in NOUNS.items()
        }
        nouns = {form.lower(): name for name in NOUNS for form in forms[name]}
    else:
        colours = {colour.chinese: name for name, colour in COLOURS.items()}
        nouns = {noun.chinese: name for name, noun in NOUNS.items()}
    return {word: name for name, word in _SIZE_WORDS[language].items()}, colours, nouns


def _check_language(language: str) -> None:
    if language not in LANGUAGES:
        raise ValueError(f"no scene captions in {language!r}: choose one of {', '.join(LANGUAGES)}")
