"""Fine-tuning: frozen modules, layer-wise learning rates, LoRA against loralib, saved runs."""

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
)
from mmscratch.model import build_model
from mmscratch.recurrent import LSTM, LSTMDecoder
from mmscratch.text import Vocabulary
from mmscratch.training import TrainConfig, warmup_and_cosine
from mmscratch.transformer import TransformerDecoder

B, T, N, V = 5, 7, 13, 19  # sentences, words, memory positions, vocabulary
D, H, HIDDEN, LAYERS = 22, 2, 17, 3  # width, heads, width of the LSTM's state, decoder layers
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
TOKEN_EMBEDDINGS = {
    "lstm": ("decoder.embedding.weight", "decoder.bias"),
    "transformer": ("decoder.embedding.words.weight",),
}
DECODER_SETTINGS = {"lstm": helpers.LSTM, "transformer": helpers.TRANSFORMER}
BACKBONES = {
    "resnet": {"depth": (1, 2, 1), "width": 5},
    "vgg": {"depth": 11},
    "vit": {"depth": 3, "hidden_dim": 64},
}
# With 53 captions: 16 steps.
CONFIG = TrainConfig(
    epochs=2, batch_size=7, warmup_fraction=0.25, evaluate_every=5, precision="float32"
)
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
        decoder = DECODER_SETTINGS[decoder] | changes
        return tiny_trainer(
            tmp_path / name, config, image=image, decoder=decoder, embed_dim=embed_dim
        )

    return make


@pytest.fixture
def base(trainer):
    """Saves a run with random weights and statistics; returns its folder and its model."""

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
    decoder = DECODER_SETTINGS[decoder] | {"num_layers": LAYERS, "dropout": 0.3} | changes
    return build_model(tiny_config(V, image, decoder, D))


@pytest.fixture(params=BACKBONES)
def model(request, kind):
    return a_model(
        kind, {"name": request.param, "image_size": 32, "num_layers": 2} | BACKBONES[request.param]
    )


def randomized(module, std=0.1, only=""):
    """Make all parameters random, or those with `only` in the name: no 0 or 1 hides a mistake."""
    for name, parameter in module.named_parameters():
        if only in name:
            nn.init.normal_(parameter, std=std)
    return module


