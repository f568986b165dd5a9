"""FiLM against loops and batch norm; the networks that it modulates, and the models it steers."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from mmscratch.film import FiLM, modulate
from mmscratch.model import EncoderDecoder, ModelConfig, build_model
from mmscratch.recurrent import LSTMDecoder, LSTMEncoder
from mmscratch.text import EOS, PAD
from mmscratch.vision import BasicBlock, Bottleneck, ResNet, resnet_encoder

V = 23  # words
S = 37  # pixels a side
D = 22  # embed_dim
RESNET = {"name": "resnet", "depth": (1, 2), "width": 5, "image_size": S, "film": "source"}
TEXT = {
    "lstm": {"name": "lstm", "hidden_size": 13, "vocab_size": V},
    "transformer": {"name": "transformer", "num_heads": 2, "num_layers": 1, "vocab_size": V},
}
DECODER = {"name": "lstm", "hidden_size": 13}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def pictures(count):
    return torch.randint(256, (count, 3, S, S), dtype=torch.uint8)


def randomize(film, std=0.5):
    """Move W away from 0, where the question would not matter."""
    nn.init.normal_(film.linear.weight, std=std)


# -------------------------------------------------------------------------------------------------
# The piece.


def test_modulation_equals_four_loops():
    x = torch.randn(2, 3, 5, 7)
    scale = torch.randn(2, 3)
    shift = torch.randn(2, 3)
    y = modulate(x, scale, shift)
    assert y.shape == x.shape
    for b, c, i, j in product(range(2), range(3), range(5), range(7)):
        expected = scale[b, c] * x[b, c, i, j] + shift[b, c]
        assert y[b, c, i, j].item() == pytest.approx(expected.item(), abs=1e-6)


def test_modulation_works_with_as_many_examples_as_channels_and_rows():
    """With equal sizes, a wrong axis raises no error."""
    x = torch.randn(3, 3, 3, 3)
    scale = torch.randn(3, 3)
    shift = torch.randn(3, 3)
    y = modulate(x, scale, shift)
    for b, c in product(range(3), range(3)):
        assert_close(y[b, c], scale[b, c] * x[b, c] + shift[b, c])


def test_modulation_does_not_change_its_inputs():
    inputs = [torch.randn(2, 3, 5, 7), torch.randn(2, 3), torch.randn(2, 3)]
    before = [tensor.clone() for tensor in inputs]
    modulate(*inputs)
    assert_close(inputs, before, rtol=0, atol=0)


def test_gradients_of_modulation_and_film_are_those_of_finite_differences():
    film = FiLM(3, (2, 5)).double()
    randomize(film)
    question = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 2, 3, 2, dtype=torch.float64, requires_grad=True)

    def modulated(question, x, weight):
        film.linear.weight.data = weight.data
        modulations = torch.func.functional_call(film, {"linear.weight": weight}, question)
        (scale, shift), (later_scale, later_shift) = modulations
        return modulate(x, scale, shift), later_scale, later_shift

    weight = film.linear.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(modulated, (question, x, weight))


@pytest.mark.parametrize("channels", [(3,), (3, 7, 5), [2, 2, 2]], ids=str)
def test_film_equals_its_formula(channels):
    """The first rows of W are those of all Δγ, block by block; the others are those of all β."""
    film = FiLM(11, channels)
    randomize(film)
    question = torch.randn(2, 11)
    found = film(question)
    assert len(found) == len(channels)
    weight = film.linear.weight  # (2C, 11)
    row = 0
    for (scale, shift), count in zip(found, channels):
        assert scale.shape == shift.shape == (2, count)
        for b, c in product(range(2), range(count)):
            delta = sum(weight[row + c, d] * question[b, d] for d in range(11)).item()
            beta = sum(weight[sum(channels) + row + c, d] * question[b, d] for d in range(11))
            assert scale[b, c].item() == pytest.approx(1 + delta, abs=1e-5)
            assert shift[b, c].item() == pytest.approx(beta.item(), abs=1e-5)
        row += count


def test_film_has_one_matrix_without_bias():
    shapes = {name: tuple(p.shape) for name, p in FiLM(11, (3, 7)).named_parameters()}
    assert shapes == {"linear.weight": (20, 11)}


def test_new_film_changes_nothing_but_learns():
    film = FiLM(11, (3, 7))
    question = torch.randn(2, 11)
    x = torch.randn(2, 3, 5, 7)
    for scale, shift in film(question):
        assert (scale == 1).all() and (shift == 0).all()
    y = modulate(x, *film(question)[0])
    assert torch.equal(y, x)
    y.square().sum().backward()
    learns = film.linear.weight.grad.abs().sum(1) > 0  # (20,)
    of_first_block = torch.arange(10) < 3  # (10,)
    assert torch.equal(learns, of_first_block.repeat(2))  # γ and β


def test_a_question_of_zeros_changes_nothing_whatever_was_learned():
    film = FiLM(11, (3, 7))
    randomize(film, std=5)
    for scale, shift in film(torch.zeros(2, 11)):
        assert (scale == 1).all() and (shift == 0).all()


# -------------------------------------------------------------------------------------------------
# In a network.


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_modulated_batch_norm_equals_one_without_affine_parameters(training):
    """γ and β take the place of batch norm's own: forwards, backwards, and in its statistics."""
    ours = nn.BatchNorm2d(5).train(training)  # its weight is 1, its bias 0
    reference = nn.BatchNorm2d(5, affine=False).train(training)
    for norm in (ours, reference):
        norm.running_mean.copy_(torch.linspace(-1, 1, 5))
        norm.running_var.copy_(torch.linspace(0.5, 1.5, 5))
    shapes = [(3, 5, 7, 2), (3, 5), (3, 5)]
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    x, scale, shift = inputs
    output = modulate(ours(x), scale, shift)
    expected = reference(x) * scale.view(3, 5, 1, 1) + shift.view(3, 5, 1, 1)
    assert_close(output, expected)
    upstream = torch.randn_like(output)
    gradients = torch.autograd.grad(output, inputs, upstream)
    assert_close(gradients, torch.autograd.grad(expected, inputs, upstream), rtol=1e-5, atol=1e-5)
    assert_close(ours.running_var, reference.running_var)


