# %% [markdown]
# # 13 · Image–text retrieval
#
# **Adds** a contrastive loss, two towers whose vectors can be compared, and exact search with recall as its measure. **Takes** 3.0 min on two cores.
#
# Which of a thousand pictures does this sentence describe? The captioner of chapter 5 could answer:
# for each picture, it computes how probable the sentence is, and the most probable one wins. That
# is a thousand runs of the decoder for one sentence, and a thousand more for the next. Here each
# picture becomes **one vector**, once and for all, and each sentence becomes one in the same space.
# Then search is a matrix product. The words and the picture never meet inside the model, so what it
# can compare has to fit into these vectors; and what makes them comparable is the loss.

# %%
import math
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.optim.lr_scheduler import LambdaLR

from chapters.chapter import Chapter, folder, show
from chapters.drawings import ch13 as drawings
from chapters.measured import few_labels
from chapters.measured import retrieval as measured
from mmscratch import contrastive
from mmscratch.__main__ import main
from mmscratch.attention import Memory
from mmscratch.batches import encode_words
from mmscratch.contrastive import (
    AttentionPooling,
    DualEncoder,
    contrastive_loss,
    hardest_negative_loss,
    sentence_fingerprint,
)

# %%
from mmscratch.data.captions import SceneCaptions
from mmscratch.data.judge import judge, true_pairs
from mmscratch.data.language import caption
from mmscratch.data.scenes import COLOURS, NOUNS, SIZES, draw
from mmscratch.finetuning import load_run
from mmscratch.metrics import median_rank, recall_at, retrieval_ranks
from mmscratch.plots import retrieval_sheet
from mmscratch.pretraining import extract_features, predict_logits, pretrained_cnn
from mmscratch.recurrent import LSTMEncoder
from mmscratch.search import search
from mmscratch.text import PAD, Vocabulary, tokenize
from mmscratch.training import warmup_and_cosine
from mmscratch.vision import ImageEncoder, ResNet

torch.manual_seed(0)
chapter = Chapter(13)

# %% [markdown]
# ## The idea

# %%
test = SceneCaptions("test", chapter.choose(1000, fast=128), one_caption_each=True)
test_texts = [texts[0] for texts in test.texts]
single = [i for i, scene in enumerate(test.scenes) if len(scene.objects) == 1]
four = single[:4]
pictures = [draw(test.scenes[i], 128) for i in four]
figure = drawings.two_towers(pictures, [test_texts[i] for i in four])
chapter.draw(figure, "two towers and all pairs of a batch")

# %% [markdown]
# An image tower turns each picture of a batch into a vector $a_i$ of length 1, and a text tower
# turns each sentence into a vector $b_j$ of length 1. The dot product $a_i \cdot b_j$ is the cosine
# of the angle between them. The **green** ones should be large: the picture and its own sentence.
# All others should be small: for each picture, the other sentences of the batch are the
# **negatives**, and nobody had to write them. With $B$ pairs there are $B^2 - B$ of them.
#
# Row by row this is a classification: which of the $B$ sentences belongs to this picture? Column by
# column, which of the $B$ pictures belongs to this sentence? The loss is the cross-entropy of both,
# and is called **InfoNCE**:
#
# $$s_{ij} = \frac{a_i \cdot b_j}{\tau} \qquad \mathcal L = -\frac{1}{2B} \sum_i \left(\log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}} + \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}}\right)$$
#
# A cosine is at most 1, so without the **temperature** $\tau$ even a perfect model would not be
# sure of its answer: $e^1$ against 127 times $e^0$ is 2 %.
#
# ## By hand
#
# Four pairs, with vectors of five numbers. The sentence's vector is the picture's, with some noise.

# %%
B, D = 4, 5
a = F.normalize(torch.randn(B, D), dim=1)
b = F.normalize(a + 0.4 * torch.randn(B, D), dim=1)
scale = 1 / 0.07  # 1 / temperature
logits = torch.empty(B, B)
for i in range(B):
    for j in range(B):
        logits[i, j] = scale * sum(a[i, d] * b[j, d] for d in range(D))

print("            " + "".join(f"sentence {j + 1:<4}" for j in range(B)))
for i in range(B):
    cells = "".join(f"{logits[i, j]:10.2f}   " for j in range(B))
    print(f"picture {i + 1} {cells}")


# %%
def info_nce(logits):
    """The loss of B pairs, from their logits (B, B)."""
    total = 0.0
    for i in range(len(logits)):
        row = sum(logits[i, j].exp() for j in range(len(logits)))
        column = sum(logits[j, i].exp() for j in range(len(logits)))
        positive = logits[i, i].exp()
        total = total - (positive / row).log() / 2
        total = total - (positive / column).log() / 2
    return total / len(logits)