def with_lora(module, rank=R, **options):
    """Give a module a LoRA that is not zero."""
    add_lora(module, rank, SCALE, **options)
    return randomized(module, only="lora.")


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def differing(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def frozen_names(model):
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def bit_identical_runs(steps, make):
    """Two runs that are bit-identical at the end: one unbroken, one stopped after `steps` steps."""
    # Imported here, since the tests of exercises run without test_training.
    from test_training import resumed_after, states_equal

    whole, resumed = resumed_after(steps, make)
    assert states_equal(whole, resumed)
    return whole, resumed


def raises_a_line(*words):
    """A ValueError whose message is one line with these words."""
    has_words = "".join(f"(?=.*{word})" for word in words)
    return pytest.raises(ValueError, match=f"^{has_words}[^\n]*$")


def best_of(run):
    """The trainer's model with the best weights of its run; the LoRA is not merged."""
    saved = read_checkpoint(run.folder / "best.pt")
    load_trainable(run.model, saved["model"], saved["base"])
    return run.model.eval()


# -------------------------------------------------------------------------------------------------
# Freezing.


@pytest.mark.parametrize(
    "pattern, matches",
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
def test_pattern_freezes_matching_parameters_only(pattern, matches):
    model = a_model()
    other = "decoder.combine.weight"
    matching = {name for name, _ in model.named_parameters() if matches(name)}
    freeze(model, pattern)
    assert frozen_names(model) == matching != set()
    freeze(model, other)  # frozen parameters stay frozen
    assert frozen_names(model) == matching | {other}
    trained = {part: count for part, _, count in trainable_parts(model)}
    assert trained["decoder.combine"] == (0 if matches("decoder.combine.bias") else D)
    unfreeze(model, pattern)
    assert frozen_names(model) == {other} - matching
    unfreeze(model)
    assert frozen_names(model) == set() and all(part.training for part in model.train().modules())


@pytest.mark.parametrize(
    "pattern",
    ["encoders.image.backb", "decoder.bia", "decoder.bia.", "image", "backbone.*", "Decoder", ""],
)
def test_pattern_without_a_match_is_refused_with_the_list_of_parts(pattern):
    with raises_a_line(repr(pattern).replace("*", r"\*"), "decoder.lstm", BACKBONE):
        freeze(a_model(), "decoder.bias", pattern)


def test_frozen_parameters_and_statistics_stay_bit_identical_in_training(kind, trainer):
    run = trainer(config=replace(CONFIG, freeze=(BACKBONE, "decoder.*.bias")), decoder=kind)
    before = state_of(run.model)
    run.fit()
    still = {name for name in before if name.startswith(BACKBONE)}
    assert {f"{BACKBONE}.bn1.running_var", f"{BACKBONE}.bn1.num_batches_tracked"} < still
    for name in before:
        if name.startswith("decoder.") and name.endswith(".bias") and name != "decoder.bias":
            still.add(name)
    assert differing(before, run.model.state_dict()) == before.keys() - still


def test_batch_norm_statistics_drift_without_freeze(trainer):
    run = trainer()
    run.model.get_submodule(BACKBONE).requires_grad_(False)
    before = state_of(run.model)
    run.fit()
    norm = f"{BACKBONE}.bn1."
    changed = differing(before, run.model.state_dict())
    assert norm + "weight" not in changed
    assert {norm + "running_mean", norm + "num_batches_tracked"} < changed


def test_frozen_modules_have_no_dropout_until_unfrozen():
    model = a_model(decoder="transformer", fusion="prefix")
    x = torch.randn(B, T, D)

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
    unfreeze(other, "decoder.blocks.1.norm1.weight")  # the block is now partly frozen
    assert dropping(other) == [True, True, True] and not other.decoder.blocks[1].linear1.training
    unfreeze(model, "decoder.blocks.1")
    assert dropping(model) == [True, True, True] and all(part.training for part in model.modules())
    freeze(model.eval(), "encoders")
    assert not any(part.training for part in model.modules())  # the rest keeps its mode


def test_frozen_model_can_be_pickled():
    model = a_model()
    freeze(model, BACKBONE)
    model = pickle.loads(pickle.dumps(model)).train()
    assert not model.get_submodule(BACKBONE).training and model.decoder.training


# -------------------------------------------------------------------------------------------------
# Layers.


def test_layers_list_every_parameter_once_in_order_of_computation(model, kind, tokens):
    called = []
    found = layers(model.eval())
    where = {name: i for i, names in enumerate(found) for name in names}
    listed = [name for names in found for name in names]
    assert sorted(listed) == sorted(name for name, _ in model.named_parameters())

    def record(layer):
        return lambda *_: called.append(layer)

    for name, module in model.named_modules():
        if not list(module.children()) and f"{name}.weight" in where:
            module.register_forward_pre_hook(record(where[f"{name}.weight"]))
    model({"image": torch.zeros(B, 3, 32, 32, dtype=torch.uint8), "target": tokens})
    count = LAYERS if kind == "transformer" else 0
    blocks = [where[f"decoder.blocks.{i}.linear1.bias"] for i in range(count)]
    assert blocks == list(range(len(found) - 1 - len(blocks), len(found) - 1))
    encoder = [layer for layer in called if layer < len(found) - 1 - len(blocks)]
    assert encoder == sorted(encoder) and set(encoder) == set(range(len(found) - 1 - len(blocks)))
    for name, layer in where.items():
        part = name.split(".")[:2]
        block = name.split(".")[2:3]
        assert (layer in encoder) == (part[0] == "encoders")
        if part[0] == "decoder":
            assert layer == (blocks[int(block[0])] if part[1] == "blocks" else len(found) - 1)
    for name in ("projection.bias", "position", "norm.bias"):
        assert where[f"encoders.image.{name}"] == encoder[-1] - 2
    assert where["encoders.image.blocks.1.self_attn.in_proj_weight"] == encoder[-1]
    for name in ("bn1.bias", "class_token", "positions"):
        assert where.get(f"{BACKBONE}.{name}", 0) == 0


def test_parameter_groups_hold_every_parameter_once_with_its_decay_and_factor(model):
    groups = parameter_groups(model, 0.3, 0.7)
    found = layers(model)
    group_of = {id(p): group for group in groups for p in group["params"]}
    count = sum(len(group["params"]) for group in groups)
    assert len(group_of) == count == len(list(model.parameters()))
    for i, names in enumerate(found):
        for parameter in map(model.get_parameter, names):
            group = group_of[id(parameter)]
            is_vector = parameter.numel() == max(parameter.shape)  # so is a class token (1, 1, D)
            assert group["factor"] == pytest.approx(0.7 ** (len(found) - 1 - i))
            assert group["weight_decay"] == (0.0 if is_vector else 0.3)
    plain = parameter_groups(model, 0.3)
    assert {(group["weight_decay"], group["factor"]) for group in plain} == {(0.3, 1.0), (0.0, 1.0)}


def test_layer_wise_learning_rates_equal_those_of_torch(trainer):
    config = replace(CONFIG, layer_decay=0.7)
    run = trainer(config=config, dropout=0.0)
    reference = trainer("reference", dropout=0.0).model
    found = layers(run.model)
    rates = []
    factor = {name: 0.7 ** (len(found) - 1 - i) for i, names in enumerate(found) for name in names}
    names = {id(p): name for name, p in run.model.named_parameters()}

    def record(*_):
        rates.append({})
        for group in run.optimizer.param_groups:
            for parameter in group["params"]:
                rates[-1][names[id(parameter)]] = group["lr"]

    run.optimizer.register_step_pre_hook(record)
    groups = []  # one for each parameter
    for name, parameter in reference.named_parameters():
        decay = 0.05 * (parameter.dim() > 1)
        groups.append({"params": [parameter], "weight_decay": decay, "name": name})
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    for i in range(5):
        batch = collate([run.train[j] for j in range(11)])
        rate = CONFIG.learning_rate * warmup_and_cosine(i, 16, 0.25)
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
    parts = [set(names) & set(frozen) for names in reversed(layers(model))]
    parts = [part for part in parts if part]
    before = 0
    for n in [*range(38), 41]:  # the fraction n / 37; no number of layers here divides 37
        free = min(n * len(parts) // 37, len(parts))
        assert gradual_unfreezing(model, frozen, n / 37) == (free > before)
        assert frozen_names(model) == set().union(*parts[free:])
        before = free
    assert before == len(parts) and all(part.training for part in model.modules())


def test_gradual_unfreezing_follows_the_schedule_in_a_run(trainer):
    image = helpers.IMAGE | {"depth": (1, 1), "width": 16}
    run = trainer(config=replace(CONFIG, freeze=("encoders",), gradual_unfreezing=0.5), image=image)
    parts = [names for names in reversed(layers(run.model)) if names[0].startswith("encoders.")]
    step = run._train_step
    seen = []

    def watched(batch):
        before = state_of(run.model)
        frozen = set().union(*parts[len(parts) * run.step // 8 :])  # none from step 8 of 16
        stats = step(batch)
        changed = differing(before, run.model.state_dict())
        assert frozen_names(run.model) == frozen
        assert dict(run.model.named_parameters()).keys() - changed == frozen
        drifted = f"{BACKBONE}.bn1.running_mean" in changed
        assert drifted == (f"{BACKBONE}.bn1.weight" not in frozen)
        seen.append(len(frozen))
        return stats

    run._train_step = watched
    run.fit()
    assert len(seen) == 16 and len(set(seen)) == len(parts) + 1 and seen[0] == sum(map(len, parts))


@pytest.mark.parametrize("steps", [1, 5, 11])
def test_resumed_run_with_gradual_unfreezing_is_bit_identical(steps, trainer):
    config = replace(CONFIG, freeze=("encoders",), gradual_unfreezing=0.5, layer_decay=0.9)
    whole, resumed = bit_identical_runs(steps, partial(trainer, config=config))
    assert resumed.history == whole.history


# -------------------------------------------------------------------------------------------------
# Low-rank adaptation.


def by_hand(plain, model):
    """The state dict of a plain model, with W + scale · B A for each W with a LoRA; their names."""
    state = state_of(plain)
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
    theirs.load_state_dict({names.get(name, name): x for name, x in state_of(ours).items()})
    x = torch.randn(B, T, I, dtype=torch.float64, requires_grad=True)
    got = ours(x)
    expected = theirs(x)
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
    a, b = ours.lora["in_proj_weight"].parameters()
    nn.init.normal_(a, std=0.5)
    nn.init.normal_(b, std=0.5)
    assert a.dtype == torch.float64 and (a.shape, b.shape) == ((R, D), (3 * D, R))
    inputs = []
    for n in (T, N) if cross else (T,):
        inputs.append(torch.randn(B, n, D, dtype=torch.float64, requires_grad=True))
    got = ours(*inputs)
    changed = {"in_proj_weight": plain.in_proj_weight + SCALE * b @ a}
    expected = functional_call(plain, changed, tuple(inputs))
    assert_close(got, expected, rtol=1e-9, atol=1e-9)
    upstream = torch.randn_like(got)
    got = torch.autograd.grad(got, [*inputs, a, b], upstream)
    expected = torch.autograd.grad(expected, [*inputs, a, b], upstream)
    assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_lstm_with_lora_equals_an_lstm_with_changed_matrices(bidirectional):
    plain = random_double(LSTM(I, O, 2, bidirectional))
    ours = with_lora(copy.deepcopy(plain))
    state, targets = by_hand(plain, ours)
    state = {name: x.requires_grad_() for name, x in state.items()}
    assert targets == {name for name in state if name.startswith("weight_")}
    x = torch.randn(B, T, I, dtype=torch.float64, requires_grad=True)
    got = ours(x)[0]
    expected = functional_call(plain, state, (x,))[0]
    assert_close(got, expected, rtol=1e-9, atol=1e-9)
    upstream = torch.randn_like(got)
    d_x, *d_loras = torch.autograd.grad(got, [x, *ours.lora.parameters()], upstream)
    d_expected = torch.autograd.grad(expected, [x, *state.values()], upstream)
    assert_close(d_x, d_expected[0], rtol=1e-9, atol=1e-9)
    d_state = dict(zip(state, d_expected[1:]))
    # W' = W + s B A: dA = s Bᵀ dW', dB = s dW' Aᵀ
    for i, (name, lora) in enumerate(ours.lora.items()):
        assert_close(d_loras[2 * i], SCALE * lora.b.T @ d_state[name], rtol=1e-9, atol=1e-9)
        assert_close(d_loras[2 * i + 1], SCALE * d_state[name] @ lora.a.T, rtol=1e-9, atol=1e-9)


def test_new_lora_does_not_change_the_output(decoder, tokens, memory):
    expected = randomized(decoder, 0.5).eval()(tokens, memory)
    add_lora(decoder, R)
    assert torch.equal(decoder(tokens, memory), expected)
    for lora in (module for module in decoder.modules() if isinstance(module, LoRA)):
        assert lora.scale == 2.0 and not lora.b.any() and lora.a.size(0) == lora.b.size(1) == R
        bound = lora.a.size(1) ** -0.5  # uniform between -bound and bound, as in a linear layer
        assert 0.7 * bound < lora.a.abs().max() <= bound
        assert lora.a.std().item() == pytest.approx(bound / 3**0.5, rel=0.3)


def test_lora_adds_scale_b_a_to_every_matrix_and_is_trained_alone(decoder, tokens, memory):
    plain = copy.deepcopy(randomized(decoder.double(), 0.3).eval())
    with_lora(decoder)
    memory = Memory(memory.tokens.double(), memory.mask)
    state, targets = by_hand(plain, decoder)
    matrices = set()
    for name, p in plain.named_parameters():
        if p.dim() == 2 and min(p.shape) >= R:  # not v of additive attention
            matrices.add(name)
    assert targets == {name for name in matrices if not name.startswith("embedding.")}
    got = decoder(tokens, memory)
    expected = functional_call(plain, state, (tokens, memory))
    assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert (plain(tokens, memory) - expected).abs().max() > 0.01
    got.square().sum().backward()
    learning = set()
    for name, parameter in decoder.named_parameters():
        if parameter.grad is not None and parameter.grad.any():
            learning.add(name)
    assert learning == {name for name, _ in decoder.named_parameters() if ".lora." in name}
    assert learning == trainable_state(decoder).keys()
    assert frozen_names(decoder) == plain.state_dict().keys()


def test_lora_dropout_acts_only_on_the_input_of_a():
    p = 0.3
    count = 9973
    linear = nn.Linear(R, O)
    layer = copy.deepcopy(linear)
    add_lora(layer, R, SCALE, dropout=p)
    a, b = layer.lora.parameters()
    rows = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 2, 4], [1, 1, 1], [4, 2, 1], [0, 0, 0]]
    with torch.no_grad():
        a.copy_(torch.eye(R))
        b.copy_(torch.tensor(rows))
    x = torch.ones(count, R)
    change = (layer(x) - linear(x)) * (1 - p) / SCALE  # (count, O)
    passed = change[:, :R].round()  # 1 for each input that was not dropped
    assert_close(change, passed @ b.T, rtol=1e-4, atol=1e-4)
    assert set(passed.unique().tolist()) == {0.0, 1.0}
    # The standard deviation of this mean is 0.0046.
    assert_close(passed.mean(0), torch.full((R,), 1 - p), rtol=0, atol=0.025)
    assert_close(layer.eval()(x), linear(x) + SCALE * x @ b.T)
    attention = with_lora(MultiHeadAttention(D, H), dropout=p)
    x = torch.randn(B, T, D)
    for training in (True, False):
        attention.train(training)
        assert torch.equal(attention.project(x)[0], attention.project(x)[0]) != training


def test_lora_of_an_lstm_has_no_dropout():
    lstm = with_lora(LSTM(D, HIDDEN, LAYERS), dropout=0.3)
    x = torch.randn(B, T, D)
    expected = lstm.eval()(x)[0]
    assert torch.equal(lstm.train()(x)[0], expected)


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float32, 3e-6), (torch.float64, 1e-13)], ids=str
)
def test_merged_lora_computes_the_same(decoder, tokens, memory, dtype, tolerance):
    plain = copy.deepcopy(decoder.to(dtype).eval())
    memory = Memory(memory.tokens.to(dtype), memory.mask)
    with_lora(decoder)
    expected = decoder(tokens, memory)
    state, targets = by_hand(plain, decoder)
    merge_lora(decoder)
    merged = state_of(decoder)
    assert_close(decoder(tokens, memory), expected, rtol=tolerance, atol=tolerance)
    assert differing(state_of(plain), merged) == targets
    assert_close(merged, state, rtol=0, atol=1e-7)
    assert all(weight.is_leaf and not weight.requires_grad for weight in decoder.parameters())
    for again in (merge_lora, remove_lora):
        again(decoder)
        assert not differing(merged, state_of(decoder))


