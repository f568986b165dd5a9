"""Greedy decoding against a slow loop over the whole prefix, what it asks of a decoder, and sentences made of it."""

import pytest
import torch
from torch import nn

from mmscratch.attention import Memory
from mmscratch.decoding import attention_maps, greedy_search, write, write_captions
from mmscratch.recurrent import LSTMDecoder
from mmscratch.text import BOS, EOS, PAD, UNK, Vocabulary
from mmscratch.transformer import TransformerDecoder

B, N, D, H, V, LONGEST = 5, 7, 22, 13, 29, 17
KINDS = {
    "lstm prefix": lambda layers: LSTMDecoder(V, D, H, layers, "prefix"),
    "lstm dot": lambda layers: LSTMDecoder(V, D, H, layers, "cross_attention"),
    "lstm additive": lambda layers: LSTMDecoder(V, D, H, layers, "cross_attention", score="additive"),
    "transformer prefix": lambda layers: TransformerDecoder(V, D, 2, layers, LONGEST, "prefix"),
    "transformer cross": lambda layers: TransformerDecoder(V, D, 2, layers, LONGEST, "cross_attention"),
}
DECODERS = [(kind, layers) for kind in KINDS for layers in (1, 2)]


def bias(decoder):
    """What is added to each word's logit, (V,), to write into."""
    if isinstance(decoder, LSTMDecoder):
        return decoder.bias
    decoder.norm.weight[0], decoder.norm.bias[0] = 0.0, 1.0  # so the first number of each word's embedding is its bias
    return decoder.embedding.words.weight[:, 0]


def make_decoder(kind, num_layers, seed=0):
    """A random decoder whose sentences end now and then, and that would like to write the specials."""
    torch.manual_seed(seed)
    decoder = KINDS[kind](num_layers).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(2)
        bias(decoder)[[PAD, BOS, UNK]] = 3.0
        bias(decoder)[EOS] = 1.5
    return decoder


def make_memory(batch_size=B, seed=1):
    """Memories of different lengths, with numbers behind their ends that nobody should see."""
    generator = torch.Generator().manual_seed(seed)
    lengths = 1 + torch.arange(batch_size) * 3 % N
    return Memory(torch.randn(batch_size, N, D, generator=generator), torch.arange(N) < lengths.unsqueeze(1))


def row(memory, i, trimmed=False):
    shown = memory.mask[i] if trimmed else slice(None)
    return Memory(memory.tokens[i : i + 1, shown], memory.mask[i : i + 1, shown])


class Counted:
    """A decoder's start and step, with the number of steps."""

    def __init__(self, decoder):
        self.start, self.decoder, self.steps = decoder.start, decoder, 0

    def step(self, token, state):
        self.steps += 1
        return self.decoder.step(token, state)


class Recited:
    """Not even a module: it writes one given sentence for each row, whatever it is told. Its state is a count."""

    def __init__(self, sentences):
        self.sentences, self.heard = sentences, []

    def start(self, memory):
        return 0

    def step(self, token, state):
        self.heard.append(token.tolist())
        logits = torch.zeros(len(self.sentences), V)
        for i, sentence in enumerate(self.sentences):
            logits[i, sentence[min(state, len(sentence) - 1)]] = 9.0
        return logits, state + 1


@torch.no_grad()
def greedy_by_hand(decoder, memory, max_length):
    """One sentence: the whole prefix anew for each word."""
    prefix = [BOS]
    for _ in range(max_length):
        logits = decoder(torch.tensor([prefix]), memory)[0, -1]
        allowed = [word for word in range(V) if word not in (PAD, BOS, UNK)]
        word = max(allowed, key=lambda i: logits[i].item())
        if word == EOS:
            break
        prefix.append(word)
    return prefix[1:]


@pytest.mark.parametrize("kind, num_layers", DECODERS)
def test_greedy_search_is_the_slow_loop(kind, num_layers):
    lengths = set()
    for seed in range(7):
        decoder, memory = make_decoder(kind, num_layers, seed), make_memory(seed=seed)
        found = greedy_search(decoder, memory, LONGEST)
        assert [h.tokens for h in found] == [greedy_by_hand(decoder, row(memory, i), LONGEST) for i in range(B)]
        lengths |= {len(h.tokens) for h in found}
    assert len(lengths) > 3 and min(lengths) < LONGEST  # sentences of many lengths were compared


