# %% [markdown]
# # 9 · BLEU and its relatives
#
# **Adds** BLEU, ROUGE-L, CIDEr-D, confidence intervals, and what they miss. **Takes** 1.0 min on two cores.
#
# One person writes "a big yellow skull is left of a small red cow", another "a small red cow is
# right of a big yellow skull". Both are right. So how good is a model's caption? Most papers count
# how many of its **words and phrases** appear in captions that people wrote. Such a score is cheap,
# and every reader knows it. In this chapter we count by hand, then with the library, and then ask a
# question that is hard to answer for photographs: does the score prefer captions that are **true**?
# For icon scenes, `judge` knows.

# %%
import math
import random
from collections import Counter
from statistics import mean
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.nn.utils.rnn import pad_sequence

from chapters.chapter import Chapter, folder, show
from chapters.drawings import ch09 as drawings
from chapters.preparation import describe, held_out_scenes, training_captions

# %%
from mmscratch.data.judge import judge, judge_captions
from mmscratch.data.language import captions
from mmscratch.data.scenes import COLOURS, NOUNS, SIZES, SPLITS, Scene
from mmscratch.engine.devices import pick_device
from mmscratch.metrics import (
    bleu,
    bleu_statistics,
    bootstrap,
    caption_scores,
    caption_tokenize,
    cider_d,
    document_frequencies,
    exact_match,
    rouge_l,
    sentence_bleu,
)
from mmscratch.pretraining import (
    extract_features,
    labelled_scenes,
    pretrained_cnn,
    train_captioner,
)
from mmscratch.recurrent import LSTMDecoder
from mmscratch.text import BOS, detokenize, tokenize
from mmscratch.vision import ImageEncoder

# %%
torch.manual_seed(0)
chapter = Chapter(9)
BLUE, ORANGE, GREEN, GREY = "#2171b5", "#fd8d3c", "#238b45", "#8c8c8c"

# %% [markdown]
# ## The idea
#
# A **hypothesis** is a sentence that a model wrote; **references** are sentences that people wrote
# about the same picture. An **n-gram** is n consecutive words. `held_out_scenes` (chapter 3) gives
# test pictures with five captions each.

# %%
count = chapter.choose(1000, fast=60)
test = held_out_scenes("test", count)
scenes = test.scenes
references = test.references[47]  # all five
hypothesis = tokenize("there is a big yellow sun left of a small red cow")


def ngrams(tokens, n):
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def longest_shared(tokens, others):
    """For each token, the n of the longest n-gram around it that the others share.

    n is at most 4, and 0 if even the token itself is in none of the others.
    """
    longest = [0] * len(tokens)
    for n in range(1, 5):
        known = {ngram for other in others for ngram in ngrams(other, n)}
        for i, ngram in enumerate(ngrams(tokens, n)):
            if ngram in known:
                longest[i : i + n] = [n] * n
    return longest


# %%
shared = [longest_shared(hypothesis, references)]
shared += [longest_shared(reference, [hypothesis]) for reference in references]
figure = drawings.shared_ngrams(test.images[47], [hypothesis, *references], shared)
chapter.draw(figure, "which words of a hypothesis appear in its references")

# %% [markdown]
# The greener a word, the longer the n-gram that both sides share. One word is wrong, "sun", and so
# the caption is false. Yet it is nearly all green. Keep that in mind.
#
# ## By hand
#
# **Precision**: how many of the hypothesis' n-grams appear in a reference? We add two hypotheses
# that should score badly.


# %%
def count_matches(hypothesis, references, n, clip=True):
    """How many n-grams of the hypothesis are in a reference, and how many it has."""
    matches = 0
    for ngram, times in Counter(ngrams(hypothesis, n)).items():
        most = max(ngrams(reference, n).count(ngram) for reference in references)
        if clip:
            matches += min(times, most)
        elif most > 0:
            matches += times
    return matches, max(len(hypothesis) - n + 1, 0)


EXAMPLES = (
    "there is a big yellow sun left of a small red cow",
    "a a a a a a a a a a a",
    "a big yellow skull",
)
for text in EXAMPLES:
    for clip in (False, True):
        line = f"{text:50} {'clipped' if clip else '':8}"
        for n in range(1, 5):
            matches, total = count_matches(tokenize(text), references, n, clip)
            fraction = f"{matches}/{total}"
            line += f" {fraction:>6}"
        print(line)

# %% [markdown]
# **Clipping.** "a a a …" has only right words: 11 of 11. But no reference says "a" more than twice.
# So a word counts at most as often as in the reference that uses it most, and 2 of 11 remain.
#
# **Brevity.** "a big yellow skull" makes no mistake, but says only half. We could ask what fraction
# of the *references'* n-grams it has (recall). But there are five references, and nobody can say
# all of them at once. So BLEU compares lengths instead: a hypothesis that is shorter than the
# reference closest in length pays for it.
#
# $$\text{BLEU-4} = 100 \cdot \underbrace{e^{\min(0,\; 1 - r/h)}}_{\text{brevity}} \cdot \sqrt[4]{p_1\, p_2\, p_3\, p_4}
# \qquad r, h: \text{length of reference and hypothesis}$$
#
# **The geometric mean** of the four, not the arithmetic one: $p_4$ is usually much smaller than
# $p_1$, but in a product, halving $p_4$ costs as much as halving $p_1$. If one of them is 0, BLEU
# is 0. In a single sentence that happens often; the library then smooths (`smooth_method`). BLEU
# was made for a corpus: all counts and lengths are **added up first**, then divided once.


