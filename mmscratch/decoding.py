"""Writing: from a model's probabilities to a sentence. It knows of a decoder only start, step and reorder."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .attention import Memory
from .batches import collate, to_device, with_numbers
from .text import BOS, EOS, PAD, UNK


class Hypothesis(NamedTuple):
    """A sentence that was written: its word numbers without <eos>, the log-probability of it all, and its score.

        score = log_prob / length ** length_penalty

    The length counts <eos>, where the sentence was not cut. Greedy search and sampling score with a penalty of 1.
    """

    tokens: list[int]
    log_prob: float
    score: float


def greedy_search(decoder: nn.Module, memory: Memory, max_length: int = 40) -> list[Hypothesis]:
    """The most probable next word, again and again, until <eos> or `max_length` words; one sentence a memory.

    <pad>, <bos> and <unk> are never written. All sentences of the batch go on side by side until the last has ended.
    Put the model into eval mode first.
    """
    return _word_by_word(decoder, memory, max_length, lambda log_probs: log_probs.argmax(-1))


def sample(
    decoder: nn.Module,
    memory: Memory,
    max_length: int = 40,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> list[Hypothesis]:
    """Each next word drawn at random, by softmax(logits / temperature); one sentence a memory, as `greedy_search`.

    With `top_k` only among the k most probable words (Fan et al. 2018); with `top_p` only among the fewest words that
    together have at least the probability p (the nucleus: Holtzman et al. 2020), of those that top_k has left. The
    log-probabilities are the model's own, as before all this. `generator`, on the memory's device, makes it repeatable.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is a number above 0, not {temperature}; for the most probable words call greedy_search")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is 1 or more words, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is a probability above 0 and at most 1, not {top_p}")

    def draw(log_probs: Tensor) -> Tensor:
        logits, words = log_probs.sort(dim=-1, descending=True, stable=True)  # (B, V)
        logits = (logits - logits[:, :1]) / temperature  # the largest is 0, however low the temperature
        if top_k is not None:
            logits[:, top_k:] = -torch.inf
        probabilities = logits.softmax(-1)
        if top_p is not None:
            before = probabilities.cumsum(-1) - probabilities  # of the words that are more probable
            probabilities = probabilities.masked_fill(before >= top_p, 0.0)
        return words.gather(1, probabilities.multinomial(1, generator=generator)).squeeze(1)

    return _word_by_word(decoder, memory, max_length, draw)


@torch.no_grad()
def _word_by_word(decoder: nn.Module, memory: Memory, max_length: int, choose: Callable[[Tensor], Tensor]) -> list[Hypothesis]:
    """`choose`: log-probabilities of the next word (B, V) -> the words chosen (B,)."""
    if max_length < 1:
        raise ValueError(f"max_length is 1 or more words, not {max_length}")
    state = decoder.start(memory)
    token = torch.full((memory.tokens.size(0),), BOS, device=memory.tokens.device)
    ended = torch.zeros_like(token, dtype=torch.bool)
    log_prob = torch.zeros(token.shape, device=token.device)
    written = []
    for _ in range(max_length):
        logits, state = decoder.step(token, state)  # (B, V)
        log_probs = _log_probs(logits)
        token = choose(log_probs).masked_fill(ended, EOS)  # (B,)
        log_prob += log_probs.gather(1, token.unsqueeze(1)).squeeze(1).masked_fill(ended, 0.0)
        ended |= token == EOS
        written.append(token)
        if ended.all():
            break
    return [_hypothesis(row, total, 1.0) for row, total in zip(torch.stack(written, dim=1).tolist(), log_prob.tolist())]


def _log_probs(logits: Tensor) -> Tensor:
    """Log-probabilities of the next word, (B, V); of those that are never written, -inf."""
    log_probs = logits.float().log_softmax(-1)
    log_probs[:, [PAD, BOS, UNK]] = -torch.inf
    return log_probs


def _hypothesis(row: list[int], log_prob: float, length_penalty: float) -> Hypothesis:
    """Of the words of a row, up to the first <eos>, if there is one."""
    ended = EOS in row
    tokens = row[: row.index(EOS)] if ended else row
    return Hypothesis(tokens, log_prob, log_prob / (len(tokens) + ended) ** length_penalty)


class Candidate(NamedTuple):
    """A node of the tree of a beam search: a sentence, or the beginning of one, that was looked at."""

    parent: int  # its place in the list of candidates; -1: <bos>
    token: int
    log_prob: float  # of all words up to here
    score: float
    fate: str  # "kept" for the next step, "finished": a sentence was found, or "dropped"


