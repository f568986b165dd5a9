"""Icon scenes: an endless data set that a program draws, describes, asks about and judges.

A scene is one to three icons on a muted background. The icons are characters of DejaVu Sans, the
font that comes with matplotlib, so nothing is downloaded. A program drew the picture, so a program
can check whether a caption is true.

    scene = Scene(7)                            # every number is a scene, always the same one
    render(scene, 64)                           # a PIL picture
    captions(scene, "de")                       # five sentences, all true
    judge("a big red star", scene)              # Judgement(well_formed=..., true=..., wrong=...)
    draw_pair(7)                                # a question, and two scenes with different answers
"""

import random
from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SPLITS = {  # the number of the first scene of each split
    "train": 0,
    "validation": 10**9,
    "test": 2 * 10**9,
    "compositional_test": 3 * 10**9,
}


def first_of_split(split: str) -> int:
    """The number of a split's first scene. Raises ValueError if there is no such split."""
    if split not in SPLITS:
        known = ", ".join(SPLITS)
        raise ValueError(f"the scenes have no split {split!r}: choose one of {known}")
    return SPLITS[split]


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
    german: str  # the stem, without an ending
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
SIZES = {
    "small": 0.25,
    "big": 0.38,
}  # the longer side of an icon, as a fraction of the picture's side


class Object(NamedTuple):
    """One icon: its attributes, its cell in a 3 × 3 grid, and its centre.

    x and y are fractions of the picture's side.
    """

    noun: str
    colour: str
    size: str
    column: int
    row: int
    x: float
    y: float

    @property
    def attributes(self) -> tuple[str, str, str]:
        return self.size, self.colour, self.noun

    @property
    def cell(self) -> tuple[int, int]:
        return self.column, self.row


def is_held_out_pair(noun: str, colour: str) -> bool:
    """Whether this pair never occurs in training: one colour per noun, four nouns per colour."""
    return (list(NOUNS).index(noun) + list(COLOURS).index(colour)) % len(COLOURS) == 0


_PAIRS = {
    held_out: [pair for pair in product(NOUNS, COLOURS) if is_held_out_pair(*pair) == held_out]
    for held_out in (False, True)
}


class Scene:
    """The scene with this number: one to three `objects`, and `background`, an RGB colour.

    Training uses 0, 1, 2, …; the other splits begin at `SPLITS[name]`, so they never overlap. Only
    scenes of "compositional_test" contain held-out pairs of noun and colour (`is_held_out_pair`):
    each has at least one.
    """

    def __init__(self, seed: int):
        if seed < 0:
            raise ValueError(f"a scene's number must be 0 or more, not {seed}")
        self.seed = seed
        draw = random.Random(seed)
        held_out = seed >= SPLITS["compositional_test"]
        count = draw.randint(1, 3)
        attributes = [_draw_attributes(draw, held_out)]
        alike = count > 1 and draw.random() < 0.25
        while len(attributes) < count:
            new = attributes[0] if alike else _draw_attributes(draw, False)
            if alike or new not in attributes:
                attributes.append(new)
            alike = alike and draw.random() < 0.25  # now and then three are alike
        self._arrange(draw, attributes)

    @classmethod
    def compose(cls, draw: random.Random, attributes: Sequence[tuple[str, str, str]]) -> "Scene":
        """A scene without a number: objects of this size, colour and noun at drawn places."""
        scene = cls.__new__(cls)
        scene.seed = None
        scene._arrange(draw, attributes)
        return scene

    def _arrange(self, draw: random.Random, attributes: Sequence[tuple[str, str, str]]) -> None:
        """Draw a place for each object, and the background."""
        places = None
        while not places:
            places = _draw_places(draw, [SIZES[size] for size, _, _ in attributes])
        objects = []
        for (size, colour, noun), place in zip(attributes, places):
            objects.append(Object(noun, colour, size, *place))
        self.objects = tuple(objects)
        self.background = tuple(draw.randint(140, 195) for _ in range(3))


def _draw_attributes(draw: random.Random, held_out: bool) -> tuple[str, str, str]:
    noun, colour = draw.choice(_PAIRS[held_out])
    return draw.choice(tuple(SIZES)), colour, noun


def _draw_places(
    draw: random.Random, sizes: list[float]
) -> list[tuple[int, int, float, float]] | None:
    """A place (column, row, x, y) for each object; None if two overlap or no axis orders them."""
    places = []
    for cell, size in zip(draw.sample(range(9), len(sizes)), sizes):
        row, column = divmod(cell, 3)
        x = (column + 0.5) / 3 + draw.uniform(-0.03, 0.03)
        y = (row + 0.5) / 3 + draw.uniform(-0.03, 0.03)
        x = min(max(x, size / 2), 1 - size / 2)
        y = min(max(y, size / 2), 1 - size / 2)
        for (_, _, other_x, other_y), other_size in zip(places, sizes):
            distance = max(abs(x - other_x), abs(y - other_y))
            if distance < (size + other_size) / 2:
                return None
        places.append((column, row, x, y))
    columns = {column for column, _, _, _ in places}
    rows = {row for _, row, _, _ in places}
    return places if len(places) in (len(columns), len(rows)) else None


@cache
def _icon(noun: str, pixels: int) -> Image.Image:
    """The icon as a mask whose longer side is `pixels` long."""
    icon = NOUNS[noun].icon
    left, top, right, bottom = _font(200).getbbox(icon)
    font = _font(200 * pixels / max(right - left, bottom - top))
    mask = Image.new("L", (3 * pixels, 3 * pixels))
    ImageDraw.Draw(mask).text((pixels, pixels), icon, fill=255, font=font)
    return mask.crop(mask.getbbox())


def _font(size: float) -> ImageFont.FreeTypeFont:
    path = findfont("DejaVu Sans")
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def render(scene: Scene, size: int = 64) -> Image.Image:
    """Draw the scene as an RGB picture of size × size pixels."""
    picture = Image.new("RGB", (size, size), scene.background)
    for obj in scene.objects:
        picture.paste(COLOURS[obj.colour].rgb, box(obj, size), _icon_of(obj, size))
    return picture


def _icon_of(obj: Object, size: int) -> Image.Image:
    return _icon(obj.noun, round(SIZES[obj.size] * size))


def box(obj: Object, size: int = 64) -> tuple[int, int, int, int]:
    """The object's bounding box in a picture of size × size pixels: left, top, right, bottom."""
    icon = _icon_of(obj, size)
    left = round(obj.x * size - icon.width / 2)
    top = round(obj.y * size - icon.height / 2)
    left = min(max(left, 0), size - icon.width)  # the font may round up by a pixel
    top = min(max(top, 0), size - icon.height)
    return left, top, left + icon.width, top + icon.height


def draw(scene: Scene, size: int = 64) -> Tensor:
    """The scene's picture (3, size, size) uint8."""
    picture = np.array(render(scene, size)).transpose(2, 0, 1)  # (3, S, S)
    return torch.from_numpy(picture.copy())  # contiguous, so stacking a batch is 20 times as fast
