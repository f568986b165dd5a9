"""The judge: is a caption a sentence of the grammar, and is it true of its scene?"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import permutations
from string import Formatter
from typing import NamedTuple

from ..metrics import Tokens, check_tokens
from ..text import detokenize, tokenize
from .language import (
    _AXES,
    _AXIS_FIELDS,
    _NUMBERS,
    _PLACES,
    _TEMPLATES,
    Mention,
    _check_language,
    _is_spread,
    _lexicon,
)
from .scenes import NOUNS, Scene


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
    wrong = _compare(mentions, scene.objects, holds)
    if written != text:
        wrong = ("grammar", *wrong)
    return Judgement(written == text, not wrong, wrong)


def _compare(mentions, objects, holds) -> tuple[str, ...]:
    """The faults of the mentions, one a thing, `holds` being what the sentence claims of their order or place."""

    def differences(mention, obj):
        return [
            name
            for name in ("noun", "colour", "size")
            if getattr(mention, name) not in (None, getattr(obj, name))
        ]

    if len(mentions) != len(objects):
        return ("number",)
    readings = []
    for order in permutations(objects):
        wrong = [
            name for mention, obj in zip(mentions, order) for name in differences(mention, obj)
        ]
        readings.append(wrong + [] if holds(order) else wrong + ["place"])
    best = min(readings, key=len)
    all_there = all(any(not differences(m, t) for m in mentions) for t in objects)
    if (
        set(best) - {"place"}
        and all_there
        and all(any(not differences(m, t) for t in objects) for m in mentions)
    ):
        return ("number",)  # the right kinds of things, but not so many of each
    return tuple(dict.fromkeys(best))


def _read(text: str, language: str):
    """(the text as it should be written, a mention for each thing, a test of the claimed order), or None."""
    for pattern, template, words, claim in _patterns(language):
        match = pattern.fullmatch(text)
        if not match:
            continue
        slots = {
            slot[-1]: _read_mention(phrase, language) for slot, phrase in match.groupdict().items()
        }
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
        text = template.format(
            *(slots[slot] for slot in "012"), n=slots["n"], m=slots["m"], **words
        )
        escaped = re.escape(_normal(text, language))
        return re.compile(re.sub("slot_([012nm])", rf"(?P<slot_\1>{phrase})", escaped))

    found = {}
    for kind in _TEMPLATES[language].values():
        for template in kind:
            fields = {name for _, name, _, _ in Formatter().parse(template)}
            if "place" in fields:
                variants = [
                    ({"place": _PLACES[language][i]}, _is_at(*divmod(i, 3))) for i in range(9)
                ]
            elif fields & set(_AXIS_FIELDS):
                claim = _is_spread if "beside" in fields else _is_ordered
                axes = enumerate(_AXES[language])
                variants = [(dict(zip(_AXIS_FIELDS, words)), claim(axis)) for axis, words in axes]
            else:
                variants = [({}, _is_between if "1" in fields else lambda objects: True)]
            found |= {
                (template, i): (pattern(template, w), template, w, claim)
                for i, (w, claim) in enumerate(variants)
            }
    return list(found.values())


class _Slot(str):
    def __format__(self, case: str) -> str:
        return "slot_" + self


def _is_at(row, column):
    return lambda objects: (objects[0].row, objects[0].column) == (row, column)


def _is_ordered(axis):
    return lambda objects: all(a[3 + axis] < b[3 + axis] for a, b in zip(objects, objects[1:]))


def _is_between(objects):
    return any(_is_ordered(axis)(order) for axis in (0, 1) for order in (objects, objects[::-1]))


@cache
def _phrase_pattern(language: str) -> str:
    """A noun phrase, read with any article and ending: what is wrong with it is found by writing it again."""
    sizes, colours, nouns = (
        "|".join(sorted(words, key=len, reverse=True)) for words in _lexicon(language)
    )
    if language == "zh":
        classifiers = "|".join({noun.classifier for noun in NOUNS.values()})
        return rf"(?P<number>[一两三])(?:{classifiers})(?:(?P<colour>{colours})的)?(?P<size>{sizes})?(?P<noun>{nouns})"
    numbers, ending = {
        "en": ("an?|two|three", ""),
        "de": ("ein(?:e[rsnm]?)?|zwei|drei", "(?:e[rsnm]?)?"),
    }[language]
    adjectives = rf"(?:(?P<size>{sizes}){ending} )?(?:(?P<colour>{colours}){ending} )?"
    return rf"(?P<number>{numbers}) {adjectives}(?P<noun>{nouns})"


def _read_mention(phrase: str, language: str) -> Mention:
    """A noun phrase that the pattern has matched -> a Mention."""
    found = re.fullmatch(_phrase_pattern(language), phrase)
    sizes, colours, nouns = _lexicon(language)
    count = next((i for i in (2, 3) if _NUMBERS[language][i] == found["number"]), 1)
    return Mention(
        language,
        count,
        sizes.get(found["size"]),
        colours.get(found["colour"]),
        nouns[found["noun"]],
    )


def _normal(text: str, language: str) -> str:
    """One spelling for all that `tokenize` treats alike."""
    return ("" if language == "zh" else " ").join(tokenize(text))


class JudgeReport(NamedTuple):
    """What `judge_captions` returns."""

    fractions: list[
        float
    ]  # of true captions in %: of scenes with one thing, with two, with three, and of all
    faults: Counter  # of the others: how many captions have which


def judge_captions(written: Sequence[Tokens], scenes: Sequence[Scene]) -> JudgeReport:
    """How many captions, in English, are true of their scenes, and what is wrong in the others, by `scenes.judge`.

    A share of no scenes is 0. A caption with two faults of different kinds counts with each.
    """
    if len(written) != len(scenes):
        raise ValueError(f"{len(written)} captions but {len(scenes)} scenes")
    check_tokens(written)
    judgements = [judge(detokenize(tokens), scene) for tokens, scene in zip(written, scenes)]
    fractions = []
    for numbers in ((1,), (2,), (3,), (1, 2, 3)):
        true = [j.true for j, scene in zip(judgements, scenes) if len(scene.objects) in numbers]
        fractions.append(100 * sum(true) / max(len(true), 1))
    return JudgeReport(fractions, Counter(fault for j in judgements for fault in j.wrong))
