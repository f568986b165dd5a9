"""What `inspect` reports about each word, compared with the functions that decode."""

import pytest
import torch
from helpers import tiny_config
from torch.testing import assert_close

from mmscratch.decoding import attention_maps, generate, greedy_search
from mmscratch.finetuning import add_prompt
from mmscratch.inspection import inspect
from mmscratch.model import ModelConfig, build_model
from mmscratch.text import Vocabulary

WORDS = "a b c d e f g".split()
VOCABULARY = Vocabulary(WORDS)
IMAGE = {"name": "resnet", "image_size": 32, "depth": (1,), "width": 5, "num_layers": 0}
SOURCE = {"name": "lstm", "hidden_size": 6, "vocab_size": len(VOCABULARY)}
DECODERS = {
    "lstm": {"name": "lstm", "hidden_size": 13},
    "transformer": {"name": "transformer", "num_heads": 2, "num_layers": 2},
    "transformer prefix": {
        "name": "transformer",
        "num_heads": 2,
        "num_layers": 2,
        "fusion": "prefix",
    },
}


def make_model(decoder, encoders):
    torch.manual_seed(0)
    config = ModelConfig(len(VOCABULARY), encoders, DECODERS[decoder], 12)
    model = build_model(config).eval()
    for parameter in model.parameters():  # sharp enough that words differ
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def picture():
    return torch.randint(256, (3, 32, 32), dtype=torch.uint8)


@pytest.mark.parametrize("decoder", DECODERS)
def test_probabilities_are_those_of_greedy_search(decoder):
    model = make_model(decoder, {"image": IMAGE})
    example = {"image": picture()}
    (words,) = generate(model, {"target": VOCABULARY}, [example], max_length=6)
    found = inspect(model, {"target": VOCABULARY}, example, words)
    assert [word.text for word in found] == words

    memory = model.encode({"image": example["image"].unsqueeze(0)})
    (hypothesis,) = greedy_search(model.decoder, memory, max_length=6)
    total = sum(torch.tensor(word.probability).log() for word in found)
    if len(hypothesis.tokens) < 6:  # <eos> is in its log-probability
        assert float(total) >= hypothesis.log_prob
    else:
        assert float(total) == pytest.approx(hypothesis.log_prob, abs=1e-4)
    for word in found:  # greedy search takes the best, so the other is the second
        assert word.runner_up != word.text
        assert 0 < word.runner_up_probability <= word.probability < 1


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_runner_up_of_a_word_that_was_not_the_best_is_the_best(decoder):
    model = make_model(decoder, {"image": IMAGE})
    found = inspect(model, {"target": VOCABULARY}, {"image": picture()}, WORDS)
    assert any(word.runner_up_probability > word.probability for word in found)
    for word in found:
        assert word.runner_up in [*WORDS, "<eos>"] and word.runner_up != word.text


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("prompt", [0, 3])
def test_attention_is_divided_among_the_modalities(decoder, prompt):
    model = make_model(decoder, {"image": IMAGE, "source": SOURCE})
    vocabularies = {"target": VOCABULARY, "source": VOCABULARY}
    image = picture()
    if prompt:
        add_prompt(model, prompt)
    found = inspect(model, vocabularies, {"image": image, "source": WORDS[:4]}, WORDS[:3])
    for word in found:
        assert {name: len(weights) for name, weights in word.attention.items()} == {
            "image": 64,
            "source": 5,  # with <eos>
        }
        total = sum(float(weights.sum()) for weights in word.attention.values())
        assert total < 0.999 if prompt else total == pytest.approx(1, abs=1e-5)
    found = inspect(model, vocabularies, {"image": image}, WORDS[:3])
    if not prompt:
        maps = attention_maps(model, vocabularies, image, WORDS[:3])
        for word, expected in zip(found, maps):
            assert_close(word.attention["image"], expected.flatten())


def test_a_decoder_that_looks_once_has_no_attention():
    config = tiny_config(len(VOCABULARY), IMAGE, {"name": "lstm", "hidden_size": 13})
    config.decoder["fusion"] = "prefix"
    model = build_model(config).eval()
    found = inspect(model, {"target": VOCABULARY}, {"image": picture()}, WORDS)
    assert [word.text for word in found] == WORDS
    assert all(word.attention == {} for word in found)