class ReferenceBlock(nn.Module):
    """A block whose last batch norm has no affine parameters: γ and β follow it, before the sum."""

    def __init__(self, block):
        super().__init__()
        self.block = block
        self.last = "bn3" if isinstance(block, Bottleneck) else "bn2"
        norm = getattr(block, self.last)
        self.norm = nn.BatchNorm2d(norm.num_features, affine=False)

    def forward(self, x, scale, shift):
        block = self.block
        y = F.relu(block.bn1(block.conv1(x)))
        y = block.conv2(y)
        if self.last == "bn3":
            y = block.conv3(F.relu(block.bn2(y)))
        y = self.norm(y) * scale.view(*scale.shape, 1, 1) + shift.view(*shift.shape, 1, 1)
        shortcut = x if block.downsample is None else block.downsample(x)
        return F.relu(y + shortcut)


@pytest.mark.parametrize("kind, in_channels, channels, stride", [
    (BasicBlock, 5, 5, 1), (BasicBlock, 3, 5, 2), (Bottleneck, 20, 5, 1), (Bottleneck, 7, 5, 2),
])  # fmt: skip
def test_modulated_block_agrees_with_batch_norm_without_affine_parameters(
    kind, in_channels, channels, stride
):
    block = kind(in_channels, channels, stride)
    reference = ReferenceBlock(block)
    out_channels = channels * kind.expansion
    shapes = [(2, in_channels, 11, 13), (2, out_channels), (2, out_channels)]
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    x, scale, shift = inputs
    output = block(x, (scale, shift))
    expected = reference(x, scale, shift)
    assert_close(output, expected, rtol=1e-5, atol=1e-5)
    convolutions = [p for name, p in block.named_parameters() if "conv" in name]
    upstream = torch.randn_like(output)
    gradients = torch.autograd.grad(output, inputs + convolutions, upstream)
    expected = torch.autograd.grad(expected, inputs + convolutions, upstream)
    for one, other in zip(gradients, expected):
        assert_close(one, other, rtol=1e-4, atol=1e-4)


def blocks_of(resnet):
    return [module for module in resnet.modules() if isinstance(module, (BasicBlock, Bottleneck))]


@pytest.mark.parametrize("depth", [18, 50, (1, 2), (2, 1, 1)], ids=str)
def test_block_channels_are_those_of_the_blocks(depth):
    resnet = ResNet(depth, num_classes=None, width=3)
    blocks = blocks_of(resnet)
    channels = []
    for block in blocks:
        block.register_forward_hook(lambda _, inputs, output: channels.append(output.size(1)))
    resnet.eval().features(torch.randn(1, 3, S, S))
    assert resnet.block_channels == channels and len(channels) == len(blocks)


