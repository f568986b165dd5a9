"""Questions about the scenes, with their true answers."""

import random

from .language import _PLACES, Mention
from .scenes import _PAIRS, COLOURS, NOUNS, SIZES, Object, Scene, is_held_out_pair

COUNTS = ("zero", "one", "two", "three")
ATTRIBUTES = [("noun", NOUNS), ("colour", COLOURS), ("size", SIZES)]


def questions(scene: Scene) -> list[tuple[str, str]]:
    """English questions about the scene with their true answers, at most one of each kind.

    The kinds: what colour, what is it, where (each only about an object that the question
    identifies), how many, and "is there", whose answer is "yes" half of the time and whose "no" is
    a near miss. A question gives away little of its answer.
    """
    draw = random.Random(f"questions {scene.seed}")
    objects = scene.objects
    asked = []
    for obj in _one_of(draw, _unique(objects, "noun")):
        asked.append((f"what colour is the {obj.noun}?", obj.colour))
    for obj in _one_of(draw, _unique(objects, "size", "colour")):
        asked.append((f"what is the {obj.size} {obj.colour} thing?", obj.noun))
    for obj in _one_of(draw, _unique(objects, "noun")):
        place = _PLACES["en"][obj.row * 3 + obj.column]
        asked.append((f"where is the {obj.noun}?", place))
    asked.append(_how_many(draw, objects))
    asked.append(_is_there(draw, objects))
    return asked


def _unique(objects: tuple[Object, ...], *attributes: str) -> list[Object]:
    """The objects that differ from all others in these attributes."""
    values = []
    for obj in objects:
        values.append([getattr(obj, name) for name in attributes])
    return [obj for obj, value in zip(objects, values) if values.count(value) == 1]


def _one_of(draw: random.Random, objects: list[Object]) -> list[Object]:
    return [draw.choice(objects)] if objects else []


def _how_many(draw: random.Random, objects: tuple[Object, ...]) -> tuple[str, str]:
    attribute, values = draw.choice(ATTRIBUTES)
    present = [getattr(obj, attribute) for obj in objects]
    counts = {value: present.count(value) for value in values}
    # Draw the answer first: otherwise "zero" would nearly always be right.
    count = draw.choice(sorted(set(counts.values())))
    value = draw.choice([value for value in values if counts[value] == count])
    name = NOUNS[value].plural if attribute == "noun" else f"{value} things"
    return f"how many {name} are there?", COUNTS[count]


def _is_there(draw: random.Random, objects: tuple[Object, ...]) -> tuple[str, str]:
    obj = draw.choice(objects)
    answer = draw.choice(("yes", "no"))
    noun, colour = obj.noun, obj.colour
    if answer == "no":
        present = {(other.noun, other.colour) for other in objects}
        # Held out like the object's own pair: otherwise a held-out pair would always mean "yes".
        alike = _PAIRS[is_held_out_pair(noun, colour)]
        absent = [pair for pair in alike if pair not in present]
        near = [pair for pair in absent if noun in pair or colour in pair]
        noun, colour = draw.choice(near or absent)
    mention = Mention("en", 1, None, colour, noun)
    return f"is there {mention}?", answer
