"""Decoding: from next-word probabilities to sentences, by greedy search, sampling or beam search.

A decoder needs only `start`, `step` and `reorder`; nothing here depends on its architecture.
"""

import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from .attention import Memory
from .batches import collate, encode_words, numericalize, to_device
from .text import BOS, EOS, PAD, UNK

MAX_ROWS = 5000  # candidates scored at a time, over all examples of a batch


class Hypothesis(NamedTuple):
    """A generated sentence: its token ids without <eos>, its log-probability and its score.

        score = log_prob / length ** length_penalty

    The length includes <eos>, unless the sentence was cut. Greedy search and sampling score with a
    length penalty of 1.
    """

    tokens: list[int]
    log_prob: float
    score: float


def greedy_search(decoder: nn.Module, memory: Memory, max_length: int = 40) -> list[Hypothesis]:
    """Choose the most probable next word until <eos> or `max_length`: one hypothesis per memory.

    <pad>, <bos> and <unk> are never generated. The batch runs until its last sentence has ended.
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
    """Draw each next word from softmax(logits / temperature): one hypothesis per memory.

    decoder, memory, max_length: as in `greedy_search`.
    temperature: below 1, probable words become even more probable; above 1, less so.
    top_k: draw only among the k most probable words (Fan et al. 2018).
    top_p: draw only among the fewest most probable words whose probabilities add up to at least p
        (nucleus sampling: Holtzman et al. 2020). It applies after temperature and top_k.
    generator: source of the random numbers, on the memory's device, for repeatable samples.

    The log-probabilities returned are the model's own, before temperature, top_k and top_p.
    Raises ValueError, with the setting's name, unless temperature is above 0 and finite, top_k at
    least 1, and top_p above 0 and at most 1; NaN is neither.
    """
    if not 0 < temperature < math.inf:
        hint = "for the most probable words call greedy_search"
        raise ValueError(f"temperature must be above 0 and finite, not {temperature}; {hint}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, not {top_p}")

    def draw(log_probs: Tensor) -> Tensor:
        logits, words = log_probs.sort(dim=-1, descending=True, stable=True)  # (B, V)
        logits = logits - logits[:, :1]  # the largest is 0, so a low temperature overflows nothing
        logits = logits / temperature
        if top_k is not None:
            logits[:, top_k:] = -torch.inf
        probabilities = logits.softmax(-1)
        if top_p is not None:
            before = probabilities.cumsum(-1) - probabilities  # of all more probable words
            probabilities = probabilities.masked_fill(before >= top_p, 0.0)
        drawn = probabilities.multinomial(1, generator=generator)  # (B, 1)
        return words.gather(1, drawn).squeeze(1)  # (B,)

    return _word_by_word(decoder, memory, max_length, draw)


@torch.no_grad()
def _word_by_word(
    decoder: nn.Module,
    memory: Memory,
    max_length: int,
    choose: Callable[[Tensor], Tensor],
) -> list[Hypothesis]:
    """Generate one hypothesis per memory; `choose` picks words (B,) by their log_probs (B, V)."""
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1, not {max_length}")
    state = decoder.start(memory)
    token = torch.full((memory.tokens.size(0),), BOS, device=memory.tokens.device)  # (B,)
    ended = torch.zeros_like(token, dtype=torch.bool)
    log_prob = torch.zeros(token.shape, device=token.device)
    generated = []
    for _ in range(max_length):
        logits, state = decoder.step(token, state)  # (B, V)
        log_probs = _log_probs(logits)
        token = choose(log_probs).masked_fill(ended, EOS)  # (B,)
        chosen = log_probs.gather(1, token.unsqueeze(1)).squeeze(1)  # (B,)
        log_prob += chosen.masked_fill(ended, 0.0)
        ended |= token == EOS
        generated.append(token)
        if ended.all():
            break
    if log_prob.isnan().any():
        _check_found([[] if value.isnan() else [value] for value in log_prob])
    sentences = torch.stack(generated, dim=1).tolist()
    pairs = zip(sentences, log_prob.tolist())
    return [_hypothesis(tokens, total, length_penalty=1.0) for tokens, total in pairs]


def _log_probs(logits: Tensor) -> Tensor:
    """Log-probabilities of the next words, (B, V); -inf for <pad>, <bos> and <unk>."""
    log_probs = logits.float().log_softmax(-1)
    log_probs[:, [PAD, BOS, UNK]] = -torch.inf
    return log_probs


def _hypothesis(tokens: list[int], log_prob: float, length_penalty: float) -> Hypothesis:
    """Cut the tokens before the first <eos>, if there is one, and compute the score."""
    length = len(tokens)
    if EOS in tokens:
        end = tokens.index(EOS)
        tokens = tokens[:end]
        length = end + 1  # with <eos>
    return Hypothesis(tokens, log_prob, log_prob / length**length_penalty)


STATUSES = ("dropped", "kept", "finished")


class Candidate(NamedTuple):
    """A node in the tree of a beam search: a partial or finished hypothesis that was considered."""

    parent: int  # index of the parent in the list of candidates; -1 is <bos>
    token: int
    log_prob: float  # of all words up to this one
    score: float
    status: str  # "kept" as a beam, "finished" as a hypothesis, or "dropped"


class SearchOptions(NamedTuple):
    """What a beam search prefers, forbids and returns.

    length_penalty: exponent of the length in the score; a larger one favours longer sentences.
    n_best: number of hypotheses returned for each memory, from 1 to num_beams.
    min_length: minimum number of words, <eos> not included.
    no_repeat_ngram_size: no n-gram of this size occurs twice in a sentence; 0 allows repetition.
    keep_greedy: the greedy hypothesis competes too, so the best is never worse than greedy search.

    Where these rules forbid every word, the sentence ends.
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
    """Return the `n_best` hypotheses of highest score found for each memory, best first.

        score = log_prob / length ** length_penalty

    Beams are the most probable partial hypotheses. Each step extends every beam by every word. Of
    the 2 · num_beams most probable candidates, an <eos> among the first num_beams finishes a
    hypothesis, and the first num_beams without <eos> are the next beams. The search ends when no
    beam can still make it into the `n_best`.

    decoder: needs only `start`, `step` and `reorder`; put the model into eval mode first.
    memory: B memories, searched in parallel.
    num_beams: beam width, the number of partial hypotheses kept; 1 is `greedy_search`.
    max_length: number of words after which a sentence is cut.
    options: length penalty, `n_best` and rules: see `SearchOptions`.
    trees: a list to which each memory's tree of candidates is appended, for `plots.search_tree`.

    Raises ValueError, from `_check_search`, if a setting makes no sense.
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
        active = _can_improve(beams, candidates, max_length, options.length_penalty)  # (B,)
        if not active.any():
            break
        beams = _Beams(*(part[active] for part in beams))  # finished memories leave the batch
        token = beams.tokens[:, :, -1].flatten()  # (B · K,)
        state = decoder.reorder(state, rows[active].flatten())
    _check_found(found)
    if trees is not None:
        trees += _trees(steps)
    if options.keep_greedy:
        _add_greedy(found, decoder, memory, max_length, options)
    return [_best(hypotheses, options.n_best) for hypotheses in found]


class _Beams(NamedTuple):
    """The K best partial hypotheses, of t words each, for each of the B memories still searched."""

    memory_index: Tensor  # (B,) index of the memory
    tokens: Tensor  # (B, K, t)
    log_prob: Tensor  # (B, K) of all words, best first; -inf where there are fewer than K
    rank: Tensor  # (B, K) which of its step's candidates each beam was
    best_scores: Tensor  # (B, n_best) of the finished hypotheses; -inf where there are fewer


class _Candidates(NamedTuple):
    """The 2K most probable extensions of each memory's beams by one word, best first."""

    beam: Tensor  # (B, 2K) index of the beam that is extended
    tokens: Tensor  # (B, 2K, t) with the new word
    log_prob: Tensor  # (B, 2K) of all words
    score: Tensor  # (B, 2K)
    ended: Tensor  # (B, 2K) bool: by <eos> or at max_length
    finished: Tensor  # (B, 2K) bool: a finished hypothesis


