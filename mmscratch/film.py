"""FiLM: a question steers a CNN, channel by channel."""

from collections.abc import Sequence

from torch import Tensor, nn

Modulation = tuple[Tensor, Tensor]  # a scale and a shift of each channel, each (B, C)


def modulate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Scale and shift each channel of a feature map, the same at all positions.

        y[b, c, i, j] = γ[b, c] · x[b, c, i, j] + β[b, c]

    x (B, C, H, W), scale γ (B, C), shift β (B, C) -> (B, C, H, W).
    """
    scale = scale[:, :, None, None]  # (B, C, 1, 1)
    shift = shift[:, :, None, None]  # (B, C, 1, 1)
    return scale * x + shift


class FiLM(nn.Module):
    """Predict from a question how to modulate the blocks of a CNN: feature-wise linear modulation.

        [Δγ, β] = W q,   γ = 1 + Δγ

    question (B, D) -> for each block, its scale γ and its shift β, each (B, C); `channels` are the
    blocks' C. W is `linear.weight`: the first half of its rows give the Δγ of all blocks,
    in their order, and the second half the β.

    W starts at 0, so at first γ = 1 and β = 0, and the CNN is the same as without FiLM. There is no
    bias: a question of zeros (no question) always leaves the CNN as it is.
    Source: Perez et al. 2018, "FiLM: visual reasoning with a general conditioning layer".
    """

    def __init__(self, embed_dim: int, channels: Sequence[int]):
        super().__init__()
        self.channels = list(channels)
        self.linear = nn.Linear(embed_dim, 2 * sum(channels), bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, question: Tensor) -> list[Modulation]:
        delta, shift = self.linear(question).chunk(2, dim=1)  # each (B, sum of the channels)
        scales = (1 + delta).split(self.channels, dim=1)
        shifts = shift.split(self.channels, dim=1)
        return list(zip(scales, shifts))
