"""Icon scenes: an endless data set that a program draws, describes, asks about and judges.

A scene is one to three icons on a muted background. The icons are characters of DejaVu Sans, the font that matplotlib
ships, so nothing is downloaded. Because a program drew the picture, a program can tell whether a caption is true.

    scene = Scene(7)                            # any number is a scene, always the same one
    render(scene, 64)                           # a PIL picture
    captions(scene, "de")                       # five sentences, all true
    judge("a big red star", scene)              # Judgement(well_formed=..., true=..., wrong=...)
    questions(scene)                            # [("what colour is the star?", "red"), ...]
"""

import random
import re
from collections.abc import Sequence
from functools import cache
from itertools import permutations
from string import Formatter
from typing import NamedTuple

from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from .text import MASKED, tokenize

LANGUAGES = ("en", "de", "zh")
SPLITS = {"train": 0, "validation": 10**9, "test": 2 * 10**9, "compositional_test": 3 * 10**9}  # where each begins


class Noun(NamedTuple):
    icon: str
    plural: str
    gender: str  # of the German noun: m, f or n
    german: str
    german_plural: str
    classifier: str  # the Chinese measure word
    chinese: str


class Colour(NamedTuple):
    rgb: tuple[int, int, int]
    german: str  # the stem, to which an ending is added
    chinese: str


NOUNS = {
    "sun": Noun("☀", "suns", "f", "Sonne", "Sonnen", "个", "太阳"),
    "cloud": Noun("☁", "clouds", "f", "Wolke", "Wolken", "朵", "云"),
    "umbrella": Noun("☂", "umbrellas", "m", "Regenschirm", "Regenschirme", "把", "雨伞"),
    "snowman": Noun("☃", "snowmen", "m", "Schneemann", "Schneemänner", "个", "雪人"),
    "star": Noun("★", "stars", "m", "Stern", "Sterne", "颗", "星星"),
    "telephone": Noun("☎", "telephones", "n", "Telefon", "Telefone", "部", "电话"),
    "clover": Noun("☘", "clovers", "n", "Kleeblatt", "Kleeblätter", "片", "三叶草"),
    "skull": Noun("☠", "skulls", "m", "Totenkopf", "Totenköpfe", "个", "骷髅"),
    "cup": Noun("☕", "cups", "f", "Tasse", "Tassen", "个", "杯子"),
    "heart": Noun("♥", "hearts", "n", "Herz", "Herzen", "颗", "爱心"),
    "anchor": Noun("⚓", "anchors", "m", "Anker", "Anker", "个", "船锚"),
    "airplane": Noun("✈", "airplanes", "n", "Flugzeug", "Flugzeuge", "架", "飞机"),
    "pair of scissors": Noun("✂", "pairs of scissors", "f", "Schere", "Scheren", "把", "剪刀"),
    "flag": Noun("⚑", "flags", "f", "Flagge", "Flaggen", "面", "旗子"),
    "gear": Noun("⚙", "gears", "n", "Zahnrad", "Zahnräder", "个", "齿轮"),
    "king": Noun("♚", "kings", "m", "König", "Könige", "个", "国王"),
    "horse": Noun("♞", "horses", "n", "Pferd", "Pferde", "匹", "马"),
    "tower": Noun("♜", "towers", "m", "Turm", "Türme", "座", "塔"),
    "flower": Noun("✿", "flowers", "f", "Blume", "Blumen", "朵", "花"),
    "snowflake": Noun("❄", "snowflakes", "f", "Schneeflocke", "Schneeflocken", "片", "雪花"),
    "cat": Noun("🐱", "cats", "f", "Katze", "Katzen", "只", "猫"),
    "monkey": Noun("🐵", "monkeys", "m", "Affe", "Affen", "只", "猴子"),
    "mouse": Noun("🐭", "mice", "f", "Maus", "Mäuse", "只", "老鼠"),
    "cow": Noun("🐮", "cows", "f", "Kuh", "Kühe", "头", "牛"),
    "smiley": Noun("☻", "smileys", "m", "Smiley", "Smileys", "张", "笑脸"),
    "moon": Noun("☾", "moons", "m", "Mond", "Monde", "个", "月亮"),
    "envelope": Noun("✉", "envelopes", "m", "Briefumschlag", "Briefumschläge", "个", "信封"),
    "pencil": Noun("✏", "pencils", "m", "Bleistift", "Bleistifte", "支", "铅笔"),
    "note": Noun("♫", "notes", "f", "Note", "Noten", "个", "音符"),
    "lightning bolt": Noun("⚡", "lightning bolts", "m", "Blitz", "Blitze", "道", "闪电"),
    "wheel": Noun("☸", "wheels", "n", "Rad", "Räder", "个", "轮子"),
    "scale": Noun("⚖", "scales", "f", "Waage", "Waagen", "架", "天平"),
}
COLOURS = {
    "red": Colour((205, 20, 30), "rot", "红色"),
    "orange": Colour((255, 128, 0), "orangefarben", "橙色"),
    "yellow": Colour((255, 235, 40), "gelb", "黄色"),
    "green": Colour((10, 125, 35), "grün", "绿色"),
    "blue": Colour((25, 60, 220), "blau", "蓝色"),
    "purple": Colour((125, 20, 150), "violett", "紫色"),
    "white": Colour((255, 255, 255), "weiß", "白色"),
    "black": Colour((0, 0, 0), "schwarz", "黑色"),
}
SIZES = {"small": 0.25, "big": 0.38}  # the longer side of an icon, as a share of the picture


