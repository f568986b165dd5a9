# %% [markdown]
# # 9 · BLEU and its relatives
#
# **Adds** BLEU, ROUGE-L, CIDEr-D, confidence intervals, and what they miss. **Takes** 1.4 min on two cores.
#
# "A big yellow skull is left of a small red cow." Another person says: "a small red cow is right of a big yellow skull".
# Both are right. So how good is what a model writes? Most papers count how many **words and phrases** of its caption stand
# in captions that people wrote. Such a score costs nothing, and all know it. In this chapter we count by hand, then with
# the library, and then ask a question that on photographs is hard to answer: does the score prefer what is **true**? On
# icon scenes `judge` knows.

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
from mmscratch.data.judge import judge, judge_captions
from mmscratch.data.language import caption, captions
from mmscratch.data.scenes import COLOURS, NOUNS, SIZES, SPLITS, Scene
from mmscratch.decoding import greedy_search
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
from mmscratch.text import BOS, EOS, Vocabulary, detokenize, tokenize
from mmscratch.vision import ImageEncoder

torch.manual_seed(0)
chapter = Chapter(9)
BLUE, ORANGE, GREEN, GREY = "#2171b5", "#fd8d3c", "#238b45", "#8c8c8c"

# %% [markdown]
# ## The idea
#
# A **hypothesis** is what a model wrote, **references** are what people wrote of the same picture. An **n-gram** is n words
# in a row.

# %%
count = chapter.choose(1000, fast=60)
images, _ = labelled_scenes("test", count)
scenes = [Scene(SPLITS["test"] + i) for i in range(count)]
written = [[tokenize(c) for c in captions(scene)] for scene in scenes]  # five of each
hypothesis = tokenize("there is a big yellow sun left of a small red cow")
references = written[47]


def ngrams(tokens, n):
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def longest_shared(tokens, others):
    """For each token, the n of the longest n-gram around it, up to 4, that is in one
    of the others; or 0."""
    longest = [0] * len(tokens)
    for n in range(1, 5):
        there = {ngram for other in others for ngram in ngrams(other, n)}
        for i, ngram in enumerate(ngrams(tokens, n)):
            if ngram in there:
                longest[i : i + n] = [n] * n
    return longest


shared = [longest_shared(hypothesis, references)]
shared += [longest_shared(reference, [hypothesis]) for reference in references]
figure = drawings.shared_ngrams(images[47], [hypothesis, *references], shared)
chapter.draw(figure, "which words of a hypothesis stand in its references")

# %% [markdown]
# The greener, the longer the n-gram that both share. One word is wrong, "sun", and the caption is false. But it is nearly
# all green. Keep that in mind.
#
# ## By hand
#
# **Precision**: how many of the hypothesis' n-grams stand in a reference? Beside this hypothesis, two that should be bad.


# %%
def found(hypothesis, references, n, clip=True):
    """How many n-grams of the hypothesis stand in a reference, and how many it has."""
    right = 0
    for ngram, times in Counter(ngrams(hypothesis, n)).items():
        most = max(ngrams(reference, n).count(ngram) for reference in references)
        right += min(times, most) if clip else times * (most > 0)
    return right, max(len(hypothesis) - n + 1, 0)


for text in (
    "there is a big yellow sun left of a small red cow",
    "a a a a a a a a a a a",
    "a big yellow skull",
):
    tokens = tokenize(text)
    for clip in (False, True):
        fractions = [
            "{}/{}".format(*found(tokens, references, n, clip)) for n in range(1, 5)
        ]
        print(
            f"{text:50} {'clipped' if clip else '':8} "
            + " ".join(f"{fraction:>6}" for fraction in fractions)
        )

# %% [markdown]
# **Clipping.** "a a a …" has only right words: 11 of 11. But no reference says "a" more than twice. So a word counts at
# most as often as in the reference that has most of it, and 2 of 11 are left.
#
# **Brevity.** "a big yellow skull" makes no mistake, and says only half. One could ask for the share of the *references'*
# n-grams (recall). But there are five of them, and nobody can say all at once. BLEU asks for the length instead, that of
# the reference closest to it. Who is shorter pays:
#
# $$\text{BLEU-4} = 100 \cdot \underbrace{e^{\min(0,\; 1 - r/h)}}_{\text{brevity}} \cdot \sqrt[4]{p_1\, p_2\, p_3\, p_4}
# \qquad r, h: \text{length of reference and hypothesis}$$
#
# **The geometric mean** of the four, not the arithmetic one: $p_4$ is mostly much smaller than $p_1$, but in a product half of
# $p_4$ is lost as dearly as half of $p_1$. If one is 0, all is 0. In a single sentence that happens often; the library then
# smooths (`smooth_method`). BLEU was made for a corpus: all counts and lengths are **added up first**, and divided once.


