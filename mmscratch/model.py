"""The pieces put together: encoders that fill a memory, and a decoder that writes while looking at it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .attention import Memory
from .recurrent import LSTMDecoder
from .text import BOS
from .vision import VGG, ImageEncoder, ResNet


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

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Teacher forcing: logits (B, T, V), those at t for batch["target"][:, t], given the words before it."""
        target = batch["target"]  # (B, T), ending in <eos>
        bos = target.new_full((target.size(0), 1), BOS)
        return self.decoder(torch.cat([bos, target[:, :-1]], dim=1), self.encode(batch))


@dataclass
class ModelConfig:
    """What a model is made of; plain values, kept in its checkpoint."""

    vocab_size: int
    backbone: str = "resnet"  # "resnet", or "vgg" with a depth
    depth: int | tuple[int, ...] = (1, 1)  # of the backbone: a published one, or blocks a stage
    width: int = 32  # channels of the ResNet's first stage
    image_size: int = 64
    fusion: str = "cross_attention"
    embed_dim: int = 256  # of words, of the memory and of all that is compared with them
    hidden_size: int = 256
    num_layers: int = 1
    dropout: float = 0.0


def build_model(config: ModelConfig) -> EncoderDecoder:
    """A new model with random weights."""
    if config.backbone == "resnet":
        backbone = ResNet(config.depth, num_classes=0, width=config.width)
    elif config.backbone == "vgg":
        backbone = VGG(config.depth, batch_norm=True, num_classes=0)
    else:
        raise ValueError(f'backbone is "resnet" or "vgg", not {config.backbone!r}')
    encoder = ImageEncoder(backbone, config.embed_dim, config.image_size)
    decoder = LSTMDecoder(
        config.vocab_size, config.embed_dim, config.hidden_size, config.num_layers, config.fusion, config.dropout
    )
    return EncoderDecoder({"image": encoder}, decoder)
