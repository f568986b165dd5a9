"""Greedy search, sampling and beam search against slow loops, exhaustive search and transformers;
what they need from a decoder; `generate`, attention maps, and answers chosen among candidates."""

import math
from collections import Counter
from functools import cache
from itertools import permutations, product

import pytest
import torch
from torch import nn

from mmscratch.attention import Memory
from mmscratch.data.dataset import DataSet, LazyColumn
from mmscratch.decoding import (
    Candidate,
    Hypothesis,
    SearchOptions,
    alignment,
    attention_maps,
    beam_search,
    candidate_log_probs,
    generate,
    greedy_search,
    rank_answers,
    sample,
)
from mmscratch.model import ModelConfig, build_model
from mmscratch.recurrent import LSTMDecoder
from mmscratch.text import BOS, EOS, PAD, UNK, Vocabulary
from mmscratch.transformer import TransformerDecoder

B, N, D, H, V, LONGEST = 5, 7, 22, 13, 29, 17
KINDS = {
    "lstm prefix": lambda layers: LSTMDecoder(V, D, H, layers, "prefix"),
    "lstm dot": lambda layers: LSTMDecoder(V, D, H, layers, "cross_attention"),
    "lstm additive": lambda layers: LSTMDecoder(
        V, D, H, layers, "cross_attention", score="additive"
    ),
    "transformer prefix": lambda layers: TransformerDecoder(V, D, 2, layers, LONGEST, "prefix"),
    "transformer cross": lambda layers: TransformerDecoder(
        V, D, 2, layers, LONGEST, "cross_attention"
    ),
}
DECODERS = [(kind, layers) for kind in KINDS for layers in (1, 2)]


def bias(decoder):
    """The bias of each word's logit, (V,), to write into."""
    if isinstance(decoder, LSTMDecoder):
        return decoder.bias
    # with a first feature of 1, the first number of each word's embedding is its bias
    decoder.norm.weight[0] = 0.0
    decoder.norm.bias[0] = 1.0
    return decoder.embedding.words.weight[:, 0]


def make_decoder(kind, num_layers, seed=0):
    """A random decoder with sentences of many lengths, to which special tokens are probable."""
    torch.manual_seed(seed)
    decoder = KINDS[kind](num_layers).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(2)
        bias(decoder)[[PAD, BOS, UNK]] = 3.0
        bias(decoder)[EOS] = 1.5
    return decoder


def make_memory(batch_size=B, seed=1):
    """Memories of different lengths, with random numbers in the padding, which must not matter."""
    generator = torch.Generator().manual_seed(seed)
    lengths = 1 + torch.arange(batch_size) * 3 % N
    return Memory(
        torch.randn(batch_size, N, D, generator=generator), torch.arange(N) < lengths.unsqueeze(1)
    )


def row(memory, i, trimmed=False):
    """Memory i alone; `trimmed`, without its padding."""
    shown = memory.mask[i] if trimmed else slice(None)
    return Memory(memory.tokens[i : i + 1, shown], memory.mask[i : i + 1, shown])


class Counted:
    """A decoder's start, step and reorder; counts the steps, and the rows in each."""

    def __init__(self, decoder):
        self.decoder = decoder
        self.start = decoder.start
        self.reorder = decoder.reorder
        self.rows = []

    @property
    def steps(self):
        return len(self.rows)

    def step(self, token, state):
        assert not torch.is_grad_enabled()
        self.rows.append(len(token))
        return self.decoder.step(token, state)


class Recited:
    """Not even a module: generates a given sentence for each row. Its state counts the steps."""

    def __init__(self, sentences):
        self.sentences = sentences
        self.inputs = []

    def start(self, memory):
        return 0

    def step(self, token, state):
        self.inputs.append(token.tolist())
        logits = torch.zeros(len(self.sentences), V)
        for i, sentence in enumerate(self.sentences):
            logits[i, sentence[min(state, len(sentence) - 1)]] = 9.0
        return logits, state + 1


class Table:
    """Not even a module: a random automaton. State and token give the next state and its logits."""

    def __init__(self, vocab_size, seed=0, scale=2.0, num_states=1009):
        generator = torch.Generator().manual_seed(seed)
        self.jump = torch.randint(num_states, (num_states, vocab_size), generator=generator)
        self.logits = torch.randn(num_states, vocab_size, generator=generator) * scale

    def start(self, memory):
        return memory.tokens[:, 0, 0].long()  # a memory is the number of its first state

    def step(self, token, state):
        state = self.jump[state, token]
        return self.logits[state], state

    def reorder(self, state, index):
        return state[index]

    def __call__(self, tokens, memory):
        state = self.start(memory)
        logits = []
        for token in tokens.unbind(1):
            next_logits, state = self.step(token, state)
            logits.append(next_logits)
        return torch.stack(logits, dim=1)  # (B, T, V)


class PrefixTable(Table):
    """A language given as {prefix: {next word: probability}}; after any other prefix, <eos>."""

    def __init__(self, language):
        prefixes = list(language)
        self.jump = torch.full((len(prefixes) + 2, V), len(prefixes))
        self.logits = torch.full((len(prefixes) + 2, V), -50.0)
        self.logits[len(prefixes), EOS] = 0.0
        self.jump[-1, BOS] = prefixes.index(())
        for i, prefix in enumerate(prefixes):
            for word, probability in language[prefix].items():
                self.logits[i, word] = math.log(probability)
                if (*prefix, word) in language:
                    self.jump[i, word] = prefixes.index((*prefix, word))

    def start(self, memory):
        return torch.full((len(memory.tokens),), -1)


def first_states(count):
    """Memories for a `Table`, each the number of a state."""
    states = torch.arange(count).view(-1, 1, 1).float()
    return Memory(states, torch.ones(count, 1, dtype=torch.bool))


@torch.no_grad()
def log_prob_by_hand(decoder, memory, hypothesis, max_length):
    """The sentence's log-probability under teacher forcing."""
    target = [*hypothesis.tokens, EOS][:max_length]  # without <eos> where it was cut
    logits = decoder(torch.tensor([[BOS, *target[:-1]]]), memory)[0]  # (T, V)
    return logits.log_softmax(-1).gather(1, torch.tensor(target).unsqueeze(1)).sum().item()


def assert_same(ours, expected):
    """The same sentences, with scores that agree up to rounding."""
    assert [h.tokens for h in ours] == [h.tokens for h in expected]
    for one, other in zip(ours, expected):
        scores = (other.log_prob, other.score)
        assert (one.log_prob, one.score) == pytest.approx(scores, rel=1e-4, abs=1e-4)


def prefixes(tree):
    """The words up to each candidate of a tree."""
    words = []
    for node in tree:
        words.append((*words[node.parent], node.token) if node.parent >= 0 else (node.token,))
    return words


def assert_same_tree(ours, expected):
    """The same candidates kept and finished. Their order may differ, and the last of equals."""
    assert len(ours) == len(expected)
    ours, expected = (
        {words: node for words, node in zip(prefixes(tree), tree) if node.status != "dropped"}
        for tree in (ours, expected)
    )
    statuses = {words: node.status for words, node in expected.items()}
    assert {words: node.status for words, node in ours.items()} == statuses
    for words, node in ours.items():
        scores = (expected[words].log_prob, expected[words].score)
        assert (node.log_prob, node.score) == pytest.approx(scores, rel=1e-4, abs=1e-4)


@torch.no_grad()
def greedy_by_hand(decoder, memory, max_length):
    """One sentence, from a pass over the whole prefix for each word."""
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
def test_greedy_search_equals_a_loop_over_the_whole_prefix(kind, num_layers):
    lengths = set()
    for seed in range(7):
        decoder = make_decoder(kind, num_layers, seed)
        memory = make_memory(seed=seed)
        found = greedy_search(decoder, memory, LONGEST)
        expected = [greedy_by_hand(decoder, row(memory, i), LONGEST) for i in range(B)]
        assert [h.tokens for h in found] == expected
        lengths |= {len(h.tokens) for h in found}
    assert len(lengths) > 3 and min(lengths) < LONGEST  # sentences of many lengths were compared


@pytest.mark.parametrize("kind, num_layers", DECODERS)
def test_greedy_search_does_not_depend_on_the_batch(kind, num_layers):
    for seed in range(7):
        decoder = make_decoder(kind, num_layers, seed)
        memory = make_memory(seed=seed)
        together = greedy_search(decoder, memory, LONGEST)
        for i in range(B):
            for alone in (row(memory, i), row(memory, i, trimmed=True)):
                (hypothesis,) = greedy_search(decoder, alone, LONGEST)
                assert hypothesis.tokens == together[i].tokens
                assert hypothesis.log_prob == pytest.approx(together[i].log_prob, abs=1e-4)


