"""Questions about the scenes, with their true answers."""

import random

from .language import _PLACES, Mention
from .scenes import _PAIRS, COLOURS, NOUNS, SIZES, Object, Scene, is_held_out_pair


def questions(scene: Scene) -> list[tuple[str, str]]:
    """English questions about the scene with their true answers, up to one of each kind.

    What colour, what is it, where (asked of a thing that no other could be taken for), how many, and is there, whose
    answer is "yes" half of the time, and whose "no" is a near miss. The words of a question say little of its answer.
    """
    draw = random.Random(f"questions {scene.seed}")
    objects = scene.objects
    asked = []

    def alone(*names):  # the things that differ from all others in these
        values = [tuple(getattr(obj, name) for name in names) for obj in objects]
        return [obj for obj, value in zip(objects, values) if values.count(value) == 1]

    for obj in _one_of(draw, alone("noun")):
        asked.append((f"what colour is the {obj.noun}?", obj.colour))
    for obj in _one_of(draw, alone("size", "colour")):
        asked.append((f"what is the {obj.size} {obj.colour} thing?", obj.noun))
    for obj in _one_of(draw, alone("noun")):
        asked.append((f"where is the {obj.noun}?", _PLACES["en"][obj.row * 3 + obj.column]))

    name, values = draw.choice([("noun", NOUNS), ("colour", COLOURS), ("size", SIZES)])
    counts = {value: sum(getattr(obj, name) == value for obj in objects) for value in values}
    count = draw.choice(
        sorted(set(counts.values()))
    )  # the answer first, so that "zero" is not nearly always right
    value = draw.choice([value for value in values if counts[value] == count])
    what = NOUNS[value].plural if name == "noun" else f"{value} things"
    asked.append((f"how many {what} are there?", ("zero", "one", "two", "three")[count]))

    obj, answer = draw.choice(objects), draw.choice(("yes", "no"))
    pair = obj.noun, obj.colour
    if answer == "no":
        there = {(t.noun, t.colour) for t in objects}
        misses = [
            p for p in _PAIRS[is_held_out_pair(*pair)] if p not in there
        ]  # of its sort, or being novel would mean "yes"
        pair = draw.choice([p for p in misses if p[0] == pair[0] or p[1] == pair[1]] or misses)
    phrase = Mention("en", 1, None, pair[1], pair[0])
    return [*asked, (f"is there {phrase}?", answer)]


def _one_of(draw: random.Random, objects: list[Object]) -> list[Object]:
    return [draw.choice(objects)] if objects else []