def _first_beams(memory: Memory, n_best: int) -> _Beams:
    """One empty beam for each memory."""
    B = memory.tokens.size(0)
    device = memory.tokens.device
    return _Beams(
        memory_index=torch.arange(B, device=device),
        tokens=torch.empty(B, 1, 0, dtype=torch.long, device=device),
        log_prob=torch.zeros(B, 1, device=device),
        rank=torch.zeros(B, 1, dtype=torch.long, device=device),
        best_scores=torch.full((B, n_best), -torch.inf, device=device),
    )


def _expand(
    beams: _Beams, logits: Tensor, num_beams: int, max_length: int, options: SearchOptions
) -> _Candidates:
    """Return the 2 · num_beams most probable extensions of each memory's beams by one word.

    logits (B · K, V): those of each beam's next word.

    A candidate finishes a hypothesis if it has ended, is among the first num_beams, and its
    probability is not 0.
    """
    length = beams.tokens.size(-1) + 1
    K = beams.tokens.size(1)
    V = logits.size(-1)
    log_probs = _log_probs(logits).unflatten(0, (-1, K))  # (B, K, V)
    _forbid(log_probs, beams.tokens, length <= options.min_length, options.no_repeat_ngram_size)
    total = (beams.log_prob.unsqueeze(-1) + log_probs).flatten(1)  # (B, K · V)
    log_prob, index = total.topk(min(2 * num_beams, K * V))  # (B, 2K)
    beam = index // V
    token = index % V
    tokens = torch.cat([_pick(beams.tokens, beam), token.unsqueeze(-1)], dim=-1)  # (B, 2K, t)
    score = log_prob / length**options.length_penalty
    ended = (token == EOS) | (length == max_length)
    among_first = torch.arange(ended.size(1), device=ended.device) < num_beams  # (2K,)
    finished = ended & among_first & (log_prob > -torch.inf)
    return _Candidates(beam, tokens, log_prob, score, ended, finished)


