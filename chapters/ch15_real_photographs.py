# %% [markdown]
# # 15 · Real photographs
#
# **Adds** depthwise-separable convolutions (MobileNetV2), features that are kept, training on the metric itself, GPT-2's tokenizer, and shards. **Takes** 2.7 min on two cores.
#
# Until here a program drew the pictures. It never ends, and it knows the truth. Photographs are few,
# they cost far more to look at, each is described by several people who disagree, and there may be
# more of them than a disk holds as files. This chapter adds what that takes. Nobody will train eyes on
# 6,000 photographs, so the eyes are published ones; and once they are good, what limits a captioner
# is what it was trained for. With drawn scenes we can ask a question that photographs cannot answer:
# does training on a metric make captions truer, or only higher-scored?

# %%
import copy
import time
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from chapters.chapter import Chapter
from chapters.drawings import ch15 as drawings
from chapters.measured import photographs, self_critical

# %%
from mmscratch.batches import BucketSampler, Examples, make_loader
from mmscratch.data.captions import SceneCaptions, number_pictures
from mmscratch.data.judge import judge
from mmscratch.data.scenes import NOUNS
from mmscratch.decoding import generate
from mmscratch.metrics import caption_scores
from mmscratch.model import ModelConfig, build_model
from mmscratch.plots import caption_sheet
from mmscratch.self_critical import SelfCritical, cider_reward, self_critical_loss
from mmscratch.streaming import deal_shards
from mmscratch.text import (
    ByteLevelBPE,
    Vocabulary,
    byte_symbols,
    caption_tokenize,
    detokenize,
)
from mmscratch.training import warmup_and_cosine
from mmscratch.vision import InvertedResidual, MobileNetV2, ResNet, depthwise_conv2d

torch.manual_seed(0)
chapter = Chapter(15)

# %% [markdown]
# ## The idea

# %%
chapter.draw(drawings.what_photographs_need(), "what photographs need")

# %% [markdown]
# From left to right: pictures lie in a few large files instead of millions of small ones. A CNN that
# somebody trained on ImageNet looks at each of them **once**, since it is frozen, and what it saw is
# kept. The decoder learns from that, with all five captions of a picture at a time. At the end it
# writes captions of its own, and those that score higher than what it would have written anyway
# become likelier.
#
# ## By hand
#
# **A convolution does two things at once**: it looks at neighbours, and it mixes channels. Each can be
# had alone. A **depthwise** convolution has one filter for each channel, and a **pointwise** one (1 × 1)
# sees one place only.

# %%
chapter.draw(drawings.convolutions(), "three kinds of convolution")

# %%
x = torch.randn(1, 3, 6, 6)  # (B, C, H, W)
filters = torch.randn(3, 1, 3, 3)  # (C, 1, U, V)
y = torch.zeros(1, 3, 4, 4)
for channel in range(3):
    for i in range(4):
        for j in range(4):
            window = x[0, channel, i : i + 3, j : j + 3]  # (3, 3)
            y[0, channel, i, j] = (filters[channel, 0] * window).sum()

torch.testing.assert_close(y, depthwise_conv2d(x, filters))
torch.testing.assert_close(y, F.conv2d(x, filters, groups=3))

# %% [markdown]
# What does it save? A multiplication for each output, channel and place of the filter:

# %%
size, inputs, outputs = 56, 32, 64
full = size**2 * outputs * inputs * 3 * 3
depthwise = size**2 * inputs * 3 * 3
pointwise = size**2 * outputs * inputs
print(f"3 × 3 convolution      {full / 1e6:6.1f} million multiplications")
print(f"depthwise + pointwise  {(depthwise + pointwise) / 1e6:6.1f} million")
print(f"{full / (depthwise + pointwise):.1f} times fewer")

# %% [markdown]
# **The inverted residual** is made of these. A block of ResNet-50 is wide outside and narrow inside,
# because its 3 × 3 is expensive. With a depthwise one the inside may be wide: 1 × 1 to six times as
# many channels, depthwise 3 × 3, 1 × 1 back to few. Only the narrow ends are added up, so little has
# to be stored. And the last 1 × 1 has no ReLU: among few channels, what it sets to zero is lost, since
# no other channel has it as well.

