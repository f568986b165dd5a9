"""Convolution by hand and the CNNs against torch and torchvision, the ViT, the image encoder."""

import pytest
import torch
import torch.nn.functional as F
from helpers import IMAGE, LSTM, random_double, tiny_trainer
from reference import torchvision
from torch import nn
from torch.testing import assert_close

from mmscratch.images import normalize
from mmscratch.vision import (
    BasicBlock,
    Bottleneck,
    ImageEncoder,
    InvertedResidual,
    MobileNetV2,
    ResNet,
    VGG,
    VisionTransformer,
    conv2d,
    depthwise_conv2d,
    resnet_encoder,
)
from mmscratch.weights import from_torchvision_vit

VIT = {"image_size": 35, "patch_size": 5, "num_layers": 2, "num_heads": 3, "hidden_dim": 33,
       "mlp_dim": 17}  # fmt: skip


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (2, 5), (7, 3)], ids=str)
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_conv2d_agrees_with_torch(size, padding, stride, bias):
    shapes = [(2, 3, 11, 13), (5, 3, *size)] + [(5,)] * bias
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    output, expected = (f(*inputs, stride=stride, padding=padding) for f in (conv2d, F.conv2d))
    assert_close(output, expected)
    upstream = torch.randn_like(expected)
    gradients = torch.autograd.grad(output, inputs, upstream)
    assert_close(gradients, torch.autograd.grad(expected, inputs, upstream))


def test_conv2d_refuses_mismatched_shapes():
    with pytest.raises(ValueError, match="3 channels.* expect 5"):
        conv2d(torch.zeros(2, 3, 11, 13), torch.zeros(7, 5, 1, 1))
    with pytest.raises(ValueError, match="13 × 15 is smaller than the filter, 17 × 1"):
        conv2d(torch.zeros(2, 3, 11, 13), torch.zeros(7, 3, 17, 1), padding=1)
    fitting = conv2d(torch.zeros(2, 3, 11, 13), torch.zeros(7, 3, 13, 15), padding=1)
    assert fitting.shape == (2, 7, 1, 1)


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (2, 5), (7, 3)], ids=str)
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_depthwise_conv2d_agrees_with_torch(size, padding, stride, bias):
    shapes = [(2, 5, 11, 13), (5, 1, *size)] + [(5,)] * bias
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    settings = {"stride": stride, "padding": padding}
    output = depthwise_conv2d(*inputs, **settings)
    expected = F.conv2d(*inputs, groups=5, **settings)
    assert_close(output, expected)
    upstream = torch.randn_like(expected)
    gradients = torch.autograd.grad(output, inputs, upstream)
    assert_close(gradients, torch.autograd.grad(expected, inputs, upstream))


def test_depthwise_conv2d_refuses_mismatched_shapes():
    for shape in [(7, 1, 3, 3), (3, 3, 3, 3), (1, 1, 3, 3)]:
        with pytest.raises(ValueError):
            depthwise_conv2d(torch.zeros(2, 3, 11, 13), torch.zeros(shape))
    with pytest.raises(ValueError):
        depthwise_conv2d(torch.zeros(2, 3, 11, 13), torch.zeros(3, 1, 17, 1), padding=1)


def assert_same_model(ours, reference, gradients=False, shape=(2, 3, 61, 67)):
    """With the reference's weights, `ours` gives the same in both modes; dropout draws the same."""
    for norm in (module for module in reference.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_(std=0.1)
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 1.5)
    ours.load_state_dict(reference.state_dict(), strict=True)
    pictures = torch.randn(shape)
    for training in (False, True):
        outputs = []
        for model in (ours, reference):
            torch.manual_seed(1)
            with torch.set_grad_enabled(gradients and training):
                outputs.append(model.train(training)(pictures))
        scale = outputs[1].abs().max().item()
        assert_close(outputs[0], outputs[1], rtol=0, atol=1e-5 * scale)
    for (name, buffer), expected in zip(ours.named_buffers(), reference.buffers(), strict=True):
        assert_close(buffer, expected, rtol=1e-5, atol=1e-5, msg=lambda text: f"{name}: {text}")
    if gradients:
        upstream = torch.randn_like(outputs[0])
        grads = torch.autograd.grad(outputs[0], list(ours.parameters()), upstream)
        expected_grads = torch.autograd.grad(outputs[1], list(reference.parameters()), upstream)
        names = [name for name, _ in ours.named_parameters()]
        for name, grad, expected in zip(names, grads, expected_grads, strict=True):
            atol = 1e-5 * expected.abs().max().item()
            assert_close(grad, expected, rtol=0, atol=atol, msg=lambda s: f"{name}: {s}")