class Thing(NamedTuple):
    """One icon: what it is, its cell in a grid of 3 by 3, and its centre as a share of the picture's side."""

    noun: str
    colour: str
    size: str
    column: int
    row: int
    x: float
    y: float

    @property
    def look(self) -> tuple[str, str, str]:
        return self.size, self.colour, self.noun


def held_out(noun: str, colour: str) -> bool:
    """Is this pair kept from training? One colour of each noun is, and four nouns of each colour."""
    return (list(NOUNS).index(noun) + list(COLOURS).index(colour)) % len(COLOURS) == 0


_PAIRS = {novel: [(n, c) for n in NOUNS for c in COLOURS if held_out(n, c) == novel] for novel in (False, True)}


class Scene:
    """The scene of a number: `things`, a tuple of one to three `Thing`, and `background`, an RGB colour.

    Training uses 0, 1, 2, …; the other splits begin at `SPLITS[name]`, so they never meet. Only the scenes of
    "compositional_test" hold pairs of noun and colour that are `held_out`, each at least one.
    """

    def __init__(self, seed: int):
        if seed < 0:
            raise ValueError(f"a scene's number is 0 or more, not {seed}")
        self.seed = seed
        draw = random.Random(seed)
        novel = seed >= SPLITS["compositional_test"]
        count = draw.randint(1, 3)
        looks = [_draw_look(draw, novel)]
        alike = count > 1 and draw.random() < 0.25
        while len(looks) < count:
            new = looks[0] if alike else _draw_look(draw, False)
            if alike or new not in looks:
                looks.append(new)
            alike = alike and draw.random() < 0.25  # now and then three are alike
        places = None
        while not places:
            places = _draw_places(draw, [SIZES[size] for size, _, _ in looks])
        self.things = tuple(Thing(noun, colour, size, *at) for (size, colour, noun), at in zip(looks, places))
        self.background = tuple(draw.randint(140, 195) for _ in range(3))


def _draw_look(draw: random.Random, novel: bool) -> tuple[str, str, str]:
    noun, colour = draw.choice(_PAIRS[novel])
    return draw.choice(tuple(SIZES)), colour, noun


