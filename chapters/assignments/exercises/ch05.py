"""The exercises of chapter 5: cross-attention fusion."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        chapter=5,
        module="attention",
        parts=("masked_softmax",),
        title="softmax over the visible positions",
        points=6,
        minutes=30,
        difficulty="easy",
        tests=(
            "test_masked_softmax_is_the_softmax_over_unmasked_scores",
            "test_masked_softmax_of_a_fully_masked_row_is_zero_with_finite_gradients",
        ),
        wrong=(
            Wrong(
                "Exclude masked scores before the softmax. If you only set their "
                "weights to zero afterwards, they have already taken their share of "
                "the sum.",
                old="scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)",
                new="scores = scores",
            ),
            Wrong(
                "A score of 0 is a score like any other, and often a high one. "
                "Which score gives a weight of 0?",
                old="torch.finfo(scores.dtype).min)",
                new="0.0)",
            ),
            Wrong(
                "Which axis sums to one? The weights of a query run over the "
                "positions, the last axis.",
                old="return scores.softmax(-1).masked_fill",
                new="return scores.softmax(-2).masked_fill",
            ),
            Wrong(
                "-1e9 is outside float16's range: ask the dtype for its lowest number.",
                old="torch.finfo(scores.dtype).min",
                new="-1e9",
            ),
            Wrong(
                "In a fully masked row all weights must be 0, not 1/N.",
                old=".masked_fill(~mask, 0.0)",
                new="",
            ),
            Wrong(
                "True means visible: yours attends to exactly the masked positions.",
                old="scores = scores.masked_fill(~mask,",
                new=(
                    "mask = ~mask\n"
                    "    scores = scores.masked_fill(~mask,"
                ),
            ),
            Wrong(
                "Subtract the largest score of each row, not of all: a row far below "
                "it would vanish.",
                old="    return scores.softmax(-1).masked_fill(~mask, 0.0)",
                new=(
                    "    weights = (scores - scores.max()).exp().masked_fill(~mask, "
                    "0.0)\n"
                    "    total = weights.sum(-1, keepdim=True)\n"
                    "    return weights / total.masked_fill(total == 0, 1.0)"
                ),
            ),
        ),
    ),
    Exercise(
        chapter=5,
        module="attention",
        parts=("AdditiveAttention.forward",),
        title="attention by a small network, and its gate",
        points=10,
        minutes=50,
        difficulty="medium",
        tests=(
            "test_additive_attention_matches_its_formula",
            "test_additive_attention_to_a_fully_masked_memory_is_zero",
        ),
        wrong=(
            Wrong(
                "The score is a non-linear network. Without the tanh, the query "
                "would add the same number to all scores, and the softmax would "
                "ignore it.",
                old="hidden.tanh()",
                new="hidden",
            ),
            Wrong(
                "tanh of the sum, not the sum of two tanhs: only inside the "
                "non-linearity do query and memory interact.",
                old="self.query(query).unsqueeze(2) + self.key(memory).unsqueeze(1)",
                new=(
                    "self.query(query).tanh().unsqueeze(2) + "
                    "self.key(memory).tanh().unsqueeze(1)"
                ),
                more=(
                    ("hidden.tanh()", "hidden"),
                ),
            ),
            Wrong(
                "The tanh comes before v, not after it: a score may be larger than 1.",
                old="self.score(hidden.tanh())",
                new="self.score(hidden).tanh()",
            ),
            Wrong(
                "The gate lies between 0 and 1: it needs a sigmoid.",
                old=".sigmoid()",
                new="",
            ),
            Wrong(
                "The gate is for the context only. The weights still show where "
                "the query attends, and sum to one.",
                old="context = context * self.gate(query).sigmoid()",
                new=(
                    "context, weights = context * self.gate(query).sigmoid(), "
                    "weights * self.gate(query).sigmoid()"
                ),
            ),
            Wrong(
                "The mask must reach the softmax.",
                old="masked_softmax(scores, mask)",
                new="masked_softmax(scores, None)",
            ),
        ),
    ),
    Exercise(
        chapter=5,
        module="attention",
        parts=("doubly_stochastic_penalty",),
        title="a total weight of one for each position",
        points=4,
        minutes=20,
        difficulty="easy",
        tests=(
            "test_penalty_matches_its_formula",
            "test_padding_is_not_penalised",
            "test_penalty_is_zero_if_each_position_gets_a_total_weight_of_one",
        ),
        wrong=(
            Wrong(
                "The weights of padded words, after the end of a caption, do not "
                "count.",
                old="(weights * word_mask.unsqueeze(-1))",
                new="weights",
            ),
            Wrong(
                "Padded positions need no attention: they are not penalised.",
                old="((1 - total).square() * memory_mask)",
                new="(1 - total).square()",
            ),
            Wrong(
                "Sum over the positions, and take the mean over the batch only.",
                old=".sum(1).mean()",
                new=".mean()",
            ),
            Wrong(
                "Take the mean over the batch, not the sum: the penalty must not "
                "depend on the batch size.",
                old=".sum(1).mean()",
                new=".sum()",
            ),
            Wrong(
                "The sum over the words is inside the square: several words may "
                "share a position.",
                old="(1 - total).square() * memory_mask",
                new=(
                    "((1 - weights).square() * word_mask.unsqueeze(-1)).sum(1) * "
                    "memory_mask"
                ),
            ),
            Wrong(
                "Sum the weights of each position over the words: which axis of "
                "(B, T, N) goes, so that (B, N) remains?",
                old="word_mask.unsqueeze(-1)).sum(1)",
                new="word_mask.unsqueeze(-1)).sum(2)",
            ),
        ),
    ),
    Exercise(
        chapter=5,
        module="recurrent",
        parts=("LSTMDecoder._attend", "LSTMDecoder._compute_logits"),
        title="the hidden state as a query",
        points=11,
        minutes=60,
        difficulty="medium",
        tests=(
            "test_logits_are_computed_from_state_and_context",
            "test_only_cross_attention_reads_the_memory_at_each_step",
            "test_logits_and_attention_weights_of_a_whole_sentence",
            "test_dropout_before_the_output_layer_is_only_in_training",
        ),
        wrong=(
            Wrong(
                "The hidden state and the context are concatenated, the hidden "
                "state first.",
                old="torch.cat([outputs, context], dim=-1)",
                new="torch.cat([context, outputs], dim=-1)",
            ),
            Wrong(
                "A tanh comes between the matrix that combines the two and the "
                "output matrix.",
                old="self.combine(outputs).tanh()",
                new="self.combine(outputs)",
            ),
            Wrong(
                "Some positions of the memory are padding: does the attention get "
                "the mask?",
                old="tokens, tokens, mask, need_weights)",
                new="tokens, tokens, None, need_weights)",
            ),
            Wrong(
                "Words have a bias of their own: some are frequent whatever the "
                "picture shows.",
                old="self.embedding.weight, self.bias)",
                new="self.embedding.weight)",
            ),
            Wrong(
                "Dropout only in training: after `eval()` nothing is random.",
                old="self.dropout, self.training)",
                new="self.dropout, True)",
            ),
            Wrong(
                "Weights are (B, 1, 1, T, N), as for one layer and one head: the "
                "new axes come before those of words and positions.",
                old="weights[:, None, None]",
                new="weights[..., None, None]",
            ),
        ),
    ),
    Exercise(
        chapter=5,
        module="transformer",
        parts=("TransformerBlock.forward", "TransformerBlock._cross_attention"),
        title="a block that attends to words, then to the memory",
        points=11,
        minutes=60,
        difficulty="medium",
        tests=(
            "test_block_with_cross_attention_agrees_with_torch",
            "test_attention_weights_of_a_block_agree_with_torch",
            "test_block_dropout_is_in_every_branch_and_only_in_training",
            "test_beams_of_a_block_share_one_memory",
        ),
        wrong=(
            Wrong(
                "The block attends to the memory with its own cross-attention, "
                "`multihead_attn`, not with `self_attn` again.",
                old="self.multihead_attn.queries(y)",
                new="self.self_attn.queries(y)",
            ),
            Wrong(
                "A memory may have padding: its mask must reach the attention.",
                old="attend(q, k, v, mask, need_weights=need_weights)",
                new="attend(q, k, v, need_weights=need_weights)",
            ),
            Wrong(
                "Three branches, three norms: the second is for cross-attention, the "
                "third for the feed-forward network.",
                old="self.norm3 if cross_attention else self.norm2",
                new="self.norm2",
            ),
            Wrong(
                "The output of cross-attention is added to x; it does not replace it.",
                old="                x = x + y\n",
                new="                x = y\n",
                more=(
                    ("self.norm2(x + y)", "self.norm2(y)"),
                ),
            ),
            Wrong(
                "Each branch has dropout, cross-attention too.",
                old="F.dropout(y, self.dropout, self.training), weights",
                new="y, weights",
            ),
            Wrong(
                "The memory has no order in time: every word attends to all of it.",
                old="attend(q, k, v, mask, need_weights=need_weights)",
                new="attend(q, k, v, mask, True, need_weights)",
            ),
            Wrong(
                "There may be more sentences than memories: the beams of a "
                "picture. Let them attend to it together, like the words of one "
                "sentence.",
                old="y = x.reshape(len(k), -1, x.size(-1))",
                new="y = x",
            ),
        ),
    ),
    Exercise(
        chapter=5,
        module="transformer",
        parts=("TransformerDecoder.start",),
        title="keys and values of the memory, computed once",
        points=5,
        minutes=25,
        difficulty="medium",
        tests=(
            "test_decoder_with_cross_attention_agrees_with_torch",
            "test_memory_is_projected_once[cross_attention]",
            "test_decoder_with_a_prefix_agrees_with_torchs_masked_encoder",
        ),
        wrong=(
            Wrong(
                "Each block has its own keys and values of the memory, from its "
                "own matrices.",
                old=(
                    "[block.multihead_attn.keys_values(memory.tokens) for block "
                    "in self.blocks]"
                ),
                new=(
                    "[self.blocks[0].multihead_attn.keys_values(memory.tokens)] * "
                    "len(self.blocks)"
                ),
            ),
            Wrong(
                "Cross-attention will use these keys: whose matrices should make them?",
                old="block.multihead_attn.keys_values(memory.tokens)",
                new="block.self_attn.keys_values(memory.tokens)",
            ),
            Wrong(
                "The encoder has already normalized the memory: the norms of a "
                "block are for the words.",
                old="keys_values(memory.tokens) for",
                new="keys_values(block.norm2(memory.tokens)) for",
            ),
            Wrong(
                "The length counts words, not positions of the memory: it starts at 0.",
                old="memory.mask, 0)",
                new="memory.mask, memory.tokens.size(1))",
            ),
            Wrong(
                "The state must keep the memory's mask; otherwise padding becomes "
                "visible.",
                old="cross, memory.mask, 0)",
                new="cross, torch.ones_like(memory.mask), 0)",
            ),
        ),
    ),
    Exercise(
        chapter=5,
        module="metrics",
        parts=("attention_in_box",),
        title="how much attention falls on an object",
        points=7,
        minutes=35,
        difficulty="medium",
        tests=(
            "test_attention_in_box_is_that_of_its_pixels",
        ),
        wrong=(
            Wrong(
                "Rows of (h, w) run from top to bottom, columns from left to right.",
                old="covered(weights.size(0), top, bottom)",
                new="covered(weights.size(0), left, right)",
                more=(
                    (
                        "covered(weights.size(1), left, right)",
                        "covered(weights.size(1), top, bottom)",
                    ),
                ),
            ),
            Wrong(
                "A position only partly inside the box counts only for that part.",
                old="edges.clamp(low, high).diff() * positions / size",
                new="(edges.clamp(low, high).diff() * positions / size).ceil()",
            ),
            Wrong(
                "The weights already sum to 1, so the attention is a sum; only the "
                "area is a mean.",
                old="(weights * inside).sum().item()",
                new="(weights * inside).mean().item()",
            ),
            Wrong(
                "The area is a fraction of the picture's pixels, not of the positions "
                "that the box touches.",
                old="inside.mean().item()",
                new="(inside > 0).float().mean().item()",
            ),
            Wrong(
                "The box is in pixels, the weights are per position: how many pixels "
                "does a position cover?",
                old="torch.linspace(0, size, positions + 1",
                new="torch.linspace(0, positions, positions + 1",
            ),
            Wrong(
                "A picture of 100 pixels has 7 positions of 14.3 each, not of 14: do "
                "not round.",
                old=(
                    "edges = torch.linspace(0, size, positions + 1, "
                    "device=weights.device)\n"
                    "        return edges.clamp(low, high).diff() * positions / size"
                ),
                new=(
                    "edges = torch.arange(positions + 1, device=weights.device) * "
                    "(size // positions)\n"
                    "        return edges.clamp(low, high).diff() / (size // positions)"
                ),
            ),
        ),
    ),
)
