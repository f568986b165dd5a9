"""The grammar of the scenes: captions in English, German and Chinese."""

import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from ..text import MASKED
from .scenes import COLOURS, NOUNS, SIZES, Noun, Object, Scene

LANGUAGES = ("en", "de", "zh")


def named_objects(words: Sequence[str], scene: Scene) -> list[tuple[int, Object]]:
    """Find the words of an English caption that name one object: pairs (index of the word, object).

    These are the colour and the noun (its first word) of every singular phrase that fits exactly
    one object of the scene: "a big red star", if only one star is big and red.
    """
    named = []
    attributes = {}  # the size and the colour of the current phrase, and the index of each
    for i, word in enumerate(words):
        if word in ("a", "an", "two", "three"):
            attributes = {}
        elif word in SIZES or word in COLOURS:
            attributes[word] = i
        for noun in NOUNS:
            noun_words = noun.split()
            if list(words[i : i + len(noun_words)]) != noun_words:
                continue
            same_noun = [obj for obj in scene.objects if obj.noun == noun]
            fitting = [obj for obj in same_noun if attributes.keys() <= set(obj.attributes)]
            if len(fitting) == 1:
                colours = [index for name, index in attributes.items() if name in COLOURS]
                named += [(index, fitting[0]) for index in (*colours, i)]
            attributes = {}
    return named


