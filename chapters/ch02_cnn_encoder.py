# %% [markdown]
# # 2 · CNN encoder
#
# **Adds** convolution, VGG, ResNet, and an encoder that knows what is in a picture. **Takes** 1.8 min on two cores.
#
# A picture of 64 × 64 pixels is 12,288 numbers, and no single one of them says "star". This chapter
# turns them into features that do. The tool is the **convolution**: a small filter that slides over
# the picture and asks the same question everywhere. Networks made of convolutions are called CNNs.
# We build one, and train it to say what is in our pictures.

# %%
import timeit

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import nn
from torchvision import models

from chapters.chapter import Chapter, show
from chapters.drawings import ch02 as drawings
from mmscratch.data.scenes import NOUNS, Scene, draw
from mmscratch.images import normalize
from mmscratch.metrics import confusion_matrix, label_scores
from mmscratch.plots import GREEN, RED
from mmscratch.pretraining import (
    LABELS,
    labelled_scenes,
    predict_logits,
    pretrained_cnn,
    train_classifier,
)
from mmscratch.vision import VGG, BasicBlock, ResNet, conv2d

torch.manual_seed(0)
chapter = Chapter(2)

# %% [markdown]
# ## The idea
#
# Lay a **filter** (also called kernel), here 3 × 3 numbers, on the picture. Multiply each number by
# the pixel below it, add up, and write the sum down. Move the filter by one pixel, and do it again.
# The sums form a new picture, the **feature map**:
#
# $$y_{o,i,j} = b_o + \sum_{c,u,v} w_{o,c,u,v}\; x_{c,\,i+u,\,j+v}$$
#
# $c$ counts the input channels (red, green, blue), $o$ the output channels, one for each filter;
# $u$ and $v$ run over the filter. The same few weights work everywhere in the picture. So a star is
# found wherever it is, and 27 weights do what would take millions if each position of the map had
# its own weight for every pixel.

# %%
# Sobel: bright on the right, dark on the left
edge = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
picture = draw(Scene(101), 128)  # (3, 128, 128) uint8
grey = picture.float().mean(0)[None, None]  # (1, 1, 128, 128)
response = F.conv2d(grey, edge[None, None])[0, 0]  # (126, 126)

figure = drawings.sliding_filter(picture, edge, response)
chapter.draw(figure, "a filter slides over a picture")

# %% [markdown]
# Blue is where it gets brighter from left to right, red where it gets darker. Nobody designs such
# filters any more: they are learned. But first, how a convolution is computed.
#
# ## By hand
#
# The formula, as loops. `stride` is how far the filter moves at a time, `padding` how many rows and
# columns of zeros are added around the picture.


# %%
def convolve(x, weight, bias, stride=1, padding=0):
    """x (C, H, W), weight (O, C, U, V), bias (O) -> (O, H', W'), one sum at a time."""
    x = F.pad(x, (padding,) * 4)
    out_channels, _, U, V = weight.shape
    height = (x.size(1) - U) // stride + 1
    width = (x.size(2) - V) // stride + 1
    y = torch.zeros(out_channels, height, width)
    for i in range(height):
        for j in range(width):
            top = i * stride
            left = j * stride
            window = x[:, top : top + U, left : left + V]  # (C, U, V)
            for o in range(out_channels):
                y[o, i, j] = (window * weight[o]).sum() + bias[o]
    return y


# %% [markdown]
# The same sums are one matrix product. `unfold` lays out all windows, one per row; the filters are
# the columns of the other matrix. This is how convolution came to run on fast hardware. The third
# version is torch's own, `F.conv2d`. Do all three agree, and how long do they take?

# %%
x = torch.randn(3, 31, 37)
weight = torch.randn(8, 3, 3, 3)
bias = torch.randn(8)


def loops():
    return convolve(x, weight, bias, stride=2, padding=1)