def _draw_places(draw: random.Random, sizes: list[float]) -> list[tuple[int, int, float, float]] | None:
    """A place (column, row, x, y) for each thing, or None where they overlap or three stand in no order."""
    places = []
    for cell, size in zip(draw.sample(range(9), len(sizes)), sizes):
        row, column = divmod(cell, 3)
        x, y = ((i + 0.5) / 3 + draw.uniform(-0.03, 0.03) for i in (column, row))
        x, y = (min(max(at, size / 2), 1 - size / 2) for at in (x, y))
        if any(max(abs(x - p[2]), abs(y - p[3])) < (size + s) / 2 for p, s in zip(places, sizes)):
            return None
        places.append((column, row, x, y))
    in_order = any(len({place[axis] for place in places}) == len(places) for axis in (0, 1))
    return places if in_order else None


@cache
def _icon(noun: str, pixels: int) -> Image.Image:
    """The icon as a mask whose longer side has so many pixels."""
    path, icon = findfont("DejaVu Sans"), NOUNS[noun].icon
    left, top, right, bottom = ImageFont.truetype(path, 200, layout_engine=ImageFont.Layout.BASIC).getbbox(icon)
    font = ImageFont.truetype(path, 200 * pixels / max(right - left, bottom - top), layout_engine=ImageFont.Layout.BASIC)
    mask = Image.new("L", (3 * pixels, 3 * pixels))
    ImageDraw.Draw(mask).text((pixels, pixels), icon, fill=255, font=font)
    return mask.crop(mask.getbbox())


def render(scene: Scene, size: int = 64) -> Image.Image:
    """Draw the scene as an RGB picture of size × size pixels."""
    picture = Image.new("RGB", (size, size), scene.background)
    for thing in scene.things:
        picture.paste(COLOURS[thing.colour].rgb, box(thing, size), _icon_of(thing, size))
    return picture


def _icon_of(thing: Thing, size: int) -> Image.Image:
    return _icon(thing.noun, round(SIZES[thing.size] * size))


def box(thing: Thing, size: int = 64) -> tuple[int, int, int, int]:
    """Where the thing is in a picture of size × size pixels: left, top, right, bottom."""
    icon = _icon_of(thing, size)
    left = min(max(round(thing.x * size - icon.width / 2), 0), size - icon.width)  # the font may round up a pixel
    top = min(max(round(thing.y * size - icon.height / 2), 0), size - icon.height)
    return left, top, left + icon.width, top + icon.height


def named_things(words: Sequence[str], scene: Scene) -> list[tuple[int, Thing]]:
    """Which word of an English caption names which thing: pairs of the word's index and the thing.

    These are the colour and the noun (its first word) of every phrase in the singular that fits one thing of the scene
    and no other: "a big red star" of the one star that is big and red.
    """
    named, looks = [], {}  # of the phrase being read: its size and colour, and where they stand
    for i, word in enumerate(words):
        if word in ("a", "an", "two", "three"):
            looks = {}
        elif word in SIZES or word in COLOURS:
            looks[word] = i
        for noun in NOUNS:
            if list(words[i : i + len(noun.split())]) == noun.split():
                things = [thing for thing in scene.things if thing.noun == noun and looks.keys() <= set(thing.look)]
                if len(things) == 1:
                    named += [(place, things[0]) for word, place in looks.items() if word in COLOURS] + [(i, things[0])]
                looks = {}
    return named


