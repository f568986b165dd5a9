"""Right solutions of chapter 4's exercises, in other styles than the library's (see test_proofs.py)."""

# %% 4 causal_mask
def causal_mask(T, N, device=None):
    query_position = torch.arange(N - T, N, device=device)
    key_position = torch.arange(N, device=device)
    return key_position.reshape(1, N) <= query_position.reshape(T, 1)


# %% 4 scaled_dot_product_attention
from torch.nn.functional import dropout as drop

HIDDEN = float("-inf")


def scaled_dot_product_attention(
    query, key, value, mask=None, need_weights=False, causal=False, dropout=0.0
):
    T, N = query.shape[-2], key.shape[-2]
    scores = torch.einsum("...td,...nd->...tn", query, key) * query.shape[-1] ** -0.5
    visible = torch.ones_like(scores, dtype=torch.bool)
    if mask is not None:
        visible = visible & mask
    if causal:
        visible = visible & causal_mask(T, N, scores.device)
    blind = ~visible.any(dim=-1, keepdim=True)
    weights = torch.softmax(scores.masked_fill(~(visible | blind), HIDDEN), dim=-1)
    weights = torch.where(visible, weights, torch.zeros_like(weights))
    output = torch.einsum("...tn,...ne->...te", drop(weights, p=dropout), value)
    return (output, weights) if need_weights else output


# %% 4 MultiHeadAttention.project
class MultiHeadAttention(nn.Module):
    def _heads(self, y):
        """(B, T, D) -> (B, H, T, D/H), head by head."""
        width = self.head_dim
        return torch.stack(
            [y[..., h * width : (h + 1) * width] for h in range(self.num_heads)], dim=1
        )

    def _projected(self, x, k):
        return self._heads(self.in_proj(x, slice(k * self.embed_dim, (k + 1) * self.embed_dim)))

    def project(self, x):
        return tuple(self._projected(x, k) for k in range(3))

    def queries(self, x):
        return self._projected(x, 0)

    def keys_values(self, memory):
        return self._projected(memory, 1), self._projected(memory, 2)


# %% 4 MultiHeadAttention.forward
from typing import Optional


class MultiHeadAttention(nn.Module):
    def forward(
        self,
        x: Tensor,
        memory: Optional[Tensor] = None,
        mask: Optional[Tensor] = None,
        causal: bool = False,
        need_weights: bool = False,
    ):
        source = x if memory is None else memory
        keys, values = self.keys_values(source)
        result = self.attend(self.queries(x), keys, values, mask, causal, need_weights)
        return result if need_weights else result[0]

    def attend(self, q, k, v, mask=None, causal=False, need_weights=False):
        B, H, T, width = q.size()
        if mask is not None:
            while mask.ndim < 3:
                mask = mask[None]
            if mask.ndim == 3:
                mask = mask[:, None]
        p = self.dropout * self.training
        result = scaled_dot_product_attention(
            q, k, v, mask=mask, causal=causal, need_weights=need_weights, dropout=p
        )
        heads, weights = result if need_weights else (result, None)
        joined = torch.cat([heads[:, h] for h in range(H)], dim=-1)
        return self.out_proj(joined), weights


# %% 4 Embedding.forward
class Embedding(nn.Module):
    def forward(self, tokens, offset=0):
        number_of_words = tokens.shape[1]
        if offset + number_of_words > self.positions.weight.shape[0]:
            raise ValueError("the text has more words than there are positions")
        index = offset + torch.arange(number_of_words, device=tokens.device)
        return self.words(tokens) + self.positions(index).unsqueeze(0)


# %% 4 TransformerBlock.forward
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
        """Each branch is a function; `add` puts it around its norm."""
        kept = {}

        def to_words(y):
            y, kept["past"], kept["weights"] = self._self_attention(
                y, mask, causal, past, need_weights
            )
            return y

        def to_memory(y):
            y, kept["weights"] = self._cross_attention(y, memory, memory_mask, need_weights)
            return y

        def add(y, branch, norm):
            return y + branch(norm(y)) if self.pre_norm else norm(y + branch(y))

        x = add(x, to_words, self.norm1)
        if self.multihead_attn is None:
            x = add(x, self._mlp, self.norm2)
        else:
            x = add(x, to_memory, self.norm2)
            x = add(x, self._mlp, self.norm3)
        return x, kept["past"], kept["weights"]

    def _self_attention(self, x, mask, causal, past, need_weights):
        queries = self.self_attn.queries(x)
        keys, values = self.self_attn.keys_values(x)
        if past:
            keys = torch.concat((past[0], keys), dim=-2)
            values = torch.concat((past[1], values), dim=-2)
        out, weights = self.self_attn.attend(
            queries, keys, values, mask=mask, causal=causal, need_weights=need_weights
        )
        return nn.functional.dropout(out, self.dropout, self.training), (keys, values), weights

    def _mlp(self, x):
        activation = nn.GELU(approximate=self.approximate)
        y = self.linear2(activation(self.linear1(x)))
        return nn.functional.dropout(y, self.dropout, self.training)


