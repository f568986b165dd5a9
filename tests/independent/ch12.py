"""Chapter 12 written by others: see tests/test_proofs.py."""

# %% 12 answer_table
def most_frequent(answers):
    tally = {}
    for answer in answers:
        tally[answer] = tally.get(answer, 0) + 1
    return max(tally, key=lambda answer: tally[answer])


def answer_table(questions, answers):
    for argument in (questions, answers):
        if isinstance(argument, str):
            raise TypeError("a list of strings is needed, not a string")
    if len(questions) != len(answers):
        raise ValueError("as many answers as questions are needed")
    if not len(questions):
        raise ValueError("no examples")
    by_question = {}
    for question, answer in zip(questions, answers):
        by_question.setdefault(question, []).append(answer)
    table = {question: most_frequent(given) for question, given in by_question.items()}
    table[""] = most_frequent(answers)
    return table


# %% 12 normalize_answer
DIGITS = "0123456789"


def char_at(text, i):
    return text[i] if 0 <= i < len(text) else ""


def is_digit(character):
    return character != "" and character in DIGITS


def without_marks(text):
    in_number = False
    for i, character in enumerate(text):
        beside_digits = is_digit(char_at(text, i - 1)) and is_digit(char_at(text, i + 1))
        in_number = in_number or (character == "," and beside_digits)
    result = text
    for mark in _ANSWER_PUNCTUATION:
        beside_space = (mark + " ") in text or (" " + mark) in text
        result = result.replace(mark, "" if in_number or beside_space else " ")
    return result


def without_periods(text):
    kept = []
    deleted = 0
    for i, character in enumerate(text):
        if character == "." and deleted < 32 and not is_digit(char_at(text, i + 1)):
            deleted += 1
        else:
            kept.append(character)
    return "".join(kept)


def normalize_answer(answer):
    for white in "\n\t":
        answer = answer.replace(white, " ")
    answer = without_periods(without_marks(answer.strip()))
    words = [_NUMBER_WORDS.get(word, word) for word in answer.lower().split()]
    words = [word for word in words if word not in {"a", "an", "the"}]
    return " ".join(_CORRECTIONS[word] if word in _CORRECTIONS else word for word in words)


# %% 12 vqa_accuracy
from collections import Counter
from statistics import fmean


def stripped(answer):
    return answer.replace("\n", " ").replace("\t", " ").strip()


def check_arguments(predictions, answers):
    if isinstance(predictions, str) or isinstance(answers, str):
        raise TypeError("lists are needed, not a string")
    if len(predictions) != len(answers):
        raise ValueError("each prediction needs its answers")
    for given in answers:
        if isinstance(given, str):
            raise TypeError("the answers to a question must be a list")
        if not given:
            raise ValueError("a question without answers")


def _leave_one_out(prediction, answers):
    n = len(answers)
    agreeing = Counter(answers)[prediction]
    if n == 1:
        return float(agreeing)
    needed = min(3, n - 1)
    # `agreeing` people see one agreeing person less than all the others do
    by_agreeing = min(1.0, (agreeing - 1) / needed)
    by_others = min(1.0, agreeing / needed)
    return (agreeing * by_agreeing + (n - agreeing) * by_others) / n


def vqa_accuracy(predictions, answers):
    check_arguments(predictions, answers)
    scores = []
    for prediction, given in zip(predictions, answers):
        words = stripped(prediction)
        people = list(map(stripped, given))
        unanimous = len(people) >= 2 and all(one == people[0] for one in people)
        if not unanimous:
            words = normalize_answer(words)
            people = list(map(normalize_answer, people))
        scores.append(_leave_one_out(words, people))
    return MeanScore(fmean(scores) if scores else 0.0, scores)


# %% 12 pair_accuracy
def pair_accuracy(scores, pairs):
    if len(scores) != len(pairs):
        raise ValueError("a pair for each score, please")
    lowest, sizes = {}, {}
    for score, pair in zip(scores, pairs):
        sizes[pair] = sizes.get(pair, 0) + 1
        if pair not in lowest or score < lowest[pair]:
            lowest[pair] = score
    for pair, size in sizes.items():
        if size == 1:
            raise ValueError(f"only one example in pair {pair}")
    results = list(lowest.values())
    return MeanScore(sum(results) / len(results) if results else 0.0, results)


# %% 12 shuffle_within
import random


def derangement(items, generator):
    """A random order of the items in which none keeps its place: tried until one is found."""
    while True:
        order = list(items)
        generator.shuffle(order)
        if len(items) < 2 or not any(a == b for a, b in zip(items, order)):
            return order


