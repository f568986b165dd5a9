"""The long short-term memory, and an encoder and a decoder made of it."""

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
    """A parameter, uniform from -1/√H to 1/√H, as torch initializes its LSTM."""
    bound = hidden_size**-0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


class LSTMCell(nn.Module):
    """One step of a long short-term memory.

        i, f, g, o = split(W_ih x + b_ih + W_hh h + b_hh)
        c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h' = sigmoid(o) * tanh(c')

    Parameters are named and ordered as in torch.nn.LSTMCell (gates i, f, g, o), so its weights load
    here.
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
        gates = F.linear(x, self.weight_ih, self.bias_ih)  # (B, 4H)
        gates = gates + F.linear(hidden, self.weight_hh, self.bias_hh)
        i, f, g, o = gates.chunk(4, dim=-1)  # each (B, H)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        return hidden, cell


class LSTMFunction(torch.autograd.Function):
    """All steps of one layer in one direction, with backpropagation through time by hand.

    A step takes the state (h, c) to (h', c'). Its gates are those of LSTMCell, activated:

        c' = f c + i g;    h' = o tanh(c')

    Backward, from the last step to the first, δy is the gradient of the loss with respect to y; for
    a gate, with respect to the input of its activation. The slope of a sigmoid s is s (1 - s), and
    that of g = tanh is 1 - g²:

        δh' = δoutput + (δh of the step after)
        δc' = (δc of the step after) + δh' o (1 - tanh(c')²)
        δi = δc' g i (1 - i)
        δf = δc' c f (1 - f)
        δg = δc' i (1 - g²)
        δo = δh' tanh(c') o (1 - o)
        δh = W_hhᵀ [δi; δf; δg; δo];    δc = δc' f

    Autograd would find the same, but would add up W_hh's gradient step by step; here it is one
    product over all steps.
    A row past its sentence's end keeps its state: f = 1, i = o = 0 and g = -1, where all slopes are
    0, and h is copied.
    Under autocast the matrix products, the gates and h are in bfloat16; the cell, a running sum, is
    in float32.
    Source: Werbos 1990.
    """

    @staticmethod
    def forward(
        ctx, inputs: Tensor, hidden: Tensor, cell: Tensor, weight: Tensor, ended: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """inputs (T, B, 4H), hidden and cell (B, H), weight (4H, H), ended (T, B, 1) bool or None
        -> hidden states (T, B, H), last cell (B, H).
        """
        T = len(inputs)
        H = hidden.size(-1)
        gates = inputs.clone()  # (T, B, 4H)
        if ended is not None:
            gates.masked_fill_(ended, -torch.inf)
            gates[..., H : 2 * H].masked_fill_(ended, torch.inf)  # the forget gate
        hiddens = hidden.new_empty(T + 1, *hidden.shape)  # (T + 1, B, H)
        cells = cell.new_empty(T + 1, *cell.shape)  # (T + 1, B, H)
        hiddens[0] = hidden
        cells[0] = cell
        for t in range(T):
            step = gates[t].addmm_(hiddens[t], weight.t())  # (B, 4H)
            i, f, g, o = step.chunk(4, dim=-1)  # each (B, H), a view into gates
            i.sigmoid_()
            f.sigmoid_()
            g.tanh_()
            o.sigmoid_()
            cells[t + 1] = f * cells[t] + i * g
            hiddens[t + 1] = o * cells[t + 1].tanh()
            if ended is not None:
                hiddens[t + 1] += ended[t] * hiddens[t]
        ctx.save_for_backward(gates, hiddens, cells, weight, ended)
        return hiddens[1:], cells[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx, d_output: Tensor, d_cell: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of forward's arguments; d_x is the δx above."""
        gates, hiddens, cells, weight, ended = ctx.saved_tensors
        d_gates = torch.empty_like(gates)  # (T, B, 4H)
        d_hidden = torch.zeros_like(hiddens[0])  # (B, H)
        for t in reversed(range(len(gates))):
            i, f, g, o = gates[t].chunk(4, dim=-1)  # each (B, H)
            tanh_cell = cells[t + 1].tanh()
            d_hidden = d_hidden + d_output[t]
            d_cell = d_cell + d_hidden * o * (1 - tanh_cell * tanh_cell)
            d_i = d_cell * g * i * (1 - i)
            d_f = d_cell * cells[t] * f * (1 - f)
            d_g = d_cell * i * (1 - g * g)
            d_o = d_hidden * tanh_cell * o * (1 - o)
            d_gates[t] = torch.cat([d_i, d_f, d_g, d_o], dim=-1)  # (B, 4H)
            # a row past its end has copied h: it hands on the gradient
            d_copied = 0 if ended is None else ended[t] * d_hidden
            d_hidden = d_gates[t] @ weight + d_copied
            d_cell = d_cell * f
        all_gates = d_gates.flatten(0, 1)  # (T · B, 4H)
        all_hiddens = hiddens[:-1].flatten(0, 1)  # (T · B, H)
        d_weight = all_gates.t() @ all_hiddens  # (4H, H)
        return d_gates, d_hidden, d_cell, d_weight, None


class LSTM(nn.Module):
    """Layers of LSTM over whole sentences, batch first, with dropout between layers.

    Parameters are named as in torch.nn.LSTM (weight_ih_l0, weight_hh_l0_reverse, …), so its weights
    load here, and the outputs agree. With `bidirectional`, a second LSTM reads from the end, and
    the outputs of the two are concatenated. The input's contribution to the gates does not depend
    on the state, so it is one matrix product for all steps; only the product with the hidden state
    waits for the step before.
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
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.dropout = dropout
        self.directions = ("", "_reverse") if bidirectional else ("",)
        for layer in range(num_layers):
            width = input_size if layer == 0 else hidden_size * len(self.directions)
            shapes = {
                "weight_ih": (4 * hidden_size, width),
                "weight_hh": (4 * hidden_size, hidden_size),
                "bias_ih": (4 * hidden_size,),
                "bias_hh": (4 * hidden_size,),
            }
            for direction in self.directions:
                for name, shape in shapes.items():
                    parameter = _uniform(shape, hidden_size)
                    self.register_parameter(f"{name}_l{layer}{direction}", parameter)

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (B, T, I), state two of (layers · directions, B, H)
        -> outputs (B, T, H · directions), last state.

        With `lengths` (B), steps past a sentence's end have no effect: their outputs are zero, and
        the last state is that of the last word, as with torch's packed sequences. Without a state,
        it starts from zeros. All that it makes is on the device of x, wherever `lengths` are.
        """
        if x.size(-1) != self.input_size:
            raise ValueError(f"inputs of width {self.input_size} were expected, not {x.size(-1)}")
        if state is None:
            zeros = x.new_zeros(self.num_layers * len(self.directions), x.size(0), self.hidden_size)
            state = (zeros, zeros)
        ended = None
        if lengths is not None:
            steps = torch.arange(x.size(1), device=x.device).unsqueeze(1)  # (T, 1)
            ended = steps >= lengths.to(x.device)  # (T, B)
            ended = ended.unsqueeze(-1)  # (T, B, 1)
        first_hidden, first_cell = state
        hiddens = []
        cells = []
        for layer in range(self.num_layers):
            if layer > 0:
                x = F.dropout(x, self.dropout, self.training)
            outputs = []
            for direction in self.directions:
                hidden = first_hidden[len(hiddens)]  # (B, H)
                cell = first_cell[len(cells)]  # (B, H)
                output, hidden, cell = self._run(x, hidden, cell, ended, f"_l{layer}{direction}")
                outputs.append(output)
                hiddens.append(hidden)
                cells.append(cell)
            x = outputs[0]  # (B, T, H)
            if len(outputs) > 1:
                x = torch.cat(outputs, dim=-1)  # (B, T, 2H)
        return x, (torch.stack(hiddens), torch.stack(cells))

    def weight(self, name: str) -> Tensor:
        """The matrix `name`; `finetuning.LoRALSTM` overrides this to add its low-rank change."""
        return getattr(self, name)

    def _run(
        self, x: Tensor, hidden: Tensor, cell: Tensor, ended: Tensor | None, suffix: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One layer in one direction: x (B, T, I), hidden and cell (B, H), ended (T, B, 1) or None
        -> outputs (B, T, H), last hidden and cell (B, H). `suffix` ends its parameters' names.
        """
        weight_ih = self.weight("weight_ih" + suffix)
        weight_hh = self.weight("weight_hh" + suffix)
        bias_ih = getattr(self, "bias_ih" + suffix)
        bias_hh = getattr(self, "bias_hh" + suffix)
        x = x.transpose(0, 1)  # (T, B, I)
        reverse = suffix.endswith("_reverse")
        if reverse:
            x = x.flip(0)
        if reverse and ended is not None:
            ended = ended.flip(0)
        inputs = F.linear(x.contiguous(), weight_ih, bias_ih + bias_hh)  # (T, B, 4H)
        # under autocast, inputs are in bfloat16 and parameters in float32
        hidden = hidden.to(inputs.dtype)
        cell = cell.to(weight_ih.dtype)
        weight_hh = weight_hh.to(inputs.dtype)
        output, cell = LSTMFunction.apply(inputs, hidden, cell, weight_hh, ended)
        hidden = output[-1]  # (B, H)
        if ended is not None:
            output = output.masked_fill(ended, 0.0)  # (T, B, H)
        if reverse:
            output = output.flip(0)
        return output.transpose(0, 1), hidden, cell


class LSTMEncoder(nn.Module):
    """Encode sentences in both directions: tokens (B, T), padded with 0 -> Memory (B, T, D).

    The vector of a word is a projection of two hidden states: that of an LSTM that has read from
    the start up to the word, and that of one that has read from the end back to it. Padding has no
    effect. Word vectors are scaled to variance 1; dropout is applied to them and to the states.
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
        words = self.embedding(tokens) * self.embedding.embedding_dim**0.5  # (B, T, D), variance 1
        words = F.dropout(words, self.dropout, self.training)
        states, _ = self.lstm(words, lengths=mask.sum(1))  # (B, T, 2H)
        states = F.dropout(states, self.dropout, self.training)
        return Memory(self.projection(states), mask)


class LSTMState(NamedTuple):
    """The state of an `LSTMDecoder` within a sentence.

    hidden, cell: the LSTM's, each (layers, B, H).
    memory: the decoder's. In a beam search, the beams of one picture share its memory: there are
        fewer memories than sentences.
    """

    hidden: Tensor
    cell: Tensor
    memory: Memory


class LSTMDecoder(nn.Module):
    """Generate a sentence, word by word, about a memory.

    fusion: "prefix" makes the first state from the memory, which is not used again (Show and Tell,
        Vinyals et al. 2015). With "cross_attention", the hidden state also attends to the memory
        after each step (Luong et al. 2015):

            context = attention(h, memory);  logits = E tanh(W_c [h; context]) + b

    score: for cross-attention, "dot" is the scaled dot product of W h with each position, and
        "additive" is `AdditiveAttention`.

    The context does not enter the next step, so in training all steps attend at once. E is the
    embedding itself (tied weights).
    The forget gates start open, at sigmoid(3) = 0.95: at 0.5 the cell would lose half of the
    picture with every word, and with a prefix, nouns and colours are then hardly learned
    (chapter 3; Jozefowicz et al. 2015).
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
        self.fusion = fusion
        self.dropout = dropout
        self.embed_dim = embed_dim
        self.embedding = nn.Embedding(vocab_size, embed_dim, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=embed_dim**-0.5)
        self.init_proj = nn.Linear(embed_dim, hidden_size)
        self.init_state = nn.Linear(hidden_size, 2 * num_layers * hidden_size)
        self.lstm = LSTM(embed_dim, hidden_size, num_layers, dropout=dropout)
        for layer in range(num_layers):
            bias = self.lstm.get_parameter(f"bias_ih_l{layer}").detach()
            nn.init.constant_(bias[hidden_size : 2 * hidden_size], 3.0)  # the forget gate's
        self.query = None
        self.additive = None
        combined_size = hidden_size
        if fusion == "cross_attention":
            combined_size = hidden_size + embed_dim
            if score == "dot":
                self.query = nn.Linear(hidden_size, embed_dim, bias=False)
            else:
                self.additive = AdditiveAttention(hidden_size, embed_dim, embed_dim)
        self.combine = nn.Linear(combined_size, embed_dim)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(
        self, tokens: Tensor, memory: Memory, need_weights: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """tokens (B, T), starting with <bos> -> the logits (B, T, V) of the word after each.

        With `need_weights`, also the attention of each word to the N positions of the memory,
        (B, 1, 1, T, N), like that of a Transformer of one layer and one head.
        """
        if need_weights and self.fusion == "prefix":
            raise ValueError("an LSTM with a prefix has no weights: it looks once, at the start")
        state = self.start(memory)
        outputs, _ = self.lstm(self._embed(tokens), (state.hidden, state.cell))  # (B, T, H)
        return self._compute_logits(outputs, memory, need_weights)

    def start(self, memory: Memory) -> LSTMState:
        """The state before the first word: tanh(W₂ meanₙ relu(W₁ memoryₙ)).

        Without the relu, the mean would add up which features occur and where they occur, and lose
        which of them occurs where (Zaheer et al. 2017).
        """
        features = self.init_proj(memory.tokens).relu()  # (B, N, H)
        mean = Memory(features, memory.mask).mean()  # (B, H)
        state = self.init_state(mean).tanh()  # (B, 2 · layers · H)
        state = state.view(state.size(0), 2, self.lstm.num_layers, -1)  # (B, 2, layers, H)
        hidden, cell = state.permute(1, 2, 0, 3).contiguous()  # each (layers, B, H)
        return LSTMState(hidden, cell, memory)

    def step(self, token: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """token (B,) -> the logits (B, V) of the next word, and the state after `token`.

        There may be fewer memories than sentences (see `LSTMState`): the first B / memories
        sentences are about the first memory, and so on.
        """
        word = self._embed(token.unsqueeze(1))  # (B, 1, D)
        outputs, (hidden, cell) = self.lstm(word, (state.hidden, state.cell))  # (B, 1, H)
        # beams that share a memory attend to it together, like the words of one sentence
        memories = len(state.memory.tokens)
        outputs = outputs.reshape(memories, -1, outputs.size(-1))  # (memories, beams, H)
        logits = self._compute_logits(outputs, state.memory)  # (memories, beams, V)
        return logits.flatten(0, 1), LSTMState(hidden, cell, state.memory)

    def reorder(self, state: LSTMState, index: Tensor) -> LSTMState:
        """The states of the sentences `index` (B',), in that order."""
        hidden = state.hidden.index_select(1, index)  # (layers, B', H)
        cell = state.cell.index_select(1, index)  # (layers, B', H)
        tokens, mask = state.memory
        needed = memory_index(index, state.hidden.size(1), len(tokens))
        if needed is not None:
            tokens = tokens.index_select(0, needed)
            mask = mask.index_select(0, needed)
        return LSTMState(hidden, cell, Memory(tokens, mask))

    def _embed(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) -> words (B, T, D), scaled from the output matrix's variance 1/D to 1."""
        words = self.embedding(tokens) * self.embedding.embedding_dim**0.5
        return F.dropout(words, self.dropout, self.training)

    def _compute_logits(
        self, outputs: Tensor, memory: Memory, need_weights: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Hidden states (B, T, H) -> logits (B, T, V), with `need_weights` also weights
        (B, 1, 1, T, N): the class's formula, with dropout after the tanh.
        """
        weights = None
        if self.fusion == "cross_attention":
            context, weights = self._attend(outputs, memory, need_weights)
            outputs = torch.cat([outputs, context], dim=-1)  # (B, T, H + D)
        outputs = self.combine(outputs).tanh()  # (B, T, D)
        outputs = F.dropout(outputs, self.dropout, self.training)
        logits = F.linear(outputs, self.embedding.weight, self.bias)  # (B, T, V)
        if need_weights:
            return logits, weights[:, None, None]
        return logits

    def _attend(
        self, outputs: Tensor, memory: Memory, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Hidden states (B, T, H) -> their contexts (B, T, D), and weights (B, T, N) or None."""
        tokens, mask = memory
        mask = mask.unsqueeze(1)  # (B, 1, N)
        if self.additive is not None:
            return self.additive(outputs, tokens, mask)
        query = self.query(outputs)  # (B, T, D)
        context = scaled_dot_product_attention(query, tokens, tokens, mask, need_weights)
        return context if need_weights else (context, None)
