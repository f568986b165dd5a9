# %% [markdown]
# # 8 · Beam search
#
# **Adds** greedy search, sampling, and beam search with its length penalty. **Takes** 2.8 min on two cores.
#
# A captioner does not write sentences. It gives, for a picture and the words so far, a probability to each next word. What
# we read was made of that by a search, and so far by the simplest: take the most probable word, again and again. It is
# called **greedy**, and it can be wrong about its own model. This chapter searches better, and then asks what that is good
# for.

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
from mmscratch import decoding
from mmscratch.attention import Memory
from mmscratch.data.judge import judge, judge_captions
from mmscratch.data.language import captions
from mmscratch.data.scenes import SPLITS, Scene
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

torch.manual_seed(0)
chapter = Chapter(8)
BLUE, PALE, RED, ORANGE, GREEN = "#2171b5", "#9ecae1", "#c62828", "#d94801", "#1a7f37"

# %% [markdown]
# ## The idea
#
# The probability of a sentence is the product of those of its words, each given the words before it:
#
# $$P(w_1 \dots w_T) = \prod_t P(w_t \mid w_1 \dots w_{t-1}) \qquad \log P = \sum_t \log P(w_t \mid w_1 \dots w_{t-1})$$
#
# So the best sentence is a **search problem**. With $V$ words there are $V^T$ sentences of $T$ words, and no way to try
# them all. But all begin at the same place and branch word by word: they are a **tree**. Here is one so small that we see
# all of it. The picture shows two stars, the model is not quite sure, and a sentence has two words.

# %%
words = {word for i in range(1000) for c in captions(Scene(i)) for word in tokenize(c)}
print(
    f"of the {len(words)} words of our scenes, "
    f"{len(words) ** 12:.0e} sentences of 12 words can be made"
)
TABLE = {  # the words so far -> the probabilities of the next
    (): {"a": 0.6, "two": 0.4},
    ("a",): {"star": 0.4, "sun": 0.35, "heart": 0.25},
    ("two",): {"stars": 0.9, "suns": 0.1},
}
chapter.draw(drawings.all_sentences(TABLE), "greedy takes the wrong turn")

# %% [markdown]
# ## By hand
#
# **Greedy's mistake.** "a" is the more probable first word, but it can go on in many ways, and they share its probability.
# "two" has nearly all of its probability in one. Greedy has decided before it could see that.

# %%
sentences = sorted(
    (
        (p * TABLE[first,][second], first, second)
        for first, p in TABLE[()].items()
        for second in TABLE[first,]
    )
)
for p, *words in reversed(sentences):
    print(f"{p:.2f} {' '.join(words)}")

# %% [markdown]
# **Beam search** decides later. It keeps not one beginning but the $K$ most probable: the **beams**. All are continued by
# all words, and of all that the $K$ most probable are kept. In a dozen lines, with probabilities as logarithms; a
# sentence ends with `<eos>`, or is cut at a greatest length:


# %%
def beams_by_hand(following, num_beams, max_length, length_penalty=0.0):
    """following: the words so far -> {next word: its log-probability}. The best sentence: (score, log-probability, words)."""
    beams, found = [(0.0, ())], []
    for length in range(1, max_length + 1):
        longer = [
            (total + log_p, (*words, word))
            for total, words in beams
            for word, log_p in following(words).items()
        ]
        longer = sorted(longer, reverse=True)[: 2 * num_beams]
        ended = {
            words for _, words in longer if words[-1] == EOS or length == max_length
        }
        found += [
            (total / length**length_penalty, total, words)
            for total, words in longer[:num_beams]
            if words in ended
        ]
        beams = [(total, words) for total, words in longer if words not in ended][
            :num_beams
        ]
    return max(found)


def following(words):
    return {word: log(p) for word, p in TABLE[words].items()}


for num_beams in (1, 2):
    _, total, words = beams_by_hand(following, num_beams, max_length=2)
    print(
        f"{num_beams} beam{'s' * (num_beams > 1)}: {' '.join(words)}, {exp(total):.2f}"
    )

# %% [markdown]
# One beam is greedy search. Two beams keep "two" alive for a step, and that is enough. (What the length penalty is, and why
# $2K$ are looked at, comes below.)
#
# **Is beam search never worse than greedy?** It looks as if it had to be at least as good, as it keeps greedy's sentence
# among others. But it may lose it. Let us look for a case: tables of random probabilities, sentences of three words out of
# five, greedy and two beams against the truth, which is here known: with 125 beams nothing is ever dropped.


