"""Fine-tuning: what is frozen is still, each layer learns at its rate, and a LoRA is loralib's, by hand and on disk."""

import copy
import pickle
import random
from dataclasses import replace
from functools import partial

import helpers
import pytest
import torch
from helpers import random_double, tiny_config, tiny_trainer
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

from mmscratch.attention import Memory, MultiHeadAttention
from mmscratch.batches import collate
from mmscratch.engine.runs import read_checkpoint
from mmscratch.finetuning import (
    LoRA,
    add_lora,
    fingerprint,
    freeze,
    gradual_unfreezing,
    layers,
    load_run,
    load_trainable,
    merge_lora,
    parameter_groups,
    remove_lora,
    save_run,
    trainable_parts,
    trainable_state,
    unfreeze,
)  # fmt: skip
from mmscratch.model import build_model
from mmscratch.recurrent import LSTM, LSTMDecoder
from mmscratch.text import Vocabulary
from mmscratch.training import TrainConfig, warmup_and_cosine
from mmscratch.transformer import TransformerDecoder

B, T, N, V = 5, 7, 13, 19  # sentences, their words, places in the memory, words there are
D, H, HIDDEN, LAYERS = (
    22,
    2,
    17,
    3,
)  # widths: the memory's, in so many heads, and the LSTM's state; layers of a decoder
I, O, R, SCALE = 11, 7, 3, 1.7  # in, out, rank
RECURRENT = partial(LSTMDecoder, V, D, HIDDEN, LAYERS)
TRANSFORMER = partial(TransformerDecoder, V, D, H, LAYERS)
DECODERS = {
    "lstm prefix": partial(RECURRENT, fusion="prefix"),
    "lstm dot": RECURRENT,
    "lstm additive": partial(RECURRENT, score="additive"),
    "transformer prefix": partial(TRANSFORMER, fusion="prefix"),
    "transformer cross": TRANSFORMER,
}
WRITERS = {"lstm": helpers.LSTM, "transformer": helpers.TRANSFORMER}
BACKBONES = {
    "resnet": {"depth": (1, 2, 1), "width": 5},
    "vgg": {"depth": 11},
    "vit": {"depth": 3, "hidden_dim": 64},
}
CONFIG = TrainConfig(
    epochs=2, batch_size=7, warmup_fraction=0.25, evaluate_every=5, precision="float32"
)  # 53 captions: 16 steps
BACKBONE = "encoders.image.backbone"


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch, request):
    torch.manual_seed(0)
    if "gpu" not in request.keywords:
        for module in ("training", "finetuning"):
            monkeypatch.setattr(f"mmscratch.{module}.pick_device", lambda: torch.device("cpu"))


@pytest.fixture
def trainer(tmp_path):
    def make(
        name="run",
        config=CONFIG,
        decoder="transformer",
        image=helpers.IMAGE,
        embed_dim=12,
        **changes,
    ):
        decoder = WRITERS[decoder] | changes
        return tiny_trainer(
            tmp_path / name, config, image=image, decoder=decoder, embed_dim=embed_dim
        )

    return make


@pytest.fixture
def base(trainer):
    """Keeps a run with random weights and statistics; its folder, and its model."""

    def make(words=None, **changes):
        run = trainer("base", **changes)
        vocabulary = Vocabulary(words) if words else run.train.vocabularies["target"]
        config = replace(run.model_config, vocab_size=len(vocabulary))
        model = randomized(build_model(config), 0.3)
        for buffer in model.buffers():
            buffer.fill_(23) if buffer.dim() == 0 else buffer.uniform_(0.5, 1.5)
        save_run(run.folder, model, config, {"target": vocabulary}, {})
        return str(run.folder), model.eval()

    return make


@pytest.fixture(params=DECODERS)
def decoder(request):
    return DECODERS[request.param]()


@pytest.fixture(params=["lstm", "transformer"])
def kind(request):
    return request.param


@pytest.fixture
def memory():
    return Memory(torch.randn(B, N, D), torch.arange(N) < torch.tensor([[N], [11], [7], [3], [1]]))


@pytest.fixture
def tokens():
    return torch.randint(1, V, (B, T))


def a_model(decoder="lstm", image=helpers.IMAGE | {"depth": (1, 1)}, **changes):
    decoder = WRITERS[decoder] | {"num_layers": LAYERS, "dropout": 0.3} | changes
    return build_model(tiny_config(V, image, decoder, D))


@pytest.fixture(params=BACKBONES)
def model(request, kind):
    return a_model(
        kind, {"name": request.param, "image_size": 32, "num_layers": 2} | BACKBONES[request.param]
    )


def randomized(module, std=0.1, only=""):
    """All parameters random, or those with that in their names, so that no 0 and no 1 hides a mistake."""
    for name, parameter in module.named_parameters():
        if only in name:
            nn.init.normal_(parameter, std=std)
    return module


def adapted(module, rank=R, **options):
    """With a LoRA that has learned something."""
    add_lora(module, rank, SCALE, **options)
    return randomized(module, only="lora.")


