# %% [markdown]
# # 4 · Transformer decoder
#
# **Adds** multi-head attention, causal mask, key-value cache, the picture as a prefix, and the ViT. **Takes** 3.2 min
# on two cores.
#
# Chapter 3's decoder had to carry the picture in one state, from word to word, and lost most of it. A **Transformer**
# carries nothing. Everything that was read stays where it is, and each word looks back at all of it. So the picture
# can simply stand before the words.

# %%
import time
from math import exp
from statistics import mean

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import nn

from chapters.chapter import Chapter, folder, show
from chapters.drawings import ch04 as drawings
from mmscratch.attention import (
    Memory,
    MultiHeadAttention,
    causal_mask,
    scaled_dot_product_attention,
)
from mmscratch.data.judge import judge_captions
from mmscratch.data.language import caption, captions, named_objects
from mmscratch.data.scenes import SPLITS, Scene
from mmscratch.decoding import greedy_search
from mmscratch.engine.devices import pick_device
from mmscratch.images import normalize
from mmscratch.metrics import bootstrap
from mmscratch.plots import attention_sheet, caption_sheet
from mmscratch.pretraining import (
    LABELS,
    extract_features,
    labelled_scenes,
    predict_logits,
    pretrained_cnn,
    train_captioner,
    train_classifier,
)
from mmscratch.recurrent import LSTMDecoder
from mmscratch.text import BOS, EOS, Vocabulary, detokenize, tokenize
from mmscratch.transformer import TransformerBlock, TransformerDecoder
from mmscratch.vision import ImageEncoder, ResNet, VisionTransformer

torch.manual_seed(0)
chapter = Chapter(4)
GREEN, RED, BLUE = "#1a7f37", "#c62828", "#1f6fb4"


def lines(axis, curves, powers=None, **settings):
    """Draw curves: name -> (x, y, colour).

    `powers` of two, where they are given, are the ticks of the horizontal axis.
    """
    for name, (x, y, colour) in curves.items():
        axis.plot(x, y, "o-" if powers else "-", color=colour, label=name)
    axis.set(**settings)
    axis.grid(alpha=0.3)
    if powers:
        axis.set_xscale("log", base=2)
        axis.set_xticks(powers, powers)


# %% [markdown]
# ## The idea

# %%
images, there = labelled_scenes("validation", chapter.choose(1000, fast=60))
scenes = [Scene(SPLITS["validation"] + i) for i in range(len(images))]
references = [[tokenize(c) for c in captions(scene)] for scene in scenes]
example, N = 46, 16  # a scene with two big things; the places of its picture
words = references[example][1][:5]
[obj] = [obj for obj in scenes[example].objects if obj.noun == words[3]]
figure = drawings.words_look_back(images[example], words, obj)
chapter.draw(figure, "each word looks back at all that stands before it")

# %% [markdown]
# To find its next word, each word asks a question, the **query**. Each place, of the picture or the sentence, holds a
# **key**, which says what is to be found there, and a **value**, which is what one gets. The better the key answers
# the query, the more of the value is taken. So what comes out is a **weighted sum of values**:
#
# $$\text{attention}(Q, K, V) = \text{softmax}\!\left(\frac{Q K^\top}{\sqrt D}\right) V$$
#
# (How thick the blue lines are is made up; what a trained model does comes below.) A word sees what stands before it
# and itself, never what comes after: that it has to guess. `<bos>` begins a sentence.
#
# ## By hand
#
# Five words, and of each a query, a key and a value of four numbers. A trained model computes all three from the
# word's vector, with one matrix each. Here they are chosen so that one can read them. The key says what kind of word
# it is, the query which kinds it asks for: the adjectives and "a" ask for a noun, "star" asks for its adjectives. The
# value says what the word means.


# %%
def attention_by_hand(queries, keys, values, causal):
    """Lists of vectors -> scores, weights and results, word by word."""
    scores, weights, results = [], [], []
    for t, query in enumerate(queries):
        seen = range(t + 1) if causal else range(len(keys))
        products = [sum(q * k for q, k in zip(query, keys[n])) for n in seen]
        scores.append([product / len(query) ** 0.5 for product in products])
        exponentials = [exp(score) for score in scores[t]]
        weights.append([e / sum(exponentials) for e in exponentials])
        result = [0.0] * len(values[0])
        for weight, value in zip(weights[t], values):
            result = [r + weight * v for r, v in zip(result, value)]
        results.append(result)
    return scores, weights, results


