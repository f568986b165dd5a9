"""Convolution by hand, ResNet and VGG against torch and torchvision, and the encoder of pictures."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from mmscratch.images import normalize, torchvision
from mmscratch.vision import VGG, ImageEncoder, ResNet, conv2d


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
    assert_close(torch.autograd.grad(output, inputs, upstream), torch.autograd.grad(expected, inputs, upstream))


def test_conv2d_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="3 channels.* expect 5"):
        conv2d(torch.zeros(2, 3, 11, 13), torch.zeros(7, 5, 1, 1))
    with pytest.raises(ValueError, match="13 × 15 is smaller than the filter, 17 × 1"):
        conv2d(torch.zeros(2, 3, 11, 13), torch.zeros(7, 3, 17, 1), padding=1)
    assert conv2d(torch.zeros(2, 3, 11, 13), torch.zeros(7, 3, 13, 15), padding=1).shape == (2, 7, 1, 1)


def assert_same_model(ours, reference, gradients=False):
    """Loads the reference's weights, and gives what it gives in both modes; dropout draws the same numbers."""
    for norm in (module for module in reference.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_(std=0.1)
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 1.5)
    ours.load_state_dict(reference.state_dict(), strict=True)
    pictures = torch.randn(2, 3, 61, 67)
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
        ours_grad, expected_grad = (
            torch.autograd.grad(y, list(m.parameters()), upstream) for y, m in zip(outputs, (ours, reference))
        )
        for (name, _), grad, expected in zip(ours.named_parameters(), ours_grad, expected_grad, strict=True):
            assert_close(grad, expected, rtol=0, atol=1e-5 * expected.abs().max().item(), msg=lambda s: f"{name}: {s}")


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_resnet_agrees_with_torchvision(depth):
    reference = torchvision.models.get_model(f"resnet{depth}", num_classes=13)
    assert_same_model(ResNet(depth, num_classes=13), reference)


@pytest.mark.parametrize("depth", [101, 152])
def test_deep_resnet_has_the_parameters_of_torchvision(depth):
    with torch.device("meta"):
        ours, expected = ResNet(depth).state_dict(), torchvision.models.get_model(f"resnet{depth}").state_dict()
    assert {name: x.shape for name, x in ours.items()} == {name: x.shape for name, x in expected.items()}


def test_resnet_of_a_list_of_stages_agrees_with_torchvision():
    resnet = torchvision.models.resnet
    reference = resnet.ResNet(resnet.BasicBlock, [1, 2, 1, 1], num_classes=13)
    assert_same_model(ResNet([1, 2, 1, 1], num_classes=13), reference, gradients=True)


@pytest.mark.parametrize("batch_norm", [False, True], ids=["plain", "batch norm"])
@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_vgg_agrees_with_torchvision(depth, batch_norm):
    reference = torchvision.models.get_model(f"vgg{depth}" + "_bn" * batch_norm, num_classes=13)
    with torch.device("meta"):  # no time for weights that are overwritten
        ours = VGG(depth, batch_norm, num_classes=13)
    assert_same_model(ours.to_empty(device="cpu"), reference)


@pytest.mark.parametrize("model", [ResNet, VGG])
def test_an_unknown_depth_is_refused(model):
    with pytest.raises(ValueError, match=f"no {model.__name__} of depth 17: choose one of 1.*, "):
        model(17)


def test_resnet_features_have_the_promised_shape():
    model = ResNet([1, 2, 1], width=5)
    assert model.out_channels == 20
    assert model.features(torch.zeros(2, 3, 61, 67)).shape == (2, 20, 4, 5)
    assert ResNet(50, width=3).out_channels == 3 * 8 * 4


def test_without_classes_there_is_no_classifier():
    resnet, vgg = ResNet([1], num_classes=0, width=5), VGG(11, num_classes=0)
    assert not any(name.startswith(("fc.", "classifier.")) for model in (resnet, vgg) for name in model.state_dict())
    assert resnet(torch.zeros(2, 3, 61, 67)).shape == (2, 5)
    assert vgg(torch.zeros(2, 3, 61, 67)).shape == (2, 512 * 7 * 7)


def test_image_encoder_fills_a_memory():
    encoder = ImageEncoder(ResNet([1, 1], width=5), 7, 41)
    memory = encoder(torch.randint(256, (2, 3, 41, 41), dtype=torch.uint8))
    assert memory.tokens.shape == (2, 6 * 6, 7)
    assert memory.mask.shape == (2, 6 * 6) and memory.mask.dtype == torch.bool and memory.mask.all()


def test_image_encoder_normalises_its_pictures():
    encoder = ImageEncoder(ResNet([1], width=5), 7, 31)
    seen = []
    encoder.backbone.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    pictures = torch.randint(256, (2, 3, 31, 31), dtype=torch.uint8)
    encoder(pictures)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # of ImageNet
    assert_close(seen[0], torchvision.transforms.v2.functional.normalize(pictures / 255, mean, std))


@pytest.mark.parametrize("shape", [(2, 3, 31, 37), (2, 3, 37, 37), (2, 1, 31, 31), (3, 31, 31)], ids=str)
def test_image_encoder_refuses_other_pictures(shape):
    encoder = ImageEncoder(ResNet([1], width=5), 7, 31)
    given = " × ".join(map(str, shape[1:]))
    with pytest.raises(ValueError, match=f"3 × 31 × 31 were expected, not {given}$"):
        encoder(torch.zeros(shape, dtype=torch.uint8))


def test_grids_that_were_kept_give_the_same_memory():
    encoder = ImageEncoder(ResNet([1, 1], width=5), 7, 41).eval()
    pictures = torch.randint(256, (3, 3, 41, 41), dtype=torch.uint8)
    kept = encoder.remember(encoder.backbone.features(normalize(pictures)))
    assert_close(tuple(kept), tuple(encoder(pictures)), rtol=0, atol=0)


class Patches(nn.Module):
    """A backbone that only averages 8 × 8 pixels, so that a place of its grid sees nothing of the others."""

    out_channels = 3

    def features(self, x):
        return F.avg_pool2d(x, 8)


def test_the_places_of_the_grid_are_row_by_row():
    encoder = ImageEncoder(Patches(), 7, 40)  # 5 × 5 places
    blank = torch.zeros(1, 3, 40, 40, dtype=torch.uint8)
    for row in range(5):
        for column in range(5):
            picture = blank.clone()
            picture[:, 0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 255
            change = (encoder(picture).tokens - encoder(blank).tokens)[0].abs().sum(-1)
            assert change.nonzero().flatten().tolist() == [5 * row + column]


def test_every_place_knows_where_it_is():
    encoder = ImageEncoder(ResNet([1], width=5), 7, 31)
    nn.init.zeros_(encoder.projection.weight)  # whatever is in the picture
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
