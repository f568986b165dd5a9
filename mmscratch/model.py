"""The pieces put together: encoders that fill a memory, and a decoder that writes while looking at it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .attention import Memory
from .recurrent import LSTMDecoder
from .text import BOS
from .transformer import TransformerDecoder
from .vision import VGG, ImageEncoder, ResNet, VisionTransformer


def fuse(memories: list[Memory]) -> Memory:
    """Lay memories side by side: (B, N1, D), (B, N2, D), … -> (B, N1 + N2 + …, D). The decoder attends to all of it."""
    if len(memories) == 1:
        return memories[0]
    return Memory(torch.cat([m.tokens for m in memories], 1), torch.cat([m.mask for m in memories], 1))


class EncoderDecoder(nn.Module):
    """Every task of this project: encoders turn what is given into a memory, a decoder writes a sentence about it.

    `encoders` maps a modality's name ("image", "source", "audio") to its encoder. A batch is a dict of tensors; a
    modality that it lacks is not fused.
    """

    def __init__(self, encoders: dict[str, nn.Module], decoder: nn.Module):
        super().__init__()
        self.encoders, self.decoder = nn.ModuleDict(encoders), decoder

    def encode(self, batch: dict[str, Tensor]) -> Memory:
        """What is given -> one memory."""
        memories = [encoder(batch[name]) for name, encoder in self.encoders.items() if name in batch]
        if not memories:
            raise ValueError(f"the batch has none of: {', '.join(self.encoders)}; it has: {', '.join(batch)}")
        return fuse(memories)

    def forward(self, batch: dict[str, Tensor], need_weights: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Teacher forcing: logits (B, T, V), those at t for batch["target"][:, t], given the words before it.

        With `need_weights` also where the decoder looked for each of them, (B, layers, H, T, N).
        """
        target = batch["target"]  # (B, T), ending in <eos>
        bos = target.new_full((target.size(0), 1), BOS)
        return self.decoder(torch.cat([bos, target[:, :-1]], dim=1), self.encode(batch), need_weights)


@dataclass
class ModelConfig:
    """What a model is made of; plain values, kept in its checkpoint."""

    vocab_size: int
    backbone: str = "resnet"  # or "vgg" or "vit", each with a depth that is a number
    depth: int | tuple[int, ...] = (1, 1)  # a published one, or the ResNet's blocks a stage, or the ViT's blocks
    width: int = 32  # channels of the ResNet's first stage; the ViT has 8 times as many, in heads of 64
    encoder_layers: int = 0  # Transformer blocks in which the places of the picture look at one another
    image_size: int = 64
    decoder: str = "lstm"  # or "transformer"
    fusion: str = "cross_attention"  # or "prefix"
    score: str = "dot"  # or "additive": how the LSTM's cross-attention compares
    embed_dim: int = 256  # of words, of the memory and of all that is compared with them
    hidden_size: int = 256  # of the LSTM
    num_heads: int = 4  # of the Transformer
    num_layers: int = 1  # of the decoder
    max_length: int = 64  # words and <eos>: the Transformer has so many positions
    dropout: float = 0.0


def build_model(config: ModelConfig) -> EncoderDecoder:
    """A new model with random weights."""
    if config.backbone == "resnet":
        backbone = ResNet(config.depth, num_classes=0, width=config.width)
    elif config.backbone == "vgg":
        backbone = VGG(config.depth, batch_norm=True, num_classes=0)
    elif config.backbone == "vit":
        if not isinstance(config.depth, int) or config.width % 8:
            wrong = f"not {config.depth!r} and {config.width}"
            raise ValueError(f'"vit" has a depth that is one number, and a width that is a multiple of 8, {wrong}')
        hidden_dim = 8 * config.width
        heads, mlp_dim = hidden_dim // 64, 4 * hidden_dim
        backbone = VisionTransformer(config.image_size, 8, config.depth, heads, hidden_dim, mlp_dim, num_classes=0)
    else:
        raise ValueError(f'backbone is "resnet", "vgg" or "vit", not {config.backbone!r}')
    encoder = ImageEncoder(backbone, config.embed_dim, config.image_size, config.encoder_layers)
    words, rest = (config.vocab_size, config.embed_dim), {"fusion": config.fusion, "dropout": config.dropout}
    if config.decoder == "lstm":
        decoder = LSTMDecoder(*words, config.hidden_size, config.num_layers, score=config.score, **rest)
    elif config.decoder == "transformer":
        decoder = TransformerDecoder(*words, config.num_heads, config.num_layers, config.max_length, **rest)
    else:
        raise ValueError(f'decoder is "lstm" or "transformer", not {config.decoder!r}')
    return EncoderDecoder({"image": encoder}, decoder)