sentence = ["a", "big", "red", "star", "above"]
queries = [[0, 0, 3, 0], [0, 0, 3, 0], [0, 2, 3, 0], [1, 4, 0, 0], [0, 0, 4, 2]]
keys = [[2, 0, 0, 0], [0, 2, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 2]]
values = [[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
figure = drawings.attention_tables(sentence, queries, keys, values, attention_by_hand)
chapter.draw(figure, "attention on five words with all its numbers")

# %% [markdown]
# Read the row of "star" in the middle: query · key over √4 gives 4 for "big" and for "red", the softmax makes weights
# of them that sum to 1, and the sum of values says: this star is large and red. Below, each word sees only itself and
# those before it. "a" then has nobody to ask but itself, and "red" finds no noun yet; "star" loses nothing.
#
# ### Patches as words
#
# The vectors of the picture come from chapter 2's CNN here. A **Vision Transformer** (ViT) manages without one. It cuts
# the picture into patches of P × P pixels and reads each patch as a word. A word's vector comes from a table; a patch
# is 3P² numbers already, and one matrix turns them into D. The same matrix for every patch: that is a convolution with
# stride P, whose windows never overlap. Cut, flatten and multiply, or convolve:

# %%
P, D = 8, 64  # pixels along a patch, width of the model
picture = normalize(images[example : example + 1])  # (1, 3, 64, 64)
projection = torch.randn(D, 3, P, P, generator=torch.Generator().manual_seed(0))

patches = picture.unfold(2, P, P).unfold(3, P, P)  # (1, 3, 8, 8, P, P)
patches = patches.permute(0, 2, 3, 1, 4, 5)  # (1, 8, 8, 3, P, P)
patches = patches.flatten(3).flatten(1, 2)  # (1, 64, 3·P·P), row by row
by_hand = patches @ projection.flatten(1).T  # (1, 64, D)

convolved = F.conv2d(picture, projection, stride=P)  # (1, D, 8, 8)
convolved = convolved.flatten(2).transpose(1, 2)  # (1, 64, D)
difference = (by_hand - convolved).abs().max()
assert difference < 1e-3
print(f"{patches.size(1)} words of {patches.size(2)} numbers, made {D} by one matrix")
print(f"largest difference to a convolution with stride {P}: {difference:.0e}")

# %% [markdown]
# ## The piece

# %%
show(scaled_dot_product_attention)

# %%
q, k, v = (torch.tensor(x).float() for x in (queries, keys, values))  # (5, 4)
for causal in (False, True):
    by_hand = torch.tensor(attention_by_hand(queries, keys, values, causal)[2])
    inputs = (q[None], k[None], v[None])  # (1, 5, 4) each
    reference = F.scaled_dot_product_attention(*inputs, is_causal=causal)[0]
    for need_weights in (False, True):
        settings = {"causal": causal, "need_weights": need_weights}
        ours = scaled_dot_product_attention(q, k, v, **settings)
        ours = ours[0] if need_weights else ours
        assert torch.allclose(ours, by_hand, atol=1e-6)
        assert torch.allclose(ours, reference, atol=1e-6)
print("by hand, ours and torch's kernel agree to 1e-6")

# %% [markdown]
# ### Why divide by √D
#
# A score is a sum of D products. If queries and keys are random with variance 1, so is each product, and the sum has
# variance D: with more numbers the scores grow, although nothing is known better. A softmax of large scores puts all
# on one place, and then it hardly changes when the scores change, so no **gradient** comes back to queries and keys.
# Measured on 16 random places, 500 times:

# %%
widths, measured = (4, 16, 64, 256, 1024), {}
for width in widths:
    q, k = torch.randn(500, 1, width), torch.randn(500, 16, width)
    for root in (True, False):
        scores = q @ k.transpose(1, 2) / (width**0.5 if root else 1)  # (500, 1, 16)
        scores.requires_grad_()
        weights = scores.softmax(-1)
        loss = (weights * torch.randn(500, 1, 16)).sum()
        (gradient,) = torch.autograd.grad(loss, scores)
        values = (scores.std(), weights.amax(-1).mean(), gradient.norm(dim=-1).median())
        measured[width, root] = [value.item() for value in values]
figure = Figure(figsize=(8, 2.6), dpi=100, layout="constrained")
names = (
    "scores: standard deviation",
    "weights: the largest of 16",
    "scores: norm of the gradient",
)
for i, (axis, name) in enumerate(zip(figure.subplots(1, 3), names)):
    curves = {
        root: [measured[width, root][i] for width in widths] for root in (True, False)
    }
    curves = {
        "divided by √D": (widths, curves[True], GREEN),
        "not divided": (widths, curves[False], RED),
    }
    lines(axis, curves, widths, xlabel="width D", yscale="linear" if i == 1 else "log")
    axis.set_title(name, fontsize=10)
figure.axes[0].legend(fontsize=8)
figure.axes[1].set_ylim(0, 1)
chapter.draw(figure, "what the root of the width is for")
for root in (True, False):
    gradients = ", ".join(f"{measured[width, root][2]:.0e}" for width in widths)
    name = "divided by √D" if root else "not divided"
    print(f"gradient by width, {name}: {gradients}")

# %% [markdown]
# With the root all three stay where they are, whatever the width. Without it, at width 256, nine tenths of the weight
# lie on one place, and the gradient is a hundredth of what it could be.
#
# ### Who may look where: the mask
#
# In training the whole sentence is read at once. The **causal mask** keeps each word from looking at those after it,
# so each predicts its next word as if the rest were not there yet. The same function serves when only the last words
# are asked, over a longer past. With a picture before the words, its places see one another, and no words.

# %%
show(causal_mask)


# %%
def prefix_mask(N, T):
    """(N + T, N + T): N places, then T words.

    The places see one another, the words see the places and earlier words.
    """
    mask = causal_mask(N + T, N + T)
    mask[:N, :N] = True
    return mask


masks = {f"causal_mask({T}, 8)": causal_mask(T, 8) for T in (8, 3, 1)}
masks["4 places, then 5 words"] = prefix_mask(4, 5)
figure = drawings.who_may_look(masks)
chapter.draw(figure, "causal masks and the mask of a prefix")

# %% [markdown]
# ### Heads
#
# One softmax makes one choice. A word may want two things at once, say its noun and its place. So the D numbers are
# split among H **heads**, each with its own queries, keys and values of D/H numbers. One more matrix mixes what the
# heads found.

# %%
show(MultiHeadAttention.forward)
show(MultiHeadAttention.attend)

# %%
ours = MultiHeadAttention(12, 3)
reference = nn.MultiheadAttention(12, 3, batch_first=True)
reference.load_state_dict(ours.state_dict())  # the same names, so the weights fit
x = torch.randn(2, 7, 12)  # (B, T, D)
with torch.no_grad():
    joint = F.linear(x, ours.in_proj_weight, ours.in_proj_bias)  # (B, T, 3 D)
    query, key, value = joint.chunk(3, dim=-1)  # each (B, T, D)
    heads = []
    for h in range(3):
        part = slice(4 * h, 4 * h + 4)
        inputs = (query[..., part], key[..., part], value[..., part])
        heads.append(scaled_dot_product_attention(*inputs, causal=True))
    by_hand = ours.out_proj(torch.cat(heads, dim=-1))  # (B, T, D)
    hidden = ~causal_mask(7, 7)  # torch's masks say what is hidden
    theirs, _ = reference(x, x, x, attn_mask=hidden)
    assert torch.allclose(ours(x, causal=True), by_hand, atol=1e-6)
    assert torch.allclose(ours(x, causal=True), theirs, atol=1e-6)
print("head by head, ours and torch.nn.MultiheadAttention agree to 1e-6")

# %% [markdown]
# ### Positions
#
# A sum does not know in which order its terms came. Below, the last of seven words looks at the six before it, first in
# their order, then in the reverse order. So each word gets a learned vector for **where** it stands, added to its own.

# %%
positions = torch.randn(7, 12)
reverse = [5, 4, 3, 2, 1, 0, 6]
with torch.no_grad():
    for name, added in (("without", torch.zeros(7, 12)), ("with", positions)):
        before = ours(x + added, causal=True)[:, -1]  # (B, D)
        after = ours(x[:, reverse] + added, causal=True)[:, -1]  # (B, D)
        change = (after - before).abs().max()
        print(f"{name:7} positions, the words before it reversed:", end=" ")
        print(f"the last word's result changes by {change:.0e}")

# %% [markdown]
# ### The block
#
# Attention moves things between places. Then a small network works on each place by itself. Both **add** to what is
# there (the residuals of chapter 2), and each reads it through a **layer norm**, which brings the numbers of a place to
# mean 0 and variance 1. Norm first, then attention ("pre-norm"): the sum itself is never normalised, and gradients come
# through it unchanged.

# %%
show(TransformerBlock.forward)

# %% [markdown]
# ### The decoder and its cache
#
# The keys and values of a place never change, since it sees nothing that comes later. So they are kept, in the
# **key-value cache**, and each new word computes only its own. `start` fills it with the picture, `step` adds a word,
# and in training `_advance` takes all words at once.

# %%
show(TransformerDecoder.start)
show(TransformerDecoder._advance)

# %% [markdown]
# Without a cache, all of it is one sequence, places and words, under the mask drawn above. Both must give the same:


# %%
def in_one_piece(decoder, tokens, memory, mask):
    """Places and words in one sequence -> logits (B, T, V), and all attention weights.

    The weights are (B, layers, H, N + T, N + T).
    """
    x = torch.cat([memory.tokens, decoder.embedding(tokens)], dim=1)  # (B, N + T, D)
    weights = []
    for block in decoder.blocks:
        x, _, looked = block(x, mask, need_weights=True)
        weights.append(looked)
    x = decoder.norm(x[:, memory.tokens.size(1) :])  # (B, T, D)
    return F.linear(x, decoder.embedding.words.weight), torch.stack(weights, dim=1)


fresh = TransformerDecoder(50, 24, num_heads=3, num_layers=2, fusion="prefix").eval()
tokens = torch.randint(50, (2, 7))
memory = Memory(torch.randn(2, 5, 24), torch.ones(2, 5, dtype=torch.bool))
with torch.no_grad():
    state, stepped = fresh.start(memory), []
    for token in tokens.T:
        logits, state = fresh.step(token, state)
        stepped.append(logits)
    whole = fresh(tokens, memory)  # (B, T, V)
    assert torch.allclose(torch.stack(stepped, dim=1), whole, atol=1e-5)
    in_one, _ = in_one_piece(fresh, tokens, memory, prefix_mask(5, 7))
    assert torch.allclose(in_one, whole, atol=1e-5)
print("step by step, all words at once, places and words in one piece: equal to 1e-5")

# %% [markdown]
# ### The Vision Transformer
#
# One more vector goes in front of the patches: the **class token**. It is learned, the same for every picture, and
# collects what the classifier needs: after the last block, the classifier reads this position alone. Each position has
# a learned vector, as in a sentence. The rest is the block from above, without a mask: patches see one another.

# %%
show(VisionTransformer)

# %% [markdown]
# A ViT does not know that a picture has rows and columns: to it, a patch is no closer to the patch below than to one in
# the far corner. Shuffle the patches, and their position vectors in the same way: the sum over all patches is the same.
# A CNN is built on neighbourhoods, so for a CNN that is another picture.


# %%
def shuffle_patches(images, order):
    """The pictures (B, 3, S, S), with their patches laid out in another order."""
    patches = F.unfold(images, P, stride=P)  # (B, 3·P·P, N)
    return F.fold(patches[:, :, order], images.shape[2:], P, stride=P)


order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
vit_sizes = {"image_size": 64, "patch_size": P, "num_layers": 2, "num_heads": 4}
vit_sizes |= {"hidden_dim": D, "mlp_dim": 2 * D}
vit = VisionTransformer(**vit_sizes, num_classes=None).eval()
resnet = ResNet((1, 1, 1), num_classes=None, width=16).eval()
with torch.no_grad():
    shuffled = shuffle_patches(picture, order)
    of_resnet = resnet(shuffled) - resnet(picture)  # (1, 64)
    before = vit(picture)  # (1, D)
    vit.positions[:, 1:] = vit.positions[:, 1:][:, order]
    of_vit = vit(shuffled) - before  # (1, D)
of_resnet = of_resnet.abs().max() / resnet(picture).std()
of_vit = of_vit.abs().max() / before.std()
assert of_vit < 1e-3
print("how much the output changes, in its standard deviations:")
print(f"ViT, patches and positions shuffled: {of_vit:.0e}")
print(f"ResNet, patches shuffled: {of_resnet:.1f}")

# %% [markdown]
# ## Train it
#
# The data are those of chapter 3: the same frozen CNN, the same 20,000 scenes, the same captions in the same number of
# steps. But the 16 vectors of its grid are not averaged to one. They are the **prefix**: 16 places before the first
# word. All words of a sentence are trained at once, each with the true words before it, as in chapter 3.

# %%
device = pick_device()
path = folder(2, chapter.fast) / "cnn.pt"
cnn = pretrained_cnn(path, chapter.choose(30_000, fast=640))
count = chapter.choose(20_000, fast=320)
sentences = []
for scene in map(Scene, range(count)):
    sentences.append([tokenize(caption(scene, which)) for which in range(5)])
vocabulary = Vocabulary.build(sentence for five in sentences for sentence in five)
targets = []
for five in sentences:
    targets.append([torch.tensor([*vocabulary.encode(s), EOS]) for s in five])
print(f"{count:,} scenes with five captions each; {len(vocabulary)} words")
train_images, train_there = labelled_scenes("train", count)
train_grids = extract_features(cnn, train_images)  # (N, 128, 4, 4)
test_grids = extract_features(cnn, images)


# %%
class OnePlace(ImageEncoder):
    """A control: a prefix of one place, the average of the 16, as in chapter 3."""

    def encode_features(self, grid):
        memory = super().encode_features(grid)
        return Memory(memory.mean().unsqueeze(1), memory.mask[:, :1])  # (B, 1, D)


class NoMask(TransformerDecoder):
    """Another control: each word sees those after it. `step` is as before."""

    def forward(self, tokens, memory):
        return in_one_piece(self, tokens, memory, None)[0]  # (B, T, V)


models = {}  # by name: encoder, decoder, losses
full = chapter.choose(3, fast=1)
for name, Encoder, Decoder, epochs, shown in (
    ("16 places", ImageEncoder, TransformerDecoder, full, count),
    ("one place, the average", OnePlace, TransformerDecoder, full, count),
    ("16 places, no causal mask", ImageEncoder, NoMask, 1, count // 2),
):
    torch.manual_seed(0)
    encoder = Encoder(cnn, embed_dim=128, image_size=64).to(device)
    decoder = Decoder(len(vocabulary), 128, 4, num_layers=2, fusion="prefix").to(device)
    losses = train_captioner(
        decoder, encoder, train_grids[:shown], targets[:shown], epochs
    )
    models[name] = (encoder.eval(), decoder.eval(), losses)
    print(f"{name:26} loss of the last 50 steps {mean(losses[-50:]):.3f}")
encoder, decoder, _ = models["16 places"]
lstm = LSTMDecoder(len(vocabulary), embed_dim=256, hidden_size=256, fusion="prefix")
for name, model in (("the decoder", decoder), ("chapter 3's", lstm)):
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"parameters of {name}: {size:,}")

# %% [markdown]
# **A ViT and a ResNet.** Could the ViT replace the CNN? Both learn what is in a picture, with chapter 2's
# `train_classifier`: the same pictures (those of the 20,000 that show a single noun), in the same order, equally often. The
# ResNet is that of chapter 2 with half its width, so that both have about as many parameters.

# %%
single = train_there[:, :32].sum(1) == 1  # the first 32 labels are nouns
torch.manual_seed(0)
networks = {
    "ResNet": ResNet((1, 1, 1), num_classes=len(LABELS), width=16),
    "ViT": VisionTransformer(**vit_sizes, num_classes=len(LABELS)),
}
epochs = chapter.choose(4, fast=1)
for name, network in networks.items():
    start = time.perf_counter()
    losses = train_classifier(
        network, train_images[single], train_there[single], epochs
    )
    seconds = time.perf_counter() - start
    parameters = sum(parameter.numel() for parameter in network.parameters())
    print(f"{name:6} {parameters:,} parameters, {len(losses)} steps, {seconds:.0f} s")
    print(f"       loss of the last 50 steps {mean(losses[-50:]):.3f}")

# %% [markdown]
# ## Look

# %%
figure = Figure(figsize=(6, 3), dpi=100, layout="constrained")
every, curves = chapter.choose(10, fast=1), {}
for (name, (_, _, losses)), colour in zip(models.items(), (GREEN, BLUE, RED)):
    means = [mean(losses[i : i + every]) for i in range(0, len(losses), every)]
    curves[name] = (range(0, len(losses), every), means, colour)
settings = {"xlabel": "step", "ylabel": "loss a word (nats)", "ylim": (0, 2.5)}
lines(figure.subplots(), curves, **settings)
figure.axes[0].legend()
chapter.draw(figure, "learning with sixteen places one place and no mask")


# %%
@torch.no_grad()
def describe(encoder, decoder, grids):
    """A caption, as tokens, for each picture whose grid was kept."""
    texts = []
    for some in grids.split(200):  # (200, 128, 4, 4)
        hypotheses = greedy_search(
            decoder, encoder.encode_features(some), max_length=30
        )
        texts += [vocabulary.decode(hypothesis.tokens) for hypothesis in hypotheses]
    return texts


written = describe(encoder, decoder, test_grids)
sheet = caption_sheet(list(images[:8]), written[:8], references[:8])
chapter.draw(sheet, "captions with the picture as a prefix")

# %% [markdown]
# Green is a reference, word for word; red is not, and below it stands the nearest reference.
#
# **The heads.** The decoder reads a caption that it wrote. Each panel is a head; each row is a word that is read → the
# word that is written next; the row's colours say where it looks: left of the red line at the 16 places of the picture,
# right of it at the words.

# %%
text = [BOS, *vocabulary.encode(written[example])]
tokens, T = torch.tensor([text], device=device), len(text)  # (1, T)
memory, mask = (
    encoder.encode_features(test_grids[example : example + 1]),
    prefix_mask(N, T),
)
with torch.no_grad():
    _, weights = in_one_piece(decoder, tokens, memory, mask.to(device))
    _, to_places = decoder(tokens, memory, need_weights=True)  # (1, layers, H, T, N)
assert torch.allclose(weights[..., N:, :N], to_places, atol=1e-5)
weights = weights[0, :, :, N:].cpu()  # (layers, H, T, N + T)
labels = ["<bos>", *written[example]]
pairs = [" → ".join(pair) for pair in zip(labels, [*labels[1:], "<eos>"])]
figure = Figure(figsize=(9, 9.5), dpi=100, layout="constrained")
axes = figure.subplots(4, 2, sharex=True, sharey=True).T  # (layers, H)
for (layer, head), axis in np.ndenumerate(axes):
    axis.imshow(weights[layer, head], cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.axvline(N - 0.5, color=RED, linewidth=1)
    axis.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=10)
    axis.set_xticks(range(N + T), [*range(1, N + 1), *labels], fontsize=8, rotation=90)
    axis.set_yticks(range(T), pairs, fontsize=8)
chapter.draw(figure, "where each head looks")

# %% [markdown]
# Look at layer 1. The rows that end in "snowman" and "cat": heads 1, 2 and 4 look at the picture, at 13 and 14 (the
# lower left) for the snowman, at 3, 4, 7 and 8 (the upper right) for the cat. Head 3 does something else: when it is
# the second thing's turn, it looks at the first one's size for the size, at its colour for the colour, at its noun for
# the noun. Whoever knows what was said can say the other. In layer 2, in the rows "`<bos>` → a" and "snowman → left",
# each head rests mostly on one position with nothing on it: the first on `<bos>`, the others on the places 16, 1 and 5,
# which are empty. A softmax must sum to 1, even where there is nothing to find. Layer 1 as pictures, for colours and
# nouns, a row a head:

# %%
named = named_objects(written[example], scenes[example])
naming = [t for t, _ in named] or [0]  # colours and nouns
maps = weights[0, :, naming, :N].unflatten(-1, (4, 4))  # (H, words, 4, 4)
shown = [written[example][t] for t in naming]
H = len(maps)
pictures, captions_shown = [images[example]] * H, [shown] * H
sheet = attention_sheet(pictures, captions_shown, list(maps), columns=len(naming) + 1)
chapter.draw(sheet, "where the heads of the first layer look in the picture")

# %% [markdown]
# **Learned positions.** How alike are the vectors of two positions (the cosine of the angle between them)? They begin
# as random numbers, about 0.

# %%
figure = Figure(figsize=(7.5, 3.4), dpi=100, layout="constrained")
tables = {
    "positions of the words": decoder.embedding.positions.weight[:20],
    "places of the picture": encoder.position,
}
for axis, (name, vectors) in zip(figure.subplots(1, 2), tables.items()):
    unit = F.normalize(vectors.detach().cpu(), dim=-1)
    image = axis.imshow(unit @ unit.T, cmap="RdBu_r", vmin=-0.5, vmax=0.5)
    axis.set_title(name, fontsize=10)
    axis.set_xticks(range(0, len(unit), 4), range(1, len(unit) + 1, 4))
    axis.set_yticks(range(0, len(unit), 4), range(1, len(unit) + 1, 4))
figure.colorbar(image, ax=figure.axes, shrink=0.8, label="cosine", extend="max")
chapter.draw(figure, "how alike the learned positions are")

# %% [markdown]
# Neighbours have become alike. In the picture 5, 6, 9 and 10 (on the left) are alike, and 11, 12, 15 and 16 (the lower
# right), and the two groups are opposites. Nobody told the model that the 16 places are a square.
#
# **What has the ViT learned about the plane?** For each of its 64 positions, a small map: how alike its vector is to those
# of all 64.

# %%
unit = F.normalize(networks["ViT"].positions[0, 1:].detach().cpu(), dim=-1)  # (64, D)
cosines = (unit @ unit.T).view(8, 8, 8, 8)  # of row, column with row, column
figure = Figure(figsize=(5, 4), dpi=100, layout="constrained")
axis = figure.subplots()
maps = F.pad(cosines, (0, 1, 0, 1), value=torch.nan)  # (8, 8, 9, 9), a margin each
maps = maps.permute(0, 2, 1, 3).reshape(72, 72)
image = axis.imshow(maps, cmap="RdBu_r", vmin=-1, vmax=1)
axis.set_axis_off()
figure.colorbar(image, ax=axis, shrink=0.8, label="cosine")
chapter.draw(figure, "how alike the positions of patches are")
rows, columns = torch.arange(64) // 8, torch.arange(64) % 8
steps = (rows[:, None] - rows).abs() + (columns[:, None] - columns).abs()  # (64, 64)
for least, most in ((1, 1), (2, 3), (4, 6), (7, 14)):
    near = (steps >= least) & (steps <= most)
    alike = cosines.view(64, 64)[near].mean()
    print(f"{least:2} to {most:2} steps apart: mean cosine {alike:.2f}")

# %% [markdown]
# Nothing to see: neighbours (a mean cosine of -0.01) are no more alike than positions far apart (0.05). In a ViT that
# was trained for long, each map has its peak around its own position, and its row and column show (Dosovitskiy et al.,
# figure 7). Ours has not found out which patches are neighbours. What did it learn, then? See below.
#
# **The cache, measured.** Eight texts side by side, of up to 128 words: once with `step`, once by reading all of it
# again for each word. Of three times the best counts, since a machine has other things to do.

# %%
lengths = chapter.choose((8, 16, 32, 64, 128), fast=(4, 8))
long = TransformerDecoder(len(vocabulary), 128, 4, 2, max_length=128, fusion="prefix")
long.to(device).eval()
memory = encoder.encode_features(test_grids[:8])


@torch.no_grad()
def words_a_second(length, cached):
    """How fast eight texts of so many words are written."""
    start = time.perf_counter()
    tokens = torch.full((8, 1), BOS, device=device)  # (B, 1)
    state = long.start(memory)
    for _ in range(length):
        if cached:
            logits, state = long.step(tokens[:, -1], state)  # (B, V)
        else:
            logits = long(tokens, memory)[:, -1]
        tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], dim=1)
    tokens.tolist()  # waits for a GPU to be done
    return 8 * length / (time.perf_counter() - start)