@pytest.mark.parametrize("kind, num_layers", DECODERS)
def test_a_sentence_does_not_depend_on_its_batch(kind, num_layers):
    for seed in range(7):
        decoder, memory = make_decoder(kind, num_layers, seed), make_memory(seed=seed)
        together = greedy_search(decoder, memory, LONGEST)
        for i in range(B):
            for alone in (row(memory, i), row(memory, i, trimmed=True)):
                (hypothesis,) = greedy_search(decoder, alone, LONGEST)
                assert hypothesis.tokens == together[i].tokens
                assert hypothesis.log_prob == pytest.approx(together[i].log_prob, abs=1e-4)


@pytest.mark.parametrize("kind, num_layers", DECODERS)
def test_log_prob_is_that_of_the_sentence_under_teacher_forcing(kind, num_layers):
    ended = set()
    for seed in range(7):
        decoder, memory = make_decoder(kind, num_layers, seed), make_memory(seed=seed)
        for i, hypothesis in enumerate(greedy_search(decoder, memory, LONGEST)):
            target = [*hypothesis.tokens, EOS][:LONGEST]  # without <eos> where it was cut
            logits = decoder(torch.tensor([[BOS, *target[:-1]]]), row(memory, i))[0]  # (T, V)
            log_prob = logits.log_softmax(-1).gather(1, torch.tensor(target).unsqueeze(1)).sum()
            assert hypothesis.log_prob == pytest.approx(log_prob.item(), abs=1e-4)
            ended.add(len(hypothesis.tokens) < LONGEST)
    assert True in ended


