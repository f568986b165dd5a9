"""Questions about scenes, in balanced pairs: one question, two pictures, two different answers.

A model that reads only the question cannot do better than chance: it gives the same answer for both
pictures of a pair, which is right for one of them at most, and all answers to a kind of question
are equally frequent. The pictures of a pair are alike otherwise: often they show the same objects
in other places, or two objects have exchanged an attribute.
Source: Zhang et al. 2016, "Yin and yang"; Goyal et al. 2017, "Making the V in VQA matter"; questions
as small programs, Johnson et al. 2017, "CLEVR".
"""

import random
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from .language import _AXES, _PLACES, Mention, _check_language
from .scenes import (
    _PAIRS,
    COLOURS,
    NOUNS,
    SIZES,
    SPLITS,
    Object,
    Scene,
    _draw_attributes,
    is_held_out_pair,
)

KINDS = ("colour", "noun", "where", "count", "exists", "compare", "two-step")
SIDES = {  # name: (axis, +1 for the larger column or row)
    "left": (0, -1),
    "right": (0, 1),
    "above": (1, -1),
    "below": (1, 1),
}
MAX_TRIES = 60  # places drawn for the objects until the answer is the one wanted

Attributes = tuple[str, str, str]  # size, colour and noun of an object


class Description(NamedTuple):
    """The attributes by which a question refers to objects; None where it says nothing."""

    size: str | None = None
    colour: str | None = None
    noun: str | None = None

    def fits(self, attributes: Attributes) -> bool:
        """Whether an object with these attributes can be meant."""
        return all(said in (None, value) for said, value in zip(self, attributes))


class Question(NamedTuple):
    """A question as a small program.

    kind      one of KINDS
    subject   the object, or objects, that it is about
    other     the second one of a comparison
    relation  "more" or "same colour", of a comparison; or one of SIDES
    """

    kind: str
    subject: Description
    other: Description | None = None
    relation: str = ""


class Pair(NamedTuple):
    """A question about two scenes, and its English answers."""

    question: Question
    scenes: tuple[Scene, Scene]
    answers: tuple[str, str]


class Proposal(NamedTuple):
    """A question, and for each of two scenes the objects it needs and the answer it must have."""

    question: Question
    objects: tuple[list[Attributes], list[Attributes]]
    answers: tuple[str, str]


def draw_pair(number: int, kinds: Sequence[str] = KINDS) -> Pair:
    """The balanced pair with this number, of one of these kinds, each equally probable.

    Splits are ranges of numbers, as in `SPLITS`.

    Only in "compositional_test" do pictures contain held-out pairs of noun and colour: at least one
    picture of each pair does, and the question is about such an object.
    """
    if number < 0:
        raise ValueError(f"a pair's number must be 0 or more, not {number}")
    rng = random.Random(f"questions {number}")
    held_out = number >= SPLITS["compositional_test"]
    propose = _PROPOSALS[rng.choice(kinds)]
    while True:
        proposal = propose(rng, held_out)
        scenes = [
            _find_scene(rng, proposal.question, *wanted)
            for wanted in zip(proposal.objects, proposal.answers)
        ]
        if None in scenes:
            continue
        order = rng.choice(((0, 1), (1, 0)))
        answers = tuple(proposal.answers[i] for i in order)
        return Pair(proposal.question, tuple(scenes[i] for i in order), answers)


def _find_scene(
    rng: random.Random, question: Question, objects: list[Attributes], answer: str
) -> Scene | None:
    """A scene of these objects in which the question has this answer; None if there is hardly one."""
    for _ in range(MAX_TRIES):
        scene = Scene.compose(rng, objects)
        if true_answer(question, scene) == answer:
            return scene
    return None


# -------------------------------------------------------------------------------------------------
# Truth.


def true_answer(question: Question, scene: Scene) -> str | None:
    """The English answer; None if the question's premise is false: "what colour is the cat?"

    A premise is false if the object that it names is missing, or is not the only one.
    """
    kind, subject, other, relation = question
    found = _fitting(subject, scene)
    if kind == "count":
        return str(len(found))
    if kind == "exists":
        return _yes_or_no(len(found) > 0)
    if relation == "more":
        return _yes_or_no(len(found) > len(_fitting(other, scene)))
    if len(found) != 1:
        return None
    (obj,) = found
    if kind == "colour":
        return obj.colour
    if kind == "noun":
        return obj.noun
    if kind == "where":
        return _PLACES["en"][obj.row * 3 + obj.column]
    if kind == "two-step":
        neighbour = _first_at_side(obj, scene, relation)
        return neighbour.colour if neighbour else None
    others = _fitting(other, scene)
    if len(others) != 1:
        return None
    if relation == "same colour":
        return _yes_or_no(obj.colour == others[0].colour)
    return _yes_or_no(_is_at_side(obj, others[0], relation))


