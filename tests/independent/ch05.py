"""Right solutions of chapter 5's exercises, in other styles than the library's (see test_proofs.py)."""

# %% 5 masked_softmax
def _exp_of_shifted(scores, visible):
    """exp(score - the largest visible score), 0 at hidden positions."""
    lowest = torch.finfo(scores.dtype).min
    shown = torch.where(visible, scores, torch.full_like(scores, lowest))
    highest = shown.max(dim=-1, keepdim=True).values.detach()
    shifted = torch.where(visible, scores - highest, torch.zeros_like(scores))
    return torch.where(visible, torch.exp(shifted), torch.zeros_like(scores))


def masked_softmax(scores, mask):
    visible = torch.ones_like(scores, dtype=torch.bool)
    if mask is not None:
        visible = visible & mask
    exponentials = _exp_of_shifted(scores, visible)
    total = exponentials.sum(dim=-1, keepdim=True)
    return exponentials / torch.where(total == 0, torch.ones_like(total), total)


# %% 5 AdditiveAttention.forward
from torch.nn import Module


class AdditiveAttention(Module):
    def forward(self, query, memory, mask=None):
        keys = self.key(memory)
        scores = []
        for t in range(query.size(1)):
            asked = self.query(query[:, t : t + 1])  # (B, 1, A)
            scores.append(self.score(torch.tanh(asked + keys))[:, :, 0])
        weights = masked_softmax(torch.stack(scores, dim=1), mask)
        context = torch.einsum("btn,bnd->btd", weights, memory)
        if self.gate:
            context = torch.sigmoid(self.gate(query)) * context
        return context, weights


# %% 5 doubly_stochastic_penalty
def doubly_stochastic_penalty(weights, word_mask, memory_mask):
    penalty = 0
    for w, words, positions in zip(weights, word_mask, memory_mask):
        received = w[words][:, positions].sum(dim=0)
        penalty = penalty + ((received - 1) ** 2).sum()
    return penalty / weights.shape[0]


# %% 5 LSTMDecoder._attend
class LSTMDecoder(nn.Module):
    def _compute_logits(self, outputs, memory, need_weights=False):
        if self.fusion == "prefix":
            mixed, weights = outputs, None
        else:
            context, weights = self._attend(outputs, memory, need_weights)
            mixed = torch.cat((outputs, context), 2)
        mixed = F.dropout(torch.tanh(self.combine(mixed)), p=self.dropout, training=self.training)
        logits = torch.einsum("btd,vd->btv", mixed, self.embedding.weight) + self.bias
        return (logits, weights.unsqueeze(1).unsqueeze(1)) if need_weights else logits

    def _attend(self, outputs, memory, need_weights):
        mask = memory.mask[:, None, :]
        if self.additive:
            context, weights = self.additive(outputs, memory.tokens, mask)
        else:
            context, weights = scaled_dot_product_attention(
                self.query(outputs), memory.tokens, memory.tokens, mask, need_weights=True
            )
        return context, weights if need_weights else None


# %% 5 TransformerBlock.forward
class TransformerBlock(nn.Module):
    def forward(
        self,
        x,
        mask=None,
        causal=False,
        past=None,
        memory=None,
        memory_mask=None,
        need_weights=False,
    ):
        pre = self.pre_norm
        out, past, weights = self._self_attention(
            self.norm1(x) if pre else x, mask, causal, past, need_weights
        )
        x = x + out
        if not pre:
            x = self.norm1(x)
        last = self.norm2
        if self.multihead_attn is not None:
            last = self.norm3
            out, weights = self._cross_attention(
                self.norm2(x) if pre else x, memory, memory_mask, need_weights
            )
            x = x + out
            if not pre:
                x = self.norm2(x)
        out = self._mlp(last(x) if pre else x)
        x = x + out
        return x if pre else last(x), past, weights

    def _cross_attention(self, x, memory, mask, need_weights):
        keys, values = memory
        B, T, D = x.shape
        beams = B // keys.shape[0]
        together = x.reshape(keys.shape[0], beams * T, D)
        queries = self.multihead_attn.queries(together)
        out, weights = self.multihead_attn.attend(
            queries, keys, values, mask=mask, need_weights=need_weights
        )
        out = nn.functional.dropout(out.reshape(B, T, D), p=self.dropout, training=self.training)
        return out, weights


# %% 5 TransformerDecoder.start
class TransformerDecoder(nn.Module):
    def _prefix(self, memory):
        x, mask = memory.tokens, memory.mask.unsqueeze(1)
        *blocks, last = self.blocks
        for block in blocks:
            x, cache, _ = block(x, mask)
            yield cache
        yield last.self_attn.keys_values(last.norm1(x))

    def start(self, memory):
        empty = [None] * len(self.blocks)
        past, cross = empty, empty
        if self.fusion == "cross_attention":
            cross = []
            for block in self.blocks:
                cross.append(block.multihead_attn.keys_values(memory.tokens))
        elif memory.tokens.numel() > 0:
            past = list(self._prefix(memory))
        return TransformerState(past=past, memory=cross, mask=memory.mask, length=0)


# %% 5 attention_in_box
def _overlap(first, last, low, high):
    return max(0.0, min(last, high) - max(first, low))


def attention_in_box(weights, box, size):
    left, top, right, bottom = map(float, box)
    h, w = weights.shape
    height, width = size / h, size / w
    attention = 0.0
    for i in range(h):
        rows = _overlap(i * height, (i + 1) * height, top, bottom)
        for j in range(w):
            columns = _overlap(j * width, (j + 1) * width, left, right)
            attention += float(weights[i, j]) * rows * columns / (height * width)
    return attention, (right - left) * (bottom - top) / size**2
