"""Questions in balanced pairs: true by another judge, unanswerable without the pictures, well said."""

import hashlib
import os
import random
import re
import subprocess
import sys
from collections import Counter, defaultdict
from functools import cache

import pytest

from mmscratch.data.language import LANGUAGES
from mmscratch.data.questions import (
    KINDS,
    SIDES,
    Description,
    Question,
    draw_pair,
    true_answer,
    write_answer,
    write_question,
)
from mmscratch.data.scenes import COLOURS, NOUNS, SIZES, SPLITS, Object, Scene, is_held_out_pair
from mmscratch.metrics import answer_table

CELLS = [
    "in the top left corner", "at the top", "in the top right corner", "on the left", "in the middle", "on the right",
    "in the bottom left corner", "at the bottom", "in the bottom right corner",
]  # fmt: skip
SIDE_WORDS = {
    "en": {"left of": "left", "right of": "right", "above": "above", "below": "below"},
    "de": {"links von": "left", "rechts von": "right", "über": "above", "unter": "below"},
    "zh": {"左边": "left", "右边": "right", "上面": "above", "下面": "below"},
}
# "side" and "two-step" come before what would match them as well
PATTERNS = {
    "en": {
        "count": r"how many (?P<subject>.+) are there\?",
        "exists": r"is there (?P<subject>an? .+)\?",
        "more": r"are there more (?P<subject>.+) than (?P<other>.+)\?",
        "same colour": r"are (?P<subject>the .+) and (?P<other>the .+) the same colour\?",
        "side": r"is (?P<subject>the .+) (?P<side>left of|right of|above|below) (?P<other>the .+)\?",
        "two-step": r"what colour is the first thing (?P<side>left of|right of|above|below) (?P<subject>the .+)\?",
        "colour": r"what colour is (?P<subject>the .+)\?",
        "noun": r"what is (?P<subject>the .+)\?",
        "where": r"where is (?P<subject>the .+)\?",
    },
    "de": {
        "count": r"wie viele (?P<subject>.+) gibt es\?",
        "more": r"gibt es mehr (?P<subject>.+) als (?P<other>.+)\?",
        "exists": r"gibt es (?P<subject>ein.+)\?",
        "same colour": r"haben (?P<subject>.+) und (?P<other>.+) die gleiche Farbe\?",
        "side": r"ist (?P<subject>.+) (?P<side>links von|rechts von|über|unter) (?P<other>.+)\?",
        "two-step": r"welche Farbe hat das erste Ding (?P<side>links von|rechts von|über|unter) (?P<subject>.+)\?",
        "colour": r"welche Farbe hat (?P<subject>.+)\?",
        "noun": r"was ist (?P<subject>.+)\?",
        "where": r"wo ist (?P<subject>.+)\?",
    },
    "zh": {
        "count": r"图中有几[^\d](?P<subject>.+)？",
        "exists": r"图中有(?P<subject>一.+)吗？",
        "more": r"(?P<subject>.+)比(?P<other>.+)多吗？",
        "same colour": r"(?P<subject>.+)和(?P<other>.+)的颜色一样吗？",
        "side": r"(?P<subject>.+)在(?P<other>.+)的(?P<side>左边|右边|上面|下面)吗？",
        "two-step": r"(?P<subject>.+)(?P<side>左边|右边|上面|下面)的第一个东西是什么颜色的？",
        "colour": r"(?P<subject>.+)是什么颜色的？",
        "noun": r"(?P<subject>.+)是什么？",
        "where": r"(?P<subject>.+)在哪里？",
    },
}  # fmt: skip
ARTICLE = {"en": "(?:(?:an?|the) )?", "de": "(?:(?:ein|eine[nmr]?|der|die|das|den|dem) )?", "zh": "(?:一.)?"}  # fmt: skip
ENDING = {"en": " ", "de": "e[rsnm]? ", "zh": "的?"}  # of an adjective


@cache
def words_of(language):
    """{word: English name} of the sizes, the colours and the nouns; a thing is None."""
    sizes = {"en": ("small", "big"), "de": ("klein", "groß"), "zh": ("小", "大")}[language]
    things = {"en": ("thing", "things"), "de": ("Ding", "Dinge"), "zh": ("东西",)}[language]
    colours = {}
    for name, colour in COLOURS.items():
        colours[{"en": name, "de": colour.german, "zh": colour.chinese}[language]] = name
    nouns = dict.fromkeys(things)
    for name, noun in NOUNS.items():
        forms = {
            "en": (name, noun.plural),
            "de": (noun.german, noun.german_plural),
            "zh": (noun.chinese,),
        }
        nouns |= dict.fromkeys(forms[language], name)
    return dict(zip(sizes, SIZES)), colours, nouns