def one_matrix_product():
    return conv2d(x[None], weight, bias, stride=2, padding=1)[0]


def torch_conv2d():
    return F.conv2d(x[None], weight, bias, stride=2, padding=1)[0]


expected = torch_conv2d()  # (8, 16, 19)
for way in (loops, one_matrix_product, torch_conv2d):
    result = way()
    assert torch.allclose(result, expected, atol=1e-5)
    milliseconds = 1000 * min(timeit.repeat(way, number=1, repeat=5))
    print(f"{way.__name__:20} {milliseconds:9.2f} ms   shape {tuple(result.shape)}")

# %% [markdown]
# **Stride and padding.** A side of $n$ pixels becomes $\lfloor (n + 2p - k)/s \rfloor + 1$
# positions, for a filter of size $k$, stride $s$ and padding $p$. Each red dot is a position where
# a 3 × 3 filter is centred. The picture of 7 × 7 is dark grey; the light grey border is used only
# with padding.

# %%
positions = {}  # (stride, padding) -> positions along a side
blank = torch.zeros(1, 1, 7, 7)
window = torch.zeros(1, 1, 3, 3)
for stride, padding in ((1, 0), (1, 1), (2, 0), (2, 1)):
    n = (7 + 2 * padding - 3) // stride + 1
    assert F.conv2d(blank, window, stride=stride, padding=padding).shape[-1] == n
    positions[stride, padding] = n
chapter.draw(drawings.stride_and_padding(positions), "stride and padding")

# %% [markdown]
# **What filters see.** Here are four filters designed by hand. The second and the third have
# weights that add up to zero in each channel, so they are blind to uniform areas. The weights of
# the last one add up to zero only over the three channels together: it is blind to grey areas, but
# not to red ones.

# %%
blur = torch.ones(3, 9, 9) / 243
outline = torch.full((3, 3, 3), -1 / 24)
outline[:, 1, 1] = 8 / 24
red = torch.tensor([2.0, -1, -1]).view(3, 1, 1) / 2
edges = torch.stack([edge.T] * 3) / 12
filters = {
    "blur": blur,
    "outline": outline,
    "edges, top to bottom": edges,
    "red against the rest": red,
}
image = picture.float() / 255
responses = {}
for name, weight in filters.items():
    responses[name] = F.conv2d(image[None], weight[None])[0, 0]  # (H', W')
chapter.draw(drawings.what_filters_see(responses), "what four filters see")

# %% [markdown]
# ## The piece
#
# The library's convolution, for whole batches:

# %%
show(conv2d)

# %% [markdown]
# A CNN stacks convolutions with a non-linearity between them: without one, two convolutions are
# just another convolution. **VGG** (2014) does only that, with a **pooling** step now and then,
# which keeps the largest of each 2 × 2 values. **ResNet** (2015) adds one thing: each block adds
# its input to its output, `x + …`, the **residual connection**. (What is called `modulation` here
# comes into use in chapter 12, where a question steers the CNN.)

# %%
show(BasicBlock)

# %% [markdown]
# A ResNet is a first convolution with pooling, then stages of such blocks, then a linear layer on
# the mean of the last grid. Each stage has twice as many channels as the one before, on a grid of
# half the height and width.

# %%
show(ResNet)

# %% [markdown]
# VGG is a stack of stages, too, but without shortcuts. Its first linear layer has separate weights
# for each position of the grid.

# %%
show(VGG)

# %% [markdown]
# Both name their parameters as torchvision does, so weights trained there load here. The check
# below loads random weights; with a network connection, the published ones load in the same way:
# `ResNet(18).load_state_dict(models.resnet18(weights="DEFAULT").state_dict())`.