# %%
def count_up(hypothesis, references):
    """Of one sentence: its length, the closest reference's (the shorter on a tie), four counts, four totals."""
    closest = min(
        (abs(len(reference) - len(hypothesis)), len(reference))
        for reference in references
    )[1]
    counts, totals = zip(*(found(hypothesis, references, n) for n in range(1, 5)))
    return [len(hypothesis), closest, *counts, *totals]


def bleu_of(sums):
    """BLEU-4 from what was added up."""
    h, r, counts, totals = sums[0], sums[1], sums[2:6], sums[6:10]
    if min(counts) == 0:
        return 0.0
    logs = [math.log(count / total) for count, total in zip(counts, totals)]
    return 100 * math.exp(min(0, 1 - r / h)) * math.exp(sum(logs) / 4)


for text in ("there is a big yellow sun left of a small red cow", "a big yellow skull"):
    sums = count_up(tokenize(text), references)
    print(f"{text:50} lengths {sums[0]} and {sums[1]}, BLEU-4 {bleu_of(sums):.1f}")

# %% [markdown]
# **ROUGE-L** wants the words in the same order, but not side by side: the longest common subsequence (LCS). A table finds
# it. In each cell stands the LCS of the first words of both; where the words are equal, one more than diagonally above,
# else the larger of left and above.


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
    """(1 + 1.2²) p r / (r + 1.2² p): of precision p and recall r; r weighs more."""
    common = [lcs_table(hypothesis, reference)[-1][-1] for reference in references]
    p = max(common) / len(hypothesis)
    r = max(c / len(reference) for c, reference in zip(common, references))
    return (1 + 1.2**2) * p * r / (r + 1.2**2 * p) if p else 0.0


reference = references[0]
table = lcs_table(hypothesis, reference)
i, j, path = len(hypothesis), len(reference), set()
while i and j:  # back from the last cell
    if hypothesis[i - 1] == reference[j - 1]:
        path.add((i, j))
        i, j = i - 1, j - 1
    elif table[i - 1][j] >= table[i][j - 1]:
        i -= 1
    else:
        j -= 1
figure = drawings.common_subsequence(hypothesis, reference, table, path)
chapter.draw(figure, "the longest common subsequence, word by word")
print(
    f"LCS {table[-1][-1]} of {len(hypothesis)} and {len(reference)} words; "
    f"ROUGE-L {rouge_of(hypothesis, [reference]):.3f} with this reference, "
    f"{rouge_of(hypothesis, references):.3f} with all five"
)

# %% [markdown]
# **CIDEr-D** asks what is worth saying. "a" stands in the references of every picture, "big yellow skull" in few. So an
# n-gram weighs the logarithm of *pictures / pictures that have it*, and a caption is a vector of such weights. The score is
# the mean cosine with the references', times 10, and times a factor that falls with the difference in length.

# %%
frequencies = document_frequencies(written)


def weight(ngram):
    return math.log(frequencies.documents / max(1, frequencies.counts[ngram]))


for text in (
    "a",
    "big",
    "left of",
    "red",
    "cow",
    "red cow",
    "big yellow skull",
    "a small red cow",
):
    ngram = tuple(text.split())
    print(
        f"{text:20} in the references of {frequencies.counts[ngram]:5,} of {count:,} pictures, weight {weight(ngram):.2f}"
    )


# %%
def cider_of(hypothesis, references):
    total = 0
    for reference in references:
        for n in range(1, 5):
            h, r = (
                {ngram: c * weight(ngram) for ngram, c in Counter(ngrams(t, n)).items()}
                for t in (hypothesis, reference)
            )
            product = sum(
                min(h[ngram], r[ngram]) * r[ngram] for ngram in h.keys() & r.keys()
            )
            norms = math.hypot(*h.values()) * math.hypot(*r.values())
            if norms:
                total += (
                    product
                    / norms
                    * math.exp(-((len(hypothesis) - len(reference)) ** 2) / (2 * 6**2))
                )
    return 10 * total / (4 * len(references))


print(f"CIDEr-D of the hypothesis above: {cider_of(hypothesis, references):.2f} of 10")

# %% [markdown]
# ## The piece

# %%
show(bleu_statistics)
show(rouge_l)

# %% [markdown]
# Do both agree on all captions? From here on, each test picture has four references. The fifth caption is held out: it is
# **true, and worded otherwise**.