def shuffle_within(groups, seed=0):
    generator = random.Random(seed)
    places = {}
    for i, group in enumerate(groups):
        places.setdefault(group, []).append(i)
    order = [None] * len(groups)
    for indices in places.values():
        for place, other in zip(indices, derangement(indices, generator)):
            order[place] = other
    return order


# %% 12 true_answer
from __future__ import annotations

YES = {True: "yes", False: "no"}


def position(obj, side):
    return (obj.column, obj.row)[SIDES[side][0]]


def _is_at_side(obj, other, side: str) -> bool:
    if side in ("left", "above"):
        return position(obj, side) < position(other, side)
    return position(obj, side) > position(other, side)


def _first_at_side(obj, scene, side):
    nearest, least = [], None
    for other in scene.objects:
        if not _is_at_side(other, obj, side):
            continue
        distance = abs(position(other, side) - position(obj, side))
        if least is None or distance < least:
            nearest, least = [other], distance
        elif distance == least:
            nearest.append(other)
    if len(nearest) == 1:
        return nearest[0]
    return None


def the_only(description, scene):
    fitting = _fitting(description, scene)
    return fitting[0] if len(fitting) == 1 else None


def true_answer(question, scene) -> str | None:
    number = len(_fitting(question.subject, scene))
    obj = the_only(question.subject, scene)
    match question.kind:
        case "count":
            return f"{number}"
        case "exists":
            return YES[number >= 1]
        case "compare" if question.relation == "more":
            return YES[number > len(_fitting(question.other, scene))]
        case _ if obj is None:
            return None
        case "colour":
            return obj.colour
        case "noun":
            return obj.noun
        case "where":
            return _PLACES["en"][3 * obj.row + obj.column]
        case "two-step":
            other = _first_at_side(obj, scene, question.relation)
            return None if other is None else other.colour
    other = the_only(question.other, scene)
    if other is None:
        return None
    if question.relation == "same colour":
        return YES[obj.colour == other.colour]
    return YES[_is_at_side(obj, other, question.relation)]


# %% 12 modulate
import torch


def modulate(x, scale, shift):
    scaled = torch.einsum("bchw,bc->bchw", x, scale)
    return scaled + shift.reshape(shift.shape + (1, 1))


# %% 12 FiLM.forward
import torch
from torch import nn


class FiLM(nn.Module):
    def __init__(self, embed_dim, channels):
        super().__init__()
        self.channels = tuple(channels)
        self.total = sum(self.channels)
        self.linear = nn.Linear(embed_dim, 2 * self.total, bias=False)
        with torch.no_grad():
            self.linear.weight.fill_(0.0)

    def forward(self, question):
        predicted = question @ self.linear.weight.T
        modulations = []
        first = 0
        for count in self.channels:
            gamma = 1.0 + predicted[:, first : first + count]
            beta = predicted[:, self.total + first : self.total + first + count]
            modulations.append((gamma, beta))
            first += count
        return modulations


# %% 12 candidate_log_probs
import torch


def _score_targets(decoder, memory, targets):
    B = memory.tokens.shape[0]
    device = memory.tokens.device
    columns = []
    for target in targets.tolist():
        state = decoder.start(memory)
        read = torch.full((B,), BOS, dtype=torch.long, device=device)
        log_prob = torch.zeros(B, device=device)
        for word in target:
            if word == PAD:
                break
            logits, state = decoder.step(read, state)
            log_prob = log_prob + torch.log_softmax(logits.float(), dim=1)[:, word]
            read = torch.full_like(read, word)
        columns.append(log_prob)
    return torch.stack(columns, dim=1)


@torch.no_grad()
def candidate_log_probs(model, vocabularies, examples, candidates):
    if len(candidates) == 0:
        raise ValueError("no candidates")
    model.eval()
    encoded = [encode_words(vocabularies["target"], words).tolist() for words in candidates]
    longest = max(map(len, encoded))
    targets = torch.tensor([ids + [PAD] * (longest - len(ids)) for ids in encoded])
    rows = []
    size = max(1, MAX_ROWS // len(candidates))
    for first in range(0, len(examples), size):
        some = [examples[i] for i in range(first, min(first + size, len(examples)))]
        batch = _batch(model, vocabularies, some)
        rows.append(_score_targets(model.decoder, model.encode(batch), targets).cpu())
    if not rows:
        return torch.empty(0, len(candidates))
    return torch.cat(rows)
