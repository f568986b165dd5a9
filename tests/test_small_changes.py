"""Small changes of a frozen model: adapters, biases and prompts, alone, in runs and swapped; and
LoRA, biases and prompts against the package peft.
"""

import copy
from dataclasses import replace

import helpers
import pytest
import torch
import torch.nn.functional as F
from helpers import tiny_config, tiny_trainer
from torch import nn
from torch.testing import assert_close

from mmscratch.attention import Memory
from mmscratch.batches import collate
from mmscratch.engine.runs import read_checkpoint
from mmscratch.finetuning import (
    Adapter,
    add_adapters,
    add_lora,
    add_prompt,
    freeze,
    load_run,
    prepare_for_finetuning,
    remove_adapters,
    save_run,
    swap_change,
    train_biases,
    trainable_parts,
)
from mmscratch.model import build_model
from mmscratch.text import Vocabulary
from mmscratch.training import TrainConfig
from mmscratch.transformer import TransformerDecoder

B, T, N, V, D = 5, 7, 13, 19, 22
CONFIG = TrainConfig(epochs=1, batch_size=7, precision="float32")
WAYS = {
    "LoRA": {"lora": 2},
    "adapters": {"adapters": 3},
    "prompt": {"prompt": 3},
    "biases": {"biases": True},
}
DECODERS = {"lstm": helpers.LSTM, "transformer": helpers.TRANSFORMER}


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    torch.manual_seed(0)
    for module in ("training", "finetuning"):
        monkeypatch.setattr(f"mmscratch.{module}.pick_device", lambda: torch.device("cpu"))


@pytest.fixture(params=DECODERS)
def model(request):
    config = tiny_config(V, helpers.IMAGE, DECODERS[request.param], D)
    return build_model(config).eval()


def a_batch():
    pictures = torch.randint(256, (B, 3, 32, 32), dtype=torch.uint8)
    return {"image": pictures, "target": torch.randint(4, V, (B, T))}


def state_of(model):
    return {name: x.clone() for name, x in model.state_dict().items()}


def assert_same(state, other):
    assert state.keys() == other.keys()
    for name in state:
        assert torch.equal(state[name], other[name]), name


# -------------------------------------------------------------------------------------------------
# Adapters.


def test_adapter_is_a_bottleneck_with_a_way_around_it():
    adapter = Adapter(7, 3).double()
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 5, 7, dtype=torch.double)
    down, up = adapter.down, adapter.up
    expected = torch.empty_like(x)
    for i in range(2):
        for t in range(5):
            hidden = F.gelu(down.weight @ x[i, t] + down.bias)
            expected[i, t] = x[i, t] + up.weight @ hidden + up.bias
    assert_close(adapter(x), expected)


def test_new_adapters_change_nothing_and_are_trained_alone(model):
    batch = a_batch()
    before = model(batch)
    state = state_of(model)
    freeze(model, "*")
    add_adapters(model.decoder, 3)
    assert torch.equal(model(batch), before)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert (
        learning == {name for name, _ in model.named_parameters() if ".adapter." in name} != set()
    )
    model.loss(batch)[0].backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    for name, parameter in model.named_parameters():
        if ".adapter." in name:
            nn.init.normal_(parameter)
    assert not torch.allclose(model(batch), before)
    remove_adapters(model)
    assert_same(model.state_dict(), state)
    assert torch.equal(model(batch), before)


def test_a_transformer_has_an_adapter_behind_each_part_of_a_block():
    decoder = TransformerDecoder(V, D, 2, 3)
    add_adapters(decoder, 5)
    expected = {
        f"blocks.{block}.{part}.adapter"
        for block in range(3)
        for part in ("self_attn.out_proj", "multihead_attn.out_proj", "linear2")
    }
    assert {name for name, m in decoder.named_modules() if isinstance(m, Adapter)} == expected


def test_the_output_of_an_adapted_layer_is_adapted():
    decoder = TransformerDecoder(V, D, 2, 1)
    layer = decoder.blocks[0].linear2
    add_adapters(decoder, 5)
    nn.init.normal_(layer.adapter.up.weight)
    x = torch.randn(3, layer.in_features)
    assert_close(layer(x), layer.adapter(F.linear(x, layer.weight, layer.bias)))


