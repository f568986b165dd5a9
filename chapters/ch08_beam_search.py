# %% [markdown]
# # 8 · Beam search
#
# **Adds** greedy search, sampling, and beam search with its length penalty. **Takes** 1.8 min on two cores.
#
# A captioner does not write sentences. Given a picture and the words so far, it assigns a
# probability to each possible next word. A search turns these into a sentence, and so far we have
# used the simplest: take the most probable word, again and again. It is called **greedy search**,
# and it can miss the sentence that the model finds most probable. This chapter searches better, and
# then asks what that is good for.

# %%
import random
import time
from itertools import product
from math import exp, log
from statistics import mean
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from chapters.chapter import Chapter, folder, show
from chapters.drawings import ch08 as drawings
from chapters.preparation import held_out_scenes, training_captions

# %%
from mmscratch import decoding
from mmscratch.attention import Memory
from mmscratch.data.judge import judge, judge_captions
from mmscratch.data.language import captions
from mmscratch.data.scenes import Scene
from mmscratch.decoding import (
    Hypothesis,
    SearchOptions,
    beam_search,
    greedy_search,
    sample,
)
from mmscratch.engine.devices import pick_device
from mmscratch.metrics import ConfidenceInterval, bleu, bootstrap, caption_scores
from mmscratch.plots import search_tree
from mmscratch.pretraining import (
    extract_features,
    labelled_scenes,
    pretrained_cnn,
    train_captioner,
)
from mmscratch.recurrent import LSTMDecoder
from mmscratch.text import BOS, EOS, SPECIALS, Vocabulary, detokenize, tokenize
from mmscratch.vision import ImageEncoder

# %%
torch.manual_seed(0)
chapter = Chapter(8)
BLUE, PALE, RED, ORANGE, GREEN = "#2171b5", "#9ecae1", "#c62828", "#d94801", "#1a7f37"

# %% [markdown]
# ## The idea
#
# The probability of a sentence is the product of its words' probabilities, each given the words
# before it:
#
# $$P(w_1 \dots w_T) = \prod_t P(w_t \mid w_1 \dots w_{t-1}) \qquad \log P = \sum_t \log P(w_t \mid w_1 \dots w_{t-1})$$
#
# So finding the best sentence is a **search problem**. With $V$ words there are $V^T$ sentences of
# $T$ words, and no way to try them all. But all of them start at the same point and branch word by
# word: they form a **tree**. Here is one small enough to see all of it. The picture shows two
# stars, the model is not quite sure, and a sentence has two words.

# %%
words = set()
for i in range(1000):
    for text in captions(Scene(i)):
        words.update(tokenize(text))
print(f"from the {len(words)} words of our scenes, ", end="")
print(f"{len(words) ** 12:.0e} sentences of 12 words can be made")
TABLE = {  # the words so far -> the probabilities of the next
    (): {"a": 0.6, "two": 0.4},
    ("a",): {"star": 0.4, "sun": 0.35, "heart": 0.25},
    ("two",): {"stars": 0.9, "suns": 0.1},
}
chapter.draw(drawings.all_sentences(TABLE), "greedy takes the wrong turn")

# %% [markdown]
# ## By hand
#
# **Greedy search's mistake.** "a" is the more probable first word, but it has many continuations,
# and they share its probability. "two" has nearly all of its probability in one. Greedy search
# decides before it can see that.

# %%
sentences = []
for first, p in TABLE[()].items():
    for second, q in TABLE[(first,)].items():
        sentences.append((p * q, f"{first} {second}"))
for probability, text in sorted(sentences, reverse=True):
    print(f"{probability:.2f} {text}")

# %% [markdown]
# **Beam search** decides later. It keeps not one partial hypothesis but the $K$ most probable: the
# **beams**. Each is continued by every word, and the $K$ most probable results are kept. Here it is
# in about twenty lines, with the logarithms of the probabilities. A sentence ends with `<eos>`, or
# is cut at a maximum length:


# %%
def beams_by_hand(following, num_beams, max_length, length_penalty=0.0):
    """The best sentence: (score, log-probability, words).

    following: a function of the words so far -> {next word: its log-probability}
    """
    beams = [(0.0, ())]  # (log-probability, words)
    found = []
    for length in range(1, max_length + 1):
        candidates = []
        for log_prob, words in beams:
            for word, log_p in following(words).items():
                candidates.append((log_prob + log_p, (*words, word)))
        candidates = sorted(candidates, reverse=True)[: 2 * num_beams]
        beams = []
        for rank, (log_prob, words) in enumerate(candidates):
            has_ended = words[-1] == EOS or length == max_length
            if not has_ended:
                beams.append((log_prob, words))
            elif rank < num_beams:
                found.append((log_prob / length**length_penalty, log_prob, words))
        beams = beams[:num_beams]
    return max(found)