@pytest.mark.parametrize("depth", [(1, 2), 50], ids=str)
def test_each_block_gets_its_own_modulation(depth):
    resnet = ResNet(depth, num_classes=None, width=3).eval()
    blocks = blocks_of(resnet)
    modulations = []
    for count in resnet.block_channels:
        modulations.append((torch.randn(2, count), torch.randn(2, count)))
    given = []
    for block in blocks:
        block.register_forward_pre_hook(lambda _, inputs: given.append(inputs[1]))
    resnet.features(torch.randn(2, 3, S, S), modulations)
    assert len(given) == len(modulations)
    for one, other in zip(given, modulations):
        assert one is other


def test_every_row_of_the_matrix_changes_the_features():
    encoder = resnet_encoder(D, S, depth=(1, 2), width=5, film="source").eval()
    images = pictures(2)
    question = torch.randn(2, D)
    weight = encoder.film.linear.weight.data
    for row in range(len(weight)):
        weight.zero_()
        plain = encoder(images, question).tokens
        weight[row] = torch.randn(D)
        assert not torch.allclose(encoder(images, question).tokens, plain), row


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("depth", [(1, 2), 18], ids=str)
def test_new_film_gives_the_memory_of_the_plain_encoder(training, depth):
    plain = resnet_encoder(D, S, 1, depth, width=5)
    steered = resnet_encoder(D, S, 1, depth, width=5, film="source")
    missing, unexpected = steered.load_state_dict(plain.state_dict(), strict=False)
    assert missing == ["film.linear.weight"] and not unexpected
    images = pictures(3)
    plain.train(training)
    steered.train(training)
    expected = plain(images)
    assert_close(tuple(steered(images, torch.randn(3, D))), tuple(expected), rtol=0, atol=0)
    for (name, one), other in zip(steered.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(one, other), name


# -------------------------------------------------------------------------------------------------
# In a model.


def make_model(film="source", text="lstm", order=("image", "source"), std=0.5):
    """A question steers the pictures' encoder; with film="" it does not."""
    settings = {"image": RESNET | {"film": film}, "source": TEXT[text]}
    encoders = {name: settings[name] for name in order}
    model = build_model(ModelConfig(V, encoders, DECODER, D))
    if film:
        randomize(model.encoders["image"].film, std)
    return model.eval()


def questions(count, length=5):
    return torch.randint(4, V, (count, length))


def picture_memory(model, batch):
    """The part of the memory that comes from the pictures, which are first among the encoders."""
    positions = len(model.encoders["image"].position)
    return model.encode(batch).tokens[:, :positions]


@pytest.mark.parametrize("text", TEXT)
def test_with_film_the_question_changes_what_is_seen(text):
    batch = {"image": pictures(3), "source": questions(3)}
    other = batch | {"source": questions(3)}
    steered = make_model(text=text)
    assert not torch.allclose(picture_memory(steered, batch), picture_memory(steered, other))
    plain = make_model(film="", text=text)
    assert torch.equal(picture_memory(plain, batch), picture_memory(plain, other))


def test_the_question_vector_is_the_mean_of_its_normalized_memory():
    model = make_model()
    given = []
    film = model.encoders["image"].film
    film.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    source = questions(2, length=7)
    source[1, 3:] = PAD
    model.encode({"image": pictures(2), "source": source})
    tokens, _ = model.encoders["source"](source)
    tokens = F.layer_norm(tokens, (D,))
    expected = torch.stack([tokens[0].mean(0), tokens[1, :3].mean(0)])
    assert_close(given, [expected])


@pytest.mark.parametrize("text", TEXT)
def test_without_a_question_the_network_is_the_plain_one(text):
    model = make_model(text=text)
    images = pictures(4)
    plain, mask = model.encoders["image"](images)
    plain = F.layer_norm(plain, (D,))
    alone = model.encode({"image": images})
    assert_close(tuple(alone), (plain, mask), rtol=0, atol=0)
    asked = torch.tensor([True, False, False, True])
    source = questions(4)
    source[~asked] = PAD
    seen = picture_memory(model, {"image": images, "source": source, "has_source": asked})
    assert_close(seen[~asked], plain[~asked])
    for i in (0, 3):
        assert not torch.allclose(seen[i], plain[i])
    nobody = {"source": source, "has_source": torch.zeros(4, dtype=torch.bool)}
    assert_close(picture_memory(model, {"image": images} | nobody), plain)


def test_each_picture_is_steered_by_its_own_question():
    """Even if some examples have a question but no picture."""
    model = make_model()
    images = pictures(4)
    source = questions(4)
    shown = torch.tensor([False, True, False, True])
    seen = picture_memory(model, {"image": images, "source": source, "has_image": shown})
    whole = picture_memory(model, {"image": images, "source": source})
    assert_close(seen[shown], whole[shown])
    assert (seen[~shown] == 0).all()


@pytest.mark.parametrize("text", TEXT)
def test_neighbours_and_padding_do_not_matter(text):
    model = make_model(text=text)
    images = pictures(3)
    source = questions(3, length=7)
    source[0, 5:] = PAD
    source[2, 2:] = PAD
    together = picture_memory(model, {"image": images, "source": source})
    for i, length in enumerate((5, 7, 2)):
        alone = {"image": images[i : i + 1], "source": source[i : i + 1, :length]}
        assert_close(picture_memory(model, alone), together[i : i + 1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("text", TEXT)
def test_the_order_of_the_encoders_does_not_matter_for_steering(text):
    first = make_model(text=text)
    second = make_model(text=text, order=("source", "image"))
    # build_model puts text encoders last: reorder by hand
    encoders = {name: second.encoders[name] for name in ("source", "image")}
    second = EncoderDecoder(encoders, second.decoder).eval()
    second.load_state_dict(first.state_dict())
    batch = {"image": pictures(2), "source": questions(2)}
    memory = first.encode(batch)
    swapped = second.encode(batch)
    positions = len(first.encoders["image"].position)
    back = torch.cat([swapped.tokens[:, -positions:], swapped.tokens[:, :-positions]], dim=1)
    assert_close(back, memory.tokens, rtol=0, atol=0)
    batch = dict(reversed(batch.items()))
    assert_close(tuple(first.encode(batch)), tuple(memory), rtol=0, atol=0)


def test_film_and_the_encoder_of_the_question_learn_through_the_picture():
    model = make_model(std=0.1).train()
    batch = {"image": pictures(3), "source": questions(3)}
    picture_memory(model, batch)[..., 0].square().sum().backward()
    for name in ("encoders.image.film.linear.weight", "encoders.source.lstm.weight_hh_l0"):
        assert model.get_parameter(name).grad.abs().sum() > 0, name


def test_dropped_modalities_are_not_steered():
    """Modality dropout takes a question away: the picture is then encoded without it."""
    model = make_model().train()
    model.modality_dropout = 1.0
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.eval()
    batch = {"image": pictures(29), "source": questions(29)}
    memory = model.encode(batch)
    positions = len(model.encoders["image"].position)
    has_image = memory.mask[:, 0]
    assert torch.equal(memory.mask[:, positions], ~has_image) and 0 < has_image.sum() < 29
    plain = F.layer_norm(model.encoders["image"](batch["image"]).tokens, (D,))
    assert_close(memory.tokens[has_image, :positions], plain[has_image], rtol=1e-4, atol=1e-4)


def test_steering_by_an_unknown_modality_is_refused():
    encoders = {"image": RESNET | {"film": "sound"}, "source": TEXT["lstm"]}
    with pytest.raises(ValueError) as caught:
        build_model(ModelConfig(V, encoders, DECODER, D))
    expected = "image is steered by 'sound', and the model has encoders for: image, source"
    assert str(caught.value) == expected


def test_a_steered_model_overfits_a_small_batch():
    """Two questions about each of four pictures: the decoder sees the picture's memory only."""
    image = resnet_encoder(D, S, depth=(1, 1), width=7, film="source")
    text = LSTMEncoder(V, D, 13)
    decoder = LSTMDecoder(V, D, 13, 1, "cross_attention")
    model = EncoderDecoder({"image": image, "source": text}, decoder)
    encode = model.encode
    positions = len(image.position)

    def encode_picture(batch):
        memory = encode(batch)
        return type(memory)(memory.tokens[:, :positions], memory.mask[:, :positions])

    model.encode = encode_picture
    batch = {
        "image": pictures(4).repeat_interleave(2, dim=0),
        "source": torch.tensor([[5, 7, EOS], [6, 8, EOS]]).repeat(4, 1),
        "target": torch.tensor([[4 + i, EOS] for i in (0, 1, 2, 3, 1, 0, 3, 2)]),
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(100):
        loss, count = model.loss(batch)
        optimizer.zero_grad()
        (loss / count).backward()
        optimizer.step()
    assert loss / count < 0.1