def _fitting(description: Description, scene: Scene) -> list[Object]:
    return [obj for obj in scene.objects if description.fits(obj.attributes)]


def _is_at_side(obj: Object, other: Object, side: str) -> bool:
    """Whether the object is at this side of the other one: in a column or row further that way."""
    axis, sign = SIDES[side]
    return sign * (obj.cell[axis] - other.cell[axis]) > 0


def _first_at_side(obj: Object, scene: Scene, side: str) -> Object | None:
    """The nearest object at this side; None if there is none, or there are two."""
    axis, _ = SIDES[side]

    def distance(other: Object) -> int:
        return abs(other.cell[axis] - obj.cell[axis])

    found = [other for other in scene.objects if _is_at_side(other, obj, side)]
    nearest = min(map(distance, found), default=0)
    found = [other for other in found if distance(other) == nearest]
    return found[0] if len(found) == 1 else None


def _yes_or_no(is_true: bool) -> str:
    return "yes" if is_true else "no"


# -------------------------------------------------------------------------------------------------
# Proposals: one function for each kind of question. With `held_out`, the object that the question
# is about has a held-out pair of noun and colour in one of the scenes at least.


def _propose_colour(rng: random.Random, held_out: bool) -> Proposal:
    size, colour, noun = _draw_attributes(rng, held_out)
    new = rng.choice([name for name in _colours(noun) if name != colour])
    subject = Description(size=_sometimes(rng, size), noun=noun)
    scenes = _two_scenes(rng, subject, (size, colour, noun), (size, new, noun))
    return Proposal(Question("colour", subject), scenes, (colour, new))


def _propose_noun(rng: random.Random, held_out: bool) -> Proposal:
    size, colour, noun = _draw_attributes(rng, held_out)
    new = rng.choice([name for name in _nouns(colour) if name != noun])
    subject = Description(size=_sometimes(rng, size), colour=colour)
    scenes = _two_scenes(rng, subject, (size, colour, noun), (size, colour, new))
    return Proposal(Question("noun", subject), scenes, (noun, new))


def _propose_where(rng: random.Random, held_out: bool) -> Proposal:
    obj = _draw_attributes(rng, held_out)
    size, colour, noun = obj
    subject = Description(colour=_sometimes(rng, colour), noun=noun)
    objects = [obj, *_draw_others(rng, rng.randint(0, 2), subject)]
    answers = tuple(rng.sample(_PLACES["en"], 2))
    return Proposal(Question("where", subject), (objects, objects), answers)


def _propose_count(rng: random.Random, held_out: bool) -> Proposal:
    size, colour, noun = _draw_attributes(rng, held_out)
    subject = rng.choice(
        [Description(size), Description(None, colour), Description(None, None, noun)]
    )
    counts = rng.sample(range(4), 2)
    scenes = []
    for count in counts:
        total = rng.randint(max(count, 1), 3)
        objects = [(size, colour, noun)][:count]
        while len(objects) < count:
            objects.append(_draw_fitting(rng, subject))
        scenes.append([*objects, *_draw_others(rng, total - count, subject)])
    return Proposal(Question("count", subject), tuple(scenes), tuple(map(str, counts)))


def _propose_exists(rng: random.Random, held_out: bool) -> Proposal:
    obj = _draw_attributes(rng, held_out)
    size, colour, noun = obj
    subject = Description(_sometimes(rng, size), _sometimes(rng, colour, 0.75), noun)
    named = [i for i, value in enumerate(subject) if value]
    changed = _change(rng, obj, rng.choice(named))  # a near miss
    scenes = _two_scenes(rng, subject, obj, changed)
    return Proposal(Question("exists", subject), scenes, ("yes", "no"))