# %%
def following(words):
    return {word: log(p) for word, p in TABLE[words].items()}


for num_beams in (1, 2):
    _, log_prob, words = beams_by_hand(following, num_beams, max_length=2)
    print(f"number of beams {num_beams}: {' '.join(words)}, {exp(log_prob):.2f}")

# %% [markdown]
# One beam is greedy search. Two beams keep "two" alive for one more step, and that is enough. (The
# length penalty, and the reason for $2K$ candidates, come below.)
#
# **Is beam search never worse than greedy search?** One would think so, since it starts with greedy
# search's sentence among its beams. But it may drop that one on the way. Let us look for a case:
# tables of random probabilities, for sentences of three words from a vocabulary of five. We compare
# greedy search and two beams with an exact search, since with 125 beams nothing is ever dropped.


# %%
def random_table(seed, words="ABCDE", length=3):
    draw = random.Random(seed)
    table = {}
    for t in range(length):
        for prefix in product(words, repeat=t):
            parts = [draw.random() for _ in words]
            total = sum(parts)
            table[prefix] = {w: log(part / total) for w, part in zip(words, parts)}
    return table


def search_all(num_beams):
    """For each table, the sentence found: (log-probability, words)."""
    return [beams_by_hand(table.get, num_beams, 3)[1:] for table in tables]


tables = [random_table(seed) for seed in range(1000)]
greedy = search_all(1)
two = search_all(2)
exact = search_all(125)

# %%
better = [i for i in range(1000) if two[i][0] > greedy[i][0] + 1e-9]
worse = [i for i in range(1000) if two[i][0] < greedy[i][0] - 1e-9]
same = 1000 - len(better) - len(worse)
print(f"of 1,000 tables, two beams are better than greedy on {len(better)}, ", end="")
print(f"the same on {same}, worse on {len(worse)}")
for name, found in (("greedy", greedy), ("two beams", two)):
    number = sum(f[1] == e[1] for f, e in zip(found, exact))
    print(f"{name}: the most probable sentence on {number}")


# %% [markdown]
# The worst case, step by step:


# %%
def walk(table, words):
    """The words, each with the probability of all words up to it."""
    steps = []
    total = 0.0
    for t in range(len(words)):
        total += table[words[:t]][words[t]]
        steps.append(f"{words[t]} {exp(total):.3f}")
    return " → ".join(steps)


def loss_of_two_beams(i):
    return greedy[i][0] - two[i][0]


i = max(worse, key=loss_of_two_beams)
table = tables[i]
print(f"in table {i}: greedy search    {walk(table, greedy[i][1])}")
print(f"              two beams        {walk(table, two[i][1])}")
kept = sorted(table[()], key=table[()].get)[-2:]
pairs = []
for a in kept:
    for b in table[(a,)]:
        pairs.append((table[()][a] + table[(a,)][b], a, b))
best = sorted(pairs, reverse=True)[:3]
texts = [f"{a} {b} {exp(log_prob):.3f}" for log_prob, a, b in best]
print(f"the best partial hypotheses of two words: {', '.join(texts)}")

# %% [markdown]
# After two words, greedy search's partial hypothesis is only the third best, and two beams drop it.
# Its third word would have been good; the two that were kept continue badly. This is rare, but
# real: beam search is a better guess, not a guarantee.
#
# ## The piece
#
# The library searches for all pictures of a batch at once. It needs only three methods of a
# decoder: `start`, which returns a state; `step`, which takes a word and a state and returns logits
# and the next state; and `reorder`, which puts the states into the order of the beams that were
# kept. It returns hypotheses:

# %%
show(Hypothesis)
show(SearchOptions)
show(beam_search)

# %% [markdown]
# Its steps: continue the beams, collect the sentences that have ended, keep the best of the others,
# and check whether these can still become better than what was found. All of this is kept in two
# groups of tensors, one for the beams and one for their candidates.

# %%
show(decoding._Beams)
show(decoding._Candidates)
show(decoding._expand)
show(decoding._collect)
show(decoding._keep)
show(decoding._can_improve)

# %% [markdown]
# **Why $2K$?** Each partial hypothesis has one continuation that ends it: `<eos>`. So at most $K$
# of the $2K$ best continuations end, and at least $K$ remain that do not. But an `<eos>` counts
# only if it is **among the first $K$**: any other word further down would have been dropped, and
# ending a sentence should not be an advantage.
#
# **When to stop?** Each word adds a log-probability that is never above 0, so a partial hypothesis
# can only sink. With no penalty, the search is over as soon as the best beam is below the best
# sentence found. With a **length penalty** $\alpha$, the score is the log-probability divided by
# $\text{length}^\alpha$, and that may rise. But it can never get above
# $\log P / \text{max\_length}^\alpha$: as if all words from here on were certain. As long as that
# beats what was found, the search continues.
#
# First we check it on the small tables: a decoder that reads them needs just those three methods.