by_hand = info_nce(logits)
print(f"loss {by_hand:.3f}; guessing would give ln {B} = {math.log(B):.3f}")

# %% [markdown]
# **What does the temperature do?** Pushing $b_j$ away from $a_i$ is worth as much as the softmax
# thinks the two belong together. Here are these weights for the first picture at three
# temperatures.

# %%
cosines = a @ b.T
print(f"{'cosine':18}" + "".join(f"{cosine:8.2f}" for cosine in cosines[0]))
for temperature in (1, 0.07, 0.01):
    weights = (cosines[0] / temperature).softmax(0)
    cells = "".join(f"{100 * weight:7.1f}%" for weight in weights)
    print(f"temperature {temperature:<6}{cells}")

# %% [markdown]
# At a **high** temperature all negatives push alike, the harmless ones too, and the loss never gets
# small. At a **low** one only the hardest negative pushes. The limit of this is another loss, the
# hinge with the **hardest negative** (VSE++, Faghri et al. 2018): the pair must be ahead of its
# hardest negative by a margin, and no other negative counts.
#
# $$\mathcal L_i = \max(0,\ 0.2 + \max_{j \ne i} a_i \cdot b_j - a_i \cdot b_i) + \max(0,\ 0.2 + \max_{j \ne i} a_j \cdot b_i - a_i \cdot b_i)$$


# %%
def hinge(cosines, margin=0.2):
    """The loss of B pairs with their hardest negatives, from their cosines (B, B)."""
    total = 0.0
    for i in range(len(cosines)):
        others = [j for j in range(len(cosines)) if j != i]
        in_row = max(cosines[i, j] for j in others)
        in_column = max(cosines[j, i] for j in others)
        total = total + max(0, margin + in_row - cosines[i, i])
        total = total + max(0, margin + in_column - cosines[i, i])
    return total / len(cosines)


print(f"hinge with the hardest negatives: {hinge(cosines):.3f}")

# %% [markdown]
# **The temperature can be learned.** It is one number more. But where does it go? If each pair of
# the batch is the best of its row and column, then sharper is always better, and it falls without
# end. If a single negative is wrong, sharper is soon worse. So CLIP clamps $1/\tau$ at 100, and so
# do we.

# %%
N = 128
vectors = F.normalize(torch.randn(N, 64), dim=1)
noisy = F.normalize(vectors + 0.1 * torch.randn(N, 64), dim=1)
cosines_right = vectors @ noisy.T
cosines_wrong = cosines_right.clone()
cosines_wrong[0, 1] = 0.9  # sentence 2 fits picture 1 better than its own
cosines_wrong[0, 0] = 0.7
scales = torch.logspace(0, 3, 40)
pairs = torch.arange(N)
figure = Figure(figsize=(6.4, 3.2), dpi=100, layout="constrained")
axis = figure.subplots()
for cosines_of, label in (
    (cosines_right, "all 128 pictures find their sentence"),
    (cosines_wrong, "one of them finds another one"),
):
    losses = [F.cross_entropy(scale * cosines_of, pairs) for scale in scales]
    axis.loglog(scales, losses, label=label)
axis.axvline(100, color="black", lw=1, ls=":", label="the clamp: 1/τ = 100")
axis.set(xlabel="1 / temperature", ylabel="loss", ylim=(1e-7, 10))
axis.legend(fontsize=8, loc="lower left")
chapter.draw(figure, "loss and temperature")

# %% [markdown]
# **False negatives.** "A small red star" may be true of two pictures in a batch. Then one of them
# is taken for a negative, and the loss pushes the sentence away from a picture that it describes.
# On photographs nobody knows how often this happens. Here the judge of chapter 3 knows: `true_pairs`
# compares all captions with all scenes.

# %%
count = chapter.choose(8192, fast=1024)
many = SceneCaptions("train", count, size=0, one_caption_each=True)
many_texts = [texts[0] for texts in many.texts]
print("pairs of a batch that have a false negative, on average")
for size in (16, 128, 1024):
    affected = []
    for first in range(0, count, size):
        rows = slice(first, first + size)
        true = true_pairs(many_texts[rows], many.scenes[rows])  # (size, size)
        false_negatives = true & ~torch.eye(size, dtype=torch.bool)
        affected.append(false_negatives.any(1).sum().item())
    mean = sum(affected) / len(affected)
    print(f"  batch of {size:5,}: {mean:6.2f}, which is {100 * mean / size:.1f} %")
relevant = true_pairs(test_texts, test.scenes)  # (Q, G), caption i and scene j
print(f"{len(test):,} test captions fit {relevant.sum() - len(test)} other test scenes")