# ---------------------------------------------------------------------------------------------------------------------
# The grammar. {0}, {1}, {2} are things in the order of an axis (left to right, or top to bottom), {n} is two or three
# that are alike, {m} the one that is not. The same templates write captions and, turned into patterns, read them.

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
_NUMBERS = {"en": ("", "a", "two", "three"), "de": ("", "ein", "zwei", "drei"), "zh": ("", "一", "两", "三")}
_SIZE_WORDS = {
    "en": {"small": "small", "big": "big"},
    "de": {"small": "klein", "big": "groß"},
    "zh": {"small": "小", "big": "大"},
}
_WEAK = {("Affe", "acc"): "Affen", ("Affe", "dat"): "Affen", ("Herz", "dat"): "Herzen"}  # nouns with endings of their own
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
            rest = " ".join(filter(None, (size, self.colour, self.noun if self.count == 1 else noun.plural)))
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
    things = scene.things
    looks = [thing.look for thing in things]
    most = max(looks, key=looks.count)
    n, rest = looks.count(most), [look for look in looks if look != most]
    kind = "alike" if n == len(looks) > 1 else "mixed" if n > 1 else ("one", "two", "three")[len(looks) - 1]
    axis = 0 if _is_spread(0)(things) else 1  # things that stand diagonally are told from left to right
    words = dict(zip(_AXIS_FIELDS, _AXES[language][axis]))
    words["place"] = _PLACES[language][things[0].row * 3 + things[0].column]
    words |= {"n": Mention(language, n, *most), "m": rest and Mention(language, 1, *rest[0])}
    ordered = sorted(things, key=lambda thing: thing[3 + axis])
    mentions = (Mention(language, 1, *thing.look) for thing in ordered)
    return _TEMPLATES[language][kind][which].format(*mentions, **words)


def name_thing(scene: Scene, leave_out: int = 2, language: str = "en") -> str:
    """The first thing of a scene by itself: "a big red star". Left out is 0 its size, 1 its colour, 2 nothing."""
    _check_language(language)
    size, colour, noun = scene.things[0].look
    return format(Mention(language, 1, None if leave_out == 0 else size, None if leave_out == 1 else colour, noun))


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
    found = list(re.finditer(nouns if language == "zh" else rf"\b(?:{nouns})\b", caption, re.IGNORECASE))
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
    if language == "zh":  # of which a token is one character; the first of each colour stands for nothing else
        return next((name for word, name in colours.items() if word[0] == token), None)
    return colours.get(token) or colours.get(re.sub(r"e[rsnm]?$", "", token) if language == "de" else token)


# ---------------------------------------------------------------------------------------------------------------------
# The judge.


class Judgement(NamedTuple):
    """What `judge` says. `wrong` names the faults: "grammar", or "noun", "colour", "size", "place", "number"."""

    well_formed: bool
    true: bool
    wrong: tuple[str, ...]


def judge(caption: str, scene: Scene, language: str = "en") -> Judgement:
    """Is the caption a sentence of the grammar, and is it true of the scene?

    A true caption speaks of every thing in the scene and of nothing else, so that saying little does not help. What
    it may leave out is a size or a colour. Where the caption is wrong, the faults are those of the reading with the
    fewest: "left" for "right" is one wrong place, not two wrong colours.
    """
    _check_language(language)
    text = _normal(caption, language)
    reading = _read(text, language)
    if reading is None:
        return Judgement(False, False, ("grammar",))
    written, mentions, holds = reading
    wrong = _compare(mentions, scene.things, holds)
    if written != text:
        wrong = ("grammar", *wrong)
    return Judgement(written == text, not wrong, wrong)


def _compare(mentions, things, holds) -> tuple[str, ...]:
    """The faults of the mentions, one a thing, `holds` being what the sentence claims of their order or place."""

    def differences(mention, thing):
        return [name for name in ("noun", "colour", "size") if getattr(mention, name) not in (None, getattr(thing, name))]

    if len(mentions) != len(things):
        return ("number",)
    readings = []
    for order in permutations(things):
        wrong = [name for mention, thing in zip(mentions, order) for name in differences(mention, thing)]
        readings.append(wrong + [] if holds(order) else wrong + ["place"])
    best = min(readings, key=len)
    all_there = all(any(not differences(m, t) for m in mentions) for t in things)
    if set(best) - {"place"} and all_there and all(any(not differences(m, t) for t in things) for m in mentions):
        return ("number",)  # the right kinds of things, but not so many of each
    return tuple(dict.fromkeys(best))