# %%
class TableDecoder:
    """A decoder with its probabilities in a table; its state is the words so far."""

    def __init__(self, table):
        words = {word for row in table.values() for word in row}
        self.table = table
        self.vocabulary = Vocabulary(sorted(words))

    def start(self, memory):
        return [None] * len(memory.tokens)

    def step(self, token, state):
        logits = torch.full((len(token), len(self.vocabulary)), -1e9)
        next_state = []
        for row, words, i in zip(logits, state, token.tolist()):
            # the first token is <bos>, which is no word of the sentence
            words = () if words is None else (*words, self.vocabulary.words[i])
            for word, log_p in self.table.get(words, {}).items():
                row[self.vocabulary.index[word]] = log_p
            next_state.append(words)
        return logits, next_state

    def reorder(self, state, index):
        return [state[i] for i in index.tolist()]


# %%
# Something for these decoders to ignore: they look at no picture.
no_picture = Memory(torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool))


def library(table, num_beams, length, **options):
    decoder = TableDecoder(table)
    options = SearchOptions(length_penalty=0.0, **options)
    # one memory, and one sentence for it
    [[best]] = beam_search(decoder, no_picture, num_beams, length, options)
    return tuple(decoder.vocabulary.decode(best.tokens))


stars = {words: following(words) for words in TABLE}
assert library(stars, 1, 2) == ("a", "star")
assert library(stars, 2, 2) == ("two", "stars")
checked = [*worse, *range(chapter.choose(100, fast=10))]
for i in checked:
    assert library(tables[i], 1, 3) == greedy[i][1]
    assert library(tables[i], 2, 3) == two[i][1]
    assert library(tables[i], 2, 3, keep_greedy=True) == max(greedy[i], two[i])[1]
print(f"our search and the library's agree on {1 + len(checked)} tables;")
print("with keep_greedy=True, two beams are never worse than greedy")

# %% [markdown]
# `keep_greedy=True` is the way out of the rare case above: it also runs greedy search, and takes
# the better of the two sentences.
#
# ## Train it
#
# We train three LSTMs that attend to the picture for each word (chapter 5), on features of chapter
# 2's CNN: a **good** one; a **weak** one, which sees a quarter as many captions; and, for a
# question at the end, one that is trained like the weak one, but on data with **gaps**: one caption
# in twenty is empty, as happens when data are collected.

# %%
device = pick_device()
cnn_scenes = chapter.choose(30_000, fast=64)
cnn = pretrained_cnn(folder(2, chapter.fast) / "cnn.pt", cnn_scenes)
count = chapter.choose(16_000, fast=64)
vocabulary, targets = training_captions(count)  # as in chapter 3
features = extract_features(cnn, labelled_scenes("train", count)[0])  # (N, 128, 4, 4)
images, _, scenes, references = held_out_scenes("test", chapter.choose(1000, fast=20))
test_features = extract_features(cnn, images)

empty = torch.tensor([EOS])
draw = random.Random(0)
with_gaps = []
for five in targets:
    with_gaps.append([empty if draw.random() < 0.05 else caption for caption in five])


# %%
def train(name, pictures, epochs, targets):
    """-> the decoder, and the memory of each hundred test pictures."""
    torch.manual_seed(0)
    encoder = ImageEncoder(cnn, 128, image_size=64).to(device)
    decoder = LSTMDecoder(len(vocabulary), 128, 256).to(device)
    inputs = (features[:pictures], targets[:pictures])
    recipe = {"batch_size": 16, "learning_rate": 3e-3}
    order = torch.Generator().manual_seed(0)
    start = time.monotonic()
    train_captioner(decoder, encoder, *inputs, epochs, generator=order, **recipe)
    seconds = time.monotonic() - start
    print(f"{name}: {pictures * epochs:,} captions in {seconds:.0f} s", flush=True)
    encoder.eval()
    with torch.no_grad():
        batches = test_features.split(100)
        memories = [encoder.encode_features(batch) for batch in batches]
    return decoder.eval(), memories


