"""The mixture as a data source: shares, instructions, what is not there, and the same again."""

import pickle
import random

import pytest
import torch

from mmscratch.batches import BucketSampler, Examples, collate, make_loader
from mmscratch.data.captions import SceneCaptions
from mmscratch.data.mixture import INSTRUCTIONS, Mixture, instruct, wordings_of
from mmscratch.mixture import deal_tasks, mixing_rates
from mmscratch.tasks.parts import PARTS
from mmscratch.text import Vocabulary, tokenize

NAMES = ("captions-en", "captions-de", "questions", "spoken-questions", "speech-en", "prices")


def parts(count=7, names=NAMES):
    return {name: PARTS[name].read("train", count, 32) for name in names}


def mixture(order=None, wordings="seen", **options):
    data = parts(**options)
    return Mixture(data, order or list(data) * 7, wordings)


def test_an_example_has_what_its_part_has_and_an_instruction():
    data = mixture()
    expected = {
        "captions-en": {"image", "source"},
        "captions-de": {"image", "source"},
        "questions": {"image", "source"},
        "spoken-questions": {"image", "sound", "source"},
        "speech-en": {"sound", "source"},
        "prices": {"image", "row", "source"},
    }
    for i, name in enumerate(data.part_of):
        assert data[i].keys() == expected[name]
        assert data.name(i).startswith(f"{name}, ")
    assert data.count("sound") == 14 and data.count("row") == 7 and data.count("image") == 35


def test_an_example_is_that_of_its_part():
    data = mixture()
    for i, (name, index) in enumerate(zip(data.part_of, data.origin)):
        part = data.parts[name]
        assert data.texts[i] == part.texts[index] and data.references[i] == part.references[index]
        for modality in part.columns.keys() - {"source"}:
            torch.testing.assert_close(data[i][modality], part[index][modality], equal_nan=True)
        own = part.columns["source"][index] if "source" in part.columns else []
        choices = [instruct(wording, own) for wording in wordings_of(name).seen]
        assert data[i]["source"] in choices


def test_examples_come_in_order_then_again_shuffled():
    data = mixture(["captions-en"] * 23, names=("captions-en",))
    assert data.origin[:7] == list(range(7))
    for first in (7, 14):
        assert sorted(data.origin[first : first + 7]) == list(range(7))
    assert data.origin[7:14] != data.origin[14:21]


def test_unseen_wordings_are_never_seen_and_all_are_used():
    for name, wordings in INSTRUCTIONS.items():
        assert len(set(wordings.seen)) >= 3 and len(set(wordings.unseen)) >= 2, name
        assert not set(map(str.lower, wordings.seen)) & set(map(str.lower, wordings.unseen))
    seen = mixture(["speech-en"] * 60)
    unseen = mixture(["speech-en"] * 60, "unseen")
    for data, expected in ((seen, "seen"), (unseen, "unseen")):
        texts = {" ".join(words) for words in data.columns["source"]}
        known = getattr(INSTRUCTIONS["speech"], expected)
        assert texts == {" ".join(tokenize(text)) for text in known}


def test_wordings_of_one_language_do_not_name_another():
    for code, name in (("en", "english"), ("de", "german"), ("zh", "chinese")):
        for wording in (
            *INSTRUCTIONS[f"captions-{code}"].seen,
            *INSTRUCTIONS[f"captions-{code}"].unseen,
        ):
            assert [word for word in ("english", "german", "chinese") if word in wording] == [name]


def test_instructions_can_be_left_out_or_exchanged():
    names = ("captions-en", "captions-de", "questions", "prices")
    order = list(names) * 3
    without = mixture(order, "none", names=names)
    assert without.columns["source"][0] == ["?"]  # an encoder needs a word
    part = without.parts["questions"]
    assert without.columns["source"][2] == part.columns["source"][0]
    wrong = mixture(order, "wrong", names=names)
    german = [tokenize(text) for text in INSTRUCTIONS["captions-de"].seen]
    assert wrong.columns["source"][0] in german
    prices = [tokenize(text) for text in INSTRUCTIONS["prices"].seen]
    assert wrong.columns["source"][3] in prices  # nothing else has a row


def test_the_same_again_in_another_process_and_another_order_of_reading():
    first, second = mixture(), pickle.loads(pickle.dumps(mixture()))
    assert first.digest() == second.digest() != mixture(wordings="unseen").digest()
    indices = list(range(len(first)))
    random.Random(0).shuffle(indices)
    for i in indices:
        for modality, value in first[i].items():
            other = second[i][modality]
            if modality == "source":
                assert value == other
            else:
                torch.testing.assert_close(value, other, equal_nan=True, rtol=0, atol=0)


def examples(data):
    words = [words for references in data.references for words in references]
    vocabulary = Vocabulary.build(words + data.columns["source"])
    return Examples(data, {"target": vocabulary, "source": vocabulary})


@pytest.mark.parametrize("shares", [1, 2, 3])
def test_processes_share_the_same_batches_and_a_resumed_pass_goes_on(shares):
    data = examples(mixture())
    samplers = [
        BucketSampler(data.lengths, 8, 0, None, (rank, shares), shuffle=False)
        for rank in range(shares)
    ]
    batches = [[index for index, _ in batch] for batch in samplers[0]]
    for sampler in samplers[1:]:
        for batch, others in zip(batches, sampler):
            batch += [index for index, epoch in others if epoch is not None]
    assert [sorted(batch) for batch in batches] == [
        list(range(first, min(first + 8, len(data)))) for first in range(0, len(data), 8)
    ]
    samplers[0].start(0, skip=2)
    rest = [[index for index, _ in batch] for batch in samplers[0]]
    assert rest == [batch[: len(part)] for batch, part in zip(batches[2:], rest)]


def test_workers_load_what_the_main_process_would():
    data = examples(mixture(["questions", "speech-en", "prices"] * 2, count=2))
    sampler = BucketSampler(data.lengths, 3, bucket_batches=None, shuffle=False)
    for batch, other in zip(make_loader(data, sampler, 0), make_loader(data, sampler, 2)):
        assert batch.keys() == other.keys()
        for name in batch:
            torch.testing.assert_close(batch[name], other[name], equal_nan=True, rtol=0, atol=0)


def test_a_mixed_batch_says_who_has_what():
    data = examples(mixture(["questions", "speech-en", "prices"]))
    batch = collate([data[i] for i in range(3)])
    assert batch["has_image"].tolist() == [True, False, True]
    assert batch["has_sound"].tolist() == [False, True, False]
    assert batch["has_row"].tolist() == [False, False, True]
    assert "has_source" not in batch


def test_batches_of_one_task_each():
    rates = mixing_rates([3, 2, 1])
    order = deal_tasks(rates, 60, block=5)
    assert all(len(set(order[first : first + 5])) == 1 for first in range(0, 60, 5))
    assert [order.count(task) for task in range(3)] == [30, 20, 10]


def test_parts_are_numbered_for_their_weights():
    data = mixture(["prices", "questions", "prices"])
    data.number_parts(["questions", "prices"])
    assert [data[i]["part"].item() for i in range(3)] == [1, 0, 1]


def test_an_empty_part_and_an_unknown_instruction_are_refused_in_one_line():
    empty = SceneCaptions("train", 0)
    with pytest.raises(ValueError, match="captions-en has no examples to mix") as error:
        Mixture({"captions-en": empty}, ["captions-en"])
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="no instruction for 'poems': there are some for captions"):
        Mixture({"poems": SceneCaptions("train", 1)}, ["poems"])