# %%
block = InvertedResidual(8, 8, expansion=6).eval()
expand, depthwise, project, last_norm = block.conv
x = torch.randn(2, 8, 5, 5)
with torch.no_grad():
    inside = expand[1](F.conv2d(x, expand[0].weight)).clamp(0, 6)  # (2, 48, 5, 5)
    filtered = depthwise_conv2d(inside, depthwise[0].weight, padding=1)
    inside = depthwise[1](filtered).clamp(0, 6)
    by_hand = x + last_norm(F.conv2d(inside, project.weight))  # (2, 8, 5, 5)
    torch.testing.assert_close(by_hand, block(x))
print(f"{tuple(x.shape)} -> {tuple(inside.shape)} -> {tuple(by_hand.shape)}")

# %% [markdown]
# **Training on a reward.** CIDEr-D is not a function of the weights that has a gradient: between them
# lies the choice of words. But the *expected* reward has one, and it can be estimated from captions
# that are drawn (Williams 1992):
#
#     ∇ E[r] = ∇ Σ p(caption) r(caption) = E[ r(caption) ∇ log p(caption) ]
#
# Take a model that knows four captions and nothing else: four numbers, and their softmax. Here the sum
# can be written down, and compared with what draws say.

# %%
scores = torch.tensor([0.3, -0.2, 0.1, 0.5], requires_grad=True)  # of four captions
reward = torch.tensor([7.0, 8.0, 6.5, 7.5])
expected = (scores.softmax(0) * reward).sum()
(true_gradient,) = torch.autograd.grad(expected, scores)
print("expected reward", f"{expected.item():.3f}")
print("its gradient   ", [round(value, 3) for value in true_gradient.tolist()])


# %%
def estimates(baseline, count=2000):
    """The gradient from one draw, again and again: (count, 4)."""
    drawn = scores.detach().softmax(0).multinomial(count, replacement=True)
    gradients = []
    for caption in drawn.tolist():
        log_prob = scores.log_softmax(0)[caption].view(1, 1)
        r = reward[caption : caption + 1]
        loss = self_critical_loss(log_prob, r, torch.full_like(r, baseline))
        gradients.append(-torch.autograd.grad(loss, scores)[0])
    return torch.stack(gradients)


greedy_reward = reward[scores.argmax()].item()
for name, baseline in (("no baseline", 0.0), ("greedy baseline", greedy_reward)):
    found = estimates(baseline)
    mean = [round(value, 2) for value in found.mean(0).tolist()]
    print(f"{name:16} mean {mean}, standard deviation {found.std(0).mean():.2f}")

# %% [markdown]
# Both are right on average. But without a baseline every caption that is drawn becomes likelier, since
# all rewards are positive, and only the differences between many draws say which ones are better.
# **Self-critical** training subtracts the reward of what the model writes greedily (Rennie et al.
# 2017): a caption becomes likelier if it beats the one that the user would have got.
#
# **Bytes.** GPT-2 has to write any text, so its smallest pieces are not characters, of which there
# are 150,000, but the 256 bytes of UTF-8. Each has a printable symbol, and merges work as in chapter
# 10. A vocabulary with three merges:

# %%
merges = [("Ġ", "d"), ("o", "g"), ("Ġd", "og")]
tokens = [*byte_symbols(), *(left + right for left, right in merges)]
pieces = ByteLevelBPE(tokens, merges)
for text in (" a dog", " dogs", " größer", " 猫"):
    numbers = pieces.encode_text(text)
    print(f"{text:8} {' '.join(pieces.words[number] for number in numbers)}")
    assert pieces.decode_text(numbers) == text

# %% [markdown]
# "Ġ" is the space, which belongs to the word after it. Only if all bytes of a character are there is
# it a character: cut between them, "猫" is three times nothing.
#
# ## The piece
#
# **MobileNetV2** stacks 17 of these blocks. A test holds outputs, gradients and batch-norm statistics
# to torchvision's, whose weights load.


# %%
def count_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def seconds_for(model, pictures):
    """The least of three times."""
    model.eval()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        model.features(pictures)
        times.append(time.perf_counter() - start)
    return min(times)


pictures = torch.randn(8, 3, 160, 160)
networks = {"ResNet-18": ResNet(18), "MobileNetV2": MobileNetV2()}
for name, network in networks.items():
    millions = count_parameters(network) / 1e6
    rate = len(pictures) / seconds_for(network, pictures)
    print(
        f"{name:12} {millions:5.1f} million parameters, {rate:5.0f} pictures a second"
    )

# %% [markdown]
# **Encode once.** A photograph has five captions, and a step trains on all of them: the memory is
# repeated, not the picture. Compare the five steps that chapter 6 would take with one:

# %%
PICTURES = chapter.choose(16, fast=2)
backbone = {"name": "mobilenet", "image_size": 96}
decoder = {"name": "lstm", "hidden_size": 64}
model = build_model(ModelConfig(40, {"image": backbone}, decoder, embed_dim=64))
images = torch.randint(256, (PICTURES, 3, 96, 96), dtype=torch.uint8)
five = torch.randint(4, 40, (PICTURES, 5, 12))
at_once = [{"image": images, "target": five}]
one_by_one = [{"image": images, "target": five[:, k]} for k in range(5)]
for name, batches in (("one by one", one_by_one), ("five at once", at_once)):
    start = time.perf_counter()
    for batch in batches:
        model.loss(batch)[0].backward()
    rate = 5 * PICTURES / (time.perf_counter() - start)
    print(f"{name:12} {rate:5.0f} captions a second")

# %% [markdown]
# **Look once.** If the backbone is frozen, it says the same of a picture in every epoch. `FeatureCache`
# computes it once and keeps it in a memory-mapped file of 16-bit floats, four views of each picture:
# as it is, a crop in another light, and both mirrored. The name of that file is `feature_key`: it must
# depend on everything that the features depend on, or one day they are those of another network.
#
# **Shards.** Ten million pictures are not ten million files: tar files of some thousand are read
# where they lie. In each epoch, all processes shuffle the list of shards in the same way, and each
# takes its own. Since the order depends on the seed and the epoch only, step 40,000 of a run that was
# killed is a shard and a place in it, and nothing before it has to be read.

# %%
for epoch in range(2):
    hands = [deal_shards(10, epoch, rank=rank, world_size=3) for rank in range(3)]
    print(
        f"epoch {epoch}: "
        + "; ".join(f"process {i} {hand}" for i, hand in enumerate(hands))
    )

# %% [markdown]
# ## Train it
#
# Scenes again, since a program knows what is true of them; those with one object, and of eight nouns
# only, to save time. First a captioner is trained with the cross-entropy, as in chapter 5. Then it
# goes on in three ways, for about as long: with the cross-entropy on more scenes, with **CIDEr-D** as
# its reward, and with **the truth**: 1 if the judge says that the caption is true, else 0.

# %%
SCENES = chapter.choose(12_000, fast=96)
MORE = chapter.choose(4000, fast=64)
REWARDED = chapter.choose(960, fast=16)
TEST = chapter.choose(500, fast=8)


def load_scenes(split, first, count, one_caption_each=True):
    """Scenes with one object, of eight nouns, from the number `first` on."""
    data = SceneCaptions(split, 16 * (first + count), size=0)
    simple = []
    for scene in data.scenes:
        if len(scene.objects) == 1 and scene.objects[0].noun in list(NOUNS)[:8]:
            simple.append(scene)
    chosen = simple[first : first + count]
    data.set_scenes(chosen, one_caption_each=one_caption_each)
    return data


training = load_scenes("train", 0, SCENES)
vocabulary = Vocabulary.build(words for (words,) in training.references)
vocabularies = {"target": vocabulary}
image = {"name": "resnet", "image_size": 64, "num_layers": 1}
decoder = {"name": "lstm", "hidden_size": 256}
config = ModelConfig(len(vocabulary), {"image": image}, decoder)


# %%
def fit(model, data, batch_size, learning_rate, at_once=1):
    """One epoch of training."""
    examples = Examples(data, vocabularies, references_at_once=at_once)
    loader = make_loader(
        examples, BucketSampler(examples.lengths, batch_size, bucket_batches=None)
    )
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=0.05)
    factor = partial(warmup_and_cosine, steps=len(loader), warmup_fraction=0.05)
    schedule = LambdaLR(optimizer, factor)
    model.train()
    for batch in loader:
        with torch.autocast("cpu", torch.bfloat16):
            loss, count = model.loss(batch)
        optimizer.zero_grad()
        (loss / count).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


before = build_model(config)
start = time.perf_counter()
fit(before, training, 96, 3e-3)
print(f"{SCENES:,} scenes in {time.perf_counter() - start:.0f} s")

# %% [markdown]
# A reward is a function of captions and of the numbers of their pictures.


# %%
def truth_reward(data):
    def reward(captions, numbers):
        verdicts = []
        for words, number in zip(captions, numbers):
            verdicts.append(judge(detokenize(words), data.scenes[number]).true)
        return [float(verdict) for verdict in verdicts]

    return reward