@pytest.mark.parametrize("merged", [True, False])
def test_model_is_plain_again_without_its_lora(decoder, tokens, memory, merged):
    plain = copy.deepcopy(decoder.eval())
    parameters = list(decoder.parameters())
    with_lora(decoder, dropout=0.3)
    expected = (decoder if merged else plain)(tokens, memory)
    if merged:
        merge_lora(decoder)
    else:
        remove_lora(decoder)
        assert not differing(state_of(decoder), state_of(plain))
        assert torch.equal(decoder(tokens, memory), expected)
    assert_close(decoder(tokens, memory), expected, rtol=3e-6, atol=3e-6)
    assert [type(part) for part in decoder.modules()] == [type(part) for part in plain.modules()]
    assert str(decoder) == str(plain) and not any(part.training for part in decoder.modules())
    assert list(decoder.state_dict()) == list(plain.state_dict())
    for ours, before in zip(decoder.parameters(), parameters, strict=True):
        assert ours is before
    add_lora(decoder, R)  # another may be added


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["copy", "pickle"],
)
def test_model_with_lora_can_be_copied_and_pickled(decoder, tokens, memory, copied):
    plain = copy.deepcopy(decoder.eval())
    expected = with_lora(decoder, dropout=0.3)(tokens, memory)
    other = copied(decoder)
    assert torch.equal(other(tokens, memory), expected)
    assert frozen_names(other) == frozen_names(decoder) != set()
    assert any(part.training for part in other.train().modules()) and not decoder.training
    randomized(other.eval(), only=".lora.")
    assert not torch.equal(other(tokens, memory), expected)
    remove_lora(other)
    assert torch.equal(other(tokens, memory), plain(tokens, memory))
    assert torch.equal(decoder(tokens, memory), expected)  # changing the copy does not change it


