# %% [markdown]
# # 4 · Transformer decoder
#
# **Adds** multi-head attention, causal mask, key-value cache, the picture as a prefix, and the ViT. **Takes** 2.0 min
# on two cores.
#
# Chapter 3's decoder had to carry the picture in one state, from word to word, and lost most of it.
# A **Transformer** carries nothing. Everything it has read stays where it is, and each word looks
# back at all of it. So the picture can simply be put in front of the words.

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
from chapters.preparation import describe, held_out_scenes, training_captions

# %%
from mmscratch.attention import (
    Memory,
    MultiHeadAttention,
    causal_mask,
    scaled_dot_product_attention,
)
from mmscratch.data.judge import judge_captions
from mmscratch.data.language import named_objects
from mmscratch.engine.devices import pick_device
from mmscratch.images import normalize
from mmscratch.metrics import bootstrap
from mmscratch.plots import GREEN, RED, attention_sheet, caption_sheet
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
from mmscratch.text import BOS, detokenize
from mmscratch.transformer import TransformerBlock, TransformerDecoder
from mmscratch.vision import ImageEncoder, ResNet, VisionTransformer

# %% [markdown]
# ## The idea

# %%
torch.manual_seed(0)
chapter = Chapter(4)
BLUE = "#1f6fb4"
count = chapter.choose(1000, fast=60)
images, labels, scenes, references = held_out_scenes("validation", count)
example = 46  # a scene with two big objects
words = references[example][1][:5]
[obj] = [obj for obj in scenes[example].objects if obj.noun == words[3]]
figure = drawings.words_look_back(images[example], words, obj)
chapter.draw(figure, "each word looks back at everything before it")

# %% [markdown]
# To predict the word that follows it, each word asks a question, the **query**. Each position, in
# the picture or in the sentence, has a **key**, which says what can be found there, and a
# **value**, which is what the word receives. The better the key answers the query, the more of the
# value is taken. So the output is a **weighted sum of values**:
#
# $$\text{attention}(Q, K, V) = \text{softmax}\!\left(\frac{Q K^\top}{\sqrt D}\right) V$$
#
# (The widths of the blue lines are made up; those of a trained model come below.) A word sees
# itself and everything before it, but nothing after it: that is what it has to guess. `<bos>`
# begins a sentence.
#
# ## By hand
#
# Five words, each with a query, a key and a value of four numbers. A trained model computes all
# three from the word's vector, with one matrix each. Here they are chosen so that you can read
# them. The key says what kind of word this is, the query which kinds it asks for: the adjectives
# and "a" ask for a noun, and "star" asks for its adjectives. The value says what the word means.


# %%
def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def attend_by_hand(query, keys, values):
    """One query -> its scores and weights, one per key, and the weighted sum."""
    scores = [dot(query, key) / len(query) ** 0.5 for key in keys]
    exponentials = [exp(score) for score in scores]
    weights = [e / sum(exponentials) for e in exponentials]
    output = [0.0] * len(values[0])
    for weight, value in zip(weights, values):
        output = [o + weight * v for o, v in zip(output, value)]
    return scores, weights, output


# %% [markdown]
# In a whole sentence, every word asks. With `causal`, it sees only itself and the words before it.


# %%
def attention_by_hand(queries, keys, values, causal):
    """Lists of vectors -> scores, weights and outputs, word by word."""
    scores = []
    weights = []
    outputs = []
    for t, query in enumerate(queries):
        end = t + 1 if causal else len(keys)
        answer = attend_by_hand(query, keys[:end], values[:end])
        scores.append(answer[0])
        weights.append(answer[1])
        outputs.append(answer[2])
    return scores, weights, outputs


