"""A look into a model: how sure it was of each word that it wrote, and where it looked for it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .batches import collate, numericalize, to_device
from .recurrent import LSTMDecoder
from .text import BOS, PAD, UNK
from .transformer import TransformerDecoder


class Word(NamedTuple):
    """A word that a model wrote; with byte pairs, a piece of one."""

    text: str
    probability: float
    runner_up: str  # the most probable other word
    runner_up_probability: float
    attention: dict[str, Tensor]  # modality -> (N,), its positions in the memory


@torch.no_grad()
def inspect(
    model: nn.Module, vocabularies: dict, example: dict, words: Sequence[str]
) -> list[Word]:
    """What an `EncoderDecoder` computed for each word of a sentence about an example.

    The runner-up is never <pad>, <bos> or <unk>, which are never written. A word's attention is
    that of the last layer, averaged over heads, and sums to 1 over all modalities (and the learned
    prompt, if there is one). It is {} where the decoder attends only once, which is so for an LSTM
    with a prefix. What a Transformer has no positions for is cut off. Puts the model into eval mode.
    """
    model.eval()
    batch = collate([numericalize(example | {"target": list(words)}, vocabularies)])
    batch = to_device(batch, next(model.parameters()).device)
    if isinstance(model.decoder, TransformerDecoder):
        positions = model.decoder.embedding.positions.num_embeddings
        batch["target"] = batch["target"][:, :positions]
    logits, attention = _write(model, batch)
    probabilities = logits[0].float().softmax(-1)  # (T + 1, V), the last row is for <eos>
    probabilities[:, [PAD, BOS, UNK]] = 0.0
    names = vocabularies["target"].words
    found = []
    for t, token in enumerate(batch["target"][0, :-1].tolist()):
        best = probabilities[t].topk(2)
        place = 1 if best.indices[0] == token else 0
        other = int(best.indices[place])
        maps = {modality: weights[t] for modality, weights in attention.items()}
        probability = float(probabilities[t, token])
        found.append(Word(names[token], probability, names[other], float(best.values[place]), maps))
    return found


def _write(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The logits (1, T + 1, V), and the attention to each modality, (T + 1, N)."""
    if isinstance(model.decoder, LSTMDecoder) and model.decoder.fusion == "prefix":
        return model(batch), {}
    logits, weights = model(batch, need_weights=True)  # weights (1, layers, H, T + 1, N)
    weights = weights[0, -1].mean(0)  # (T + 1, N)
    weights = weights / weights.sum(-1, keepdim=True)  # a prefix shares it with the words
    sizes = memory_sizes(model, batch)
    if sum(sizes.values()) != weights.size(-1):
        return logits, {}
    parts = weights.split(list(sizes.values()), dim=-1)
    attention = {name: part.cpu() for name, part in zip(sizes, parts) if name != "prompt"}
    return logits, attention


def memory_sizes(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, int]:
    """The number of positions that each modality of a batch has in the memory, in its order."""
    prompt = 0 if model.prompt is None else len(model.prompt)
    sizes = {"prompt": prompt} if prompt else {}
    for modality in model.encoders:
        if modality in batch:
            names = (modality, f"has_{modality}", f"{modality}_lengths")
            alone = {name: value for name, value in batch.items() if name in names}
            sizes[modality] = model.encode(alone).mask.size(1) - prompt
    return sizes