def assert_same_block(block, in_channels, channels, stride):
    """The same as torchvision's block of that name, with the shortcut of torchvision's ResNet."""
    out_channels = channels * block.expansion
    shortcut = None
    if stride > 1 or in_channels != out_channels:
        convolution = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        shortcut = nn.Sequential(convolution, nn.BatchNorm2d(out_channels))
    reference_block = getattr(torchvision.models.resnet, block.__name__)
    reference = reference_block(in_channels, channels, stride, shortcut)
    ours = block(in_channels, channels, stride)
    assert_same_model(ours, reference, gradients=True, shape=(2, in_channels, 11, 13))


def assert_same_shapes(ours, reference):
    """Both state dicts have the same names and shapes."""
    shapes = {name: tensor.shape for name, tensor in ours.items()}
    assert shapes == {name: tensor.shape for name, tensor in reference.items()}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("in_channels", [5, 7])
def test_basic_block_agrees_with_torchvision(in_channels, stride):
    assert_same_block(BasicBlock, in_channels, 5, stride)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("in_channels", [20, 7])
def test_bottleneck_agrees_with_torchvision(in_channels, stride):
    assert_same_block(Bottleneck, in_channels, 5, stride)


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_blocks_are_modulated_after_the_last_batch_norm(block):
    channels = 3 * block.expansion
    ours = block(channels, 3).eval()
    x = torch.randn(2, channels, 11, 13)
    scale, shift = torch.randn(2, 2, channels, 1, 1)  # each (B, C, 1, 1)
    last = ours.bn2 if block is BasicBlock else ours.bn3
    modulated = ours(x, (scale[:, :, 0, 0], shift[:, :, 0, 0]))
    last.register_forward_hook(lambda _module, _inputs, y: scale * y + shift)
    assert_close(modulated, ours(x))


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_resnet_agrees_with_torchvision(depth):
    reference = torchvision.models.get_model(f"resnet{depth}", num_classes=13)
    assert_same_model(ResNet(depth, num_classes=13), reference)


@pytest.mark.parametrize("depth", [101, 152])
def test_deep_resnet_has_the_parameters_of_torchvision(depth):
    with torch.device("meta"):
        ours = ResNet(depth)
        reference = torchvision.models.get_model(f"resnet{depth}")
    assert_same_shapes(ours.state_dict(), reference.state_dict())


def test_resnet_of_a_list_of_stages_agrees_with_torchvision():
    resnet = torchvision.models.resnet
    reference = resnet.ResNet(resnet.BasicBlock, [1, 2, 1, 1], num_classes=13)
    assert_same_model(ResNet([1, 2, 1, 1], num_classes=13), reference, gradients=True)


@pytest.mark.parametrize("expansion", [1, 6])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("in_channels", [5, 7])
def test_inverted_residual_agrees_with_torchvision(in_channels, stride, expansion):
    reference = torchvision.models.mobilenetv2.InvertedResidual(in_channels, 5, stride, expansion)
    ours = InvertedResidual(in_channels, 5, stride, expansion)
    assert_same_model(ours, reference, gradients=True, shape=(2, in_channels, 11, 13))