def parse_phrase(phrase, language):
    """The description that a noun phrase gives: "a big red star" -> (big, red, star)."""
    size, colour, noun = ("|".join(map(re.escape, words)) for words in words_of(language))
    ending = ENDING[language]
    adjectives = f"(?:({size}){ending})?(?:({colour}){ending})?"
    if language == "zh":
        adjectives = f"(?:({colour})的)?({size})?"
    match = re.fullmatch(f"{ARTICLE[language]}{adjectives}({noun})", phrase)
    found = list(match.groups())
    if language == "zh":
        found[:2] = found[1::-1]
    names = (words.get(word) for word, words in zip(found, words_of(language)))
    return Description(*names)


def parse(sentence, language="en"):
    """The program of a question, from its words alone."""
    for kind, pattern in PATTERNS[language].items():
        if match := re.fullmatch(pattern, sentence):
            break
    found = match.groupdict()
    subject = parse_phrase(found["subject"], language)
    other = parse_phrase(found["other"], language) if "other" in found else None
    side = SIDE_WORDS[language].get(found.get("side"), "")
    if kind in ("more", "same colour", "side"):
        return Question("compare", subject, other, side or kind)
    return Question(kind, subject, other, side)


def judge_answer(sentence, objects):
    """The answer, computed from the English words and where the objects are in the picture.

    None if a question does not point to exactly one object.
    """
    kind, *phrases, relation = parse(sentence)
    found = []
    for phrase in phrases:
        if phrase:
            said = {name for name in phrase if name}
            found.append([obj for obj in objects if said <= {obj.size, obj.colour, obj.noun}])
    subject, other = found[0], found[-1]
    if kind == "count":
        return str(len(subject))
    if kind == "exists":
        return "yes" if subject else "no"
    if relation == "more":
        return "yes" if len(subject) > len(other) else "no"
    if len(subject) != 1 or len(other) != 1:
        return None
    cells = {id(obj): (int(3 * obj.x), int(3 * obj.y)) for obj in objects}
    column, row = cells[id(subject[0])]
    if kind == "where":
        return CELLS[3 * row + column]
    if kind in ("colour", "noun"):
        return getattr(subject[0], kind)
    if relation == "same colour":
        return "yes" if subject[0].colour == other[0].colour else "no"
    at_side = {  # objects left of others have a smaller column
        "left": lambda one, two: one[0] < two[0],
        "right": lambda one, two: one[0] > two[0],
        "above": lambda one, two: one[1] < two[1],
        "below": lambda one, two: one[1] > two[1],
    }[relation]
    if kind == "compare":
        return "yes" if at_side((column, row), cells[id(other[0])]) else "no"
    at_distance = defaultdict(list)  # in columns or rows
    for obj in objects:
        if at_side(cells[id(obj)], (column, row)):
            axis = 0 if relation in ("left", "right") else 1
            at_distance[abs(cells[id(obj)][axis] - (column, row)[axis])].append(obj)
    first = at_distance[1] or at_distance[2]
    return first[0].colour if len(first) == 1 else None


@cache
def pairs_of(split, count=2500):
    """The first pairs of a split, drawn once for all tests."""
    first = SPLITS[split]
    return [draw_pair(number) for number in range(first, first + count)]


def of_kind(pairs, *kinds):
    return [pair for pair in pairs if pair.question.kind in kinds]


def attributes_of(scene):
    """The sizes, colours and nouns of its objects, in no order."""
    return Counter(obj.attributes for obj in scene.objects)


def values_of(scene):
    """The sizes that occur, the colours and the nouns, each in no order."""
    return [Counter(values) for values in zip(*(obj.attributes for obj in scene.objects))]


# -------------------------------------------------------------------------------------------------
# Truth.


