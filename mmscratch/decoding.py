"""Writing: from a model's probabilities to a sentence. It knows of a decoder only start, step and reorder."""

import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .attention import Memory
from .batches import collate, numericalize, to_device
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
        raise ValueError(
            f"temperature is a number above 0, not {temperature}; for the most probable words call greedy_search"
        )
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is 1 or more words, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is a probability above 0 and at most 1, not {top_p}")

    def draw(log_probs: Tensor) -> Tensor:
        logits, words = log_probs.sort(dim=-1, descending=True, stable=True)  # (B, V)
        logits = (
            logits - logits[:, :1]
        ) / temperature  # the largest is 0, however low the temperature
        if top_k is not None:
            logits[:, top_k:] = -torch.inf
        probabilities = logits.softmax(-1)
        if top_p is not None:
            before = probabilities.cumsum(-1) - probabilities  # of the words that are more probable
            probabilities = probabilities.masked_fill(before >= top_p, 0.0)
        return words.gather(1, probabilities.multinomial(1, generator=generator)).squeeze(1)

    return _word_by_word(decoder, memory, max_length, draw)


@torch.no_grad()
def _word_by_word(
    decoder: nn.Module, memory: Memory, max_length: int, choose: Callable[[Tensor], Tensor]
) -> list[Hypothesis]:
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
    return [
        _hypothesis(row, total, 1.0)
        for row, total in zip(torch.stack(written, dim=1).tolist(), log_prob.tolist())
    ]


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


STATUSES = ("dropped", "kept", "finished")


class Candidate(NamedTuple):
    """A node of the tree of a beam search: a sentence, or the beginning of one, that was looked at."""

    parent: int  # its place in the list of candidates; -1: <bos>
    token: int
    log_prob: float  # of all words up to here
    score: float
    status: str  # "kept" for the next step, "finished": a sentence was found, or "dropped"


class SearchOptions(NamedTuple):
    """What a beam search prefers, forbids and returns.

    length_penalty: the length's exponent in the score. The larger, the longer the sentences.
    n_best: the number of sentences for each memory, from 1 to the number of beams.
    min_length: the fewest words that a sentence may have.
    no_repeat_ngram_size: no sentence has the same n words in a row twice; 0 allows everything.
    keep_greedy: the greedy sentence competes, too, so the best is never worse than greedy search.

    Where the rules forbid every word, <eos> is written.
    """

    length_penalty: float = 1.0
    n_best: int = 1
    min_length: int = 0
    no_repeat_ngram_size: int = 0
    keep_greedy: bool = False


@torch.no_grad()
def beam_search(
    decoder: nn.Module,
    memory: Memory,
    num_beams: int = 5,
    max_length: int = 40,
    options: SearchOptions = SearchOptions(),
    trees: list[list[Candidate]] | None = None,
) -> list[list[Hypothesis]]:
    """For each memory, the `n_best` sentences of highest score that the search finds, best first.

        score = log_prob / length ** length_penalty

    Beams are the most probable partial sentences. Each step continues them by every word: of the
    2 · num_beams most probable results, an <eos> among the first num_beams is a sentence found, and
    the first num_beams without one are the next beams. It ends when no beam can become better.

    decoder: needs only `start`, `step` and `reorder`; put the model into eval mode first.
    memory: of B examples, searched side by side.
    num_beams: the number of partial sentences kept; with one it is `greedy_search`.
    max_length: sentences are cut at this number of words.
    options: the length penalty, `n_best` and the rules: see `SearchOptions`.
    trees: a list to which the tree of each memory's candidates is added, for `plots.search_tree`.

    Agrees with transformers' generate(early_stopping="never"). Source: Graves 2012, Wu et al. 2016.
    """
    _check_search(num_beams, max_length, options)
    found = [[] for _ in range(len(memory.tokens))]
    steps = []
    beams = _first_beams(memory, options.n_best)
    token = torch.full_like(beams.memory_index, BOS)  # (B,)
    state = decoder.start(memory)
    for _ in range(max_length):
        logits, state = decoder.step(token, state)  # (B · K, V)
        candidates = _expand(beams, logits, num_beams, max_length, options)
        _collect(found, beams, candidates, options.length_penalty)
        beams, rows = _keep(beams, candidates, num_beams)
        if trees is not None:
            steps.append((candidates, beams))
        going = _can_improve(beams, candidates, max_length, options.length_penalty)  # (B,)
        if not going.any():
            break
        beams = _Beams(*(part[going] for part in beams))
        token = beams.words[:, :, -1].flatten()  # (B · K,)
        state = decoder.reorder(state, rows[going].flatten())
    _check_found(found)
    if trees is not None:
        trees += _trees(steps)
    if options.keep_greedy:
        _add_greedy(found, decoder, memory, max_length, options)
    return [_best(hypotheses, options.n_best) for hypotheses in found]