def test_decoder_with_lora_steps_and_reorders(decoder, tokens, memory):
    with_lora(decoder.eval())
    index = torch.tensor([3, 0, 3, 1, 4, 2, 0])
    expected = decoder(tokens, memory)
    state = decoder.start(memory)
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
    before = state_of(model)
    images = torch.randint(256, (B, 3, 32, 32), dtype=torch.uint8)
    model.train()({"image": images, "target": torch.randint(4, V, (B, T))})
    assert not differing(before, state_of(model))
    assert model.training and model.decoder.blocks[0].training


def test_add_lora_refuses_a_second_lora_and_layers_that_cannot_have_one():
    model = with_lora(nn.Sequential(nn.Linear(I, O), nn.Linear(O, R - 1)))
    assert type(model[1]) is nn.Linear  # it has fewer than R rows
    with raises_a_line("has a LoRA", "remove_lora"):
        add_lora(model, R)
    # The linear layer in torch's attention is of a subclass.
    for layer in (nn.Conv2d(3, 5, 7), nn.MultiheadAttention(D, H)):
        with raises_a_line(type(layer).__name__, "LoRA"):
            add_lora(layer, R)


# -------------------------------------------------------------------------------------------------
# Saving a LoRA.


def model_with_lora(std=0.1, rank=R, **changes):
    """Always the same model; its decoder has a LoRA that is not zero."""
    torch.manual_seed(23)
    model = a_model(**changes)
    freeze(model, "*")
    add_lora(model.decoder, rank, SCALE)
    return randomized(model, std, ".lora.").eval()


