"""The judge: is a caption a sentence of the grammar, and is it true of its scene?"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from itertools import permutations
from string import Formatter
from typing import NamedTuple

import torch
from torch import Tensor

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
    _lexicon,
    is_spread,
)
from .scenes import NOUNS, Object, Scene

Claim = Callable[[Sequence[Object]], bool]  # what a sentence says about the places of its objects


class Judgement(NamedTuple):
    """The verdict of `judge`; `wrong` has some of grammar, noun, colour, size, place, number."""

    well_formed: bool
    true: bool
    wrong: tuple[str, ...]


def judge(caption: str, scene: Scene, language: str = "en") -> Judgement:
    """Is the caption a sentence of the grammar, and is it true of the scene?

    A true caption mentions every object of the scene and nothing else, so saying little does not
    help. It may leave out a size or a colour. A wrong caption gets the faults of the reading that
    has the fewest: "left" for "right" is one wrong place, not two wrong colours.
    """
    _check_language(language)
    text = _normal(caption, language)
    reading = _read(text, language)
    if reading is None:
        return Judgement(False, False, ("grammar",))
    wrong = _compare(reading.mentions, scene.objects, reading.claim)
    well_formed = reading.text == text
    if not well_formed:
        wrong = ("grammar", *wrong)
    return Judgement(well_formed, not wrong, wrong)


def _compare(
    mentions: Sequence[Mention], objects: Sequence[Object], claim: Claim
) -> tuple[str, ...]:
    """The faults of the mentions, which are in the sentence's order, one for each object."""
    if len(mentions) != len(objects):
        return ("number",)
    readings = []
    for order in permutations(objects):
        wrong = []
        for mention, obj in zip(mentions, order):
            wrong += _differences(mention, obj)
        if not claim(order):
            wrong.append("place")
        readings.append(wrong)
    best = min(readings, key=len)
    if set(best) <= {"place"}:
        return tuple(best)
    fits = [[not _differences(mention, obj) for obj in objects] for mention in mentions]
    if all(map(any, fits)) and all(map(any, zip(*fits))):
        return ("number",)  # the right kinds of objects, but the wrong number of each
    return tuple(dict.fromkeys(best))


def _differences(mention: Mention, obj: Object) -> list[str]:
    """The attributes that the mention names and the object does not have."""
    wrong = []
    for name in ("noun", "colour", "size"):
        if getattr(mention, name) not in (None, getattr(obj, name)):
            wrong.append(name)
    return wrong


class Reading(NamedTuple):
    """A caption as one template reads it."""

    text: str  # the same sentence without mistakes of grammar
    mentions: list[Mention]  # one for each object
    claim: Claim


def _read(text: str, language: str) -> Reading | None:
    for pattern, template, words, claim in _patterns(language):
        match = pattern.fullmatch(text)
        if not match:
            continue
        slots = {}
        for name, phrase in match.groupdict().items():
            slots[name.removeprefix("slot_")] = _read_mention(phrase, language)
        if any((mention.count == 1) != (slot != "n") for slot, mention in slots.items()):
            continue  # only {n} is a plural
        ordered = [slots[slot] for slot in "012" if slot in slots]
        groups = {slot: slots[slot] for slot in "nm" if slot in slots}
        correct = _normal(template.format(*ordered, **groups, **words), language)
        mentions = list(ordered)
        for mention in groups.values():
            mentions += [mention] * mention.count
        return Reading(correct, mentions, claim)
    return None


@cache
def _patterns(language: str) -> list[tuple[re.Pattern, str, dict[str, str], Claim]]:
    """(pattern, template, words, claim) for every template with the words of every axis or place."""
    phrase = re.sub("[?]P<[a-z]+>", "?:", _phrase_pattern(language))
    slots = [_Slot(slot) for slot in "012"]
    groups = {slot: _Slot(slot) for slot in "nm"}
    found = {}
    for kind in _TEMPLATES[language].values():
        for template in kind:
            for i, (words, claim) in enumerate(_variants(template, language)):
                text = _normal(template.format(*slots, **groups, **words), language)
                pattern = re.sub("slot_([012nm])", rf"(?P<slot_\1>{phrase})", re.escape(text))
                found[template, i] = re.compile(pattern), template, words, claim
    return list(found.values())


def _variants(template: str, language: str) -> list[tuple[dict[str, str], Claim]]:
    """The words of each place or axis that fit the template, with the claim that it then makes."""
    fields = {name for _, name, _, _ in Formatter().parse(template)}
    variants = []
    if "place" in fields:
        for i, place in enumerate(_PLACES[language]):
            row, column = divmod(i, 3)
            variants.append(({"place": place}, partial(_is_at, cell=(column, row))))
    elif fields & set(_AXIS_FIELDS):
        claim = is_spread if "beside" in fields else _is_ordered
        for axis, words in enumerate(_AXES[language]):
            variants.append((dict(zip(_AXIS_FIELDS, words)), partial(claim, axis=axis)))
    else:
        variants.append(({}, _is_between if "1" in fields else _claims_nothing))
    return variants


class _Slot(str):
    def __format__(self, case: str) -> str:
        return "slot_" + self