# %%
def random_table(seed, words="ABCDE", length=3):
    draw, table = random.Random(seed), {}
    for t in range(length):
        for beginning in product(words, repeat=t):
            parts = [draw.random() for _ in words]
            table[beginning] = {
                word: log(part / sum(parts)) for word, part in zip(words, parts)
            }
    return table


tables, worse = [random_table(seed) for seed in range(1000)], []
greedy, two, all_of_them = (
    [beams_by_hand(table.get, k, 3)[1:] for table in tables] for k in (1, 2, 125)
)
worse = [i for i in range(1000) if two[i][0] < greedy[i][0] - 1e-9]
better = sum(t[0] > g[0] + 1e-9 for t, g in zip(two, greedy))
same = len(tables) - better - len(worse)
print(
    f"of 1,000 tables, two beams are better than greedy on {better}, the same on {same}, worse on {len(worse)}"
)
for name, found in (("greedy", greedy), ("two beams", two)):
    print(
        f"{name}: the most probable sentence on {sum(f[1] == a[1] for f, a in zip(found, all_of_them))}"
    )


def walk(table, words):
    """The words, each with the probability of all up to it."""
    return " → ".join(
        f"{words[t]} {exp(sum(table[words[:i]][words[i]] for i in range(t + 1))):.3f}"
        for t in range(3)
    )


i = max(worse, key=lambda i: greedy[i][0] - two[i][0])
table = tables[i]
kept = sorted(table[()], key=table[()].get)[-2:]
second = sorted(
    ((table[()][a] + table[a,][b], a, b) for a in kept for b in table[a,]), reverse=True
)
print(
    f"\nin table {i}: greedy search    {walk(table, greedy[i][1])}\n{'':13} two beams        {walk(table, two[i][1])}"
)
print(
    "the beginnings of two words: "
    + ", ".join(f"{a} {b} {exp(total):.3f}" for total, a, b in second[:3])
)

# %% [markdown]
# After two words, greedy's beginning is third of three, and dropped. Its third word would have been good; the two that
# were kept go on badly. It is rare, and it is real: beam search is a better guess, not a guarantee.
#
# ## The piece
#
# The library searches for all pictures of a batch at once. It needs to know three things only of a decoder: `start`, which
# gives a state; `step`, which takes a word and a state and gives logits and the next state; and `reorder`, which brings
# the states into the order of the beams that were kept. What it finds are hypotheses:

# %%
show(Hypothesis)
show(SearchOptions)
show(beam_search)

# %% [markdown]
# Its steps: continue the beams, collect the sentences that have ended, keep the best of the others, and see whether these
# can still become better than what was found. A search keeps its numbers in two groups of tensors, one for the beams
# and one for their candidates.

# %%
show(decoding._Beams)
show(decoding._Candidates)
show(decoding._expand)
show(decoding._collect)
show(decoding._keep)
show(decoding._can_improve)

# %% [markdown]
# **Why $2K$?** Each beginning has one continuation that ends: its `<eos>`. So at most $K$ of the $2K$ best continuations
# end, and $K$ are sure to remain that go on. But an `<eos>` counts only if it is **among the first $K$**: one that is not
# would have been dropped, were it any other word, and a sentence should not be found only because it is over.
#
# **When to stop?** What is added to a log-probability is never above 0, so a beginning can only sink. With no penalty, the
# search is over as soon as the best beginning is below the best sentence found. With a **length penalty** $\alpha$, the
# score is the log-probability divided by $\text{length}^\alpha$, and that may rise. But it can never get above
# $\log P / \text{max\_length}^\alpha$: as if all words from here on were certain. As long as that beats what was found,
# the search goes on.
#
# First the check on the small tables: a decoder that reads them needs just those three methods.