# %% [markdown]
# There are worse ones, which one makes oneself. Data sets have five captions of each picture. If
# two of them are in one batch, each is a negative of the other's picture. The loss therefore takes
# a matrix `same`: where `same[i, j]` is True, sentence $j$ fits picture $i$ as well, and neither
# softmax counts the two.
#
# ## The piece
#
# A tower is any encoder of the earlier chapters, and yields a memory: many vectors. **Attention
# pooling** makes one of them: a learned query asks the memory, as the decoder did for each word, but
# only once.

# %%
show(AttentionPooling)
show(contrastive_loss)
show(contrastive._contrastive_losses)

# %%
show(hardest_negative_loss)
show(contrastive._hardest_negative_losses)

# %%
log_scale = torch.tensor(1 / 0.07).log()
assert torch.allclose(contrastive_loss(a, b, log_scale), by_hand, atol=1e-5)
assert torch.allclose(hardest_negative_loss(a, b), hinge(cosines), atol=1e-5)
tokens = torch.randn(2, 7, D)
mask = torch.ones(2, 7, dtype=torch.bool)
pooling = AttentionPooling(D)
weights = (tokens @ pooling.query / math.sqrt(D)).softmax(1)  # (2, 7)
pooled = torch.stack([weights[i] @ tokens[i] for i in range(2)])  # (2, D)
assert torch.allclose(pooling(Memory(tokens, mask)), pooled, atol=1e-6)
print("by hand and library agree")

# %% [markdown]
# The model. Its `loss` finds pairs that are not negatives of each other: the same picture, the same
# words (by a fingerprint, which is one number for a sentence), and whatever `self.same` adds. In a
# run with several processes the batches of all of them are one batch: `gather` fetches the others'
# vectors, **with** their gradients. Without these, a process would not learn how its vectors serve
# the others as negatives.

# %%
show(DualEncoder.embed)
show(DualEncoder.loss)
show(sentence_fingerprint)

# %% [markdown]
# **Recall at k** is the fraction of queries whose right answer is among the first k. It depends on
# how many items there are to choose from: the **gallery**. Equal scores count against the model;
# otherwise one that gives all pictures the same score would always be right.

# %%
show(retrieval_ranks)
scores = b @ a.T  # (Q, G): sentences ask for pictures
own = torch.eye(B, dtype=torch.bool)
ranks = retrieval_ranks(scores, own)
for i in range(B):
    better = [j for j in range(B) if j != i and scores[i, j] >= scores[i, i]]
    assert ranks[i] == 1 + len(better)
print("ranks:", ranks.tolist(), "recall at 1:", recall_at(ranks, 1))

# %% [markdown]
# **Search** is one matrix product, and the k best of each row. A million vectors do not have to be
# in memory at once: a chunk at a time is enough, with the best ones so far.

# %%
show(search)
best, indices = search(b, a, k=2, chunk_size=3)
expected = scores.topk(2)
assert torch.allclose(best, expected.values, atol=1e-6)
assert torch.equal(indices, expected.indices)
print("chunk by chunk: the same")

# %% [markdown]
# ## Train it
#
# The image tower starts from the captioner that `python -m mmscratch quickstart` leaves behind: we
# take its CNN, freeze it, and compute the features of each picture once, as in chapter 5. The rest of
# the image tower and all of the text tower are new. This CNN has never seen a label: it has learned
# from pictures and captions only.

# %%
WIDTH = 128  # of the memories, and of the vectors
CAPTIONER = Path("runs/quickstart")
if chapter.fast:
    cnn = ResNet((1, 1), num_classes=None, width=32).eval()
else:
    if not (CAPTIONER / "best.pt").exists():
        main(["quickstart"])  # two or three minutes, once
    captioner, _, _ = load_run(CAPTIONER)
    cnn = captioner.encoders["image"].backbone
cnn.requires_grad_(False)
device = next(cnn.parameters()).device


# %%
class GridTower(nn.Module):
    """An image tower after the frozen CNN: grids (B, C, h, w) -> a memory."""

    def __init__(self):
        super().__init__()
        self.encoder = ImageEncoder(cnn, WIDTH, image_size=64)

    def forward(self, grids):
        return self.encoder.encode_features(grids.float())


# %% [markdown]
# The pictures, each with its five captions. Caption `row` is about picture `row // 5`.

# %%
training = SceneCaptions("train", chapter.choose(8000, fast=64))
captions = [text for texts in training.texts for text in texts]
words = Vocabulary.build(tokenize(text) for text in captions)


def prepare(data):
    """The pictures' grids (N, C, h, w), and the captions, padded: (M, T)."""
    images = torch.stack([data[i]["image"] for i in range(len(data))])
    grids = extract_features(cnn, images, torch.bfloat16)
    references = [caption for captions in data.references for caption in captions]
    encoded = [encode_words(words, caption) for caption in references]
    sentences = pad_sequence(encoded, batch_first=True, padding_value=PAD)
    return grids, sentences.to(device)