# %%
def sentence_statistics(hypothesis, references):
    """What BLEU counts in one sentence: ten numbers.

    The hypothesis' length, that of the closest reference (the shorter one on a tie),
    four counts of matches and four totals.
    """
    lengths = [len(reference) for reference in references]
    distances = [(abs(length - len(hypothesis)), length) for length in lengths]
    _, closest = min(distances)
    matches = [count_matches(hypothesis, references, n) for n in range(1, 5)]
    counts, totals = zip(*matches)
    return [len(hypothesis), closest, *counts, *totals]


def bleu_of(sums):
    """BLEU-4 from the sums of the ten numbers."""
    h, r = sums[:2]
    counts = sums[2:6]
    totals = sums[6:10]
    if min(counts) == 0:
        return 0.0
    logs = [math.log(count / total) for count, total in zip(counts, totals)]
    return 100 * math.exp(min(0, 1 - r / h)) * math.exp(sum(logs) / 4)


# %%
for text in ("there is a big yellow sun left of a small red cow", "a big yellow skull"):
    sums = sentence_statistics(tokenize(text), references)
    print(f"{text:50} lengths {sums[0]} and {sums[1]}, BLEU-4 {bleu_of(sums):.1f}")

# %% [markdown]
# **ROUGE-L** wants the words in the same order, but not necessarily next to each other: it is based
# on the longest common subsequence (LCS). A table finds it. Cell (i, j) holds the LCS of the first
# i words of one and the first j words of the other: if the two words are equal, one more than the
# cell diagonally above, else the larger of the cells to the left and above.


