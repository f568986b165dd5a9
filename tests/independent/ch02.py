"""Right solutions of chapter 2's exercises, in other styles than the library's (see test_proofs.py)."""

# %% 2 conv2d
def conv2d(x, weight, bias=None, stride=1, padding=0):
    batch, channels, height, width = x.shape
    filters, depth, rows, columns = weight.shape
    if depth != channels:
        raise ValueError(f"{channels} channels, but filters of depth {depth}")
    padded = x.new_zeros(batch, channels, height + 2 * padding, width + 2 * padding)
    padded[:, :, padding : padding + height, padding : padding + width] = x
    out_height = (height + 2 * padding - rows) // stride + 1
    out_width = (width + 2 * padding - columns) // stride + 1
    if out_height < 1 or out_width < 1:
        raise ValueError("the filter is larger than the picture")
    result = x.new_zeros(batch, filters, out_height, out_width)
    for u in range(rows):
        for v in range(columns):
            down = u + stride * (out_height - 1) + 1
            right = v + stride * (out_width - 1) + 1
            window = padded[:, :, u:down:stride, v:right:stride]
            result = result + torch.einsum("bchw,oc->bohw", window, weight[:, :, u, v])
    return result if bias is None else result + bias.reshape(1, -1, 1, 1)


# %% 2 BasicBlock.forward
def conv3x3(inside, outside, stride):
    return nn.Conv2d(inside, outside, kernel_size=3, stride=stride, padding=1, bias=False)


def _shortcut(in_channels, out_channels, stride):
    fits = stride == 1 and in_channels == out_channels
    if not fits:
        projection = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)
        return nn.Sequential(projection, nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    def __init__(self, in_channels, channels, stride=1):
        super(BasicBlock, self).__init__()
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.conv2 = conv3x3(channels, channels, 1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride)

    def forward(self, x, modulation=None):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if modulation is not None:
            scale, shift = modulation
            out = modulate(out, scale, shift)
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


# %% 2 Bottleneck.forward
from typing import Optional

WIDER = 4


class Bottleneck(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        sizes = [(in_channels, channels, 1, 1), (channels, channels, 3, stride)]
        sizes.append((channels, channels * WIDER, 1, 1))
        for number, (inside, outside, kernel, step) in enumerate(sizes, start=1):
            convolution = nn.Conv2d(inside, outside, kernel, step, kernel // 2, bias=False)
            self.add_module(f"conv{number}", convolution)
            self.add_module(f"bn{number}", nn.BatchNorm2d(outside))
        self.downsample = _shortcut(in_channels, channels * WIDER, stride)

    def forward(self, x: Tensor, modulation: Optional[tuple] = None) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        out = torch.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if modulation:
            out = modulate(out, *modulation)
        return torch.relu(out + (self.downsample(x) if self.downsample else x))


# %% 2 ResNet.__init__
class ResNet(nn.Module):
    def __init__(self, depth, num_classes=1000, width=64):
        super().__init__()
        if isinstance(depth, int):
            if depth not in ResNet.STAGES:
                raise ValueError("depth must be one of %s" % sorted(ResNet.STAGES))
            counts, kind = ResNet.STAGES[depth], (BasicBlock if depth < 50 else Bottleneck)
        else:
            counts, kind = tuple(depth), BasicBlock
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.stages, self.block_channels = [], []
        self._channels = width
        for stage, count in enumerate(counts):
            self.stages.append("layer%d" % (stage + 1))
            self.add_module(self.stages[-1], self._stage(kind, width << stage, count, stage > 0))
        self.out_channels = self._channels
        self.fc = nn.Identity()
        if num_classes is not None:
            self.fc = nn.Linear(self.out_channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _stage(self, kind, channels, count, halves):
        blocks = nn.Sequential()
        for number in range(count):
            stride = 2 if halves and number == 0 else 1
            blocks.append(kind(self._channels, channels, stride))
            self._channels = channels * kind.expansion
            self.block_channels.append(self._channels)
        return blocks


# %% 2 VGG.__init__
WIDTHS = 64, 128, 256, 512, 512


def _stage(in_channels, channels, count, batch_norm):
    layers = []
    for number in range(count):
        conv = nn.Conv2d(channels if number else in_channels, channels, (3, 3), padding="same")
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.constant_(conv.bias, 0)
        layers += [conv, nn.BatchNorm2d(channels), nn.ReLU()] if batch_norm else [conv, nn.ReLU()]
    return layers + [nn.MaxPool2d(kernel_size=2, stride=2)]


def _classifier(num_classes):
    layers = []
    for inputs in (512 * 49, 4096):
        layers.extend((nn.Linear(inputs, 4096), nn.ReLU(), nn.Dropout(p=0.5)))
    return nn.Sequential(*layers, nn.Linear(4096, num_classes))


class VGG(nn.Module):
    def __init__(self, depth, batch_norm=False, num_classes=1000):
        nn.Module.__init__(self)
        if depth not in (11, 13, 16, 19):
            raise ValueError(f"no VGG has {depth} layers")
        layers, before = [], 3
        for stage in range(5):
            layers += _stage(before, WIDTHS[stage], self.CONVOLUTIONS[depth][stage], batch_norm)
            before = WIDTHS[stage]
        self.features = nn.Sequential(*layers)
        self.out_channels = before
        self.classifier = _classifier(num_classes) if num_classes is not None else nn.Identity()


# %% 2 label_scores
def _ratio(numerator, denominator):
    """numerator / denominator, and 0 where the denominator is 0."""
    safe = torch.where(denominator == 0, torch.ones_like(denominator), denominator)
    return torch.where(denominator == 0, torch.zeros(()), numerator / safe)


def label_scores(predicted, true, average=None):
    if average is not None and average != "micro":
        raise ValueError(f"unknown average {average}")
    for labels in (predicted, true):
        if labels.dtype is not torch.bool:
            raise ValueError(f"labels must be bool, these are {labels.dtype}")
    if predicted.ndim != 2 or true.ndim != 2 or tuple(predicted.shape) != tuple(true.shape):
        raise ValueError(f"shapes {predicted.shape} and {true.shape} do not fit")
    if 0 in predicted.shape:
        raise ValueError("there is nothing to score")
    counts = {
        "tp": predicted & true,
        "fp": predicted & ~true,
        "fn": ~predicted & true,
        "tn": ~predicted & ~true,
    }
    axes = (0, 1) if average == "micro" else 0
    tp, fp, fn, tn = (counts[name].float().sum(axes) for name in ("tp", "fp", "fn", "tn"))
    return LabelScores(
        accuracy=(tp + tn) / (tp + fp + fn + tn),
        precision=_ratio(tp, tp + fp),
        recall=_ratio(tp, tp + fn),
        f1=_ratio(2 * tp, 2 * tp + fp + fn),
    )


# %% 2 confusion_matrix
import numpy as np

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def confusion_matrix(predicted, true, num_classes):
    if predicted.ndim != 1 or true.ndim != 1 or len(predicted) != len(true):
        raise ValueError("two vectors of equal length are needed")
    table = np.zeros((num_classes, num_classes), dtype=np.int64)
    for classes in (predicted, true):
        if classes.dtype not in INTEGERS:
            raise ValueError(f"classes are integers, not {classes.dtype}")
        for number in classes.tolist():
            if not 0 <= number < num_classes:
                raise ValueError(f"there is no class {number}")
    for row, column in zip(true.tolist(), predicted.tolist()):
        table[row, column] += 1
    return torch.from_numpy(table)