@pytest.mark.parametrize("split", SPLITS)
def test_answers_of_a_pair_are_true_and_differ(split):
    kinds = Counter()
    for question, scenes, answers in pairs_of(split):
        sentence = write_question(question)
        assert answers == tuple(judge_answer(sentence, scene.objects) for scene in scenes), sentence
        assert answers[0] != answers[1] and None not in answers
        assert all(1 <= len(scene.objects) <= 3 for scene in scenes)
        kinds[question.kind] += 1
    assert kinds.keys() == set(KINDS)
    expected = 2500 / len(KINDS)
    assert max(abs(count - expected) for count in kinds.values()) < 4 * expected**0.5


def random_description(draw, scene, used):
    """What a random object has, mostly of the scene, of the attributes in `used`."""
    attributes = [draw.choice(list(values)) for values in (SIZES, COLOURS, NOUNS)]
    if draw.random() < 0.8:
        attributes = draw.choice(scene.objects).attributes
    return Description(*[value if use else None for value, use in zip(attributes, used)])


def random_question(draw, scene):
    """Any question about a scene, also one whose premise is false."""
    kind = draw.choice(KINDS)
    used = draw.choice([(0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 1), (0, 1, 0), (1, 1, 0)])
    subject = random_description(draw, scene, used)
    if kind == "two-step":
        return Question(kind, subject, relation=draw.choice(list(SIDES)))
    if kind != "compare":
        return Question(kind, subject)
    other = random_description(draw, scene, used)
    return Question(kind, subject, other, draw.choice(["more", "same colour", *SIDES]))


def test_true_answers_agree_with_a_judge_that_reads_the_sentence():
    draw = random.Random(5)
    answers = defaultdict(Counter)
    for number in range(2003):
        scene = Scene(number)
        question = random_question(draw, scene)
        answer = judge_answer(write_question(question), scene.objects)
        assert true_answer(question, scene) == answer, (number, question)
        answers[question.kind, question.relation][answer] += 1
    for (kind, relation), counts in answers.items():
        assert len(counts) > 1, kind
        can_be_false = kind not in ("count", "exists") and relation != "more"
        assert (counts[None] > 0) == can_be_false


def scene_of(*attributes):
    return Scene.compose(random.Random(3), attributes)


def test_a_false_premise_has_no_answer():
    cat = Description(noun="cat")
    star = Description(noun="star")
    one_star = scene_of(("big", "red", "star"), ("big", "blue", "moon"))
    two_cats = scene_of(("big", "red", "cat"), ("small", "blue", "cat"), ("big", "red", "star"))
    for scene in (one_star, two_cats):
        for kind in ("colour", "noun", "where"):
            assert true_answer(Question(kind, cat), scene) is None
            assert true_answer(Question(kind, star), scene) is not None
        for relation in ("same colour", *SIDES):
            assert true_answer(Question("compare", cat, star, relation), scene) is None
            assert true_answer(Question("compare", star, cat, relation), scene) is None
        for side in SIDES:
            assert true_answer(Question("two-step", cat, None, side), scene) is None


def placed(*places):
    """A scene with a red star, a blue moon and a green sun in these columns and rows."""
    scene = Scene(0)
    names = [("star", "red"), ("moon", "blue"), ("sun", "green")]
    objects = []
    for (noun, colour), (column, row) in zip(names, places):
        x, y = (2 * column + 1) / 6, (2 * row + 1) / 6
        objects.append(Object(noun, colour, "small", column, row, x, y))
    scene.objects = tuple(objects)
    return scene


@pytest.mark.parametrize("places, answers", [
    ([(2, 0), (1, 1), (0, 2)], {"left": "blue", "right": None, "above": None, "below": "blue"}),
    ([(0, 2), (2, 1), (1, 0)], {"left": None, "right": "green", "above": "blue", "below": None}),
    ([(1, 1), (0, 2), (2, 0)], {"left": "blue", "right": "green", "above": "green", "below": "blue"}),
    ([(2, 2), (0, 1), (1, 1)], {"left": "green", "right": None, "above": None, "below": None}),
    ([(0, 0), (2, 2), (2, 1)], {"left": None, "right": None, "above": None, "below": "green"}),
    ([(1, 1)], {"left": None, "right": None, "above": None, "below": None}),
], ids=str)  # fmt: skip
def test_the_first_object_at_a_side_is_the_only_nearest_one(places, answers):
    scene = placed(*places)
    star = Description(noun="star")
    assert answers == {
        side: true_answer(Question("two-step", star, None, side), scene) for side in SIDES
    }