def _read(text: str, language: str):
    """(the text as it should be written, a mention for each thing, a test of the claimed order), or None."""
    for pattern, template, words, claim in _patterns(language):
        match = pattern.fullmatch(text)
        if not match:
            continue
        slots = {slot[-1]: _read_mention(phrase, language) for slot, phrase in match.groupdict().items()}
        if any((mention.count == 1) != (slot != "n") for slot, mention in slots.items()):
            continue
        ordered = [slots[slot] for slot in "012" if slot in slots]
        groups = {slot: slots[slot] for slot in "nm" if slot in slots}
        written = _normal(template.format(*ordered, **groups, **words), language)
        return written, ordered + [m for m in groups.values() for _ in range(m.count)], claim
    return None


@cache
def _patterns(language: str):
    """Every template as a pattern, with the words of an axis or a place filled in, and what it claims."""
    phrase = re.sub("[?]P<[a-z]+>", "?:", _phrase_pattern(language))

    def pattern(template, words):
        slots = {slot: _Slot(slot) for slot in "012nm"}
        text = template.format(*(slots[slot] for slot in "012"), n=slots["n"], m=slots["m"], **words)
        escaped = re.escape(_normal(text, language))
        return re.compile(re.sub("slot_([012nm])", rf"(?P<slot_\1>{phrase})", escaped))

    found = {}
    for kind in _TEMPLATES[language].values():
        for template in kind:
            fields = {name for _, name, _, _ in Formatter().parse(template)}
            if "place" in fields:
                variants = [({"place": _PLACES[language][i]}, _is_at(*divmod(i, 3))) for i in range(9)]
            elif fields & set(_AXIS_FIELDS):
                claim = _is_spread if "beside" in fields else _is_ordered
                axes = enumerate(_AXES[language])
                variants = [(dict(zip(_AXIS_FIELDS, words)), claim(axis)) for axis, words in axes]
            else:
                variants = [({}, _is_between if "1" in fields else lambda things: True)]
            found |= {(template, i): (pattern(template, w), template, w, claim) for i, (w, claim) in enumerate(variants)}
    return list(found.values())


class _Slot(str):
    def __format__(self, case: str) -> str:
        return "slot_" + self


def _is_at(row, column):
    return lambda things: (things[0].row, things[0].column) == (row, column)


def _is_ordered(axis):
    return lambda things: all(a[3 + axis] < b[3 + axis] for a, b in zip(things, things[1:]))


def _is_spread(axis):
    return lambda things: len({thing[3 + axis] for thing in things}) == len(things)


def _is_between(things):
    return any(_is_ordered(axis)(order) for axis in (0, 1) for order in (things, things[::-1]))