def test_adapters_are_refused_twice_and_where_none_fits():
    decoder = TransformerDecoder(V, D, 2, 1)
    add_adapters(decoder, 5)
    with pytest.raises(ValueError, match="has adapters.*remove_adapters"):
        add_adapters(decoder, 5)
    with pytest.raises(ValueError, match="no layer of this Linear can have an adapter"):
        add_adapters(nn.Linear(3, 5), 2)


# -------------------------------------------------------------------------------------------------
# Biases and prompts.


def test_only_biases_are_trained(model):
    freeze(model, "*")
    train_biases(model.decoder)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    biases = set()
    for name, module in model.decoder.named_modules():
        for own, _ in module.named_parameters(recurse=False):
            if own == "bias" or own.startswith("bias_") or own.endswith("_bias"):
                biases.add(f"decoder.{name}.{own}".replace("..", "."))
    assert learning == biases and len(biases) > 4
    assert not any(p.requires_grad for p in model.encoders.parameters())


def test_a_model_without_biases_has_none_to_train():
    with pytest.raises(ValueError):
        train_biases(nn.Linear(3, 5, bias=False))


def test_a_prompt_is_a_memory_before_the_memory(model):
    batch = a_batch()
    memory = model.encode(batch)
    add_prompt(model, 3)
    got = model.encode(batch)
    assert got.tokens.shape == (B, 3 + memory.tokens.size(1), D) and got.mask[:, :3].all()
    assert torch.equal(got.tokens[:, 3:], memory.tokens)
    for i in range(B):
        assert torch.equal(got.tokens[i, :3], model.prompt)
    assert model.prompt.std().item() == pytest.approx(1, rel=0.4)
    loss, _ = model.loss(batch)
    (gradient,) = torch.autograd.grad(loss, model.prompt)
    assert gradient.abs().sum() > 0
    with pytest.raises(ValueError, match="has a prompt"):
        add_prompt(model, 3)


def test_a_prompt_is_seen_by_examples_that_lack_a_modality():
    source = {"name": "lstm", "hidden_size": 5, "vocab_size": V}
    config = tiny_config(V, helpers.IMAGE, helpers.LSTM, D)
    config = replace(config, encoders=config.encoders | {"source": source})
    model = build_model(config).eval()
    add_prompt(model, 3)
    batch = a_batch() | {"source": torch.randint(4, V, (B, 2))}
    batch["has_image"] = torch.tensor([True, False, True, False, False])
    mask = model.encode(batch).mask
    assert mask[:, :3].all() and mask[1, 3:].sum() == 2


# -------------------------------------------------------------------------------------------------
# The package peft, on a tiny GPT-2.


def tiny_gpt2():
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("peft")
    sizes = {"n_embd": D, "n_layer": 2, "n_head": 2, "vocab_size": V, "n_positions": 23}
    dropouts = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **dropouts)).eval()
    ours = TransformerDecoder(V, D, 2, 2, 23, fusion="prefix").eval()
    names = {"wte": "embedding.words", "wpe": "embedding.positions", "ln_f": "norm"}
    state = {}
    for name, x in theirs.transformer.state_dict().items():
        for old, new in names.items():
            if name.startswith(old):
                state[name.replace(old, new)] = x
        if name.startswith("h."):
            _, i, rest = name.split(".", 2)
            parts = {
                "ln_1": "norm1",
                "ln_2": "norm2",
                "attn.c_attn.weight": "self_attn.in_proj_weight",
                "attn.c_attn.bias": "self_attn.in_proj_bias",
                "attn.c_proj": "self_attn.out_proj",
                "mlp.c_fc": "linear1",
                "mlp.c_proj": "linear2",
            }
            for old, new in parts.items():
                if rest.startswith(old):
                    is_matrix = rest.endswith("weight") and not rest.startswith("ln")
                    state[f"blocks.{i}.{rest.replace(old, new)}"] = x.T if is_matrix else x
    ours.load_state_dict(state)
    return ours, theirs


def empty_memory(count):
    return Memory(torch.zeros(count, 0, D), torch.zeros(count, 0, dtype=torch.bool))


