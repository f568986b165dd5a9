"""Right solutions of chapter 3's exercises, in other styles than the library's (see test_proofs.py)."""

# %% 3 LSTMCell.forward
import torch


class LSTMCell(torch.nn.Module):
    def forward(self, x, state):
        h, c = state
        size = h.shape[1]
        everything = torch.cat((x, h), dim=1) @ torch.cat((self.weight_ih, self.weight_hh), 1).T
        everything = everything + self.bias_ih + self.bias_hh
        input_gate = torch.sigmoid(everything[:, :size])
        forget_gate = torch.sigmoid(everything[:, size : 2 * size])
        candidate = torch.tanh(everything[:, 2 * size : 3 * size])
        output_gate = torch.sigmoid(everything[:, 3 * size :])
        new_c = forget_gate * c + input_gate * candidate
        return output_gate * torch.tanh(new_c), new_c


# %% 3 LSTM.forward
from __future__ import annotations

from typing import Optional

State = tuple  # (hidden, cell)


class LSTM(nn.Module):
    def forward(self, x: Tensor, state: Optional[State] = None, lengths: Optional[Tensor] = None):
        if x.shape[-1] != self.input_size:
            raise ValueError(f"width {x.shape[-1]}, not {self.input_size}")
        B, T, _ = x.shape
        rows = self.num_layers * len(self.directions)
        if state is None:
            state = (x.new_zeros(rows, B, self.hidden_size),) * 2
        ended = None
        if lengths is not None:
            ended = torch.stack([lengths.to(x.device) <= t for t in range(T)]).unsqueeze(2)
        initial = list(zip(*state))  # (hidden, cell) of each row
        final: list[State] = []
        for layer in range(self.num_layers):
            if layer and self.training and self.dropout:
                x = nn.functional.dropout(x, p=self.dropout)
            both = []
            for direction in self.directions:
                h, c = initial[len(final)]
                y, h, c = self._run(x, h, c, ended, f"_l{layer}{direction}")
                final.append((h, c))
                both.append(y)
            x = torch.cat(both, dim=2)
        hiddens, cells = zip(*final)
        return x, (torch.stack(hiddens), torch.stack(cells))

    def _run(self, x: Tensor, hidden: Tensor, cell: Tensor, ended: Optional[Tensor], suffix: str):
        W_ih, W_hh = self.weight(f"weight_ih{suffix}"), self.weight(f"weight_hh{suffix}")
        b = self.get_parameter(f"bias_ih{suffix}") + self.get_parameter(f"bias_hh{suffix}")
        steps = list(range(x.shape[1]))
        if suffix.endswith("reverse"):
            steps.reverse()
        gates = F.linear(x, W_ih, b)  # (B, T, 4H)
        hidden, cell = hidden.to(gates.dtype), cell.to(W_ih.dtype)
        outputs: dict[int, Tensor] = {}
        for t in steps:
            i, f, g, o = (gates[:, t] + F.linear(hidden, W_hh)).chunk(4, dim=1)
            c = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c).to(o.dtype)
            if ended is None:
                outputs[t], hidden, cell = h, h, c
            else:
                outputs[t] = torch.where(ended[t], torch.zeros_like(h), h)
                hidden = torch.where(ended[t], hidden, h)
                cell = torch.where(ended[t], cell, c)
        return torch.stack([outputs[t] for t in sorted(outputs)], dim=1), hidden, cell