def test_numbers_and_existence_of_absent_objects():
    scene = scene_of(("big", "red", "star"), ("small", "red", "star"))
    cat = Description(noun="cat")
    big = Description(size="big")
    red_star = Description(colour="red", noun="star")
    assert true_answer(Question("count", cat), scene) == "0"
    assert true_answer(Question("count", big), scene) == "1"
    assert true_answer(Question("count", red_star), scene) == "2"
    assert true_answer(Question("exists", cat), scene) == "no"
    assert true_answer(Question("exists", red_star), scene) == "yes"
    assert true_answer(Question("compare", red_star, cat, "more"), scene) == "yes"
    assert true_answer(Question("compare", cat, red_star, "more"), scene) == "no"
    assert true_answer(Question("compare", red_star, red_star, "more"), scene) == "no"


# -------------------------------------------------------------------------------------------------
# Balance.


def sentences(split, count):
    """Questions, answers and kinds of the first pairs, an example for each picture."""
    questions, answers, kinds = [], [], []
    for pair in pairs_of(split, count):
        questions += [write_question(pair.question)] * 2
        answers += pair.answers
        kinds += [pair.question.kind] * 2
    return questions, answers, kinds


def test_questions_alone_are_answered_by_chance_only():
    questions, answers, _ = sentences("train", 10_007)
    table = answer_table(questions, answers)
    right = defaultdict(list)
    for question, answer, kind in zip(*sentences("validation", 5003)):
        right[kind].append(table.get(question, table[""]) == answer)
    accuracy = {kind: sum(hits) / len(hits) for kind, hits in right.items()}
    chance = {"colour": 1 / 7, "noun": 1 / 28, "where": 1 / 9, "count": 1 / 4, "two-step": 1 / 8}
    for kind, fraction in chance.items():
        assert accuracy[kind] <= fraction + 0.02, kind
    assert accuracy["exists"] == accuracy["compare"] == 0.5  # one answer of each pair


def within_three_deviations(count, total):
    """Whether heads came up `count` times in `total` throws of a fair coin."""
    return abs(count - total / 2) <= 1.5 * total**0.5


@pytest.mark.parametrize("split", SPLITS)
def test_either_picture_of_a_pair_comes_first_equally_often(split):
    pairs = [pair for pair in pairs_of(split) if "yes" in pair.answers]
    for kind in ("exists", "compare"):
        first = [pair.answers[0] for pair in of_kind(pairs, kind)]
        assert within_three_deviations(first.count("yes"), len(first))


def test_either_picture_shows_the_held_out_pair_equally_often():
    """In a question for the colour only one does: the other shows the noun in a seen colour."""
    pairs = of_kind(pairs_of("compositional_test"), "colour", "noun")
    first = 0
    for _, scenes, _ in pairs:
        shown = [any(map(is_held_out, scene.objects)) for scene in scenes]
        assert sorted(shown) == [False, True]
        first += shown[0]
    assert within_three_deviations(first, len(pairs))


def test_all_answers_of_a_kind_are_equally_frequent():
    counts = defaultdict(Counter)
    for split in SPLITS:
        if split != "compositional_test":
            for pair in pairs_of(split):
                counts[pair.question.kind].update(pair.answers)
    numbers = {"colour": 8, "noun": 32, "where": 9, "count": 4, "exists": 2, "compare": 2, "two-step": 8}  # fmt: skip
    for kind, number in numbers.items():
        mean = counts[kind].total() / number
        assert len(counts[kind]) == number
        assert max(abs(count - mean) for count in counts[kind].values()) < 4 * mean**0.5, kind


def test_pairs_about_places_show_the_same_objects():
    pairs = of_kind(pairs_of("train"), "where", "two-step", "compare")
    pairs = [pair for pair in pairs if pair.question.relation not in ("more", "same colour")]
    assert len(pairs) > 700
    for _, (one, other), _ in pairs:
        assert attributes_of(one) == attributes_of(other)


@pytest.mark.parametrize("kind", ["colour", "noun", "exists"])
def test_pairs_about_attributes_differ_in_one_or_exchange_it(kind):
    """A third of those with several objects show the same values, on other objects."""
    counts = Counter()
    pairs = [pair for split in SPLITS for pair in of_kind(pairs_of(split), kind)]
    for _, (one, other), _ in pairs:
        assert len(one.objects) == len(other.objects)
        changed = attributes_of(one) - attributes_of(other)
        is_exchanged = values_of(one) == values_of(other)
        assert changed.total() == (2 if is_exchanged else 1)
        if len(one.objects) > 1:
            counts[is_exchanged] += 1
        assert sum(a != b for a, b in zip(values_of(one), values_of(other))) == (not is_exchanged)
    assert 0.3 < counts[True] / counts.total() < 0.42, counts