speeds = {True: [], False: []}
for cached in speeds:
    for n in lengths:
        speeds[cached].append(max(words_a_second(n, cached) for _ in range(3)))
figure = Figure(figsize=(6, 3), dpi=100, layout="constrained")
curves = {
    "with the cache": (lengths, speeds[True], GREEN),
    "without": (lengths, speeds[False], RED),
}
labels = {"xlabel": "words in a text", "ylabel": "words a second"}
lines(figure.subplots(), curves, lengths, **labels, ylim=(0, None))
figure.axes[0].legend()
chapter.draw(figure, "words a second with and without the cache")
for length, fast, slow in zip(lengths, speeds[True], speeds[False]):
    print(f"{length:4} words: {fast:6,.0f} a second with the cache,", end=" ")
    print(f"{slow:6,.0f} without, ratio {fast / slow:.1f}")

# %% [markdown]
# ## What to notice

# %%
results = {}
for name, (*model, _) in models.items():
    texts = describe(*model, test_grids)
    results[name] = judge_captions(texts, scenes)
    print(f"{name}: {detokenize(texts[example])}")
texts = describe(encoder, decoder, test_grids.roll(1, 0))
results["another picture"] = judge_captions(texts, scenes)
words = decoder.embedding.positions.weight
for name, vectors in (("places", encoder.position), ("order", words)):
    kept = vectors.data.clone()
    mixed = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    vectors.data[:N] = kept[mixed]
    texts = describe(encoder, decoder, test_grids)
    results[f"{name} mixed up"] = judge_captions(texts, scenes)
    vectors.data = kept