# %%
class TableDecoder:
    """A decoder whose probabilities stand in a table, and whose state is the words so far."""

    def __init__(self, table):
        self.table, self.vocabulary = (
            table,
            Vocabulary(sorted({word for row in table.values() for word in row})),
        )

    def start(self, memory):
        return [None] * len(memory.tokens)

    def step(self, token, state):
        logits = torch.full((len(token), len(self.vocabulary)), -1e9)
        state = [
            () if words is None else (*words, self.vocabulary.words[i])
            for words, i in zip(state, token.tolist())
        ]
        for row, words in zip(logits, state):
            for word, log_p in self.table.get(words, {}).items():
                row[self.vocabulary.index[word]] = log_p
        return logits, state

    def reorder(self, state, index):
        return [state[i] for i in index.tolist()]


nothing = Memory(
    torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool)
)  # these decoders look at no picture


def library(table, num_beams, length, **options):
    decoder, options = TableDecoder(table), SearchOptions(length_penalty=0.0, **options)
    ((best,),) = beam_search(decoder, nothing, num_beams, length, options)
    return tuple(decoder.vocabulary.decode(best.tokens))


stars = {words: following(words) for words in TABLE}
assert [library(stars, k, 2) for k in (1, 2)] == [("a", "star"), ("two", "stars")]
some = [*worse, *range(chapter.choose(100, fast=10))]
assert all(
    library(tables[i], 1, 3) == greedy[i][1] and library(tables[i], 2, 3) == two[i][1]
    for i in some
)
assert all(
    library(tables[i], 2, 3, keep_greedy=True) == max(greedy[i], two[i])[1]
    for i in some
)
print(
    f"by hand and the library's agree on {1 + len(some)} tables; with keep_greedy=True, two beams are never worse than greedy"
)

# %% [markdown]
# `keep_greedy=True` is the way out of the rare case above: it runs greedy search, too, and takes the better of both.
#
# ## Train it
#
# An LSTM that looks at the picture for each word (chapter 5), on kept grids of chapter 2's CNN. Three of them: a **good**
# one; a **weak** one, that sees a quarter of the captions; and one for a question that comes at the end, trained like the
# weak one, but with **gaps**: one caption in twenty is missing from its data, as happens when data are collected.

# %%
device = pick_device()
cnn = pretrained_cnn(
    folder(2, chapter.fast) / "cnn.pt", chapter.choose(30_000, fast=640)
)
count = chapter.choose(16_000, fast=64)
sentences = [[tokenize(c) for c in captions(Scene(i))] for i in range(count)]
vocabulary = Vocabulary.build(sentence for five in sentences for sentence in five)
targets = [
    [torch.tensor([*vocabulary.encode(sentence), EOS]) for sentence in five]
    for five in sentences
]
draw, missing = random.Random(0), torch.tensor([EOS])
with_gaps = [
    [missing if draw.random() < 0.05 else target for target in five] for five in targets
]
grids = extract_features(cnn, labelled_scenes("train", count)[0])  # (N, 128, 4, 4)

images, _ = labelled_scenes("test", chapter.choose(1000, fast=20))
scenes = [Scene(SPLITS["test"] + i) for i in range(len(images))]
references = [[tokenize(c) for c in captions(scene)] for scene in scenes]
test_grids = extract_features(cnn, images)


def train(name, pictures, epochs, targets):
    """-> the decoder, and what it gets to see of the test pictures: a memory for each hundred."""
    torch.manual_seed(0)
    encoder = ImageEncoder(cnn, 128, image_size=64).to(device)
    decoder = LSTMDecoder(len(vocabulary), 128, 256).to(device)
    shuffle, start = torch.Generator().manual_seed(0), time.monotonic()
    train_captioner(
        decoder,
        encoder,
        grids[:pictures],
        targets[:pictures],
        epochs,
        16,
        3e-3,
        generator=shuffle,
    )
    print(
        f"{name}: {pictures * epochs:,} captions in {time.monotonic() - start:.0f} s",
        flush=True,
    )
    with torch.no_grad():
        return decoder.eval(), [
            encoder.eval().encode_features(grid) for grid in test_grids.split(100)
        ]


