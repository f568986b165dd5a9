"""Right solutions of chapter 8's exercises, in other styles than the library's (see test_proofs.py)."""

# %% 8 sample
def _check_sampling(temperature, top_k, top_p):
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"a temperature of {temperature} makes no sense")
    if top_k is not None and top_k <= 0:
        raise ValueError(f"top_k = {top_k} leaves no word")
    if top_p is not None and not (top_p > 0 and top_p <= 1):
        raise ValueError(f"top_p = {top_p} is no probability above 0")


def _nucleus(p, top_p):
    """In each row, keep the most probable words until they add up to top_p."""
    ranked, words = torch.sort(p, dim=1, descending=True, stable=True)
    so_far = torch.zeros(len(p))
    for rank in range(p.shape[1]):
        is_cut = so_far >= top_p
        so_far = so_far + ranked[:, rank]
        ranked[is_cut, rank] = 0
    return torch.zeros_like(p).scatter(1, words, ranked)


def sample(
    decoder, memory, max_length=40, temperature=1.0, top_k=None, top_p=None, generator=None
):
    _check_sampling(temperature, top_k, top_p)

    def draw(log_probs):
        scaled = (log_probs - log_probs.max(dim=1, keepdim=True).values) / temperature
        if top_k is not None and top_k < scaled.shape[1]:
            order = torch.argsort(scaled, dim=1, descending=True, stable=True)
            scaled = scaled.scatter(1, order[:, top_k:], float("-inf"))
        p = torch.softmax(scaled, dim=1)
        if top_p is not None:
            p = _nucleus(p, top_p)
        return torch.multinomial(p, 1, generator=generator)[:, 0]

    return _word_by_word(decoder, memory, max_length, draw)


# %% 8 LSTMDecoder.reorder
class LSTMDecoder(nn.Module):
    def reorder(self, state, index):
        moved = state._replace(hidden=state.hidden[:, index], cell=state.cell[:, index])
        which = memory_index(index, state.hidden.shape[1], state.memory.mask.shape[0])
        if which is None:
            return moved
        return moved._replace(memory=Memory(*(part[which] for part in state.memory)))


# %% 8 beam_search
IMPOSSIBLE = float("-inf")


@torch.no_grad()
def beam_search(
    decoder, memory, num_beams=5, max_length=40, options=SearchOptions(), trees=None
):
    _check_search(num_beams, max_length, options)
    B = len(memory.tokens)
    penalty = options.length_penalty
    found = [[] for _ in range(B)]
    history = []
    beams = _first_beams(memory, options.n_best)
    words = torch.full((B,), BOS, dtype=torch.long, device=memory.tokens.device)
    state = decoder.start(memory)
    length = 0
    while length < max_length:
        length += 1
        logits, state = decoder.step(words, state)
        candidates = _expand(beams, logits, num_beams, max_length, options)
        _collect(found, beams, candidates, penalty)
        beams, rows = _keep(beams, candidates, num_beams)
        history.append((candidates, beams))
        going = _can_improve(beams, candidates, max_length, penalty).nonzero().flatten()
        if len(going) == 0:
            break
        beams = _Beams(*[part[going] for part in beams])
        words = beams.tokens[:, :, -1].reshape(-1)
        state = decoder.reorder(state, rows[going].reshape(-1))
    _check_found(found)
    if trees is not None:
        trees.extend(_trees(history))
    if options.keep_greedy:
        _add_greedy(found, decoder, memory, max_length, options)
    return [_best(each, options.n_best) for each in found]


def _expand(beams, logits, num_beams, max_length, options):
    B, K, before = beams.tokens.shape
    length = before + 1
    log_probs = _log_probs(logits).reshape(B, K, -1)
    V = log_probs.shape[2]
    too_short = before < options.min_length
    _forbid(log_probs, beams.tokens, too_short, options.no_repeat_ngram_size)
    totals = (log_probs + beams.log_prob[:, :, None]).reshape(B, K * V)
    ordered, index = torch.sort(totals, dim=1, descending=True, stable=True)
    log_prob, index = ordered[:, : 2 * num_beams], index[:, : 2 * num_beams]
    beam = torch.div(index, V, rounding_mode="floor")
    word = index - V * beam
    tokens = torch.cat((_pick(beams.tokens, beam), word[:, :, None]), dim=2)
    ended = torch.logical_or(word == EOS, torch.full_like(word, length) == max_length)
    finished = ended & (log_prob != IMPOSSIBLE)
    finished[:, num_beams:] = False
    score = log_prob / length**options.length_penalty
    return _Candidates(beam, tokens, log_prob, score, ended, finished)


def _collect(found, beams, candidates, length_penalty):
    for b, which in enumerate(beams.memory_index.tolist()):
        for j in range(candidates.finished.shape[1]):
            if candidates.finished[b, j]:
                words = candidates.tokens[b, j].tolist()
                total = candidates.log_prob[b, j].item()
                found[which].append(_hypothesis(words, total, length_penalty))


def _keep(beams, candidates, num_beams):
    B, K = beams.log_prob.shape
    n_best = beams.best_scores.shape[1]
    alive = torch.where(candidates.ended, IMPOSSIBLE, candidates.log_prob)
    rank = torch.argsort(alive, dim=1, descending=True, stable=True)[:, :num_beams]
    scores = torch.where(candidates.finished, candidates.score, IMPOSSIBLE)
    both = torch.cat((beams.best_scores, scores), dim=1)
    best = torch.sort(both, dim=1, descending=True).values[:, :n_best]
    extended = torch.gather(candidates.beam, 1, rank)
    rows = torch.stack([extended[b] + b * K for b in range(B)])
    tokens = _pick(candidates.tokens, rank)
    kept = _Beams(beams.memory_index, tokens, torch.gather(alive, 1, rank), rank, best)
    return kept, rows


def _can_improve(beams, candidates, max_length, length_penalty):
    _, K, length = beams.tokens.shape
    lengths = {length + 1, max_length} if length < max_length else {max_length}
    answers = []
    for b in range(len(beams.tokens)):
        best = beams.log_prob[b, 0].item()
        bound = max(best / end**length_penalty for end in lengths)
        answer = bound > beams.best_scores[b, -1].item()
        if K == 1 and bool(candidates.ended[b, 0]):
            answer = False
        answers.append(answer)
    return torch.tensor(answers, device=beams.tokens.device)


def _pick(tokens, index):
    return torch.stack([rows[chosen] for rows, chosen in zip(tokens, index)])


# %% 8 _forbid
def _repeating(words, n):
    """The words that would end an n-gram that the sentence has already."""
    words = tuple(words)
    if n <= 0 or len(words) < n:
        return set()
    last = words[len(words) - n + 1 :]
    return {words[i + n - 1] for i in range(len(words) - n + 1) if words[i : i + n - 1] == last}


def _forbid(log_probs, tokens, too_short, n):
    for rows, sentences in zip(log_probs, tokens.tolist()):
        for row, words in zip(rows, sentences):
            end = row[EOS].item()
            forbidden = _repeating(words, n)
            if too_short:
                forbidden.add(EOS)
            for word in forbidden:
                row[word] = -math.inf
            if torch.isneginf(row).all():
                row[EOS] = end
