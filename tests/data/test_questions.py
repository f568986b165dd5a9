"""Questions about scenes: true answers, and words that do not give them away."""

import re
from collections import Counter, defaultdict

import pytest

from mmscratch.data.questions import questions
from mmscratch.data.scenes import NOUNS, SPLITS, Scene, is_held_out_pair

CELLS = [
    "in the top left corner", "at the top", "in the top right corner", "on the left", "in the middle", "on the right",
    "in the bottom left corner", "at the bottom", "in the bottom right corner",
]  # fmt: skip


def answer_of(question, objects):
    """The answer, computed again from the objects; a question must point to exactly one of them."""
    singular = {noun.plural: name for name, noun in NOUNS.items()}
    if match := re.fullmatch(r"what colour is the (.+)\?", question):
        (obj,) = [obj for obj in objects if obj.noun == match[1]]
        return obj.colour
    if match := re.fullmatch(r"what is the (\w+) (\w+) thing\?", question):
        (obj,) = [obj for obj in objects if (obj.size, obj.colour) == match.groups()]
        return obj.noun
    if match := re.fullmatch(r"where is the (.+)\?", question):
        (obj,) = [obj for obj in objects if obj.noun == match[1]]
        return CELLS[3 * int(3 * obj.y) + int(3 * obj.x)]
    if match := re.fullmatch(r"how many (.+) are there\?", question):
        what = singular.get(match[1]) or match[1].removesuffix(" things")
        return ("zero", "one", "two", "three")[sum(what in obj.attributes for obj in objects)]
    article, colour, noun = re.fullmatch(r"is there (an?) (\w+) (.+)\?", question).groups()
    assert article == ("an" if colour == "orange" else "a")
    return "yes" if any((obj.colour, obj.noun) == (colour, noun) for obj in objects) else "no"


def kind_of(question):
    return " ".join(question.split()[:2])


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_true(split):
    kinds = Counter()
    for seed in range(SPLITS[split], SPLITS[split] + 1500):
        scene = Scene(seed)
        asked = questions(scene)
        for question, answer in asked:
            assert answer == answer_of(question, scene.objects), (seed, question)
        assert len({kind_of(question) for question, _ in asked}) == len(asked)
        kinds.update(kind_of(question) for question, _ in asked)
    assert kinds.keys() == {"what colour", "what is", "where is", "how many", "is there"}
    assert kinds["how many"] == kinds["is there"] == 1500 and min(kinds.values()) > 1200


@pytest.mark.parametrize("split", SPLITS)
def test_yes_and_no_are_balanced(split):
    answers = {True: Counter(), False: Counter()}  # for held-out pairs and for the others
    for seed in range(SPLITS[split], SPLITS[split] + 2000):
        question, answer = questions(Scene(seed))[-1]
        colour, noun = re.fullmatch(r"is there an? (\w+) (.+)\?", question).groups()
        answers[is_held_out_pair(noun, colour)][answer] += 1
    for counts in answers.values():  # three standard deviations
        assert abs(counts["yes"] - counts["no"]) <= 3 * counts.total() ** 0.5
    assert (answers[True].total() > 0) == (split == "compositional_test")


def test_a_no_is_a_near_miss():
    near = Counter()
    for seed in range(2000):
        objects = Scene(seed).objects
        question, answer = questions(Scene(seed))[-1]
        if answer == "no":
            colour, noun = re.fullmatch(r"is there an? (\w+) (.+)\?", question).groups()
            near["colour"] += any(obj.colour == colour for obj in objects)
            near["noun"] += any(obj.noun == noun for obj in objects)
            near["none"] += all(obj.colour != colour and obj.noun != noun for obj in objects)
    assert near["none"] == 0 and min(near["colour"], near["noun"]) > 100


def test_questions_alone_do_not_give_the_answer_away():
    answers = defaultdict(Counter)
    for seed in range(6000):
        for question, answer in questions(Scene(seed)):
            answers[question][answer] += 1
    right = defaultdict(list)
    for seed in range(SPLITS["validation"], SPLITS["validation"] + 2500):
        for question, answer in questions(Scene(seed)):
            guess = max(answers[question], key=answers[question].get, default=None)
            right[kind_of(question)].append(guess == answer)
    fraction = {kind: sum(hits) / len(hits) for kind, hits in right.items()}
    assert (
        fraction["what colour"] < 0.25
        and fraction["what is"] < 0.15
        and fraction["where is"] < 0.25
    )
    assert fraction["how many"] < 0.55 and fraction["is there"] < 0.55
    assert sum(map(sum, right.values())) / sum(map(len, right.values())) < 0.35