models = {
    "good": train("good", count, chapter.choose(2, fast=1), targets),
    "weak": train("weak", count // 2, 1, targets),
    "gaps": train("gaps", count // 2, 1, with_gaps),
}

# %% [markdown]
# First a check on a real decoder. By hand again, and as slowly as can be: for every word the decoder reads the whole
# beginning anew, and the search never stops before the last. Then the searches that this chapter is about. What differs
# is the search alone: each model is trained once.

# %%
longest = chapter.choose(30, fast=8)  # words
decoder, memories = models["good"]


def following_of(memory):
    @torch.no_grad()
    def following(words):
        logits = decoder(torch.tensor([[BOS, *words]], device=device), memory)[
            0, -1
        ]  # (V,)
        log_probs = enumerate(logits.log_softmax(-1).tolist())
        return {
            word: log_p
            for word, log_p in log_probs
            if word == EOS or word >= len(SPECIALS)
        }

    return following


def only(i):
    """The memory of one test picture."""
    return Memory(*(part[i % 100 : i % 100 + 1] for part in memories[i // 100]))


checked = list(product(range(chapter.choose(5, fast=1)), (0.0, 1.0)))
for i, length_penalty in checked:
    score, _, words = beams_by_hand(following_of(only(i)), 3, longest, length_penalty)
    options = SearchOptions(length_penalty)
    ((best,),) = beam_search(decoder, only(i), 3, longest, options)
    assert (
        best.tokens == [word for word in words if word != EOS]
        and abs(best.score - score) < 1e-4
    )
print(f"by hand and the library's agree in {len(checked)} searches")
one_beam = [
    best for memory in memories for (best,) in beam_search(decoder, memory, 1, longest)
]
assert [h.tokens for h in one_beam] == [
    h.tokens for memory in memories for h in greedy_search(decoder, memory, longest)
]
print(f"one beam is greedy search, on all of {len(one_beam)} pictures")


# %%
class Run(NamedTuple):
    """What a search found."""

    found: list  # a hypothesis a picture
    words: list[list[str]]
    true: np.ndarray  # 100 where the caption is true, 0 where not
    seconds: float


def run(name, num_beams, length_penalty, **options):
    (decoder, memories), start = models[name], time.monotonic()
    options = SearchOptions(length_penalty, **options)
    found = []
    for memory in memories:
        searched = beam_search(decoder, memory, num_beams, longest, options)
        found += [best for (best,) in searched]
    seconds = time.monotonic() - start
    words = [vocabulary.decode(hypothesis.tokens) for hypothesis in found]
    return Run(found, words, judged(words), seconds)


def judged(written):
    return np.array(
        [
            100.0 * judge(detokenize(words), scene).true
            for words, scene in zip(written, scenes)
        ]
    )


BEAMS = (1, 2, 3, 5, 10, 20)
runs = {
    (name, penalty, k): run(name, k, penalty)
    for name, penalty, k in product(models, (0.0, 1.0), BEAMS)
}

# %% [markdown]
# ## Look
#
# **What the beams say.** A search with five beams ends with five sentences (`n_best=5`). Here they are with their
# log-probabilities, green where the judge finds them true: above for an easy picture, below for one where greedy search
# is wrong and five beams are right.

# %%
greedy, beams = runs["good", 0.0, 1], runs["good", 0.0, 5]
first = range(min(60, len(scenes)))
easy = min(first, key=lambda i: (-beams.true[i], len(beams.words[i])))
better = [i for i in range(len(scenes)) if greedy.true[i] < beams.true[i]]
hard = next((i for i in better if len(beams.words[i]) < 13), 1)
lines = []  # of each picture (log-probability, sentence, whether it is true)
for i in (easy, hard):
    options = SearchOptions(length_penalty=0.0, n_best=5)
    (five,) = beam_search(decoder, only(i), 5, longest, options)
    lines.append([])
    for hypothesis in (greedy.found[i], *five):
        text = detokenize(vocabulary.decode(hypothesis.tokens))
        lines[-1].append((hypothesis.log_prob, text, judge(text, scenes[i]).true))
figure = drawings.greedy_and_beams((images[easy], images[hard]), lines)
chapter.draw(figure, "what five beams say")

# %% [markdown]
# **The tree** of a search with three beams for the easy one. On each edge is a word, and below it its probability; black was
# kept, grey was dropped, and the thick green path is the best sentence. At the ends stand the scores, here log-probabilities.
# `beam_search` gives its candidates as a list, in which each names its parent; `search_tree` draws that list.

# %%
show(search_tree)

# %%
trees = []
beam_search(decoder, only(easy), 3, longest, SearchOptions(length_penalty=0.0), trees)
chapter.draw(search_tree(trees[0], vocabulary), "the tree of a search with three beams")

# %% [markdown]
# **Sampling** does not look for the best. It rolls the dice for each word, by the model's probabilities, and says something
# else each time. The **temperature** $\tau$ divides the logits before the softmax: below 1 the probable words get more
# probable still (near 0 it is greedy search), above 1 all come nearer to each other. `top_k` and `top_p` cut off the tail:
# only the $k$ most probable words, or the fewest that together have the probability $p$, may be drawn.

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
print(f"{'five samples a picture':24} true, %   BLEU-4   different ones   log P")
samples = {}
for way, options in WAYS.items():
    dice = torch.Generator(device).manual_seed(0)
    drawn = [
        [
            h
            for m in memories
            for h in sample(decoder, m, longest, **options, generator=dice)
        ]
        for _ in range(5)
    ]
    samples[way] = [[vocabulary.decode(h.tokens) for h in found] for found in drawn]
    true = mean(judged(written).mean() for written in samples[way])
    different = mean(
        len({tuple(words) for words in five}) for five in zip(*samples[way])
    )
    score = mean(bleu(written, references).score for written in samples[way])
    log_prob = mean(h.log_prob for found in drawn for h in found)
    print(f"{way:24} {true:7.1f} {score:8.1f} {different:16.1f} {log_prob:7.1f}")
score, log_prob = (
    bleu(greedy.words, references).score,
    mean(h.log_prob for h in greedy.found),
)
print(
    f"{'greedy search':24} {greedy.true.mean():7.1f} {score:8.1f} {1:16.1f} {log_prob:7.1f}"
)
for way in list(WAYS)[:3]:
    print(f"\n{way}, the picture above that is hard:")
    for written in samples[way][:3]:
        print(f"  {detokenize(written[hard])}")

# %% [markdown]
# ## What to notice
#
# **Quality, length and time by number of beams**, of the good model, with 95 % intervals.

# %%
table = {}
for penalty, k in product((0.0, 1.0), BEAMS):
    r = runs["good", penalty, k]
    scores = caption_scores(r.words, references)
    table[penalty, k] = {
        "true, %": ConfidenceInterval(r.true.mean(), *bootstrap(r.true)),
        "BLEU-4": scores["BLEU-4"],
        "CIDEr-D": scores["CIDEr-D"],
        "log P": mean(h.log_prob for h in r.found),
        "words": mean(map(len, r.words)),
        "time, greedy search = 1": r.seconds / runs["good", 0.0, 1].seconds,
        "score": mean(h.score for h in r.found),
    }
figure = Figure(figsize=(8, 4.6), dpi=100, layout="constrained")
for axis, name in zip(figure.subplots(2, 3).flat, table[0.0, 1]):
    for penalty, colour, shift in ((0.0, BLUE, -0.08), (1.0, ORANGE, 0.08)):
        places, values = (
            [n + shift for n in range(len(BEAMS))],
            [table[penalty, k][name] for k in BEAMS],
        )
        style = {
            "color": colour,
            "marker": "o",
            "ms": 4,
            "lw": 1.2,
            "label": f"length penalty {penalty:.0f}",
        }
        if isinstance(values[0], ConfidenceInterval):
            spread = [
                [v.score - v.low for v in values],
                [v.high - v.score for v in values],
            ]
            axis.errorbar(places, [v.score for v in values], spread, capsize=2, **style)
        else:
            axis.plot(places, values, **style)
    axis.set_xticks(range(len(BEAMS)), BEAMS)
    axis.set_title(name, fontsize=10)
    axis.grid(alpha=0.3)
    axis.tick_params(labelsize=8)
figure.axes[4].set_xlabel("beams")
figure.axes[3].legend(fontsize=8)
chapter.draw(figure, "quality length and time by number of beams")

# %%
print(
    "penalty  beams   true, %             BLEU-4              CIDEr-D               log P  words  time   score"
)
for (penalty, k), row in table.items():
    *quality, log_prob, length, seconds, score = row.values()
    shown = "".join(
        f"{f'{e.score:.{d}f} [{e.low:.{d}f}, {e.high:.{d}f}]':20}"
        for e, d in zip(quality, (1, 1, 2))
    )
    print(
        f"{penalty:5.0f} {k:8}   {shown}{log_prob:7.3f} {length:6.2f} {seconds:5.1f} {score:7.3f}"
    )
print("\nhow much more is true, in %, on the same pictures:")
PAIRS = {0.0: ((2, 1), (5, 1), (20, 1), (20, 2)), 1.0: ((2, 1), (20, 1), (20, 2))}
AGAINST = [("good", penalty, *pair) for penalty in PAIRS for pair in PAIRS[penalty]]
AGAINST += [("weak", 0.0, k, 1) for k in (2, 5, 20)]
for name, penalty, many, few in AGAINST:
    more = runs[name, penalty, many].true - runs[name, penalty, few].true
    low, high = bootstrap(more)
    turned = f"{(more > 0).sum()} become true, {(more < 0).sum()} false"
    print(
        f"{name}, penalty {penalty:.0f}: {many:2} beams against {few}: {more.mean():+.1f} [{low:+.1f}, {high:+.1f}]; {turned}"
    )
print("\nfaults, good, penalty 0:")
for k in (1, 2, 5, 20):
    faults = judge_captions(runs["good", 0.0, k].words, scenes).faults
    print(
        f"{k:2} beams: "
        + ", ".join(f"{fault} {n}" for fault, n in faults.most_common())
    )
log_probs = {k: [h.log_prob for h in runs["good", 0.0, k].found] for k in BEAMS}
missed = {
    k: sum(best - p > 1e-4 for best, p in zip(log_probs[20], log_probs[k]))
    for k in BEAMS
}
lost = {k: sum(g - p > 1e-4 for g, p in zip(log_probs[1], log_probs[k])) for k in BEAMS}
print(
    f"\nless probable than what 20 beams find: {missed}\nless probable than what greedy search finds: {lost}"
)

# %% [markdown]
# **The length penalty**, with five beams. In BLEU the **brevity penalty** (chapter 9) makes a set of captions pay that is
# shorter than its references: once with all five, of which it takes the one nearest in length, and once with one.

# %%
PENALTIES = (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 4.0)
by_penalty = {a: runs.get(("good", a, 5)) or run("good", 5, a) for a in PENALTIES}
alone = [[five[i % 5]] for i, five in enumerate(references)]
print(
    "length penalty   words   true, %   BLEU-4 (brevity)   with one reference (brevity)"
)
rows = {}
for a, r in by_penalty.items():
    all_five, one = bleu(r.words, references), bleu(r.words, alone)
    rows[a] = mean(map(len, r.words)), r.true.mean(), all_five.score, one.score
    scores = (
        f"{all_five.score:9.1f} ({all_five.bp:.3f}) {one.score:13.1f} ({one.bp:.3f})"
    )
    print(f"{a:10} {rows[a][0]:12.2f} {rows[a][1]:8.1f} {scores}")
print(f"with a penalty of 4: {detokenize(by_penalty[4.0].words[easy])}")
print(
    f"the references: {mean(len(words) for five in references for words in five):.2f} words"
)

figure = Figure(figsize=(8, 2.7), dpi=100, layout="constrained")
for axis, name, n in zip(
    figure.subplots(1, 3), ("words", "true, %", "BLEU-4"), range(3)
):
    axis.plot(
        range(len(PENALTIES)),
        [row[n] for row in rows.values()],
        "o-",
        color=BLUE,
        label="five references",
    )
    if name == "BLEU-4":
        axis.plot(
            range(len(PENALTIES)),
            [row[3] for row in rows.values()],
            "o-",
            color=ORANGE,
            label="one reference",
        )
        axis.legend(fontsize=8)
    axis.set_xticks(range(len(PENALTIES)), [f"{a:g}" for a in PENALTIES], fontsize=8)
    axis.set(title=name, xlabel="length penalty", ylim=(0, None))
    axis.grid(alpha=0.3)
chapter.draw(figure, "the length penalty and what it does")

# %% [markdown]
# **Why more beams can be worse.** The search finds what the model believes. If the model believes something silly, a bad
# search may protect us from it. Here is the model with the gaps, beside the weak one, its control: the same training and
# the same number of captions. One sentence in twenty that it was shown is empty, so it gives that to `<eos>` as the first
# word. That is little; but it is all that the empty sentence costs, and a long one pays for every word.

# %%
for name in ("weak", "gaps"):
    model, seen = models[name]
    with torch.no_grad():
        first = torch.cat(
            [
                model.step(
                    torch.full((len(m.tokens),), BOS, device=device), model.start(m)
                )[0]
                for m in seen
            ]
        )
    empty, written = (
        first.softmax(-1)[:, EOS].mean(),
        mean(exp(h.log_prob) for h in runs[name, 0.0, 1].found),
    )
    print(
        f"{name}: the mean probability of the empty sentence is {empty:.3f}, of greedy search's {written:.3f}"
    )
PANELS = {
    "true, %": lambda r: r.true.mean(),
    "empty, %": lambda r: 100 * mean(not words for words in r.words),
    "log P": lambda r: mean(h.log_prob for h in r.found),
}
LINES = (
    ("weak", 0.0, PALE, "no gaps, length penalty 0"),
    ("gaps", 0.0, RED, "gaps, length penalty 0"),
    ("gaps", 1.0, GREEN, "gaps, length penalty 1"),
)
figure = Figure(figsize=(8, 2.9), dpi=100, layout="constrained")
for axis, (title, value) in zip(figure.subplots(1, 3), PANELS.items()):
    for name, penalty, colour, label in LINES:
        axis.plot(
            range(len(BEAMS)),
            [value(runs[name, penalty, k]) for k in BEAMS],
            "o-",
            ms=4,
            color=colour,
            label=label,
        )
    axis.set_xticks(range(len(BEAMS)), BEAMS)
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("beams")
    axis.grid(alpha=0.3)
figure.axes[0].set_ylim(0, None)
figure.axes[0].legend(fontsize=8, loc="lower left")
chapter.draw(figure, "more beams find the gaps in the data")
print("model  penalty  beams  true, %  empty, %   log P   BLEU-4 (brevity)")
without_empty = run("gaps", 20, 0.0, min_length=1)
for (name, penalty, k), r in {**runs, ("gaps", 0.0, "20*"): without_empty}.items():
    if name != "good":
        true, empty, log_prob = (value(r) for value in PANELS.values())
        score = bleu(r.words, references)
        print(
            f"{name} {penalty:8.0f} {k:>7} {true:8.1f} {empty:9.1f} {log_prob:9.3f} {score.score:7.1f} ({score.bp:.3f})"
        )
print("* with min_length=1: no sentence may be empty")
more = runs["gaps", 0.0, 20].true - runs["gaps", 0.0, 2].true
print(
    "gaps, penalty 0: 20 beams against 2: {:+.1f} [{:+.1f}, {:+.1f}] % true".format(
        more.mean(), *bootstrap(more)
    )
)

# %% [markdown]
# **A wider search finds what is more probable.** With no length penalty, the mean log-probability rises with the beams, from
# -2.478 to -2.297. Greedy search misses what 20 beams find on 541 of 1,000 pictures; ten beams miss it on three. This is the
# **search error**, and it can be as good as removed. (On seven pictures two beams lost greedy's sentence and ended with a less
# probable one, as on our tables.) With a penalty of 1 it is the score that is sought, and that rises; the log-probability
# need not.
#
# **A little more of it may be true.** Of the good model's captions 64.9 % are true with greedy search, 65.9 % with two beams,
# 66.3 % with twenty. The intervals in the figure overlap so widely that nothing seems to have happened. But they say what
# other pictures would have changed, and all searches saw the same ones. Picture by picture, two beams are ahead of greedy
# search by 1.0 %, with 95 % confidence between -0.2 and 2.2: even so it remains open. Nor can it be said whether twenty are
# better than two (-0.8 to 1.7), although they find something more probable on 307 pictures. The weak model gains more: 2.0 %
# with two beams, 3.4 % with five, 4.2 % with twenty, and there all three intervals lie above 0. So the number of beams is a
# setting like any other, chosen on validation data.
#
# And mind that each model was trained once. On another machine, which rounds differently, the same training gave a good model
# with 65.9 % for greedy search, 68.0 % for two beams and 68.9 % for twenty. There, two beams were ahead of greedy search by
# 2.1 %, between 0.6 and 3.7. Both are true of their model. The intervals speak of other pictures, never of another training.
#
# **Time.** Five beams took about twice as long as greedy search here, twenty about five times, a little more with the penalty,
# which lets the search go on longer. (The 2.7 of two beams is an accident: the machine was busy.) It is not twenty times, as
# all beams of a batch take their steps together.
#
# **The length penalty** chooses among captions that are about as true: from -1 to 2, their mean length rises from 11.26 to
# 14.69 words, while 64.7 to 67.4 % are true. BLEU with five references hardly sees it (79.5 to 80.8), and the brevity is
# 1.000 throughout: some reference is always as short. With one reference BLEU goes from 55.5 down to 48.9. So if a model's
# BLEU is a little higher, ask for its length penalty. With 4 the search takes what is longest: 24.99 words, and 15.1 % are
# true.
#
# **Why more beams can be worse.** With the gaps, the empty sentence is about as probable as greedy search's (0.055 and 0.050
# in the mean). Greedy search never writes it, as it is never the most probable first word. Wide beams keep it. With ten,
# more than half of the captions are empty; 32.8 % are true, instead of 43.3 % with two, and BLEU falls from 72.3 to 18.7. By
# the model's own measure that is a success: the log-probability rises from -3.305 to -2.643. The control, without gaps, has
# none of it. The narrow search had hidden what is wrong with the model.
#
# In translation the same was seen on a large scale: wide beams made translations worse (Koehn and Knowles 2017); a few
# copied sentences in the training data can do that (Ott et al. 2018); and for more than half of the sentences, an exact
# search found the empty one to be the most probable (Stahlberg and Byrne 2019).
#
# A length penalty of 1 cures it here: no caption is empty, 42.1 % are true. So does `min_length=1`: 43.9 %. Both mend the
# search (Murray and Chiang 2018 compare such ways); the data still have their gaps. Perhaps the most probable sentence is
# not quite what we want, and beam search is good for what it prefers besides: sentences whose words are evenly surprising
# (Meister, Cotterell and Vieira 2020).
#
# **Sampling shows what the model believes.** At temperature 1, 45.0 % of what it says is true; of greedy search's sentences,
# 64.9 %. At 1.5 it is 22.2 %: each improbable word is rare, but there are many, and one is enough. That tail is what `top_k`
# (47.2 %) and `top_p` (51.9 %) cut off. Five samples give 4.4 different sentences at temperature 1; but there are five right
# ways to speak of each picture, and different words are not yet different thoughts. For one true caption, search; where
# there should be many, sample.
#
# ## Your turn
#
# Write these anew, from their docstrings. `python -m chapters.assignments start 8 --to work` lays the stubs out, and
# `check 8 --from work` says what is right, and gives a hint where something is not.
#
# 1. `sample`: the word that crosses the line belongs to the nucleus. 10 points, 50 minutes.
# 2. `LSTMDecoder.reorder`: three lines. What breaks without them? 3 points, 15 minutes.
# 3. `beam_search`: its steps for one picture at first; then its end, and a batch. Hold it to `beams_by_hand`. 30 points,
#    150 minutes.
# 4. `_forbid`: and what if no word is left? 8 points, 40 minutes.
#
# And three questions without an answer here:
#
# 1. On which pictures do greedy search and five beams differ, and could one know that before searching?
# 2. The best of a hundred samples by the model's score is a search, too: how does it compare with beams at the same time?
# 3. Instead of the most probable sentence one can take the one that is most like the other samples (minimum Bayes risk:
#    Eikema and Aziz 2020): is it truer?

# %%
chapter.finish()

# %% [markdown]
# ## Sources
#
# Graves 2012, "Sequence transduction with recurrent neural networks" (beam search) · Sutskever, Vinyals and Le 2014,
# "Sequence to sequence learning with neural networks" · Wu et al. 2016, "Google's neural machine translation system" (length
# normalization) · Koehn and Knowles 2017, "Six challenges for neural machine translation" (wider beams, worse translations) ·
# Fan, Lewis and Dauphin 2018, "Hierarchical neural story generation" (top-k) · Murray and Chiang 2018, "Correcting length
# bias in neural machine translation" · Ott et al. 2018, "Analyzing uncertainty in neural machine translation" (noise in the
# data, found by wide beams) · Stahlberg and Byrne 2019, "On NMT search errors and model errors: cat got your tongue?" ·
# Eikema and Aziz 2020, "Is MAP decoding all you need?" · Holtzman et al. 2020, "The curious case of neural text
# degeneration" (top-p) · Meister, Cotterell and Vieira 2020, "If beam search is the answer, what was the question?"