@pytest.mark.parametrize("kind, num_layers", DECODERS)
def test_log_prob_equals_that_under_teacher_forcing(kind, num_layers):
    ended = set()
    for seed in range(7):
        decoder = make_decoder(kind, num_layers, seed)
        memory = make_memory(seed=seed)
        for i, hypothesis in enumerate(greedy_search(decoder, memory, LONGEST)):
            log_prob = log_prob_by_hand(decoder, row(memory, i), hypothesis, LONGEST)
            assert hypothesis.log_prob == pytest.approx(log_prob, abs=1e-4)
            length = min(len(hypothesis.tokens) + 1, LONGEST)
            assert hypothesis.score == pytest.approx(log_prob / length, abs=1e-4)
            ended.add(len(hypothesis.tokens) < LONGEST)
    assert True in ended


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_search_never_generates_special_tokens(kind):
    decoder = make_decoder(kind, 1)
    with torch.no_grad():
        bias(decoder)[[PAD, BOS, UNK]] = 50.0
        bias(decoder)[EOS] = 0.0
    for hypothesis in greedy_search(decoder, make_memory(19), LONGEST):
        assert not {PAD, BOS, EOS, UNK} & set(hypothesis.tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_max_length_cuts_sentences(kind):
    decoder = make_decoder(kind, 1)
    memory = make_memory()
    with torch.no_grad():
        bias(decoder)[EOS] = -50.0
    longer = greedy_search(decoder, memory, LONGEST)
    for max_length in (1, 3):
        shorter = greedy_search(decoder, memory, max_length)
        assert [h.tokens for h in shorter] == [h.tokens[:max_length] for h in longer]
        assert all(len(h.tokens) == max_length for h in shorter)
        assert all(one.log_prob > other.log_prob for one, other in zip(shorter, longer))
    assert all(len(h.tokens) == LONGEST for h in longer)


def test_greedy_search_stops_when_all_sentences_have_ended():
    stopped_early = 0
    for seed in range(7):
        decoder = Counted(make_decoder("lstm prefix", 1, seed))
        memory = make_memory(seed=seed)
        lengths = [len(h.tokens) for h in greedy_search(decoder, memory, LONGEST)]
        assert decoder.steps == min(max(lengths) + 1, LONGEST)
        stopped_early += decoder.steps < LONGEST
    assert stopped_early > 0


def test_greedy_search_needs_only_start_and_step():
    decoder = Recited([[4, 5, EOS], [EOS, 4, 4], [6, 6, 7, 8, EOS], [9, EOS, 5]])
    found = greedy_search(decoder, make_memory(4), LONGEST)
    assert [h.tokens for h in found] == [[4, 5], [], [6, 6, 7, 8], [9]]
    assert len(decoder.inputs) == 5
    for sentence, *inputs in zip([h.tokens for h in found], *decoder.inputs):
        # inputs after the end do not matter
        assert inputs[: 1 + len(sentence)] == [BOS, *sentence]
    word = torch.tensor([9.0] + [0.0] * (V - 1)).log_softmax(-1)[0].item()
    expected = [3 * word, word, 5 * word, 2 * word]
    assert [h.log_prob for h in found] == pytest.approx(expected, abs=1e-5)


def test_log_probs_of_large_logits_are_finite():
    class Loud(Recited):
        def step(self, token, state):
            logits, state = super().step(token, state)
            logits[:, UNK] = 209.0  # forbidden, but the most probable by far
            return logits + 1000.0, state

    (found,) = greedy_search(Loud([[4, 5, EOS]]), make_memory(1), LONGEST)
    assert found.tokens == [4, 5] and found.log_prob == pytest.approx(3 * (9.0 - 209.0), rel=1e-4)


def test_empty_sentences_and_sentences_of_max_length():
    decoder = Recited([[EOS], [4, 5, EOS], [4, 5, 6, EOS]])
    found = greedy_search(decoder, make_memory(3), max_length=3)
    assert [h.tokens for h in found] == [[], [4, 5], [4, 5, 6]]


def test_half_precision_logits_are_summed_in_float32():
    class Half(Recited):
        def step(self, token, state):
            logits, state = super().step(token, state)
            return logits.bfloat16(), state

    sentences = [[4, 5, 6, 7, EOS], [8, 9, EOS]]
    full, half = (
        greedy_search(kind(sentences), make_memory(2), LONGEST) for kind in (Recited, Half)
    )
    assert [h.log_prob for h in half] == pytest.approx([h.log_prob for h in full], abs=1e-6)


@pytest.mark.parametrize("kind, num_layers", DECODERS)
def test_greedy_search_keeps_no_gradients_and_changes_nothing(kind, num_layers):
    decoder = make_decoder(kind, num_layers)
    memory = make_memory()
    before = memory.tokens.clone()
    first = greedy_search(decoder, memory, LONGEST)
    second = greedy_search(decoder, memory, LONGEST)
    assert first == second and torch.equal(memory.tokens, before)
    assert isinstance(first[0].log_prob, float)
    assert all(type(word) is int for h in first for word in h.tokens)


@pytest.mark.parametrize("max_length", [0, -1])
def test_max_length_below_1_raises(max_length):
    with pytest.raises(ValueError, match="max_length"):
        greedy_search(make_decoder("lstm prefix", 1), make_memory(), max_length)


def words_after(decoder, memory):
    """A function from a prefix to {next word: log-probability}, without <pad>, <bos> and <unk>."""

    @cache
    @torch.no_grad()
    def after(words):
        log_probs = decoder(torch.tensor([[BOS, *words]]), memory)[0, -1].log_softmax(-1).tolist()
        return {i: log_prob for i, log_prob in enumerate(log_probs) if i not in (PAD, BOS, UNK)}

    return after


def repeats(words, n):
    """Do the last n words also occur earlier in the sentence?"""
    return words[-n:] in [words[i : i + n] for i in range(len(words) - n)]


def allowed(after, words, min_length, n):
    """{next word: its log-probability} under the rules."""
    left = dict(after(words))
    for word in list(left):
        too_short = word == EOS and len(words) < min_length
        repeated = n > 0 and word != EOS and repeats((*words, word), n)
        if too_short or repeated:
            del left[word]
    return left or {EOS: after(words)[EOS]}


def beam_search_by_hand(
    after, num_beams, max_length, length_penalty=1.0, n_best=1, min_length=0, no_repeat_ngram_size=0
):
    """(n best sentences for one memory, steps needed, tree of these), without early stopping."""
    beams = [((), 0.0, -1)]  # (words, log-probability, node)
    found = []
    tree = []
    needed = None
    for length in range(1, max_length + 1):
        candidates = [
            (total + log_prob, (*words, word), node)
            for words, total, node in beams
            for word, log_prob in allowed(after, words, min_length, no_repeat_ngram_size).items()
        ]
        candidates = sorted(candidates, reverse=True)[: 2 * num_beams]
        beams = []
        for rank, (total, words, parent) in enumerate(candidates):
            ended = words[-1] == EOS or length == max_length
            score = total / length**length_penalty
            status = "dropped"
            if ended and rank < num_beams:
                status = "finished"
                found.append(Hypothesis([word for word in words if word != EOS], total, score))
            elif not ended and len(beams) < num_beams:
                status = "kept"
                beams.append((words, total, len(tree)))
            tree.append(Candidate(parent, words[-1], total, score, status))
        found.sort(key=lambda hypothesis: -hypothesis.score)
        bounds = []
        if beams:
            longer = range(length + 1, max_length + 1)
            bounds = [beams[0][1] / length**length_penalty for length in longer]
        if num_beams == 1 and candidates[0][1][-1] == EOS:  # then it is greedy search
            beams = bounds = []
        can_improve = bounds and (len(found) < n_best or max(bounds) > found[n_best - 1].score)
        if needed is None and not can_improve:
            needed = length
            size = len(tree)
        if not beams:
            break
    return found[:n_best], needed, tree[:size]


PENALTIES = (-1.0, 0.0, 0.5, 1.0, 2.0)
RULES = [
    {},
    {"min_length": 5},
    {"no_repeat_ngram_size": 1},
    {"min_length": 3, "no_repeat_ngram_size": 2},
]


def search(decoder, memory, num_beams=5, max_length=40, trees=None, **options):
    """`beam_search`, with its options by name."""
    return beam_search(decoder, memory, num_beams, max_length, SearchOptions(**options), trees)


MANY = {"num_beams": 7, "n_best": 7, "max_length": LONGEST}


@pytest.mark.parametrize("kind", KINDS)
def test_beam_search_equals_a_search_without_early_stopping(kind):
    lengths = set()
    steps = set()
    for seed, (num_beams, n_best) in enumerate([(1, 1), (2, 1), (3, 3), (5, 2)]):
        decoder = make_decoder(kind, 1 + seed % 2, seed)
        memory = make_memory(seed=seed)
        with torch.no_grad():  # so that sentences end here and there
            bias(decoder)[EOS] = 2.0 if kind.startswith("lstm") else 5.0
        slow = [words_after(decoder, row(memory, i)) for i in range(B)]
        for rules, penalty in product(RULES, (-1.0, 0.0, 0.7, 2.0)):
            trees = []
            counted = Counted(decoder)
            options = SearchOptions(penalty, n_best, **rules)
            ours = beam_search(counted, memory, num_beams, 7, options, trees)
            expected, needed, tree = zip(
                *(beam_search_by_hand(s, num_beams, 7, penalty, n_best, **rules) for s in slow)
            )
            assert len(ours) == len(trees) == B
            for i in range(B):
                assert_same(ours[i], expected[i])
                assert_same_tree(trees[i], tree[i])
            live = [sum(step < last for last in needed) for step in range(max(needed))]
            # finished memories leave the batch
            assert counted.rows == [B, *(num_beams * count for count in live[1:])]
            lengths |= {len(hypothesis.tokens) for found in ours for hypothesis in found}
            steps |= set(needed)
    # sentences of many lengths were compared, and many early ends
    assert len(lengths) > 5 and len(steps) > 5


@pytest.mark.parametrize("num_beams", [1, 2, 3, 7])
def test_beam_search_equals_a_slow_search_on_random_tables(num_beams):
    for seed in range(11):
        table = Table(23, seed)
        memory = first_states(7)
        penalty = PENALTIES[seed % 5]
        n_best = seed % num_beams + 1
        rules = RULES[seed % 4]
        options = SearchOptions(penalty, n_best, **rules)
        trees = [[]]  # of an earlier search
        ours = beam_search(table, memory, num_beams, 7, options, trees)
        assert trees.pop(0) == [] and len(trees) == 7
        for i in range(7):
            after = words_after(table, row(memory, i))
            expected, _, tree = beam_search_by_hand(after, num_beams, 7, penalty, n_best, **rules)
            assert_same(ours[i], expected)
            assert_same_tree(trees[i], tree)


TINY = {
    "table": lambda: Table(7),
    "lstm": lambda: LSTMDecoder(7, D, H, 1, "cross_attention"),
    "transformer": lambda: TransformerDecoder(7, D, 2, 1, LONGEST, "prefix"),
}


def tiny(kind):
    """A decoder that knows three words, with its memories."""
    torch.manual_seed(5)
    decoder = TINY[kind]()
    if kind == "table":
        return decoder, first_states(3)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(3)
    return decoder.eval(), make_memory(3)


@pytest.mark.parametrize("min_length", [0, 2])
@pytest.mark.parametrize("kind", TINY)
def test_enough_beams_find_every_sentence(kind, min_length):
    decoder, memory = tiny(kind)
    slow = [words_after(decoder, row(memory, i)) for i in range(3)]
    for penalty in PENALTIES:
        # there are 121 sentences of up to 4 words, of 4 words 27 · 4 with <eos>
        found = beam_search(decoder, memory, 127, 4, SearchOptions(penalty, 127, min_length))
        best = beam_search(decoder, memory, 109, 4, SearchOptions(penalty, 5, min_length))
        for i, after in enumerate(slow):
            every = []
            sentences = [list(product((4, 5, 6), repeat=length)) for length in range(min_length, 5)]
            for words in sum(sentences, []):
                target = [*words, EOS][:4]
                log_prob = sum(after(words[:t])[word] for t, word in enumerate(target))
                every.append(Hypothesis(list(words), log_prob, log_prob / len(target) ** penalty))
            every.sort(key=lambda hypothesis: -hypothesis.score)
            assert_same(found[i], every)
            assert_same(best[i], every[:5])
            assert len(every) == 121 - (1 + 3) * (min_length > 0)  # fewer than were asked for


class WithoutCache:
    """A language model of transformers as a decoder: memory is a prompt, state all words so far."""

    def __init__(self, model):
        self.model = model

    def start(self, memory):
        return memory.tokens[:, :-1]

    def step(self, token, state):
        state = torch.cat([state, token.unsqueeze(1)], dim=1)
        return self.model(state).logits[:, -1], state

    def reorder(self, state, index):
        return state[index]


@pytest.mark.parametrize("scale", [1, 5, 15])
def test_beam_search_agrees_with_transformers(scale):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 23, "n_positions": 13, "n_embd": 14, "n_layer": 2, "n_head": 2}
    config = transformers.GPT2Config(**sizes, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD)
    lengths = set()
    for seed in range(2):
        torch.manual_seed(seed)
        # in float64 only the sum of log-probabilities is rounded
        model = transformers.GPT2LMHeadModel(config).eval().double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(scale)
        prompts = torch.tensor([[word, BOS] for word in range(4, 4 + B)])
        memory = Memory(prompts, torch.ones_like(prompts, dtype=torch.bool))
        for i, (penalty, (num_beams, n_best)) in enumerate(
            product(PENALTIES, ((2, 1), (3, 3), (5, 2)))
        ):
            min_length, n = ((0, 0), (3, 2))[(i + seed) % 2]
            theirs = model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                num_beams=num_beams,
                num_return_sequences=n_best,
                length_penalty=penalty,
                early_stopping="never",
                max_new_tokens=7,
                min_new_tokens=min_length or None,
                no_repeat_ngram_size=n,
                do_sample=False,
                suppress_tokens=[PAD, BOS, UNK],
                return_dict_in_generate=True,
                output_scores=True,
            )
            options = SearchOptions(penalty, n_best, min_length, n)
            ours = sum(beam_search(WithoutCache(model), memory, num_beams, 7, options), [])
            expected = [
                words[: words.index(EOS)] if EOS in words else words
                for words in theirs.sequences[:, 2:].tolist()
            ]
            scores = theirs.sequences_scores.tolist()
            assert [hypothesis.tokens for hypothesis in ours] == expected
            assert [hypothesis.score for hypothesis in ours] == pytest.approx(scores, rel=1e-6)
            lengths |= {len(words) for words in expected}
    assert len(lengths) > 2