def test_trainable_state_holds_only_the_lora_and_can_be_loaded(kind, tokens, tmp_path):
    model = model_with_lora(decoder=kind)
    other = model_with_lora(0.7, decoder=kind)
    plain = a_model(decoder=kind).decoder
    state = trainable_state(model)
    count = 0
    for name, p in plain.named_parameters():
        if p.dim() == 2 and not name.startswith("embedding."):
            count += R * sum(p.shape)
    assert count == sum(x.numel() for x in state.values())
    *others, lora = trainable_parts(model)
    assert lora == ("LoRA", count, count) and not any(trained for _, _, trained in others)
    path = tmp_path / "lora.pt"
    torch.save(state, path)
    assert path.stat().st_size < 4 * count + 1000 * len(state)
    load_trainable(other, torch.load(path), fingerprint(model))
    batch = {"image": torch.randint(256, (B, 3, 32, 32), dtype=torch.uint8), "target": tokens}
    assert torch.equal(model(batch), other(batch)) and not differing(state, trainable_state(other))


@pytest.mark.parametrize(
    "name", [f"{BACKBONE}.bn1.running_mean", f"{BACKBONE}.bn1.num_batches_tracked", "decoder.bias"]
)
def test_lora_of_another_model_is_refused(name):
    model = model_with_lora()
    other = model_with_lora(0.7)
    tensor = other.state_dict()[name].view(-1)
    before = state_of(other)
    if "num" in name:
        tensor[0] += 1
    else:
        tensor[0] = torch.nextafter(tensor[0], torch.tensor(7.0))  # in its last bit
    with raises_a_line("another model"):
        load_trainable(other, trainable_state(model), fingerprint(model))
    assert differing(before, state_of(other)) == {name}