def _collect(
    found: list[list[Hypothesis]], beams: _Beams, candidates: _Candidates, length_penalty: float
) -> None:
    """Append the finished hypotheses among the candidates to found[i], for memory i."""
    finished = candidates.finished  # (B, 2K)
    memory_index = beams.memory_index.unsqueeze(1).expand_as(finished)  # (B, 2K)
    indices = memory_index[finished].tolist()
    rows = candidates.tokens[finished].tolist()
    log_probs = candidates.log_prob[finished].tolist()
    for i, tokens, log_prob in zip(indices, rows, log_probs):
        found[i].append(_hypothesis(tokens, log_prob, length_penalty))


def _keep(beams: _Beams, candidates: _Candidates, num_beams: int) -> tuple[_Beams, Tensor]:
    """Return the next beams, and the rows (B, K) of the decoder's state that they continue.

    The next beams are the num_beams best candidates that have not ended. The state has a row for
    each current beam: K for the first memory, then K for the second, and so on.
    """
    unfinished = candidates.log_prob.masked_fill(candidates.ended, -torch.inf)  # (B, 2K)
    log_prob, rank = unfinished.topk(min(num_beams, unfinished.size(1)))  # (B, K)
    tokens = _pick(candidates.tokens, rank)  # (B, K, t)

    scores = candidates.score.masked_fill(~candidates.finished, -torch.inf)  # (B, 2K)
    scores = torch.cat([beams.best_scores, scores], dim=1)  # (B, n_best + 2K)
    best_scores = scores.topk(beams.best_scores.size(1)).values  # (B, n_best)

    B, K = beams.log_prob.shape
    first_row = K * torch.arange(B, device=rank.device).unsqueeze(1)  # (B, 1)
    rows = first_row + candidates.beam.gather(1, rank)  # (B, K)
    return _Beams(beams.memory_index, tokens, log_prob, rank, best_scores), rows


def _can_improve(
    beams: _Beams, candidates: _Candidates, max_length: int, length_penalty: float
) -> Tensor:
    """Return, for each memory, whether a beam can still beat the worst of its n best: (B,) bool.

    A log-probability never rises. So no score can exceed that of the best beam with its present
    log-probability at the most favourable length: `max_length` for a penalty above 0, otherwise
    the next length. A single beam is greedy search, which stops at the first <eos>.
    """
    num_beams = beams.tokens.size(1)
    length = beams.tokens.size(2)
    best_length = max_length if length_penalty > 0 else length + 1
    bound = beams.log_prob[:, 0] / best_length**length_penalty  # (B,)
    active = bound > beams.best_scores[:, -1]
    if num_beams == 1:
        active &= ~candidates.ended[:, 0]
    return active