def test_a_no_is_a_near_miss():
    """The picture shows an object that differs from the description in one attribute only."""
    changed = Counter()
    for question, scenes, answers in of_kind(pairs_of("train"), "exists"):
        scene = scenes[answers.index("no")]
        said = [i for i in range(3) if question.subject[i]]
        wrong = []
        for obj in scene.objects:
            wrong.append([i for i in said if obj.attributes[i] != question.subject[i]])
        assert min(map(len, wrong)) == 1
        changed.update(min(wrong, key=len))
    assert min(changed[i] for i in range(3)) > 30


# -------------------------------------------------------------------------------------------------
# Splits.


def is_held_out(obj):
    return is_held_out_pair(obj.noun, obj.colour)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_held_out_pairs_are_in_no_other_split(split):
    for _, scenes, _ in pairs_of(split):
        assert not any(is_held_out(obj) for scene in scenes for obj in scene.objects)


def test_every_compositional_question_is_about_a_held_out_pair():
    for question, scenes, answers in pairs_of("compositional_test"):
        is_about_one = False
        for scene, answer in zip(scenes, answers):
            held_out = [obj for obj in scene.objects if is_held_out(obj)]
            assert len(held_out) <= 1
            for obj in held_out:
                described = [said and said.fits(obj.attributes) for said in question[1:3]]
                is_answer = question.kind == "two-step" and obj.colour == answer
                is_about_one |= any(described) or is_answer
        assert is_about_one, question


def test_pairs_are_the_same_in_another_process():
    code = """
        import hashlib
        from mmscratch.data.questions import draw_pair, write_question
        made = [(p.answers, write_question(p.question, "de"), [(s.objects, s.background) for s in p.scenes])
                for p in map(draw_pair, range(97))]
        print(hashlib.sha256(repr(made).encode()).hexdigest())
    """.replace("\n        ", "\n")
    env = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    made = []
    for question, scenes, answers in map(draw_pair, range(97)):
        shown = [(scene.objects, scene.background) for scene in scenes]
        made.append((answers, write_question(question, "de"), shown))
    assert run.stdout.strip() == hashlib.sha256(repr(made).encode()).hexdigest()


def test_drawing_pairs_does_not_touch_the_global_random_state():
    random.seed(5)
    state = random.getstate()
    draw_pair(3)
    assert random.getstate() == state


def test_a_negative_number_is_refused():
    with pytest.raises(ValueError, match="number must be 0 or more, not -1"):
        draw_pair(-1)


# -------------------------------------------------------------------------------------------------
# Words.


@cache
def programs():
    """Different questions: those of the pairs, and random ones."""
    draw = random.Random(7)
    found = [pair.question for split in SPLITS for pair in pairs_of(split)]
    found += [random_question(draw, Scene(number)) for number in range(503)]
    return sorted(set(found), key=str)


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_parse_back_to_their_programs(language):
    for question in programs():
        assert parse(write_question(question, language), language) == question
    sentences = {write_question(question, language) for question in programs()}
    assert len(sentences) == len(programs()) > 3000


@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_are_translated_one_to_one(language):
    answers = {answer for split in SPLITS for pair in pairs_of(split) for answer in pair.answers}
    assert len(answers) == 8 + 32 + 9 + 4 + 2
    assert len({write_answer(answer, language) for answer in answers}) == len(answers)
    if language == "en":
        assert all(write_answer(answer) == answer for answer in answers)


def phrase(text):
    """ "big red star" -> its description."""
    return parse_phrase(text, "en")