models = {
    "good": train("good", count, chapter.choose(2, fast=1), targets),
    "weak": train("weak", count // 2, 1, targets),
    "gaps": train("gaps", count // 2, 1, with_gaps),
}

# %% [markdown]
# First a check on a real decoder. Our search is as slow as it could be: for every word the decoder
# reads the whole partial hypothesis again, and the search never stops before the maximum length.

# %%
max_length = chapter.choose(30, fast=8)  # words
decoder, memories = models["good"]


def memory_of(i):
    """The memory of one test picture."""
    tokens, mask = memories[i // 100]
    row = slice(i % 100, i % 100 + 1)
    return Memory(tokens[row], mask[row])


def make_following(memory):
    """The function that `beams_by_hand` needs, for one picture."""

    @torch.no_grad()
    def following(words):
        tokens = torch.tensor([[BOS, *words]], device=device)  # (1, T)
        logits = decoder(tokens, memory)[0, -1]  # (V,)
        log_probs = dict(enumerate(logits.log_softmax(-1).tolist()))
        for special in range(len(SPECIALS)):
            if special != EOS:
                del log_probs[special]
        return log_probs

    return following


# %%
checked = list(product(range(chapter.choose(5, fast=1)), (0.0, 1.0)))
for i, length_penalty in checked:
    following = make_following(memory_of(i))
    score, _, words = beams_by_hand(following, 3, max_length, length_penalty)
    options = SearchOptions(length_penalty)
    [[best]] = beam_search(decoder, memory_of(i), 3, max_length, options)
    assert best.tokens == [word for word in words if word != EOS]
    assert abs(best.score - score) < 1e-4
print(f"our search and the library's agree in {len(checked)} searches")

# %%
for memory in memories:
    one_beam = [best.tokens for [best] in beam_search(decoder, memory, 1, max_length)]
    greedy = [best.tokens for best in greedy_search(decoder, memory, max_length)]
    assert one_beam == greedy
print(f"one beam is greedy search, on all of {len(scenes):,} pictures")

# %% [markdown]
# Now come the searches that this chapter is about. Each model is trained only once, so what differs
# is the search alone.


# %%
class Run(NamedTuple):
    """What a search found for all test pictures."""

    hypotheses: list
    words: list
    true: np.ndarray  # for each caption: 100 if it is true, otherwise 0
    seconds: float

    def mean_log_prob(self):
        return mean(hypothesis.log_prob for hypothesis in self.hypotheses)

    def mean_length(self):
        return mean(len(words) for words in self.words)


def truth(written):
    """For each caption: 100 if it is true of its scene, otherwise 0."""
    values = []
    for words, scene in zip(written, scenes):
        values.append(100.0 * judge(detokenize(words), scene).true)
    return np.array(values)


# %%
def run(name, num_beams, length_penalty, **options):
    decoder, memories = models[name]
    options = SearchOptions(length_penalty, **options)
    hypotheses = []
    start = time.monotonic()
    for memory in memories:
        found = beam_search(decoder, memory, num_beams, max_length, options)
        hypotheses += [best for [best] in found]
    seconds = time.monotonic() - start
    words = [vocabulary.decode(hypothesis.tokens) for hypothesis in hypotheses]
    return Run(hypotheses, words, truth(words), seconds)


BEAMS = (1, 2, 3, 5, 10, 20)
runs = {}  # (model, length penalty, number of beams) -> Run
for name, penalty, k in product(models, (0.0, 1.0), BEAMS):
    runs[name, penalty, k] = run(name, k, penalty)

# %% [markdown]
# ## Look
#
# **What the beams say.** A search with five beams ends with five sentences (`n_best=5`). Here they
# are with their log-probabilities, green if the judge finds them true: at the top for an easy
# picture, below for one where greedy search is wrong and five beams are right.

# %%
greedy = runs["good", 0.0, 1]
beams = runs["good", 0.0, 5]


def difficulty(i):
    """Least for a true caption that is short."""
    return (-beams.true[i], len(beams.words[i]))


easy = min(range(min(60, len(scenes))), key=difficulty)
hard = 1  # if there is none
for i in range(len(scenes)):
    if greedy.true[i] < beams.true[i] and len(beams.words[i]) < 13:
        hard = i
        break
lines = []  # for each picture: (log-probability, sentence, whether it is true)
for i in (easy, hard):
    options = SearchOptions(length_penalty=0.0, n_best=5)
    [five] = beam_search(decoder, memory_of(i), 5, max_length, options)
    lines.append([])
    for hypothesis in (greedy.hypotheses[i], *five):
        text = detokenize(vocabulary.decode(hypothesis.tokens))
        lines[-1].append((hypothesis.log_prob, text, judge(text, scenes[i]).true))
figure = drawings.greedy_and_beams((images[easy], images[hard]), lines)
chapter.draw(figure, "what five beams say")

# %% [markdown]
# **The tree** of a search with three beams for the easy picture. On each edge is a word, and below
# it its probability; black was kept, grey was dropped, and the thick green path is the best
# sentence. Where a sentence ends, its score follows, here its log-probability. `beam_search`
# returns its candidates as a list, in which each names its parent; `search_tree` draws that list.

# %%
show(search_tree)

# %%
trees = []
options = SearchOptions(length_penalty=0.0)
beam_search(decoder, memory_of(easy), 3, max_length, options, trees)
chapter.draw(search_tree(trees[0], vocabulary), "the tree of a search with three beams")

# %% [markdown]
# **Sampling** does not look for the best sentence. It draws each word at random, by the model's
# probabilities, and says something different each time. The **temperature** $\tau$ divides the
# logits before the softmax: below 1 the probable words get more probable still (near 0 it is greedy
# search), above 1 the probabilities of all words come closer together. `top_k` and `top_p` cut off
# the tail: only the $k$ most probable words, or the fewest that together have at least the
# probability $p$, may be drawn.

# %%
show(sample)

# %%
WAYS = {
    "temperature 0.3": {"temperature": 0.3},
    "temperature 1.0": {"temperature": 1.0},
    "temperature 1.5": {"temperature": 1.5},
    "1.0, top_k=5": {"top_k": 5},
    "1.0, top_p=0.9": {"top_p": 0.9},
}
samples = {}  # way -> five lists, each with a hypothesis per picture
for way, options in WAYS.items():
    options = options | {"generator": torch.Generator(device).manual_seed(0)}
    samples[way] = [[] for _ in range(5)]
    for hypotheses in samples[way]:
        for memory in memories:
            hypotheses += sample(decoder, memory, max_length, **options)

# %%
print(f"{'five samples per picture':24} true, %   BLEU-4   different   log P")
texts = {}  # way -> five lists of captions
for way in WAYS:
    texts[way] = []
    for hypotheses in samples[way]:
        texts[way].append([vocabulary.decode(h.tokens) for h in hypotheses])
    true = mean(truth(each).mean() for each in texts[way])
    score = mean(bleu(each, references).score for each in texts[way])
    log_prob = mean(h.log_prob for hypotheses in samples[way] for h in hypotheses)
    different = []  # captions of each picture
    for five in zip(*texts[way]):
        different.append(len({tuple(words) for words in five}))
    print(f"{way:24} {true:7.1f} {score:8.1f} {mean(different):11.1f} {log_prob:7.1f}")
true = greedy.true.mean()
score = bleu(greedy.words, references).score
log_prob = greedy.mean_log_prob()
print(f"{'greedy search':24} {true:7.1f} {score:8.1f} {1:11.1f} {log_prob:7.1f}")
for way in list(WAYS)[:3]:
    print(f"\n{way}, the hard picture above:")
    for each in texts[way][:3]:
        print(f"  {detokenize(each[hard])}")

# %% [markdown]
# ## What to notice
#
# **Quality, length and time by number of beams**, for the good model, with 95 % intervals.

# %%
table = {}  # (length penalty, number of beams) -> {measure: value}
for penalty, k in product((0.0, 1.0), BEAMS):
    r = runs["good", penalty, k]
    scores = caption_scores(r.words, references)
    table[penalty, k] = {
        "true, %": ConfidenceInterval(r.true.mean(), *bootstrap(r.true)),
        "BLEU-4": scores["BLEU-4"],
        "CIDEr-D": scores["CIDEr-D"],
        "log P": r.mean_log_prob(),
        "words": r.mean_length(),
        "time, greedy search = 1": r.seconds / runs["good", 0.0, 1].seconds,
        "score": mean(hypothesis.score for hypothesis in r.hypotheses),
    }

# %%
figure = Figure(figsize=(8, 4.6), dpi=100, layout="constrained")
for axis, measure in zip(figure.subplots(2, 3).flat, table[0.0, 1]):
    for penalty, colour, shift in ((0.0, BLUE, -0.08), (1.0, ORANGE, 0.08)):
        x = [n + shift for n in range(len(BEAMS))]
        values = [table[penalty, k][measure] for k in BEAMS]
        style = {"color": colour, "marker": "o", "ms": 4, "lw": 1.2}
        style["label"] = f"length penalty {penalty:.0f}"
        if isinstance(values[0], ConfidenceInterval):
            scores = [value.score for value in values]
            below = [value.score - value.low for value in values]
            above = [value.high - value.score for value in values]
            axis.errorbar(x, scores, [below, above], capsize=2, **style)
        else:
            axis.plot(x, values, **style)
    axis.set_xticks(range(len(BEAMS)), BEAMS)
    axis.set_title(measure, fontsize=10)
    axis.grid(alpha=0.3)
    axis.tick_params(labelsize=8)
figure.axes[4].set_xlabel("beams")
figure.axes[3].legend(fontsize=8)
chapter.draw(figure, "quality length and time by number of beams")


# %%
def interval(value, digits=1):
    score, low, high = (f"{number:.{digits}f}" for number in value)
    return f"{score} [{low}, {high}]"


print("penalty beams  true, %            BLEU-4             ", end="")
print("CIDEr-D            log P  words  time  score")
for (penalty, k), row in table.items():
    true, bleu_4, cider, log_prob, length, seconds, score = row.values()
    print(f"{penalty:5.0f} {k:7}   {interval(true):19}{interval(bleu_4):19}", end="")
    print(f"{interval(cider, 2):18}{log_prob:6.3f} {length:6.2f} ", end="")
    print(f"{seconds:5.1f} {score:6.3f}")

# %% [markdown]
# The differences between two searches, picture by picture:

# %%
PAIRS = (  # model, length penalty, number of beams, compared with
    ("good", 0.0, 2, 1),
    ("good", 0.0, 5, 1),
    ("good", 0.0, 20, 1),
    ("good", 0.0, 20, 2),
    ("good", 1.0, 2, 1),
    ("good", 1.0, 20, 1),
    ("good", 1.0, 20, 2),
    ("weak", 0.0, 2, 1),
    ("weak", 0.0, 5, 1),
    ("weak", 0.0, 20, 1),
)
print("how much more is true, in %, on the same pictures:")
for name, penalty, many, few in PAIRS:
    more = runs[name, penalty, many].true - runs[name, penalty, few].true
    low, high = bootstrap(more)
    print(f"{name}, penalty {penalty:.0f}, {many:2} beams against {few}: ", end="")
    print(f"{more.mean():+.1f} [{low:+.1f}, {high:+.1f}]; ", end="")
    print(f"{(more > 0).sum()} become true, {(more < 0).sum()} false")

# %% [markdown]
# The faults that the judge finds, and the number of pictures on which a search misses a more
# probable sentence:

# %%
print("faults of the good model, penalty 0:")
for k in (1, 2, 5, 20):
    faults = judge_captions(runs["good", 0.0, k].words, scenes).faults
    texts = [f"{fault} {number}" for fault, number in faults.most_common()]
    print(f"beams {k:2}: {', '.join(texts)}")

log_probs = {}
for k in BEAMS:
    log_probs[k] = np.array([h.log_prob for h in runs["good", 0.0, k].hypotheses])
for other, name in ((20, "20 beams find"), (1, "greedy search finds")):
    missed = {k: int((log_probs[other] - log_probs[k] > 1e-4).sum()) for k in BEAMS}
    print(f"less probable than what {name}: {missed}")

# %% [markdown]
# **The length penalty**, with five beams. BLEU has a **brevity penalty** (chapter 9), which lowers
# the score of captions that are shorter than their references. We compute BLEU with all five
# references, of which the one nearest in length counts for the penalty, and with only one
# reference.

# %%
PENALTIES = (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 4.0)
one_reference = [[five[i % 5]] for i, five in enumerate(references)]
rows = {}  # length penalty -> words, % true, BLEU-4 with five references and with one
print("length penalty   words   true, %   BLEU-4 (brevity)   ", end="")
print("with one reference (brevity)")
for penalty in PENALTIES:
    if ("good", penalty, 5) in runs:
        r = runs["good", penalty, 5]
    else:
        r = run("good", 5, penalty)
    five = bleu(r.words, references)
    one = bleu(r.words, one_reference)
    rows[penalty] = (r.mean_length(), r.true.mean(), five.score, one.score)
    print(f"{penalty:10} {r.mean_length():12.2f} {r.true.mean():8.1f} ", end="")
    print(f"{five.score:9.1f} ({five.bp:.3f}) {one.score:13.1f} ({one.bp:.3f})")
print(f"with a penalty of 4: {detokenize(r.words[easy])}")
lengths = [len(words) for five in references for words in five]
print(f"the references: {mean(lengths):.2f} words")

# %%
lengths, true, with_five, with_one = zip(*rows.values())
figure = Figure(figsize=(8, 2.7), dpi=100, layout="constrained")
left, middle, right = figure.subplots(1, 3)
left.plot(lengths, "o-", color=BLUE)
left.set_title("words")
middle.plot(true, "o-", color=BLUE)
middle.set_title("true, %")
right.plot(with_five, "o-", color=BLUE, label="five references")
right.plot(with_one, "o-", color=ORANGE, label="one reference")
right.set_title("BLEU-4")
right.legend(fontsize=8)
for axis in (left, middle, right):
    axis.set_xticks(range(len(PENALTIES)), [f"{p:g}" for p in PENALTIES], fontsize=8)
    axis.set(xlabel="length penalty", ylim=(0, None))
    axis.grid(alpha=0.3)
chapter.draw(figure, "length truth and BLEU by length penalty")

# %% [markdown]
# **Why more beams can be worse.** The search finds what the model believes. If the model believes
# something silly, a bad search may protect us from it. Here is the model with the gaps, next to its
# control, the weak one: the same training and the same number of captions. One in twenty of the
# sentences that it was shown is empty, so it gives `<eos>` about that probability as the first
# word. That is low; but the empty sentence pays only once, and a long one pays for every word.


# %%
@torch.no_grad()
def probability_of_nothing(name):
    """The mean probability of <eos> as the first word."""
    decoder, memories = models[name]
    probabilities = []
    for memory in memories:
        token = torch.full((len(memory.tokens),), BOS, device=device)  # (B,)
        logits, _ = decoder.step(token, decoder.start(memory))  # (B, V)
        probabilities += logits.softmax(-1)[:, EOS].tolist()
    return mean(probabilities)


for name in ("weak", "gaps"):
    empty = probability_of_nothing(name)
    written = mean(exp(h.log_prob) for h in runs[name, 0.0, 1].hypotheses)
    print(
        f"{name}: the mean probability of the empty sentence is {empty:.3f}, ", end=""
    )
    print(f"of greedy search's {written:.3f}")

# %%
runs["gaps", 0.0, "20*"] = run("gaps", 20, 0.0, min_length=1)
measures = {}  # (model, length penalty, number of beams) -> {measure: value}
for key, r in runs.items():
    measures[key] = {
        "true, %": r.true.mean(),
        "empty, %": 100 * mean(len(words) == 0 for words in r.words),
        "log P": r.mean_log_prob(),
    }
print("model  penalty  beams  true, %  empty, %   log P   BLEU-4 (brevity)")
for (name, penalty, k), row in measures.items():
    if name != "good":
        true, empty, log_prob = row.values()
        score = bleu(runs[name, penalty, k].words, references)
        print(f"{name} {penalty:8.0f} {k:>7} {true:8.1f} {empty:9.1f} ", end="")
        print(f"{log_prob:9.3f} {score.score:7.1f} ({score.bp:.3f})")
print("* with min_length=1: no sentence may be empty")
more = runs["gaps", 0.0, 20].true - runs["gaps", 0.0, 2].true
low, high = bootstrap(more)
print(f"gaps, penalty 0, 20 beams against 2: {more.mean():+.1f} ", end="")
print(f"[{low:+.1f}, {high:+.1f}] % true")

# %%
LINES = (  # model, length penalty, colour, label
    ("weak", 0.0, PALE, "no gaps, length penalty 0"),
    ("gaps", 0.0, RED, "gaps, length penalty 0"),
    ("gaps", 1.0, GREEN, "gaps, length penalty 1"),
)
figure = Figure(figsize=(8, 2.9), dpi=100, layout="constrained")
axes = figure.subplots(1, 3)
for axis, measure in zip(axes, ("true, %", "empty, %", "log P")):
    for name, penalty, colour, label in LINES:
        values = [measures[name, penalty, k][measure] for k in BEAMS]
        axis.plot(range(len(BEAMS)), values, "o-", ms=4, color=colour, label=label)
    axis.set_xticks(range(len(BEAMS)), BEAMS)
    axis.set_title(measure, fontsize=10)
    axis.set_xlabel("beams")
    axis.grid(alpha=0.3)
axes[0].set_ylim(0, None)
axes[0].legend(fontsize=8, loc="lower left")
chapter.draw(figure, "more beams find the gaps in the data")

# %% [markdown]
# **A wider search finds more probable sentences.** With no length penalty, the mean log-probability
# rises with the beams, from -2.478 to -2.297. Greedy search misses what 20 beams find on 541 of
# 1,000 pictures; ten beams miss it on three. This is the **search error**, and it can be made
# almost zero. (On seven pictures two beams lost greedy search's sentence and ended with a less
# probable one, as on our tables.) With a penalty of 1 the search maximizes the score, and that
# rises; the log-probability need not.
#
# **Slightly more of them may be true.** Of the good model's captions 64.9 % are true with greedy
# search, 65.9 % with two beams, 66.3 % with twenty. (BLEU and CIDEr-D are highest with two or
# three.) The intervals in the figure overlap so widely that nothing seems to have happened. But
# those intervals speak of other pictures, and all searches saw the same ones. Picture by picture,
# two beams are ahead of greedy search by 1.0 %, with 95 % confidence between -0.2 and 2.2: the
# question remains open. Nor can we say whether twenty are better than two (-0.8 to 1.7), although
# they find something more probable on 307 pictures. The weak model gains more: 2.0 % with two
# beams, 3.4 % with five, 4.2 % with twenty, and there all three intervals lie above 0. So the
# number of beams is a hyperparameter like any other, to be chosen on validation data.
#
# And remember that each model was trained once. On another machine, which rounds differently, the
# same training gave a good model with 65.9 % for greedy search, 68.0 % for two beams and 68.9 % for
# twenty. There, two beams were ahead of greedy search by 2.1 %, between 0.6 and 3.7. Each result is
# true of its model. The intervals say what other pictures might change, but not what another
# training might.
#
# **Time.** Five beams took about twice as long as greedy search here, and twenty beams five to
# seven times as long: more with the penalty, which lets the search continue longer. It is not
# twenty times, since all beams of a batch take their steps together.
#
# **The length penalty** chooses among captions that are about equally true: from -1 to 2, their
# mean length rises from 11.26 to 14.69 words, while 64.7 to 67.4 % are true. BLEU with five
# references hardly changes (79.5 to 80.8), and the brevity penalty is 1.000 throughout: there is
# always a reference that is as short. With one reference BLEU falls from 55.5 to 48.9. So if a
# model's BLEU is a little higher, ask which length penalty it was searched with. With 4 the search
# takes whatever is longest: 24.99 words, and 15.1 % are true.
#
# **Why more beams can be worse.** With the gaps, the empty sentence is about as probable as greedy
# search's (on average 0.055 and 0.050). Greedy search never writes it, since `<eos>` is never the
# most probable first word. Wide beams keep it. With ten, more than half of the captions are empty;
# 32.8 % are true, instead of 43.3 % with two, and BLEU falls from 72.3 to 18.7. By the model's own
# measure that is a success: the log-probability rises from -3.305 to -2.643. The control, without
# gaps, shows none of it. The narrow search had hidden a fault of the model.
#
# The same was seen in translation, on a large scale: wide beams made translations worse (Koehn and
# Knowles 2017); a few copied sentences in the training data can cause that (Ott et al. 2018); and
# for more than half of the sentences, an exact search found the empty one to be the most probable
# (Stahlberg and Byrne 2019).
#
# A length penalty of 1 cures it here: no caption is empty, 42.1 % are true. So does `min_length=1`:
# 43.9 %. Both repair the search (Murray and Chiang 2018 compare such ways); the data still have
# their gaps. Perhaps the most probable sentence is not quite what we want, and beam search works
# because it also prefers something else: sentences whose words are evenly surprising (Meister,
# Cotterell and Vieira 2020).
#
# **Sampling shows what the model believes.** At temperature 1, 45.0 % of what it says is true,
# against 64.9 % for greedy search. At 1.5 it is 22.2 %: each improbable word is rare, but there are
# many, and one is enough. That tail is what `top_k` (47.2 %) and `top_p` (51.9 %) cut off. Five
# samples give 4.4 different sentences at temperature 1; but there are five right ways to describe
# each picture, and different words are not always different thoughts. If you want one true caption,
# search; if you want many, sample.
#
# ## Your turn
#
# Write these yourself, from their docstrings. `python -m chapters.assignments start 8 --to work`
# creates the stubs, and `check 8 --from work` says which of them are right, and gives a hint for
# those that are not.
#
# 1. `sample`: the word that crosses the line belongs to the nucleus. 10 points, 50 minutes.
# 2. `LSTMDecoder.reorder`: three lines. What breaks without them? 3 points, 15 minutes.
# 3. `beam_search`: first its steps for one picture, then when to stop, then a whole batch. Compare
#    it with `beams_by_hand`. 30 points, 150 minutes.
# 4. `_forbid`: and what if no word is left? 8 points, 40 minutes.
#
# And three questions without an answer here:
#
# 1. On which pictures do greedy search and five beams differ, and could one predict that before
#    searching?
# 2. The best of a hundred samples by the model's score is a search, too: how does it compare with
#    beams in the same time?
# 3. Instead of the most probable sentence, one can draw many samples and take the one that is most
#    like the others (minimum Bayes risk: Eikema and Aziz 2020). Is it true more often?

# %%
chapter.finish()

# %% [markdown]
# ## Sources
#
# Graves 2012, "Sequence transduction with recurrent neural networks" (beam search) · Sutskever,
# Vinyals and Le 2014, "Sequence to sequence learning with neural networks" · Wu et al. 2016,
# "Google's neural machine translation system" (length normalization) · Koehn and Knowles 2017, "Six
# challenges for neural machine translation" (wider beams, worse translations) · Fan, Lewis and
# Dauphin 2018, "Hierarchical neural story generation" (top-k) · Murray and Chiang 2018, "Correcting
# length bias in neural machine translation" · Ott et al. 2018, "Analyzing uncertainty in neural
# machine translation" (noise in the data, found by wide beams) · Stahlberg and Byrne 2019, "On NMT
# search errors and model errors: cat got your tongue?" · Eikema and Aziz 2020, "Is MAP decoding all
# you need?" · Holtzman et al. 2020, "The curious case of neural text degeneration" (top-p) ·
# Meister, Cotterell and Vieira 2020, "If beam search is the answer, what was the question?"