def _check_search(num_beams: int, max_length: int, options: SearchOptions) -> None:
    """Raise ValueError for settings that make no sense."""
    n_best = options.n_best
    min_length = options.min_length
    if num_beams < 1:
        raise ValueError(f"num_beams must be at least 1, not {num_beams}")
    if not 1 <= n_best <= num_beams:
        raise ValueError(f"n_best must be 1 to num_beams ({num_beams}), not {n_best}")
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1, not {max_length}")
    if not 0 <= min_length <= max_length:
        raise ValueError(f"min_length must be 0 to max_length ({max_length}), not {min_length}")


def _check_found(found: list[list[Hypothesis]]) -> None:
    """Raise FloatingPointError for a memory without a hypothesis: no word had a probability."""
    if not all(found):
        i = found.index([])
        hint = "are there NaNs in the model?"
        raise FloatingPointError(f"memory {i}: no next word has a probability; {hint}")


def _best(hypotheses: list[Hypothesis], n_best: int) -> list[Hypothesis]:
    """Return the hypotheses of highest score, best first."""
    return sorted(hypotheses, key=attrgetter("score"), reverse=True)[:n_best]


def _add_greedy(
    found: list[list[Hypothesis]],
    decoder: nn.Module,
    memory: Memory,
    max_length: int,
    options: SearchOptions,
) -> None:
    """Append the greedy hypothesis of memory i to found[i], unless it is already there."""
    options = options._replace(n_best=1, keep_greedy=False)
    greedy = beam_search(decoder, memory, 1, max_length, options)
    for hypotheses, (best,) in zip(found, greedy):
        if best.tokens not in [hypothesis.tokens for hypothesis in hypotheses]:
            hypotheses.append(best)


def _trees(steps: list[tuple[_Candidates, _Beams]]) -> list[list[Candidate]]:
    """Build each memory's tree from the candidates of every step and the beams kept from them."""
    _, first_beams = steps[0]
    trees = [[] for _ in first_beams.memory_index]
    nodes = [[-1] for _ in trees]  # for each beam, its index in the tree
    for candidates, beams in steps:
        alive = beams.log_prob > -torch.inf  # (B, K)
        kept = torch.zeros_like(candidates.ended).scatter(1, beams.rank, alive)  # (B, 2K)
        statuses = (kept + 2 * candidates.finished).tolist()  # indices into STATUSES
        beam = candidates.beam.tolist()
        token = candidates.tokens[:, :, -1].tolist()
        log_prob = candidates.log_prob.tolist()
        score = candidates.score.tolist()
        rank = beams.rank.tolist()
        for b, i in enumerate(beams.memory_index.tolist()):
            size = len(trees[i])
            for j in range(len(beam[b])):
                parent = nodes[i][beam[b][j]]
                status = STATUSES[statuses[b][j]]
                node = Candidate(parent, token[b][j], log_prob[b][j], score[b][j], status)
                trees[i].append(node)
            nodes[i] = [size + j for j in rank[b]]
    return trees


def _pick(tokens: Tensor, index: Tensor) -> Tensor:
    """Select the rows `index` (B, K') of tokens (B, K, t) in each batch entry: (B, K', t)."""
    index = index.unsqueeze(-1).expand(-1, -1, tokens.size(-1))  # (B, K', t)
    return tokens.gather(1, index)