def test_mobilenet_agrees_with_torchvision():
    reference = torchvision.models.mobilenet_v2(num_classes=13)
    ours = MobileNetV2(num_classes=13)
    assert_same_model(ours, reference, gradients=True, shape=(4, 3, 61, 67))
    assert_same_shapes(MobileNetV2().state_dict(), torchvision.models.mobilenet_v2().state_dict())


@pytest.mark.parametrize(("depth", "batch_norm"), [(11, True), (13, False), (16, True), (19, False)])
def test_vgg_agrees_with_torchvision(depth, batch_norm):
    reference = torchvision.models.get_model(f"vgg{depth}" + "_bn" * batch_norm, num_classes=13)
    with torch.device("meta"):  # no time for weights that are overwritten
        ours = VGG(depth, batch_norm, num_classes=13)
    assert_same_model(ours.to_empty(device="cpu"), reference)


@pytest.mark.parametrize("batch_norm", [False, True], ids=["plain", "batch norm"])
@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_vgg_has_the_parameters_of_torchvision(depth, batch_norm):
    with torch.device("meta"):
        ours = VGG(depth, batch_norm)
        reference = torchvision.models.get_model(f"vgg{depth}" + "_bn" * batch_norm)
    assert_same_shapes(ours.state_dict(), reference.state_dict())


@pytest.mark.parametrize("batch_norm", [False, True], ids=["plain", "batch norm"])
def test_vgg_features_agree_with_torchvision(batch_norm):
    ours = VGG(11, batch_norm, num_classes=None)
    with torch.device("meta"):
        reference = torchvision.models.get_model("vgg11" + "_bn" * batch_norm).features
    reference = reference.to_empty(device="cpu")
    reference.load_state_dict(ours.features.state_dict(), strict=True)
    assert_same_model(ours.features, reference)
    assert ours.out_channels == 512


@pytest.mark.parametrize("model", [ResNet, VGG])
def test_unknown_depths_are_refused(model):
    with pytest.raises(ValueError, match=f"no {model.__name__} of depth 17: choose one of 1.*, "):
        model(17)


def test_resnet_features_have_the_documented_shape():
    model = ResNet([1, 2, 1], width=5)
    assert model.out_channels == 20
    assert model.features(torch.zeros(2, 3, 61, 67)).shape == (2, 20, 4, 5)
    assert model.stages == ["layer1", "layer2", "layer3"] and len(model.layer2) == 2
    assert model.block_channels == [5, 10, 10, 20]
    deep = ResNet(50, width=3)
    assert deep.out_channels == 3 * 8 * 4 and len(deep.block_channels) == 3 + 4 + 6 + 3
    assert deep.block_channels[2:4] == [3 * 4, 6 * 4]


def test_no_classifier_without_num_classes():
    resnet = ResNet([1], num_classes=None, width=5)
    vgg = VGG(11, num_classes=None)
    vit = VisionTransformer(**VIT, num_classes=None)
    names = [name for model in (resnet, vgg, vit) for name in model.state_dict()]
    assert not any(name.startswith(("fc.", "classifier.", "head.")) for name in names)
    assert resnet(torch.zeros(2, 3, 61, 67)).shape == (2, 5)
    assert vgg(torch.zeros(2, 3, 61, 67)).shape == (2, 512 * 7 * 7)
    assert vit(torch.zeros(2, 3, 35, 35)).shape == (2, 33)


def test_vision_transformer_without_blocks_is_patches_and_positions():
    model = VisionTransformer(**VIT | {"num_layers": 0}, num_classes=0)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    pictures = torch.randn(2, 3, 35, 35)
    class_token = model.norm(model.class_token + model.positions[:, :1])  # (1, 1, 33)
    assert_close(model(pictures), class_token[0].expand(2, -1))
    grid = model.features(pictures)  # (2, 33, 7, 7)
    for row in range(7):
        for column in range(7):
            patch = pictures[:, :, 5 * row : 5 * row + 5, 5 * column : 5 * column + 5]
            patch = patch.flatten(1)  # (2, 3·5·5)
            x = patch @ model.conv_proj.weight.flatten(1).T + model.conv_proj.bias  # (2, 33)
            x = model.norm(x + model.positions[:, 1 + 7 * row + column])
            assert_close(grid[:, :, row, column], x, rtol=1e-4, atol=1e-4)


