"""Questions about scenes: true answers, and words that do not give them away."""

import re
from collections import Counter, defaultdict

import pytest

from mmscratch.data.questions import questions
from mmscratch.data.scenes import NOUNS, SPLITS, Scene, held_out

CELLS = [
    "in the top left corner", "at the top", "in the top right corner", "on the left", "in the middle", "on the right",
    "in the bottom left corner", "at the bottom", "in the bottom right corner",
]  # fmt: skip


def answer_of(question, things):
    """The answer, worked out anew from the things; the things that a question points to must be just one."""
    singular = {noun.plural: name for name, noun in NOUNS.items()}
    if match := re.fullmatch(r"what colour is the (.+)\?", question):
        (thing,) = [thing for thing in things if thing.noun == match[1]]
        return thing.colour
    if match := re.fullmatch(r"what is the (\w+) (\w+) thing\?", question):
        (thing,) = [thing for thing in things if (thing.size, thing.colour) == match.groups()]
        return thing.noun
    if match := re.fullmatch(r"where is the (.+)\?", question):
        (thing,) = [thing for thing in things if thing.noun == match[1]]
        return CELLS[3 * int(3 * thing.y) + int(3 * thing.x)]
    if match := re.fullmatch(r"how many (.+) are there\?", question):
        what = singular.get(match[1]) or match[1].removesuffix(" things")
        return ("zero", "one", "two", "three")[sum(what in thing.look for thing in things)]
    article, colour, noun = re.fullmatch(r"is there (an?) (\w+) (.+)\?", question).groups()
    assert article == ("an" if colour == "orange" else "a")
    return "yes" if any((thing.colour, thing.noun) == (colour, noun) for thing in things) else "no"


def kind_of(question):
    return " ".join(question.split()[:2])


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_true(split):
    kinds = Counter()
    for seed in range(SPLITS[split], SPLITS[split] + 1500):
        scene = Scene(seed)
        asked = questions(scene)
        for question, answer in asked:
            assert answer == answer_of(question, scene.things), (seed, question)
        assert len({kind_of(question) for question, _ in asked}) == len(asked)
        kinds.update(kind_of(question) for question, _ in asked)
    assert kinds.keys() == {"what colour", "what is", "where is", "how many", "is there"}
    assert kinds["how many"] == kinds["is there"] == 1500 and min(kinds.values()) > 1200


@pytest.mark.parametrize("split", SPLITS)
def test_yes_and_no_are_balanced(split):
    answers = {True: Counter(), False: Counter()}  # of pairs that are held out and of those that are not
    for seed in range(SPLITS[split], SPLITS[split] + 2000):
        question, answer = questions(Scene(seed))[-1]
        colour, noun = re.fullmatch(r"is there an? (\w+) (.+)\?", question).groups()
        answers[held_out(noun, colour)][answer] += 1
    for counts in answers.values():  # three standard deviations
        assert abs(counts["yes"] - counts["no"]) <= 3 * counts.total() ** 0.5
    assert (answers[True].total() > 0) == (split == "compositional_test")


def test_a_no_is_a_near_miss():
    near = Counter()
    for seed in range(2000):
        things = Scene(seed).things
        question, answer = questions(Scene(seed))[-1]
        if answer == "no":
            colour, noun = re.fullmatch(r"is there an? (\w+) (.+)\?", question).groups()
            near["colour"] += any(thing.colour == colour for thing in things)
            near["noun"] += any(thing.noun == noun for thing in things)
            near["none"] += all(thing.colour != colour and thing.noun != noun for thing in things)
    assert near["none"] == 0 and min(near["colour"], near["noun"]) > 100


def test_the_question_alone_does_not_give_the_answer():
    answers = defaultdict(Counter)
    for seed in range(6000):
        for question, answer in questions(Scene(seed)):
            answers[question][answer] += 1
    right = defaultdict(list)
    for seed in range(SPLITS["validation"], SPLITS["validation"] + 2500):
        for question, answer in questions(Scene(seed)):
            guess = max(answers[question], key=answers[question].get, default=None)
            right[kind_of(question)].append(guess == answer)
    share = {kind: sum(hits) / len(hits) for kind, hits in right.items()}
    assert share["what colour"] < 0.25 and share["what is"] < 0.15 and share["where is"] < 0.25
    assert share["how many"] < 0.55 and share["is there"] < 0.55
    assert sum(map(sum, right.values())) / sum(map(len, right.values())) < 0.35
