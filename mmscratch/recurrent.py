"""The long short-term memory, and the encoder and the decoder made of it."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .attention import (
    AdditiveAttention,
    Memory,
    check_fusion,
    memory_index,
    scaled_dot_product_attention,
)
from .text import PAD


def _uniform(shape: tuple[int, ...], hidden_size: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-(hidden_size**-0.5), hidden_size**-0.5))


class LSTMCell(nn.Module):
    """One step of a long short-term memory.

        i, f, g, o = split(W_ih x + b_ih + W_hh h + b_hh)
        c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h' = sigmoid(o) * tanh(c')

    Parameters are named and ordered as in torch.nn.LSTMCell (gates i, f, g, o), so its weights load here.
    Source: Hochreiter & Schmidhuber 1997; the forget gate of Gers et al. 2000.
    """

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.weight_ih = _uniform((4 * hidden_size, input_size), hidden_size)
        self.weight_hh = _uniform((4 * hidden_size, hidden_size), hidden_size)
        self.bias_ih = _uniform((4 * hidden_size,), hidden_size)
        self.bias_hh = _uniform((4 * hidden_size,), hidden_size)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """x (B, I), state two of (B, H) -> the next state, two of (B, H)."""
        hidden, cell = state
        gates = F.linear(x, self.weight_ih, self.bias_ih) + F.linear(
            hidden, self.weight_hh, self.bias_hh
        )  # (B, 4H)
        i, f, g, o = gates.chunk(4, dim=-1)  # each (B, H)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        return hidden, cell


class LSTMFunction(torch.autograd.Function):
    """All steps of one layer in one direction, and backpropagation through time by hand (Werbos 1990).

    A step takes the state (h, c) to (h', c'). Its gates i, f, g, o are those of LSTMCell, activated:

        c' = f c + i g;    h' = o tanh(c')

    Backwards, from the last step to the first, δy is the gradient of the loss with respect to y, or, for a gate, with
    respect to what goes into its activation. The slopes there are s (1 - s) for a sigmoid s, and 1 - g² for g = tanh:

        δh' = δoutput + (δh of the step after)
        δc' = (δc of the step after) + δh' o (1 - tanh(c')²)
        δi = δc' g i (1 - i);    δf = δc' c f (1 - f);    δg = δc' i (1 - g²);    δo = δh' tanh(c') o (1 - o)
        δh = W_hhᵀ [δi; δf; δg; δo];    δc = δc' f

    Autograd would find the same, but add up W_hh's gradient step by step; here it is one product for all steps.
    A row that has ended keeps its state: f = 1, i = o = 0 and g = -1, where all slopes are 0, and h is carried over.
    Under autocast the matrix products, the gates and h are in bfloat16, and the cell, which adds up, in float32.
    """

    @staticmethod
    def forward(
        ctx, inputs: Tensor, hidden: Tensor, cell: Tensor, weight: Tensor, ended: Tensor | None
    ):
        """inputs (T, B, 4H), hidden and cell (B, H), ended (T, B, 1) -> hidden states (T, B, H), last cell (B, H)."""
        steps, width = len(inputs), hidden.size(-1)
        gates = inputs.clone()
        if ended is not None:
            gates.masked_fill_(ended, -torch.inf)
            gates[..., width : 2 * width].masked_fill_(ended, torch.inf)
        hiddens, cells = (
            state.new_empty(steps + 1, *state.shape) for state in (hidden, cell)
        )  # (T + 1, B, H)
        hiddens[0], cells[0] = hidden, cell
        for t in range(steps):
            i, f, g, o = (
                gates[t].addmm_(hiddens[t], weight.t()).chunk(4, dim=-1)
            )  # each (B, H), a view into gates
            i.sigmoid_(), f.sigmoid_(), g.tanh_(), o.sigmoid_()
            cells[t + 1] = f * cells[t] + i * g
            hiddens[t + 1] = o * cells[t + 1].tanh()
            if ended is not None:
                hiddens[t + 1] += ended[t] * hiddens[t]
        ctx.save_for_backward(gates, hiddens, cells, weight, ended)
        return hiddens[1:], cells[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx, d_output: Tensor, d_cell: Tensor):
        """The gradients of what forward was given; d_x stands for the δx above."""
        gates, hiddens, cells, weight, ended = ctx.saved_tensors
        d_gates, d_hidden = torch.empty_like(gates), torch.zeros_like(hiddens[0])
        for t in reversed(range(len(gates))):
            i, f, g, o = gates[t].chunk(4, dim=-1)  # each (B, H)
            squashed = cells[t + 1].tanh()
            d_hidden = d_hidden + d_output[t]
            d_cell = d_cell + d_hidden * o * (1 - squashed * squashed)
            d_i, d_f, d_g = (
                d_cell * g * i * (1 - i),
                d_cell * cells[t] * f * (1 - f),
                d_cell * i * (1 - g * g),
            )
            d_o = d_hidden * squashed * o * (1 - o)
            d_gates[t] = torch.cat([d_i, d_f, d_g, d_o], dim=-1)  # (B, 4H)
            kept = 0 if ended is None else ended[t] * d_hidden
            d_hidden = d_gates[t] @ weight + kept
            d_cell = d_cell * f
        d_weight = d_gates.flatten(0, 1).t() @ hiddens[:-1].flatten(
            0, 1
        )  # (4H, T · B) @ (T · B, H)
        return d_gates, d_hidden, d_cell, d_weight, None


class LSTM(nn.Module):
    """Layers of LSTM over whole sentences, batch first.

    Parameters are named as in torch.nn.LSTM (weight_ih_l0, weight_hh_l0_reverse, …), so its weights load here, and the
    outputs agree. With `bidirectional`, a second LSTM reads from the end, and the outputs stand side by side. Dropout
    is applied between layers. What the input adds to the gates does not depend on the state, so it is one matrix
    product for all steps; only the product with the hidden state waits for the step before.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers, self.dropout = (
            input_size,
            hidden_size,
            num_layers,
            dropout,
        )
        self.directions = ("", "_reverse") if bidirectional else ("",)
        for layer in range(num_layers):
            size = input_size if layer == 0 else hidden_size * len(self.directions)
            for direction in self.directions:
                shapes = {
                    "weight_ih": (4 * hidden_size, size),
                    "weight_hh": (4 * hidden_size, hidden_size),
                }
                for name, shape in (
                    shapes | {"bias_ih": (4 * hidden_size,), "bias_hh": (4 * hidden_size,)}
                ).items():
                    self.register_parameter(
                        f"{name}_l{layer}{direction}", _uniform(shape, hidden_size)
                    )

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (B, T, I), state two of (layers · directions, B, H) -> outputs (B, T, H · directions), last state.

        With `lengths` (B), what lies behind a sentence's end changes nothing: outputs are zero there, and the last
        state is that of its last word (as with torch's packed sequences).
        """
        if x.size(-1) != self.input_size:
            raise ValueError(f"inputs of width {self.input_size} were expected, not {x.size(-1)}")
        if state is None:
            zeros = x.new_zeros(self.num_layers * len(self.directions), x.size(0), self.hidden_size)
            state = zeros, zeros
        live = None
        if lengths is not None:
            live = torch.arange(x.size(1), device=x.device).unsqueeze(1) < lengths.to(
                x.device
            )  # (T, B)
            live = live.unsqueeze(-1)  # (T, B, 1)
        hiddens, cells = [], []
        for layer in range(self.num_layers):
            if layer > 0:
                x = F.dropout(x, self.dropout, self.training)
            outputs = []
            for direction in self.directions:
                hidden, cell = state[0][len(hiddens)], state[1][len(cells)]
                output, hidden, cell = self._run(x, hidden, cell, live, f"_l{layer}{direction}")
                outputs.append(output)
                hiddens.append(hidden)
                cells.append(cell)
            x = (
                torch.cat(outputs, dim=-1) if len(outputs) > 1 else outputs[0]
            )  # (B, T, H · directions)
        return x, (torch.stack(hiddens), torch.stack(cells))

    def weight(self, name: str) -> Tensor:
        """The matrix of that name; a `finetuning.LoRALSTM` adds its change here."""
        return getattr(self, name)

    def _run(self, x: Tensor, hidden: Tensor, cell: Tensor, live: Tensor | None, suffix: str):
        """One layer in one direction."""
        weight_ih, weight_hh = self.weight("weight_ih" + suffix), self.weight("weight_hh" + suffix)
        bias_ih, bias_hh = getattr(self, "bias_ih" + suffix), getattr(self, "bias_hh" + suffix)
        x = x.transpose(0, 1)  # (T, B, I)
        ended = None if live is None else ~live
        backwards = suffix.endswith("_reverse")
        if backwards:
            x, ended = x.flip(0), None if live is None else ended.flip(0)
        inputs = F.linear(x.contiguous(), weight_ih, bias_ih + bias_hh)  # (T, B, 4H)
        hidden, weight_hh = hidden.to(inputs.dtype), weight_hh.to(inputs.dtype)
        output, cell = LSTMFunction.apply(
            inputs, hidden, cell.to(weight_ih.dtype), weight_hh, ended
        )
        hidden = output[-1]
        if backwards:
            output = output.flip(0)
        if live is not None:
            output = output * live
        return output.transpose(0, 1), hidden, cell  # (B, T, H), (B, H), (B, H)


class LSTMEncoder(nn.Module):
    """Reads a sentence in both directions: tokens (B, T), padded with 0 -> Memory (B, T, D).

    What stands for a word is made of two hidden states: of an LSTM that has read from the start up to it, and of one that
    has read from the end back to it. Padding changes nothing.
    Source: Schuster & Paliwal 1997; as the encoder of a translation, Bahdanau et al. 2015.
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int,
        hidden_size: int,
        num_layers: int = 1,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.dropout = dropout
        self.embedding = nn.Embedding(vocab_size, embed_dim, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=embed_dim**-0.5)
        self.lstm = LSTM(embed_dim, hidden_size, num_layers, bidirectional=True, dropout=dropout)
        self.projection = nn.Linear(2 * hidden_size, embed_dim)

    def forward(self, tokens: Tensor) -> Memory:
        mask = tokens != PAD
        words = (
            self.embedding(tokens) * self.embedding.embedding_dim**0.5
        )  # (B, T, D), of variance 1
        words = F.dropout(words, self.dropout, self.training)
        states, _ = self.lstm(words, lengths=mask.sum(1))  # (B, T, 2H)
        return Memory(self.projection(F.dropout(states, self.dropout, self.training)), mask)


class LSTMState(NamedTuple):
    """Where an `LSTMDecoder` is in its sentence: hidden state and cell, each (layers, B, H), and what it looks at.

    In a beam search, the beams of one picture share its memory: there are fewer memories than sentences.
    """

    hidden: Tensor
    cell: Tensor
    memory: Memory


class LSTMDecoder(nn.Module):
    """Writes a sentence, word by word, while looking at a memory.

    fusion="prefix": the memory, read once, makes the first state (Show and Tell: Vinyals et al. 2015).
    fusion="cross_attention": besides, after each step the hidden state asks the memory (Luong et al. 2015):

        context = attention(h, memory);  logits = E tanh(W_c [h; context])

    with score="dot" by the scaled dot product of W h with each place, with score="additive" by `AdditiveAttention`. What
    is looked at does not enter the next step, so in training all steps ask at once. E is the embedding itself.
    The forget gates start open, at sigmoid(3) = 0.95: at 0.5 the cell would lose half of the picture with every word, and
    from the first state only, nouns and colours are then hardly learned (chapter 3; Jozefowicz et al. 2015).
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int,
        hidden_size: int,
        num_layers: int = 1,
        fusion: str = "cross_attention",
        dropout: float = 0.0,
        score: str = "dot",
    ):
        super().__init__()
        check_fusion(fusion)
        if score not in ("dot", "additive"):
            raise ValueError(f'score is "dot" or "additive", not {score!r}')
        self.fusion, self.dropout, self.embed_dim = fusion, dropout, embed_dim
        self.embedding = nn.Embedding(vocab_size, embed_dim, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=embed_dim**-0.5)
        self.init_proj = nn.Linear(embed_dim, hidden_size)
        self.init_state = nn.Linear(hidden_size, 2 * num_layers * hidden_size)
        self.lstm = LSTM(embed_dim, hidden_size, num_layers, dropout=dropout)
        for layer in range(num_layers):
            nn.init.constant_(
                self.lstm.get_parameter(f"bias_ih_l{layer}").detach()[
                    hidden_size : 2 * hidden_size
                ],
                3.0,
            )
        self.query = self.additive = None
        if fusion == "cross_attention" and score == "dot":
            self.query = nn.Linear(hidden_size, embed_dim, bias=False)
        elif fusion == "cross_attention":
            self.additive = AdditiveAttention(hidden_size, embed_dim, embed_dim)
        self.combine = nn.Linear(
            hidden_size + (embed_dim if fusion == "cross_attention" else 0), embed_dim
        )
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(
        self, tokens: Tensor, memory: Memory, need_weights: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """tokens (B, T), beginning with <bos> -> the logits (B, T, V) of the word after each.

        With `need_weights` also where each word looked, (B, 1, 1, T, N), as a Transformer of one layer and one head.
        """
        if need_weights and self.fusion == "prefix":
            raise ValueError(
                'an LSTM with fusion="prefix" looks once, before the first word: there are no weights'
            )
        state = self.start(memory)
        outputs, _ = self.lstm(self._embed(tokens), (state.hidden, state.cell))  # (B, T, H)
        return self._compute_logits(outputs, memory, need_weights)

    def start(self, memory: Memory) -> LSTMState:
        """The state before the first word: tanh(W₂ meanₙ relu(W₁ memoryₙ)).

        Without the relu, the mean would add up what is there and where, and lose what is where (Zaheer et al. 2017).
        """
        init_proj = Memory(self.init_proj(memory.tokens).relu(), memory.mask).mean()  # (B, H)
        first = self.init_state(init_proj).tanh()  # (B, 2 · layers · H)
        first = first.view(first.size(0), 2, self.lstm.num_layers, -1).permute(
            1, 2, 0, 3
        )  # (2, layers, B, H)
        return LSTMState(*first.contiguous(), memory)

    def step(self, token: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """token (B,) -> the logits (B, V) of the next word, and the state after it."""
        outputs, (hidden, cell) = self.lstm(
            self._embed(token.unsqueeze(1)), (state.hidden, state.cell)
        )  # (B, 1, H)
        outputs = outputs.reshape(
            len(state.memory.tokens), -1, outputs.size(-1)
        )  # (memories, beams, H)
        logits = self._compute_logits(
            outputs, state.memory
        )  # as the words of a sentence, beams look at one memory together
        return logits.flatten(0, 1), LSTMState(hidden, cell, state.memory)

    def reorder(self, state: LSTMState, index: Tensor) -> LSTMState:
        """The states of the sentences `index` (B',), in that order."""
        owner = memory_index(index, state.hidden.size(1), len(state.memory.tokens))
        memory = (
            state.memory
            if owner is None
            else Memory(*(part.index_select(0, owner) for part in state.memory))
        )
        return LSTMState(
            state.hidden.index_select(1, index), state.cell.index_select(1, index), memory
        )

    def _embed(self, tokens: Tensor) -> Tensor:
        words = (
            self.embedding(tokens) * self.embedding.embedding_dim**0.5
        )  # (B, T, D), of variance 1; as an output, 1/D
        return F.dropout(words, self.dropout, self.training)

    def _compute_logits(self, outputs: Tensor, memory: Memory, need_weights: bool = False):
        weights = None
        if self.fusion == "cross_attention":
            context, weights = self._attend(outputs, memory, need_weights)
            outputs = torch.cat([outputs, context], dim=-1)  # (B, T, H + D)
        outputs = F.dropout(self.combine(outputs).tanh(), self.dropout, self.training)  # (B, T, D)
        logits = F.linear(outputs, self.embedding.weight, self.bias)  # (B, T, V)
        return (logits, weights[:, None, None]) if need_weights else logits

    def _attend(
        self, outputs: Tensor, memory: Memory, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """outputs (B, T, H) -> what each sees, (B, T, D), and where it looked, (B, T, N), or None."""
        tokens, mask = memory.tokens, memory.mask.unsqueeze(1)  # (B, N, D), (B, 1, N)
        if self.additive is not None:
            return self.additive(outputs, tokens, mask)
        context = scaled_dot_product_attention(
            self.query(outputs), tokens, tokens, mask, need_weights
        )
        return context if need_weights else (context, None)