@pytest.mark.parametrize("kind, num_layers", DECODERS)
def test_one_beam_is_greedy_search(kind, num_layers):
    for seed in range(3):
        decoder = make_decoder(kind, num_layers, seed)
        memory = make_memory(seed=seed)
        greedy = greedy_search(decoder, memory, LONGEST)
        for penalty in PENALTIES:
            lengths = [min(len(hypothesis.tokens) + 1, LONGEST) for hypothesis in greedy]
            found = beam_search(decoder, memory, 1, LONGEST, SearchOptions(penalty))
            for one, h, length in zip(found, greedy, lengths, strict=True):
                assert_same(one, [h._replace(score=h.log_prob / length**penalty)])


@pytest.mark.parametrize("kind", KINDS)
def test_hypotheses_are_sorted_distinct_and_scored_by_the_model(kind):
    cut = set()
    for seed, penalty in enumerate(PENALTIES):
        decoder = make_decoder(kind, 1, seed)
        memory = make_memory(seed=seed)
        for i, found in enumerate(beam_search(decoder, memory, 5, 7, SearchOptions(penalty, 5))):
            assert 1 <= len(found) <= 5
            assert len({tuple(hypothesis.tokens) for hypothesis in found}) == len(found)
            assert found == sorted(found, key=lambda hypothesis: -hypothesis.score)
            for hypothesis in found:
                length = min(len(hypothesis.tokens) + 1, 7)
                log_prob = log_prob_by_hand(decoder, row(memory, i), hypothesis, 7)
                score = hypothesis.log_prob / length**penalty
                assert hypothesis.log_prob == pytest.approx(log_prob, abs=1e-4)
                assert hypothesis.score == pytest.approx(score, rel=1e-5)
                cut.add(len(hypothesis.tokens) == 7)
    assert cut == {True, False}  # some were cut and some have ended