# %%
scenes = torch.stack([draw(Scene(seed)) for seed in range(2)])
pictures = normalize(scenes)  # (2, 3, 64, 64)
pairs = {
    "ResNet(18)": (ResNet(18, num_classes=10), models.resnet18(num_classes=10)),
    "ResNet(50)": (ResNet(50, num_classes=10), models.resnet50(num_classes=10)),
    "VGG(11)": (VGG(11, num_classes=10), models.vgg11(num_classes=10)),
}
for name, (ours, theirs) in pairs.items():
    ours.load_state_dict(theirs.state_dict())
    ours.eval()
    theirs.eval()
    with torch.no_grad():
        difference = (ours(pictures) - theirs(pictures)).abs().max()
    millions = sum(p.numel() for p in ours.parameters()) / 1e6
    print(f"{name:11} {millions:6.1f} million parameters,", end=" ")
    print(f"largest difference from torchvision {difference:.0e}")
    assert difference < 1e-4
del pairs, ours, theirs

# %% [markdown]
# **The receptive field** of a position is the part of the picture that can change it. It grows with
# every layer. To measure it, we take one position in the middle of the grid, and use its gradient
# to find the pixels that it depends on.

# %%
network = ResNet((1, 1, 1), width=8).eval()
picture = draw(Scene(101))  # (3, 64, 64) uint8
image = normalize(picture[None]).requires_grad_()
grid = F.relu(network.bn1(network.conv1(image)))
grid = F.max_pool2d(grid, 3, stride=2, padding=1)
grids = {"stem": grid}
for stage in network.stages:
    grid = network.get_submodule(stage)(grid)
    grids[stage] = grid

fields = {}  # stage -> its grid, and the rows and columns of pixels that matter
for stage, grid in grids.items():
    _, _, height, width = grid.shape
    middle = grid[0, :, height // 2, width // 2].sum()
    (gradient,) = torch.autograd.grad(middle, image, retain_graph=True)
    change = gradient[0].abs().sum(0)  # (64, 64)
    rows = change.sum(1).nonzero().flatten().tolist()
    columns = change.sum(0).nonzero().flatten().tolist()
    fields[stage] = ((height, width), rows, columns)
figure = drawings.receptive_fields(picture, fields)
chapter.draw(figure, "the receptive field grows")

# %% [markdown]
# With strides of 2, a few layers are enough to see a whole object. The measured box can be a little
# smaller than the field that the filter sizes imply, since no gradient passes through an inactive
# ReLU.
#
# ### Why residuals
#
# Deeper should be better, or at least no worse: the added layers could copy their input. But a
# plain stack has trouble learning to copy. The two networks below have the same convolutions, batch
# norm and width; one adds shortcuts. Each has 32 convolutions after the first, and is trained on
# the same scenes in the same order.


# %%
def convolution_pair(width):
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
    )