def test_vision_transformer_agrees_with_torchvision():
    reference = random_double(torchvision.models.VisionTransformer(**VIT, num_classes=13))
    ours = VisionTransformer(**VIT, num_classes=13).double()
    ours.load_state_dict(from_torchvision_vit(reference.state_dict()), strict=True)
    seen = []
    reference.encoder.register_forward_hook(lambda module, inputs, output: seen.append(output))
    pictures = torch.randn(2, 3, 35, 35, dtype=torch.float64)
    logits = ours(pictures)
    expected = reference(pictures)
    assert_close(logits, expected, rtol=0, atol=1e-9 * expected.abs().max().item())
    patches = ours.features(pictures).flatten(2).transpose(1, 2)
    assert_close(patches, seen[0][:, 1:], rtol=0, atol=1e-9 * seen[0].abs().max().item())
    upstream = torch.randn_like(expected)
    logits.backward(upstream)
    expected.backward(upstream)
    grads = {name: parameter.grad for name, parameter in reference.named_parameters()}
    expected = from_torchvision_vit(grads)
    for name, parameter in ours.named_parameters():
        scale = expected[name].abs().max().item()
        assert scale > 0
        tolerance = {"rtol": 0, "atol": 1e-9 * scale}
        assert_close(parameter.grad, expected[name], **tolerance, msg=lambda s: f"{name}: {s}")


def test_vision_transformer_has_the_parameters_of_vit_b_16():
    with torch.device("meta"):
        expected = from_torchvision_vit(torchvision.models.vit_b_16().state_dict())
        sizes = {"num_layers": 12, "num_heads": 12, "hidden_dim": 768, "mlp_dim": 3072}
        ours = VisionTransformer(224, 16, **sizes).state_dict()
    assert_same_shapes(ours, expected)


def test_vision_transformer_is_initialised_like_torchvision():
    sizes = VIT | {"hidden_dim": 192, "mlp_dim": 384}
    reference = torchvision.models.VisionTransformer(**sizes, num_classes=13)
    reference = from_torchvision_vit(reference.state_dict())
    ours = VisionTransformer(**sizes, num_classes=13).state_dict()
    for name in ("class_token", "head.weight", "head.bias", "conv_proj.bias"):
        assert_close(ours[name], reference[name], rtol=0, atol=0)  # zeros
    for name in ("conv_proj.weight", "positions", "blocks.0.self_attn.in_proj_weight"):
        std = reference[name].std()
        assert_close(ours[name].std(), std, rtol=0.1, atol=0, msg=lambda s: f"{name}: {s}")


def test_vision_transformer_features_have_the_documented_shape():
    model = VisionTransformer(**VIT)
    assert model.out_channels == 33
    assert model.features(torch.zeros(2, 3, 35, 35)).shape == (2, 33, 7, 7)
    assert model(torch.zeros(2, 3, 35, 35)).shape == (2, 1000)


def test_patches_keep_their_place_and_attend_to_all():
    for num_layers, others in ((0, 0), (1, 5 * 5 - 1)):  # without blocks there is no attention
        model = VisionTransformer(**VIT | {"image_size": 25, "num_layers": num_layers})
        blank = torch.zeros(1, 3, 25, 25)
        for row in range(5):
            for column in range(5):
                picture = blank.clone()
                picture[:, :, 5 * row : 5 * row + 5, 5 * column : 5 * column + 5] = 1
                change = (model.features(picture) - model.features(blank))[0]  # (D, 5, 5)
                changed = change.abs().sum(0) > 0  # (5, 5)
                assert changed[row, column] and changed.sum() == 1 + others