def _forbid(log_probs: Tensor, tokens: Tensor, too_short: bool, n: int) -> None:
    """Set the log_probs (B, K, V) of forbidden next words to -inf, in place.

    Forbidden are <eos> if `too_short`, and, for n above 0, each word that would end an n-gram that
    tokens (B, K, t) already contain. If that leaves no word, <eos> keeps its log-probability.
    """
    if not too_short and n == 0:
        return
    eos = log_probs[..., EOS].clone()  # (B, K)
    if too_short:
        log_probs[..., EOS] = -torch.inf
    t = tokens.size(-1)
    if 0 < n <= t:
        ngrams = tokens.unfold(-1, n, 1)  # (B, K, t - n + 1, n)
        prefix = ngrams[..., :-1]
        last = tokens[..., t - n + 1 :].unsqueeze(2)  # (B, K, 1, n - 1)
        repeated = (prefix == last).all(-1)  # (B, K, t - n + 1)
        # <pad> is forbidden anyway, so it serves where nothing would be repeated
        forbidden = ngrams[..., -1].masked_fill(~repeated, PAD)  # (B, K, t - n + 1)
        log_probs.scatter_(-1, forbidden, -torch.inf)
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
    options: SearchOptions = SearchOptions(),
) -> list[list[str]]:
    """Write a sentence about each example: by `greedy_search`, or by `beam_search` with more beams.

    model: is put into eval mode.
    vocabularies: {"target": Vocabulary, and "source" if the examples have one}.
    examples: dicts of inputs, {"image": (3, S, S) uint8, "source": list of words, …}, or a data
        set, whose examples are read batch by batch.
    num_beams, max_length: as in `beam_search`.
    batch_size: number of examples that are decoded together.
    options: of the beam search, whose `n_best` must be 1.

    Returns the tokens of each sentence, in the order of the examples.
    """
    model.eval()
    order = _by_length(examples)
    generated = {}
    for first in range(0, len(order), batch_size):
        indices = order[first : first + batch_size]
        batch = _batch(model, vocabularies, [examples[i] for i in indices])
        memory = model.encode(batch)
        if num_beams == 1:
            hypotheses = greedy_search(model.decoder, memory, max_length)
        else:
            n_best = beam_search(model.decoder, memory, num_beams, max_length, options)
            hypotheses = [best for (best,) in n_best]
        for i, hypothesis in zip(indices, hypotheses):
            generated[i] = vocabularies["target"].decode(hypothesis.tokens)
    return [generated[i] for i in range(len(examples))]


