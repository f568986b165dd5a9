"""Training on the metric: its gradient by enumeration, its rewards, and that rewards rise."""

import itertools

import pytest
import torch
from helpers import LSTM, TRANSFORMER, tiny_config
from torch import nn
from torch.testing import assert_close

from mmscratch import self_critical
from mmscratch.attention import Memory
from mmscratch.decoding import Hypothesis, greedy_search, sample
from mmscratch.metrics import cider_d, document_frequencies, sentence_bleu
from mmscratch.model import DECODERS, build_model
from mmscratch.self_critical import (
    SelfCritical,
    bleu_reward,
    caption_log_probs,
    cider_reward,
    self_critical_loss,
)
from mmscratch.text import EOS, PAD, Vocabulary

A, B = 4, 5  # the two words
LONGEST = 3
DECODER_CONFIGS = {"lstm": LSTM, "transformer": TRANSFORMER}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def two_words(name):
    """A decoder that knows two words, and the memories of two pictures."""
    settings = DECODER_CONFIGS[name] | {"dropout": 0.0}
    del settings["name"]
    decoder = DECODERS[name](vocab_size=6, embed_dim=12, **settings).double().eval()
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.4)
    tokens = torch.randn(2, 3, 12, dtype=torch.float64)
    return decoder, Memory(tokens, torch.ones(2, 3, dtype=torch.bool))


def all_captions():
    """Every caption of at most LONGEST words, with <eos> unless it was cut: (15, LONGEST)."""
    rows = []
    for length in range(LONGEST + 1):
        for words in itertools.product((A, B), repeat=length):
            row = [*words, EOS][:LONGEST]
            rows.append(row + [PAD] * (LONGEST - len(row)))
    return torch.tensor(rows)


@pytest.mark.parametrize("name", DECODER_CONFIGS)
def test_the_probabilities_of_all_captions_sum_to_one(name):
    decoder, memory = two_words(name)
    captions = all_captions()
    for picture in range(2):
        one = Memory(memory.tokens[picture : picture + 1], memory.mask[picture : picture + 1])
        log_probs = caption_log_probs(decoder, one.repeat(len(captions)), captions)
        assert (log_probs[captions == PAD] == 0).all()
        assert_close(log_probs.sum(1).exp().sum().item(), 1.0)


@pytest.mark.parametrize("name", DECODER_CONFIGS)
def test_log_probs_are_those_of_the_search(name):
    decoder, memory = two_words(name)
    for hypotheses in (greedy_search(decoder, memory, 9), sample(decoder, memory, 9)):
        rows = [
            hypothesis.tokens + [EOS] * (len(hypothesis.tokens) < 9) for hypothesis in hypotheses
        ]
        captions = self_critical.pad_to_largest([torch.tensor(row) for row in rows])
        found = caption_log_probs(decoder, memory, captions).sum(1)
        # the search normalises over <pad>, <bos> and <unk> as well
        assert (found > torch.tensor([h.log_prob for h in hypotheses])).all()


@pytest.mark.parametrize("name", DECODER_CONFIGS)
@pytest.mark.parametrize("baseline", [0.0, 0.7], ids=["no baseline", "baseline"])
def test_the_expected_gradient_is_that_of_the_expected_reward(name, baseline):
    """Over all captions that two words can make, weighted by their probabilities."""
    decoder, memory = two_words(name)
    captions = all_captions()
    rewards = torch.randn(2, len(captions), dtype=torch.float64)
    for parameter in decoder.parameters():
        parameter.requires_grad_()
    expected_reward = 0.0
    estimate = 0.0
    for picture in range(2):
        one = Memory(memory.tokens[picture : picture + 1], memory.mask[picture : picture + 1])
        log_probs = caption_log_probs(decoder, one.repeat(len(captions)), captions)
        probabilities = log_probs.sum(1).exp()
        expected_reward = expected_reward + (probabilities * rewards[picture]).sum()
        for i, probability in enumerate(probabilities.detach()):
            reward = rewards[picture, i : i + 1]
            loss = self_critical_loss(
                log_probs[i : i + 1], reward, torch.full_like(reward, baseline)
            )
            estimate = estimate + probability * loss
    parameters = list(decoder.parameters())
    settings = {"allow_unused": True, "materialize_grads": True}
    true = torch.autograd.grad(-expected_reward, parameters, retain_graph=True, **settings)
    found = torch.autograd.grad(estimate, parameters, **settings)
    assert max(gradient.abs().max() for gradient in true) > 0.01
    assert_close(found, true)


def test_no_gradient_goes_through_the_rewards():
    rewards = torch.randn(3, requires_grad=True)
    log_probs = torch.randn(3, 5, requires_grad=True)
    self_critical_loss(log_probs, rewards, rewards.flip(0)).backward()
    assert rewards.grad is None
    advantages = (rewards - rewards.flip(0)).detach()
    assert_close(log_probs.grad, -advantages.unsqueeze(1).expand(3, 5))