def test_vision_transformer_applies_dropout_in_training_only():
    pictures = torch.randn(2, 3, 35, 35)
    for num_layers in (0, 2):
        model = VisionTransformer(**VIT | {"num_layers": num_layers}, dropout=0.5)
        assert not torch.equal(model.features(pictures), model.features(pictures))
        assert torch.equal(model.eval().features(pictures), model.features(pictures))
    assert all(block.dropout == block.self_attn.dropout == 0.5 for block in model.blocks)
    model = VisionTransformer(**VIT | {"num_layers": 0}, dropout=1.0)
    features = model.features(pictures)  # positions are dropped, too
    assert_close(features, torch.zeros_like(features), rtol=0, atol=0)


def test_vision_transformer_refuses_wrong_sizes():
    with pytest.raises(ValueError):
        VisionTransformer(**VIT | {"image_size": 37})
    for shape in [(2, 3, 35, 40), (2, 3, 40, 40), (2, 1, 35, 35), (3, 35, 35)]:
        for method in (VisionTransformer(**VIT), VisionTransformer(**VIT).features):
            with pytest.raises(ValueError):
                method(torch.zeros(shape))


def test_vision_transformer_overfits_a_small_batch():
    model = VisionTransformer(**VIT, num_classes=7)
    pictures = torch.randn(11, 3, 35, 35)
    labels = torch.arange(11) % 7
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(120):
        loss = F.cross_entropy(model(pictures), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.02
    assert (model.eval()(pictures).argmax(-1) == labels).all()


BACKBONES = {
    "ResNet": lambda: (ResNet([1, 1], width=5), 41, 6),
    "VGG": lambda: (VGG(11, num_classes=None), 97, 3),
    "ViT": lambda: (VisionTransformer(**VIT, num_classes=None), 35, 7),
}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_image_encoder_fills_a_memory(backbone):
    backbone, size, side = BACKBONES[backbone]()
    pictures = torch.randint(256, (2, 3, size, size), dtype=torch.uint8)
    memory = ImageEncoder(backbone, 11, size)(pictures)
    assert memory.tokens.shape == (2, side * side, 11)
    assert memory.mask.shape == (2, side * side)
    assert memory.mask.dtype == torch.bool and memory.mask.all()


def test_image_encoder_normalises_its_pictures():
    encoder = ImageEncoder(ResNet([1], width=5), 7, 31)
    seen = []
    encoder.backbone.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    pictures = torch.randint(256, (2, 3, 31, 31), dtype=torch.uint8)
    encoder(pictures)
    normalise = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert_close(seen[0], normalise(pictures / 255))


@pytest.mark.parametrize(
    "shape", [(2, 3, 31, 37), (2, 3, 37, 37), (2, 1, 31, 31), (3, 31, 31)], ids=str
)
def test_image_encoder_refuses_other_pictures(shape):
    encoder = ImageEncoder(ResNet([1], width=5), 7, 31)
    given = " × ".join(map(str, shape[1:]))
    with pytest.raises(ValueError, match=f"3 × 31 × 31 were expected, not {given}$"):
        encoder(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_cached_features_give_the_same_memory(backbone):
    backbone, size, _ = BACKBONES[backbone]()
    encoder = ImageEncoder(backbone, 11, size).eval()
    pictures = torch.randint(256, (3, 3, size, size), dtype=torch.uint8)
    cached = encoder.backbone.features(normalize(pictures))
    assert_close(tuple(encoder.encode_features(cached)), tuple(encoder(pictures)), rtol=0, atol=0)


class Patches(nn.Module):
    """A backbone that only averages 8 × 8 pixels, so that grid positions do not mix."""

    out_channels = 3

    def features(self, x):
        return F.avg_pool2d(x, 8)


def test_grid_positions_are_row_by_row():
    encoder = ImageEncoder(Patches(), 7, 40)  # 5 × 5 positions
    blank = torch.zeros(1, 3, 40, 40, dtype=torch.uint8)
    for row in range(5):
        for column in range(5):
            picture = blank.clone()
            picture[:, 0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 255
            change = (encoder(picture).tokens - encoder(blank).tokens)[0].abs().sum(-1)
            assert change.nonzero().flatten().tolist() == [5 * row + column]


@pytest.mark.parametrize("attend_first", [False, True])
@pytest.mark.parametrize("num_layers", [0, 1, 2])
def test_positions_attend_to_one_another_in_the_blocks(num_layers, attend_first):
    encoder = ImageEncoder(Patches(), 7, 40, num_layers, attend_first=attend_first)  # 5 × 5
    pictures = torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    pictures[1, 0, :8, :8] = 255  # they differ in the first position
    tokens = encoder(pictures).tokens  # (2, 25, 7)
    assert (tokens[0] != tokens[1]).any(-1).sum() == (25 if num_layers else 1)
    assert len(encoder.blocks) == num_layers


def test_blocks_before_the_projection_have_the_backbones_width():
    encoder = ImageEncoder(ResNet([1], width=5), 7, 31, 2, attend_first=True).eval()
    pictures = torch.randint(256, (2, 3, 31, 31), dtype=torch.uint8)
    grid = encoder.backbone.features(normalize(pictures))  # (2, 5, 8, 8)
    tokens = grid.flatten(2).transpose(1, 2) + encoder.block_position  # (2, 64, 5)
    for block in encoder.blocks:
        tokens, _, _ = block(tokens)
    expected = encoder.norm(encoder.projection(tokens) + encoder.position)  # (2, 64, 7)
    assert_close(encoder(pictures).tokens, expected)

    without = ImageEncoder(ResNet([1], width=5), 7, 31, attend_first=True)
    plain = ImageEncoder(ResNet([1], width=5), 7, 31)
    plain.load_state_dict(without.state_dict())  # without blocks there is no difference
    pictures = pictures[:1]
    assert_close(without.eval()(pictures).tokens, plain.eval()(pictures).tokens, rtol=0, atol=0)


def test_every_position_has_its_own_vector():
    encoder = ImageEncoder(ResNet([1], width=5), 7, 31)
    nn.init.zeros_(encoder.projection.weight)  # independent of the picture
    tokens = encoder(torch.zeros(1, 3, 31, 31, dtype=torch.uint8)).tokens[0]
    assert tokens.unique(dim=0).shape == tokens.shape
    tokens.square().sum().backward()
    assert encoder.position.grad.isfinite().all()


def test_building_an_image_encoder_leaves_the_batch_norm_statistics_alone():
    backbone = ResNet([1, 1], width=5)
    before = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    encoder = ImageEncoder(backbone, 7, 31)
    assert_close(dict(encoder.backbone.named_buffers()), before, rtol=0, atol=0)
    assert all(module.training for module in encoder.modules())


def test_a_single_picture_is_normalized_by_the_running_statistics():
    """Its feature map has one position, so it has no variance of its own."""
    encoder = resnet_encoder(12, 32, depth=(1, 1, 1, 1), width=5)
    pictures = torch.randint(256, (7, 3, 32, 32), dtype=torch.uint8)
    encoder.train()
    assert encoder(pictures).tokens.shape == (7, 1, 12)
    statistics = {name: x.clone() for name, x in encoder.named_buffers()}
    got = encoder(pictures[:1]).tokens
    assert encoder.backbone.training and encoder.backbone.bn1.training
    for name, x in encoder.named_buffers():
        assert torch.equal(x, statistics[name])
    assert_close(got, encoder.eval()(pictures[:1]).tokens)
    got.sum().backward()
    assert encoder.backbone.conv1.weight.grad.abs().sum() > 0


def test_training_with_a_last_batch_of_one_picture(tmp_path):
    from mmscratch.training import TrainConfig

    image = IMAGE | {"depth": (1, 1, 1, 1)}
    config = TrainConfig(batch_size=4, precision="float32", bucket_batches=None)
    trainer = tiny_trainer(tmp_path, config, count=9, image=image, decoder=LSTM)
    trainer.fit()
    assert trainer.step == 3 and trainer.skipped == 0