@pytest.mark.parametrize("kind", KINDS)
def test_beam_search_does_not_depend_on_the_batch(kind):
    for seed in range(3):
        decoder = make_decoder(kind, 1 + seed % 2, seed)
        memory = make_memory(seed=seed)
        options = SearchOptions((0.0, 1.0, -1.0)[seed], n_best=2)
        trees = [[Candidate(-1, 4, 0.0, 0.0, "kept")]]  # from an earlier search
        together = beam_search(decoder, memory, 3, LONGEST, options, trees)
        assert len(trees) == 1 + B and len(trees[0]) == 1
        for i in range(B):
            for alone in (row(memory, i), row(memory, i, trimmed=True)):
                own = []
                (found,) = beam_search(decoder, alone, 3, LONGEST, options, own)
                assert_same(found, together[i])
                assert len(own) == 1
                assert_same_tree(own[0], trees[1 + i])


A, C = 4, 5  # two words


def test_eos_outside_the_first_num_beams_finishes_nothing():
    uniform = dict.fromkeys(range(7, 27), 0.05)
    decoder = PrefixTable({(): {A: 0.5, C: 0.3, EOS: 0.2}, (A,): uniform, (C,): uniform})
    memory = make_memory(1)
    (found,) = search(decoder, memory, 2, 3, length_penalty=0, n_best=2)
    assert [len(hypothesis.tokens) for hypothesis in found] == [2, 2]
    (found,) = search(decoder, memory, 3, 3, length_penalty=0, n_best=2)
    log_prob = pytest.approx(math.log(0.2), abs=1e-5)
    assert found[0] == ([], log_prob, log_prob)


def test_a_finished_hypothesis_takes_no_beam_away():
    uniform = dict.fromkeys(range(7, 27), 0.05)
    decoder = PrefixTable({(): {EOS: 0.5, A: 0.3, C: 0.2}, (A,): uniform, (C,): {EOS: 1.0}})
    trees = []
    (found,) = search(decoder, make_memory(1), 2, 3, length_penalty=0, n_best=2, trees=trees)
    assert [hypothesis.tokens for hypothesis in found] == [[], [C]]
    expected = [math.log(0.5), math.log(0.2)]
    assert [hypothesis.log_prob for hypothesis in found] == pytest.approx(expected, abs=1e-5)
    statuses = [(EOS, "finished"), (A, "kept"), (C, "kept")]
    assert [(node.token, node.status) for node in trees[0][:3]] == statuses


def test_search_continues_while_a_longer_sentence_may_win():
    sure = {(A,) * t: {A: 0.9, EOS: 0.1} for t in range(1, 7)} | {(A,) * 7: {EOS: 1.0}}
    decoder = PrefixTable({(): {A: 0.48, EOS: 0.52}, **sure})
    for penalty, steps, words in ((1.0, 8, 7), (0.0, 1, 0), (-1.0, 1, 0)):
        counted = Counted(decoder)
        (found,) = beam_search(counted, make_memory(1), 2, 8, SearchOptions(penalty))
        assert len(found[0].tokens) == words and counted.steps == steps
        probability = 0.48 * 0.9**6 if words else 0.52
        assert found[0].log_prob == pytest.approx(math.log(probability), abs=1e-5)


@pytest.mark.parametrize("penalty, max_length, n_best, steps", [
    (0.0, 13, 1, 1),  # ln 0.9 = -0.105; all other beams have less, and do not improve
    (1.0, 13, 1, 1),  # ln 0.1 / 13 = -0.177
    (1.0, 23, 1, 2),  # ln 0.1 / 23 = -0.1001: not over yet. ln 0.04 / 23 = -0.140
    (2.0, 5, 1, 2),  # ln 0.1 / 5² = -0.092: not over yet. ln 0.04 / 5² = -0.129
    (0.0, 13, 2, 2),  # the second sentence
    (0.0, 13, 3, 3),
    (-1.0, 13, 2, 2),
])  # fmt: skip
def test_search_stops_when_no_beam_can_improve(penalty, max_length, n_best, steps):
    longer = {(A,) * t: {A: 0.4, EOS: 0.6} for t in range(1, 29)}
    counted = Counted(PrefixTable({(): {EOS: 0.9, A: 0.1}, **longer}))
    after = words_after(counted.decoder, make_memory(1))
    expected, needed, _ = beam_search_by_hand(after, 3, max_length, penalty, n_best)
    (found,) = beam_search(counted, make_memory(1), 3, max_length, SearchOptions(penalty, n_best))
    assert_same(found, expected)
    assert counted.steps == needed == steps < max_length


@pytest.mark.parametrize("rules", [RULES[0], RULES[3]], ids=str)
@pytest.mark.parametrize("penalty, n_best", [(-1.0, 1), (0.0, 3), (1.0, 2)])
def test_keep_greedy_is_never_worse_than_greedy(penalty, n_best, rules):
    table = Table(13)
    memory = first_states(499)
    options = {"max_length": 7, "length_penalty": penalty, **rules}
    greedy = [best for (best,) in search(table, memory, 1, **options)]
    trees = []
    plain_trees = []
    plain = search(table, memory, 3, n_best=n_best, trees=plain_trees, **options)
    kept = search(table, memory, 3, n_best=n_best, keep_greedy=True, trees=trees, **options)
    worse = [found[0].score < best.score - 1e-4 for found, best in zip(plain, greedy)]
    assert any(worse)  # without it, now and then
    for mine, found, best in zip(kept, plain, greedy):
        assert mine[0].score >= best.score - 1e-4
        both = found
        if best.tokens not in [hypothesis.tokens for hypothesis in found]:
            both = [*found, best]
        assert_same(mine, sorted(both, key=lambda hypothesis: -hypothesis.score)[:n_best])
        assert len({tuple(hypothesis.tokens) for hypothesis in mine}) == len(mine)
    assert trees == plain_trees  # the greedy hypothesis is not part of the tree


@pytest.mark.parametrize("kind", KINDS)
def test_beam_search_and_sampling_never_generate_special_tokens(kind):
    decoder = make_decoder(kind, 1)
    memory = make_memory()
    with torch.no_grad():
        bias(decoder)[[PAD, BOS, UNK]] = 50.0
        bias(decoder)[EOS] = 0.0
    sampled = [sample(decoder, memory, LONGEST, temperature) for temperature in (0.5, 100.0)]
    for hypothesis in sum(search(decoder, memory, **MANY) + sampled, []):
        assert not {PAD, BOS, EOS, UNK} & set(hypothesis.tokens)
        # special tokens keep the probability that the model gives them
        assert hypothesis.log_prob < -10


@pytest.mark.parametrize("kind", KINDS)
def test_unfinished_sentences_are_cut_at_max_length(kind):
    decoder = make_decoder(kind, 1)
    memory = make_memory()
    with torch.no_grad():
        bias(decoder)[EOS] = -50.0
    for max_length in (1, 3, LONGEST):
        for penalty in (-1.0, 0.5):
            for found in beam_search(decoder, memory, 5, max_length, SearchOptions(penalty, 3)):
                assert len(found) == 3
                for hypothesis in found:
                    assert len(hypothesis.tokens) == max_length
                    score = hypothesis.log_prob / max_length**penalty
                    assert hypothesis.score == pytest.approx(score, rel=1e-5)
        sampled = sample(decoder, memory, max_length)
        assert {len(hypothesis.tokens) for hypothesis in sampled} == {max_length}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("min_length", [1, 5, LONGEST])
def test_no_sentence_is_shorter_than_min_length(kind, min_length):
    decoder = make_decoder(kind, 1)
    memory = make_memory()
    with torch.no_grad():
        bias(decoder)[EOS] = 30.0
    assert any(not hypothesis.tokens for hypothesis in sum(search(decoder, memory, **MANY), []))
    for penalty in (0.0, 1.0):
        found = search(decoder, memory, **MANY, min_length=min_length, length_penalty=penalty)
        assert min(len(hypothesis.tokens) for one in found for hypothesis in one) == min_length


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_no_ngram_occurs_twice(kind, n):
    decoder = make_decoder(kind, 1)
    memory = make_memory()
    with torch.no_grad():
        bias(decoder)[EOS] = -50.0
        bias(decoder)[[4, 5, 6, 7]] = 9.0  # so that it repeats itself
    plain = [h.tokens for h in sum(search(decoder, memory, **MANY), [])]
    found = search(decoder, memory, **MANY, no_repeat_ngram_size=n)
    blocked = [h.tokens for h in sum(found, [])]
    repeated = [[words[i : i + n] for i in range(len(words) - n + 1)] for words in plain]
    assert any(ngrams.count(ngram) > 1 for ngrams in repeated for ngram in ngrams)
    for words in blocked:
        ngrams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        assert len(words) == LONGEST and len(set(ngrams)) == len(ngrams)