# {0}, {1} and {2} are the objects in the order of an axis; {n} is a group of objects that are
# alike, {m} the other one.
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
_AXES = {  # for each axis: 0, left to right, and 1, top to bottom
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
_WEAK = {  # nouns that change with the case
    ("Affe", "acc"): "Affen",
    ("Affe", "dat"): "Affen",
    ("Herz", "dat"): "Herzen",
}
_ARTICLES = {"nom": {"m": "ein", "f": "eine", "n": "ein"}, "acc": {"m": "einen", "f": "eine", "n": "ein"},
             "dat": {"m": "einem", "f": "einer", "n": "einem"}}  # fmt: skip
_ENDINGS = {"nom": {"m": "er", "f": "e", "n": "es"}, "acc": {"m": "en", "f": "e", "n": "es"},
            "dat": {"m": "en", "f": "en", "n": "en"}}  # fmt: skip
_DEFINITE_ARTICLES = {"nom": {"m": "der", "f": "die", "n": "das"}, "acc": {"m": "den", "f": "die", "n": "das"},
                      "dat": {"m": "dem", "f": "der", "n": "dem"}}  # fmt: skip
_DEFINITE_ENDINGS = {"nom": {"m": "e", "f": "e", "n": "e"}, "acc": {"m": "en", "f": "e", "n": "e"},
                     "dat": {"m": "en", "f": "en", "n": "en"}}  # fmt: skip
_THING = Noun("", "things", "n", "Ding", "Dinge", "个", "东西")


class Mention(NamedTuple):
    """A noun phrase: "two big red stars". Its format spec is the German case: nom, acc or dat.

    count     1 for "a star", 2 for "two stars", 0 for "stars"
    noun      None for "a red thing"
    definite  for "the star"
    """

    language: str
    count: int
    size: str | None
    colour: str | None
    noun: str | None
    definite: bool = False

    def __format__(self, case: str) -> str:
        if self.language == "zh":
            return self._chinese()
        if self.language == "en":
            return self._english()
        return self._german(case or "nom")

    @property
    def described(self) -> Noun:
        """The noun in all languages."""
        return NOUNS.get(self.noun, _THING)

    def _english(self) -> str:
        name = self.noun or "thing"
        if self.count != 1:
            name = self.described.plural
        words = [word for word in (self.size, self.colour, name) if word]
        number = "the" if self.definite else _NUMBERS["en"][self.count]
        if number == "a" and words[0][0] in "aeiou":
            number = "an"
        return " ".join([number, *words]).strip()

    def _german(self, case: str) -> str:
        noun = self.described
        if self.count == 1:
            articles = _DEFINITE_ARTICLES if self.definite else _ARTICLES
            endings = _DEFINITE_ENDINGS if self.definite else _ENDINGS
            number = articles[case][noun.gender]
            ending = endings[case][noun.gender]
            name = _WEAK.get((noun.german, case), noun.german)
        else:
            number = _NUMBERS["de"][self.count]
            ending = "e"
            name = noun.german_plural
        words = [number]
        if self.size:
            words.append(_SIZE_WORDS["de"][self.size] + ending)
        if self.colour:
            words.append(COLOURS[self.colour].german + ending)
        return " ".join([*words, name]).strip()

    def _chinese(self) -> str:
        noun = self.described
        number = ""
        if self.count and not self.definite:
            number = _NUMBERS["zh"][self.count] + noun.classifier
        colour = COLOURS[self.colour].chinese + "的" if self.colour else ""
        size = _SIZE_WORDS["zh"][self.size] if self.size else ""
        return number + colour + size + noun.chinese


def captions(scene: Scene, language: str = "en") -> list[str]:
    """Five true sentences about the scene; each names the size, colour and noun of every object."""
    return [caption(scene, which, language) for which in range(5)]


def caption(scene: Scene, which: int, language: str = "en") -> str:
    """One of the five captions, number `which` from 0 to 4."""
    _check_language(language)
    objects = scene.objects
    attributes = [obj.attributes for obj in objects]
    most_frequent = max(attributes, key=attributes.count)
    count = attributes.count(most_frequent)
    others = [other for other in attributes if other != most_frequent]
    if count == 1:
        kind = ("one", "two", "three")[len(objects) - 1]
    else:
        kind = "mixed" if others else "alike"
    axis = 0 if is_spread(objects, 0) else 1  # a diagonal is described from left to right
    words = dict(zip(_AXIS_FIELDS, _AXES[language][axis]))
    words["place"] = _PLACES[language][objects[0].row * 3 + objects[0].column]
    words["n"] = Mention(language, count, *most_frequent)
    words["m"] = Mention(language, 1, *others[0]) if others else None
    ordered = sorted(objects, key=lambda obj: obj.cell[axis])
    mentions = [Mention(language, 1, *obj.attributes) for obj in ordered]
    return _TEMPLATES[language][kind][which].format(*mentions, **words)


def is_spread(objects: Sequence[Object], axis: int) -> bool:
    """Whether no two objects are in the same column (axis 0) or row (axis 1)."""
    return len({obj.cell[axis] for obj in objects}) == len(objects)


def name_object(scene: Scene, leave_out: int = 2, language: str = "en") -> str:
    """A phrase that names the first object of a scene: "a big red star", or with one word less.

    leave_out  0 leaves out the size, 1 the colour, 2 nothing
    """
    _check_language(language)
    size, colour, noun = scene.objects[0].attributes
    if leave_out == 0:
        size = None
    if leave_out == 1:
        colour = None
    return format(Mention(language, 1, size, colour, noun))


def mask_colours(caption: str, language: str = "en") -> str:
    """Hide the colours: "a big red star" -> "a big [v] star", "an orange star" -> "a [v] star"."""
    _check_language(language)
    if language == "en":
        pattern = rf"\b({'|'.join(COLOURS)})\b"
    elif language == "de":
        pattern = rf"\b({'|'.join(colour.german for colour in COLOURS.values())})(e[rsnm]?)?\b"
    else:
        pattern = "|".join(colour.chinese for colour in COLOURS.values())
    return _without_an(re.sub(pattern, MASKED, caption))


def mask_noun(caption: str, which: int = 0, language: str = "en") -> str:
    """Hide one noun: "an orange cat" -> "an orange [v]", "an anchor" -> "a [v]".

    which  number of the noun, from 0, modulo the number of nouns

    A caption without nouns stays as it is.
    """
    _check_language(language)
    nouns = sorted(_lexicon(language).nouns, key=len, reverse=True)  # "stars" before "star"
    pattern = "|".join(map(re.escape, nouns))
    if language != "zh":
        pattern = rf"\b(?:{pattern})\b"
    found = list(re.finditer(pattern, caption, re.IGNORECASE))
    if not found:
        return caption
    start, end = found[which % len(found)].span()
    return _without_an(caption[:start] + MASKED + caption[end:])


def _without_an(masked: str) -> str:
    """Replace the "an" of "an [v] star": "an" would reveal the one colour that begins with a vowel."""
    return re.sub(rf"\ban (?={re.escape(MASKED)})", "a ", masked)


def colour_of(token: str, language: str = "en") -> str | None:
    """The English name of a colour word, "red" for the German "rotes"; None for any other token.

    A Chinese token is one character: "红" of "红色" is "red". The first character of a colour occurs
    in no other word.
    """
    colours = _lexicon(language).colours
    if language == "zh":
        for word, name in colours.items():
            if word[0] == token:
                return name
        return None
    if language == "de" and token not in colours:
        token = re.sub(r"e[rsnm]?$", "", token)
    return colours.get(token)


class Lexicon(NamedTuple):
    """Every lower-case form of a word -> its name in SIZES, COLOURS or NOUNS."""

    sizes: dict[str, str]
    colours: dict[str, str]
    nouns: dict[str, str]


@cache
def _lexicon(language: str) -> Lexicon:
    sizes = {word: name for name, word in _SIZE_WORDS[language].items()}
    nouns = {}
    if language == "en":
        colours = {name: name for name in COLOURS}
        for name, noun in NOUNS.items():
            nouns[name] = name
            nouns[noun.plural] = name
    elif language == "de":
        colours = {colour.german: name for name, colour in COLOURS.items()}
        weak = {nominative: form for (nominative, _), form in _WEAK.items()}
        for name, noun in NOUNS.items():
            nouns[noun.german.lower()] = name
            nouns[noun.german_plural.lower()] = name
            if noun.german in weak:
                nouns[weak[noun.german].lower()] = name
    else:
        colours = {colour.chinese: name for name, colour in COLOURS.items()}
        nouns = {noun.chinese: name for name, noun in NOUNS.items()}
    return Lexicon(sizes, colours, nouns)


def _check_language(language: str) -> None:
    if language not in LANGUAGES:
        raise ValueError(f"no scene captions in {language!r}: choose one of {', '.join(LANGUAGES)}")