sentence = ["a", "big", "red", "star", "above"]
queries = [[0, 0, 3, 0], [0, 0, 3, 0], [0, 2, 3, 0], [1, 4, 0, 0], [0, 0, 4, 2]]
keys = [[2, 0, 0, 0], [0, 2, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 2]]
values = [[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
figure = drawings.attention_tables(sentence, queries, keys, values, attention_by_hand)
chapter.draw(figure, "attention on five words with all its numbers")

# %% [markdown]
# Read the row of "star" in the middle tables: query · key over √4 gives 4 for "big" and for "red",
# the softmax turns the scores into weights that sum to 1, and the weighted sum of the values says:
# this star is large and red. In the bottom tables, each word sees only itself and those before it.
# Now "a" can look only at itself, and "red" finds no noun yet; "star" loses almost nothing.
#
# ### Patches as words
#
# In most of this chapter, the vectors of the picture come from chapter 2's CNN. A **Vision
# Transformer** (ViT) manages without one. It cuts the picture into patches of P × P pixels and
# reads each patch as a word. A word's vector comes from a table; a patch is 3P² numbers already,
# and a matrix turns them into D numbers. It is the same matrix for every patch, so this is a
# convolution with stride P, whose windows never overlap. We cut, flatten and multiply, then
# convolve, and compare:

# %%
P = 8  # pixels along a side of a patch
D = 64  # width of the model
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
print(f"{patches.size(1)} patches of {patches.size(2)} numbers, each projected to {D}")
print(f"largest difference from a convolution with stride {P}: {difference:.0e}")

# %% [markdown]
# ## The piece

# %%
show(scaled_dot_product_attention)

# %%
q = torch.tensor(queries).float()  # (5, 4)
k = torch.tensor(keys).float()  # (5, 4)
v = torch.tensor(values).float()  # (5, 4)
for causal in (False, True):
    _, _, outputs = attention_by_hand(queries, keys, values, causal)
    by_hand = torch.tensor(outputs)
    inputs = (q[None], k[None], v[None])  # (1, 5, 4) each
    kernel = F.scaled_dot_product_attention(*inputs, is_causal=causal)[0]
    ours = scaled_dot_product_attention(q, k, v, causal=causal)
    with_weights, _ = scaled_dot_product_attention(
        q, k, v, causal=causal, need_weights=True
    )
    for result in (kernel, ours, with_weights):
        assert torch.allclose(result, by_hand, atol=1e-6)
print("by hand, ours and torch's kernel agree to 1e-6")

# %% [markdown]
# ### Why divide by √D
#
# A score is a sum of D products. If queries and keys are random, with mean 0 and variance 1, each
# product has variance 1 too, and the sum has variance D: the scores grow with the width, although
# no query is any surer of its answer. A softmax of large scores puts nearly all weight on one
# position. It then hardly changes when the scores change, so hardly any **gradient** comes back to
# queries and keys. Measured on 16 random positions, 500 times:

# %%
widths = (4, 16, 64, 256, 1024)
measured = {"divided by √D": [], "not divided": []}  # three numbers per width
for width in widths:
    q = torch.randn(500, 1, width)
    k = torch.randn(500, 16, width)
    for name in measured:
        scores = q @ k.transpose(1, 2)  # (500, 1, 16)
        if name == "divided by √D":
            scores = scores / width**0.5
        scores.requires_grad_()
        weights = scores.softmax(-1)  # (500, 1, 16)
        loss = (weights * torch.randn(500, 1, 16)).sum()
        (gradient,) = torch.autograd.grad(loss, scores)  # (500, 1, 16)
        deviation = scores.std().item()
        largest = weights.amax(-1).mean().item()
        norm = gradient.norm(dim=-1).median().item()
        measured[name].append((deviation, largest, norm))

# %%
titles = (
    "scores: standard deviation",
    "weights: the largest of 16",
    "scores: norm of the gradient",
)
figure = Figure(figsize=(8, 2.6), dpi=100, layout="constrained")
axes = figure.subplots(1, 3)
for name, colour in (("divided by √D", GREEN), ("not divided", RED)):
    for i, axis in enumerate(axes):
        numbers = [row[i] for row in measured[name]]
        axis.plot(widths, numbers, "o-", color=colour, label=name)
    gradients = ", ".join(f"{norm:.0e}" for _, _, norm in measured[name])
    print(f"gradient by width, {name}: {gradients}")
for axis, title, yscale in zip(axes, titles, ("log", "linear", "log")):
    axis.set_title(title, fontsize=10)
    axis.set(xlabel="width D", yscale=yscale)
    axis.set_xscale("log", base=2)
    axis.set_xticks(widths, widths)
    axis.grid(alpha=0.3)
axes[0].legend(fontsize=8)
axes[1].set_ylim(0, 1)
chapter.draw(figure, "what the root of the width is for")

# %% [markdown]
# With the root, all three stay the same, whatever the width. Without it, at width 256, nine tenths
# of the weight is on one position, and the gradient is about a hundredth of what it is with the
# root.
#
# ### Who may look where: the mask
#
# In training the whole sentence is read at once. The **causal mask** keeps each word from looking
# at those after it, so each predicts its next word as if the rest did not exist yet. The same
# function also serves when only the last few words ask, over a longer past. With a picture in front
# of the words, its positions see one another, but no words.

# %%
show(causal_mask)


# %%
def prefix_mask(N, T):
    """(N + T, N + T): N positions of a picture, then T words.

    The positions see one another; a word sees all positions and the words up to itself.
    """
    mask = causal_mask(N + T, N + T)
    mask[:N, :N] = True
    return mask


masks = {f"causal_mask({T}, 8)": causal_mask(T, 8) for T in (8, 3, 1)}
masks["4 positions, then 5 words"] = prefix_mask(4, 5)
figure = drawings.attention_masks(masks)
chapter.draw(figure, "causal masks and the mask of a prefix")

# %% [markdown]
# ### Heads
#
# One softmax makes one choice. But a word may want two answers at once, say its noun and its place.
# So the D numbers are split among H **heads**, each with its own queries, keys and values of D/H
# numbers. One more matrix mixes the outputs of the heads.

# %%
show(MultiHeadAttention.project)
show(MultiHeadAttention.forward)
show(MultiHeadAttention.attend)

# %%
ours = MultiHeadAttention(12, 3)
theirs = nn.MultiheadAttention(12, 3, batch_first=True)
theirs.load_state_dict(ours.state_dict())  # the same names, so the weights fit
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
    hidden = ~causal_mask(7, 7)  # in torch's masks, True is hidden
    expected, _ = theirs(x, x, x, attn_mask=hidden)
    assert torch.allclose(ours(x, causal=True), by_hand, atol=1e-6)
    assert torch.allclose(ours(x, causal=True), expected, atol=1e-6)
print("head by head, ours and torch.nn.MultiheadAttention agree to 1e-6")

# %% [markdown]
# ### Positions
#
# A sum does not know the order of its terms. That is why each position has a learned vector, which
# is added to that of its word. Below, the last of seven words looks at the six before it, first in
# order, then reversed, without such vectors and with them (random ones here).

# %%
positions = torch.randn(7, 12)
reverse = [5, 4, 3, 2, 1, 0, 6]
with torch.no_grad():
    for name, added in (("without", torch.zeros(7, 12)), ("with", positions)):
        before = ours(x + added, causal=True)[:, -1]  # (B, D)
        after = ours(x[:, reverse] + added, causal=True)[:, -1]  # (B, D)
        change = (after - before).abs().max()
        print(f"{name:7} positions, the words before it reversed:", end=" ")
        print(f"the last word's output changes by {change:.0e}")

# %% [markdown]
# ### The block
#
# Attention moves information between positions. Then a small network works on each position by
# itself. Both **add** their output to their input (the residual connections of chapter 2), and both
# read this input through a **layer norm**, which brings the numbers of a position to mean 0 and
# variance 1. With the norm first ("pre-norm"), the sum itself is never normalised inside a block,
# and gradients pass through it unchanged.

# %%
show(TransformerBlock.forward)
show(TransformerBlock._self_attention)

# %% [markdown]
# ### The decoder and its cache
#
# The keys and values of a position never change, since it sees nothing that comes later. So they
# are kept in the **key-value cache**, and each new word computes only its own. `start` fills the
# cache with the picture, `step` adds a word, and in training `_advance` takes all words at once.

# %%
show(TransformerDecoder.start)
show(TransformerDecoder._advance)

# %% [markdown]
# Without a cache, picture and words are one sequence, under the mask drawn above. Both ways must
# give the same logits:


# %%
def in_one_piece(decoder, tokens, memory, mask):
    """Picture and words in one sequence -> logits (B, T, V), and all attention weights.

    The weights are (B, layers, H, N + T, N + T).
    """
    x = torch.cat([memory.tokens, decoder.embedding(tokens)], dim=1)  # (B, N + T, D)
    all_weights = []
    for block in decoder.blocks:
        x, _, weights = block(x, mask, need_weights=True)
        all_weights.append(weights)
    x = decoder.norm(x[:, memory.tokens.size(1) :])  # (B, T, D)
    logits = F.linear(x, decoder.embedding.words.weight)  # (B, T, V)
    return logits, torch.stack(all_weights, dim=1)


fresh = TransformerDecoder(50, 24, num_heads=3, num_layers=2, fusion="prefix").eval()
tokens = torch.randint(50, (2, 7))
memory = Memory(torch.randn(2, 5, 24), torch.ones(2, 5, dtype=torch.bool))
with torch.no_grad():
    at_once = fresh(tokens, memory)  # (B, T, V)
    one_piece, _ = in_one_piece(fresh, tokens, memory, prefix_mask(5, 7))
    assert torch.allclose(one_piece, at_once, atol=1e-5)

# %% [markdown]
# And so must stepping through the words one by one:

# %%
with torch.no_grad():
    state = fresh.start(memory)
    stepped = []
    for token in tokens.T:
        logits, state = fresh.step(token, state)  # (B, V)
        stepped.append(logits)
    assert torch.allclose(torch.stack(stepped, dim=1), at_once, atol=1e-5)
print("step by step, all words at once, in one piece with the picture: equal to 1e-5")

# %% [markdown]
# ### The Vision Transformer
#
# One more vector goes in front of the patches: the **class token**. It is learned, is the same for
# every picture, and collects what the classifier needs: after the last block, the classifier reads
# only this position. Each position has a learned vector, as in a sentence. The rest is the block
# from above, without a mask: all patches see one another.

# %%
show(VisionTransformer)

# %% [markdown]
# A ViT does not know that a picture has rows and columns: to it, a patch is no closer to the patch
# below than to one in the far corner. Shuffle the patches, and their position vectors in the same
# way, and each sum over the patches stays the same. A CNN is built on neighbourhoods, so to a CNN
# that is a different picture.


# %%
def shuffle_patches(images, order):
    """The pictures (B, 3, S, S), with their patches in another order."""
    patches = F.unfold(images, P, stride=P)  # (B, 3·P·P, N)
    return F.fold(patches[:, :, order], images.shape[2:], P, stride=P)


order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
vit_sizes = {"image_size": 64, "patch_size": P, "num_layers": 2, "num_heads": 4}
vit_sizes |= {"hidden_dim": D, "mlp_dim": 2 * D}
vit = VisionTransformer(**vit_sizes, num_classes=None).eval()
resnet = ResNet((1, 1, 1), num_classes=None, width=16).eval()
shuffled = shuffle_patches(picture, order)
with torch.no_grad():
    before = vit(picture)  # (1, D)
    vit.positions[:, 1:] = vit.positions[:, 1:][:, order]
    vit_change = (vit(shuffled) - before).abs().max() / before.std()
    before = resnet(picture)  # (1, 64)
    resnet_change = (resnet(shuffled) - before).abs().max() / before.std()
assert vit_change < 1e-3
print("how much the output changes, in its standard deviations:")
print(f"ViT, patches and positions shuffled: {vit_change:.0e}")
print(f"ResNet, patches shuffled: {resnet_change:.1f}")

# %% [markdown]
# ## Train it
#
# The data are those of chapter 3, whose `training_captions` prepares them: the same frozen CNN, the
# same 20,000 scenes, the same captions in the same number of steps. But here the 16 vectors of the
# grid are not averaged. They are the **prefix**: 16 positions before the first word. All words of a
# sentence are trained at once, each with the true words before it, as in chapter 3.

# %%
device = pick_device()
path = folder(2, chapter.fast) / "cnn.pt"
cnn = pretrained_cnn(path, chapter.choose(30_000, fast=64))
count = chapter.choose(20_000, fast=320)
vocabulary, targets = training_captions(count)
print(f"{count:,} scenes with five captions each; {len(vocabulary)} words")
train_images, train_labels = labelled_scenes("train", count)
train_features = extract_features(cnn, train_images)  # (N, 128, 4, 4)
test_features = extract_features(cnn, images)

# %% [markdown]
# Two controls. The first has a prefix of one position, the average of the 16, as in chapter 3. The
# second has no causal mask in training, so each word also sees those after it; its `step` is
# unchanged.


# %%
class AverageEncoder(ImageEncoder):
    def encode_features(self, grid):
        memory = super().encode_features(grid)
        return Memory(memory.mean().unsqueeze(1), memory.mask[:, :1])  # (B, 1, D)


class UnmaskedDecoder(TransformerDecoder):
    def forward(self, tokens, memory):
        logits, _ = in_one_piece(self, tokens, memory, None)
        return logits  # (B, T, V)


def train(Encoder, Decoder, count, epochs):
    """Train on the first `count` scenes: encoder, decoder, the loss of every step."""
    torch.manual_seed(0)
    encoder = Encoder(cnn, embed_dim=128, image_size=64).to(device)
    decoder = Decoder(len(vocabulary), 128, 4, num_layers=2, fusion="prefix").to(device)
    features = train_features[:count]
    losses = train_captioner(decoder, encoder, features, targets[:count], epochs)
    return encoder.eval(), decoder.eval(), losses


# %%
epochs = chapter.choose(3, fast=1)
half = count // 2
models = {  # name -> encoder, decoder, losses
    "16 positions": train(ImageEncoder, TransformerDecoder, count, epochs),
    "one position, the average": train(
        AverageEncoder, TransformerDecoder, count, epochs
    ),
    "16 positions, no causal mask": train(ImageEncoder, UnmaskedDecoder, half, 1),
}
for name, (_, _, losses) in models.items():
    print(f"{name:29} loss of the last 50 steps {mean(losses[-50:]):.3f}")
encoder, decoder, _ = models["16 positions"]
lstm = LSTMDecoder(len(vocabulary), embed_dim=256, hidden_size=256, fusion="prefix")
for name, model in (("the decoder", decoder), ("chapter 3's", lstm)):
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"parameters of {name}: {size:,}")

# %% [markdown]
# **A ViT and a ResNet.** Could a ViT replace the CNN? Here both learn what is in a picture, with
# chapter 2's `train_classifier`, on the same pictures (those of the 20,000 that show a single
# noun), in the same order, for the same number of epochs. The ResNet is that of chapter 2 at half
# its width, so both have about the same number of parameters.

# %%
single = train_labels[:, :32].sum(1) == 1  # the first 32 labels are nouns
torch.manual_seed(0)
networks = {
    "ResNet": ResNet((1, 1, 1), num_classes=len(LABELS), width=16),
    "ViT": VisionTransformer(**vit_sizes, num_classes=len(LABELS)),
}
epochs = chapter.choose(4, fast=1)
for name, model in networks.items():
    start = time.perf_counter()
    losses = train_classifier(model, train_images[single], train_labels[single], epochs)
    seconds = time.perf_counter() - start
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{name:6} {size:,} parameters, {len(losses)} steps, {seconds:.0f} s")
    print(f"       loss of the last 50 steps {mean(losses[-50:]):.3f}")

# %% [markdown]
# ## Look

# %%
figure = Figure(figsize=(6, 3), dpi=100, layout="constrained")
axis = figure.subplots()
every = chapter.choose(10, fast=1)
for name, colour in zip(models, (GREEN, BLUE, RED)):
    _, _, losses = models[name]
    steps = range(0, len(losses), every)
    means = [mean(losses[step : step + every]) for step in steps]
    axis.plot(steps, means, color=colour, label=name)
axis.set(xlabel="step", ylabel="loss per word (nats)", ylim=(0, 2.5))
axis.grid(alpha=0.3)
axis.legend()
chapter.draw(figure, "learning with sixteen positions one position and no mask")

# %%
generated = describe(encoder, decoder, vocabulary, test_features)
sheet = caption_sheet(list(images[:8]), generated[:8], references[:8])
chapter.draw(sheet, "captions with the picture as a prefix")

# %% [markdown]
# A green caption equals one of the references, word for word; a red one does not, and the nearest
# reference is below it.
#
# **The heads.** The decoder reads a caption that it wrote. Each panel is a head. Each row is
# labelled with the word read → the word written next, and its colours say where the head looks:
# left of the red line at the 16 positions of the picture, right of it at the words.

# %%
N = 16  # positions of the picture
caption = generated[example]
text = [BOS, *vocabulary.encode(caption)]
T = len(text)
tokens = torch.tensor([text], device=device)  # (1, T)
mask = prefix_mask(N, T).to(device)
memory = encoder.encode_features(test_features[example : example + 1])
with torch.no_grad():
    _, weights = in_one_piece(decoder, tokens, memory, mask)
    _, to_picture = decoder(tokens, memory, need_weights=True)  # (1, layers, H, T, N)
assert torch.allclose(weights[..., N:, :N], to_picture, atol=1e-5)
weights = weights[0, :, :, N:].cpu()  # (layers, H, T, N + T)

# %%
read = ["<bos>", *caption]
pairs = [f"{word} → {following}" for word, following in zip(read, [*caption, "<eos>"])]
figure = Figure(figsize=(9, 9.5), dpi=100, layout="constrained")
axes = figure.subplots(4, 2, sharex=True, sharey=True).T  # (layers, H)
for (layer, head), axis in np.ndenumerate(axes):
    axis.imshow(weights[layer, head], cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.axvline(N - 0.5, color=RED, linewidth=1)
    axis.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=10)
    axis.set_xticks(range(N + T), [*range(1, N + 1), *read], fontsize=8, rotation=90)
    axis.set_yticks(range(T), pairs, fontsize=8)
chapter.draw(figure, "where each head looks")

# %% [markdown]
# Look at layer 1. In the rows that end in "snowman" and "cat", heads 1, 2 and 4 look at the
# picture: at 13 and 14 (the lower left) for the snowman, at 3, 4, 7 and 8 (the upper right) for the
# cat. Head 3 does something else: as the second object is being named, it looks at the first one's
# size before the size, at its colour before the colour, at its noun before the noun. If it knows
# which object has been named, the decoder can name the other one. In layer 2, in the rows "`<bos>`
# → a" and "snowman → left", each head rests mostly on one uninformative position: the first on
# `<bos>`, the others on 16, 1 and 5, where the picture is empty. A softmax must sum to 1, even
# where there is nothing to find. Here are the heads of layer 1 again, one per row, with their
# weights drawn over the picture, when a colour or a noun is due:

# %%
steps = [t for t, _ in named_objects(caption, scenes[example])]  # colours and nouns
if not steps:
    steps = [0]  # an untrained decoder may name none
maps = weights[0, :, steps, :N].unflatten(-1, (4, 4))  # (H, words, 4, 4)
words = [caption[t] for t in steps]
H = len(maps)
pictures = [images[example]] * H
sheet = attention_sheet(pictures, [words] * H, list(maps), columns=len(words) + 1)
chapter.draw(sheet, "where the heads of the first layer look in the picture")

# %% [markdown]
# **Learned positions.** How alike are the vectors of two positions (the cosine of the angle between
# them)? They start as random numbers, with cosines around 0.

# %%
figure = Figure(figsize=(7.5, 3.4), dpi=100, layout="constrained")
tables = {
    "positions of the words": decoder.embedding.positions.weight[:20],
    "positions of the picture": encoder.position,
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
# Neighbouring words have become alike. In the picture, 5, 6, 9 and 10 (on the left) are alike, and
# so are 11, 12, 15 and 16 (the lower right), while between the two groups most cosines are
# negative. Nobody told the model that the 16 positions form a square.
#
# **What has the ViT learned about rows and columns?** For each of its 64 positions, a small map
# shows how alike its vector is to those of all 64.

# %%
unit = F.normalize(networks["ViT"].positions[0, 1:].detach().cpu(), dim=-1)  # (64, D)
cosines = unit @ unit.T  # (64, 64)
maps = cosines.view(8, 8, 8, 8)  # row, column, row, column
maps = F.pad(maps, (0, 1, 0, 1), value=torch.nan)  # (8, 8, 9, 9), a margin each
maps = maps.permute(0, 2, 1, 3).reshape(72, 72)
figure = Figure(figsize=(5, 4), dpi=100, layout="constrained")
axis = figure.subplots()
image = axis.imshow(maps, cmap="RdBu_r", vmin=-1, vmax=1)
axis.set_axis_off()
figure.colorbar(image, ax=axis, shrink=0.8, label="cosine")
chapter.draw(figure, "how alike the positions of patches are")

# %%
row = torch.arange(64) // 8
column = torch.arange(64) % 8
steps = (row[:, None] - row).abs() + (column[:, None] - column).abs()  # (64, 64)
for least, most in ((1, 1), (2, 3), (4, 6), (7, 14)):
    alike = cosines[(steps >= least) & (steps <= most)].mean()
    print(f"{least:2} to {most:2} steps apart: mean cosine {alike:.2f}")

# %% [markdown]
# Nothing to see: neighbours (a mean cosine of -0.01) are no more alike than positions far apart
# (0.05). In a ViT that was trained for long, each map peaks around its own position, and its row
# and column are visible (Dosovitskiy et al., figure 7). Ours has not found out which patches are
# neighbours. What did it learn, then? See below.
#
# **The cache, measured.** We write eight texts at a time, of up to 128 words: once with `step`, and
# once reading the whole text again for each word. We report the best of three runs.

# %%
long = TransformerDecoder(len(vocabulary), 128, 4, 2, max_length=128, fusion="prefix")
long.to(device).eval()
memory = encoder.encode_features(test_features[:8])


@torch.no_grad()
def words_per_second(length, cached):
    """The speed at which eight texts of `length` words are generated."""
    start = time.perf_counter()
    tokens = torch.full((8, 1), BOS, device=device)  # (B, 1)
    state = long.start(memory)
    for _ in range(length):
        if cached:
            logits, state = long.step(tokens[:, -1], state)  # (B, V)
        else:
            logits = long(tokens, memory)[:, -1]  # (B, V)
        tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], dim=1)
    tokens.tolist()  # waits until a GPU has finished
    return 8 * length / (time.perf_counter() - start)