REFERENCES = [
    ["a red dog runs".split(), "the dog is red".split()],
    ["a blue cat sleeps on a mat".split(), "a cat".split(), "one blue cat".split()],
    ["a red dog sleeps".split()],
]
CAPTIONS = ["a red dog sleeps".split(), "a cat on a cat".split(), "dog".split(), []]
NUMBERS = [0, 1, 2, 1]


@pytest.mark.parametrize("documents", [None, 2])
def test_the_cider_reward_equals_cider_d(documents):
    frequencies = document_frequencies(REFERENCES[:documents])
    theirs = [REFERENCES[number] for number in NUMBERS]
    expected = cider_d(CAPTIONS, theirs, frequencies).scores
    assert cider_reward(REFERENCES, documents)(CAPTIONS, NUMBERS) == pytest.approx(expected)
    assert expected[0] > 0 and expected[1] > 0


def test_the_bleu_reward_equals_sentence_bleu():
    rewards = bleu_reward(REFERENCES)(CAPTIONS, NUMBERS)
    for reward, caption, number in zip(rewards, CAPTIONS, NUMBERS):
        assert reward == pytest.approx(sentence_bleu(caption, REFERENCES[number]).score / 100)


VOCABULARY = Vocabulary(["red", "blue", "dog"])  # 4, 5, 6


def captioner(decoder=LSTM):
    return build_model(tiny_config(len(VOCABULARY), decoder=decoder))


def pictures(count=6):
    """Pictures with numbers, of which people wrote "red dog" and "blue"."""
    target = torch.tensor([[[4, 6, EOS], [5, EOS, PAD]]]).repeat(count, 1, 1)
    images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8)
    return {"image": images, "number": torch.arange(count), "target": target}


def share_of_blue(captions, numbers):
    """Even pictures want "blue", odd ones anything else."""
    shares = [caption.count("blue") / max(1, len(caption)) for caption in captions]
    return [share if number % 2 == 0 else 1 - share for share, number in zip(shares, numbers)]


def test_the_loss_is_the_formula(monkeypatch):
    """With drawn captions that are known; the rewards are looked up by the pictures' numbers."""
    model = captioner()
    batch = pictures(2)
    greedy = [Hypothesis([4], 0.0, 0.0), Hypothesis([5, 5], 0.0, 0.0)]
    drawn = [Hypothesis([4, 5], 0.0, 0.0), Hypothesis([5] * 3, 0.0, 0.0)]
    monkeypatch.setattr(self_critical, "NUM_SAMPLES", 1)
    monkeypatch.setattr(self_critical, "MAX_LENGTH", 3)
    monkeypatch.setattr(self_critical, "greedy_search", lambda *_: greedy)
    monkeypatch.setattr(self_critical, "sample", lambda *_: drawn)
    model.objective = SelfCritical(share_of_blue, VOCABULARY)
    loss, count = model.train().loss(batch)
    assert model.training and count == 6  # the second one was cut: it has no <eos>
    model.objective = None
    model.eval()
    cross_entropy, words = model.loss(batch)
    captions = torch.tensor([[4, 5, EOS], [5, 5, 5]])
    log_probs = caption_log_probs(model.decoder, model.encode(batch), captions).sum(1)
    # "red blue" earns 1/2 and "red" 0; "blue blue blue" earns 0, as "blue blue" does
    expected = -0.5 * log_probs[0] + 0.1 * 6 * cross_entropy / words
    assert_close(loss, expected)


def test_in_eval_mode_the_loss_is_minus_the_greedy_reward():
    model = captioner().eval()
    batch = pictures()
    hypotheses = greedy_search(model.decoder, model.encode(batch), 40)
    captions = [VOCABULARY.decode(hypothesis.tokens) for hypothesis in hypotheses]
    model.objective = SelfCritical(share_of_blue, VOCABULARY)
    loss, count = model.loss(batch)
    assert count == 6 and not loss.requires_grad
    assert loss.item() == pytest.approx(-sum(share_of_blue(captions, range(6))))


@pytest.mark.parametrize("decoder", DECODER_CONFIGS.values(), ids=DECODER_CONFIGS)
def test_the_reward_rises(decoder):
    """What people wrote earns 1/2 at most on the average picture; after training, more is earned."""
    model = captioner(decoder)
    batch = pictures()
    model.objective = SelfCritical(share_of_blue, VOCABULARY)
    optimizer = torch.optim.Adam(model.parameters(), 0.005)
    for _ in range(100):
        model.train()
        loss, count = model.loss(batch)
        optimizer.zero_grad()
        (loss / count).backward()
        optimizer.step()
    loss, count = model.eval().loss(batch)
    assert -loss / count > 0.95


def test_dropout_is_off_and_batch_norm_keeps_its_statistics():
    model = captioner().train()
    model.objective = SelfCritical(share_of_blue, VOCABULARY)
    before = [buffer.clone() for buffer in model.buffers()]
    batch = pictures()
    losses = []
    for _ in range(2):
        torch.manual_seed(7)
        losses.append(model.loss(batch)[0].item())
    assert losses[0] == losses[1]
    assert all(torch.equal(old, new) for old, new in zip(before, model.buffers()))