def train_on(reward, data):
    """A copy of the captioner, trained on a reward."""
    model = copy.deepcopy(before)
    model.objective = SelfCritical(reward, vocabulary)
    fit(model, data, 32, 1e-4, at_once=5)
    model.objective = None
    return model


# %%
models = {"before": before}
more = load_scenes("train", SCENES, MORE)
models["cross-entropy"] = copy.deepcopy(before)
start = time.perf_counter()
fit(models["cross-entropy"], more, 96, 1e-3)
print(f"cross-entropy: {MORE:,} scenes in {time.perf_counter() - start:.0f} s")

rewarded = load_scenes("train", SCENES + MORE, REWARDED, one_caption_each=False)
number_pictures(rewarded)
ways = {"CIDEr-D": cider_reward(rewarded.references), "truth": truth_reward(rewarded)}
for name, reward in ways.items():
    start = time.perf_counter()
    models[name] = train_on(reward, rewarded)
    print(f"{name}: {REWARDED:,} scenes in {time.perf_counter() - start:.0f} s")

# %% [markdown]
# ## Look
#
# 500 scenes that no model has seen:

# %%
test = load_scenes("test", 0, TEST, one_caption_each=False)
references = [[caption_tokenize(text) for text in texts] for texts in test.texts]
written = {}
print(f"{'':14} {'true':>6} {'BLEU-4':>7} {'CIDEr-D':>8} {'words':>6}")
for name, model in models.items():
    written[name] = generate(model, vocabularies, test)
    verdicts = [
        judge(detokenize(w), s).true for w, s in zip(written[name], test.scenes)
    ]
    captions = [caption_tokenize(detokenize(words)) for words in written[name]]
    scores = caption_scores(captions, references)
    length = sum(map(len, captions)) / TEST
    print(
        f"{name:14} {100 * sum(verdicts) / TEST:5.1f} % {scores['BLEU-4'].score:6.1f}"
        f" {scores['CIDEr-D'].score:8.2f} {length:6.1f}"
    )

# %%
changed = []
for i in range(TEST):
    if written["before"][i] != written["CIDEr-D"][i]:
        changed.append(i)
for i in changed[:3]:
    print(f"scene {i}: {test.texts[i][0]}")
    for name in models:
        verdict = judge(detokenize(written[name][i]), test.scenes[i])
        mark = "true" if verdict.true else f"wrong {', '.join(verdict.wrong)}"
        print(f"  {name:14} {detokenize(written[name][i])} ({mark})")

# %%
shown = changed[:4] or [0]
pictures = [test[i]["image"] for i in shown]
sheet = caption_sheet(
    pictures,
    [written["CIDEr-D"][i] for i in shown],
    [test.references[i] for i in shown],
)
chapter.draw(sheet, "captions after training on CIDEr-D")

# %% [markdown]
# One seed is an anecdote. `python -m chapters.measured.self_critical` does the same with scenes of all
# nouns and of one to three objects, from three seeds, 60,000 scenes each. The mean of the three, and
# each of them:

# %%
rows = self_critical.results()
ways = ("before", *self_critical.WAYS)
print(f"{'':14} {'true':>6} {'BLEU-4':>7} {'CIDEr-D':>8}  true with each seed")
for way in ways:
    seeds = [rows[f"{way}, seed {seed}"] for seed in self_critical.SEEDS]
    true, bleu, cider = (
        [row[name][0] for row in seeds] for name in ("true", "BLEU-4", "CIDEr-D")
    )
    print(
        f"{way:14} {sum(true) / 3:5.1f} % {sum(bleu) / 3:6.1f} {sum(cider) / 3:8.2f}"
        f"  {', '.join(map(str, true))}"
    )

# %% [markdown]
# **Photographs.** `python -m chapters.measured.photographs` trains on Flickr8k, whose pictures had 128
# pixels here. Scores are those of the 1,000 pictures of the dev split, with five beams. At 224 pixels
# with MobileNetV2's published weights, frozen; what comes after it starts from that captioner:

# %%
rows = photographs.results()


def print_scores(label, scores, minutes=""):
    """BLEU-4 and CIDEr-D, each with its interval."""
    bleu, cider = scores["BLEU-4"], scores["CIDEr-D"]
    print(
        f"{label:31} {minutes:>6} {bleu[0]:5.1f} ({bleu[1]:4.1f} to {bleu[2]:4.1f})"
        f"  {cider[0]:.3f} ({cider[1]:.3f} to {cider[2]:.3f})"
    )