print(f"\n{'% true of pictures with':27}", end=" ")
print("one thing    two  three    all   commonest faults")
for name, (fractions, faults) in results.items():
    numbers = [
        f"{fraction:{width}.1f}" for fraction, width in zip(fractions, (10, 7, 7, 7))
    ]
    commonest = [f"{fault} {n}" for fault, n in faults.most_common(3)]
    print(f"{name:27}{''.join(numbers)}   {', '.join(commonest)}")


# %%
def right(network, images, labels, part):
    """For each picture with one noun: is the largest logit of `part` right?"""
    alone = labels[:, :32].sum(1) == 1
    best = predict_logits(network, images[alone])[:, part].argmax(1, keepdim=True)
    return labels[alone][:, part].gather(1, best)[:, 0].float().numpy()


seen = (train_images[single][:1000], train_there[single][:1000])  # in training
print(f"{'the largest logit is right, %':31}{'noun':>20}{'colour':>20}   (95 %)")
for name, network in networks.items():
    for kind, data in (("new pictures", (images, there)), ("those it knows", seen)):
        cells = []
        for part in (slice(0, 32), slice(32, 40)):
            answers = 100 * right(network, *data, part)
            low, high = bootstrap(answers)
            cells.append(f"{answers.mean():.1f} ({low:.1f} to {high:.1f})")
        print(f"{name + ', ' + kind:31}" + "".join(f"{cell:>20}" for cell in cells))