def test_lora_of_another_shape_is_refused_by_name():
    model = model_with_lora()
    other = model_with_lora(0.7, rank=2)
    before = state_of(other)
    state = trainable_state(model)
    with raises_a_line("do not fit", r"decoder\.\w+\.lora\.\S*a"):
        load_trainable(other, state, fingerprint(model))
    del state["decoder.combine.lora.weight.b"]
    with raises_a_line("do not fit", r"decoder\.combine\.lora\.weight\.b, 1 in all"):
        load_trainable(model_with_lora(), state, fingerprint(model))
    assert not differing(before, state_of(other))


def test_fingerprint_covers_untrained_tensors_in_any_memory_layout():
    model = model_with_lora()
    expected = fingerprint(model)
    assert len(expected) == 64
    assert fingerprint(randomized(copy.deepcopy(model), 3.0, ".lora.")) == expected
    assert fingerprint(copy.deepcopy(model).to(memory_format=torch.channels_last)) == expected

    def of(**buffers):
        module = nn.Module()
        for name, value in buffers.items():
            module.register_buffer(name, value)
        return fingerprint(module)

    a = torch.zeros(2, 3)
    b = torch.rand(2, 3)
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


# -------------------------------------------------------------------------------------------------
# Runs that start from another run.


def test_run_starts_from_the_weights_of_another(kind, base, trainer):
    folder, model = base(decoder=kind)
    run = trainer(config=replace(CONFIG, start_from=folder), decoder=kind)
    assert run.step == 0 and not frozen_names(run.model)
    assert not differing(run.model.state_dict(), model.state_dict())
    with raises_a_line(folder, "of another shape: encoders.image.position"):
        trainer("wide", replace(CONFIG, start_from=folder), decoder=kind, embed_dim=14)