def test_lora_equals_pefts():
    ours, theirs = tiny_gpt2()
    import peft

    config = peft.LoraConfig(
        r=3, lora_alpha=6, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True
    )
    theirs = peft.get_peft_model(theirs, config)
    add_lora(ours, 3)
    names = {
        "attn.c_attn": "self_attn.lora.in_proj_weight",
        "attn.c_proj": "self_attn.out_proj.lora.weight",
        "mlp.c_fc": "linear1.lora.weight",
        "mlp.c_proj": "linear2.lora.weight",
    }
    trained = {name: p for name, p in theirs.named_parameters() if p.requires_grad}
    own = {name: p for name, p in ours.named_parameters() if p.requires_grad}
    assert len(trained) == len(own) == 16
    with torch.no_grad():
        for i in range(2):
            for old, new in names.items():
                for letter in "AB":
                    key = f"base_model.model.transformer.h.{i}.{old}.lora_{letter}.default.weight"
                    trained[key].normal_(0, 0.3)
                    own[f"blocks.{i}.{new}.{letter.lower()}"].copy_(trained[key])
    tokens = torch.randint(4, V, (B, T))
    expected = theirs(tokens).logits
    assert_close(ours(tokens, empty_memory(B)), expected, rtol=1e-4, atol=1e-5)


def test_prompt_tuning_equals_pefts():
    ours, theirs = tiny_gpt2()
    import peft

    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    theirs = peft.get_peft_model(theirs, config).eval()
    prompt = next(p for p in theirs.parameters() if p.requires_grad)
    assert prompt.shape == (3, D)
    tokens = torch.randint(4, V, (B, T))
    expected = theirs(tokens).logits[:, 3:]
    # GPT-2 counts the prompt's positions too, and our prefix has no positions of its own.
    positions = ours.embedding.positions.weight.data.clone()
    prefix = prompt.detach() + positions[:3]
    ours.embedding.positions.weight.data = positions.roll(-3, 0)

    class Nothing(nn.Module):
        def forward(self, batch):
            return empty_memory(len(batch))

    from mmscratch.model import EncoderDecoder

    model = EncoderDecoder({"source": Nothing()}, ours)
    add_prompt(model, 3)
    model.prompt.data = prefix
    # theirs sees its prompt from left to right
    memory = model.encode({"source": tokens})
    got = causal_prefix(ours, tokens, memory)
    assert_close(got, expected, rtol=1e-4, atol=1e-5)


def causal_prefix(decoder, tokens, memory):
    """The decoder's logits if the positions of its prefix see only those before them."""
    x = torch.cat([memory.tokens, decoder.embedding(tokens, 0)], dim=1)
    for block in decoder.blocks:
        x, _, _ = block(x, None, True)
    logits = F.linear(decoder.norm(x), decoder.embedding.words.weight)
    return logits[:, memory.tokens.size(1) :]


def test_the_trained_biases_are_pefts():
    ours, theirs = tiny_gpt2()
    import peft

    config = peft.LoraConfig(r=1, target_modules=["c_attn"], bias="all", fan_in_fan_out=True)
    theirs = peft.get_peft_model(theirs, config)
    expected = [
        p.numel() for name, p in theirs.named_parameters() if p.requires_grad and "lora" not in name
    ]
    train_biases(ours)
    got = [p.numel() for p in ours.parameters() if p.requires_grad]
    assert sorted(got) == sorted(expected) and len(got) == 2 * 6 + 1


# -------------------------------------------------------------------------------------------------
# Runs.