def _is_at(objects: Sequence[Object], cell: tuple[int, int]) -> bool:
    return objects[0].cell == cell


def _is_ordered(objects: Sequence[Object], axis: int) -> bool:
    return all(a.cell[axis] < b.cell[axis] for a, b in zip(objects, objects[1:]))


def _is_between(objects: Sequence[Object]) -> bool:
    """Whether the middle one is between the others on one of the axes."""
    return any(_is_ordered(order, axis) for axis in (0, 1) for order in (objects, objects[::-1]))


def _claims_nothing(objects: Sequence[Object]) -> bool:
    return True


@cache
def _phrase_pattern(language: str) -> str:
    """A pattern of noun phrases with any article and ending; formatting again shows wrong ones."""
    alternatives = []
    for words in _lexicon(language):
        alternatives.append("|".join(sorted(words, key=len, reverse=True)))
    sizes, colours, nouns = alternatives
    if language == "zh":
        classifiers = "|".join({noun.classifier for noun in NOUNS.values()})
        adjectives = rf"(?:(?P<colour>{colours})的)?(?P<size>{sizes})?"
        return rf"(?P<number>[一两三])(?:{classifiers}){adjectives}(?P<noun>{nouns})"
    if language == "en":
        numbers = "an?|two|three"
        ending = ""
    else:
        numbers = "ein(?:e[rsnm]?)?|zwei|drei"
        ending = "(?:e[rsnm]?)?"
    adjectives = rf"(?:(?P<size>{sizes}){ending} )?(?:(?P<colour>{colours}){ending} )?"
    return rf"(?P<number>{numbers}) {adjectives}(?P<noun>{nouns})"


def _read_mention(phrase: str, language: str) -> Mention:
    """Parse a noun phrase that matches `_phrase_pattern`."""
    found = re.fullmatch(_phrase_pattern(language), phrase)
    lexicon = _lexicon(language)
    number = found["number"]
    count = _NUMBERS[language].index(number) if number in _NUMBERS[language][2:] else 1
    size = lexicon.sizes.get(found["size"])
    colour = lexicon.colours.get(found["colour"])
    return Mention(language, count, size, colour, lexicon.nouns[found["noun"]])


def _normal(text: str, language: str) -> str:
    """The text with the spelling and spaces of `tokenize`."""
    return ("" if language == "zh" else " ").join(tokenize(text))


@lru_cache(maxsize=100_000)
def _well_formed_reading(caption: str, language: str) -> Reading | None:
    """The reading of a caption; None if it is not a sentence of the grammar, as written."""
    text = _normal(caption, language)
    reading = _read(text, language)
    return reading if reading and reading.text == text else None


def true_pairs(captions: Sequence[str], scenes: Sequence[Scene], language: str = "en") -> Tensor:
    """Find all pairs of a caption and a scene of which it is true: (C, S) bool.

        true_pairs(captions, scenes)[i, j] = judge(captions[i], scenes[j]).true

    But a caption is parsed once, and compared only with the scenes that have its nouns, so all
    pairs of 1,000 captions and 1,000 scenes take a fraction of a second. A true pair that is not on
    the diagonal is a false negative of contrastive training, and a second right answer in a search.
    Raises ValueError for an unknown language.
    """
    _check_language(language)
    scenes_by_nouns = defaultdict(list)
    for j, scene in enumerate(scenes):
        nouns = sorted(obj.noun for obj in scene.objects)
        scenes_by_nouns[tuple(nouns)].append(j)
    true = torch.zeros(len(captions), len(scenes), dtype=torch.bool)  # (C, S)
    for i, caption in enumerate(captions):
        reading = _well_formed_reading(caption, language)
        if reading is None:
            continue
        nouns = sorted(mention.noun for mention in reading.mentions)
        for j in scenes_by_nouns.get(tuple(nouns), []):
            wrong = _compare(reading.mentions, scenes[j].objects, reading.claim)
            if not wrong:
                true[i, j] = True
    return true


class JudgeReport(NamedTuple):
    """The result of `judge_captions`."""

    percentages: list[float]  # % true: among scenes with one object, two, three, and among all
    faults: Counter  # in how many of the false captions each fault occurs


def judge_captions(captions: Sequence[Tokens], scenes: Sequence[Scene]) -> JudgeReport:
    """Judge English captions: which percentage is true of the scenes, and the faults of the rest.

    If there are no scenes, a percentage is 0. A caption with faults of several kinds counts for
    each of them.
    """
    if len(captions) != len(scenes):
        raise ValueError(f"{len(captions)} captions but {len(scenes)} scenes")
    check_tokens(captions)
    judgements = [judge(detokenize(tokens), scene) for tokens, scene in zip(captions, scenes)]
    true = {1: [], 2: [], 3: []}
    faults = Counter()
    for judgement, scene in zip(judgements, scenes):
        true[len(scene.objects)].append(judgement.true)
        faults.update(judgement.wrong)
    percentages = []
    for group in (true[1], true[2], true[3], true[1] + true[2] + true[3]):
        percentages.append(100 * sum(group) / max(len(group), 1))
    return JudgeReport(percentages, faults)