class _Beams(NamedTuple):
    """The K best partial sentences, of t words, of each of the B memories whose search goes on."""

    memory_index: Tensor  # (B,) which of the memories it is
    words: Tensor  # (B, K, t)
    log_prob: Tensor  # (B, K) of all words, the best first; -inf: there are fewer than K
    place: Tensor  # (B, K) each beam's place among the candidates of its step
    best_scores: Tensor  # (B, n_best) of the sentences found; -inf: there are fewer


class _Candidates(NamedTuple):
    """The 2K most probable continuations of each memory's beams by one word, the best first."""

    beam: Tensor  # (B, 2K) which beam is continued
    words: Tensor  # (B, 2K, t) with the new one
    log_prob: Tensor  # (B, 2K) of all words
    score: Tensor  # (B, 2K)
    ended: Tensor  # (B, 2K) bool: by <eos>, or cut
    finished: Tensor  # (B, 2K) bool: a sentence found


def _first_beams(memory: Memory, n_best: int) -> _Beams:
    """One beam without words for each memory."""
    B = memory.tokens.size(0)
    device = memory.tokens.device
    return _Beams(
        memory_index=torch.arange(B, device=device),
        words=torch.empty(B, 1, 0, dtype=torch.long, device=device),
        log_prob=torch.zeros(B, 1, device=device),
        place=torch.zeros(B, 1, dtype=torch.long, device=device),
        best_scores=torch.full((B, n_best), -torch.inf, device=device),
    )


def _expand(
    beams: _Beams, logits: Tensor, num_beams: int, max_length: int, options: SearchOptions
) -> _Candidates:
    """The 2 · num_beams most probable continuations by one word of each memory's beams.

    `logits` (B · K, V) are those of each beam's next word. A candidate is a sentence found if it
    has ended, is among the first num_beams, and its probability is not 0.
    """
    length = beams.words.size(-1) + 1
    K = beams.words.size(1)
    V = logits.size(-1)
    log_probs = _log_probs(logits).unflatten(0, (-1, K))  # (B, K, V)
    _forbid(log_probs, beams.words, length <= options.min_length, options.no_repeat_ngram_size)
    total = (beams.log_prob.unsqueeze(-1) + log_probs).flatten(1)  # (B, K · V)
    log_prob, index = total.topk(min(2 * num_beams, K * V))  # (B, 2K)
    beam = index // V
    token = index % V
    words = torch.cat([_pick(beams.words, beam), token.unsqueeze(-1)], dim=-1)  # (B, 2K, t)
    score = log_prob / length**options.length_penalty
    ended = (token == EOS) | (length == max_length)
    among_first = torch.arange(ended.size(1), device=ended.device) < num_beams  # (2K,)
    finished = ended & among_first & (log_prob > -torch.inf)
    return _Candidates(beam, words, log_prob, score, ended, finished)


def _collect(
    found: list[list[Hypothesis]], beams: _Beams, candidates: _Candidates, length_penalty: float
) -> None:
    """Add the finished candidates to the sentences found; found[i] are those of memory i."""
    finished = candidates.finished
    memory_index = beams.memory_index.unsqueeze(1).expand_as(finished)  # (B, 2K)
    indices = memory_index[finished].tolist()
    rows = candidates.words[finished].tolist()
    log_probs = candidates.log_prob[finished].tolist()
    for i, row, log_prob in zip(indices, rows, log_probs):
        found[i].append(_hypothesis(row, log_prob, length_penalty))


def _keep(beams: _Beams, candidates: _Candidates, num_beams: int) -> tuple[_Beams, Tensor]:
    """The next beams, and the rows (B, K) of the decoder's state that they continue.

    The next beams are the num_beams best candidates that have not ended. The state has a row for
    each beam until now: K for the first memory, then K for the second, and so on.
    """
    unfinished = candidates.log_prob.masked_fill(candidates.ended, -torch.inf)  # (B, 2K)
    log_prob, place = unfinished.topk(min(num_beams, unfinished.size(1)))  # (B, K)
    words = _pick(candidates.words, place)  # (B, K, t)

    scores = candidates.score.masked_fill(~candidates.finished, -torch.inf)  # (B, 2K)
    scores = torch.cat([beams.best_scores, scores], dim=1)  # (B, n_best + 2K)
    best_scores = scores.topk(beams.best_scores.size(1)).values  # (B, n_best)

    B, K = beams.log_prob.shape
    first_row = K * torch.arange(B, device=place.device).unsqueeze(1)  # (B, 1)
    rows = first_row + candidates.beam.gather(1, place)  # (B, K)
    return _Beams(beams.memory_index, words, log_prob, place, best_scores), rows


def _can_improve(
    beams: _Beams, candidates: _Candidates, max_length: int, length_penalty: float
) -> Tensor:
    """For each memory, (B,) bool: can a beam become better than the worst of the n best sentences?

    A log-probability never rises. So no score gets above the one that the best beam would have with
    its present log-probability at the most favourable length: `max_length` for a penalty above 0,
    otherwise the next length. A single beam is greedy search, which stops at the first <eos>.
    """
    num_beams = beams.words.size(1)
    length = beams.words.size(2)
    best_length = max_length if length_penalty > 0 else length + 1
    bound = beams.log_prob[:, 0] / best_length**length_penalty  # (B,)
    going = bound > beams.best_scores[:, -1]
    if num_beams == 1:
        going &= ~candidates.ended[:, 0]
    return going