SPOKEN = [
    (Question("colour", phrase("big star")),
     "what colour is the big star?", "welche Farbe hat der große Stern?", "大星星是什么颜色的？"),
    (Question("colour", phrase("heart")),
     "what colour is the heart?", "welche Farbe hat das Herz?", "爱心是什么颜色的？"),
    (Question("noun", phrase("small red thing")),
     "what is the small red thing?", "was ist das kleine rote Ding?", "红色的小东西是什么？"),
    (Question("where", phrase("orange cat")),
     "where is the orange cat?", "wo ist die orangefarbene Katze?", "橙色的猫在哪里？"),
    (Question("count", phrase("big things")),
     "how many big things are there?", "wie viele große Dinge gibt es?", "图中有几个大东西？"),
    (Question("count", phrase("mouse")),
     "how many mice are there?", "wie viele Mäuse gibt es?", "图中有几只老鼠？"),
    (Question("count", phrase("pair of scissors")),
     "how many pairs of scissors are there?", "wie viele Scheren gibt es?", "图中有几把剪刀？"),
    (Question("exists", phrase("orange star")),
     "is there an orange star?", "gibt es einen orangefarbenen Stern?", "图中有一颗橙色的星星吗？"),
    (Question("exists", phrase("big orange sun")),
     "is there a big orange sun?", "gibt es eine große orangefarbene Sonne?", "图中有一个橙色的大太阳吗？"),
    (Question("exists", phrase("umbrella")),
     "is there an umbrella?", "gibt es einen Regenschirm?", "图中有一把雨伞吗？"),
    (Question("exists", phrase("red monkey")),
     "is there a red monkey?", "gibt es einen roten Affen?", "图中有一只红色的猴子吗？"),
    (Question("exists", phrase("small wheel")),
     "is there a small wheel?", "gibt es ein kleines Rad?", "图中有一个小轮子吗？"),
    (Question("compare", phrase("red things"), phrase("blue things"), "more"),
     "are there more red things than blue things?", "gibt es mehr rote Dinge als blaue Dinge?",
     "红色的东西比蓝色的东西多吗？"),
    (Question("compare", phrase("monkey"), phrase("heart"), "more"),
     "are there more monkeys than hearts?", "gibt es mehr Affen als Herzen?", "猴子比爱心多吗？"),
    (Question("compare", phrase("cup"), phrase("gear"), "same colour"),
     "are the cup and the gear the same colour?", "haben die Tasse und das Zahnrad die gleiche Farbe?",
     "杯子和齿轮的颜色一样吗？"),
    (Question("compare", phrase("cup"), phrase("monkey"), "left"),
     "is the cup left of the monkey?", "ist die Tasse links von dem Affen?", "杯子在猴子的左边吗？"),
    (Question("compare", phrase("monkey"), phrase("heart"), "right"),
     "is the monkey right of the heart?", "ist der Affe rechts von dem Herzen?", "猴子在爱心的右边吗？"),
    (Question("compare", phrase("king"), phrase("flag"), "above"),
     "is the king above the flag?", "ist der König über der Flagge?", "国王在旗子的上面吗？"),
    (Question("two-step", phrase("big star"), None, "left"),
     "what colour is the first thing left of the big star?",
     "welche Farbe hat das erste Ding links von dem großen Stern?", "大星星左边的第一个东西是什么颜色的？"),
    (Question("two-step", phrase("small green cow"), None, "below"),
     "what colour is the first thing below the small green cow?",
     "welche Farbe hat das erste Ding unter der kleinen grünen Kuh?", "绿色的小牛下面的第一个东西是什么颜色的？"),
]  # fmt: skip


@pytest.mark.parametrize(
    "question, english, german, chinese", SPOKEN, ids=[row[1] for row in SPOKEN]
)
def test_questions_in_three_languages(question, english, german, chinese):
    assert write_question(question) == english
    assert write_question(question, "de") == german
    assert write_question(question, "zh") == chinese


@pytest.mark.parametrize(
    "english, german, chinese",
    [
        ("orange", "orangefarben", "橙色"),
        ("white", "weiß", "白色"),
        ("pair of scissors", "Schere", "剪刀"),
        ("monkey", "Affe", "猴子"),
        ("on the left", "links in der Mitte", "左侧"),
        ("in the bottom right corner", "unten rechts", "右下角"),
        ("3", "3", "3"),
        ("yes", "ja", "是"),
        ("no", "nein", "否"),
    ],
)
def test_answers_in_three_languages(english, german, chinese):
    assert [write_answer(english, language) for language in LANGUAGES] == [english, german, chinese]


@pytest.mark.parametrize("language", ["fr", "EN", ""])
def test_other_languages_are_refused(language):
    question = Question("colour", Description(noun="cat"))
    for write in (lambda: write_question(question, language), lambda: write_answer("no", language)):
        with pytest.raises(ValueError, match=f"no .* in {language!r}: choose one of en, de, zh"):
            write()