@pytest.mark.parametrize("kind", KINDS)
def test_the_specials_are_never_written(kind):
    decoder = make_decoder(kind, 1)
    with torch.no_grad():
        bias(decoder)[[PAD, BOS, UNK]] = 50.0
        bias(decoder)[EOS] = 0.0
    for hypothesis in greedy_search(decoder, make_memory(19), LONGEST):
        assert not {PAD, BOS, EOS, UNK} & set(hypothesis.tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_max_length_cuts(kind):
    decoder, memory = make_decoder(kind, 1), make_memory()
    with torch.no_grad():
        bias(decoder)[EOS] = -50.0
    longer = greedy_search(decoder, memory, LONGEST)
    for max_length in (1, 3):
        shorter = greedy_search(decoder, memory, max_length)
        assert [h.tokens for h in shorter] == [h.tokens[:max_length] for h in longer]
        assert all(len(h.tokens) == max_length for h in shorter)
        assert all(one.log_prob > other.log_prob for one, other in zip(shorter, longer))
    assert all(len(h.tokens) == LONGEST for h in longer)


def test_it_stops_when_all_have_ended():
    stopped_early = 0
    for seed in range(7):
        decoder, memory = Counted(make_decoder("lstm prefix", 1, seed)), make_memory(seed=seed)
        lengths = [len(h.tokens) for h in greedy_search(decoder, memory, LONGEST)]
        assert decoder.steps == min(max(lengths) + 1, LONGEST)
        stopped_early += decoder.steps < LONGEST
    assert stopped_early > 0


def test_it_needs_only_start_and_step():
    decoder = Recited([[4, 5, EOS], [EOS, 4, 4], [6, 6, 7, 8, EOS], [9, EOS, 5]])
    found = greedy_search(decoder, make_memory(4), LONGEST)
    assert [h.tokens for h in found] == [[4, 5], [], [6, 6, 7, 8], [9]]
    assert decoder.heard == [[BOS] * 4, [4, EOS, 6, 9], [5, EOS, 6, EOS], [EOS, EOS, 7, EOS], [EOS, EOS, 8, EOS]]
    word = torch.tensor([9.0] + [0.0] * (V - 1)).log_softmax(-1)[0].item()
    assert [h.log_prob for h in found] == pytest.approx([3 * word, word, 5 * word, 2 * word], abs=1e-5)


def test_an_empty_sentence_and_one_that_just_fits():
    found = greedy_search(Recited([[EOS], [4, 5, EOS], [4, 5, 6, EOS]]), make_memory(3), max_length=3)
    assert [h.tokens for h in found] == [[], [4, 5], [4, 5, 6]]


def test_half_precision_logits_are_added_up_in_full():
    class Half(Recited):
        def step(self, token, state):
            logits, state = super().step(token, state)
            return logits.bfloat16(), state

    sentences = [[4, 5, 6, 7, EOS], [8, 9, EOS]]
    full, half = (greedy_search(kind(sentences), make_memory(2), LONGEST) for kind in (Recited, Half))
    assert [h.log_prob for h in half] == pytest.approx([h.log_prob for h in full], abs=1e-6)


@pytest.mark.parametrize("kind, num_layers", DECODERS)
def test_nothing_to_learn_from_is_kept_and_nothing_is_changed(kind, num_layers):
    decoder, memory = make_decoder(kind, num_layers), make_memory()
    before = memory.tokens.clone()
    first, second = greedy_search(decoder, memory, LONGEST), greedy_search(decoder, memory, LONGEST)
    assert first == second and torch.equal(memory.tokens, before)
    assert isinstance(first[0].log_prob, float) and all(type(word) is int for h in first for word in h.tokens)


@pytest.mark.parametrize("max_length", [0, -1])
def test_no_words_at_all_are_refused(max_length):
    with pytest.raises(ValueError, match="max_length"):
        greedy_search(make_decoder("lstm prefix", 1), make_memory(), max_length)


WORDS = Vocabulary([f"word{i}" for i in range(4, V)])


@pytest.mark.parametrize("kind", KINDS)
def test_write_is_greedy_search_sentence_by_sentence(kind):
    lengths = set()
    for seed in range(7):
        decoder, memory = make_decoder(kind, 1, seed), make_memory(seed=seed)
        found = [greedy_search(decoder, row(memory, i), LONGEST)[0] for i in range(B)]
        expected = [[f"word{word}" for word in hypothesis.tokens] for hypothesis in found]
        lengths |= {len(sentence) for sentence in expected}
        for sizes in ([B], [1] * B, [2, 3], [4, 1]):
            memories = [Memory(*parts) for parts in zip(memory.tokens.split(sizes), memory.mask.split(sizes))]
            assert write(decoder, WORDS, memories, LONGEST) == expected
            shorter = write(decoder, WORDS, iter(memories), max_length=3)
            assert shorter == [sentence[:3] for sentence in expected]
    assert len(lengths) > 3 and write(decoder, WORDS, []) == []


def test_each_memory_is_made_when_its_turn_comes_and_without_gradients():
    decoder, events = make_decoder("lstm prefix", 1), []

    class Listening(Counted):
        def step(self, token, state):
            events.append("step")
            return super().step(token, state)

    def memories():
        for size in (2, 1):
            events.append(f"memory, with gradients: {torch.is_grad_enabled()}")
            yield make_memory(size)

    assert len(write(Listening(decoder), WORDS, memories(), max_length=1)) == 3
    assert events == ["memory, with gradients: False", "step"] * 2 and torch.is_grad_enabled()


class TinyModel(nn.Module):
    """Each colour channel's mean, spread over a memory of one place."""

    def __init__(self):
        super().__init__()
        self.decoder = make_decoder("lstm dot", 1)
        self.batch_sizes = []

    def encode(self, batch):
        assert not torch.is_grad_enabled() and not self.training
        image = batch["image"].float()
        self.batch_sizes.append(len(image))
        tokens = image.mean((2, 3)).repeat(1, 8)[:, None, :D] / 50  # (B, 1, D)
        return Memory(tokens, torch.ones(len(image), 1, dtype=torch.bool))


def test_write_captions_is_greedy_search_in_batches():
    pictures = torch.randint(0, 256, (7, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    model = TinyModel().train()
    written = write_captions(model, WORDS, iter(pictures), batch_size=3, max_length=LONGEST)
    assert not model.training and model.batch_sizes == [3, 3, 1]
    with torch.no_grad():
        found = greedy_search(model.decoder, model.encode({"image": pictures}), LONGEST)
    assert written == [[f"word{word}" for word in h.tokens] for h in found]
    assert write_captions(model, WORDS, []) == []


class Looked(nn.Linear):
    """A model that looks where it is told to, and keeps what it was asked."""

    def forward(self, batch, need_weights):
        self.batch = batch
        return None, self.weights


@pytest.mark.parametrize("rows", [1, 3, 5])
def test_attention_maps_are_of_the_last_layer_and_of_the_places_row_by_row(rows):
    torch.manual_seed(4)
    vocabulary, words, picture = Vocabulary(["red", "star"]), ["star", "blue", "red"], torch.zeros(3, 7, 7)
    model = Looked(1, 1)
    model.weights = torch.rand(1, 2, 3, 4, rows * rows)  # (B, layers, H, T + 1, N), as a prefix: not all of the attention
    maps = attention_maps(model, vocabulary, picture, words)
    assert maps.shape == (3, rows, rows) and not model.training
    assert model.batch["target"].tolist() == [[5, UNK, 4, EOS]] and model.batch["image"].shape == (1, 3, 7, 7)
    for t in range(3):
        mean = sum(model.weights[0, 1, h, t] for h in range(3))
        for n in range(rows * rows):
            assert maps[t, n // rows, n % rows].item() == pytest.approx((mean[n] / mean.sum()).item(), abs=1e-6)