def kept(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def differing(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def frozen_names(model):
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def gone_on_with(steps, make):
    """Two runs that end in the same state, to the bit: one not stopped, and one stopped after so many steps."""
    from test_training import (
        resumed_after,
        states_equal,
    )  # of all tests here, those that an exercise needs do without

    whole, resumed = resumed_after(steps, make)
    assert states_equal(whole, resumed)
    return whole, resumed


def raises_a_line(*words):
    """A ValueError in one line that has these words in it."""
    return pytest.raises(
        ValueError, match="^" + "".join(f"(?=.*{word})" for word in words) + "[^\n]*$"
    )


def best_of(run):
    """The trainer's own model, its change not merged, with what the run has kept."""
    saved = read_checkpoint(run.folder / "best.pt")
    load_trainable(run.model, saved["model"], saved["base"])
    return run.model.eval()


# ---------------------------------------------------------------------------------------------------------------------
# Frozen.


@pytest.mark.parametrize(
    "pattern, fits",
    [
        (BACKBONE, lambda name: name.startswith(BACKBONE + ".")),
        ("decoder.bias", lambda name: name == "decoder.bias"),
        (
            "encoders.image.norm",
            lambda name: name in ("encoders.image.norm.weight", "encoders.image.norm.bias"),
        ),
        ("*.bias", lambda name: name.endswith(".bias")),
        (
            "decoder.lstm.*_l1",
            lambda name: name.startswith("decoder.lstm.") and name.endswith("_l1"),
        ),
        ("*", lambda name: True),
    ],
)
def test_pattern_freezes_matching_parameters_only(pattern, fits):
    model, other = a_model(), "decoder.combine.weight"
    fitting = {name for name, _ in model.named_parameters() if fits(name)}
    freeze(model, pattern)
    assert frozen_names(model) == fitting != set()
    freeze(model, other)  # what is frozen stays so
    assert frozen_names(model) == fitting | {other}
    trained = {part: count for part, _, count in trainable_parts(model)}
    assert trained["decoder.combine"] == (0 if fits("decoder.combine.bias") else D)
    unfreeze(model, pattern)
    assert frozen_names(model) == {other} - fitting
    unfreeze(model)
    assert frozen_names(model) == set() and all(part.training for part in model.train().modules())


@pytest.mark.parametrize(
    "pattern", ["encoders.image.backb", "decoder.bia", "image", "backbone.*", "Decoder", ""]
)
def test_pattern_without_a_match_is_refused_with_the_list_of_parts(pattern):
    with raises_a_line(repr(pattern).replace("*", r"\*"), "decoder.lstm", BACKBONE):
        freeze(a_model(), "decoder.bias", pattern)


def test_frozen_parameters_and_statistics_stay_bit_identical_in_training(kind, trainer):
    run = trainer(config=replace(CONFIG, freeze=(BACKBONE, "decoder.*.bias")), decoder=kind)
    before = kept(run.model)
    run.fit()
    still = {name for name in before if name.startswith(BACKBONE)}
    assert {f"{BACKBONE}.bn1.running_var", f"{BACKBONE}.bn1.num_batches_tracked"} < still
    still |= {name for name in before if name.startswith("decoder.") and name.endswith(".bias")} - {
        "decoder.bias"
    }
    assert differing(before, run.model.state_dict()) == before.keys() - still


def test_batch_norm_statistics_drift_without_freeze(trainer):
    run = trainer()
    run.model.get_submodule(BACKBONE).requires_grad_(False)
    before = kept(run.model)
    run.fit()
    norm, changed = f"{BACKBONE}.bn1.", differing(before, run.model.state_dict())
    assert (
        norm + "weight" not in changed
        and {norm + "running_mean", norm + "num_batches_tracked"} < changed
    )


def test_frozen_modules_have_no_dropout_until_unfrozen():
    model, x = a_model(decoder="transformer", fusion="prefix"), torch.randn(B, T, D)

    def dropping(model):
        return [not torch.equal(block(x)[0], block(x)[0]) for block in model.decoder.blocks]

    freeze(model, "decoder.blocks.1")
    other = copy.deepcopy(model)
    model.load_state_dict(other.state_dict())
    for each in (
        model,
        model.train(),
        model.eval().train(),
        other,
        other.train(),
        copy.deepcopy(model).train(),
    ):
        assert dropping(each) == [True, False, True]
    unfreeze(
        other, "decoder.blocks.1.norm1.weight"
    )  # it is no longer wholly frozen, but some of it is
    assert dropping(other) == [True, True, True] and not other.decoder.blocks[1].linear1.training
    unfreeze(model, "decoder.blocks.1")
    assert dropping(model) == [True, True, True] and all(part.training for part in model.modules())
    freeze(model.eval(), "encoders")
    assert not any(part.training for part in model.modules())  # the rest goes on as it was


def test_frozen_model_can_be_pickled():
    model = a_model()
    freeze(model, BACKBONE)
    model = pickle.loads(pickle.dumps(model)).train()
    assert not model.get_submodule(BACKBONE).training and model.decoder.training


# ---------------------------------------------------------------------------------------------------------------------
# Layer by layer.


def test_layers_list_every_parameter_once_in_order_of_computation(model, kind, tokens):
    called, found = [], layers(model.eval())
    where = {name: i for i, names in enumerate(found) for name in names}
    assert sorted(name for names in found for name in names) == sorted(
        name for name, _ in model.named_parameters()
    )
    for name, module in model.named_modules():
        if not list(module.children()) and f"{name}.weight" in where:
            module.register_forward_pre_hook(
                lambda module, inputs, name=name: called.append(where[f"{name}.weight"])
            )
    model({"image": torch.zeros(B, 3, 32, 32, dtype=torch.uint8), "target": tokens})
    blocks = [
        where[f"decoder.blocks.{i}.linear1.bias"]
        for i in range(LAYERS if kind == "transformer" else 0)
    ]
    assert blocks == list(range(len(found) - 1 - len(blocks), len(found) - 1))
    encoder = [layer for layer in called if layer < len(found) - 1 - len(blocks)]
    assert encoder == sorted(encoder) and set(encoder) == set(range(len(found) - 1 - len(blocks)))
    for name, layer in where.items():
        part, block = name.split(".")[:2], name.split(".")[2:3]
        assert (layer in encoder) == (part[0] == "encoders")
        if part[0] == "decoder":
            assert layer == (blocks[int(block[0])] if part[1] == "blocks" else len(found) - 1)
    assert {
        where[f"encoders.image.{name}"] for name in ("projection.bias", "position", "norm.bias")
    } == {encoder[-1] - 2}
    assert where["encoders.image.blocks.1.self_attn.in_proj_weight"] == encoder[-1]
    for name in ("bn1.bias", "class_token", "positions"):
        assert where.get(f"{BACKBONE}.{name}", 0) == 0


def test_parameter_groups_hold_every_parameter_once_with_its_decay_and_factor(model):
    groups, found = parameter_groups(model, 0.3, 0.7), layers(model)
    of = {id(p): group for group in groups for p in group["params"]}
    assert len(of) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for i, names in enumerate(found):
        for parameter in map(model.get_parameter, names):
            group, vector = (
                of[id(parameter)],
                parameter.numel() == max(parameter.shape),
            )  # as the class token (1, 1, D) is
            assert group["factor"] == pytest.approx(0.7 ** (len(found) - 1 - i))
            assert group["weight_decay"] == (0.0 if vector else 0.3)
    plain = parameter_groups(model, 0.3)
    assert [(group["weight_decay"], group["factor"]) for group in plain] == [(0.3, 1.0), (0.0, 1.0)]


def test_layer_wise_learning_rates_equal_those_of_torch(trainer):
    config = replace(CONFIG, layer_decay=0.7)
    run, reference = trainer(config=config, dropout=0.0), trainer("reference", dropout=0.0).model
    found, rates = layers(run.model), []
    factor = {name: 0.7 ** (len(found) - 1 - i) for i, names in enumerate(found) for name in names}
    names = {id(p): name for name, p in run.model.named_parameters()}
    run.optimizer.register_step_pre_hook(
        lambda *_: rates.append(
            {
                names[id(p)]: group["lr"]
                for group in run.optimizer.param_groups
                for p in group["params"]
            }
        )
    )
    one_caption_each = [
        {"params": [p], "weight_decay": 0.05 * (p.dim() > 1), "name": n}
        for n, p in reference.named_parameters()
    ]
    optimizer = torch.optim.AdamW(one_caption_each, betas=(0.9, 0.98))
    for i in range(5):
        batch, rate = (
            collate([run.train[j] for j in range(11)]),
            CONFIG.learning_rate * warmup_and_cosine(i, 16, 0.25),
        )
        run._train_step(batch)
        run.step += 1
        assert rates[i] == pytest.approx({name: rate * factor[name] for name in factor})
        loss, count = reference.loss(batch)
        (loss / count).backward()
        nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate * factor[group["name"]]
        optimizer.step()
        optimizer.zero_grad()
        assert_close(run.model.state_dict(), reference.state_dict(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "patterns",
    [("encoders", "decoder.*.bias"), (BACKBONE,)],
    ids=["some of each layer", "some layers"],
)
def test_gradual_unfreezing_starts_at_the_output(model, patterns):
    freeze(model, *patterns)
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    parts = [
        part
        for names in reversed(layers(model))
        if (part := {name for name in names if name in frozen})
    ]
    before = 0
    for fraction in [*range(38), 41]:  # of 37; no number of layers here divides that
        free = min(fraction * len(parts) // 37, len(parts))
        assert gradual_unfreezing(model, frozen, fraction / 37) == (free > before)
        assert frozen_names(model) == set().union(*parts[free:])
        before = free
    assert before == len(parts) and all(part.training for part in model.modules())


def test_gradual_unfreezing_follows_the_schedule_in_a_run(trainer):
    image = helpers.IMAGE | {"depth": (1, 1), "width": 16}
    run = trainer(config=replace(CONFIG, freeze=("encoders",), gradual_unfreezing=0.5), image=image)
    parts = [names for names in reversed(layers(run.model)) if names[0].startswith("encoders.")]
    step, seen = run._train_step, []

    def watched(batch):
        before, frozen = (
            kept(run.model),
            set().union(*parts[len(parts) * run.step // 8 :]),
        )  # none from step 8 of 16
        stats = step(batch)
        changed = differing(before, run.model.state_dict())
        assert (
            frozen_names(run.model) == frozen == dict(run.model.named_parameters()).keys() - changed
        )
        assert (f"{BACKBONE}.bn1.running_mean" in changed) == (
            f"{BACKBONE}.bn1.weight" not in frozen
        )
        seen.append(len(frozen))
        return stats

    run._train_step = watched
    run.fit()
    assert len(seen) == 16 and len(set(seen)) == len(parts) + 1 and seen[0] == sum(map(len, parts))


@pytest.mark.parametrize("steps", [1, 5, 11])
def test_resumed_run_with_gradual_unfreezing_is_bit_identical(steps, trainer):
    config = replace(CONFIG, freeze=("encoders",), gradual_unfreezing=0.5, layer_decay=0.9)
    whole, resumed = gone_on_with(steps, partial(trainer, config=config))
    assert resumed.history == whole.history


# ---------------------------------------------------------------------------------------------------------------------
# Low-rank adaptation.


def by_hand(plain, model):
    """The state dict of a plain model with W + scale · B A for each W that has a LoRA in `model`; their names."""
    state = kept(plain)
    changed = model.state_dict()
    targets = set()
    for name in changed:
        if name.endswith(".a"):
            lora = name.removesuffix(".a")
            target = lora.replace("lora.", "")
            state[target] += SCALE * changed[lora + ".b"] @ changed[lora + ".a"]
            targets.add(target)
    return state, targets


@pytest.mark.parametrize("bias", [True, False])
def test_linear_layer_with_lora_equals_loralib(bias):
    loralib = pytest.importorskip("loralib")
    ours = nn.Linear(I, O, bias)
    add_lora(ours, R, SCALE)
    random_double(ours)
    theirs = loralib.Linear(I, O, R, lora_alpha=SCALE * R, merge_weights=False, bias=bias).double()
    names = {"lora.weight.a": "lora_A", "lora.weight.b": "lora_B"}
    theirs.load_state_dict({names.get(name, name): x for name, x in kept(ours).items()})
    x = torch.randn(B, T, I, dtype=torch.float64, requires_grad=True)
    got, expected = ours(x), theirs(x)
    assert_close(got, expected, rtol=1e-9, atol=1e-9)
    upstream = torch.randn_like(got)
    got = torch.autograd.grad(got, [x, *ours.lora.parameters()], upstream)
    expected = torch.autograd.grad(expected, [x, theirs.lora_A, theirs.lora_B], upstream)
    assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cross", [False, True], ids=["self", "cross"])
def test_attention_with_lora_equals_attention_with_the_changed_matrix(cross):
    plain = random_double(MultiHeadAttention(D, H))
    ours = copy.deepcopy(plain)
    add_lora(ours, R, SCALE)
    a, b = (
        nn.init.normal_(parameter, std=0.5)
        for parameter in ours.lora["in_proj_weight"].parameters()
    )
    assert a.dtype == torch.float64 and (a.shape, b.shape) == ((R, D), (3 * D, R))
    inputs = [
        torch.randn(B, n, D, dtype=torch.float64, requires_grad=True)
        for n in ((T, N) if cross else (T,))
    ]
    got = ours(*inputs)
    expected = functional_call(
        plain, {"in_proj_weight": plain.in_proj_weight + SCALE * b @ a}, tuple(inputs)
    )
    assert_close(got, expected, rtol=1e-9, atol=1e-9)
    upstream = torch.randn_like(got)
    got, expected = (
        torch.autograd.grad(output, [*inputs, a, b], upstream) for output in (got, expected)
    )
    assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_lstm_with_lora_equals_an_lstm_with_changed_matrices(bidirectional):
    plain = random_double(LSTM(I, O, 2, bidirectional))
    ours = adapted(copy.deepcopy(plain))
    state, targets = by_hand(plain, ours)
    state = {name: x.requires_grad_() for name, x in state.items()}
    assert targets == {name for name in state if name.startswith("weight_")}
    x = torch.randn(B, T, I, dtype=torch.float64, requires_grad=True)
    got, expected = ours(x)[0], functional_call(plain, state, (x,))[0]
    assert_close(got, expected, rtol=1e-9, atol=1e-9)
    upstream = torch.randn_like(got)
    d_x, *d_loras = torch.autograd.grad(got, [x, *ours.lora.parameters()], upstream)
    d_expected = torch.autograd.grad(expected, [x, *state.values()], upstream)
    assert_close(d_x, d_expected[0], rtol=1e-9, atol=1e-9)
    d_state = dict(zip(state, d_expected[1:]))
    for i, (name, lora) in enumerate(
        ours.lora.items()
    ):  # W' = W + s B A: dA = s Bᵀ dW', dB = s dW' Aᵀ
        assert_close(d_loras[2 * i], SCALE * lora.b.T @ d_state[name], rtol=1e-9, atol=1e-9)
        assert_close(d_loras[2 * i + 1], SCALE * d_state[name] @ lora.a.T, rtol=1e-9, atol=1e-9)


def test_new_lora_does_not_change_the_output(decoder, tokens, memory):
    expected = randomized(decoder, 0.5).eval()(tokens, memory)
    add_lora(decoder, R)
    assert torch.equal(decoder(tokens, memory), expected)
    for lora in (module for module in decoder.modules() if isinstance(module, LoRA)):
        assert lora.scale == 2.0 and not lora.b.any() and lora.a.size(0) == lora.b.size(1) == R
        bound = lora.a.size(1) ** -0.5  # as a linear layer begins: evenly between -bound and bound
        assert 0.7 * bound < lora.a.abs().max() <= bound and lora.a.std().item() == pytest.approx(
            bound / 3**0.5, rel=0.3
        )


def test_lora_adds_scale_b_a_to_every_matrix_of_a_decoder_and_is_trained_alone(
    decoder, tokens, memory
):
    plain = copy.deepcopy(randomized(decoder.double(), 0.3).eval())
    adapted(decoder)
    memory = Memory(memory.tokens.double(), memory.mask)
    state, targets = by_hand(plain, decoder)
    matrices = {
        name for name, p in plain.named_parameters() if p.dim() == 2 and min(p.shape) >= R
    }  # not v of additive attention
    assert targets == {name for name in matrices if not name.startswith("embedding.")}
    got, expected = decoder(tokens, memory), functional_call(plain, state, (tokens, memory))
    assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert (plain(tokens, memory) - expected).abs().max() > 0.01
    got.square().sum().backward()
    learning = {
        name
        for name, parameter in decoder.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }
    assert (
        learning
        == {name for name, _ in decoder.named_parameters() if ".lora." in name}
        == trainable_state(decoder).keys()
    )
    assert frozen_names(decoder) == plain.state_dict().keys()


def test_lora_dropout_acts_only_on_the_input_of_a():
    p, count, linear = 0.3, 9973, nn.Linear(R, O)
    layer = copy.deepcopy(linear)
    add_lora(layer, R, SCALE, dropout=p)
    a, b = layer.lora.parameters()
    with torch.no_grad():
        a.copy_(torch.eye(R))
        b.copy_(
            torch.tensor(
                [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 2, 4], [1, 1, 1], [4, 2, 1], [0, 0, 0]]
            )
        )
    x = torch.ones(count, R)
    change = (
        (layer(x) - linear(x)) * (1 - p) / SCALE
    )  # (count, O): which inputs stayed, and sums of these
    stayed = change[:, :R].round()
    assert_close(change, stayed @ b.T, rtol=1e-4, atol=1e-4)
    assert set(stayed.unique().tolist()) == {0.0, 1.0}
    assert_close(
        stayed.mean(0), torch.full((R,), 1 - p), rtol=0, atol=0.025
    )  # the standard deviation is 0.0046
    assert_close(layer.eval()(x), linear(x) + SCALE * x @ b.T)
    attention = adapted(MultiHeadAttention(D, H), dropout=p)
    x = torch.randn(B, T, D)
    for training in (True, False):
        attention.train(training)
        assert torch.equal(attention.project(x)[0], attention.project(x)[0]) != training


def test_lora_of_an_lstm_has_no_dropout():
    lstm = adapted(LSTM(D, HIDDEN, LAYERS), dropout=0.3)
    x = torch.randn(B, T, D)
    expected = lstm.eval()(x)[0]
    assert torch.equal(lstm.train()(x)[0], expected)


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float32, 3e-6), (torch.float64, 1e-13)], ids=str
)
def test_merged_lora_computes_the_same(decoder, tokens, memory, dtype, tolerance):
    plain = copy.deepcopy(decoder.to(dtype).eval())
    memory = Memory(memory.tokens.to(dtype), memory.mask)
    adapted(decoder)
    expected = decoder(tokens, memory)
    state, targets = by_hand(plain, decoder)
    merge_lora(decoder)
    merged = kept(decoder)
    assert_close(decoder(tokens, memory), expected, rtol=tolerance, atol=tolerance)
    assert differing(kept(plain), merged) == targets
    assert_close(merged, state, rtol=0, atol=1e-7)
    assert all(weight.is_leaf and not weight.requires_grad for weight in decoder.parameters())
    for again in (merge_lora, remove_lora):
        again(decoder)
        assert not differing(merged, kept(decoder))


@pytest.mark.parametrize("merged", [True, False])
def test_model_is_plain_again_without_its_lora(decoder, tokens, memory, merged):
    plain = copy.deepcopy(decoder.eval())
    parameters = list(decoder.parameters())
    adapted(decoder, dropout=0.3)
    expected = (decoder if merged else plain)(tokens, memory)
    if merged:
        merge_lora(decoder)
    else:
        remove_lora(decoder)
        assert not differing(kept(decoder), kept(plain)) and torch.equal(
            decoder(tokens, memory), expected
        )
    assert_close(decoder(tokens, memory), expected, rtol=3e-6, atol=3e-6)
    assert [type(part) for part in decoder.modules()] == [type(part) for part in plain.modules()]
    assert str(decoder) == str(plain) and not any(part.training for part in decoder.modules())
    assert list(decoder.state_dict()) == list(plain.state_dict())
    assert all(
        ours is before for ours, before in zip(decoder.parameters(), parameters, strict=True)
    )
    add_lora(decoder, R)  # there is place for another


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["copy", "pickle"],
)
def test_model_with_lora_can_be_copied_and_pickled(decoder, tokens, memory, copied):
    plain = copy.deepcopy(decoder.eval())
    expected = adapted(decoder, dropout=0.3)(tokens, memory)
    other = copied(decoder)
    assert torch.equal(other(tokens, memory), expected)
    assert frozen_names(other) == frozen_names(decoder) != set()
    assert any(part.training for part in other.train().modules()) and not decoder.training
    randomized(other.eval(), only=".lora.")
    assert not torch.equal(other(tokens, memory), expected)
    remove_lora(other)
    assert torch.equal(other(tokens, memory), plain(tokens, memory))
    assert torch.equal(
        decoder(tokens, memory), expected
    )  # what is done to the copy is not done to it


def test_decoder_with_lora_steps_and_reorders(decoder, tokens, memory):
    adapted(decoder.eval())
    index = torch.tensor([3, 0, 3, 1, 4, 2, 0])
    expected, state = decoder(tokens, memory), decoder.start(memory)
    for t in range(T):
        beams, _ = decoder.step(tokens[index, t], decoder.reorder(state, index))
        assert_close(beams, expected[index, t], rtol=1e-5, atol=1e-5)
        logits, state = decoder.step(tokens[:, t], state)
        assert_close(logits, expected[:, t], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rank", [0, -1, 18])
def test_impossible_rank_is_refused_and_changes_nothing(rank):
    model = nn.Sequential(nn.Linear(17, 19), nn.Conv2d(3, 5, 7))
    with raises_a_line("rank", str(rank), "Sequential"):
        add_lora(model, rank)
    assert type(model[0]) is nn.Linear and not frozen_names(model)


def test_batch_norm_statistics_do_not_change_with_a_lora():
    model = a_model("transformer", helpers.IMAGE | {"num_layers": 1})
    add_lora(model, R)
    before = kept(model)
    model.train()(
        {
            "image": torch.randint(256, (B, 3, 32, 32), dtype=torch.uint8),
            "target": torch.randint(4, V, (B, T)),
        }
    )
    assert (
        not differing(before, kept(model)) and model.training and model.decoder.blocks[0].training
    )


def test_add_lora_refuses_a_second_lora_and_layers_that_cannot_have_one():
    model = adapted(nn.Sequential(nn.Linear(I, O), nn.Linear(O, R - 1)))
    assert type(model[1]) is nn.Linear  # it is too thin
    with raises_a_line("has a LoRA", "remove_lora"):
        add_lora(model, R)
    for layer in (
        nn.Conv2d(3, 5, 7),
        nn.MultiheadAttention(D, H),
    ):  # which has a linear layer of a class of its own
        with raises_a_line(type(layer).__name__, "LoRA"):
            add_lora(layer, R)


# ---------------------------------------------------------------------------------------------------------------------
# What is kept of it.


def a_change(std=0.1, rank=R, **changes):
    """Always the same model, whose decoder has a LoRA that has learned something."""
    torch.manual_seed(23)
    model = a_model(**changes)
    freeze(model, "*")
    add_lora(model.decoder, rank, SCALE)
    return randomized(model, std, ".lora.").eval()


def test_trainable_state_holds_only_the_lora_and_can_be_loaded(kind, tokens, tmp_path):
    model, other, plain = (
        a_change(decoder=kind),
        a_change(0.7, decoder=kind),
        a_model(decoder=kind).decoder,
    )
    state = trainable_state(model)
    matrices = [
        p
        for name, p in plain.named_parameters()
        if p.dim() == 2 and not name.startswith("embedding.")
    ]
    count = sum(R * sum(matrix.shape) for matrix in matrices)
    assert count == sum(x.numel() for x in state.values())
    assert trainable_parts(model)[-1] == ("LoRA", count, count) and not any(
        part[2] for part in trainable_parts(model)[:-1]
    )
    torch.save(state, tmp_path / "change.pt")
    assert (tmp_path / "change.pt").stat().st_size < 4 * count + 1000 * len(state)
    load_trainable(other, torch.load(tmp_path / "change.pt"), fingerprint(model))
    batch = {"image": torch.randint(256, (B, 3, 32, 32), dtype=torch.uint8), "target": tokens}
    assert torch.equal(model(batch), other(batch)) and not differing(state, trainable_state(other))


@pytest.mark.parametrize(
    "what", [f"{BACKBONE}.bn1.running_mean", f"{BACKBONE}.bn1.num_batches_tracked", "decoder.bias"]
)
def test_lora_of_another_model_is_refused(what):
    model, other = a_change(), a_change(0.7)
    tensor, before = other.state_dict()[what].view(-1), kept(other)
    tensor[0] = (
        tensor[0] + 1 if "num" in what else torch.nextafter(tensor[0], torch.tensor(7.0))
    )  # the last bit
    with raises_a_line("another model"):
        load_trainable(other, trainable_state(model), fingerprint(model))
    assert differing(before, kept(other)) == {what}


def test_lora_of_another_shape_is_refused_by_name():
    model, other = a_change(), a_change(0.7, rank=2)
    before, state = kept(other), trainable_state(model)
    with raises_a_line("does not fit", r"decoder\.\w+\.lora\.\S*a"):
        load_trainable(other, state, fingerprint(model))
    del state["decoder.combine.lora.weight.b"]
    with raises_a_line("does not fit", r"decoder\.combine\.lora\.weight\.b, 1 in all"):
        load_trainable(a_change(), state, fingerprint(model))
    assert not differing(before, kept(other))


def test_fingerprint_covers_untrained_tensors_in_any_memory_layout():
    model = a_change()
    expected = fingerprint(model)
    assert (
        len(expected) == 64
        and fingerprint(randomized(copy.deepcopy(model), 3.0, ".lora.")) == expected
    )
    assert fingerprint(copy.deepcopy(model).to(memory_format=torch.channels_last)) == expected

    def of(**buffers):
        module = nn.Module()
        for name, value in buffers.items():
            module.register_buffer(name, value)
        return fingerprint(module)

    a, b = torch.zeros(2, 3), torch.rand(2, 3)
    others = [
        {"a": b, "b": a},
        {"a": a, "c": b},
        {"a": a},
        {"a": a.view(3, 2), "b": b},
        {"a": a.int(), "b": b},
        {},
    ]
    assert len({of(**buffers) for buffers in [{"a": a, "b": b}, *others]}) == 7
    assert of(b=b, a=a) == of(a=a, b=b.T.contiguous().T) == of(a=a, b=b)


# ---------------------------------------------------------------------------------------------------------------------
# Runs that begin with another one.


def test_run_starts_from_the_weights_of_another(kind, base, trainer):
    folder, model = base(decoder=kind)
    run = trainer(config=replace(CONFIG, start_from=folder), decoder=kind)
    assert (
        run.step == 0
        and not differing(run.model.state_dict(), model.state_dict())
        and not frozen_names(run.model)
    )
    with raises_a_line(folder, "of another shape: encoders.image.position"):
        trainer("wide", replace(CONFIG, start_from=folder), decoder=kind, embed_dim=14)


def test_words_of_both_vocabularies_keep_their_embeddings(kind, base, trainer):
    fresh = trainer("fresh", decoder=kind)
    ours = fresh.train.vocabularies["target"].words
    folder, model = base(
        ["a", "zebra", *sorted(set(ours[4:-5]) - {"a"}, key=lambda word: word[::-1]), "yak"],
        decoder=kind,
    )
    run, theirs = (
        trainer(config=replace(CONFIG, start_from=folder), decoder=kind),
        load_run(folder)[1]["target"].words,
    )
    for name in (
        ("decoder.embedding.weight", "decoder.bias")
        if kind == "lstm"
        else ("decoder.embedding.words.weight",)
    ):
        got, before, new = (
            network.get_parameter(name) for network in (run.model, model, fresh.model)
        )
        for i, word in enumerate(ours):
            assert torch.equal(got[i], before[theirs.index(word)] if word in theirs else new[i])
    common = [word for word in ours if word in theirs]
    assert 11 < len(common) < min(len(ours), len(theirs)) and ours[5:] != theirs[5:]
    logits, picture = [], torch.randint(256, (1, 3, 32, 32), dtype=torch.uint8)
    target = random.Random(0).sample(common[4:], 11)
    for network, words in ((run.model.eval(), ours), (model, theirs)):
        batch = {"image": picture, "target": torch.tensor([[words.index(word) for word in target]])}
        logits.append(network(batch)[..., [words.index(word) for word in common]])
    assert_close(*logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("positions", [67, 61])
def test_run_may_have_more_or_fewer_positions_than_its_base(positions, base, trainer):
    folder, model = base()
    run, name = (
        trainer(config=replace(CONFIG, start_from=folder), max_length=positions),
        "decoder.embedding.positions.weight",
    )
    ours, theirs = run.model.state_dict(), kept(model)
    assert len(ours[name]) == positions and torch.equal(
        ours[name][:64], theirs.pop(name)[:positions]
    )
    assert not differing(theirs, ours)


LORA_RUNS = {
    "lstm": {"decoder": "lstm"},
    "transformer": {},
    "other words": {"words": True},
    "other words of an lstm": {"words": True, "decoder": "lstm"},
    "more positions": {"max_length": 67},
    "some of it frozen": {"freeze": ("decoder.blocks.0.linear1",)},
}


@pytest.fixture(params=LORA_RUNS)
def lora_runs(request, base, trainer):
    """Makes runs with LoRA, by name; with the base's model, and what of it is trained in these runs."""
    changes, trained = dict(LORA_RUNS[request.param]), set()
    size = {"decoder": changes.get("decoder", "transformer")}
    if changes.pop("words", False):
        words = ["yak", *reversed(trainer("words").train.vocabularies["target"].words[7:])]
        trained = (
            {"decoder.embedding.weight", "decoder.bias"}
            if changes
            else {"decoder.embedding.words.weight"}
        )
    elif "max_length" in changes:
        words, trained = None, {"decoder.embedding.positions.weight"}
    else:
        words = None
    folder, model = base(words, **size)
    config = replace(CONFIG, start_from=folder, lora=R, freeze=changes.pop("freeze", ()))
    return lambda name: trainer(name, config, **changes), model, trained


def test_lora_run_resumes_exactly_saves_only_its_lora_and_loads_as_a_plain_model(
    lora_runs,
):
    make, model, trained = lora_runs
    begun, same = (
        make("begun"),
        {name: value for name, value in kept(model).items() if name not in trained},
    )
    assert not differing(same, begun.model.state_dict())
    assert 0.2 in {
        part.dropout for part in begun.model.modules() if isinstance(part, LoRA)
    }  # the model's
    run, resumed = gone_on_with(5, make)
    assert resumed.history == run.history
    assert not differing(same, run.model.state_dict())
    for name in ("best.pt", "last.pt"):
        saved = read_checkpoint(run.folder / name)["model"]
        assert (
            saved.keys() == {name for name in run.model.state_dict() if ".lora." in name} | trained
        )
    (loaded, vocabularies, _), batch = (
        load_run(run.folder),
        collate([run.train[i] for i in range(11)]),
    )
    assert_close(loaded(batch), best_of(run)(batch), rtol=1e-5, atol=1e-5)
    assert (
        vocabularies["target"].words == run.train.vocabularies["target"].words
        and not loaded.training
    )
    assert [type(part) for part in loaded.modules()] == [type(part) for part in model.modules()]
    assert differing(same, loaded.state_dict()) != set()


def test_lora_run_may_start_from_a_lora_run(base, trainer):
    first = trainer("first", replace(CONFIG, epochs=1, start_from=base()[0], lora=R))
    first.fit()
    second = trainer("second", replace(CONFIG, epochs=1, start_from=str(first.folder), lora=2))
    batch = collate([first.train[i] for i in range(5)])
    assert torch.equal(second.model.eval()(batch), load_run(first.folder)[0](batch))
    second.fit()
    assert_close(load_run(second.folder)[0](batch), best_of(second)(batch), rtol=1e-5, atol=1e-5)


def test_lora_run_with_a_changed_base_is_refused(base, trainer, tmp_path):
    folder, _ = base()
    run, path = (
        trainer(config=replace(CONFIG, epochs=1, start_from=folder, lora=R)),
        tmp_path / "base" / "best.pt",
    )
    run.fit()
    saved = read_checkpoint(path)
    saved["model"][f"{BACKBONE}.bn1.num_batches_tracked"] += 1
    torch.save(saved, path)
    with raises_a_line(str(run.folder), folder):
        load_run(run.folder)
    with raises_a_line(folder):
        trainer(config=run.config)  # to go on with it
    path.unlink()
    with raises_a_line(str(run.folder), folder):
        load_run(run.folder)


def test_contradictory_settings_are_refused(base, trainer):
    with raises_a_line("nothing to train", "encoders and decoder"):
        trainer(config=replace(CONFIG, freeze=("encoders", "decoder")))
    with raises_a_line("LoRA", "--from"):
        trainer(config=replace(CONFIG, lora=R))
    with raises_a_line("LoRA", "gradual_unfreezing"):
        trainer(config=replace(CONFIG, start_from=base()[0], lora=R, gradual_unfreezing=0.5))


# ---------------------------------------------------------------------------------------------------------------------
# On a GPU.


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_frozen_backbone_does_not_change_on_a_gpu(precision, trainer):
    run = trainer(config=replace(CONFIG, precision=precision, freeze=(BACKBONE,)))
    before = kept(run.model)
    run.fit()
    assert run.device.type == "cuda"
    assert not [
        name for name in differing(before, run.model.state_dict()) if name.startswith(BACKBONE)
    ]


@pytest.mark.gpu
@pytest.mark.parametrize(
    "changes", [{"lora": R}, {"freeze": ("encoders",), "gradual_unfreezing": 0.5}], ids=str
)
def test_resumed_finetuning_is_bit_identical_on_a_gpu(changes, base, trainer):
    config = replace(CONFIG, start_from=base()[0], **changes)
    _, resumed = gone_on_with(5, partial(trainer, config=config))
    assert resumed.device.type == "cuda"
    assert next(load_run(resumed.folder)[0].parameters()).device.type == "cuda"


@pytest.mark.gpu
def test_fingerprint_and_merge_are_the_same_on_a_gpu():
    model = a_change()
    there = copy.deepcopy(model).to("cuda", memory_format=torch.channels_last)
    assert fingerprint(there) == fingerprint(model)
    for each in (model, there):
        merge_lora(each)
    assert_close(there.cpu().state_dict(), model.state_dict())