def test_a_sentence_ends_where_every_word_is_forbidden():
    options = {"max_length": 7, "min_length": 5, "no_repeat_ngram_size": 1, "length_penalty": 0.0}
    table = Table(7)
    memory = first_states(3)
    for i, found in enumerate(search(table, memory, 11, n_best=11, **options)):
        assert {tuple(hypothesis.tokens) for hypothesis in found} == set(permutations((4, 5, 6)))
        for hypothesis in found:
            log_prob = log_prob_by_hand(table, row(memory, i), hypothesis, 7)
            assert hypothesis.log_prob == pytest.approx(log_prob, abs=1e-4)
    for (hypothesis,) in search(table, memory, 1, **options):
        assert set(hypothesis.tokens) == {4, 5, 6}


def test_beam_search_and_sampling_sum_in_float32():
    class Half(Table):
        def step(self, token, state):
            logits, state = super().step(token, state)
            return logits.bfloat16(), state

    half = Half(23)
    full = Table(23)
    memory = first_states(7)
    full.logits = full.logits.bfloat16().float()
    assert search(half, memory, **MANY) == search(full, memory, **MANY)
    draws = [
        sample(table, memory, LONGEST, generator=torch.Generator().manual_seed(2))
        for table in (half, full)
    ]
    assert draws[0] == draws[1]


@pytest.mark.parametrize("kind, num_layers", DECODERS)
def test_beam_search_and_sampling_keep_no_gradients_and_change_nothing(kind, num_layers):
    decoder = make_decoder(kind, num_layers)
    memory = make_memory()
    tokens = memory.tokens.clone()
    mask = memory.mask.clone()

    def beams(decoder):
        options = {"n_best": 2, "keep_greedy": True, "min_length": 2}
        return search(decoder, memory, 3, LONGEST, **options)

    def samples(decoder):
        return [sample(decoder, memory, LONGEST, 0.7, 7, 0.9, torch.Generator().manual_seed(1))]

    for generated_by in (beams, samples):
        first = generated_by(decoder)
        assert first == generated_by(Counted(decoder))  # which asserts that there are no gradients
        assert torch.equal(memory.tokens, tokens) and torch.equal(memory.mask, mask)
        for hypothesis in sum(first, []):
            assert type(hypothesis.log_prob) is type(hypothesis.score) is float
            assert all(type(word) is int for word in hypothesis.tokens)


@pytest.mark.parametrize("name, options", [
    ("num_beams", {"num_beams": 0}),
    ("num_beams", {"num_beams": -1, "n_best": -1}),
    ("n_best", {"num_beams": 3, "n_best": 4}),
    ("n_best", {"num_beams": 3, "n_best": 0}),
    ("max_length", {"max_length": 0}),
    ("max_length", {"max_length": -1, "min_length": -1}),
    ("min_length", {"max_length": 3, "min_length": 4}),
    ("min_length", {"min_length": -1}),
])  # fmt: skip
def test_invalid_search_settings_raise(name, options):
    with pytest.raises(ValueError, match=name):
        search(Table(7), first_states(2), **options)


@pytest.mark.parametrize("name, options", [
    ("temperature", {"temperature": 0}),
    ("temperature", {"temperature": -0.5}),
    ("temperature", {"temperature": math.nan}),
    ("temperature", {"temperature": math.inf}),
    ("top_k", {"top_k": 0}),
    ("top_k", {"top_k": -3}),
    ("top_p", {"top_p": 0}),
    ("top_p", {"top_p": 1.5}),
    ("top_p", {"top_p": -0.1}),
    ("top_p", {"top_p": math.nan}),
    ("max_length", {"max_length": 0}),
])  # fmt: skip
def test_invalid_sampling_settings_raise(name, options):
    with pytest.raises(ValueError, match=name):
        sample(Table(7), first_states(2), **options)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_nan_logits_raise_and_name_the_memory(num_beams):
    table = Table(23)
    memory = first_states(5)
    for rules in ({}, {"keep_greedy": True}, {"min_length": 2, "no_repeat_ngram_size": 2}):
        assert len(search(table, memory, num_beams, 7, **rules)) == 5
    first = table.jump[3, BOS].item()
    table.jump[table.jump == first] = 0  # no other memory gets there
    table.jump[3, BOS] = first
    table.logits[first] = math.nan
    for rules in ({}, {"keep_greedy": True}, {"min_length": 2, "no_repeat_ngram_size": 2}):
        with pytest.raises(FloatingPointError, match="memory 3: .* NaN"):
            search(table, memory, num_beams, 7, **rules)


@pytest.mark.parametrize("kind, num_layers", DECODERS)
def test_samples_have_the_log_prob_of_the_model(kind, num_layers):
    ended = set()
    settings = ({}, {"temperature": 2.0}, {"temperature": 0.3, "top_k": 7}, {"top_p": 0.8})
    for seed, options in enumerate(settings):
        decoder = make_decoder(kind, num_layers, seed)
        memory = make_memory(seed=seed)
        found = sample(decoder, memory, 7, **options, generator=torch.Generator().manual_seed(seed))
        assert len(found) == B
        for i, hypothesis in enumerate(found):
            log_prob = log_prob_by_hand(decoder, row(memory, i), hypothesis, 7)
            assert hypothesis.log_prob == pytest.approx(log_prob, abs=1e-4)
            length = min(len(hypothesis.tokens) + 1, 7)
            assert hypothesis.score == pytest.approx(log_prob / length, abs=1e-4)
            ended.add(len(hypothesis.tokens) < 7)
    assert ended == {True, False}


@pytest.mark.parametrize("kind", KINDS)
def test_sampling_from_a_single_word_is_greedy(kind):
    decoder = make_decoder(kind, 1)
    memory = make_memory()
    greedy = greedy_search(decoder, memory, LONGEST)
    for options in (
        {"top_k": 1},
        {"top_p": 1e-6},
        {"temperature": 1e-5},
        {"temperature": 9.0, "top_k": 1, "top_p": 1.0},
    ):
        assert sample(decoder, memory, LONGEST, **options) == greedy
    assert sample(decoder, memory, LONGEST) != greedy


def test_samples_are_repeatable_and_independent():
    table = Table(23)
    memory = Memory(*(part.expand(19, 1, *part.shape[2:]) for part in first_states(1)))

    def draw(seed):
        return sample(table, memory, 11, generator=torch.Generator().manual_seed(seed))

    assert draw(3) == draw(3) != draw(4)
    assert len({tuple(hypothesis.tokens) for hypothesis in draw(3)}) > 9  # of 19 about the same
    torch.manual_seed(3)
    first = sample(table, memory, 11)
    second = sample(table, memory, 11)
    torch.manual_seed(3)
    assert first == sample(table, memory, 11) != second


def to_draw_from(logits, temperature, top_k, top_p):
    """The words that may be drawn, each with its probability."""
    words = sorted(set(range(V)) - {PAD, BOS, UNK}, key=lambda word: -logits[word])[:top_k]
    weights = [math.exp(logits[word] / temperature) for word in words]
    kept = {}
    for word, weight in zip(words, weights):
        if top_p is None or sum(kept.values()) < top_p:
            kept[word] = weight / sum(weights)
    return {word: probability / sum(kept.values()) for word, probability in kept.items()}


DRAWS = [(1.0, None, None), (0.5, None, None), (3.0, None, None), (1.0, 5, None), (2.0, 11, None)]
DRAWS += [(1.0, None, 0.5), (1.0, None, 0.9), (2.0, None, 0.7), (0.6, None, 0.95)]
DRAWS += [(1.0, 7, 0.8), (2.0, 3, 0.6), (1.0, 99, 1.0)]


@pytest.mark.parametrize("temperature, top_k, top_p", DRAWS)
def test_words_are_sampled_as_often_as_they_are_probable(temperature, top_k, top_p):
    count = 20011
    table = Table(V, num_states=1, scale=0.8)
    memory = Memory(torch.zeros(count, 1, 1), torch.ones(count, 1, dtype=torch.bool))
    generator = torch.Generator().manual_seed(1)
    sentences = sample(table, memory, 1, temperature, top_k, top_p, generator)
    drawn = Counter(hypothesis.tokens[0] if hypothesis.tokens else EOS for hypothesis in sentences)
    expected = to_draw_from(table.logits[0].tolist(), temperature, top_k, top_p)
    assert set(drawn) == set(expected)
    chi_square = sum((drawn[word] - count * p) ** 2 / (count * p) for word, p in expected.items())
    freedom = len(expected) - 1
    # its mean, and four standard deviations
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom)


