"""An encoder of the rows of a table."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .attention import Memory
from .transformer import TransformerBlock


class TableEncoder(nn.Module):
    """Encode rows of a table: a token for each column that is not missing.

        token = number × weight + bias          of a number
        token = embedding of the category + bias

    rows (B, C), as `Schema.encode` returns them -> Memory (B, C, D). First come the columns with
    numbers, then the categories, each in their order (`order`); the mask leaves out the
    missing cells, NaN. `num_layers` Transformer blocks and a norm follow.

    num_categories: of each column; 0 for a number.

    Weights and tokens agree with those of the package rtdl_revisiting_models.
    Source: Gorishniy et al. 2021 (FT-Transformer).
    """

    def __init__(
        self,
        embed_dim: int,
        num_categories: Sequence[int],
        num_layers: int = 0,
        num_heads: int = 4,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.dropout = dropout
        numbers = [i for i, count in enumerate(num_categories) if not count]
        categories = [i for i, count in enumerate(num_categories) if count]
        self.order = numbers + categories
        self.num_numbers = len(numbers)
        counts = [num_categories[i] for i in categories]
        first = torch.tensor([0, *counts]).cumsum(0)[:-1]  # of each column in the embedding
        self.register_buffer("first", first, persistent=False)
        self.weight = nn.Parameter(torch.empty(len(numbers), embed_dim))
        self.bias = nn.Parameter(torch.empty(len(self.order), embed_dim))
        self.embedding = nn.Embedding(sum(counts), embed_dim)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(embed_dim**-0.5), embed_dim**-0.5)
        self.blocks = nn.ModuleList()
        for _ in range(num_layers):
            self.blocks.append(TransformerBlock(embed_dim, num_heads, dropout))
        self.norm = nn.LayerNorm(embed_dim) if num_layers else nn.Identity()

    def forward(self, rows: Tensor) -> Memory:
        rows = rows[:, self.order]  # (B, C)
        mask = ~rows.isnan()
        rows = rows.nan_to_num()
        numbers = rows[:, : self.num_numbers].unsqueeze(-1)  # (B, numbers, 1)
        categories = rows[:, self.num_numbers :].long() + self.first  # (B, categories)
        tokens = torch.cat([numbers * self.weight, self.embedding(categories)], dim=1)
        x = tokens + self.bias  # (B, C, D)
        for block in self.blocks:
            x, _, _ = block(x, mask.unsqueeze(1))
        return Memory(self.norm(x), mask)
