"""Hearing: the audio encoder, from a spectrogram to a memory."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Memory
from .transformer import TransformerBlock


def sinusoids(length: int, dim: int) -> Tensor:
    """A fixed vector for each position t, (length, dim): waves from short to long.

        [sin(t w₀), …, sin(t w_K), cos(t w₀), …, cos(t w_K)],   wₖ = 10000^(-k / K),  K = dim / 2 - 1

    Source: Vaswani et al. 2017, in Whisper's order.
    """
    if dim % 2:
        raise ValueError(f"sines and cosines are halves of an even number of dimensions, not {dim}")
    step = math.log(10000) / max(1, dim // 2 - 1)
    frequencies = torch.exp(-step * torch.arange(dim // 2))
    angles = torch.arange(length).unsqueeze(1) * frequencies  # (length, dim / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class AudioEncoder(nn.Module):
    """A sound -> a memory: two convolutions over time, positions, Transformer blocks.

        x = gelu(conv₁ sound);  x = gelu(conv₂ x) + positions;  memory = projection(norm(blocks(x)))

    sound (B, F, num_mels), as `audio.spectrogram` makes it, padded to F frames; lengths (B,) are
    those before padding, None if all are F -> Memory (B, ceil(F / 2), embed_dim), since conv₂ has a
    stride of 2: a position is 20 ms. max_length is the largest number of positions. The encoder may
    have a width of its own; if not, it is embed_dim, and there is no projection.

    Padding changes nothing: it is zero before each convolution (what conv₁ makes of zeros is its
    bias, not zero), and no position attends to it. In training, dropout is also applied to the sum
    with the positions.
    Source: Radford et al. 2022 (Whisper), whose weights load through `weights.from_whisper`.
    """

    def __init__(
        self,
        embed_dim: int,
        num_mels: int = 80,
        num_heads: int = 4,
        num_layers: int = 2,
        max_length: int = 1500,
        dropout: float = 0.0,
        width: int | None = None,
    ):
        super().__init__()
        width = width or embed_dim
        self.dropout = dropout
        self.conv1 = nn.Conv1d(num_mels, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        for conv in (self.conv1, self.conv2):  # with torch's default, positions would drown sounds
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        self.register_buffer("positions", sinusoids(max_length, width), persistent=False)
        self.blocks = nn.ModuleList()
        for _ in range(num_layers):
            self.blocks.append(TransformerBlock(width, num_heads, dropout))
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Identity() if width == embed_dim else nn.Linear(width, embed_dim)

    def forward(self, sound: Tensor, lengths: Tensor | None = None) -> Memory:
        B, num_frames, num_mels = sound.shape
        self._check_size(num_frames, num_mels)
        if lengths is None:
            lengths = torch.full((B,), num_frames, device=sound.device)
        frames = torch.arange(num_frames, device=sound.device)
        padding = frames >= lengths.unsqueeze(1)  # (B, F)
        x = sound.masked_fill(padding.unsqueeze(2), 0.0).transpose(1, 2)  # (B, num_mels, F)
        x = F.gelu(self.conv1(x))  # (B, D, F)
        x = x.masked_fill(padding.unsqueeze(1), 0.0)
        x = F.gelu(self.conv2(x)).transpose(1, 2)  # (B, N, D)
        x = x + self.positions[: x.size(1)]
        x = F.dropout(x, self.dropout, self.training)
        mask = ~padding[:, ::2]  # (B, N)
        for block in self.blocks:
            x, _, _ = block(x, mask.unsqueeze(1))
        return Memory(self.projection(self.norm(x)), mask)

    def _check_size(self, num_frames: int, num_mels: int) -> None:
        """Raise ValueError for a sound without frames, with too many, or of other mels."""
        expected = self.conv1.in_channels
        if num_mels != expected:
            raise ValueError(f"spectrograms of {expected} mels were expected, not {num_mels}")
        max_frames = 2 * len(self.positions)
        if not 0 < num_frames <= max_frames:
            raise ValueError(f"a sound has 1 to {max_frames} frames of 10 ms, not {num_frames}")