print(f"{'':31} {'':6} BLEU-4               CIDEr-D")
for name, row in rows.items():
    if "5 beams" in row:
        label = name.removeprefix("96 pixels, ")
        print_scores(label, row["5 beams"], f"{row['seconds'] / 60:.0f} min")

# %% [markdown]
# How much of that is sight? The same captions against the references of the next picture, and one
# sentence for all pictures, the commonest of the training split:

# %%
published = rows[photographs.PUBLISHED]
for control in ("of other pictures", "commonest caption"):
    print_scores(control, published[control])

# %% [markdown]
# **What resolution costs**: a step that trains all weights, 32 pictures with 160 captions, on one core:

# %%
for name, size in photographs.STEPS.items():
    row = rows[name]
    memory = row["peak memory"] / 1e9
    rate = row["pictures per second"]
    print(f"{size} pixels: {rate:4.1f} pictures/s, {memory:.1f} GB")

# %% [markdown]
# The same with your own pictures, from a file of weights or, without `--weights`, from torchvision:
#
#     python -m mmscratch train --data DIR --image-size 224 --from mobilenet_v2 \
#         --weights data/mobilenet_v2.pth --freeze encoders.image.backbone --to runs/mine
#     python -m mmscratch train --data DIR --image-size 224 --from runs/mine --reward cider_d \
#         --freeze encoders.image.backbone --to runs/better
#     python -m data_scripts.shards DIR --to SHARDS
#     python -m mmscratch train --data SHARDS --layout shards --image-size 224
#
# **A language model that somebody else trained.** The decoder can be published, too. A picture is
# then a few vectors in front of the words, a **prefix**: GPT-2 reads them as it reads words, and only
# the small network that makes them has to be learned (ClipCap, Mokady et al. 2021).
#
#     python -m mmscratch train --data DIR --decoder-from gpt2 --freeze decoder
#
# with GPT-2's `config.json`, `model.safetensors`, `vocab.json` and `merges.txt` in the folder `gpt2`.
# In place of `--freeze decoder`, `--lora 8` trains low-rank changes of it (chapter 7), and without
# either, all of it is trained. This is what today's vision–language models are: an encoder of
# pictures (CLIP's ViT instead of a CNN), a small network between (one matrix or two, or a Transformer
# that asks for a fixed number of vectors), and a decoder that has read the web (7 billion weights
# instead of 0.1). What they learn with pictures is little; what they know from text is much; and so
# they also say what usually stands in such a picture, whether it is there or not.
#
# ## What to notice
#
# **Higher-scored, not truer.** With CIDEr-D as its reward, the captioner's CIDEr-D rises from 7.42 to
# 8.15, and nothing else comes near that. But no more captions are true: 92.6 % against 93.8 %, which
# are six of 500, and chance. What it has learned is how to say it: "there is a small black sun" instead
# of "a small black sun". Captions become a word longer, since that wording shares more n-grams with
# the five references. A metric that compares words rewards words. Anybody who reports CIDEr-D after
# training on CIDEr-D should report something else as well.
#
# With three seeds, all nouns and up to three objects, the differences are small. With each seed, the
# captioner that was trained on CIDEr-D has the highest CIDEr-D (on average 6.93, where it was 6.82),
# and the one that was trained on the truth writes more true captions than before (94.0 %, where it was
# 93.1), at the lowest CIDEr-D (6.70). Each gets better at what it is paid for, by a little.
#
# **Yes or no is little to learn from.** Trained on the truth, 91.0 % of the captions are true, 14
# fewer. The greedy caption is nearly always right, so a draw can hardly beat it, and most
# gradients only say what not to write. A longer training began at the captioner of `quickstart`:
#
#     python -m mmscratch train --data scenes --from runs/quickstart --reward truth \
#         --scenes 800 --to runs/true
#
# There 96.3 % of 1,000 captions were true before, and 98.2 % after 25 steps; BLEU-4 fell from 97.9 to
# 95.3, and CIDEr-D from 7.14 to 6.89: **truer, and scored lower**.
#
# **The baseline** does not change the gradient's mean, but its standard deviation, from 3.09 to 0.22.
# That is worth 200 times as many draws.
#
# **Ten million pictures**, on paper. At 224 pixels, a core that other work used as well trained on 7.9
# pictures a second: 15 days an epoch. We had no GPU to measure; `--profile` says what yours does. If
# it does 1,000 pictures a second, an epoch takes 2.8 hours on one, 21 minutes on 8, and 2.6 minutes on
# 64, *if* the pictures arrive. A core decodes about 160 pictures of 256 pixels a second, so each GPU
# needs six of them. At 20 kB a picture, one GPU reads 20 MB a second, and 64 read 1.3 GB: that is why
# they lie in shards, 200 GB in a thousand files that are read from front to back.
#
# **Encode once.** Five captions at once are 5.8 times as fast as one after the other, with a backbone
# that is expensive. With the small CNN that `train` uses for pictures of 64 pixels it was 1.1 times as
# fast on Flickr8k (376 and 415 captions a second): there a step is spent on choosing among 4,522 words.
#
# **Fewer multiplications are not as much less time.** MobileNetV2 has less than a third of the
# parameters of ResNet-18, and is 1.5 times as fast. A depthwise convolution does little with each
# number that it reads, so it waits for memory.
#
# **Photographs.** With published eyes, BLEU-4 is 17.9 and CIDEr-D 0.446 on the dev split; after two
# epochs of training on CIDEr-D it is 19.4 and 0.480, and two more add nothing. Against the references
# of another picture the first captioner gets a BLEU-4 of 5.5 and a CIDEr-D of 0.081, and "a dog runs
# through the grass" for every picture gets 3.5 and 0.083. So almost a third of BLEU-4 is language and
# dogs, but less than a fifth of CIDEr-D, which counts rare n-grams more. Xu et al. report 19.5 on the test split, with the 14 × 14 places of VGG-19, where we have 7 × 7 of a network
# with a ninth of the weights. The loss on the dev split did not fall after ten of the 15 epochs:
# 30,000 captions are few, too. Beam search is worth 1.6. The same features in chapter 13's towers find
# the picture of a caption among the first ten of 1,000 in 45.7 % of the cases, where eyes that only saw
# Flickr8k's pictures find 17.7 % (`python -m chapters.measured.retrieval`).
#
# ## Your turn
#
# Write these yourself, from their docstrings. `python -m chapters.assignments start 15 --to work`
# creates the stubs, and `check 15 --from work` tests your code, with a hint where something is
# wrong.
#
# 1. `depthwise_conv2d`: one filter for each channel. 4 points, 20 minutes.
# 2. `InvertedResidual.__init__`: with `forward`; narrow, wide, narrow. 6 points, 30 minutes.
# 3. `self_critical_loss`: likelier, if better. 3 points, 15 minutes.
# 4. `caption_log_probs`: of what was drawn, with a gradient. 5 points, 25 minutes.
# 5. `feature_key`: what do the features depend on? 3 points, 15 minutes.
# 6. `deal_shards`: which process reads what. 4 points, 20 minutes.
# 7. `ShardSampler.__iter__`: with `_shuffled`; a stream that can go on anywhere. 8 points, 40
#    minutes.
# 8. `ByteLevelBPE.encode_text`: with `_merge`; any text at all. 8 points, 40 minutes.
#
# And three questions without an answer here:
#
# 1. **Whose reward?** A reward that a program computes can be cheated, and five people disagree. What
#    would you reward, if captions are read aloud to somebody who cannot see the picture?
# 2. **How many draws?** Five captions are drawn for each picture. Would one caption for each of five
#    times as many pictures be better, in the same time?
# 3. ImageNet has 1,000 classes, about 120 of them dogs. What can a captioner with frozen eyes never say, and
#    how would you find out?

# %%
chapter.finish()

# %% [markdown]
# ## Sources
#
# Howard et al. 2017, "MobileNets" · Sandler et al. 2018, "MobileNetV2: inverted residuals and linear
# bottlenecks" · Williams 1992, "Simple statistical gradient-following algorithms for connectionist
# reinforcement learning" · Ranzato et al. 2016, "Sequence level training with recurrent neural
# networks" · Rennie et al. 2017, "Self-critical sequence training for image captioning" · Vedantam,
# Zitnick and Parikh 2015, "CIDEr" · Xu et al. 2015, "Show, attend and tell" (19.5 and 21.3 BLEU-4 on
# Flickr8k's test split) · Hodosh, Young and Hockenmaier 2013 (Flickr8k) · Radford et al. 2019,
# "Language models are unsupervised multitask learners" (GPT-2) · Mokady, Hertz and Bermano 2021,
# "ClipCap: CLIP prefix for image captioning" · Aizman, Maltby and Breuel 2019, "High performance I/O
# for large scale deep learning" (WebDataset) · Beaumont 2021, img2dataset · Rohrbach et al. 2018,
# "Object hallucination in image captioning".