def test_words_of_both_vocabularies_keep_their_embeddings(kind, base, trainer):
    fresh = trainer("fresh", decoder=kind)
    ours = fresh.train.vocabularies["target"].words
    common = sorted(set(ours[4:-5]) - {"a"}, key=lambda word: word[::-1])
    folder, model = base(["a", "zebra", *common, "yak"], decoder=kind)
    run = trainer(config=replace(CONFIG, start_from=folder), decoder=kind)
    theirs = load_run(folder)[1]["target"].words
    for name in TOKEN_EMBEDDINGS[kind]:
        got = run.model.get_parameter(name)
        before = model.get_parameter(name)
        new = fresh.model.get_parameter(name)
        for i, word in enumerate(ours):
            assert torch.equal(got[i], before[theirs.index(word)] if word in theirs else new[i])
    common = [word for word in ours if word in theirs]
    assert 11 < len(common) < min(len(ours), len(theirs)) and ours[5:] != theirs[5:]
    logits = []
    picture = torch.randint(256, (1, 3, 32, 32), dtype=torch.uint8)
    target = random.Random(0).sample(common[4:], 11)
    for network, words in ((run.model.eval(), ours), (model, theirs)):
        batch = {"image": picture, "target": torch.tensor([[words.index(word) for word in target]])}
        logits.append(network(batch)[..., [words.index(word) for word in common]])
    assert_close(*logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("positions", [67, 61])
def test_run_may_have_more_or_fewer_positions_than_its_base(positions, base, trainer):
    folder, model = base()
    run = trainer(config=replace(CONFIG, start_from=folder), max_length=positions)
    name = "decoder.embedding.positions.weight"
    ours = run.model.state_dict()
    theirs = state_of(model)
    assert len(ours[name]) == positions
    assert torch.equal(ours[name][:64], theirs.pop(name)[:positions])
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
    """A function that makes LoRA runs, the base's model, and its parameters that these train."""
    changes = dict(LORA_RUNS[request.param])
    trained = set()
    size = {"decoder": changes.get("decoder", "transformer")}
    if changes.pop("words", False):
        words = ["yak", *reversed(trainer("words").train.vocabularies["target"].words[7:])]
        trained = set(TOKEN_EMBEDDINGS[size["decoder"]])
    elif "max_length" in changes:
        words = None
        trained = {"decoder.embedding.positions.weight"}
    else:
        words = None
    folder, model = base(words, **size)
    config = replace(CONFIG, start_from=folder, lora=R, freeze=changes.pop("freeze", ()))
    return lambda name: trainer(name, config, **changes), model, trained


def test_lora_run_resumes_exactly_saves_only_its_lora_and_loads_as_a_plain_model(lora_runs):
    make, model, trained = lora_runs
    new = make("new")
    same = {name: value for name, value in state_of(model).items() if name not in trained}
    assert not differing(same, new.model.state_dict())
    # The dropout of the LoRA is the model's.
    assert 0.2 in {part.dropout for part in new.model.modules() if isinstance(part, LoRA)}
    run, resumed = bit_identical_runs(5, make)
    assert resumed.history == run.history
    assert not differing(same, run.model.state_dict())
    for name in ("best.pt", "last.pt"):
        saved = read_checkpoint(run.folder / name)["model"]
        of_lora = {name for name in run.model.state_dict() if ".lora." in name}
        assert saved.keys() == of_lora | trained
    loaded, vocabularies, _ = load_run(run.folder)
    batch = collate([run.train[i] for i in range(11)])
    assert_close(loaded(batch), best_of(run)(batch), rtol=1e-5, atol=1e-5)
    assert vocabularies["target"].words == run.train.vocabularies["target"].words
    assert not loaded.training
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
    run = trainer(config=replace(CONFIG, epochs=1, start_from=folder, lora=R))
    path = tmp_path / "base" / "best.pt"
    run.fit()
    saved = read_checkpoint(path)
    saved["model"][f"{BACKBONE}.bn1.num_batches_tracked"] += 1
    torch.save(saved, path)
    with raises_a_line(str(run.folder), folder):
        load_run(run.folder)
    with raises_a_line(folder):
        trainer(config=run.config)  # resumes it
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


# -------------------------------------------------------------------------------------------------
# On a GPU.


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_frozen_backbone_does_not_change_on_a_gpu(precision, trainer):
    run = trainer(config=replace(CONFIG, precision=precision, freeze=(BACKBONE,)))
    before = state_of(run.model)
    run.fit()
    assert run.device.type == "cuda"
    changed = differing(before, run.model.state_dict())
    assert not any(name.startswith(BACKBONE) for name in changed)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "changes", [{"lora": R}, {"freeze": ("encoders",), "gradual_unfreezing": 0.5}], ids=str
)
def test_resumed_finetuning_is_bit_identical_on_a_gpu(changes, base, trainer):
    config = replace(CONFIG, start_from=base()[0], **changes)
    _, resumed = bit_identical_runs(5, partial(trainer, config=config))
    assert resumed.device.type == "cuda"
    assert next(load_run(resumed.folder)[0].parameters()).device.type == "cuda"


@pytest.mark.gpu
def test_fingerprint_and_merge_are_the_same_on_a_gpu():
    model = model_with_lora()
    there = copy.deepcopy(model).to("cuda", memory_format=torch.channels_last)
    assert fingerprint(there) == fingerprint(model)
    for each in (model, there):
        merge_lora(each)
    assert_close(there.cpu().state_dict(), model.state_dict())