# %% 3 LSTMFunction.backward
class LSTMFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs, hidden, cell, weight, ended):
        steps, size = inputs.shape[0], hidden.shape[-1]
        h, c = hidden, cell
        all_h, all_c, all_gates = [h], [c], []
        for t in range(steps):
            pre = inputs[t] + h @ weight.T
            i, f, o = (torch.sigmoid(pre[:, k * size : (k + 1) * size]) for k in (0, 1, 3))
            g = torch.tanh(pre[:, 2 * size : 3 * size])
            new_c = f * c + i * g
            new_h = (o * torch.tanh(new_c)).to(h.dtype)
            if ended is not None:
                new_h = torch.where(ended[t], h, new_h)
                new_c = torch.where(ended[t], c, new_c)
            h, c = new_h, new_c.to(c.dtype)
            all_h.append(h)
            all_c.append(c)
            all_gates.append(torch.stack((i, f, g, o)))
        states = torch.stack(all_h)
        ctx.save_for_backward(torch.stack(all_gates), states, torch.stack(all_c), weight)
        ctx.ended = ended
        return states[1:], c

    @staticmethod
    def backward(ctx, grad_outputs, grad_cell):
        gates, states, cells, weight = ctx.saved_tensors
        ended = ctx.ended
        grad_h = torch.zeros_like(states[0])
        grad_inputs = []
        for t in range(len(gates) - 1, -1, -1):
            i, f, g, o = gates[t]
            c, new_c = cells[t], cells[t + 1]
            grad_h = grad_h + grad_outputs[t]
            shown = torch.tanh(new_c)
            grad_new_c = grad_cell + grad_h * o * (1 - shown**2)
            slopes = [
                grad_new_c * g * i * (1 - i),
                grad_new_c * c * f * (1 - f),
                grad_new_c * i * (1 - g**2),
                grad_h * shown * o * (1 - o),
            ]
            grad_gates = torch.cat(slopes, dim=1).to(gates.dtype)
            through = grad_gates
            passed_c = grad_new_c * f
            if ended is not None:
                through = grad_gates.masked_fill(ended[t], 0)
                passed_c = torch.where(ended[t], grad_cell, passed_c)
            passed_h = through @ weight
            if ended is not None:
                passed_h = torch.where(ended[t], grad_h, passed_h)
            grad_inputs.insert(0, through)
            grad_h, grad_cell = passed_h, passed_c
        grad_inputs = torch.stack(grad_inputs)
        grad_weight = torch.einsum("tbg,tbh->gh", grad_inputs, states[:-1])
        return grad_inputs, grad_h, grad_cell, grad_weight, None


# %% 3 Memory.mean
import typing


class Memory(typing.NamedTuple):
    tokens: Tensor
    mask: Tensor

    def mean(self):
        weights = self.mask.to(self.tokens)
        sums = torch.einsum("bnd,bn->bd", self.tokens, weights)
        number = weights.sum(dim=1, keepdim=True)
        number[number == 0] = 1
        return sums / number


# %% 3 LSTMDecoder.start
class LSTMDecoder(nn.Module):
    def start(self, memory):
        batch = memory.tokens.shape[0]
        hidden = torch.clamp(self.init_proj(memory.tokens), min=0)  # the ReLU
        average = Memory(hidden, memory.mask).mean()
        both = torch.tanh(self.init_state(average))
        hidden, cell = both.chunk(2, dim=1)
        layers = self.lstm.num_layers
        hidden = hidden.reshape(batch, layers, -1).transpose(0, 1).contiguous()
        cell = cell.reshape(batch, layers, -1).transpose(0, 1).contiguous()
        return LSTMState(hidden=hidden, cell=cell, memory=memory)

    def step(self, token, state):
        inputs = self._embed(token[:, None])
        output, (hidden, cell) = self.lstm(inputs, (state.hidden, state.cell))
        M = state.memory.mask.shape[0]
        grouped = output.view(M, len(token) // M, output.shape[2])
        logits = self._compute_logits(grouped, state.memory)
        return logits.reshape(len(token), -1), LSTMState(hidden, cell, state.memory)


# %% 3 greedy_search
import numpy as np

FORBIDDEN = (PAD, BOS, UNK)


def greedy_search(decoder, memory, max_length=40):
    def most_probable(log_probs):
        return torch.max(log_probs, dim=1).indices

    return _word_by_word(decoder, memory, max_length, most_probable)


@torch.no_grad()
def _word_by_word(decoder, memory, max_length, choose):
    if max_length <= 0:
        raise ValueError("max_length is the number of words: at least 1")
    device = memory.tokens.device
    number = len(memory.tokens)
    sentences = [[] for _ in range(number)]
    totals = np.zeros(number, dtype=np.float64)
    state = decoder.start(memory)
    words = torch.full([number], BOS, dtype=torch.long, device=device)
    running = set(range(number))
    for _ in range(max_length):
        if not running:
            break
        logits, state = decoder.step(words, state)
        log_probs = _log_probs(logits)
        words = choose(log_probs)
        for i in sorted(running):
            word = int(words[i])
            sentences[i].append(word)
            totals[i] += log_probs[i, word].item()
            if word == EOS:
                running.remove(i)
    if np.isnan(totals).any():
        raise FloatingPointError("a log-probability is NaN")
    return [_hypothesis(s, float(total), 1.0) for s, total in zip(sentences, totals)]


def _log_probs(logits):
    log_probs = torch.log_softmax(logits.to(torch.float32), dim=-1)
    for token in FORBIDDEN:
        log_probs[:, token] = float("-inf")
    return log_probs