# %%
held = [five[i % 5] for i, five in enumerate(written)]
four = [[c for k, c in enumerate(five) if k != i % 5] for i, five in enumerate(written)]
frequencies = document_frequencies(four)
counted = [count_up(h, refs) for h, refs in zip(held, four)]
assert (bleu_statistics(held, four) == counted).all()
assert (
    abs(
        bleu(held, four, "none").score
        - bleu_of([sum(column) for column in zip(*counted)])
    )
    < 1e-9
)
assert np.allclose(
    rouge_l(held, four).scores, [rouge_of(h, refs) for h, refs in zip(held, four)]
)
assert np.allclose(
    cider_d(held, four).scores, [cider_of(h, refs) for h, refs in zip(held, four)]
)
print(
    f"by hand and the library's agree on {len(held):,} captions, for BLEU, ROUGE-L and CIDEr-D"
)

# %% [markdown]
# That could still be the same error twice. So the tests hold `bleu` to sacrebleu, and all three to pycocoevalcap, which
# papers on captions use: on random corpora they agree to a millionth of the scale. No Java is needed.
#
# ## Use it
#
# **The corpus, not the mean of its sentences.** Two systems describe the same pictures. The first writes the held-out
# caption, but where there are three things, it writes **another picture's**: few captions are bad, and they are very bad.
# The second has **one wrong colour** in each caption of one or two things: many are bad, each a little. Which is better? For
# the wrong colours we replace one word, and keep what `judge` calls wrong in just this.

# %%
ONE_WORD = [noun for noun in NOUNS if " " not in noun]
GROUPS = {  # a word is replaced by another of its group
    "colour": [list(COLOURS)],
    "noun": [ONE_WORD, [NOUNS[noun].plural for noun in ONE_WORD]],
    "size": [list(SIZES)],
    "place": [["left", "right"], ["above", "below"], ["top", "bottom"]],
    "number": [["two", "three"]],
}


def false_caption(sentences, scene, kind, draw):
    """One of the sentences with one word replaced, so that this `kind`, and nothing else, is wrong; or None."""
    changed = []
    for words in sentences:
        for i, word in enumerate(words):
            group = next((group for group in GROUPS[kind] if word in group), [])
            changed += [
                [*words[:i], other, *words[i + 1 :]] for other in group if other != word
            ]
    draw.shuffle(changed)
    for words in changed:
        judgement = judge(detokenize(words), scene)
        if judgement.well_formed and judgement.wrong == (kind,):
            return words
    return None


draw = random.Random(0)
few_very, many_little = list(held), list(held)
for i, scene in enumerate(scenes):
    if len(scene.objects) == 3:
        few_very[i] = held[i - 1]
    else:
        many_little[i] = false_caption([held[i]], scene, "colour", draw)
SYSTEMS = {
    "few are bad, and very bad": few_very,
    "many are bad, each a little": many_little,
}
three = [h for h, scene in zip(held, scenes) if len(scene.objects) == 3]
words = sum(map(len, three)) / sum(map(len, held))
print(
    f"captions of three things: {len(three) / count:.1%} of the captions, {words:.1%} of the words"
)
print(f"{'':30} corpus BLEU   mean of sentences   true")
for name, texts in SYSTEMS.items():
    sentences = mean(sentence_bleu(h, refs).score for h, refs in zip(texts, four))
    print(
        f"{name:30} {bleu(texts, four).score:11.1f} {sentences:19.1f} {judge_captions(texts, scenes).fractions[3]:5.1f} %"
    )

# %% [markdown]
# **What counts as a word?** People write "A big red star." Models write what their tokenizer left. Here is one system, with
# a wrong colour in three captions of ten, against references as people write them. Its captions are the same; what differs
# is whether capital, comma and full stop are left, and who splits the text into words: the spaces, our `tokenize`, to which
# a comma is a word, or `caption_tokenize`, the one of the COCO evaluation, which drops all punctuation.