@torch.no_grad()
def beam_search(
    decoder: nn.Module,
    memory: Memory,
    num_beams: int = 5,
    max_length: int = 40,
    length_penalty: float = 1.0,
    n_best: int = 1,
    min_length: int = 0,
    no_repeat_ngram_size: int = 0,
    keep_greedy: bool = False,
    trees: list[list[Candidate]] | None = None,
) -> list[list[Hypothesis]]:
    """For each memory the `n_best` sentences of highest score that a search of width `num_beams` finds, the best first.

        score = log_prob / length ** length_penalty

    The `num_beams` most probable beginnings are kept. Of all their continuations by one word, the 2 · num_beams most
    probable are looked at: an <eos> among the first num_beams is a sentence found, and the first num_beams that do not end
    are kept. At `max_length` words they are cut. A search is over as soon as none of its beginnings can become better than
    what was found. A penalty above 0 favours long sentences, one below 0 short ones. With one beam it is `greedy_search`.

    No sentence has fewer than `min_length` words. With `no_repeat_ngram_size` n, no n words in a row stand in it twice.
    Where these leave no word at all, <eos> is written. A search can lose the beginning of a sentence that is better than
    all it finds, and be worse than greedy; with `keep_greedy` it takes the greedy sentence then. To `trees`, if given, a
    list of all candidates is added for each memory: `plots.search_tree` draws it.

    Agrees with `generate` of Hugging Face's transformers, early_stopping="never". Source: Graves 2012; Wu et al. 2016.
    """
    if num_beams < 1:
        raise ValueError(f"num_beams is 1 or more beams, not {num_beams}")
    if not 1 <= n_best <= num_beams:
        raise ValueError(f"n_best is 1 to num_beams ({num_beams}) sentences, not {n_best}")
    if max_length < 1 or not 0 <= min_length <= max_length:
        raise ValueError(f"max_length is 1 or more, and min_length from 0 to max_length, not {max_length} and {min_length}")
    B, K, device = memory.tokens.size(0), 1, memory.tokens.device
    results, grown = [[] for _ in range(B)], [[] for _ in range(B)]
    live = torch.arange(B, device=device)  # (B,) the memories whose search goes on
    log_prob, words = torch.zeros(B, K, device=device), live.new_empty(B, K, 0)  # of each beam; (B, K), (B, K, t)
    found = torch.full((B, n_best), -torch.inf, device=device)  # the best scores so far
    node = live.new_full((B, K), -1)  # each beam's place in the tree
    state, token = decoder.start(memory), live.new_full((B,), BOS)
    for length in range(1, max_length + 1):
        logits, state = decoder.step(token, state)  # (B · K, V)
        log_probs = _log_probs(logits).unflatten(0, (-1, K))  # (B, K, V)
        _forbid(log_probs, words, length <= min_length, no_repeat_ngram_size)
        total, V = (log_prob.unsqueeze(-1) + log_probs).flatten(1), logits.size(-1)  # (B, K · V)
        total, place = total.topk(min(2 * num_beams, K * V))  # (B, 2K), and so are all of the candidates
        beam, token = place // V, place % V
        words = torch.cat([_pick(words, beam), token.unsqueeze(-1)], dim=-1)  # (B, 2K, t)

        ended = (token == EOS) | (length == max_length)
        finished = ended & (total > -torch.inf) & (torch.arange(ended.size(1), device=device) < num_beams)
        score = total / length**length_penalty
        found = torch.cat([found, score.masked_fill(~finished, -torch.inf)], dim=1).topk(n_best).values
        of = live.unsqueeze(1).expand_as(finished)
        for i, row, probability in zip(*(x[finished].tolist() for x in (of, words, total))):
            results[i].append(_hypothesis(row, probability, length_penalty))

        log_prob, kept = total.masked_fill(ended, -torch.inf).topk(min(num_beams, total.size(1)))  # (B, K)
        if trees is not None:
            node = _grow(grown, live, node.gather(1, beam), token, total, score, finished, kept, log_prob > -torch.inf)
        longest = max_length if length_penalty > 0 else length + 1  # where the best beam's score would be highest
        going = log_prob[:, 0] / longest**length_penalty > found[:, -1]  # (B,)
        if num_beams == 1:
            going &= ~ended[:, 0]
        if not going.any():
            break
        source = beam.gather(1, kept) + K * torch.arange(len(live), device=device).unsqueeze(1)  # (B, K) rows of the state
        state = decoder.reorder(state, source[going].flatten())
        words, token = _pick(words, kept)[going], token.gather(1, kept)[going].flatten()
        live, log_prob, found, node, K = live[going], log_prob[going], found[going], node[going], kept.size(1)

    if not all(results):
        raise FloatingPointError(f"memory {results.index([])}: no next word has a probability; are there NaNs in the model?")
    if trees is not None:
        trees += grown
    if keep_greedy:
        greedy = beam_search(decoder, memory, 1, max_length, length_penalty, 1, min_length, no_repeat_ngram_size)
        for hypotheses, (best,) in zip(results, greedy):
            if all(hypothesis.tokens != best.tokens for hypothesis in hypotheses):
                hypotheses.append(best)
    return [sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)[:n_best] for hypotheses in results]