@torch.no_grad()
def candidate_log_probs(
    model: nn.Module,
    vocabularies: dict,
    examples: Sequence[dict],
    candidates: Sequence[Sequence[str]],
) -> Tensor:
    """The log-probability with which the decoder writes each candidate: (N examples, A candidates).

        log p(candidate | example) = Σₜ log p(wordₜ | words before it, example)

    The words include <eos>, so a candidate is not preferred for being a prefix of another.
    Of a closed set of answers, the best has the largest; their softmax gives probabilities.

    model: is put into eval mode.
    vocabularies, examples: as in `generate`.
    candidates: a list of tokens for each; words that the vocabulary lacks count as <unk>.

    Raises ValueError if there are no candidates.
    """
    if not candidates:
        raise ValueError("there are no candidates to choose from")
    model.eval()
    targets = [encode_words(vocabularies["target"], words) for words in candidates]
    targets = pad_sequence(targets, batch_first=True, padding_value=PAD)  # (A, T)
    order = _by_length(examples)
    batch_size = max(1, MAX_ROWS // len(candidates))
    log_probs = torch.empty(len(order), len(candidates))
    for first in range(0, len(order), batch_size):
        indices = order[first : first + batch_size]
        batch = _batch(model, vocabularies, [examples[i] for i in indices])
        scores = _score_targets(model.decoder, model.encode(batch), targets)
        log_probs[indices] = scores.cpu()
    return log_probs


def _score_targets(decoder: nn.Module, memory: Memory, targets: Tensor) -> Tensor:
    """The log-probability of each target (A, T), padded, given each memory: (B, A) float32.

    In half precision, a sum of many logarithms is not exact, so the logits become float32 first.
    `candidate_log_probs` scores at most MAX_ROWS candidates at a time: B · A, or A of one memory.
    """
    B = len(memory.tokens)
    A = len(targets)
    targets = targets.to(memory.tokens.device).repeat(B, 1)  # (B·A, T)
    index = torch.arange(B, device=targets.device).repeat_interleave(A)  # (B·A,)
    state = decoder.reorder(decoder.start(memory), index)
    token = torch.full_like(index, BOS)
    total = torch.zeros(B * A, device=targets.device)
    for target in targets.unbind(1):  # (B·A,)
        logits, state = decoder.step(token, state)  # (B·A, V)
        log_probs = logits.float().log_softmax(-1)
        chosen = log_probs.gather(1, target.unsqueeze(1)).squeeze(1)  # (B·A,)
        total += chosen.masked_fill(target == PAD, 0.0)
        token = target
    return total.view(B, A)


@torch.no_grad()
def rank_answers(
    model: nn.Module,
    vocabularies: dict,
    example: dict,
    candidates: Sequence[Sequence[str]] | None = None,
    count: int = 3,
) -> list[tuple[list[str], float]]:
    """Return the `count` most probable answers about an example, best first: (words, probability).

    model: is put into eval mode.
    vocabularies, example: as in `generate`.
    candidates: choose among these (closed); the probabilities of all of them sum to 1.
        None: whatever the decoder writes (open), found by beam search.
    count: number of answers; with fewer candidates, there are fewer.
    """
    if candidates is None:
        model.eval()
        memory = model.encode(_batch(model, vocabularies, [example]))
        by_probability = SearchOptions(length_penalty=0.0, n_best=count)
        (found,) = beam_search(model.decoder, memory, 2 * count, options=by_probability)
        target = vocabularies["target"]
        return [(target.decode(each.tokens), math.exp(each.log_prob)) for each in found]
    log_probs = candidate_log_probs(model, vocabularies, [example], candidates)[0]  # (A,)
    probabilities, best = log_probs.softmax(0).topk(min(count, len(candidates)))
    return [(list(candidates[i]), p) for i, p in zip(best.tolist(), probabilities.tolist())]


def _by_length(examples: Sequence[dict]) -> list[int]:
    """Indices of the examples, short sources of a data set first, for batches with less padding."""
    columns = getattr(examples, "columns", {})  # a list of dicts has no columns
    if "source" not in columns:
        return list(range(len(examples)))
    lengths = [len(source) for source in columns["source"]]
    return sorted(range(len(examples)), key=lambda i: lengths[i])


def _batch(model: nn.Module, vocabularies: dict, examples: Sequence[dict]) -> dict[str, Tensor]:
    """A batch of these examples, their words as ids, on the model's device."""
    batch = collate([numericalize(example, vocabularies) for example in examples])
    return to_device(batch, next(model.parameters()).device)


@torch.no_grad()
def attention_weights(
    model: nn.Module, vocabularies: dict, example: dict, words: Sequence[str]
) -> Tensor:
    """Each layer's attention to the N memory positions while writing T words: (layers, T, N).

    The weights are averaged over heads. Puts the model into eval mode.
    """
    model.eval()
    batch = _batch(model, vocabularies, [example | {"target": list(words)}])
    _, weights = model(batch, need_weights=True)  # (1, layers, H, T + 1, N)
    return weights[0].mean(1)[:, :-1].cpu()  # (layers, T, N), without the row of <eos>


def alignment(
    model: nn.Module, vocabularies: dict, source: Sequence[str], words: Sequence[str]
) -> Tensor:
    """Each layer's attention to the S words of a source while writing T words: (layers, T, S).

    The attention to the source's <eos> is left out, so a row sums to at most 1.
    """
    return attention_weights(model, vocabularies, {"source": source}, words)[..., :-1]


def attention_maps(
    model: nn.Module, vocabularies: dict, picture: Tensor, words: Sequence[str]
) -> Tensor:
    """The attention to a picture (3, S, S) while writing T words: (T, h, w), each map summing to 1.

    A Transformer's is that of its last layer. The grid of positions must be square.
    """
    maps = memory_attention(model, vocabularies, {"image": picture}, words)  # (T, N)
    side = math.isqrt(maps.size(-1))
    return maps.unflatten(-1, (side, -1))  # (T, h, w)


def memory_attention(
    model: nn.Module, vocabularies: dict, example: dict, words: Sequence[str]
) -> Tensor:
    """The attention to the N positions of the memory while writing T words: (T, N).

    A Transformer's is that of its last layer. Each row sums to 1.
    """
    weights = attention_weights(model, vocabularies, example, words)[-1]  # (T, N)
    return weights / weights.sum(-1, keepdim=True)  # a prefix shares the attention with the words
