"""The pieces put together: encoders that fill a memory, and a decoder that writes while looking at it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Memory
from .recurrent import LSTMDecoder, LSTMEncoder
from .text import BOS
from .transformer import TransformerDecoder, TransformerEncoder
from .vision import VGG, ImageEncoder, ResNet, VisionTransformer


def fuse(memories: list[Memory]) -> Memory:
    """Lay memories side by side: (B, N1, D), (B, N2, D), … -> (B, N1 + N2 + …, D). The decoder attends to all of it."""
    if len(memories) == 1:
        return memories[0]
    return Memory(torch.cat([m.tokens for m in memories], 1), torch.cat([m.mask for m in memories], 1))


class EncoderDecoder(nn.Module):
    """Every task of this project: encoders turn what is given into a memory, a decoder writes a sentence about it.

    `encoders` maps a modality's name ("image", "source", "audio") to its encoder. A batch is a dict of tensors; a
    modality that it lacks is not fused. Where only some examples have one, batch["has_image"] (B,) bool says which; those
    that have none see nothing of it.

    Several modalities are fused on an equal footing: each vector is brought to the same length. With `modality_dropout`, in
    training, so large a share of the examples lacks one of its modalities, so that one model can do with and without.
    """

    def __init__(self, encoders: dict[str, nn.Module], decoder: nn.Module, modality_dropout: float = 0.0):
        super().__init__()
        self.encoders, self.decoder, self.modality_dropout = nn.ModuleDict(encoders), decoder, modality_dropout

    def encode(self, batch: dict[str, Tensor]) -> Memory:
        """What is given -> one memory."""
        given = [name for name in self.encoders if name in batch]
        if not given:
            raise ValueError(f"the batch has none of: {', '.join(self.encoders)}; it has: {', '.join(batch)}")
        there = {name: batch.get(f"has_{name}") for name in given}  # each (B,) or None
        if self.training and self.modality_dropout and len(given) > 1:
            there = _drop_some(there, len(batch[given[0]]), self.modality_dropout, batch[given[0]].device)
        memories = [_encode_some(self.encoders[name], batch[name], there[name]) for name in given]
        if len(self.encoders) > 1:  # else the modality whose vectors are longer would outweigh the other, or be shut out
            memories = [Memory(F.layer_norm(m.tokens, m.tokens.shape[-1:]), m.mask) for m in memories]
        return fuse(memories)

    def forward(
        self, batch: dict[str, Tensor], need_weights: bool = False, teacher_forcing: float = 1.0
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (B, T, V), those at t for batch["target"][:, t], given the words before it: teacher forcing.

        With `need_weights` also where the decoder looked for each of them, (B, layers, H, T, N). With `teacher_forcing`
        below 1 only so large a share of the words before is the true one; in the place of the others stands what the model
        itself finds most probable there (scheduled sampling: Bengio et al. 2015). That goes word by word, and is slow.
        """
        target = batch["target"]  # (B, T), ending in <eos>
        bos = target.new_full((target.size(0), 1), BOS)
        if need_weights and teacher_forcing < 1:
            raise ValueError("where it looks is told with teacher forcing only: teacher_forcing=1")
        if teacher_forcing == 1:
            return self.decoder(torch.cat([bos, target[:, :-1]], dim=1), self.encode(batch), need_weights)
        state, token, found = self.decoder.start(self.encode(batch)), bos.squeeze(1), []
        for true in target.unbind(1):  # (B,)
            logits, state = self.decoder.step(token, state)  # (B, V)
            found.append(logits)
            token = torch.where(torch.rand(len(true), device=true.device) < teacher_forcing, true, logits.argmax(-1))
        return torch.stack(found, dim=1)


def _drop_some(there: dict[str, Tensor | None], B: int, share: float, device: torch.device) -> dict[str, Tensor]:
    """Of `share` of the examples leave out one modality, each as often as another, but never the only one of an example."""
    there = {name: torch.ones(B, dtype=torch.bool, device=device) if has is None else has for name, has in there.items()}
    count = torch.stack(list(there.values())).sum(0)  # (B,)
    chosen = (torch.rand(B, device=device) * len(there) / share).floor()  # (B,) 0, 1, …: drop that one; larger: none
    return {name: has & ((chosen != i) | (count < 2)) for i, (name, has) in enumerate(there.items())}


def _encode_some(encoder: nn.Module, inputs: Tensor, there: Tensor | None) -> Memory:
    """The memory of the inputs (B, …) that are `there`; the other rows have nothing to look at.

    The others are not computed either: batch norm would mix blank pictures into what it knows of real ones.
    """
    if there is None or there.all():
        return encoder(inputs)
    rows, training = there.nonzero().squeeze(1), encoder.training
    if len(rows) == 0:  # a gradient of 0 all the same: processes that train together expect one
        some = encoder.eval()(inputs[:1])
        encoder.train(training)
        return Memory(0 * some.tokens.expand(len(inputs), -1, -1), torch.zeros_like(some.mask).expand(len(inputs), -1))
    some = encoder(inputs[rows])
    tokens, mask = (x.new_zeros(len(inputs), *x.shape[1:]) for x in some)
    return Memory(tokens.index_copy(0, rows, some.tokens), mask.index_copy(0, rows, some.mask))