def _grow(grown, live, parent, token, total, score, finished, kept, alive) -> Tensor:
    """Add the candidates (B, 2K) to the trees that are `live`; `kept` (B, K) of them, where `alive`, go on. Their places."""
    size = len(grown[live[0]])
    is_kept = torch.zeros_like(finished).scatter(1, kept, alive)
    columns = (x.tolist() for x in (parent, token, total, score, finished, is_kept))
    for i, *candidates in zip(live.tolist(), *columns):
        for *candidate, was_finished, was_kept in zip(*candidates):
            grown[i].append(Candidate(*candidate, "finished" if was_finished else "kept" if was_kept else "dropped"))
    return size + kept


def _pick(words: Tensor, index: Tensor) -> Tensor:
    """Of words (B, K, t) the rows index (B, K') of each batch entry: (B, K', t)."""
    return words.gather(1, index.unsqueeze(-1).expand(-1, -1, words.size(-1)))


def _forbid(log_probs: Tensor, words: Tensor, too_short: bool, n: int) -> None:
    """Of the next words (B, K, V): no <eos> if `too_short`, and none that would end n words that were written before."""
    if not too_short and n == 0:
        return
    eos = log_probs[..., EOS].clone()
    if too_short:
        log_probs[..., EOS] = -torch.inf
    if 0 < n <= words.size(-1):
        ngrams = words.unfold(-1, n, 1)  # (B, K, t - n + 1, n)
        last = words[..., words.size(-1) - n + 1 :].unsqueeze(2)  # (B, K, 1, n - 1)
        repeated = (ngrams[..., :-1] == last).all(-1)  # (B, K, t - n + 1)
        log_probs.scatter_(-1, ngrams[..., -1].masked_fill(~repeated, PAD), -torch.inf)  # <pad> is never written anyway
    nothing_left = log_probs.amax(-1) == -torch.inf
    log_probs[..., EOS] = torch.where(nothing_left, eos, log_probs[..., EOS])


@torch.no_grad()
def generate(
    model: nn.Module,
    vocabularies: dict,
    examples: Sequence[dict],
    num_beams: int = 1,
    max_length: int = 40,
    batch_size: int = 100,
) -> list[list[str]]:
    """What the model writes about each example, as tokens: by `greedy_search`, or with more beams by `beam_search`.

    An example is a dict of what is given, as data sets have it: {"image": (3, S, S) uint8, "source": list of words, …}.
    `examples` may be a data set: each is then read when its turn comes. Puts the model into eval mode.
    """
    model.eval()
    order = _by_length(examples)
    written = {}
    for first in range(0, len(order), batch_size):
        rows = order[first : first + batch_size]
        memory = model.encode(_batch(model, vocabularies, [examples[i] for i in rows]))
        if num_beams == 1:
            hypotheses = greedy_search(model.decoder, memory, max_length)
        else:
            hypotheses = [best for (best,) in beam_search(model.decoder, memory, num_beams, max_length)]
        for i, hypothesis in zip(rows, hypotheses):
            written[i] = vocabularies["target"].decode(hypothesis.tokens)
    return [written[i] for i in range(len(examples))]


def _by_length(examples: Sequence[dict]) -> list[int]:
    """The examples' numbers, those with short sources first, so that a batch holds little padding."""
    sources = getattr(examples, "columns", {}).get("source")
    if sources is None:
        return list(range(len(examples)))
    return sorted(range(len(examples)), key=lambda i: len(sources[i]))


def _batch(model: nn.Module, vocabularies: dict, examples: Sequence[dict]) -> dict[str, Tensor]:
    """The batch of some examples, their words as numbers, on the model's device."""
    batch = collate([with_numbers(example, vocabularies) for example in examples])
    return to_device(batch, next(model.parameters()).device)


@torch.no_grad()
def attention_weights(model: nn.Module, vocabularies: dict, example: dict, words: Sequence[str]) -> Tensor:
    """Where each layer of the model looks for each of T words that it writes about an example: (layers, T, N).

    It is the mean over the layer's heads. Puts the model into eval mode.
    """
    batch = _batch(model, vocabularies, [example | {"target": list(words)}])
    _, weights = model.eval()(batch, need_weights=True)  # (1, layers, H, T + 1, N)
    return weights[0].mean(1)[:, :-1].cpu()  # without <eos>


def alignment(model: nn.Module, vocabularies: dict, source: Sequence[str], words: Sequence[str]) -> Tensor:
    """Where each layer looks in a sentence of S words for each of T words that it writes: (layers, T, S).

    The attention to the sentence's <eos> is left out, so a row sums to at most 1.
    """
    return attention_weights(model, vocabularies, {"source": source}, words)[..., :-1]


def attention_maps(model: nn.Module, vocabularies: dict, picture: Tensor, words: Sequence[str]) -> Tensor:
    """Where the model looks in a picture (3, S, S) for each of T words that it writes: (T, h, w), each summing to 1.

    For a Transformer it is the last layer's attention. The grid of the picture's patches is square.
    """
    maps = attention_weights(model, vocabularies, {"image": picture}, words)[-1]  # (T, N)
    maps = maps / maps.sum(-1, keepdim=True)  # a prefix shares the attention with the words
    return maps.unflatten(-1, (math.isqrt(maps.size(-1)), -1))  # (T, h, w)