# %%
def lcs_table(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in range(len(a)):
        for j in range(len(b)):
            if a[i] == b[j]:
                table[i + 1][j + 1] = table[i][j] + 1
            else:
                table[i + 1][j + 1] = max(table[i][j + 1], table[i + 1][j])
    return table


def rouge_of(hypothesis, references):
    """(1 + 1.2²) p r / (r + 1.2² p) for precision p and recall r; r weighs more."""
    common = [lcs_table(hypothesis, reference)[-1][-1] for reference in references]
    p = max(common) / len(hypothesis)
    r = max(lcs / len(reference) for lcs, reference in zip(common, references))
    return (1 + 1.2**2) * p * r / (r + 1.2**2 * p) if p else 0.0


# %%
reference = references[0]
table = lcs_table(hypothesis, reference)
path = set()
i = len(hypothesis)
j = len(reference)
while i and j:  # back from the last cell
    if hypothesis[i - 1] == reference[j - 1]:
        path.add((i, j))
        i -= 1
        j -= 1
    elif table[i - 1][j] >= table[i][j - 1]:
        i -= 1
    else:
        j -= 1
figure = drawings.common_subsequence(hypothesis, reference, table, path)
chapter.draw(figure, "the longest common subsequence, word by word")
one = rouge_of(hypothesis, [reference])
five = rouge_of(hypothesis, references)
print(
    f"LCS {table[-1][-1]} of {len(hypothesis)} and {len(reference)} words; "
    f"ROUGE-L {one:.3f} with this reference, {five:.3f} with all five"
)

# %% [markdown]
# **CIDEr-D** asks what is worth saying. "a" is in the references of nearly every picture, "big
# yellow skull" in those of few. So the weight of an n-gram is the logarithm of *all pictures /
# pictures whose references have it*, and a caption becomes a vector of such weights. The score is
# its mean cosine with the references' vectors, times 10, times a factor that falls with the
# difference in length. (The D: a `min` sees to it that repeating a word gains nothing.)

# %%
frequencies = document_frequencies(test.references)


def weight(ngram):
    return math.log(frequencies.documents / max(1, frequencies.counts[ngram]))


PHRASES = "a, big, left of, red, cow, red cow, big yellow skull, a small red cow"
for text in PHRASES.split(", "):
    ngram = tuple(text.split())
    pictures = frequencies.counts[ngram]
    print(
        f"{text:20} in the references of {pictures:5,} of {count:,} pictures, "
        f"weight {weight(ngram):.2f}"
    )


# %%
def cider_vector(tokens, n):
    """For each n-gram, its count times its weight."""
    counts = Counter(ngrams(tokens, n))
    return {ngram: times * weight(ngram) for ngram, times in counts.items()}


def cider_of(hypothesis, references):
    total = 0
    for reference in references:
        difference = len(hypothesis) - len(reference)
        length_penalty = math.exp(-(difference**2) / (2 * 6**2))
        for n in range(1, 5):
            h = cider_vector(hypothesis, n)
            r = cider_vector(reference, n)
            shared = h.keys() & r.keys()
            product = sum(min(h[ngram], r[ngram]) * r[ngram] for ngram in shared)
            norms = math.hypot(*h.values()) * math.hypot(*r.values())
            if norms:
                total += product / norms * length_penalty
    return 10 * total / (4 * len(references))


print(f"CIDEr-D of the hypothesis above: {cider_of(hypothesis, references):.2f} of 10")

# %% [markdown]
# ## The piece

# %%
show(bleu_statistics)
show(rouge_l)

# %% [markdown]
# Do the library and our own code agree on all captions? From here on, each test picture has four
# references. The fifth caption is held out: it is **true, and worded differently**.

# %%
true_captions = []
four_references = []
for i, texts in enumerate(test.references):
    k = i % 5
    true_captions.append(texts[k])
    four_references.append(texts[:k] + texts[k + 1 :])
frequencies = document_frequencies(four_references)
inputs = list(zip(true_captions, four_references))

statistics = [sentence_statistics(*pair) for pair in inputs]
assert (bleu_statistics(true_captions, four_references) == statistics).all()
by_hand = bleu_of(np.sum(statistics, axis=0))
assert abs(bleu(true_captions, four_references, "none").score - by_hand) < 1e-9
by_hand = [rouge_of(*pair) for pair in inputs]
assert np.allclose(rouge_l(true_captions, four_references).scores, by_hand)
by_hand = [cider_of(*pair) for pair in inputs]
assert np.allclose(cider_d(true_captions, four_references).scores, by_hand)
print(f"by hand and library agree on {count:,} captions: BLEU, ROUGE-L and CIDEr-D")

# %% [markdown]
# That could still be the same error twice. So the tests compare `bleu` with sacrebleu, and all
# three with pycocoevalcap, which papers on captioning use: on random corpora they agree to a
# millionth of the scale. No Java needed.
#
# ## Use it
#
# **The corpus, not the mean of its sentences.** Two systems describe the same pictures. The first
# writes the held-out caption, but for pictures of three objects it writes **another picture's**:
# few captions are bad, but those are very bad. The second has **one wrong colour** in each caption
# of one or two objects: many captions are bad, but each only a little. Which system is better? To
# make a wrong colour we replace one word, and keep a caption in which `judge` finds just this
# error.

# %%
ONE_WORD = [noun for noun in NOUNS if " " not in noun]
SUBSTITUTIONS = {  # kind of error -> groups; a word is replaced by another of its group
    "colour": [list(COLOURS)],
    "noun": [ONE_WORD, [NOUNS[noun].plural for noun in ONE_WORD]],
    "size": [list(SIZES)],
    "place": [["left", "right"], ["above", "below"], ["top", "bottom"]],
    "number": [["two", "three"]],
}


def substitute(words, kind):
    """All sentences that differ from `words` in one word, replaced within its group."""
    changed = []
    for i, word in enumerate(words):
        group = next((group for group in SUBSTITUTIONS[kind] if word in group), [])
        for other in group:
            if other != word:
                changed.append([*words[:i], other, *words[i + 1 :]])
    return changed


# %%
def false_caption(sentences, scene, kind, rng):
    """One of the sentences with one word replaced, so that this `kind` is wrong.

    It has no other error; None if there is no such caption.
    """
    changed = []
    for words in sentences:
        changed += substitute(words, kind)
    rng.shuffle(changed)
    for words in changed:
        judgement = judge(detokenize(words), scene)
        if judgement.well_formed and judgement.wrong == (kind,):
            return words
    return None


rng = random.Random(0)
few_large = list(true_captions)
many_small = list(true_captions)
for i, scene in enumerate(scenes):
    if len(scene.objects) == 3:
        few_large[i] = true_captions[i - 1]
    else:
        many_small[i] = false_caption([true_captions[i]], scene, "colour", rng)

# %%
lengths = [len(caption) for caption in true_captions]
of_three = [n for n, scene in zip(lengths, scenes) if len(scene.objects) == 3]
print(
    f"captions of three objects: {len(of_three) / count:.1%} of the captions, "
    f"{sum(of_three) / sum(lengths):.1%} of the words"
)
print(f"{'':30} corpus BLEU   mean of sentences   true")
systems = {"few large errors": few_large, "many small errors": many_small}
for name, texts in systems.items():
    corpus = bleu(texts, four_references).score
    scores = [sentence_bleu(t, refs).score for t, refs in zip(texts, four_references)]
    true = judge_captions(texts, scenes).percentages[3]
    print(f"{name:30} {corpus:11.1f} {mean(scores):19.1f} {true:5.1f} %")

# %% [markdown]
# **What counts as a word?** People write "A big red star." Models write what their tokenizer left
# over. Here is one system, with a wrong colour in three of ten captions, scored against references
# as people write them. Its captions never change. What changes is whether capitals, commas and full
# stops are kept, and how the text is split into words: at spaces, by our `tokenize`, to which a
# comma is a word, or by `caption_tokenize`, which drops punctuation as the COCO evaluation does.


# %%
def with_wrong_colours(true, scenes, fraction, rng):
    """A system with a wrong colour in this fraction of its captions, else true ones."""
    number = round(fraction * len(true))
    wrong = set(rng.sample(range(len(true)), number))
    texts = list(true)
    for i in range(len(true)):
        if i in wrong:
            texts[i] = false_caption([true[i]], scenes[i], "colour", rng)
    return texts


def as_people_write(text):
    return text[0].upper() + text[1:] + "."


def without_punctuation(text):
    return text.replace(",", "").replace(":", "")


# %%
TOKENIZERS = {
    "at spaces": str.split,
    "tokenize": tokenize,
    "caption_tokenize": caption_tokenize,
}
STYLES = {
    "A cat, a star.": as_people_write,
    "a cat, a star": str,
    "a cat a star": without_punctuation,
}
faulty = with_wrong_colours(true_captions, scenes, 0.3, rng)
texts = [detokenize(tokens) for tokens in faulty]
print("BLEU-4 and CIDEr-D   " + "".join(f"{style:>20}" for style in STYLES))
for name, split in TOKENIZERS.items():
    split_references = []
    for refs in four_references:
        split_references.append([split(as_people_write(detokenize(r))) for r in refs])
    line = f"{name:20} "
    for change in STYLES.values():
        hypotheses = [split(change(text)) for text in texts]
        bleu_score = bleu(hypotheses, split_references).score
        cider_score = cider_d(hypotheses, split_references).score
        both_scores = f"{bleu_score:.1f}, {cider_score:.2f}"
        line += f"{both_scores:>20}"
    print(line)

# %% [markdown]
# **How certain is a score?** Other pictures would have given another score. The **bootstrap** asks
# how different: from N pictures, draw N, some twice, some never; score them; do it 1,000 times; the
# middle 95 % of the scores are the interval. Here are two systems, with a wrong colour in 30 % and
# in 40 % of their captions. How many pictures does it take to see which is better? We try three
# criteria: the two systems' intervals do not overlap; the interval of the **difference**, with the
# same pictures drawn for both (**paired**), is above 0; and the same for the fraction of true
# captions.

# %%
pool = [Scene(SPLITS["test"] + i) for i in range(chapter.choose(6400, fast=100))]
pool_captions = []
pool_references = []
for scene in pool:
    first, *others = [tokenize(text) for text in captions(scene)]
    pool_captions.append(first)
    pool_references.append(others)

statistics = []
truths = []
for fraction in (0.3, 0.4):
    texts = with_wrong_colours(pool_captions, pool, fraction, rng)
    statistics.append(bleu_statistics(texts, pool_references))  # (N, 10)
    truth = [judge(detokenize(text), scene).true for text, scene in zip(texts, pool)]
    truths.append(np.array(truth, dtype=float))  # (N)
    score = bleu_of(statistics[-1].sum(0))
    percent = 100 * mean(truth)
    print(f"on {len(pool):,} pictures: BLEU {score:.1f}, {percent:.0f} % true")
better, worse = statistics
both = np.concatenate(statistics, axis=1)  # (N, 20)
true_difference = truths[0] - truths[1]  # (N)


# %%
def bleu_difference(sums):
    return bleu_of(sums[:10]) - bleu_of(sums[10:])


def compare_systems(rows):
    """The widths of two intervals and the verdicts of three criteria on these pictures.

    The intervals: one system's BLEU, and the paired difference. A verdict says whether
    the criterion tells the systems apart.
    """
    low, high = bootstrap(better[rows], bleu_of)
    _, other_high = bootstrap(worse[rows], bleu_of, seed=2)
    paired_low, paired_high = bootstrap(both[rows], bleu_difference)
    true_low, _ = bootstrap(true_difference[rows])
    widths = (high - low, paired_high - paired_low)
    verdicts = (low > other_high, paired_low > 0, true_low > 0)
    return widths, verdicts


# %%
sizes = chapter.choose((25, 50, 100, 200, 400, 800), fast=(25, 50))
print("          width of the interval              % told apart")
print("pictures  BLEU   difference   test sets      by intervals  paired  by truth")
mean_widths = []
told_apart = []  # percent of the test sets
for n in sizes:
    results = []
    for k in range(min(len(pool) // n, 40)):  # test sets that share no picture
        results.append(compare_systems(slice(k * n, k * n + n)))
    widths, verdicts = zip(*results)
    mean_widths.append(np.mean(widths, axis=0))
    told_apart.append(100 * np.mean(verdicts, axis=0))
    single, paired = mean_widths[-1]
    by_intervals, by_pairs, by_truth = told_apart[-1]
    print(f"{n:8} {single:5.2f} {paired:12.2f} {len(results):11} ", end="")
    print(f"{by_intervals:17.0f} {by_pairs:7.0f} {by_truth:9.0f}")

# %%
figure = Figure(figsize=(7.6, 3.1), dpi=100, layout="constrained")
left, right = figure.subplots(1, 2)
single, paired = zip(*mean_widths)
expected = [single[0] * (sizes[0] / n) ** 0.5 for n in sizes]
left.loglog(sizes, single, "o-", color=BLUE, ms=4, label="BLEU of one system")
left.loglog(sizes, paired, "o-", color=ORANGE, ms=4, label="difference of two, paired")
left.loglog(sizes, expected, "k--", lw=1, label="∝ 1 / √pictures")
real = bleu_difference(both.sum(0))

# %%
left.axhline(2 * real, color=GREY, lw=1, ls=":")
style = {"fontsize": 8, "color": "#555555", "ha": "right", "va": "bottom"}
left.text(sizes[-1], 2.1 * real, "twice the real difference", **style)
left.set(ylabel="width of the interval, BLEU", ylim=(1.4, 24))
left.set_yticks((2, 5, 10, 20), ("2", "5", "10", "20"))
CRITERIA = ("BLEU: intervals apart", "BLEU: difference, paired", "truth, paired")
for label, percent, colour in zip(CRITERIA, zip(*told_apart), (BLUE, ORANGE, GREEN)):
    right.semilogx(sizes, percent, "o-", color=colour, ms=4, label=label)
right.set(ylabel="test sets that tell them apart, %", ylim=(-4, 104))
for axis in (left, right):
    axis.set_xlabel("pictures")
    axis.set_xticks(sizes, [str(n) for n in sizes])
    axis.minorticks_off()
    axis.legend(fontsize=8)
chapter.draw(figure, "how many pictures until two systems can be told apart")

# %% [markdown]
# ## Look
#
# **True, or just similar?** For each test picture we take the held-out caption, which is true and
# worded differently, and one of its four references with **one word replaced**, which is false.
# Both are scored against the same four references. How often does the true one score higher? A tie
# counts one half, so a coin would get 50 %. `judge` gets 100 %, by construction. The right panel is
# the control: there the false one is the held-out caption itself with one word replaced, so both
# are **worded alike**.


# %%
def score_each(texts, refs):
    """Each sentence's score, by metric."""
    pairs = list(zip(texts, refs))
    scores = {
        "BLEU": [sentence_bleu(text, r).score for text, r in pairs],
        "ROUGE-L": rouge_l(texts, refs).scores,
        "CIDEr-D": cider_d(texts, refs, frequencies).scores,
        "exact match": [exact_match([text], [r]) for text, r in pairs],
    }
    return {metric: np.array(values) for metric, values in scores.items()}


def rank_pairs(pairs):
    """By metric, for each pair: 1 if the true caption scores higher, 0.5 on a tie.

    pairs: a list of (index of a scene, false caption).
    """
    refs = [four_references[i] for i, _ in pairs]
    true = score_each([true_captions[i] for i, _ in pairs], refs)
    false = score_each([caption for _, caption in pairs], refs)
    wins = {}
    for metric in true:
        difference = (true[metric] - false[metric]).round(9)
        wins[metric] = (1 + np.sign(difference)) / 2
    return wins


# %%
DIFFERENT, ALIKE = "worded differently", "control: worded alike"
WORDINGS = {DIFFERENT: four_references, ALIKE: [[text] for text in true_captions]}
rng = random.Random(1)
pairs = {}
wins = {}
for wording, sentences in WORDINGS.items():
    for kind in SUBSTITUTIONS:
        found = []
        for i, scene in enumerate(scenes):
            false = false_caption(sentences[i], scene, kind, rng)
            if false:
                found.append((i, false))
        pairs[kind, wording] = found
        wins[kind, wording] = rank_pairs(found)

# %%
METRICS = {"BLEU": BLUE, "ROUGE-L": ORANGE, "CIDEr-D": GREEN}
figure = Figure(figsize=(7.6, 3.3), dpi=100, layout="constrained")
axes = figure.subplots(1, 2, sharey=True)
for axis, wording in zip(axes, WORDINGS):
    for m, (metric, colour) in enumerate(METRICS.items()):
        for k, kind in enumerate(SUBSTITUTIONS):
            percent = 100 * wins[kind, wording][metric]
            low, high = bootstrap(percent)
            height = percent.mean()
            error = [[max(height - low, 0)], [max(high - height, 0)]]
            style = {"color": colour, "label": metric if k == 0 else None}
            style |= {"yerr": error, "error_kw": {"lw": 0.8, "capsize": 1.5}}
            axis.bar(k + 0.27 * (m - 1), height, width=0.25, **style)
    axis.axhline(50, color="black", lw=1, ls="--")
    axis.axhline(100, color=GREY, lw=1, ls=":")
    axis.set_xticks(range(len(SUBSTITUTIONS)), SUBSTITUTIONS)
axes[0].set_title("true but worded differently, or a copy with one error", fontsize=9)
axes[0].set(ylabel="the true one scores higher, %", ylim=(0, 122))
axes[0].legend(fontsize=8, ncols=3, loc="upper left")
axes[1].set_title(ALIKE, fontsize=9)
axes[1].set_xlim(-0.6, 5.3)
axes[1].text(4.5, 103, "judge", fontsize=8)
axes[1].text(4.5, 53, "a coin", fontsize=8)
chapter.draw(figure, "how often a metric scores the true caption higher")

# %%
for wording in WORDINGS:
    print(wording)
    for metric in (*METRICS, "exact match"):
        percents = []
        for kind in SUBSTITUTIONS:
            percents.append(f"{kind} {100 * wins[kind, wording][metric].mean():.1f}")
        print(f"  {metric:12} {', '.join(percents)} %")
numbers = [f"{kind} {len(pairs[kind, DIFFERENT]):,}" for kind in SUBSTITUTIONS]
print(f"pairs: {', '.join(numbers)}")

first = wins["colour", DIFFERENT]["BLEU"].argmin()
i, false = pairs["colour", DIFFERENT][first]
print("\nthe first pair with a wrong colour that BLEU ranks wrongly")
for name, text in (("true", true_captions[i]), ("false", false)):
    scores = []
    for metric, [score] in score_each([text], [four_references[i]]).items():
        scores.append(f"{metric} {score:.2f}")
    print(f"{name + ':':6} {detokenize(text)}")
    print(f"       {', '.join(scores)}")

# %% [markdown]
# And as a paper would print it: two **systems**. All captions of the first are true, all captions
# of the second are false.

# %%
choices = [[] for _ in scenes]  # for each scene, its false captions
for kind in SUBSTITUTIONS:
    for i, false in pairs[kind, DIFFERENT]:
        choices[i].append(false)
corpora = {
    "all true, worded differently": true_captions,
    "all false, one word wrong": [rng.choice(texts) for texts in choices],
}
for name, texts in corpora.items():
    intervals = caption_scores(texts, four_references)
    true = judge_captions(texts, scenes).percentages[3]
    print(f"{name}: {true:.1f} % true")
    for metric in ("BLEU-4", "ROUGE-L", "CIDEr-D"):
        score, low, high = intervals[metric]
        print(f"    {metric:8} {score:5.2f} ({low:.2f} to {high:.2f})")

# %% [markdown]
# **BLEU under teacher forcing.** In training, a decoder is given the true previous words (chapter
# 3). Its most probable word at each position comes for free, all at once, and the result looks like
# a caption. So some repositories score it as if it were one. Here is a decoder as in chapter 5, an
# LSTM that attends to the picture. First it is **forced** along one of the five captions; then it
# writes on its own, **free**. We train it five times from scratch, on 1,000 to 16,000 captions.

# %%
device = pick_device()
cnn_path = folder(2, chapter.fast) / "cnn.pt"
cnn = pretrained_cnn(cnn_path, chapter.choose(30_000, fast=64))
train_sizes = chapter.choose((1000, 2000, 4000, 8000, 16_000), fast=(32, 64))
most = train_sizes[-1]
vocabulary, targets = training_captions(most, per_scene=1)
images, _ = labelled_scenes("train", most)
train_features = extract_features(cnn, images, torch.bfloat16)  # (N, 128, 4, 4)
test_features = extract_features(cnn, test.images, torch.bfloat16)


def train(n):
    """An encoder and a decoder, trained on n captions."""
    torch.manual_seed(0)
    encoder = ImageEncoder(cnn, 128, image_size=64).to(device)
    decoder = LSTMDecoder(len(vocabulary), 128, 256).to(device)
    options = {"batch_size": 16, "learning_rate": 3e-3}
    options["generator"] = torch.Generator().manual_seed(0)
    train_captioner(decoder, encoder, train_features[:n], targets[:n], **options)
    return encoder.eval(), decoder.eval()


# %%
@torch.no_grad()
def force(encoder, decoder, features):
    """The most probable word at each position, while the true captions are fed in."""
    texts = []
    for k, batch in enumerate(features.float().split(200)):  # (B, 128, 4, 4)
        inputs = []
        for tokens in true_captions[200 * k : 200 * (k + 1)]:
            inputs.append(torch.tensor([BOS, *vocabulary.encode(tokens[:-1])]))
        padded = pad_sequence(inputs, batch_first=True).to(device)  # (B, T)
        logits = decoder(padded, encoder.encode_features(batch))  # (B, T, V)
        for row, words in zip(logits.argmax(-1).tolist(), inputs):
            texts.append([vocabulary.words[token] for token in row[: len(words)]])
    return texts


class Result(NamedTuple):
    texts: list[list[str]]
    bleu_fed: float  # against the caption that is fed in
    bleu_five: float  # against all five
    true: float  # percent
    malformed: float  # percent


def evaluate(texts):
    fractions, faults = judge_captions(texts, scenes)
    bleu_fed = bleu(texts, [[caption] for caption in true_captions]).score
    bleu_five = bleu(texts, test.references).score
    malformed = 100 * faults["grammar"] / count
    return Result(texts, bleu_fed, bleu_five, fractions[3], malformed)


# %%
results = {}


def force_and_free(model, features, key):
    results["forced", key] = evaluate(force(*model, features))
    results["free", key] = evaluate(describe(*model, vocabulary, features))


for n in train_sizes:
    model = train(n)  # the last one is used below
    force_and_free(model, test_features, n)
    forced = results["forced", n]
    free = results["free", n]
    print(
        f"{n:6,} captions: BLEU forced {forced.bleu_five:.1f}, "
        f"free {free.bleu_five:.1f}; true forced {forced.true:.1f} %, "
        f"free {free.true:.1f} %",
        flush=True,
    )
force_and_free(model, test_features.roll(1, 0), "another picture")
for i in range(1, 4):
    print(f"\nfed     {detokenize(true_captions[i])}")
    print(f"forced  {detokenize(forced.texts[i])}")
    print(f"free    {detokenize(free.texts[i])}")

# %%
figure = Figure(figsize=(7.6, 3.2), dpi=100, layout="constrained")
left, right = figure.subplots(1, 2, width_ratios=(1.35, 1), sharey=True)
BARS = {  # (mode, key of results) -> label and colour
    ("forced", most): ("forced, its own picture", ORANGE),
    ("free", most): ("free, its own picture", BLUE),
    ("forced", "another picture"): ("forced, another picture", "#fdd0a2"),
    ("free", "another picture"): ("free, another picture", "#c6dbef"),
}
for k, (key, (label, colour)) in enumerate(BARS.items()):
    result = results[key]
    heights = [result.bleu_fed, result.bleu_five, result.true]
    places = [x + 0.21 * (k - 1.5) for x in range(3)]
    bars = left.bar(places, heights, width=0.2, color=colour, label=label)
    left.bar_label(bars, fmt="%.0f", fontsize=7.5)

# %%
GROUPS = ("BLEU, the caption\nthat is fed in", "BLEU,\nall five", "true, %")
left.set_xticks(range(3), GROUPS)
left.set(ylim=(0, 118))
forced = [results["forced", n].bleu_five for n in train_sizes]
free = [results["free", n].bleu_five for n in train_sizes]
true = [results["free", n].true for n in train_sizes]
right.semilogx(train_sizes, forced, "o-", color=ORANGE, ms=4, label="BLEU forced")
right.semilogx(train_sizes, free, "o-", color=BLUE, ms=4, label="BLEU free")
right.semilogx(train_sizes, true, "s--", color=GREEN, ms=4, label="true, free")
right.set_xticks(train_sizes, [f"{n:,}" for n in train_sizes], fontsize=8)
right.minorticks_off()
right.set(xlabel="captions seen in training")
for axis in (left, right):
    axis.legend(fontsize=7.5, ncols=2, loc="upper center")
chapter.draw(figure, "forced or free, its own or another picture")
print("BLEU against the caption that is fed in, and against all five")
for (mode, key), (label, _) in BARS.items():
    r = results[mode, key]
    print(f"{label:24} BLEU {r.bleu_fed:4.1f} {r.bleu_five:4.1f}; ", end="")
    print(f"{r.true:4.1f} % true, {r.malformed:4.1f} % not a sentence")

# %% [markdown]
# ## What to notice
#
# First, what could have fooled us: a false caption is as long as a reference, while a true one
# often is not. So here are the percentages over all pairs, and over those of the same length only.
# The intervals resample pictures, not pairs, since a picture has several pairs.


# %%
def win_rate(sums):
    won, number = sums
    return won / number


for metric in METRICS:
    all_pairs = np.zeros((count, 2))  # for each scene: 100 × pairs won, pairs
    same_length = np.zeros((count, 2))
    for kind in SUBSTITUTIONS:
        outcomes = wins[kind, DIFFERENT][metric]
        for win, (i, false) in zip(outcomes, pairs[kind, DIFFERENT]):
            all_pairs[i] += 100 * win, 1
            if len(false) == len(true_captions[i]):
                same_length[i] += 100 * win, 1
    for name, tally in (("all", all_pairs), ("of the same length", same_length)):
        low, high = bootstrap(tally, win_rate)
        won, number = tally.sum(0)
        print(
            f"{metric:8} true one higher in {won / number:.1f} % "
            f"({low:.1f} to {high:.1f}) of {number:.0f} pairs, {name}"
        )

# %% [markdown]
# **BLEU does not know what is true.** It scores the true caption higher in 50.3 % of the pairs: a
# coin toss. ROUGE-L does so in 38.2 %, worse than a coin: a wrong word costs it one word, a
# different order costs it many. CIDEr-D reaches 83.0 %, because rare words weigh more. That also
# tells us what it misses: "big" weighs 0.42 and "cow" 3.06, and it detects 90.9 % of the wrong
# nouns, but only 71.6 % of the wrong sizes. Exact match sees neither: every pair is a tie, 50 %.
#
# **So the liar wins.** A system whose every caption is false has BLEU 79.2; one whose every caption
# is true, 73.6. Their intervals do not overlap, so more pictures would not change that. ROUGE-L
# makes the same mistake; CIDEr-D does not.
#
# **What the controls say.** Are the metrics blind to the word? No: if both captions are worded
# alike, the true one scores higher in 95 to 100 % of the pairs. Is it the length? No: among pairs
# of the same length, BLEU gets 49.5 %, ROUGE-L 23.4 %. It is the wording. BLEU can compare two
# systems that phrase things alike, but not two that do not. Callison-Burch et al. (2006) saw it
# with human judges: BLEU underrated a rule-based translator, whose wording was its own. And mind
# what was compared: our false captions copy a reference except for one word. On photographs no
# model copies that well, so take the direction from here, not the percentages. But a model that has
# learned the phrases, and not yet the picture, makes exactly this kind of error.
#
# **Add up first.** Corpus BLEU prefers the system with many small errors, 59.3 to 52.9; the mean
# over sentences prefers the one with few large errors, 55.1 to 52.7. Captions of three objects are
# 30 % of the captions, but 43 % of the words. The mean of sentence scores is not BLEU. ROUGE-L and
# CIDEr-D *are* means, by definition.
#
# **Name your tokenizer.** The same captions have a BLEU of 56.5 to 69.0, depending on how they are
# split and on whether capitals and commas are kept. A full stop on both sides is a free point, on
# one side an error. `caption_tokenize` gives 67.4 each time. Scores of two papers can be compared
# only if both tokenize alike (Post 2018).
#
# **Four times the pictures, half the width**: 9.7 BLEU at 25 pictures, 4.9 at 100, 2.5 at 400. The
# better system writes 70 % true captions instead of 60 %, and has 2.3 BLEU more. So the interval of
# the difference excludes 0 once it is narrower than about twice that, the dotted line. With 400
# pictures the paired difference shows it on all 16 test sets; the two intervals are apart on less
# than a third of them. So draw the same pictures for both systems (Koehn 2004). Truth needs about
# as many pictures as BLEU here, where all errors are of one kind.
#
# **A score under teacher forcing is not a score of the model**, which reads the reference while it
# is tested. Against the caption that is fed in, the same decoder has BLEU 75 forced and 52 free;
# with **another picture**, still 21 forced and 8 free, because the true previous words say much
# about the next. And the right length comes for free. But nobody would want the text. "a is a big
# black pencil in the bottom left corner" is right at every position but the first: the model
# guessed "a", and "there" was fed in. It is not a sentence, nor are 87.1 % of the forced texts.
# Only 8 % of the forced texts are true, and 55 % of the free ones. Nor can we subtract a constant:
# after 1,000 captions, free is higher by 1.5; later, forced is, by 1.6 to 5.7. A well-known
# tutorial, which warns about this, reports 24.29 forced and 29.98 free, with the same weights. In
# our run both rise together; but to follow a training run there is the loss, and to score a model,
# let it write.
#
# All of this is one seed, on test scenes that no model had seen.
#
# ## Your turn
#
# Write these yourself, from their docstrings. `python -m chapters.assignments start 9 --to work`
# creates the stubs, and `check 9 --from work` tests your code, with a hint where something is
# wrong.
#
# 1. `exact_match`: a warm-up. What if there are no hypotheses? 1 point, 5 minutes.
# 2. `_ngrams`: one line; everything below counts what it returns. 1 point, 5 minutes.
# 3. `bleu_statistics`: do you clip by each reference, or by all of them together? 10 points, 50
#    minutes.
# 4. `bleu`: with `_bleu` and `sentence_bleu`; start without smoothing. 12 points, 60 minutes.
# 5. `_longest_common_subsequence`: the table, but one row at a time is enough. 5 points, 25
#    minutes.
# 6. `rouge_l`: must precision and recall come from the same reference? 4 points, 20 minutes.
# 7. `document_frequencies`: how often does a picture count? 3 points, 15 minutes.
# 8. `cider_d`: what if an n-gram is in no reference? 18 points, 90 minutes.
# 9. `bootstrap`: for a mean, and for a score of sums. 5 points, 25 minutes.
# 10. `caption_tokenize`: the patterns are given; what do papers count as a word? 4 points, 20
#     minutes.
#
# And three questions without an answer here:
#
# 1. With one reference instead of four, or with fifty, how often does BLEU score the true caption
#    higher?
# 2. `judge` allows leaving out a colour: how does each metric score a caption that is true and says
#    less?
# 3. Can you think of a score, from the words alone, that detects more than CIDEr-D does, and then
#    of a false caption that fools it (Anderson et al. 2016)?

# %%
chapter.finish()

# %% [markdown]
# ## Sources
#
# Papineni et al. 2002, "BLEU: a method for automatic evaluation of machine translation" · Chen and
# Cherry 2014, "A systematic comparison of smoothing techniques for sentence-level BLEU" · Lin 2004,
# "ROUGE: a package for automatic evaluation of summaries" · Vedantam, Zitnick and Parikh 2015,
# "CIDEr: consensus-based image description evaluation" · Chen et al. 2015, "Microsoft COCO
# captions: data collection and evaluation server" · Post 2018, "A call for clarity in reporting
# BLEU scores" (sacrebleu) · Efron 1979, "Bootstrap methods: another look at the jackknife" · Koehn
# 2004, "Statistical significance tests for machine translation evaluation" · Callison-Burch,
# Osborne and Koehn 2006, "Re-evaluating the role of BLEU in machine translation research" ·
# Anderson et al. 2016, "SPICE: semantic propositional image caption evaluation" · Vinodababu 2018,
# "a PyTorch tutorial to image captioning" (24.29 and 29.98, in its README).
