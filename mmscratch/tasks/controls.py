"""The accuracy of answers to questions, and its controls: how far does one get without looking?"""

import copy
from collections import Counter
from collections.abc import Callable, Sequence

from torch import nn

from ..data.answers import QuestionData
from ..data.dataset import LazyColumn, Subset, words_of
from ..decoding import candidate_log_probs
from ..metrics import (
    answer_coverage,
    answer_table,
    normalize_answer,
    pair_accuracy,
    shuffle_within,
    vqa_accuracy,
)
from ..text import detokenize
from .scores import mean_percentage

MAX_ANSWERS = 3000  # the most frequent training answers, among which a closed set is chosen


def print_accuracy(answers: Sequence[str], data: QuestionData) -> None:
    """Print the accuracy of answers: of all, of balanced pairs, and by kind of question."""
    scores = vqa_accuracy(answers, answers_of(data)).scores
    print(f"  accuracy             {mean_percentage(scores, data.pairs)}")
    if data.pairs:
        pairs = pair_accuracy(scores, data.pairs).scores
        print(f"  both of a pair       {mean_percentage(pairs)}; {len(pairs):,} pairs")
    for kind in sorted(set(data.kinds)):
        indices = [i for i, other in enumerate(data.kinds) if other == kind]
        kind_scores = [scores[i] for i in indices]
        kind_pairs = [data.pairs[i] for i in indices] if data.pairs else []
        accuracy = mean_percentage(kind_scores, kind_pairs)
        print(f"    {kind:18} {accuracy}; {len(indices):,} questions")


def frequent_answers(training: QuestionData) -> list[str]:
    """The distinct training answers, most frequent first."""
    counts = Counter(answer for answers in answers_of(training) for answer in answers)
    return [answer for answer, _ in counts.most_common(MAX_ANSWERS)]


def closed_answers(
    model: nn.Module, vocabularies: dict, data: QuestionData, candidates: list[str]
) -> list[str]:
    """The most probable of the candidates for each question."""
    tokens = [words_of(candidate) for candidate in candidates]
    best = candidate_log_probs(model, vocabularies, data, tokens).argmax(1)  # (N,)
    return [candidates[i] for i in best.tolist()]


def print_controls(
    answer: Callable[[QuestionData], list[str]], data: QuestionData, training: QuestionData
) -> None:
    """Print the accuracies of three guesses, and what the test examples share with training.

    answer    the model: a data set -> an answer for each question
    training  the training questions; their pictures are not needed
    """
    print("controls")
    guesses = guess_answers(training, data.questions)
    print_control("question alone", guesses, data, "its most frequent training answer")
    without_question = answer(data.without("source").without("sound"))
    print_control("picture alone", without_question, data, "the model without the question")
    exchanged = exchange_pictures(data)
    if len(exchanged):
        note = "the model with a picture about which the same question is asked"
        print_control("another picture", answer(exchanged), exchanged, note)
    known = [text for texts in training.texts for text in texts]
    coverage = 100 * answer_coverage(known, data.texts)
    shared = len(set(data.pictures) & set(training.pictures))
    pictures = f"{shared:,} of {len(set(data.pictures)):,} pictures"
    print(f"  also in training     {pictures}; an answer of {coverage:.1f} % of the questions")


def print_control(name: str, answers: list[str], data: QuestionData, note: str) -> None:
    """Print the accuracy of these answers."""
    scores = vqa_accuracy(answers, answers_of(data)).scores
    accuracy = mean_percentage(scores, data.pairs)
    print(f"  {name:20} {accuracy}; {len(answers):,} questions, {note}")


def answers_of(data: QuestionData) -> list[list[str]]:
    """The answers to each question in the spelling in which a model writes: in small letters."""
    return [[detokenize(words) for words in references] for references in data.references]


def guess_answers(training: QuestionData, questions: list[str]) -> list[str]:
    """Each question's most frequent training answer, or that of all questions if it is new."""
    asked = []
    given = []
    for question, texts in zip(training.questions, training.texts):
        for text in texts:
            asked.append(question)
            given.append(normalize_answer(text))
    table = answer_table(asked, given)
    return [table.get(question, table[""]) for question in questions]


def exchange_pictures(data: QuestionData) -> QuestionData:
    """The questions that are asked more than once, each with the picture of another of them."""
    order = shuffle_within([" ".join(words_of(question)) for question in data.questions])
    exchanged = copy.copy(data)
    pictures = LazyColumn(data.columns["image"].__getitem__, order)
    exchanged.columns = data.columns | {"image": pictures}
    chosen = [i for i, other in enumerate(order) if i != other]
    subset = Subset(exchanged, chosen)
    subset.pairs = [data.pairs[i] for i in chosen] if data.pairs else []
    return subset
