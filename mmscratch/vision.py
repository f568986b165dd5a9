"""Vision: convolution by hand, ResNet, VGG, MobileNetV2, ViT, and the image encoder.

`ResNet`, `VGG` and `MobileNetV2` name their parameters as torchvision does, so a state dict made
there loads here.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Memory
from .film import FiLM, Modulation, modulate
from .images import normalize
from .transformer import TransformerBlock


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0
) -> Tensor:
    """Convolution as one matrix product.

        y[b, o, i, j] = bias[o] + Σ_{c,u,v} weight[o, c, u, v] · x[b, c, i·stride + u, j·stride + v]

    x (B, C, H, W), weight (O, C, U, V), bias (O) -> (B, O, H', W'), where H' is
    (H + 2 padding - U) // stride + 1 and W' likewise. The same as `F.conv2d` without groups.
    What deep learning calls convolution is cross-correlation: the filter is not flipped.
    """
    x = F.pad(x, (padding,) * 4)
    _, C, H, W = x.shape
    _, in_channels, U, V = weight.shape
    if C != in_channels:
        raise ValueError(f"the picture has {C} channels, the filters expect {in_channels}")
    if H < U or W < V:
        raise ValueError(f"a padded picture of {H} × {W} is smaller than the filter, {U} × {V}")
    windows = x.unfold(2, U, stride).unfold(3, V, stride)  # (B, C, H', W', U, V)
    windows = windows.permute(0, 2, 3, 1, 4, 5).flatten(3)  # (B, H', W', C·U·V)
    y = windows @ weight.flatten(1).T  # (B, H', W', O)
    if bias is not None:
        y = y + bias
    return y.permute(0, 3, 1, 2)  # (B, O, H', W')


def depthwise_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0
) -> Tensor:
    """Convolution with one filter for each channel; channels do not mix.

        y[b, c, i, j] = bias[c] + Σ_{u,v} weight[c, 0, u, v] · x[b, c, i·stride + u, j·stride + v]

    x (B, C, H, W), weight (C, 1, U, V), bias (C) -> (B, C, H', W'), sizes as in `conv2d`. The same
    as `F.conv2d` with groups=C. It costs H'·W'·C·U·V multiplications, 1 / O of `conv2d`'s.
    Raises ValueError for filters of another number or depth, or larger than the padded picture.
    """
    x = F.pad(x, (padding,) * 4)
    _, C, H, W = x.shape
    filters, depth, U, V = weight.shape
    if (filters, depth) != (C, 1):
        raise ValueError(
            f"{C} channels need {C} filters of depth 1, not {filters} of depth {depth}"
        )
    if H < U or W < V:
        raise ValueError(f"a padded picture of {H} × {W} is smaller than the filter, {U} × {V}")
    height = (H - U) // stride + 1
    width = (W - V) // stride + 1
    y = x.new_zeros(len(x), C, height, width)
    for u in range(U):
        for v in range(V):
            shifted = x[:, :, u::stride, v::stride][:, :, :height, :width]  # (B, C, H', W')
            y = y + weight[:, :, u, v].unsqueeze(2) * shifted
    if bias is not None:
        y = y + bias[:, None, None]
    return y


def _conv(in_channels: int, out_channels: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, bias=False)


class BasicBlock(nn.Module):
    """relu(x + bn(conv3×3(relu(bn(conv3×3(x)))))): the block of ResNet-18 and 34.

    A question modulates what comes out of the last batch norm (see `film.modulate`).
    """

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int = 1):
        super().__init__()
        self.conv1 = _conv(in_channels, channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor, modulation: Modulation | None = None) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if modulation:
            y = modulate(y, *modulation)
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(y + shortcut)


class Bottleneck(nn.Module):
    """The block of ResNet-50 and deeper: 1×1 to fewer channels, 3×3, 1×1 to four times as many.

    The stride is in the 3×3, as in torchvision ("ResNet v1.5"); He et al. have it in the first 1×1.
    A question modulates what comes out of the last batch norm, as in `BasicBlock`.
    """

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1):
        super().__init__()
        self.conv1 = _conv(in_channels, channels, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = _conv(channels, 4 * channels, 1)
        self.bn3 = nn.BatchNorm2d(4 * channels)
        self.downsample = _shortcut(in_channels, 4 * channels, stride)

    def forward(self, x: Tensor, modulation: Modulation | None = None) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        if modulation:
            y = modulate(y, *modulation)
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(y + shortcut)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(_conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


class ResNet(nn.Module):
    """Residual network: (B, 3, H, W) -> `features` (B, C, H/32, W/32) -> logits (B, num_classes).

    `depth` is 18, 34, 50, 101 or 152, or, for smaller networks, the number of basic blocks in each
    stage, such as [1, 1, 1]. Each stage has twice the channels of the one before, and from the
    second on half the height and width. `width` is the number of channels of the first stage. With
    `num_classes=None` there is no classifier.

    stages          the names of its stages, "layer1", "layer2", …, each an nn.Sequential of blocks
    block_channels  the number of channels that come out of each block, for `FiLM`
    out_channels    C

    Source: He et al. 2015, "Deep residual learning"; the state dicts of torchvision.models.resnet
    load.
    """

    STAGES = {
        18: (2, 2, 2, 2),
        34: (3, 4, 6, 3),
        50: (3, 4, 6, 3),
        101: (3, 4, 23, 3),
        152: (3, 8, 36, 3),
    }

    def __init__(self, depth: int | Sequence[int], num_classes: int | None = 1000, width: int = 64):
        super().__init__()
        if isinstance(depth, int) and depth not in self.STAGES:
            depths = ", ".join(map(str, self.STAGES))
            raise ValueError(f"no ResNet of depth {depth}: choose one of {depths} or a list")
        num_blocks = self.STAGES[depth] if isinstance(depth, int) else depth  # of each stage
        block = Bottleneck if isinstance(depth, int) and depth >= 50 else BasicBlock
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.stages = []  # the names of the modules
        self.block_channels = []  # how many channels each block has, for `FiLM`
        in_channels = width
        for i, count in enumerate(num_blocks):
            channels = width * 2**i
            blocks = []
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(block(in_channels, channels, stride))
                in_channels = channels * block.expansion
                self.block_channels.append(in_channels)
            name = f"layer{i + 1}"
            self.stages.append(name)
            self.add_module(name, nn.Sequential(*blocks))
        self.out_channels = in_channels
        self.fc = nn.Linear(in_channels, num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: Tensor, modulations: Sequence[Modulation] | None = None) -> Tensor:
        """The feature map of the last stage, (B, C, H/32, W/32) with four stages.

        modulations  the scale and the shift of each block, from `FiLM`
        """
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        blocks = [block for stage in self.stages for block in self.get_submodule(stage)]
        for i, block in enumerate(blocks):
            x = block(x, modulations[i] if modulations else None)
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).mean((2, 3))  # (B, C)
        return self.fc(x)  # (B, num_classes)


class VGG(nn.Module):
    """Stacks of 3×3 convolutions: (B, 3, H, W) -> `features` (B, 512, H/32, W/32) -> logits.

    `depth` is 11, 13, 16 or 19; the logits are (B, num_classes), and with `num_classes=None` there
    is no classifier. `out_channels` is 512, for the encoder that reads `features`.
    Source: Simonyan & Zisserman 2014; torchvision.models.vgg, whose state dicts load.
    """

    CONVOLUTIONS = {  # in each stage
        11: (1, 1, 2, 2, 2),
        13: (2, 2, 2, 2, 2),
        16: (2, 2, 3, 3, 3),
        19: (2, 2, 4, 4, 4),
    }

    def __init__(self, depth: int, batch_norm: bool = False, num_classes: int | None = 1000):
        super().__init__()
        if not isinstance(depth, int) or depth not in self.CONVOLUTIONS:
            depths = ", ".join(map(str, self.CONVOLUTIONS))
            raise ValueError(f"no VGG of depth {depth}: choose one of {depths}")
        layers = []
        in_channels = 3
        for channels, convolutions in zip((64, 128, 256, 512, 512), self.CONVOLUTIONS[depth]):
            for _ in range(convolutions):
                layers.append(nn.Conv2d(in_channels, channels, 3, padding=1))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(channels))
                layers.append(nn.ReLU())
                in_channels = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.out_channels = in_channels
        self.classifier = nn.Identity()
        if num_classes:
            self.classifier = nn.Sequential(
                nn.Linear(512 * 7 * 7, 4096),
                nn.ReLU(),
                nn.Dropout(),
                nn.Linear(4096, 4096),
                nn.ReLU(),
                nn.Dropout(),
                nn.Linear(4096, num_classes),
            )
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(x), 7)  # (B, 512, 7, 7)
        return self.classifier(x.flatten(1))  # (B, num_classes)


class InvertedResidual(nn.Module):
    """x + conv1×1(depthwise3×3(conv1×1(x))): the block of MobileNetV2.

        y = relu6(bn(expand x));  y = relu6(bn(depthwise y));  y = bn(project y)
        x + y  if it has the shape of x, else y

    The first 1×1 makes `expansion` times as many channels (with 1, it is left out), the depthwise
    3×3 has the stride, and the last 1×1 returns to few: residuals are narrow and the inside is
    wide, the inverse of `Bottleneck`. There is no ReLU after the last one (a "linear bottleneck"):
    among few channels, it would lose what it cuts off. relu6(x) = min(max(x, 0), 6).

    The weights of torchvision's InvertedResidual load here: all layers are in the Sequential `conv`,
    where each of the first two lines is a Sequential of its three layers.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1, expansion: int = 6):
        super().__init__()
        hidden = expansion * in_channels
        layers = []
        if expansion > 1:
            layers.append(_conv_bn_relu6(in_channels, hidden, 1))
        layers.append(_conv_bn_relu6(hidden, hidden, 3, stride, groups=hidden))
        layers.append(_conv(hidden, channels, 1))
        layers.append(nn.BatchNorm2d(channels))
        self.conv = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return x + y if self.has_shortcut else y