# %%
lengths = chapter.choose((8, 16, 32, 64, 128), fast=(4, 8))
speeds = {True: [], False: []}  # with and without the cache
for cached in speeds:
    for length in lengths:
        runs = [words_per_second(length, cached) for _ in range(3)]
        speeds[cached].append(max(runs))
figure = Figure(figsize=(6, 3), dpi=100, layout="constrained")
axis = figure.subplots()
axis.plot(lengths, speeds[True], "o-", color=GREEN, label="with the cache")
axis.plot(lengths, speeds[False], "o-", color=RED, label="without")
axis.set(xlabel="words per text", ylabel="words per second", ylim=(0, None))
axis.set_xscale("log", base=2)
axis.set_xticks(lengths, lengths)
axis.grid(alpha=0.3)
axis.legend()
chapter.draw(figure, "words per second with and without the cache")
for length, fast, slow in zip(lengths, speeds[True], speeds[False]):
    print(f"{length:4} words: {fast:6,.0f} per second with the cache,", end=" ")
    print(f"{slow:6,.0f} without, ratio {fast / slow:.1f}")

# %% [markdown]
# ## What to notice
#
# The judge reads the captions of the three models, and then, as controls, those that the first
# model writes for another picture, and with its learned positions shuffled.

# %%
captions = {}
for name, (model_encoder, model_decoder, _) in models.items():
    captions[name] = describe(model_encoder, model_decoder, vocabulary, test_features)
    print(f"{name}: {detokenize(captions[name][example])}")