grids, sentences = prepare(training)
test_grids, test_sentences = prepare(test)
print(f"{len(grids):,} pictures, {len(sentences):,} captions, {len(words)} words")

# %% [markdown]
# **A control**: a text tower that knows which words a sentence has, but not their order. It is a
# table of word vectors, and attention pooling adds them up.


# %%
class BagOfWords(nn.Module):
    """A text tower without word order: tokens (B, T) -> the vectors of the words."""

    def __init__(self, vocab_size, embed_dim):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embed_dim, padding_idx=PAD)

    def forward(self, tokens):
        return Memory(self.embedding(tokens), tokens != PAD)


TEXT_TOWERS = {
    "LSTM": partial(LSTMEncoder, hidden_size=128),
    "bag of words": BagOfWords,
}


def new_model(text="LSTM", negatives="all", temperature=0.07, learned=True):
    torch.manual_seed(0)
    towers = {"image": GridTower(), "target": TEXT_TOWERS[text](len(words), WIDTH)}
    model = DualEncoder(towers, WIDTH, WIDTH, negatives).to(device)
    nn.init.constant_(model.log_scale, math.log(1 / temperature))
    model.log_scale.requires_grad_(learned)
    return model


# %% [markdown]
# `fits` is what a model's `same` calls: which pairs of a batch are no negatives? All models see the
# same number of pairs, in the same order.