@cache
def _lexicon(language: str) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Every lower-case form of the words for sizes, colours and nouns -> its name in SIZES, COLOURS and NOUNS."""
    if language == "en":
        colours = {name: name for name in COLOURS}
        nouns = {form: name for name, noun in NOUNS.items() for form in (name, noun.plural)}
    elif language == "de":
        colours = {colour.german: name for name, colour in COLOURS.items()}
        weak = {nominative: form for (nominative, _), form in _WEAK.items()}
        forms = {name: (n.german, n.german_plural, weak.get(n.german, n.german)) for name, n in NOUNS.items()}
        nouns = {form.lower(): name for name in NOUNS for form in forms[name]}
    else:
        colours = {colour.chinese: name for name, colour in COLOURS.items()}
        nouns = {noun.chinese: name for name, noun in NOUNS.items()}
    return {word: name for name, word in _SIZE_WORDS[language].items()}, colours, nouns


@cache
def _phrase_pattern(language: str) -> str:
    """A noun phrase, read with any article and ending: what is wrong with it is found by writing it again."""
    sizes, colours, nouns = ("|".join(sorted(words, key=len, reverse=True)) for words in _lexicon(language))
    if language == "zh":
        classifiers = "|".join({noun.classifier for noun in NOUNS.values()})
        return rf"(?P<number>[一两三])(?:{classifiers})(?:(?P<colour>{colours})的)?(?P<size>{sizes})?(?P<noun>{nouns})"
    numbers, ending = {"en": ("an?|two|three", ""), "de": ("ein(?:e[rsnm]?)?|zwei|drei", "(?:e[rsnm]?)?")}[language]
    adjectives = rf"(?:(?P<size>{sizes}){ending} )?(?:(?P<colour>{colours}){ending} )?"
    return rf"(?P<number>{numbers}) {adjectives}(?P<noun>{nouns})"


def _read_mention(phrase: str, language: str) -> Mention:
    """A noun phrase that the pattern has matched -> a Mention."""
    found = re.fullmatch(_phrase_pattern(language), phrase)
    sizes, colours, nouns = _lexicon(language)
    count = next((i for i in (2, 3) if _NUMBERS[language][i] == found["number"]), 1)
    return Mention(language, count, sizes.get(found["size"]), colours.get(found["colour"]), nouns[found["noun"]])


def _normal(text: str, language: str) -> str:
    """One spelling for all that `tokenize` treats alike."""
    return ("" if language == "zh" else " ").join(tokenize(text))


def _check_language(language: str) -> None:
    if language not in LANGUAGES:
        raise ValueError(f"no scene captions in {language!r}: choose one of {', '.join(LANGUAGES)}")


# ---------------------------------------------------------------------------------------------------------------------
# Questions.


def questions(scene: Scene) -> list[tuple[str, str]]:
    """English questions about the scene with their true answers, up to one of each kind.

    What colour, what is it, where (asked of a thing that no other could be taken for), how many, and is there, whose
    answer is "yes" half of the time, and whose "no" is a near miss. The words of a question say little of its answer.
    """
    draw = random.Random(f"questions {scene.seed}")
    things = scene.things
    asked = []

    def alone(*names):  # the things that differ from all others in these
        values = [tuple(getattr(thing, name) for name in names) for thing in things]
        return [thing for thing, value in zip(things, values) if values.count(value) == 1]

    for thing in _one_of(draw, alone("noun")):
        asked.append((f"what colour is the {thing.noun}?", thing.colour))
    for thing in _one_of(draw, alone("size", "colour")):
        asked.append((f"what is the {thing.size} {thing.colour} thing?", thing.noun))
    for thing in _one_of(draw, alone("noun")):
        asked.append((f"where is the {thing.noun}?", _PLACES["en"][thing.row * 3 + thing.column]))

    name, values = draw.choice([("noun", NOUNS), ("colour", COLOURS), ("size", SIZES)])
    counts = {value: sum(getattr(thing, name) == value for thing in things) for value in values}
    count = draw.choice(sorted(set(counts.values())))  # the answer first, so that "zero" is not nearly always right
    value = draw.choice([value for value in values if counts[value] == count])
    what = NOUNS[value].plural if name == "noun" else f"{value} things"
    asked.append((f"how many {what} are there?", ("zero", "one", "two", "three")[count]))

    thing, answer = draw.choice(things), draw.choice(("yes", "no"))
    pair = thing.noun, thing.colour
    if answer == "no":
        there = {(t.noun, t.colour) for t in things}
        misses = [p for p in _PAIRS[held_out(*pair)] if p not in there]  # of its sort, or being novel would mean "yes"
        pair = draw.choice([p for p in misses if p[0] == pair[0] or p[1] == pair[1]] or misses)
    phrase = Mention("en", 1, None, pair[1], pair[0])
    return [*asked, (f"is there {phrase}?", answer)]


def _one_of(draw: random.Random, things: list[Thing]) -> list[Thing]:
    return [draw.choice(things)] if things else []