class Stack(nn.Module):
    """`depth` convolutions in pairs, with or without a shortcut around each pair."""

    def __init__(self, depth, residual, width=24):
        super().__init__()
        self.residual = residual
        self.stem = nn.Conv2d(3, width, 5, stride=4, padding=2)
        self.pairs = nn.ModuleList(convolution_pair(width) for _ in range(depth // 2))
        self.fc = nn.Linear(width, len(LABELS))

    def forward(self, x):
        x = self.stem(x).relu()  # (B, 24, 16, 16)
        for pair in self.pairs:
            shortcut = x if self.residual else 0
            x = (shortcut + pair(x)).relu()
        return self.fc(x.mean((2, 3)))  # (B, L)


# %%
images, labels = labelled_scenes("train", chapter.choose(5000, fast=192))
curves = {"plain": [], "residual": []}  # the loss of every step, smoothed, by seed
for seed in range(chapter.choose(2, fast=1)):
    for name in curves:
        torch.manual_seed(seed)
        stack = Stack(32, residual=name == "residual")
        losses = train_classifier(stack, images, labels, epochs=1, seed=seed)
        smooth = torch.tensor(losses).unfold(0, 5, 1).mean(1)  # means of 5 steps
        curves[name].append(smooth)
for name in curves:
    steps = []
    last = []
    for loss in curves[name]:
        below = (loss < 0.2).nonzero()
        steps.append(below[0].item() if len(below) else "never")
        last.append(f"{loss[-len(loss) // 4 :].mean():.4f}")
    print(f"{name:9} loss below 0.2 at step {steps},", end=" ")
    print(f"over the last quarter {', '.join(last)} (by seed)")

# %%
figure = Figure(figsize=(6, 3), dpi=100, layout="constrained")
axis = figure.subplots()
for name, colour in (("plain", RED), ("residual", GREEN)):
    for seed, loss in enumerate(curves[name]):
        axis.plot(loss, color=colour, label=name if seed == 0 else None)
axis.set(xlabel="step", ylabel="loss (mean of 5 steps)")
axis.set_title("32 convolutions, with and without shortcuts")
axis.legend()
axis.grid(alpha=0.3)
chapter.draw(figure, "a plain and a residual net of the same depth")

# %% [markdown]
# The loss that both reach here, about 0.17, is the plateau at which a network knows how common each
# label is, and little else. The residual network is below 0.2 in less than half as many steps as
# the plain one, with either seed. The usual explanation is that its gradients reach the first
# layers through the shortcuts, past all the others. On ImageNet, He et al. found that a plain
# network of 34 layers ends with a higher training error than one of 18, whereas a residual one does
# not.
#
# ## Train it
#
# What should an encoder know before anyone asks it for a sentence? **What is in the picture**:
# which of 32 nouns, 8 colours and 2 sizes. A picture has several of these labels, so each label is
# a yes-or-no question of its own, and the loss is the **binary cross-entropy**
#
# $$-\big(t \log \sigma(z) + (1-t) \log(1-\sigma(z))\big)$$
#
# with $t$ = 1 if the label applies, else 0, $z$ the network's output for it (its **logit**), and
# $\sigma$ the sigmoid. To train a network first on a task with plenty of data, for use in another,
# is **pre-training**. This is all there is to it:

# %%
show(train_classifier)

# %%
cnn = pretrained_cnn(chapter.folder / "cnn.pt", chapter.choose(30_000, fast=64))
count = chapter.choose(2000, fast=200)
test_images, test_labels = labelled_scenes("validation", count)
logits = predict_logits(cnn, test_images)  # (N, L)
scores = label_scores(logits > 0, test_labels)
kinds = {"nouns": slice(0, 32), "colours": slice(32, 40), "sizes": slice(40, 42)}
print("                     accuracy  precision  recall     F1")
for kind, part in kinds.items():
    number = part.stop - part.start
    accuracy, precision, recall, f1 = (100 * score[part].mean() for score in scores)
    print(f"mean of {number:2} {kind:8}  {accuracy:8.1f}", end="  ")
    print(f"{precision:9.1f}  {recall:6.1f}  {f1:5.1f}")

# %% [markdown]
# **Precision** is the fraction of the predicted labels that are right. **Recall** is the fraction
# of the true labels that are predicted. **F1** is their harmonic mean, $2PR/(P+R)$. **Accuracy** is
# the fraction of all yes-or-no answers that are right.
#
# ## Look

# %%
order = scores.f1[:32].argsort().tolist()  # the nouns, worst first
styles = {  # name -> marker, colour, scores
    "accuracy": ("|", RED, scores.accuracy),
    "precision": ("<", "#9ecae1", scores.precision),
    "recall": (">", "#4292c6", scores.recall),
    "F1": ("o", "#08306b", scores.f1),
}
figure = Figure(figsize=(7, 5.6), dpi=100, layout="constrained")
axis = figure.subplots()
for name, (marker, colour, values) in styles.items():
    axis.plot(values[order], range(32), marker, color=colour, markersize=6, label=name)
axis.set_yticks(range(32), [LABELS[i] for i in order], fontsize=8)
axis.set(xlabel="fraction", ylim=(-0.6, 31.6))
axis.set_xlim(chapter.choose(0.8, fast=-0.02), 1.01)
axis.grid(alpha=0.3)
axis.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
chapter.draw(figure, "accuracy precision recall and F1 of each noun")

# %% [markdown]
# **Which noun is taken for which?** In a picture with one noun, the largest logit is always right,
# as the first line below says. So we look at all pictures: a noun in the picture counts as
# predicted if its logit is above 0, and otherwise as confused with the absent noun that has the
# largest logit. Rows are the true nouns, columns the predicted ones; the diagonal is right.

# %%
true_nouns = test_labels[:, :32]  # (N, 32)
noun_logits = logits[:, :32]  # (N, 32)
single = true_nouns.sum(1) == 1
best = noun_logits[single].argmax(1, keepdim=True)
right = true_nouns[single].gather(1, best).float()
print("one noun in the picture: the largest logit is right", end=" ")
print(f"in {100 * right.mean():.1f} % of {len(right)}")

rows, target = true_nouns.nonzero(as_tuple=True)  # all pairs of a picture and its noun
absent = noun_logits.masked_fill(true_nouns, -torch.inf).argmax(1)  # (N,)
predicted = torch.where(noun_logits[rows, target] > 0, target, absent[rows])
matrix = confusion_matrix(predicted, target, 32)  # (32, 32)
print("the most common confusions:")
errors = matrix.clone().fill_diagonal_(0).flatten()
for index in errors.argsort(descending=True, stable=True)[:5].tolist():
    if errors[index]:
        row, column = divmod(index, 32)
        print(f"  {LABELS[row]} taken for {LABELS[column]}: {errors[index]}")

# %%
percent = 100 * matrix / matrix.sum(1, keepdim=True).clamp(min=1)
figure = Figure(figsize=(7, 6.4), dpi=100, layout="constrained")
axis = figure.subplots()
image = axis.imshow(percent, cmap="Blues", norm="symlog", vmin=0, vmax=100)
axis.set_xticks(range(32), list(NOUNS), rotation=90, fontsize=8)
axis.set_yticks(range(32), list(NOUNS), fontsize=8)
axis.set(xlabel="predicted", ylabel="true")
colorbar = figure.colorbar(image, ax=axis, shrink=0.6, label="% of the row")
colorbar.set_ticks([0, 1, 10, 100], labels=["0", "1", "10", "100"])
chapter.draw(figure, "confusion of the nouns")

# %% [markdown]
# **The filters of the first layer**, which are small colour pictures of 7 × 7, and the responses of
# some of them to one scene.

# %%
filters = cnn.conv1.weight.detach().cpu()  # (32, 3, 7, 7)
low = filters.amin((1, 2, 3), keepdim=True)
high = filters.amax((1, 2, 3), keepdim=True)
filters = (filters - low) / (high - low)
image = normalize(test_images[:1].to(cnn.conv1.weight.device))  # (1, 3, 64, 64)
with torch.no_grad():
    maps = cnn.conv1(image)[0].cpu()  # (32, 32, 32)
busiest = maps.flatten(1).std(1).argsort()[-3:]
shown = [test_images[0].permute(1, 2, 0), *maps[busiest]]

figure = Figure(figsize=(7, 3.2), dpi=100, layout="constrained")
axes = figure.subplots(4, 9)
for axis, weights in zip(axes[:, :8].T.flat, filters):
    axis.imshow(weights.permute(1, 2, 0))
for axis, picture in zip(axes[:, 8], shown):
    axis.imshow(picture, cmap="gray")
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
axes[0, 3].set_title("32 filters", fontsize=9, loc="left")
axes[0, 8].set_title("and 3 maps", fontsize=9)
chapter.draw(figure, "filters of the first layer")

# %% [markdown]
# ## What to notice
#
# A good score needs something to compare it with. Here are three controls that could expose ours: a
# network that always says **no** to every noun; our network's answers **shuffled**, each given to
# another picture; and nouns in colours that they **never had in training**.

# %%
answers = logits[:, :32] > 0  # (N, 32)
novel_images, novel_labels = labelled_scenes("compositional_test", len(test_images))
novel_answers = predict_logits(cnn, novel_images)[:, :32] > 0
cases = {  # name -> predicted, true
    "the CNN": (answers, true_nouns),
    "always no": (torch.zeros_like(true_nouns), true_nouns),
    "its answers, shuffled": (answers.roll(1, 0), true_nouns),
    "colours new to the noun": (novel_answers, novel_labels[:, :32]),
}
print(f"{'the 32 nouns':24}  accuracy  precision  recall     F1")
for name, (predicted, target) in cases.items():
    scores = label_scores(predicted, target, "micro")
    accuracy, precision, recall, f1 = (100 * score for score in scores)
    print(f"{name:24}{accuracy:10.1f}{precision:11.1f}{recall:8.1f}{f1:7.1f}")

# %% [markdown]
# **Accuracy fools.** "Always no" is right in 94 of 100 answers and knows nothing: most nouns are
# absent from most pictures. Its F1 is 0. With labels this rare, look at precision and recall.
# **Shuffled**, the same answers fall to an F1 of about 6: the network responds to the pictures, not
# just to how common each noun is. **New colours** cost about 3 points of F1: an anchor in a colour
# that no anchor had in training is mostly still an anchor. But there is a cost, so the network has
# not learned nouns entirely independently of colours.
#
# For every noun, recall is lower than precision: the network would rather miss an object than
# invent one. All these numbers come from one training run with one seed.
#
# One fact does not show here: the weights in the loss matter. With all labels weighted equally
# (without `weight` in `train_classifier`, all else the same), the nouns ended at an F1 of 62 and
# the colours at 100: the network learned the easy part, and features that distinguish colours say
# little about shapes.
#
# ## Your turn
#
# Write these yourself, from their docstrings. `python -m chapters.assignments start 2 --to work`
# writes the stubs, and `check 2 --from work` tests your code, with a hint where something is wrong.
#
# 1. `conv2d`: with `unfold` and one matrix product. 20 points, 120 minutes.
# 2. `BasicBlock.forward`: with `__init__` and `_shortcut`; where do the stride and the last ReLU belong? 8 points, 40
#    minutes.
# 3. `Bottleneck.forward`: with `__init__`; how wide is the shortcut around it? 5 points, 25 minutes.
# 4. `ResNet.__init__`: four stages from a list of depths, so that torchvision's weights load. 20 points, 100 minutes.
# 5. `VGG.__init__`: a loop within a loop, with every weight in its place. 10 points, 50 minutes.
# 6. `label_scores`: and what is the precision of a label that was never predicted? 10 points, 50 minutes.
# 7. `confusion_matrix`: without a loop. 4 points, 20 minutes.
#
# And three questions left open:
#
# 1. How would you find out whether the network tells a moon from a sun by its outline or by its area?
# 2. What happens to the receptive field, and to F1, if the first stride becomes 1?
# 3. Train only on the pairs of noun and colour that are held out here (`is_held_out_pair`), and test on the others: is
#    the gap in the last line the same the other way round?

# %%
chapter.finish()

# %% [markdown]
# ## Sources
#
# LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document recognition"
# · Simonyan and Zisserman 2014, "Very deep convolutional networks for large-scale image
# recognition" (VGG) · He, Zhang, Ren and Sun 2015, "Deep residual learning for image recognition"
# (ResNet; section 1 shows plain nets that get worse with depth) · Ioffe and Szegedy 2015, "Batch
# normalization" · Loshchilov and Hutter 2017, "Decoupled weight decay regularization" (AdamW) ·
# torchvision.models, whose state dicts load here.