# %%
def fits(rows):
    """Whether caption j is true of picture i, for captions `rows` (B,): (B, B) bool."""
    texts = [captions[row] for row in rows.tolist()]
    scenes = [training.scenes[row // 5] for row in rows.tolist()]
    return true_pairs(texts, scenes).T.to(rows.device)


def draw_batches(pairs, batch_size, five_each):
    """Rows of captions: at random, or all five of a picture in one batch."""
    order = torch.Generator().manual_seed(0)
    if five_each:
        pictures = torch.randperm(len(grids), generator=order)
        rows = 5 * pictures.unsqueeze(1) + torch.arange(5)  # (N, 5)
    else:
        rows = torch.randperm(len(sentences), generator=order)
    return rows.flatten()[:pairs].split(batch_size)


# %%
def fit(model, pairs, batch_size, five_each):
    """Train on `pairs` captions and their pictures."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    learning_rate = 3e-3 * math.sqrt(batch_size / 128)  # smaller batches, smaller steps
    optimizer = torch.optim.AdamW(parameters, learning_rate, weight_decay=0.05)
    steps = math.ceil(pairs / batch_size)
    factor = partial(warmup_and_cosine, steps=steps, warmup_fraction=0.1)
    schedule = LambdaLR(optimizer, factor)
    model.train()
    for rows in draw_batches(pairs, batch_size, five_each):
        batch = {"image": grids[rows // 5], "target": sentences[rows]}
        batch["number"] = rows.to(device)
        loss, count = model.loss(batch)
        optimizer.zero_grad()
        (loss / count).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()


# %% [markdown]
# The measure: 1,000 new pictures, and one caption of each. A picture counts as right if the caption
# is true of it.


# %%
@torch.no_grad()
def embed(model, modality, inputs):
    model.eval()
    return torch.cat([model.embed(modality, part) for part in inputs.split(250)]).cpu()


def score(model):
    """How well each test caption fits each test picture: (Q, G)."""
    image_vectors = embed(model, "image", test_grids)
    text_vectors = embed(model, "target", test_sentences)
    return text_vectors @ image_vectors.T


def percent(ranks, k):
    return 100 * sum(recall_at(ranks, k)) / len(ranks)


# %%
PAIRS = chapter.choose(8000, fast=256)  # for each of the compared models
models = {}


def compare(name, pairs=PAIRS, batch_size=128, five_each=False, same=fits, **settings):
    """Train a model; print how many captions find their picture."""
    model = new_model(**settings)
    model.same = same
    fit(model, pairs, batch_size, five_each)
    recall = percent(retrieval_ranks(score(model), relevant), 1)
    temperature = 1 / model.log_scale.clamp(max=contrastive.MAX_LOG_SCALE).exp()
    print(f"{name:36} R@1 {recall:4.1f} %; temperature {temperature:.3f}", flush=True)
    models[name] = model


# %% [markdown]
# **The temperature**: learned; too high; too low; and learned without the clamp, from far too low.
# (With the clamp that one could not leave 0.01 again: beyond the clamp there is no gradient.)

# %%
print(f"caption -> picture, among {len(test):,} pictures")
compare("learned, from 0.07")
compare("always 1", temperature=1, learned=False)
compare("always 0.01", temperature=0.01, learned=False)
with patch.object(contrastive, "MAX_LOG_SCALE", math.inf):
    compare("learned without a clamp, from 0.001", temperature=0.001)

# %% [markdown]
# **The negatives**: 15 instead of 127, with the same number of pairs (and eight times as many steps),
# or with the same number of steps; only the hardest one; those that are false; and the five captions
# of each picture in one batch, with and without `same`.

# %%
compare("batch of 16, as many pairs", batch_size=16)
compare("batch of 16, as many steps", batch_size=16, pairs=PAIRS // 8)
compare("hardest negative", negatives="hardest")
compare("with false negatives", same=None)
compare("five captions in a batch", five_each=True)
compare("five captions, with false negatives", five_each=True, same=None)

# %% [markdown]
# **Word order**: the bag of words; and the model for the rest of this chapter, which sees three times
# as many pairs.

# %%
LONGER = "LSTM, three times as many pairs"
compare("bag of words", text="bag of words")
compare(LONGER, pairs=3 * PAIRS)
model = models[LONGER]

# %% [markdown]
# ## Look
#
# Both directions, with the median rank and its interval over pictures.

# %%
scores = score(model)  # (Q, G)
directions = {
    "caption -> picture": retrieval_ranks(scores, relevant),
    "picture -> caption": retrieval_ranks(scores.T, relevant.T),
}
for direction, ranks in directions.items():
    recalls = ", ".join(f"R@{k} {percent(ranks, k):.1f} %" for k in (1, 5, 10))
    median, low, high = median_rank(ranks, range(len(ranks)))
    print(f"{direction}, among {len(test):,}: {recalls}; ", end="")
    print(f"median rank {median:g} ({low:g} to {high:g})")

# %% [markdown]
# **How to fool oneself.** It is convenient to measure recall within the batches of validation: the
# products are there already. But a batch of 64 is a gallery of 64. Below, the same vectors are
# measured in galleries of all sizes. Nothing about the model changes.

# %%
GALLERIES = [8, 16, 32, 64, 125, 250, 500, 1000]
GALLERIES = [size for size in GALLERIES if size <= len(test)]


def recall_in_galleries(scores, size):
    """Mean recall at 1 (%) of captions that choose among `size` pictures."""
    recalls = []
    for first in range(0, len(scores) - size + 1, size):
        rows = slice(first, first + size)
        ranks = retrieval_ranks(scores[rows, rows], relevant[rows, rows])
        recalls += recall_at(ranks, 1)
    return 100 * sum(recalls) / len(recalls)


curves = {}
for name in (LONGER, "learned, from 0.07", "always 1"):
    scores_of = score(models[name])
    curves[name] = [recall_in_galleries(scores_of, size) for size in GALLERIES]
    among_64 = curves[name][GALLERIES.index(64)]
    print(f"{name:32} among 64: {among_64:5.1f} %", end="; ")
    print(f"among {GALLERIES[-1]:,}: {curves[name][-1]:5.1f} %")

# %%
figure = Figure(figsize=(6.4, 3.4), dpi=100, layout="constrained")
axis = figure.subplots()
for name, curve in curves.items():
    axis.semilogx(GALLERIES, curve, marker="o", label=name)
axis.set_xticks(GALLERIES, [f"{size:,}" for size in GALLERIES])
axis.minorticks_off()
axis.set(xlabel="pictures in the gallery", ylabel="recall at 1, %", ylim=(0, 103))
axis.legend(fontsize=8)
chapter.draw(figure, "the same model in galleries of all sizes")

# %% [markdown]
# **The space**, reduced to its two directions of largest variance (the first right singular vectors
# of the centred vectors). A picture and its caption are joined by a line.

# %%
image_vectors = embed(model, "image", test_grids)
text_vectors = embed(model, "target", test_sentences)
centred = image_vectors - image_vectors.mean(0)
_, singular_values, axes = torch.linalg.svd(centred, full_matrices=False)
plane = axes[:2].T  # (D, 2)
variances = singular_values.square()
held = 100 * variances[:2].sum() / variances.sum()
print(f"two of {len(variances)} directions, {held:.0f} % of the variance")
chosen = single[:36]
image_points = (image_vectors[chosen] - image_vectors.mean(0)) @ plane
text_points = (text_vectors[chosen] - image_vectors.mean(0)) @ plane
thumbnails = [test[i]["image"] for i in chosen]
labels = [test_texts[i] for i in chosen[:6]]
figure = drawings.space(image_points, text_points, thumbnails, labels)
chapter.draw(figure, "the space in two dimensions")

# %% [markdown]
# **The five best pictures** for some captions; a green frame means that the caption is true. First
# two captions that find their picture, then up to three that do not.

# %%
ranks = directions["caption -> picture"]
found = [i for i in range(len(ranks)) if ranks[i] == 1]
missed = [i for i in range(len(ranks)) if ranks[i] > 1]
shown = found[1:3] + missed[:3]
_, best = search(text_vectors[shown], image_vectors.half(), k=5)
rows = [[test[j]["image"] for j in row] for row in best.tolist()]
right = [relevant[i, best[n]].tolist() for n, i in enumerate(shown)]
figure = retrieval_sheet([test_texts[i] for i in shown], rows, right)
chapter.draw(figure, "the five best pictures for some captions")

# %% [markdown]
# **How much of it is word order?** "From left to right: a red star and a blue cow" has the same
# words as "from left to right: a blue cow and a red star", and only one of them is true. For each
# test picture of two different objects, does the true sentence get the higher score? A tie is wrong.


# %%
def two_orders(scene):
    """A true sentence about two objects, and one with the objects exchanged."""
    true = caption(scene, 4)  # "from left to right: … and …"
    order, both = true.split(": ")
    first, second = both.split(" and ")
    return true, f"{order}: {second} and {first}"


examples = []  # (number of the scene, the true sentence, the false one)
for i, scene in enumerate(test.scenes):
    attributes = {obj.attributes for obj in scene.objects}
    if len(scene.objects) == len(attributes) == 2:
        examples.append((i, *two_orders(scene)))
for i, true, false in examples:
    assert judge(true, test.scenes[i]).true and not judge(false, test.scenes[i]).true
print(examples[0][1], "|", examples[0][2])


# %%
def encode(texts):
    """Sentences -> their tokens (B, T)."""
    encoded = [encode_words(words, tokenize(text)) for text in texts]
    return pad_sequence(encoded, batch_first=True, padding_value=PAD).to(device)


numbers, true_texts, false_texts = zip(*examples)
for name in ("bag of words", "learned, from 0.07", LONGER):
    images = embed(models[name], "image", test_grids[list(numbers)])
    of_true = (embed(models[name], "target", encode(true_texts)) * images).sum(1)
    of_false = (embed(models[name], "target", encode(false_texts)) * images).sum(1)
    right = 100 * (of_true > of_false + 1e-5).float().mean()  # more than rounding
    print(f"{name:32} {right:5.1f} % of {len(examples)}")

# %% [markdown]
# **Zero-shot.** Nobody has taught the model to name the noun of a picture. But one can ask it: which
# of 32 sentences fits this picture best? First with "a cat", which is shorter than any caption that
# it has read. Then with the mean of the vectors of many sentences, as CLIP's authors did with their
# "prompts": "a big red cat" in all sizes and colours, and the same within a sentence like those of
# training. Last, the noun of the one sentence among all of these that fits best. The classifier of
# chapter 2 has been trained on labels for this.

# %%
KINDS = [f"a {size} {colour}" for size in SIZES for colour in COLOURS]
PLACES = ["at the top", "on the left", "in the middle", "on the right", "at the bottom"]
PROMPTS = {  # name -> sentences in which {} is a noun
    "a cat": ["a {}"],
    "a big red cat": [f"{kind} {{}}" for kind in KINDS],
    "there is a big red cat on the left": [
        f"there is {kind} {{}} {place}" for kind in KINDS for place in PLACES
    ],
}


answers = {}
for name, prompts in PROMPTS.items():
    texts = [prompt.format(noun) for noun in NOUNS for prompt in prompts]
    vectors = embed(model, "target", encode(texts))  # (32 · P, D)
    vectors = vectors.unflatten(0, (len(NOUNS), -1))  # (32, P, D)
    means = F.normalize(vectors.mean(1), dim=1)  # (32, D)
    answers[name] = (image_vectors[single] @ means.T).argmax(1)
fits_best = image_vectors[single] @ vectors.flatten(0, 1).T  # (N, 32 · P)
answers["  and the best instead of the mean"] = fits_best.argmax(1) // len(prompts)

# %%
classifier = pretrained_cnn(
    folder(2, chapter.fast) / "cnn.pt", chapter.choose(30_000, fast=64)
)
images = torch.stack([test[i]["image"] for i in single])
answers["chapter 2's classifier"] = predict_logits(classifier, images)[:, :32].argmax(1)
true_nouns = [list(NOUNS).index(test.scenes[i].objects[0].noun) for i in single]
for way, predicted in answers.items():
    right = 100 * (predicted == torch.tensor(true_nouns)).float().mean()
    print(f"{way:36} {right:5.1f} % of {len(single)} pictures with one object")

# %% [markdown]
# **Longer, and on photographs.** `python -m chapters.measured.retrieval` trains the whole model, CNN
# included, from random weights: on 90,000 scenes with one caption each, and on the 6,000 training
# pictures of Flickr8k. Of scenes, only captions that fit a single picture count here. Flickr8k's
# test pictures are not at hand, so these are its 1,000 dev pictures with five captions each.

# %%
results = measured.results()
for name in ("scenes", "Flickr8k"):
    row = results[name]
    print(f"{name}: {row['examples']:,} pictures, {row['epochs']} epochs, ", end="")
    print(f"{row['seconds'] / 60:.0f} min")
    for direction in ("caption to picture", "picture to caption"):
        recalls = row[direction]
        cells = ", ".join(f"R@{k} {recalls[f'R@{k}']:.1f} %" for k in (1, 5, 10))
        median, low, high = recalls["median rank"]
        print(f"  {direction}, {row['gallery']:,} pictures: {cells}; ", end="")
        print(f"median rank {median:g} ({low:g} to {high:g})")

# %% [markdown]
# **The picture tower as a start.** In chapter 7, a captioner that had learned from English captions
# went on with 200 pictures and their German captions. Now the image encoder, of the same
# architecture, comes from towers that were trained on 90,000 scenes. How many of 500 German captions
# are true, with three seeds?

# %%
COUNTED = {"task": "German", "labels": 200, "longer": 1}
german = {name: results[name]["true"] for name in measured.CAPTIONERS}
for method in ("all", "frozen encoder"):
    rows = few_labels.results()
    rows = [row for row in rows if COUNTED.items() <= row.items()]
    true = [row["true"] for row in rows if row["method"] == method]
    german[f"chapter 7: from the captioner, {method}"] = true
for name, true in german.items():
    values = ", ".join(f"{value:4.1f}" for value in true)
    print(f"{name:48} {values} %")

# %% [markdown]
# **On your own pictures.** `python -m mmscratch train --task retrieval` trains two towers on scenes
# or on captioned photographs, and `find` searches folders with them:
#
#     python -m mmscratch train --task retrieval --data scenes --to runs/retrieval
#     python -m mmscratch find "a big red star on the left" PICTURES --run runs/retrieval
#
# It keeps the vectors in an index, so the second search is fast. `--like PICTURE` asks with a
# picture instead of a sentence: the space is the same.
#
# ## What to notice
#
# **Sixty batches are enough to search.** After 8,000 pairs, 66.8 % of the captions find their
# picture among 1,000 at the first place, and after three times as many 95.1 %; guessing would find
# 0.1 %. The CNN could see before, and each pair is compared with 127 others. A captioner learns
# from a caption about one picture; the towers also learn about 127 pictures that it does not
# describe. (All models here have one seed. With two seeds, recall at 1 differed by up to nine
# points, so smaller differences mean nothing.)
#
# **The temperature decides what is learned.** Fixed at 1, recall at 1 is 10.6 %; fixed at 0.01,
# 26.9 %; learned from 0.07, 66.8 %, and it hardly moves: 0.067 at the end. Started at 0.001,
# without the clamp, it stays there, and 0.9 % are found: before anything has been learned, the
# hardest negative is a random one, and at this temperature only that one counts. In the figure, one
# wrong negative makes the loss rise with every further sharpening; with 128 right ones it falls. So
# a model that knows its training pairs by heart drives the temperature down. The clamp is a safety
# belt: on this budget the learned temperature stays far away from it.
#
# **More negatives, or more steps?** With the same number of pairs, a batch of 16 makes eight times
# as many steps as one of 128, and finds 81.9 % instead of 66.8 %. With the same number of steps it
# sees an eighth of the pairs, and finds 9.3 %. Batch size is never compared alone: either the steps
# or the pairs differ, and the learning rate should, too (ours follows a rule of thumb). A step with
# 127 negatives teaches more than one with 15, but early in training not as much as eight of those.
# CLIP, with 400 million pairs, used batches of 32,768.
#
# **The hardest negative alone** finds 0.3 %: it fails for the same reason as the temperature of
# 0.001. The authors of VSE++ trained for many epochs, with features from a CNN that had been
# trained on ImageNet.
#
# **False negatives: how many there are matters.** At random, 0.64 of 128 pairs have one, and
# leaving them out changes nothing (66.8 and 66.7 %). In a batch of 1,024, 38 pairs have one. With
# the five captions of each picture in one batch, every pair has four; and still it makes no
# difference on this budget whether they count (34.0 %) or not (33.1 %). What costs half of the
# recall is something else: such a batch has 26 pictures instead of 128. On photographs nobody
# counts false negatives; "a man in a blue shirt" is true of many.
#
# **A gallery of 64 is not a gallery of 1,000.** The same vectors find 93.8 % among 64 pictures, and
# 66.8 % among 1,000. Of the three models in the figure, the worst falls from 49.0 to 10.6 %. A
# recall without the size of its gallery is not a number. Nor is one that counts a second right
# answer as wrong: 39 times, a caption is true of another test picture as well, and we count any of
# these as right.
#
# **Most of it is not word order.** The bag of words finds 44.0 % of the pictures at the first
# place, and the LSTM 66.8 % with the same pairs. But asked to choose between two sentences with the
# same words, the LSTM is right in 56.6 % of the cases, and after three times as many pairs, when it
# finds 95.1 %, in 60.5 %; a coin would get 50 %. (The bag gives both the same score, which counts
# as wrong.) A high recall does not prove that a model has read the sentence. Winoground (Thrush et
# al. 2022) asks large models such questions about photographs, and they are close to chance.
#
# **Zero-shot: how one asks is part of the model.** "A cat" finds the noun of 38.5 % of the
# pictures, and the mean of eighty whole sentences 45.4 %; chance is 3.1 %. The same eighty
# sentences name 80.9 % if the best one decides: a picture of a big red cat on the left fits one of
# them closely, and their mean only a little. Chapter 2's classifier, with 30,000 labelled pictures,
# names all of them.
#
# **The lowest validation loss is not the best recall.** On Flickr8k it is lowest after two of the
# 15 epochs, and the model of that step finds 10.9 % of the pictures among the first ten; the last
# model finds 17.7 %. The loss also measures how sure the model is, and it becomes too sure. Chance
# is 1.0 %. These pictures have 64 pixels, and the CNN has seen nothing but 6,000 of them; published
# models start from ImageNet.
#
# **The picture tower is a start for a captioner,** though not as good as a captioner. With 200
# German captions, training from random weights makes 1.6 to 2.6 % of the captions true, and from
# the towers' image encoder 2.4 to 5.0 %, or 3.8 to 6.8 % with its CNN frozen. The captioner of
# chapter 7 leads to 7.2 to 9.4 %: it had learned where to look for each word, and vectors of whole
# pictures do not need to know that.
#
# **Two dimensions** show only a shadow of 128: the two directions drawn hold 27 % of the variance.
# What looks close there may be far apart, and the other way round.
#
# ## Your turn
#
# Write these yourself, from their docstrings. `python -m chapters.assignments start 13 --to work`
# creates the stubs, and `check 13 --from work` tests your code, with a hint where something is
# wrong.
#
# 1. `AttentionPooling.forward`: one vector from many. 3 points, 15 minutes.
# 2. `contrastive_loss`: with `_contrastive_losses`; both directions, a clamp, and pairs that do not
#    count. 10 points, 50 minutes.
# 3. `hardest_negative_loss`: with `_hardest_negative_losses`; one negative in each direction. 6
#    points, 30 minutes.
# 4. `sentence_fingerprint`: one number for a sentence, whatever its padding. 4 points, 20 minutes.
# 5. `DualEncoder.embed`: from a tower to a vector of length 1. 3 points, 15 minutes.
# 6. `retrieval_ranks`: ties count against the model. 6 points, 30 minutes.
# 7. `recall_at`: among the first k? 2 points, 10 minutes.
# 8. `median_rank`: and its interval, over pictures. 6 points, 30 minutes.
# 9. `search`: with `_largest`; the k best of a million, a chunk at a time. 10 points, 50 minutes.
# 10. `true_pairs`: which negatives are none? 5 points, 25 minutes.
#
# And three questions without an answer here:
#
# 1. **Where do the two clouds lie?** The mean vector of all pictures and that of all captions are
#    not the same, in CLIP either ("modality gap", Liang et al. 2022). How large is the gap here, and
#    does it depend on the temperature?
# 2. **A third tower.** Spoken captions have a memory, too (chapter 14). With pictures and sentences
#    in one space, what is needed to find a picture by voice: pairs of sound and picture, or of
#    sound and sentence?
# 3. A search engine for a hospital finds the right image at rank 1 in 95 % of the cases. What do you
#    have to know about its gallery before you believe that?

# %%
chapter.finish()

# %% [markdown]
# ## Sources
#
# Hodosh, Young and Hockenmaier 2013, "Framing image description as a ranking task" (recall at k,
# median rank) · Frome et al. 2013, "DeViSE: a deep visual-semantic embedding model" · Kiros,
# Salakhutdinov and Zemel 2014, "Unifying visual-semantic embeddings with multimodal neural language
# models" (the hinge over all negatives) · Faghri, Fleet, Kiros and Fidler 2018, "VSE++: improving
# visual-semantic embeddings with hard negatives" · van den Oord, Li and Vinyals 2018,
# "Representation learning with contrastive predictive coding" (InfoNCE) · Radford et al. 2021,
# "Learning transferable visual models from natural language supervision" (CLIP) · Yang et al. 2016,
# "Hierarchical attention networks for document classification" (attention pooling) · Johnson, Douze
# and Jégou 2017, "Billion-scale similarity search with GPUs" (faiss) · Liang et al. 2022, "Mind the
# gap" · Thrush et al. 2022, "Winoground".