def _check_search(num_beams: int, max_length: int, options: SearchOptions) -> None:
    """Raise ValueError for settings that make no sense."""
    n_best = options.n_best
    min_length = options.min_length
    if num_beams < 1:
        raise ValueError(f"num_beams is 1 or more beams, not {num_beams}")
    if not 1 <= n_best <= num_beams:
        raise ValueError(f"n_best is 1 to num_beams ({num_beams}) sentences, not {n_best}")
    if max_length < 1 or not 0 <= min_length <= max_length:
        raise ValueError(
            "max_length is 1 or more, and min_length from 0 to max_length, "
            f"not {max_length} and {min_length}"
        )


def _check_found(found: list[list[Hypothesis]]) -> None:
    """Raise FloatingPointError for a memory without a sentence: its words have no probability."""
    if not all(found):
        raise FloatingPointError(
            f"memory {found.index([])}: no next word has a probability; "
            "are there NaNs in the model?"
        )


def _best(hypotheses: list[Hypothesis], n_best: int) -> list[Hypothesis]:
    """Those of highest score, the best first."""
    return sorted(hypotheses, key=attrgetter("score"), reverse=True)[:n_best]


def _add_greedy(
    found: list[list[Hypothesis]],
    decoder: nn.Module,
    memory: Memory,
    max_length: int,
    options: SearchOptions,
) -> None:
    """Add the greedy sentence of each memory to those found, where it is not among them."""
    options = options._replace(n_best=1, keep_greedy=False)
    greedy = beam_search(decoder, memory, 1, max_length, options)
    for hypotheses, (best,) in zip(found, greedy):
        if best.tokens not in [hypothesis.tokens for hypothesis in hypotheses]:
            hypotheses.append(best)


def _trees(steps: list[tuple[_Candidates, _Beams]]) -> list[list[Candidate]]:
    """The tree of each memory, from each step's candidates and the beams that were kept of them."""
    trees = [[] for _ in range(len(steps[0][1].memory_index))]
    nodes = [[-1] for _ in trees]  # each beam's place in the tree
    for candidates, beams in steps:
        alive = beams.log_prob > -torch.inf  # (B, K)
        kept = torch.zeros_like(candidates.ended).scatter(1, beams.place, alive)  # (B, 2K)
        statuses = (kept + 2 * candidates.finished).tolist()
        beam = candidates.beam.tolist()
        token = candidates.words[:, :, -1].tolist()
        log_prob = candidates.log_prob.tolist()
        score = candidates.score.tolist()
        place = beams.place.tolist()
        for b, i in enumerate(beams.memory_index.tolist()):
            size = len(trees[i])
            for j in range(len(beam[b])):
                parent = nodes[i][beam[b][j]]
                status = STATUSES[statuses[b][j]]
                node = Candidate(parent, token[b][j], log_prob[b][j], score[b][j], status)
                trees[i].append(node)
            nodes[i] = [size + j for j in place[b]]
    return trees


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
        log_probs.scatter_(
            -1, ngrams[..., -1].masked_fill(~repeated, PAD), -torch.inf
        )  # <pad> is never written anyway
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
            hypotheses = [
                best for (best,) in beam_search(model.decoder, memory, num_beams, max_length)
            ]
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
    batch = collate([numericalize(example, vocabularies) for example in examples])
    return to_device(batch, next(model.parameters()).device)


@torch.no_grad()
def attention_weights(
    model: nn.Module, vocabularies: dict, example: dict, words: Sequence[str]
) -> Tensor:
    """Where each layer of the model looks for each of T words that it writes about an example: (layers, T, N).

    It is the mean over the layer's heads. Puts the model into eval mode.
    """
    batch = _batch(model, vocabularies, [example | {"target": list(words)}])
    _, weights = model.eval()(batch, need_weights=True)  # (1, layers, H, T + 1, N)
    return weights[0].mean(1)[:, :-1].cpu()  # without <eos>


def alignment(
    model: nn.Module, vocabularies: dict, source: Sequence[str], words: Sequence[str]
) -> Tensor:
    """Where each layer looks in a sentence of S words for each of T words that it writes: (layers, T, S).

    The attention to the sentence's <eos> is left out, so a row sums to at most 1.
    """
    return attention_weights(model, vocabularies, {"source": source}, words)[..., :-1]


def attention_maps(
    model: nn.Module, vocabularies: dict, picture: Tensor, words: Sequence[str]
) -> Tensor:
    """Where the model looks in a picture (3, S, S) for each of T words that it writes: (T, h, w), each summing to 1.

    For a Transformer it is the last layer's attention. The grid of the picture's patches is square.
    """
    maps = attention_weights(model, vocabularies, {"image": picture}, words)[-1]  # (T, N)
    maps = maps / maps.sum(-1, keepdim=True)  # a prefix shares the attention with the words
    return maps.unflatten(-1, (math.isqrt(maps.size(-1)), -1))  # (T, h, w)