# %% [markdown]
# **A place for each place.** With the data and steps of chapter 3 and half of its parameters (420,000 against 819,000),
# 64.0 % of the captions are true instead of 33.6 %. Is that the Transformer, or the 16 places? The control knows: the
# same decoder with the average as its only place ends at 39.0 %. So most of it is that nothing was averaged. An average
# holds a cat and a snowman, something red and something yellow, but not what belongs to what: "a big yellow cat is left
# of a big red snowman". With 16 places, one thing is right nearly always; three are still hard (25 %), and the
# commonest fault is still the place.
#
# **The smallest loss is the worst model.** Without the causal mask the loss falls to 0.009 in half an epoch: the answer
# stands in the next place, and the model copies it. When it has to write, nothing stands there yet. So of the
# snowman and the cat it writes "cat", and no caption is true. A loss that is too good is a leak until you know better.
#
# **It is the picture that speaks**: with another picture's prefix no caption is true. And **positions matter**. Mix up
# the vectors of the 16 places, and what the things are stays (the noun is wrong in 88 captions instead of 82), but not
# where they are (577 instead of 258). Mix up those of the first 16 words, and 734 captions are no sentences any more.
#
# **The ViT sees colours, and no shapes yet.** Same pictures, same steps, as many parameters: the ResNet names the noun
# of a new picture in about 86 % of the cases, the ViT in about 12 % (guessing: 3 %). But the ViT finds the colour in
# 99 %, the ResNet in 87 %. A colour shows in a single patch. A noun is a shape across several patches, at any place: a
# filter that has learned a corner at one place knows it everywhere, while a ViT must learn from examples how the
# patches of each pair of positions go together. It has not: near positions are no more alike than distant ones.
# Nor is it short of pictures: of those that it was trained on, it knows the noun in about 12 %. It has seen too little
# training. On photographs the gap closes with far more data: pre-trained on ImageNet's 1.3 million, large ViTs fell
# behind ResNets; with 300 million they overtook them (Dosovitskiy et al., section 4.3). That is why the captions above
# read a CNN's grid. One seed, and the learning rate of chapter 2's CNN: this says who learns sooner, not who ends
# higher.
#
# **The cache** makes a text of 8 words almost three times as fast, one of 128 words about five times: with it, each
# word costs about the same; without it, ever more. How many words a second depends on the machine and its other guests.
#
# One seed, one CNN, and 1,000 pictures that the model had never seen.
#
# ## Your turn
#
# Write these anew, from their docstrings. `python -m chapters.assignments start 4 --to work` lays the stubs out, and
# `check 4 --from work` says what is right, and gives a hint where something is not.
#
# 1. `causal_mask`: one line; mind T < N. 2 points, 10 minutes.
# 2. `scaled_dot_product_attention`: and a query that may look at nothing? 10 points, 60 minutes.
# 3. `MultiHeadAttention.project`: and its kin; which axis becomes the heads? 6 points, 30 minutes.
# 4. `MultiHeadAttention.forward`: with `attend`; the way back from the heads, and who may see whom. 9 points, 45 minutes.
# 5. `Embedding.forward`: what tells two equal words apart? 2 points, 10 minutes.
# 6. `TransformerBlock.forward`: pre-norm, post-norm, and with a past. Cross-attention can wait. 14 points, 75 minutes.
# 7. `TransformerEncoder.forward`: a sentence may not change with its neighbours. 5 points, 25 minutes.
# 8. `TransformerDecoder.step`: stepping must give what the full forward gives. 16 points, 90 minutes.
# 9. `TransformerDecoder.reorder`: who takes over whose words in a beam search? 8 points, 40 minutes.
# 10. `VisionTransformer._encode`: with `features`; patches, class token, positions. 6 points, 30 minutes.
#
# And three questions without an answer here:
#
# 1. Which heads can be set to 0 and nobody notices?
# 2. Does the decoder still know the order of its words if it is trained without positions, from the causal mask alone?
# 3. With which number of places does the prefix cost more than the words, and what would you do then?

# %%
chapter.finish()

# %% [markdown]
# ## Sources
#
# Bahdanau, Cho and Bengio 2015, "Neural machine translation by jointly learning to align and translate" (attention) ·
# Vaswani et al. 2017, "Attention is all you need" (√D in section 3.2.1, heads in 3.2.2) · Radford et al. 2019,
# "Language models are unsupervised multitask learners" (GPT-2: a decoder alone, norms first) · Ba, Kiros and Hinton
# 2016, "Layer normalization" · Xiong et al. 2020, "On layer normalization in the Transformer architecture" (pre-norm)
# · Hendrycks and Gimpel 2016, "Gaussian error linear units" · Mokady, Hertz and Bermano 2021, "ClipCap" (the picture
# as a prefix) · Haviv et al. 2022, "Transformer language models without positional encodings still learn positional
# information" · Pope et al. 2023, "Efficiently scaling Transformer inference" (the key-value cache) · Dosovitskiy et
# al. 2020, "An image is worth 16×16 words" (the ViT; sections 4.3 and 4.5: how much data it needs, what its positions
# learn).