# %% 4 TransformerEncoder.forward
class TransformerEncoder(nn.Module):
    def forward(self, tokens):
        visible = tokens.ne(PAD)
        x = self.embedding(tokens)
        x = x if self.pre_norm else self.norm(x)
        if self.training:
            x = F.dropout(x, p=self.dropout)
        everyone = visible[:, None, :].expand(-1, tokens.shape[1], -1)  # (B, T, T)
        for layer in self.blocks:
            x = layer(x, mask=everyone)[0]
        return Memory(tokens=self.norm(x) if self.pre_norm else x, mask=visible)


# %% 4 TransformerDecoder.step
class TransformerDecoder(nn.Module):
    def start(self, memory):
        number = len(self.blocks)
        nothing = [None for _ in range(number)]
        if self.fusion == "cross_attention":
            memories = []
            for block in self.blocks:
                memories.append(block.multihead_attn.keys_values(memory.tokens))
            return TransformerState(nothing, memories, memory.mask, 0)
        if memory.tokens.shape[1] == 0:
            return TransformerState(nothing, list(nothing), memory.mask, 0)
        prefix = memory.tokens
        caches = []
        for number, block in enumerate(self.blocks, 1):
            if number == len(self.blocks):
                caches.append(block.self_attn.keys_values(block.norm1(prefix)))
            else:
                prefix, cache, _ = block(prefix, mask=memory.mask[:, None])
                caches.append(cache)
        return TransformerState(caches, nothing, memory.mask, 0)

    def step(self, token, state):
        logits, after, _ = self._advance(token.reshape(-1, 1), state)
        return logits[:, 0], after

    def _advance(self, tokens, state, need_weights=False):
        new = tokens.shape[1]
        length = state.length + new
        x = F.dropout(self.embedding(tokens, offset=state.length), self.dropout, self.training)
        prefix = state.mask.shape[1]
        mask = None
        if self.fusion == "prefix" and prefix:
            words = torch.ones(len(tokens), length, dtype=torch.bool, device=tokens.device)
            mask = torch.cat((state.mask, words), dim=1)[:, None]
        caches, all_weights = [], []
        for i, block in enumerate(self.blocks):
            x, cache, weights = block(
                x,
                mask=mask,
                causal=True,
                past=state.past[i],
                memory=state.memory[i],
                memory_mask=state.mask[:, None],
                need_weights=need_weights,
            )
            caches.append(cache)
            all_weights.append(weights)
        logits = self.norm(x) @ self.embedding.words.weight.T
        after = state._replace(past=caches, length=length)
        if need_weights:
            return logits, after, torch.stack([w[..., :prefix] for w in all_weights], dim=1)
        return logits, after, None


# %% 4 TransformerDecoder.reorder
def _reorder_cache(layers, index):
    def chosen(cache):
        return None if cache is None else tuple(part[index] for part in cache)

    return list(map(chosen, layers))


class TransformerDecoder(nn.Module):
    def _sentences(self, state):
        """How many sentences the state has now."""
        if state.past[0] is None:
            return state.mask.shape[0]
        return state.past[0][0].shape[0]

    def reorder(self, state, index):
        past = _reorder_cache(state.past, index)
        if self.fusion == "prefix":
            return TransformerState(past, state.memory, state.mask[index], state.length)
        memories = state.mask.shape[0]
        which = memory_index(index, self._sentences(state), memories)
        if which is None:
            return state._replace(past=past)
        return state._replace(
            past=past, memory=_reorder_cache(state.memory, which), mask=state.mask[which]
        )


# %% 4 VisionTransformer._encode
class VisionTransformer(nn.Module):
    def features(self, x):
        encoded = self._encode(x)
        rows = x.shape[-1] // self.patch_size
        batch, _, width = encoded.shape
        patches = encoded[:, 1:].reshape(batch, rows, rows, width)
        return patches.permute(0, 3, 1, 2)

    def _encode(self, x):
        _check_size(x, self.image_size)
        maps = self.conv_proj(x)
        rows = []
        for row in range(maps.shape[2]):
            for column in range(maps.shape[3]):
                rows.append(maps[:, :, row, column])
        front = self.class_token.repeat(x.shape[0], 1, 1)
        sequence = torch.cat((front, torch.stack(rows, dim=1)), dim=1) + self.positions
        sequence = nn.functional.dropout(sequence, p=self.dropout, training=self.training)
        for block in self.blocks:
            sequence = block(sequence)[0]
        return self.norm(sequence)