other = test_features.roll(1, 0)
captions["another picture"] = describe(encoder, decoder, vocabulary, other)

order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
positions = {
    "picture positions shuffled": encoder.position,
    "word positions shuffled": decoder.embedding.positions.weight,
}
for name, vectors in positions.items():
    learned = vectors.data.clone()
    vectors.data[:N] = learned[order]
    captions[name] = describe(encoder, decoder, vocabulary, test_features)
    vectors.data = learned

# %%
print(f"{'% true, pictures with':28}one object    two  three    all", end="   ")
print("most common faults")
for name in captions:
    fractions, faults = judge_captions(captions[name], scenes)
    one, two, three, overall = fractions
    print(f"{name:28}{one:10.1f}{two:7.1f}{three:7.1f}{overall:7.1f}", end="   ")
    print(", ".join(f"{fault} {n}" for fault, n in faults.most_common(3)))

# %% [markdown]
# And the two classifiers, on the validation pictures and on training pictures, with one noun each:


# %%
def is_largest_right(network, images, labels, part):
    """Is the largest logit among the labels `part` right? 0 or 1 for each picture."""
    alone = labels[:, :32].sum(1) == 1
    truth = labels[alone][:, part]  # (N, labels)
    logits = predict_logits(network, images[alone])[:, part]  # (N, labels)
    best = logits.argmax(1, keepdim=True)  # (N, 1)
    return truth.gather(1, best).squeeze(1).float().numpy()