def _propose_compare(rng: random.Random, held_out: bool) -> Proposal:
    relation = rng.choice(("more", "same colour", "side"))
    size, colour, noun = _draw_attributes(rng, held_out)
    if relation == "more":
        return _propose_more(rng, (size, colour, noun))
    subject = Description(noun=noun)
    if relation == "side":
        other_size, other_colour, other_noun = _draw_others(rng, 1, subject)[0]
        new_colour = other_colour
        relation = rng.choice(list(SIDES))
    else:
        other_size = rng.choice(list(SIZES))
        other_noun = rng.choice([name for name in _nouns(colour) if name != noun])
        other_colour = colour
        new_colour = rng.choice([name for name in _colours(other_noun) if name != colour])
    other = Description(noun=other_noun)
    third = _draw_others(rng, rng.randint(0, 1), subject, other)
    first = [(size, colour, noun), (other_size, other_colour, other_noun), *third]
    second = [(size, colour, noun), (other_size, new_colour, other_noun), *third]
    question = Question("compare", *rng.choice(((subject, other), (other, subject))), relation)
    return Proposal(question, (first, second), ("yes", "no"))


def _propose_more(rng: random.Random, obj: Attributes) -> Proposal:
    """Are there more cats than stars? More red things than blue things?"""
    _, colour, noun = obj
    by_noun = rng.random() < 0.5
    if by_noun:
        subject = Description(noun=noun)
        other = Description(noun=rng.choice([name for name in NOUNS if name != noun]))
    else:
        subject = Description(colour=colour)
        other = Description(colour=rng.choice([name for name in COLOURS if name != colour]))
    scenes = []
    for counts in (((1, 0), (2, 0), (2, 1), (3, 0)), ((1, 1), (0, 1), (1, 2), (0, 2))):
        count, other_count = rng.choice(counts)
        objects = [obj][:count]
        while len(objects) < count:
            objects.append(_draw_fitting(rng, subject))
        for _ in range(other_count):
            objects.append(_draw_fitting(rng, other))
        rest = rng.randint(0, 3 - len(objects))
        scenes.append([*objects, *_draw_others(rng, rest, subject, other)])
    return Proposal(Question("compare", subject, other, "more"), tuple(scenes), ("yes", "no"))


def _propose_two_step(rng: random.Random, held_out: bool) -> Proposal:
    """What colour is the first thing left of the big star? Both scenes show the same three objects.

    "The thing left of" it would always be the leftmost of all: one could ignore the star.
    """
    near = _draw_attributes(rng, held_out)
    size, colour, noun = _draw_attributes(rng, False)
    subject = Description(_sometimes(rng, size), _sometimes(rng, colour), noun)
    far = near
    while subject.fits(near) or subject.fits(far) or near[1] == far[1]:
        near = _draw_attributes(rng, held_out)
        far = _draw_attributes(rng, False)
    objects = [(size, colour, noun), near, far]
    question = Question("two-step", subject, relation=rng.choice(list(SIDES)))
    return Proposal(question, (objects, objects), (near[1], far[1]))


_PROPOSALS = {
    "colour": _propose_colour,
    "noun": _propose_noun,
    "where": _propose_where,
    "count": _propose_count,
    "exists": _propose_exists,
    "compare": _propose_compare,
    "two-step": _propose_two_step,
}


def _two_scenes(
    rng: random.Random, subject: Description, obj: Attributes, changed: Attributes
) -> tuple[list[Attributes], list[Attributes]]:
    """The objects of two scenes that differ in one attribute of one object.

    In a third of those with several objects, a second one has the new value in the first scene and
    the old one in the second. Both then show the same sizes, colours and nouns, and only which
    object has which tells them apart.
    """
    others = _draw_others(rng, rng.randint(0, 2), subject)
    others_changed = list(others)
    if others and rng.random() < 0.5:
        (i,) = [i for i in range(3) if obj[i] != changed[i]]
        with_new = _replace(others[0], i, changed[i])
        with_old = _replace(others[0], i, obj[i])
        if _is_allowed(with_new, subject) and _is_allowed(with_old, subject):
            others[0] = with_new
            others_changed[0] = with_old
    return [obj, *others], [changed, *others_changed]


def _is_allowed(attributes: Attributes, avoid: Description) -> bool:
    """Whether an object may be in a scene without being the one that the question is about."""
    size, colour, noun = attributes
    return not avoid.fits(attributes) and not is_held_out_pair(noun, colour)


def _replace(attributes: Attributes, i: int, value: str) -> Attributes:
    return (*attributes[:i], value, *attributes[i + 1 :])


def _change(rng: random.Random, attributes: Attributes, i: int) -> Attributes:
    """The attributes with another value at i: size, colour or noun."""
    size, colour, noun = attributes
    values = (list(SIZES), _colours(noun), _nouns(colour))[i]
    return _replace(
        attributes, i, rng.choice([value for value in values if value != attributes[i]])
    )