def test_the_nucleus_is_no_larger_than_needed():
    table = PrefixTable({(): {}})
    table.logits[:] = -torch.inf
    table.logits[:, [4, 5]] = 0.0  # each has a probability of exactly 1/2
    for top_p, number in ((0.5, 1), (0.6, 2)):
        drawn = sample(table, first_states(99), 1, top_p=top_p)
        assert len({hypothesis.tokens[0] for hypothesis in drawn}) == number


@pytest.mark.parametrize("temperature, top_k, top_p", DRAWS)
def test_top_k_and_top_p_agree_with_transformers(temperature, top_k, top_p):
    transformers = pytest.importorskip("transformers")
    logits = Table(V).logits[:101]
    expected = logits.clone()
    expected[:, [PAD, BOS, UNK]] = -torch.inf
    expected = transformers.TemperatureLogitsWarper(float(temperature))(None, expected)
    if top_k is not None:
        expected = transformers.TopKLogitsWarper(top_k)(None, expected)
    if top_p is not None and top_p < 1:
        expected = transformers.TopPLogitsWarper(top_p)(None, expected)
    for row_logits, probabilities in zip(logits.tolist(), expected.softmax(-1).tolist()):
        words = to_draw_from(row_logits, temperature, top_k, top_p)
        assert [words.get(word, 0.0) for word in range(V)] == pytest.approx(probabilities, abs=1e-5)


@pytest.mark.parametrize("num_beams, n_best", [(1, 1), (2, 1), (3, 3), (5, 2)])
def test_the_tree_holds_every_candidate(num_beams, n_best):
    for penalty in PENALTIES:
        table = Table(23)
        memory = first_states(17)
        trees = []
        results = beam_search(table, memory, num_beams, 7, SearchOptions(penalty, n_best), trees)
        for i, (tree, found) in enumerate(zip(trees, results)):
            assert all(-1 <= node.parent < place for place, node in enumerate(tree))
            after = words_after(table, row(memory, i))
            words = prefixes(tree)
            steps = {}
            for node, prefix in zip(tree, words):
                parent = tree[node.parent] if node.parent >= 0 else None
                assert parent is None or parent.status == "kept"
                before = parent.log_prob if parent else 0.0
                word = after(prefix[:-1])[node.token]
                score = node.log_prob / len(prefix) ** penalty
                assert node.log_prob == pytest.approx(before + word, abs=1e-4)
                assert node.score == pytest.approx(score, rel=1e-5)
                steps.setdefault(len(prefix), []).append(node)
            for length, nodes in steps.items():
                log_probs = [node.log_prob for node in nodes]
                assert len(nodes) == 2 * num_beams and log_probs == sorted(log_probs)[::-1]
                unfinished = [node for node in nodes if node.token != EOS and length < 7]
                assert [node for node in nodes if node.status == "kept"] == unfinished[:num_beams]
                ended = [node for node in nodes[:num_beams] if node.token == EOS or length == 7]
                assert [node for node in nodes if node.status == "finished"] == ended
            finished = [
                (tokens, node) for tokens, node in zip(words, tree) if node.status == "finished"
            ]
            finished = sorted(finished, key=lambda pair: -pair[1].score)[:n_best]
            sentences = [[word for word in tokens if word != EOS] for tokens, _ in finished]
            scores = [node.score for _, node in finished]
            assert sentences == [hypothesis.tokens for hypothesis in found]
            assert scores == pytest.approx([hypothesis.score for hypothesis in found])
        assert len(trees) == 17


@pytest.mark.gpu
@pytest.mark.parametrize("kind, num_layers", DECODERS)
def test_searches_on_gpu_agree_with_cpu(kind, num_layers):
    decoder = make_decoder(kind, num_layers).double()
    memory = make_memory()
    memory = Memory(memory.tokens.double(), memory.mask)

    def beams(memory):
        options = {"keep_greedy": True, "min_length": 2, "no_repeat_ngram_size": 3}
        return search(decoder, memory, **MANY, **options)

    def samples(memory):
        generator = torch.Generator(memory.mask.device)
        return [sample(decoder, memory, LONGEST, top_k=1, generator=generator)]

    searches = [lambda memory: [greedy_search(decoder, memory, LONGEST)], beams, samples]
    on_cpu = [one(memory) for one in searches]
    decoder.cuda()
    on_gpu = Memory(*(part.cuda() for part in memory))
    for one, expected in zip(searches, on_cpu):
        for found, same in zip(one(on_gpu), expected, strict=True):
            assert_same(found, same)


WORDS = Vocabulary([f"word{i}" for i in range(4, V)])
TARGET = {"target": WORDS}


class Given(nn.Module):
    """A model whose examples are their memories; it records the batch sizes."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder
        self.weight = nn.Parameter(torch.zeros(()))  # so that it has a device
        self.batch_sizes = []

    def encode(self, batch):
        assert not torch.is_grad_enabled() and not self.training
        self.batch_sizes.append(len(batch["tokens"]))
        return Memory(batch["tokens"], batch["mask"])


def given(memory):
    """The memories as examples."""
    return [{"tokens": tokens, "mask": mask} for tokens, mask in zip(*memory)]


@pytest.mark.parametrize("kind", KINDS)
def test_generate_agrees_with_greedy_search_one_by_one(kind):
    lengths = set()
    for seed in range(7):
        decoder = make_decoder(kind, 1, seed)
        memory = make_memory(seed=seed)
        found = [greedy_search(decoder, row(memory, i), LONGEST)[0] for i in range(B)]
        expected = [[f"word{word}" for word in hypothesis.tokens] for hypothesis in found]
        lengths |= {len(sentence) for sentence in expected}
        for batch_size in (1, 2, B, 100):
            model = Given(decoder).train()
            assert generate(model, TARGET, given(memory), 1, LONGEST, batch_size) == expected
            assert not model.training
            assert max(model.batch_sizes) == min(batch_size, B) and sum(model.batch_sizes) == B
            shorter = generate(model, TARGET, given(memory), max_length=3, batch_size=batch_size)
            assert shorter == [sentence[:3] for sentence in expected]
    assert len(lengths) > 3 and generate(model, TARGET, []) == []


@pytest.mark.parametrize("kind", KINDS)
def test_generate_with_beams_agrees_with_beam_search_one_by_one(kind):
    decoder = make_decoder(kind, 1)
    memory = make_memory()
    model = Given(decoder)

    def one_by_one(num_beams, max_length, options=SearchOptions()):
        found = []
        for i in range(B):
            found.append(beam_search(decoder, row(memory, i), num_beams, max_length, options))
        return [[f"word{word}" for word in best.tokens] for ((best,),) in found]

    for num_beams in (1, 3):
        expected = one_by_one(num_beams, LONGEST)
        for batch_size in (1, 3, B):
            found = generate(model, TARGET, given(memory), num_beams, LONGEST, batch_size)
            assert found == expected
        shorter = generate(model, TARGET, given(memory), num_beams, 3)
        assert shorter == one_by_one(num_beams, 3)
    assert one_by_one(1, LONGEST) != one_by_one(3, LONGEST)
    once = SearchOptions(no_repeat_ngram_size=1)  # each word
    written = generate(model, TARGET, given(memory), 3, LONGEST, options=once)
    assert written == one_by_one(3, LONGEST, once) != one_by_one(3, LONGEST)


def test_examples_are_read_lazily_and_without_gradients():
    decoder = make_decoder("lstm prefix", 1)
    events = []

    class Listening(Counted):
        def step(self, token, state):
            events.append("step")
            return super().step(token, state)

    memory = make_memory(3)

    class Reading(DataSet):
        """Records which example is read."""

        def __init__(self):
            super().__init__()
            self.references = [[]] * 3

        def __getitem__(self, index):
            events.append(f"example {index}")
            return given(memory)[index]

    model = Given(None)
    model.decoder = Listening(decoder)
    assert len(generate(model, TARGET, Reading(), max_length=1, batch_size=2)) == 3
    assert events == ["example 0", "example 1", "step", "example 2", "step"]
    assert torch.is_grad_enabled()


class TinyModel(nn.Module):
    """Its memory is one position, made of the mean of each colour channel."""

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


class Album(DataSet):
    """Seven pictures of noise."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.pictures = torch.randint(256, (7, 3, 2, 2), generator=generator, dtype=torch.uint8)
        self.columns["image"] = LazyColumn(self.pictures.__getitem__, range(7))
        self.references = [[["word5"]] for _ in range(7)]
        self.texts = [["word5"] for _ in range(7)]
        self.names = [f"picture {i}" for i in range(7)]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_generate_takes_a_data_set_or_a_list_in_batches(num_beams):
    album = Album()
    model = TinyModel().train()
    written = generate(model, TARGET, album, num_beams, LONGEST, batch_size=3)
    assert not model.training and model.batch_sizes == [3, 3, 1]
    with torch.no_grad():
        memory = model.encode({"image": album.pictures})
        found = beam_search(model.decoder, memory, num_beams, LONGEST)
        if num_beams == 1:
            assert_same(greedy_search(model.decoder, memory, LONGEST), [best for (best,) in found])
    assert written == [[f"word{word}" for word in best.tokens] for (best,) in found]
    listed = [album[i] for i in range(7)]
    assert generate(model, TARGET, listed, num_beams, LONGEST, batch_size=3) == written
    if num_beams > 1:
        assert generate(model, TARGET, album, max_length=LONGEST) != written