def _conv_bn_relu6(
    in_channels: int, channels: int, size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(
        in_channels, channels, size, stride, padding=size // 2, groups=groups, bias=False
    )
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU6())


class MobileNetV2(nn.Module):
    """Inverted residuals: (B, 3, H, W) -> `features` (B, 1280, H/32, W/32) -> logits.

    The logits are (B, num_classes), and with `num_classes=None` there is no classifier.
    Source: Sandler et al. 2018, "MobileNetV2: inverted residuals and linear bottlenecks";
    torchvision.models.mobilenet_v2, whose state dict loads.
    """

    STAGES = (  # expansion, channels, blocks, stride of the first block
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(self, num_classes: int | None = 1000):
        super().__init__()
        layers = [_conv_bn_relu6(3, 32, 3, stride=2)]
        in_channels = 32
        for expansion, channels, count, stride in self.STAGES:
            for i in range(count):
                block_stride = stride if i == 0 else 1
                layers.append(InvertedResidual(in_channels, channels, block_stride, expansion))
                in_channels = channels
        self.out_channels = 1280
        layers.append(_conv_bn_relu6(in_channels, self.out_channels, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Identity()
        if num_classes:
            self.classifier = nn.Sequential(
                nn.Dropout(0.2), nn.Linear(self.out_channels, num_classes)
            )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).mean((2, 3))  # (B, 1280)
        return self.classifier(x)  # (B, num_classes)


def _check_size(images: Tensor, size: int) -> None:
    if images.shape[1:] != (3, size, size):
        given = " × ".join(map(str, images.shape[1:]))
        raise ValueError(f"pictures of 3 × {size} × {size} were expected, not {given}")


class VisionTransformer(nn.Module):
    """A Transformer that reads patches as words.

        x = [class token, E patch₁, …, E patch_N] + positions
        logits = W norm(blocks(x))₀

    (B, 3, S, S) -> `features` (B, D, S/P, S/P) -> logits (B, num_classes). S is `image_size`
    and P `patch_size`, in pixels; D is `hidden_dim`. The class token is a learned vector in front
    of the patches, which collects what the classifier needs; with `num_classes=None` there is
    no classifier.
    Source: Dosovitskiy et al. 2020, "An image is worth 16×16 words"; torchvision's vit_b_16,
    whose weights load through `weights.load_torchvision`. Unlike there, `dropout` also drops
    attention weights.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        num_layers: int,
        num_heads: int,
        hidden_dim: int,
        mlp_dim: int,
        num_classes: int | None = 1000,
        dropout: float = 0.0,
    ):
        super().__init__()
        if image_size % patch_size:
            raise ValueError(
                f"image_size {image_size} is not a multiple of patch_size {patch_size}"
            )
        self.image_size = image_size
        self.patch_size = patch_size
        self.out_channels = hidden_dim
        self.dropout = dropout
        num_patches = (image_size // patch_size) ** 2
        self.conv_proj = nn.Conv2d(3, hidden_dim, patch_size, stride=patch_size)  # E
        self.class_token = nn.Parameter(torch.zeros(1, 1, hidden_dim))
        self.positions = nn.Parameter(torch.randn(1, 1 + num_patches, hidden_dim) * 0.02)
        settings = {"dropout": dropout, "mlp_dim": mlp_dim, "norm_eps": 1e-6}
        blocks = [TransformerBlock(hidden_dim, num_heads, **settings) for _ in range(num_layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(hidden_dim, 1e-6)
        self.head = nn.Linear(hidden_dim, num_classes) if num_classes else nn.Identity()
        nn.init.trunc_normal_(self.conv_proj.weight, std=(3 * patch_size**2) ** -0.5)
        nn.init.zeros_(self.conv_proj.bias)
        if num_classes:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def features(self, x: Tensor) -> Tensor:
        """The patches after the last norm, without the class token, as a feature map like a CNN's.

        (B, 3, S, S) -> (B, D, S/P, S/P): each patch at its row and column of the picture.
        """
        rows = self.image_size // self.patch_size
        patches = self._encode(x)[:, 1:]  # (B, N, D)
        return patches.transpose(1, 2).unflatten(2, (rows, rows))  # (B, D, S/P, S/P)

    def forward(self, x: Tensor) -> Tensor:
        class_token = self._encode(x)[:, 0]  # (B, D)
        return self.head(class_token)  # (B, num_classes)

    def _encode(self, x: Tensor) -> Tensor:
        """The class token and the N patches, row by row: (B, 3, S, S) -> (B, 1 + N, D).

        `conv_proj` projects each patch to a vector; the class token is put in front; `positions`
        are added to all. Then come dropout of the sum, in training only, the blocks, and `norm`.
        `_check_size` raises ValueError for pictures of another size.
        """
        _check_size(x, self.image_size)
        patches = self.conv_proj(x)  # (B, D, S/P, S/P)
        patches = patches.flatten(2).transpose(1, 2)  # (B, N, D), row by row
        class_token = self.class_token.expand(len(x), -1, -1)  # (B, 1, D)
        x = torch.cat([class_token, patches], dim=1)  # (B, 1 + N, D)
        x = F.dropout(x + self.positions, self.dropout, self.training)
        for block in self.blocks:
            x, _, _ = block(x)
        return self.norm(x)


class ImageEncoder(nn.Module):
    """A picture -> a memory: the backbone's feature map, projected, with learned positions.

    images (B, 3, size, size) uint8 -> Memory (B, N, embed_dim), N being the positions of the
    feature map, row by row. Instead of pictures, they may be the backbone's features of them,
    (B, C, h, w) float16 (see `features.FeatureCache`). The features do not say where in the picture they are: the learned
    vector of each position does. In the `num_layers` Transformer blocks the positions attend to one
    another, so that each can know about the rest of the picture. With `attend_first` they do so
    before the projection, at the width of the backbone, which costs less if that is small.

    `film` is the modality that steers the backbone, a `ResNet`: with "source", the question's mean
    vector (B, embed_dim) is given as `question`, and `FiLM` modulates each block by it.

    In training, a batch of a single picture whose feature map has a single position is normalized by
    the running statistics: it has none of its own.
    """

    def __init__(
        self,
        backbone: nn.Module,
        embed_dim: int,
        image_size: int,
        num_layers: int = 0,
        film: str = "",
        attend_first: bool = False,
    ):
        super().__init__()
        self.steered_by = film
        self.film = FiLM(embed_dim, backbone.block_channels) if film else None
        self.backbone = backbone
        self.image_size = image_size
        self.projection = nn.Linear(backbone.out_channels, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)
        training = backbone.training
        backbone.eval()  # a blank picture must not enter the batch-norm statistics
        with torch.no_grad():
            features = backbone.features(torch.zeros(1, 3, image_size, image_size))  # (1, C, h, w)
        backbone.train(training)
        num_positions = features[0, 0].numel()  # h·w
        self.position = nn.Parameter(torch.randn(num_positions, embed_dim) * 0.2)
        width = backbone.out_channels if attend_first else embed_dim
        settings = {"num_heads": max(1, embed_dim // 64), "mlp_dim": 2 * width}
        blocks = [TransformerBlock(width, **settings) for _ in range(num_layers)]
        self.blocks = nn.ModuleList(blocks)
        self.block_position = None
        if attend_first and num_layers:
            self.block_position = nn.Parameter(torch.randn(num_positions, width) * 0.2)

    def forward(self, images: Tensor, question: Tensor | None = None) -> Memory:
        if images.dtype == torch.float16:  # they are features
            return self.encode_features(images.to(self.position.dtype))
        _check_size(images, self.image_size)
        images = normalize(images)
        steering = [] if question is None else [self.film(question)]
        if self.backbone.training and len(images) == len(self.position) == 1:
            self.backbone.eval()
            grid = self.backbone.features(images, *steering)  # (1, C, 1, 1)
            self.backbone.train()
        else:
            grid = self.backbone.features(images, *steering)  # (B, C, h, w)
        return self.encode_features(grid)

    def encode_features(self, grid: Tensor) -> Memory:
        """The backbone's features (B, C, h, w) -> Memory (B, h·w, D).

        The features of a frozen backbone can be computed once and kept.
        """
        tokens = grid.flatten(2).transpose(1, 2)  # (B, h·w, C)
        if self.block_position is not None:
            tokens = self._attend(tokens + self.block_position)
        tokens = self.norm(self.projection(tokens) + self.position)  # (B, h·w, D)
        if self.block_position is None:
            tokens = self._attend(tokens)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return Memory(tokens, mask)

    def _attend(self, tokens: Tensor) -> Tensor:
        """Let the positions attend to one another: tokens (B, h·w, width) -> the same shape."""
        for block in self.blocks:
            tokens, _, _ = block(tokens)
        return tokens


def resnet_encoder(
    embed_dim: int,
    image_size: int = 64,
    num_layers: int = 0,
    depth: int | Sequence[int] = (1, 1),
    width: int = 32,
    film: str = "",
    attend_first: bool = False,
) -> ImageEncoder:
    """An `ImageEncoder` with a `ResNet` as its backbone."""
    backbone = ResNet(depth, num_classes=None, width=width)
    return ImageEncoder(backbone, embed_dim, image_size, num_layers, film, attend_first)


def vgg_encoder(
    embed_dim: int, image_size: int = 64, num_layers: int = 0, depth: int = 11
) -> ImageEncoder:
    """An `ImageEncoder` with a `VGG` with batch norm as its backbone."""
    backbone = VGG(depth, batch_norm=True, num_classes=None)
    return ImageEncoder(backbone, embed_dim, image_size, num_layers)


def mobilenet_encoder(embed_dim: int, image_size: int = 64, num_layers: int = 0) -> ImageEncoder:
    """An `ImageEncoder` with `MobileNetV2` as its backbone."""
    backbone = MobileNetV2(num_classes=None)
    return ImageEncoder(backbone, embed_dim, image_size, num_layers)


def vit_encoder(
    embed_dim: int,
    image_size: int = 64,
    num_layers: int = 0,
    depth: int = 2,
    hidden_dim: int = 256,
) -> ImageEncoder:
    """An `ImageEncoder` with a `VisionTransformer` as its backbone: patches of 8 × 8 pixels."""
    sizes = {"num_layers": depth, "hidden_dim": hidden_dim, "mlp_dim": 4 * hidden_dim}
    num_heads = max(1, hidden_dim // 64)
    backbone = VisionTransformer(image_size, 8, num_heads=num_heads, num_classes=None, **sizes)
    return ImageEncoder(backbone, embed_dim, image_size, num_layers)
