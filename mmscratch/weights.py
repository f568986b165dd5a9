"""Weights that were trained before: what of them fits a model, and how those of other projects are read and named."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

State = dict[str, Tensor]

# What a whole name of theirs matches -> our name; None drops it.
GPT2 = {
    r"wte\.weight": "embedding.words.weight",
    r"wpe\.weight": "embedding.positions.weight",
    r"h\.(\d+)\.ln_(\d)\.(\w+)": r"blocks.\1.norm\2.\3",
    r"h\.(\d+)\.attn\.c_attn\.(\w+)": r"blocks.\1.self_attn.in_proj_\2",
    r"h\.(\d+)\.attn\.c_proj\.(\w+)": r"blocks.\1.self_attn.out_proj.\2",
    r"h\.(\d+)\.mlp\.c_fc\.(\w+)": r"blocks.\1.linear1.\2",
    r"h\.(\d+)\.mlp\.c_proj\.(\w+)": r"blocks.\1.linear2.\2",
    r"ln_f\.(\w+)": r"norm.\1",
    r"h\.\d+\.attn\.(masked_)?bias|lm_head\.weight": None,
}
BERT = {
    r"embeddings\.word_embeddings\.weight": "embedding.words.weight",
    r"embeddings\.position_embeddings\.weight": "embedding.positions.weight",
    r"embeddings\.token_type_embeddings\.weight": "token_types",
    r"embeddings\.LayerNorm\.(\w+)": r"norm.\1",
    r"encoder\.layer\.(\d+)\.attention\.self\.(query|key|value)\.(\w+)": r"blocks.\1.self_attn.\2_\3",
    r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(\w+)": r"blocks.\1.self_attn.out_proj.\2",
    r"encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.(\w+)": r"blocks.\1.norm1.\2",
    r"encoder\.layer\.(\d+)\.intermediate\.dense\.(\w+)": r"blocks.\1.linear1.\2",
    r"encoder\.layer\.(\d+)\.output\.dense\.(\w+)": r"blocks.\1.linear2.\2",
    r"encoder\.layer\.(\d+)\.output\.LayerNorm\.(\w+)": r"blocks.\1.norm2.\2",
    r"embeddings\.position_ids|(pooler|cls|classifier|qa_outputs)\..*": None,
}
TORCHVISION_VIT = {
    r"class_token|conv_proj\.\w+": r"\g<0>",
    r"encoder\.pos_embedding": "positions",
    r"encoder\.layers\.encoder_layer_(\d+)\.ln_(\d)\.(\w+)": r"blocks.\1.norm\2.\3",
    r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.(.+)": r"blocks.\1.self_attn.\2",
    r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.(\w+)": r"blocks.\1.linear1.\2",
    r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.(\w+)": r"blocks.\1.linear2.\2",
    r"encoder\.ln\.(\w+)": r"norm.\1",
    r"heads\.head\.(\w+)": r"head.\1",
}


class Misfits(NamedTuple):
    """What of a state dict did not fit a model, by name, each with a reason."""

    missing: list[str]  # in the state dict
    unexpected: list[str]  # by the model
    other_shape: list[str]

    def __str__(self) -> str:
        kinds = zip(("missing", "unexpected", "of another shape"), self)
        return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds if names) or "all fits"


def load_fitting(model: nn.Module, state: State) -> Misfits:
    """Load what has the same name and shape in both, leave the rest of the model as it is, and say what did not fit."""
    ours = model.state_dict()
    common = [name for name in ours if name in state]
    fitting = {name: state[name] for name in common if state[name].shape == ours[name].shape}
    model.load_state_dict(fitting, strict=False)
    shapes = [f"{name} {tuple(state[name].shape)}, here {tuple(ours[name].shape)}" for name in common if name not in fitting]
    return Misfits([name for name in ours if name not in state], [name for name in state if name not in ours], shapes)


def keep_rows(old: Tensor, old_words: Sequence[str], new: Tensor, new_words: Sequence[str]) -> Tensor:
    """For another vocabulary: `new` (V', …), but for words that both know with the rows of `old` (V, …)."""
    index = {word: i for i, word in enumerate(old_words)}
    known = [(i, index[word]) for i, word in enumerate(new_words) if word in index]
    rows, from_rows = torch.tensor(known, dtype=torch.long).reshape(-1, 2).T
    new = new.clone()
    new[rows] = old[from_rows].to(new)
    return new


def rename(state: State, names: dict[str, str | None], prefix: str = "") -> State:
    """The same tensors under our names; those of their names may begin with `prefix`.

    Raises ValueError, listing the names that are not in the table: a file of another model is not loaded by half.
    """
    renamed, unknown = {}, []
    for theirs, tensor in state.items():
        theirs = theirs.removeprefix(prefix)
        pattern = next((pattern for pattern in names if re.fullmatch(pattern, theirs)), None)
        if pattern is None:
            unknown.append(theirs)
        elif names[pattern] is not None:
            renamed[re.sub(pattern, names[pattern], theirs)] = tensor
    if unknown:
        rest = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise ValueError(f"these weights are of another kind of model: this one has no {', '.join(unknown[:5])}{rest}")
    return renamed


def from_gpt2(state: State) -> State:
    """The state dict of transformers' GPT2Model or GPT2LMHeadModel -> that of a `TransformerDecoder`.

        decoder = TransformerDecoder(vocab_size, n_embd, n_head, n_layer, max_length=n_positions, fusion="prefix")
        decoder.load_state_dict(from_gpt2(torch.load("pytorch_model.bin", weights_only=True)))

    The sizes are those in GPT-2's config.json. Its linear layers keep their matrices transposed. The causal mask, which
    old files hold as `attn.bias`, is dropped, and so is `lm_head`, which is the embedding again.
    """
    ours = rename(state, GPT2, "transformer.")
    return {name: x.T if name.startswith("blocks.") and x.dim() == 2 else x for name, x in ours.items()}


def from_bert(state: State) -> State:
    """The state dict of transformers' BertModel, or of a model around it -> that of a `TransformerEncoder`.

        encoder = TransformerEncoder(
            vocab_size, hidden_size, num_attention_heads, num_hidden_layers, max_position_embeddings,
            pre_norm=False, norm_eps=1e-12,
        )
        encoder.load_state_dict(from_bert(torch.load("pytorch_model.bin", weights_only=True)))

    The sizes are those in BERT's config.json. Its three projections are joined to one. Our encoder reads one sentence
    at a time: BERT's vector for the first of a pair is added to every position, that for the second is dropped, and so
    are the pooler and the heads of single tasks.
    """
    for old, new in (("gamma", "weight"), ("beta", "bias")):  # the first files name the norms' two vectors so
        state = {name.replace(f"LayerNorm.{old}", f"LayerNorm.{new}"): x for name, x in state.items()}
    ours = rename(state, BERT, "bert.")
    positions = "embedding.positions.weight"
    ours[positions] = ours[positions] + ours.pop("token_types")[0]
    for query in [name for name in ours if "query" in name]:
        parts = [ours.pop(query.replace("query", part)) for part in ("query", "key", "value")]
        ours[query.replace("query", "in_proj")] = torch.cat(parts)  # (3D, D), or of the biases (3D)
    return ours


def from_torchvision_vit(state: State) -> State:
    """The state dict of torchvision's vit_b_16, vit_l_32, … -> that of a `VisionTransformer`.

        model = VisionTransformer(224, 16, num_layers=12, num_heads=12, hidden_dim=768, mlp_dim=3072)
        model.load_state_dict(from_torchvision_vit(torch.load("vit_b_16-c867db91.pth", weights_only=True)))

    Nothing is dropped. The published files name the two linear layers of a block otherwise than torchvision's code
    does; both names are known.
    """
    return rename(state, TORCHVISION_VIT)