# %%
TOKENIZERS = {
    "at spaces": str.split,
    "tokenize": tokenize,
    "caption_tokenize": caption_tokenize,
}
WRITINGS = {
    "A cat, a star.": lambda text: text[0].upper() + text[1:] + ".",
    "a cat, a star": str,
    "a cat a star": lambda text: text.replace(",", "").replace(":", ""),
}
wrong = set(draw.sample(range(count), 3 * count // 10))
faulty = [
    false_caption([h], s, "colour", draw) if i in wrong else h
    for i, (h, s) in enumerate(zip(held, scenes))
]
print("BLEU-4 and CIDEr-D   " + "".join(f"{name:>20}" for name in WRITINGS))
as_people = WRITINGS["A cat, a star."]
for name, split in TOKENIZERS.items():
    refs = [[split(as_people(detokenize(r))) for r in refs] for refs in four]
    texts = {
        writing: [split(change(detokenize(h))) for h in faulty]
        for writing, change in WRITINGS.items()
    }
    scores = [
        f"{bleu(t, refs).score:.1f}, {cider_d(t, refs).score:.2f}"
        for t in texts.values()
    ]
    print(f"{name:20} " + "".join(f"{score:>20}" for score in scores))

# %% [markdown]
# **How sure is a score?** Other pictures would have given another one. The **bootstrap** asks how much: from N pictures
# draw N, some twice, some never; score them; do it 1,000 times; the middle 95 % are the interval. Here are two systems with
# a wrong colour in 30 % and in 40 % of the captions. How many pictures does it take to see which is better? We look at
# three ways to decide: the two systems' intervals do not overlap; the interval of the **difference**, both drawn with the
# same pictures (**paired**), is above 0; the same, for the share of true captions.

# %%
pool = [Scene(SPLITS["test"] + i) for i in range(chapter.choose(6400, fast=100))]
five = [[tokenize(c) for c in captions(scene)] for scene in pool]
pool_refs = [sentences[1:] for sentences in five]
sums, true = [], []
for fraction in (0.3, 0.4):
    wrong = set(draw.sample(range(len(pool)), round(fraction * len(pool))))
    texts = [
        false_caption([c[0]], s, "colour", draw) if i in wrong else c[0]
        for i, (c, s) in enumerate(zip(five, pool))
    ]
    sums.append(bleu_statistics(texts, pool_refs))
    true.append(
        [judge(detokenize(text), scene).true for text, scene in zip(texts, pool)]
    )
    print(
        f"on {len(pool):,} pictures: BLEU {bleu_of(sums[-1].sum(0)):.1f}, {100 * mean(true[-1]):.0f} % true"
    )
A, B, both, true = (
    *sums,
    np.concatenate(sums, axis=1),
    np.subtract(*np.array(true, dtype=float)),
)
real = bleu_of(A.sum(0)) - bleu_of(B.sum(0))

sizes, widths, seen = (
    chapter.choose((25, 50, 100, 200, 400, 800), fast=(25, 50)),
    {},
    {},
)
for n in sizes:
    lengths, verdicts = [], []
    for part in [
        slice(i * n, i * n + n) for i in range(min(len(pool) // n, 40))
    ]:  # test sets that share no picture
        a, b = bootstrap(A[part], bleu_of), bootstrap(B[part], bleu_of, seed=2)
        paired = bootstrap(
            both[part], lambda sums: bleu_of(sums[:10]) - bleu_of(sums[10:])
        )
        lengths.append((a[1] - a[0], paired[1] - paired[0]))
        verdicts.append((a[0] > b[1], paired[0] > 0, bootstrap(true[part])[0] > 0))
    widths[n], seen[n] = np.mean(lengths, axis=0), 100 * np.mean(verdicts, axis=0)
    by = "{:3.0f} % by intervals, {:3.0f} % paired, {:3.0f} % by truth".format(*seen[n])
    print(f"{n:4} pictures: BLEU's interval {widths[n][0]:5.2f} wide, the difference's {widths[n][1]:5.2f}; "
          f"of {len(verdicts):2} test sets tell them apart {by}")  # fmt: skip

# %%
figure = Figure(figsize=(7.6, 3.1), dpi=100, layout="constrained")
left, right = figure.subplots(1, 2)
left.loglog(
    sizes,
    [widths[n][0] for n in sizes],
    "o-",
    color=BLUE,
    ms=4,
    label="BLEU of one system",
)
left.loglog(
    sizes,
    [widths[n][1] for n in sizes],
    "o-",
    color=ORANGE,
    ms=4,
    label="difference of two, paired",
)
left.loglog(
    sizes,
    [widths[sizes[0]][0] * (sizes[0] / n) ** 0.5 for n in sizes],
    "--",
    color="black",
    lw=1,
    label="∝ 1 / √pictures",
)
left.axhline(2 * real, color=GREY, lw=1, ls=":")
left.text(
    sizes[-1],
    2.1 * real,
    "twice the real difference",
    fontsize=8,
    color="#555555",
    ha="right",
    va="bottom",
)
left.set(xlabel="pictures", ylabel="width of the interval, BLEU", ylim=(1.4, 24))
left.set_yticks((2, 5, 10, 20), ("2", "5", "10", "20"))
left.legend(fontsize=8)
for column, (label, colour) in enumerate(
    (
        ("BLEU: intervals apart", BLUE),
        ("BLEU: difference, paired", ORANGE),
        ("truth, paired", GREEN),
    )
):
    right.semilogx(
        sizes, [seen[n][column] for n in sizes], "o-", color=colour, ms=4, label=label
    )
right.set(xlabel="pictures", ylabel="test sets that tell them apart, %", ylim=(-4, 104))
right.legend(fontsize=8)
for axis in (left, right):
    axis.set_xticks(sizes, [str(n) for n in sizes])
    axis.minorticks_off()
chapter.draw(figure, "how many pictures until two systems can be told apart")

# %% [markdown]
# ## Look
#
# **True, or only alike?** For each test picture: the held-out caption, which is true and worded otherwise, and one of its
# four references with **one word replaced**, which is false. Both are scored against the same four references. How often
# is the true one higher? A tie counts one half, so a coin would have 50 %. `judge` has 100 %, by construction. On the right
# is the control: the false one is now the held-out caption itself with one word replaced, so that both are **worded alike**.


# %%
def scores_of(texts, refs):
    """Each sentence's score, by metric."""
    return {
        "BLEU": np.array([sentence_bleu(h, r).score for h, r in zip(texts, refs)]),
        "ROUGE-L": np.array(rouge_l(texts, refs).scores),
        "CIDEr-D": np.array(cider_d(texts, refs, frequencies).scores),
        "exact match": np.array([exact_match([h], [r]) for h, r in zip(texts, refs)]),
    }


def ranking(kind, sentences):
    """`sentences`: of each scene those to make false. -> by metric, 1, 0.5 or 0 of each pair; and the pairs."""
    pairs = [
        (i, false_caption(sentences[i], scene, kind, draw))
        for i, scene in enumerate(scenes)
    ]
    pairs = [(i, false) for i, false in pairs if false]
    refs = [four[i] for i, _ in pairs]
    true, false = (
        scores_of([held[i] for i, _ in pairs], refs),
        scores_of([text for _, text in pairs], refs),
    )
    return {m: (1 + np.sign((true[m] - false[m]).round(9))) / 2 for m in true}, pairs


draw = random.Random(1)
alike = [[h] for h in held]
ranked = {
    (kind, same): ranking(kind, alike if same else four)
    for same in (False, True)
    for kind in GROUPS
}
figure = Figure(figsize=(7.6, 3.3), dpi=100, layout="constrained")
for axis, same in zip(figure.subplots(1, 2, sharey=True), (False, True)):
    for b, (metric, colour) in enumerate(
        (("BLEU", BLUE), ("ROUGE-L", ORANGE), ("CIDEr-D", GREEN))
    ):
        for k, kind in enumerate(GROUPS):
            wins = 100 * ranked[kind, same][0][metric]
            x, (low, high) = k + 0.27 * (b - 1), bootstrap(wins)
            axis.bar(
                x,
                wins.mean(),
                width=0.25,
                color=colour,
                label=metric if k == 0 else None,
            )
            axis.errorbar(
                x,
                wins.mean(),
                [[max(wins.mean() - low, 0)], [max(high - wins.mean(), 0)]],
                color="black",
                lw=0.8,
                capsize=1.5,
            )
    axis.axhline(50, color="black", lw=1, ls="--")
    axis.axhline(100, color=GREY, lw=1, ls=":")
    axis.set_xticks(range(len(GROUPS)), GROUPS)
    axis.set_title(
        "control: worded alike"
        if same
        else "true but worded otherwise, or a copy with one error",
        fontsize=9,
    )
figure.axes[0].set(ylabel="the true one ranks higher, %", ylim=(0, 122))
figure.axes[0].legend(fontsize=8, ncols=3, loc="upper left")
figure.axes[1].set_xlim(-0.6, 5.3)
figure.axes[1].text(4.5, 103, "judge", fontsize=8)
figure.axes[1].text(4.5, 53, "a coin", fontsize=8)
chapter.draw(figure, "how often a metric ranks the true caption higher")
for same in (False, True):
    print("control: worded alike" if same else "worded otherwise")
    for metric in ("BLEU", "ROUGE-L", "CIDEr-D", "exact match"):
        fractions = [
            f"{kind} {100 * ranked[kind, same][0][metric].mean():.1f}"
            for kind in GROUPS
        ]
        print(f"  {metric:12} " + ", ".join(fractions) + " %")
print(
    "pairs: " + ", ".join(f"{kind} {len(ranked[kind, False][1]):,}" for kind in GROUPS)
)
outcomes, pairs = ranked["colour", False]
i, false = next(pair for pair, win in zip(pairs, outcomes["BLEU"]) if win == 0)
print("\nthe first pair with a wrong colour that BLEU ranks wrongly")
for name, text in (("true", held[i]), ("false", false)):
    scores = ", ".join(
        f"{metric} {score.item():.2f}"
        for metric, score in scores_of([text], [four[i]]).items()
    )
    print(f"{name:5} {scores}: {detokenize(text)}")

# %% [markdown]
# And as a paper would print it: two **systems**. All captions of the first are true, all of the second are false.

# %%
choices = [[] for _ in scenes]
for kind in GROUPS:
    for i, false in ranked[kind, False][1]:
        choices[i].append(false)
corpora = {
    "all true, worded otherwise": held,
    "all false, one word each": [draw.choice(texts) for texts in choices],
}
tables = {name: caption_scores(texts, four) for name, texts in corpora.items()}
for name, texts in corpora.items():
    scores = [
        f"{m} {s.score:.2f} ({s.low:.2f} to {s.high:.2f})"
        for m, s in tables[name].items()
        if m in ("BLEU-4", "ROUGE-L", "CIDEr-D")
    ]
    print(
        f"{name:26} {judge_captions(texts, scenes).fractions[3]:5.1f} % true; "
        + ", ".join(scores)
    )

# %% [markdown]
# **BLEU under teacher forcing.** In training, a decoder is given the true words before each word (chapter 3). Its most
# probable words, at all places at once, are there for free, and look like a caption. So some repositories score them as if
# they were one. Here is a decoder as in chapter 5, an LSTM that looks at the picture. It is **forced** with one of the five
# captions, and then it writes by itself, **free**. Five times, each trained anew, on 1,000 to 16,000 captions.

# %%
device = pick_device()
cnn = pretrained_cnn(
    folder(2, chapter.fast) / "cnn.pt", chapter.choose(30_000, fast=640)
)
shown = chapter.choose((1000, 2000, 4000, 8000, 16_000), fast=(32, 64))
sentences = [tokenize(caption(Scene(i), i % 5)) for i in range(shown[-1])]
vocabulary = Vocabulary.build(sentences)
targets = [
    [torch.tensor([*vocabulary.encode(sentence), EOS])] for sentence in sentences
]
train_grids = extract_features(
    cnn, labelled_scenes("train", shown[-1])[0], torch.bfloat16
)  # (N, 128, 4, 4)
grids = extract_features(cnn, images, torch.bfloat16)


def train(captions_shown):
    torch.manual_seed(0)
    encoder, decoder = (
        ImageEncoder(cnn, 128, image_size=64).to(device),
        LSTMDecoder(len(vocabulary), 128, 256).to(device),
    )
    shuffle, n = torch.Generator().manual_seed(0), captions_shown
    train_captioner(
        decoder,
        encoder,
        train_grids[:n],
        targets[:n],
        batch_size=16,
        learning_rate=3e-3,
        generator=shuffle,
    )
    return encoder.eval(), decoder.eval()


@torch.no_grad()
def free(encoder, decoder, grids):
    """What the decoder writes by itself, as tokens, about each kept grid."""
    texts = []
    for some in grids.float().split(200):  # (200, 128, 4, 4)
        hypotheses = greedy_search(
            decoder, encoder.encode_features(some), max_length=30
        )
        texts += [vocabulary.decode(hypothesis.tokens) for hypothesis in hypotheses]
    return texts


@torch.no_grad()
def forced(encoder, decoder, grids, fed=held):
    """At each place of the captions that are fed in, the most probable word: as many words as these have."""
    texts = []
    for start, grid in zip(range(0, len(fed), 200), grids.float().split(200)):
        batch = [
            torch.tensor([BOS, *vocabulary.encode(sentence[:-1])])
            for sentence in fed[start : start + 200]
        ]
        tokens = pad_sequence(batch, batch_first=True).to(device)  # (B, T)
        best = (
            decoder(tokens, encoder.encode_features(grid)).argmax(-1).tolist()
        )  # (B, T)
        texts += [
            [vocabulary.words[i] for i in row[: len(words)]]
            for row, words in zip(best, batch)
        ]
    return texts


class Result(NamedTuple):
    texts: list[list[str]]
    fed: float  # BLEU against the caption that is fed
    five: float  # BLEU against all five
    true: float
    no_sentence: float


def result(texts):
    fractions, faults = judge_captions(texts, scenes)
    return Result(
        texts,
        bleu(texts, [[h] for h in held]).score,
        bleu(texts, written).score,
        fractions[3],
        100 * faults["grammar"] / count,
    )


results = {}
for n in shown:
    model = train(n)  # the last one is kept
    for mode, write_as in (("forced", forced), ("free", free)):
        results[mode, n] = result(write_as(*model, grids))
    print(f"{n:6,} captions: BLEU forced {results['forced', n].five:.1f}, free {results['free', n].five:.1f}; "
          f"true forced {results['forced', n].true:.1f} %, free {results['free', n].true:.1f} %", flush=True)  # fmt: skip
for mode, write_as in (("forced", forced), ("free", free)):
    results[mode, "another"] = result(write_as(*model, grids.roll(1, 0)))
for i in range(1, 4):
    print(f"\nfed     {detokenize(held[i])}")
    for mode in ("forced", "free"):
        print(f"{mode:7} {detokenize(results[mode, shown[-1]].texts[i])}")

# %%
figure = Figure(figsize=(7.6, 3.2), dpi=100, layout="constrained")
left, right = figure.subplots(1, 2, width_ratios=(1.35, 1), sharey=True)
for b, (n, mode, colour) in enumerate((
    (shown[-1], "forced", ORANGE), (shown[-1], "free", BLUE), ("another", "forced", "#fdd0a2"), ("another", "free", "#c6dbef"),
)):  # fmt: skip
    _, fed, all_five, fraction, _ = results[mode, n]
    label = f"{mode}, {'another' if n == 'another' else 'its own'} picture"
    bars = left.bar(
        [x + 0.21 * (b - 1.5) for x in range(3)],
        [fed, all_five, fraction],
        width=0.2,
        color=colour,
        label=label,
    )
    left.bar_label(bars, fmt="%.0f", fontsize=7.5)
left.set_xticks(
    range(3), ("BLEU, the caption\nthat is fed", "BLEU,\nall five", "true, %")
)
left.set(ylim=(0, 118))
left.legend(fontsize=7.5, ncols=2, loc="upper center")
for name, mode, field, line, colour in (
    ("BLEU forced", "forced", "five", "o-", ORANGE), ("BLEU free", "free", "five", "o-", BLUE),
    ("true, free", "free", "true", "s--", GREEN),
):  # fmt: skip
    right.semilogx(
        shown,
        [getattr(results[mode, n], field) for n in shown],
        line,
        color=colour,
        ms=4,
        label=name,
    )
right.set_xticks(shown, [f"{n:,}" for n in shown], fontsize=8)
right.minorticks_off()
right.set(xlabel="captions seen in training")
right.legend(fontsize=7.5, ncols=2, loc="upper center")
chapter.draw(figure, "forced or free, its own or another picture")
for picture, n in (("its own picture", shown[-1]), ("another picture", "another")):
    for mode in ("forced", "free"):
        r = results[mode, n]
        print(f"{mode:6} with {picture}: BLEU {r.fed:.1f} against the caption that is fed, {r.five:.1f} against all five; "
              f"{r.true:.1f} % true, {r.no_sentence:.1f} % no sentences")  # fmt: skip

# %% [markdown]
# ## What to notice
#
# First, what could have fooled us: a false caption has the length of a reference, a true one often another. So here are all
# pairs, and those of the same length alone. The intervals draw pictures, not pairs, since a picture has several.

# %%
for metric in ("BLEU", "ROUGE-L", "CIDEr-D"):
    tally = np.zeros(
        (2, count, 2)
    )  # of all pairs, and of those of the same length: won and counted, of each scene
    for kind in GROUPS:
        outcomes, pairs = ranked[kind, False]
        for win, (i, false) in zip(outcomes[metric], pairs):
            tally[0, i] += 100 * win, 1
            if len(false) == len(held[i]):
                tally[1, i] += 100 * win, 1
    for name, (won, pairs), interval in zip(
        ("all pairs", "of the same length"),
        tally.sum(1),
        [bootstrap(t, lambda sums: sums[0] / sums[1]) for t in tally],
    ):
        print(
            f"{metric:8} true one higher in {won / pairs:.1f} % ({interval[0]:.1f} to {interval[1]:.1f}) of {pairs:.0f}, {name}"
        )

# %% [markdown]
# **BLEU does not know what is true.** It ranks the true caption higher in 50.3 % of the pairs: a coin. ROUGE-L does so in
# 38.2 %, worse than a coin: a wrong word costs it one word, another order costs it many. CIDEr-D reaches 83.0 %, because
# it weighs what is rare. That also says what it misses: "big" weighs 0.42 and "cow" 3.06, and of the wrong nouns it finds
# 90.9 %, of the wrong sizes 71.6 %. Exact match sees neither: 50 %, by construction.
#
# **So the liar wins.** A system whose every caption is false has BLEU 79.2; one whose every caption is true, 73.6. Their
# intervals do not touch, so more pictures would not help. ROUGE-L errs with it, CIDEr-D does not.
#
# **What the controls say.** Are the metrics blind to the word? No: if both captions are worded alike, the true one is
# higher in 95 to 100 %. Is it the length? No: among pairs of the same length, BLEU has 49.5 %, ROUGE-L 23.4 %. It is the
# wording. Two systems that speak alike can be compared with BLEU, two that do not cannot. Callison-Burch et al. (2006) saw
# it with people as judges: BLEU underrated a translator made of rules, which had a wording of its own. And mind what was
# compared: our false captions copy a reference but for one word. On photographs nobody copies so well, so take the
# direction from here, not the percentages. But a model that has learnt the phrases, and not yet the picture, errs just like
# this.
#
# **Add up first.** Corpus BLEU prefers the system with many small errors, 59.3 to 52.9; the mean of its sentences prefers
# the one with few great ones, 55.1 to 52.7. The captions of three things are 30 % of the captions, but 43 % of the words.
# The mean of sentences is not BLEU. ROUGE-L and CIDEr-D *are* means, by definition.
#
# **Say your tokenizer.** The same captions have a BLEU of 56.5 to 69.0: it depends on who splits, and on what is left of
# capitals and commas. A full stop on both sides is a free point, on one side a fault. `caption_tokenize` gives 67.4
# each time. Scores of two papers can be compared only if they split alike (Post 2018).
#
# **Four times the pictures, half the width**: 9.7 BLEU at 25 pictures, 4.9 at 100, 2.5 at 400. The better of the two
# systems writes 70 % true captions instead of 60 %, and has 2.3 BLEU more. With 400 pictures the paired difference shows it
# on all 16 test sets; the intervals lie apart on less than a third of them. So draw the same pictures for both (Koehn
# 2004). Truth needs about as many pictures as BLEU here, where all errors are of one kind.
#
# **Teacher forcing is no score of a model.** It reads the reference while it is tested. Against the caption that is fed, the
# same decoder has BLEU 75 forced and 52 free; with **another picture** still 21 forced, and 8 free, because the true words
# so far say much about the next. And the length comes for free. But nobody would want the text. "a is a big black pencil in
# the bottom left corner" is right at all places but the first: "a" was guessed, and "there" was fed. It is no sentence, like
# 87.1 % of them. True are 8 % forced, 55 % free. Nor can one subtract a constant: after 1,000 captions free is higher by 1.5,
# later forced is, by 1.6 to 5.7. A well-known tutorial, which warns of it, has 24.29 forced and 29.98 free, with
# the same weights. Here both rise together; but to watch a training there is the loss, and to score a model, let it write.
#
# One seed, and test scenes that no model had seen.
#
# ## Your turn
#
# Write these anew, from their docstrings. `python -m chapters.assignments start 9 --to work` lays the stubs out, and
# `check 9 --from work` says what is right, and gives a hint where something is not.
#
# 1. `exact_match`: to begin with; and if there are no hypotheses? 1 point, 5 minutes.
# 2. `_ngrams`: one line; all that follows counts what it gives. 1 point, 5 minutes.
# 3. `bleu_statistics`: whom do you clip by, one reference or all? 10 points, 50 minutes.
# 4. `bleu`: with `_bleu` and `sentence_bleu`; begin without smoothing. 12 points, 60 minutes.
# 5. `_longest_common_subsequence`: the table, of which one row at a time is enough. 5 points, 25 minutes.
# 6. `rouge_l`: must precision and recall come from the same reference? 4 points, 20 minutes.
# 7. `document_frequencies`: how often does a picture count? 3 points, 15 minutes.
# 8. `cider_d`: what if an n-gram stands in no reference? 18 points, 90 minutes.
# 9. `bootstrap`: for a mean, and for a score of sums. 5 points, 25 minutes.
# 10. `caption_tokenize`: the patterns are there; what do papers count as a word? 4 points, 20 minutes.
#
# And three questions without an answer here:
#
# 1. With one reference instead of four, or with fifty, how often does BLEU rank the true caption higher?
# 2. `judge` allows leaving out a colour: what does each metric say of a caption that is true and says less?
# 3. Can you think of a score, from the words alone, that finds more than CIDEr-D does, and then of a false caption that fools
#    it (Anderson et al. 2016)?

# %%
chapter.finish()

# %% [markdown]
# ## Sources
#
# Papineni et al. 2002, "BLEU: a method for automatic evaluation of machine translation" · Chen and Cherry 2014, "A
# systematic comparison of smoothing techniques for sentence-level BLEU" · Lin 2004, "ROUGE: a package for automatic
# evaluation of summaries" · Vedantam, Zitnick and Parikh 2015, "CIDEr: consensus-based image description evaluation" · Chen
# et al. 2015, "Microsoft COCO captions: data collection and evaluation server" · Post 2018, "A call for clarity in reporting
# BLEU scores" (sacrebleu) · Efron 1979, "Bootstrap methods: another look at the jackknife" · Koehn 2004, "Statistical
# significance tests for machine translation evaluation" · Callison-Burch, Osborne and Koehn 2006, "Re-evaluating the role of
# BLEU in machine translation research" · Anderson et al. 2016, "SPICE: semantic propositional image caption evaluation" ·
# Vinodababu 2018, "a PyTorch tutorial to image captioning" (24.29 and 29.98, in its README).