def _draw_others(rng: random.Random, count: int, *avoid: Description) -> list[Attributes]:
    """Objects that fit none of the descriptions."""
    others = []
    while len(others) < count:
        attributes = _draw_attributes(rng, False)
        if not any(description.fits(attributes) for description in avoid):
            others.append(attributes)
    return others


def _draw_fitting(rng: random.Random, description: Description) -> Attributes:
    """An object that fits a description by a size, a colour or a noun."""
    size, colour, noun = _draw_attributes(rng, False)
    if description.colour:
        return size, description.colour, rng.choice(_nouns(description.colour))
    if description.noun:
        return size, rng.choice(_colours(description.noun)), description.noun
    return description.size, colour, noun


def _sometimes(rng: random.Random, value: str, probability: float = 0.4) -> str | None:
    return value if rng.random() < probability else None


@cache
def _colours(noun: str) -> list[str]:
    """The colours in which training shows this noun."""
    return [colour for name, colour in _PAIRS[False] if name == noun]


@cache
def _nouns(colour: str) -> list[str]:
    """The nouns that training shows in this colour."""
    return [noun for noun, name in _PAIRS[False] if name == colour]


# -------------------------------------------------------------------------------------------------
# Words.

_TEXTS = {
    "en": {
        "colour": "what colour is {subject}?",
        "noun": "what is {subject}?",
        "where": "where is {subject}?",
        "count": "how many {subject} are there?",
        "exists": "is there {subject}?",
        "more": "are there more {subject} than {other}?",
        "same colour": "are {subject} and {other} the same colour?",
        "side": "is {subject} {side} {other}?",
        "two-step": "what colour is the first thing {side} {subject}?",
    },
    "de": {
        "colour": "welche Farbe hat {subject}?",
        "noun": "was ist {subject}?",
        "where": "wo ist {subject}?",
        "count": "wie viele {subject} gibt es?",
        "exists": "gibt es {subject:acc}?",
        "more": "gibt es mehr {subject} als {other}?",
        "same colour": "haben {subject} und {other} die gleiche Farbe?",
        "side": "ist {subject} {side} {other:dat}?",
        "two-step": "welche Farbe hat das erste Ding {side} {subject:dat}?",
    },
    "zh": {
        "colour": "{subject}是什么颜色的？",
        "noun": "{subject}是什么？",
        "where": "{subject}在哪里？",
        "count": "图中有几{classifier}{subject}？",
        "exists": "图中有{subject}吗？",
        "more": "{subject}比{other}多吗？",
        "same colour": "{subject}和{other}的颜色一样吗？",
        "side": "{subject}在{other}的{side}吗？",
        "two-step": "{subject}{side}的第一个东西是什么颜色的？",
    },
}


def write_question(question: Question, language: str = "en") -> str:
    """The question as a sentence."""
    _check_language(language)
    kind, subject, other, relation = question
    words = {"subject": _mention(subject, kind, relation, language)}
    if kind == "count":
        words["classifier"] = words["subject"].described.classifier
    if other:
        words["other"] = _mention(other, kind, relation, language)
    if relation in SIDES:
        axis, sign = SIDES[relation]
        before, after = _AXES[language][axis][:2]
        words["side"] = before if sign < 0 else after
    text = _TEXTS[language].get(kind)
    if kind == "compare":
        text = _TEXTS[language]["side" if relation in SIDES else relation]
    return text.format(**words)


def _mention(description: Description, kind: str, relation: str, language: str) -> Mention:
    """The noun phrase: "a big star" if it may not exist, "big stars" if counted, or "the big star"."""
    if kind == "exists":
        return Mention(language, 1, *description)
    if kind == "count" or relation == "more":
        return Mention(language, 0, *description)
    return Mention(language, 1, *description, definite=True)


def write_answer(answer: str, language: str = "en") -> str:
    """An English answer of `true_answer` in another language."""
    _check_language(language)
    return _answers(language)[answer]


@cache
def _answers(language: str) -> dict[str, str]:
    """{English answer: the answer in this language}, of all possible ones."""
    answers = {str(count): str(count) for count in range(4)}
    yes, no = {"en": ("yes", "no"), "de": ("ja", "nein"), "zh": ("是", "否")}[language]
    answers |= {"yes": yes, "no": no}
    answers |= dict(zip(_PLACES["en"], _PLACES[language]))
    for name, colour in COLOURS.items():
        answers[name] = {"en": name, "de": colour.german, "zh": colour.chinese}[language]
    for name, noun in NOUNS.items():
        answers[name] = {"en": name, "de": noun.german, "zh": noun.chinese}[language]
    return answers