@dataclass
class ModelConfig:
    """What a model is made of; plain values, kept in its checkpoint."""

    vocab_size: int
    backbone: str = "resnet"  # or "vgg" or "vit", each with a depth that is a number; or "": it sees no pictures
    depth: int | tuple[int, ...] = (1, 1)  # a published one, or the ResNet's blocks a stage, or the ViT's blocks
    width: int = 32  # channels of the ResNet's first stage; the ViT has 8 times as many, in heads of 64
    encoder_layers: int = 0  # Transformer blocks in which the places of the picture look at one another
    image_size: int = 64
    source_vocab_size: int = 0  # of the sentence that is given; 0: none is
    source_layers: int = 1  # of its encoder, which is of the decoder's kind
    joint_vocabulary: bool = False  # source and target have the same words, and share one embedding
    modality_dropout: float = 0.0  # the share of examples that, in training, lack their picture or their sentence
    decoder: str = "lstm"  # or "transformer"
    fusion: str = "cross_attention"  # or "prefix"
    score: str = "dot"  # or "additive": how the LSTM's cross-attention compares
    embed_dim: int = 256  # of words, of the memory and of all that is compared with them
    hidden_size: int = 256  # of the LSTM
    num_heads: int = 4  # of the Transformer
    feedforward_size: int | None = None  # of the Transformer's small networks; None: four times embed_dim
    num_layers: int = 1  # of the decoder
    max_length: int = 64  # words and <eos>: the Transformer has so many positions
    dropout: float = 0.0


def build_model(config: ModelConfig) -> EncoderDecoder:
    """A new model with random weights."""
    if config.decoder not in ("lstm", "transformer"):
        raise ValueError(f'decoder is "lstm" or "transformer", not {config.decoder!r}')
    if not config.backbone and not config.source_vocab_size:
        raise ValueError("a model needs a picture (backbone) or a sentence (source_vocab_size) to write about, or both")
    if config.joint_vocabulary and config.source_vocab_size != config.vocab_size:
        raise ValueError(f"a joint vocabulary has one size, not {config.source_vocab_size} and {config.vocab_size}")
    encoders: dict[str, nn.Module] = {}
    if config.backbone:
        encoders["image"] = ImageEncoder(_backbone(config), config.embed_dim, config.image_size, config.encoder_layers)
    words, rest = (config.vocab_size, config.embed_dim), {"fusion": config.fusion, "dropout": config.dropout}
    source = (config.source_vocab_size, config.embed_dim)
    if config.decoder == "lstm":
        decoder = LSTMDecoder(*words, config.hidden_size, config.num_layers, score=config.score, **rest)
        if config.source_vocab_size:
            encoders["source"] = LSTMEncoder(*source, config.hidden_size, config.source_layers, config.dropout)
    else:
        size = {"max_length": config.max_length, "mlp_dim": config.feedforward_size}
        decoder = TransformerDecoder(*words, config.num_heads, config.num_layers, **size, **rest)
        if config.source_vocab_size:
            size["dropout"] = config.dropout
            encoders["source"] = TransformerEncoder(*source, config.num_heads, config.source_layers, **size)
    if config.joint_vocabulary:
        table(encoders["source"]).weight = table(decoder).weight
    return EncoderDecoder(encoders, decoder, config.modality_dropout)


def table(reader: nn.Module) -> nn.Embedding:
    """The embedding of the words of an encoder of sentences, or of a decoder."""
    return getattr(reader.embedding, "words", reader.embedding)


def _backbone(config: ModelConfig) -> nn.Module:
    """What sees: without its classifier."""
    if config.backbone == "resnet":
        return ResNet(config.depth, num_classes=0, width=config.width)
    if config.backbone == "vgg":
        return VGG(config.depth, batch_norm=True, num_classes=0)
    if config.backbone != "vit":
        raise ValueError(f'backbone is "resnet", "vgg" or "vit", or "" for none, not {config.backbone!r}')
    if not isinstance(config.depth, int) or config.width % 8:
        wrong = f"not {config.depth!r} and {config.width}"
        raise ValueError(f'"vit" has a depth that is one number, and a width that is a multiple of 8, {wrong}')
    hidden_dim = 8 * config.width
    heads, mlp_dim = hidden_dim // 64, 4 * hidden_dim
    return VisionTransformer(config.image_size, 8, config.depth, heads, hidden_dim, mlp_dim, num_classes=0)