nouns = slice(0, 32)
colours = slice(32, 40)
known_images = train_images[single][:1000]
known_labels = train_labels[single][:1000]
data = {"new pictures": (images, labels), "known ones": (known_images, known_labels)}
print(f"{'the largest logit is right, %':31}{'noun':>20}{'colour':>20}   (95 %)")
for name, network in networks.items():
    for kind, examples in data.items():
        print(f"{name + ', ' + kind:31}", end="")
        for part in (nouns, colours):
            answers = 100 * is_largest_right(network, *examples, part)
            low, high = bootstrap(answers)
            interval = f"{answers.mean():.1f} ({low:.1f} to {high:.1f})"
            print(f"{interval:>20}", end="")
        print()

# %% [markdown]
# **A vector for each position.** With the data and steps of chapter 3 and half of its parameters
# (420,000 against 819,000), 64.0 % of the captions are true instead of 33.6 %. Is that due to the
# Transformer, or to the 16 positions? The control tells us: the same decoder with the average as
# its only position ends at 39.0 %. So most of the gain comes from not averaging. An average holds a
# cat and a snowman, something red and something yellow, but not which belongs to which: "a big
# yellow cat is left of a big red snowman". With 16 positions, one object is nearly always right;
# three are still hard (25 %), and the most common fault is still the place.
#
# **The smallest loss is the worst model.** Without the causal mask the loss falls to 0.009 in half
# an epoch: the answer is the next input, and the model copies it. When it has to write, there is no
# next input yet. So for the picture of the snowman and the cat it writes "cat", and none of its
# captions is true. A loss that is too good is a leak until you know better.
#
# **It is the picture that speaks**: with another picture's prefix no caption is true. And
# **positions matter**. With the vectors of the 16 picture positions shuffled, the decoder still
# knows what the objects are (the noun is wrong in 88 captions instead of 82), but not where they
# are (577 instead of 258). With those of the first 16 words shuffled, 734 captions are no longer
# sentences.
#
# **The ViT sees colours, but no shapes yet.** With the same pictures, the same number of steps and
# about as many parameters, the ResNet names the noun of a new picture in about 86 % of the cases,
# the ViT in about 12 % (guessing: 3 %). But the ViT finds the colour in 99 %, the ResNet in 87 %. A
# colour shows in a single patch. A noun is a shape across several patches, anywhere in the picture:
# a filter that has learned a corner at one place knows it everywhere, while a ViT must learn from
# examples how the patches at each pair of positions go together. It has not: near positions are no
# more alike than distant ones. Nor does it lack pictures: even on those it was trained on, it knows
# the noun in only about 12 %. It lacks training. On photographs the gap closes with far more data:
# pre-trained on ImageNet's 1.3 million, large ViTs were worse than ResNets; with 300 million they
# overtook them (Dosovitskiy et al., section 4.3). That is why our captioner reads a CNN's grid.
# This was one seed, with the learning rate of chapter 2's CNN: it says who learns sooner, not who
# ends higher.
#
# **The cache** makes writing a text of 8 words more than twice as fast, and one of 128 words more
# than six times as fast: with it, each word costs about the same; without it, each costs more than the
# last. The number of words per second depends on the machine and on what else it is doing.
#
# All captions come from one seed and one CNN, and are about 1,000 pictures that the models had
# never seen.
#
# ## Your turn
#
# Write these yourself, from their docstrings. `python -m chapters.assignments start 4 --to work`
# writes the stubs, and `check 4 --from work` tests your code, with a hint where something is wrong.
#
# 1. `causal_mask`: one line; mind T < N. 2 points, 10 minutes.
# 2. `scaled_dot_product_attention`: and a query that may look at nothing? 10 points, 60 minutes.
# 3. `MultiHeadAttention.project`: with `queries` and `keys_values`; which axis becomes the heads? 6 points, 30 minutes.
# 4. `MultiHeadAttention.forward`: with `attend`; how the heads become one vector again, and who may see whom. 9 points,
#    45 minutes.
# 5. `Embedding.forward`: what distinguishes two equal words in a sentence? 2 points, 10 minutes.
# 6. `TransformerBlock.forward`: pre-norm, post-norm, and with a past. Cross-attention can wait. 14 points, 75 minutes.
# 7. `TransformerEncoder.forward`: a sentence must not change with its neighbours. 5 points, 25 minutes.
# 8. `TransformerDecoder.step`: stepping must give what the full forward gives. 16 points, 90 minutes.
# 9. `TransformerDecoder.reorder`: in a beam search, who continues whose words? 8 points, 40 minutes.
# 10. `VisionTransformer._encode`: with `features`; patches, class token, positions. 6 points, 30 minutes.
#
# And three questions left open:
#
# 1. Which heads can be set to 0 without anyone noticing?
# 2. Does the decoder still know the order of its words if it is trained without positions, from the causal mask alone?
# 3. From how many positions on does the prefix cost more than the words, and what would you do then?

# %%
chapter.finish()

# %% [markdown]
# ## Sources
#
# Bahdanau, Cho and Bengio 2015, "Neural machine translation by jointly learning to align and
# translate" (attention) · Vaswani et al. 2017, "Attention is all you need" (√D in section 3.2.1,
# heads in 3.2.2) · Radford et al. 2019, "Language models are unsupervised multitask learners"
# (GPT-2: a decoder alone, norms first) · Ba, Kiros and Hinton 2016, "Layer normalization" · Xiong
# et al. 2020, "On layer normalization in the Transformer architecture" (pre-norm) · Hendrycks and
# Gimpel 2016, "Gaussian error linear units" · Mokady, Hertz and Bermano 2021, "ClipCap" (the
# picture as a prefix) · Haviv et al. 2022, "Transformer language models without positional
# encodings still learn positional information" · Pope et al. 2023, "Efficiently scaling Transformer
# inference" (the key-value cache) · Dosovitskiy et al. 2020, "An image is worth 16×16 words" (the
# ViT; sections 4.3 and 4.5: how much data it needs, what its positions learn).