@pytest.fixture(params=DECODERS)
def base(request, tmp_path):
    """A run with random weights: its folder, its model, and its decoder's settings."""
    settings = DECODERS[request.param]
    run = tiny_trainer(tmp_path / "base", CONFIG, image=helpers.IMAGE, decoder=settings)
    model = build_model(run.model_config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    save_run(run.folder, model, run.model_config, run.train.vocabularies, {})
    return run.folder, model.eval(), settings


def train_change(base, name, **change):
    folder, _, settings = base
    config = replace(CONFIG, start_from=str(folder), learning_rate=0.01, **change)
    run = tiny_trainer(folder.with_name(name), config, image=helpers.IMAGE, decoder=settings)
    run.fit()
    return run


@pytest.mark.parametrize("way", WAYS)
def test_a_change_is_saved_alone_and_the_base_stays(way, base):
    folder, model, _ = base
    run = train_change(base, "change", **WAYS[way])
    saved = read_checkpoint(run.folder / "best.pt")
    size = sum(x.numel() for x in saved["model"].values())
    assert 0 < size < 0.4 * sum(p.numel() for p in model.parameters())
    assert saved["base"]
    loaded, _, _ = load_run(run.folder)
    batch = collate([run.train[i] for i in range(5)])
    assert_close(loaded(batch), run.model.eval()(batch), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(loaded(batch), model(batch))
    parts = trainable_parts(run.model)
    assert any(trained for _, _, trained in parts)
    if way in ("adapters", "prompt"):
        assert parts[-1][0] == way and parts[-1][1] == parts[-1][2] == size


@pytest.mark.parametrize("way", WAYS)
def test_a_stopped_run_of_a_change_resumes_exactly(way, base):
    folder, _, settings = base
    options = {"start_from": str(folder), "learning_rate": 0.01} | WAYS[way]
    config = replace(CONFIG, epochs=2, evaluate_every=3, **options)
    whole = tiny_trainer(folder.with_name("whole"), config, image=helpers.IMAGE, decoder=settings)
    whole.fit()
    parted = tiny_trainer(folder.with_name("parted"), config, image=helpers.IMAGE, decoder=settings)
    parted._evaluate = lambda progress: parted.signals._handle()
    with pytest.raises(KeyboardInterrupt):
        parted.fit()
    resumed = tiny_trainer(parted.folder, config, image=helpers.IMAGE, decoder=settings)
    assert 0 < resumed.step < resumed.steps
    resumed.fit()
    assert_same(resumed.model.state_dict(), whole.model.state_dict())


def test_changes_are_swapped_by_name_and_taken_out_to_the_bit(base):
    folder, model, _ = base
    runs = {way: train_change(base, way, **change) for way, change in WAYS.items()}
    before = state_of(model)
    shared = load_run(folder)[0]
    batch = collate([runs["LoRA"].train[i] for i in range(5)])
    for way in [*WAYS, *reversed(WAYS)]:
        saved = swap_change(shared, runs[way].folder)
        assert saved["train_config"]["start_from"] == str(folder)
        expected, _, _ = load_run(runs[way].folder)
        assert_close(shared(batch), expected(batch), rtol=1e-4, atol=1e-5)
        by_name, vocabularies, checkpoint = load_run(folder.with_name(f"base+{way}"))
        assert torch.equal(by_name(batch), shared(batch))
        assert checkpoint["train_config"] == saved["train_config"]
        assert vocabularies["target"].words == runs[way].train.vocabularies["target"].words
    assert swap_change(shared, None) == {}
    assert_same(shared.state_dict(), before)
    assert [type(m) for m in shared.modules()] == [type(m) for m in model.modules()]


def test_a_change_of_another_base_is_refused_by_name(base):
    folder, model, _ = base
    run = train_change(base, "change", adapters=3)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.encoders["image"].position += 1
    before = state_of(other)
    with pytest.raises(ValueError, match="is a change of .*base, which must be as it was"):
        swap_change(other, run.folder)
    assert_same(other.state_dict(), before)
    with pytest.raises(ValueError):  # it is a whole model
        load_run(folder.with_name("base+base"))
    with pytest.raises(ValueError, match="one change at a time"):
        load_run(folder.with_name("base+change+change"))
    with pytest.raises(FileNotFoundError):
        load_run(folder.with_name("base+nothing"))


def test_a_change_with_other_words_is_loaded_by_itself_only(base):
    folder, model, settings = base
    run = train_change(base, "change", lora=2)
    path = run.folder / "best.pt"
    saved = read_checkpoint(path)
    name = next(name for name in model.state_dict() if "embedding" in name)
    saved["model"][name] = torch.zeros(3, 12)
    torch.save(saved, path)
    with pytest.raises(ValueError):
        load_run(folder.with_name("base+change"))


@pytest.mark.parametrize("way", ["adapters", "prompt"])
def test_no_run_starts_from_what_cannot_be_merged(way, base):
    run = train_change(base, "change", **WAYS[way])
    with pytest.raises(ValueError, match="cannot be merged: start from its own base"):
        train_change((run.folder, None, base[2]), "second", lora=2)


@pytest.mark.parametrize("pair", [("lora", "adapters"), ("prompt", "biases")])
def test_one_change_at_a_time(pair, base):
    folder, model, _ = base
    words = Vocabulary(["a"])
    with pytest.raises(ValueError, match="choose one of them"):
        prepare_for_finetuning(model, {"target": words}, str(folder), **dict.fromkeys(pair, 1))