class FixedAttention(nn.Linear):
    """A model with given attention weights; it keeps its last batch."""

    def forward(self, batch, need_weights):
        self.batch = batch
        return None, self.weights


@pytest.mark.parametrize("rows", [1, 3, 5])
def test_attention_maps_are_those_of_the_last_layer_row_by_row(rows):
    torch.manual_seed(4)
    vocabulary = Vocabulary(["red", "star"])
    picture = torch.zeros(3, 7, 7)
    model = FixedAttention(1, 1)
    # (B, layers, H, T + 1, N); as with a prefix, they do not sum to 1
    model.weights = torch.rand(1, 2, 3, 4, rows * rows)
    maps = attention_maps(model, {"target": vocabulary}, picture, ["star", "blue", "red"])
    assert maps.shape == (3, rows, rows) and not model.training
    assert model.batch["target"].tolist() == [[5, UNK, 4, EOS]]
    assert model.batch["image"].shape == (1, 3, 7, 7)
    for t in range(3):
        total = sum(model.weights[0, 1, h, t] for h in range(3))
        for n in range(rows * rows):
            expected = (total[n] / total.sum()).item()
            assert maps[t, n // rows, n % rows].item() == pytest.approx(expected, abs=1e-6)


READ = Vocabulary([f"wort{i}" for i in range(4, 37)])
SENTENCES = [
    ["wort5"] * 7,
    ["wort9"],
    [f"wort{i}" for i in range(4, 15)],
    ["wort7", "wort8"],
    ["wort8", "new"],
    [],
    ["wort30"] * 3,
]
VOCABULARIES = {"target": WORDS, "source": READ}
WRITERS = {
    "lstm": {"name": "lstm", "hidden_size": H},
    "transformer": {"name": "transformer", "num_heads": 2, "num_layers": 1},
}


def a_translator(name, **settings):
    torch.manual_seed(3)
    if name == "transformer":
        settings["max_length"] = LONGEST
    source = WRITERS[name] | {"vocab_size": len(READ), "num_layers": 1}
    if name == "transformer":
        source["max_length"] = LONGEST
    encoders = {
        "image": {"name": "resnet", "depth": (1,), "width": 5, "image_size": 32},
        "source": source,
    }
    model = build_model(ModelConfig(V, encoders, WRITERS[name] | settings, D))
    with torch.no_grad():
        for parameter in (*model.decoder.parameters(), *model.encoders["source"].parameters()):
            parameter.mul_(3)
        model.encoders["image"].norm.weight.mul_(5)
        bias(model.decoder)[EOS] = 1.5
    return model


@pytest.fixture(params=["lstm", "transformer"])
def translator(request):
    return a_translator(request.param)


def examples_of(pictures):
    """The sentences, some with a picture: pictures is {index: picture}."""
    examples = [{"source": words} for words in SENTENCES]
    for i, picture in pictures.items():
        examples[i]["image"] = picture
    return examples


class Sentences(DataSet):
    """The same as a data set."""

    def __init__(self, pictures):
        super().__init__()
        keys = [i if i in pictures else None for i in range(len(SENTENCES))]
        self.columns["image"] = LazyColumn(pictures.__getitem__, keys)
        self.columns["source"] = SENTENCES
        self.references = [[] for _ in SENTENCES]


def one_by_one(model, sentences, pictures, num_beams=1):
    written = []
    for i, sentence in enumerate(sentences):
        batch = {"source": torch.tensor([[*READ.encode(sentence), EOS]])}
        if i in pictures:
            batch["image"] = pictures[i].unsqueeze(0)
        with torch.no_grad():
            ((best,),) = beam_search(model.decoder, model.eval().encode(batch), num_beams, LONGEST)
        written.append([f"word{word}" for word in best.tokens])
    return written


@pytest.mark.parametrize("num_beams", [1, 3])
def test_translations_keep_their_order_and_do_not_depend_on_the_batch(translator, num_beams):
    greys = {0: 30, 2: 250, 3: 120}
    pictures = {i: torch.full((3, 32, 32), g, dtype=torch.uint8) for i, g in greys.items()}
    plain = one_by_one(translator, SENTENCES, {}, num_beams)
    shown = one_by_one(translator, SENTENCES, pictures, num_beams)
    changed = {i for i in range(7) if plain[i] != shown[i]}
    assert len(set(map(str, plain))) > 4 and changed <= pictures.keys() and len(changed) > 1
    data = Sentences(pictures)
    for batch_size in (1, 3, 100):
        options = num_beams, LONGEST, batch_size
        assert generate(translator.train(), VOCABULARIES, examples_of({}), *options) == plain
        assert not translator.training
        assert generate(translator, VOCABULARIES, examples_of(pictures), *options) == shown
        assert generate(translator, VOCABULARIES, data, *options) == shown  # sorted by length
        assert generate(translator, VOCABULARIES, data.without("image"), *options) == plain
    shorter = generate(translator, VOCABULARIES, examples_of({}), max_length=2)
    assert max(map(len, shorter)) == 2
    assert generate(translator, VOCABULARIES, []) == []


def test_generate_batches_sources_of_similar_length(translator, monkeypatch):
    shapes = []
    encode = translator.encode

    def listening(batch):
        assert not torch.is_grad_enabled()
        shapes.append(tuple(batch["source"].shape))
        return encode(batch)

    monkeypatch.setattr(translator, "encode", listening)
    generate(translator, VOCABULARIES, Sentences({}), max_length=1, batch_size=2)
    assert shapes == [(2, 2), (2, 3), (2, 8), (1, 12)]


ALIGNED = [("lstm", {}), ("transformer", {"num_layers": 3}), ("transformer", {"fusion": "prefix"})]


@pytest.mark.parametrize("name, settings", ALIGNED, ids=str)
def test_alignment_is_the_mean_attention_of_the_heads(name, settings):
    model = a_translator(name, **settings)
    source = ["wort5", "wort6", "new", "wort5", "wort7"]
    found = alignment(model.train(), VOCABULARIES, source, ["word8", "word9", "word8"])
    assert found.shape == (settings.get("num_layers", 1), 3, 5)
    assert not model.training and not found.requires_grad
    source = torch.tensor([[5, 6, UNK, 5, 7, EOS]])
    batch = {"source": source, "target": torch.tensor([[8, 9, 8, EOS]])}
    _, weights = model(batch, need_weights=True)  # (1, layers, heads, 4, 6)
    for layer in range(len(found)):
        for t in range(3):
            for s in range(5):
                mean = weights[0, layer, :, t, s].mean().item()
                assert found[layer, t, s].item() == pytest.approx(mean, abs=1e-6)
    assert (found.sum(-1) < 1).all() and (found > 0).all()


@pytest.mark.parametrize("name, settings", ALIGNED, ids=str)
def test_attention_maps_of_a_model_are_its_normalized_attention(name, settings):
    model = a_translator(name, **settings)
    words = ["word8", "word9", "word8"]
    picture = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    maps = attention_maps(model.train(), VOCABULARIES, picture, words)
    batch = {"image": picture[None], "target": torch.tensor([[8, 9, 8, EOS]])}
    _, weights = model(batch, need_weights=True)
    rows = math.isqrt(weights.size(-1))
    assert maps.shape == (3, rows, rows) and not model.training and not maps.requires_grad
    for t in range(3):
        mean = weights[0, -1, :, t].mean(0)  # (N,), of the last layer
        for n in range(rows * rows):
            expected = (mean[n] / mean.sum()).item()
            assert maps[t, n // rows, n % rows].item() == pytest.approx(expected, abs=1e-6)


# -------------------------------------------------------------------------------------------------
# Answers, chosen among candidates or written.

CANDIDATES = [
    ["word7", "word8", "word9"],
    ["word7"],
    ["word5", "new"],
    [],
    ["other", "word28"],
    ["word7", "word8"],
]


@torch.no_grad()
def log_probs_by_hand(decoder, memory, candidates):
    """(B, A), from a pass over each whole candidate with its <eos>."""
    rows = []
    for i in range(len(memory.tokens)):
        totals = []
        for words in candidates:
            target = [*WORDS.encode(words), EOS]
            logits = decoder(torch.tensor([[BOS, *target[:-1]]]), row(memory, i))[0]  # (T, V)
            log_probs = logits.log_softmax(-1)
            totals.append(sum(log_probs[t, word].item() for t, word in enumerate(target)))
        rows.append(totals)
    return torch.tensor(rows)


@pytest.mark.parametrize("kind, num_layers", DECODERS)
def test_candidate_log_probs_equal_those_under_teacher_forcing(kind, num_layers):
    decoder = make_decoder(kind, num_layers)
    memory = make_memory()
    model = Given(decoder).train()
    found = candidate_log_probs(model, TARGET, given(memory), CANDIDATES)
    assert found.shape == (B, len(CANDIDATES)) and not found.requires_grad and not model.training
    expected = log_probs_by_hand(decoder, memory, CANDIDATES)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_candidate_log_probs_do_not_depend_on_the_others(kind, monkeypatch):
    """Neither on other examples, nor on other candidates, nor on how many are scored at a time."""
    model = Given(make_decoder(kind, 1))
    memory = make_memory()
    together = candidate_log_probs(model, TARGET, given(memory), CANDIDATES)
    for i in range(B):
        alone = candidate_log_probs(model, TARGET, given(row(memory, i)), CANDIDATES)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-4)
    for a, words in enumerate(CANDIDATES):
        alone = candidate_log_probs(model, TARGET, given(memory), [words])
        torch.testing.assert_close(alone[:, 0], together[:, a], rtol=1e-4, atol=1e-4)
    for max_rows, largest in ((1, 1), (2 * len(CANDIDATES) + 1, 2)):
        monkeypatch.setattr("mmscratch.decoding.MAX_ROWS", max_rows)
        model.batch_sizes = []
        found = candidate_log_probs(model, TARGET, given(memory), CANDIDATES)
        torch.testing.assert_close(found, together, rtol=1e-4, atol=1e-4)
        assert sum(model.batch_sizes) == B and max(model.batch_sizes) <= largest


def test_candidate_log_probs_keep_the_order_of_a_data_set(translator, monkeypatch):
    """Which is read in batches of similar length."""
    monkeypatch.setattr("mmscratch.decoding.MAX_ROWS", 2 * len(CANDIDATES))
    found = candidate_log_probs(translator, VOCABULARIES, Sentences({}), CANDIDATES)
    for i, sentence in enumerate(SENTENCES):
        batch = {"source": torch.tensor([[*READ.encode(sentence), EOS]])}
        with torch.no_grad():
            memory = translator.eval().encode(batch)
        expected = log_probs_by_hand(translator.decoder, memory, CANDIDATES)
        torch.testing.assert_close(found[i : i + 1], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_of_different_answers_sum_to_at_most_1(kind):
    """No answer is counted as the beginning of another, because each has its <eos>."""
    model = Given(make_decoder(kind, 1))
    words = WORDS.words[4:]
    candidates = [[], *([word] for word in words), *(list(two) for two in product(words, words))]
    found = candidate_log_probs(model, TARGET, given(make_memory()), candidates)
    for count in (1, 1 + len(words), len(candidates)):
        assert (found[:, :count].exp().sum(1) < 1).all()


def test_half_precision_candidates_are_summed_in_float32():
    class Half(Table):
        def step(self, token, state):
            logits, state = super().step(token, state)
            return logits.bfloat16(), state

    full = Table(V)
    full.logits = full.logits.bfloat16().float()
    found = []
    for decoder in (full, Half(V)):
        memory = first_states(B)
        found.append(candidate_log_probs(Given(decoder), TARGET, given(memory), CANDIDATES))
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-6)


def test_no_candidates_are_refused_in_one_line():
    model = Given(make_decoder("lstm prefix", 1))
    with pytest.raises(ValueError, match="^there are no candidates to choose from$"):
        candidate_log_probs(model, TARGET, given(make_memory()), [])


def tiny_vocabulary(size):
    """{"target": a vocabulary of `size` tokens, four of them special}."""
    return {"target": Vocabulary([f"word{i}" for i in range(4, size)])}


def all_answers(after, max_length):
    """{words: probability} of every answer of fewer than max_length words."""
    found = {}
    prefixes = {(): 1.0}
    for _ in range(max_length):
        longer = {}
        for words, probability in prefixes.items():
            for word, log_prob in after(words).items():
                if word == EOS:
                    found[words] = probability * math.exp(log_prob)
                else:
                    longer[(*words, word)] = probability * math.exp(log_prob)
        prefixes = longer
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("vocab_size", [5, 6, 7])
def test_open_answers_are_the_most_probable_of_all(vocab_size, seed):
    decoder = Table(vocab_size, seed)
    decoder.logits[:, EOS] += 3  # short answers, so that all others are improbable
    memory = first_states(1)
    answers = all_answers(words_after(decoder, memory), 9)
    expected = sorted(answers.items(), key=lambda item: -item[1])[:3]
    words = tiny_vocabulary(vocab_size)
    (example,) = given(memory)
    found = rank_answers(Given(decoder).train(), words, example, count=3)
    assert [tuple(words["target"].encode(answer)) for answer, _ in found] == [
        answer for answer, _ in expected
    ]
    probabilities = [probability for _, probability in expected]
    assert [p for _, p in found] == pytest.approx(probabilities, rel=1e-4)


def test_best_open_answer_need_not_begin_with_the_most_probable_word():
    """Greedy search would begin with word 4, after which no answer is as probable as word 5."""
    language = {(): {4: 0.6, 5: 0.4}, (4,): {6: 0.3, 7: 0.3, 8: 0.4}}
    (example,) = given(first_states(1))
    found = rank_answers(Given(PrefixTable(language)), TARGET, example, count=1)
    assert found == [(["word5"], pytest.approx(0.4))]


@pytest.mark.parametrize("vocab_size", [4, 5])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_vocabularies_with_fewer_words_than_beams(vocab_size, count):
    decoder = Table(vocab_size)
    (example,) = given(first_states(1))
    words = tiny_vocabulary(vocab_size)
    found = rank_answers(Given(decoder), words, example, count=count)
    answers = [answer for answer, _ in found]
    assert len(answers) == (1 if vocab_size == 4 else count)  # of no words, only the empty answer
    assert len(set(map(tuple, answers))) == len(answers)
    probabilities = [p for _, p in found]
    assert probabilities == sorted(probabilities, reverse=True) and sum(probabilities) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_closed_answers_are_sorted_and_their_probabilities_sum_to_1(kind):
    model = Given(make_decoder(kind, 1)).train()
    memory = make_memory()
    log_probs = log_probs_by_hand(model.decoder, memory, CANDIDATES)
    for i, example in enumerate(given(memory)):
        whole = rank_answers(model, TARGET, example, CANDIDATES, count=len(CANDIDATES))
        odds = [math.exp(log_prob) for log_prob in log_probs[i].tolist()]
        order = sorted(range(len(odds)), key=lambda a: -odds[a])
        assert [answer for answer, _ in whole] == [CANDIDATES[a] for a in order]
        expected = [odds[a] / sum(odds) for a in order]
        assert [p for _, p in whole] == pytest.approx(expected, rel=1e-3)
        assert sum(p for _, p in whole) == pytest.approx(1, abs=1e-5)
        assert all(type(p) is float for _, p in whole)
        assert rank_answers(model, TARGET, example, CANDIDATES, count=99) == whole
        assert rank_answers(model, TARGET, example, CANDIDATES) == whole[:3]
        candidates = [tuple(answer) for answer in CANDIDATES[:2]]
        found = rank_answers(model, TARGET, example, candidates, count=1)
        assert len(found) == 1 and found[0][0] in CANDIDATES[:2]


def test_open_answers_of_a_model_are_those_of_its_beam_search(translator):
    words = ["wort5", "wort6"]
    with torch.no_grad():
        bias(translator.decoder)[EOS] = 9.0  # the search ends before the positions do
    found = rank_answers(translator.train(), VOCABULARIES, {"source": words}, count=2)
    assert not translator.training
    batch = {"source": torch.tensor([[*READ.encode(words), EOS]])}
    with torch.no_grad():
        memory = translator.encode(batch)
        for answer, probability in found:
            expected = log_probs_by_hand(translator.decoder, memory, [answer])
            assert math.log(probability) == pytest.approx(expected.item(), abs=1e-3)
