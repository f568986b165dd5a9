"""The exercises of chapter 4: transformer decoder."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        chapter=4,
        module="attention",
        parts=("causal_mask",),
        title="each query sees itself and the past",
        points=2,
        minutes=10,
        difficulty="easy",
        tests=(
            "test_causal_mask_shows_each_query_itself_and_earlier_positions",
        ),
        wrong=(
            Wrong(
                "With fewer queries than positions, the queries are the last "
                "positions: a single one, over a cache, sees all. Yours is right "
                "only for T = N.",
                old=".tril(N - T)",
                new=".tril()",
            ),
            Wrong(
                "Each query sees the positions before it, and none after it. "
                "Print the mask for T = N = 4: yours shows the future.",
                old=".tril(N - T)",
                new=".triu(N - T)",
            ),
            Wrong(
                "A query sees itself as well; otherwise, with T = N, the first one "
                "has nothing to attend to.",
                old=".tril(N - T)",
                new=".tril(N - T - 1)",
            ),
            Wrong(
                "The right positions, but a mask holds booleans: True for visible.",
                old="dtype=torch.bool, ",
                new="",
            ),
            Wrong(
                "True means visible. In torch's own layers it means hidden.",
                old="torch.ones(T, N, dtype=torch.bool, device=device).tril(N - T)",
                new="~torch.ones(T, N, dtype=torch.bool, device=device).tril(N - T)",
            ),
            Wrong(
                "Where is the mask made? On a GPU, it must be there: pass `device` on.",
                old="dtype=torch.bool, device=device)",
                new="dtype=torch.bool)",
            ),
        ),
    ),
    Exercise(
        chapter=4,
        module="attention",
        parts=("scaled_dot_product_attention",),
        title="scores, mask, softmax, weighted sum",
        points=10,
        minutes=60,
        difficulty="medium",
        tests=(
            "test_agrees_with_torch",
            "test_agrees_with_the_formula_query_by_query",
            "test_both_paths_agree_in_float32",
            "test_weights_sum_to_one_or_are_zero",
            "test_fully_masked_rows_are_zero_with_finite_gradients",
            "test_causal_attention_combines_triangle_and_mask",
            "test_rows_masked_by_triangle_and_mask_together_are_zero",
            "test_dropout_drops_weights_with_the_given_probability",
            "test_large_scores_neither_overflow_nor_vanish",
            "test_attention_stays_on_the_device_of_its_input",
        ),
        wrong=(
            Wrong(
                "The variance of a sum of D products grows with D. What brings it "
                "back to 1 before the softmax?",
                old=" / math.sqrt(query.size(-1))",
                new="",
            ),
            Wrong(
                "What are the scores divided by? The root of the width of a "
                "query, not of the number of positions.",
                old="math.sqrt(query.size(-1))",
                new="math.sqrt(key.size(-2))",
            ),
            Wrong(
                "Divide by the root of the width, not by the width: it is the "
                "standard deviation that should become 1.",
                old="math.sqrt(query.size(-1))",
                new="query.size(-1)",
            ),
            Wrong(
                "`causal` applies in addition to the mask: a position that either "
                "of them hides is hidden.",
                old="mask & triangle",
                new="triangle",
            ),
            Wrong(
                "The kernel's own triangle starts at the first position. With "
                "fewer queries than positions it is not ours: use `causal_mask` there.",
                old=" and T == N and not need_weights",
                new=" and not need_weights",
            ),
            Wrong(
                "In the mask of torch's kernel True means visible, as in ours: do "
                "not invert it.",
                old="mask = mask | fully_masked",
                new="mask = ~mask | fully_masked",
            ),
            Wrong(
                "The output of a fully masked query is zeros, not the average of "
                "all values.",
                old="output.masked_fill(fully_masked, 0.0)",
                new="output",
            ),
            Wrong(
                "Dropout is for the weights in the sum. The weights that are "
                "returned show where the query attends, before dropout.",
                old="weights = masked_softmax(scores, mask)",
                new="weights = F.dropout(masked_softmax(scores, mask), dropout)",
                more=(
                    ("F.dropout(weights, dropout) @ value", "weights @ value"),
                ),
            ),
            Wrong(
                "exp of a raw score overflows from 89 on: use `masked_softmax`, which "
                "subtracts the largest score first.",
                old="weights = masked_softmax(scores, mask)",
                new=(
                    "weights = scores.exp() if mask is None else scores.exp() * mask\n"
                    "        weights = weights / weights.sum(-1, "
                    "keepdim=True).clamp(min=1e-30)"
                ),
            ),
            Wrong(
                "The triangle must be on the device of the query; without `device` it "
                "is on the CPU.",
                old="causal_mask(T, N, query.device)",
                new="causal_mask(T, N)",
            ),
        ),
    ),
    Exercise(
        chapter=4,
        module="attention",
        parts=(
            "MultiHeadAttention.project",
            "MultiHeadAttention.queries",
            "MultiHeadAttention.keys_values",
        ),
        title="one matrix for the queries, keys and values of H heads",
        points=6,
        minutes=30,
        difficulty="medium",
        tests=(
            "test_multi_head_attention_agrees_with_torch",
            "test_mask_agrees_with_torchs_key_padding_mask",
            "test_keys_and_values_can_be_computed_in_advance",
        ),
        wrong=(
            Wrong(
                "All numbers are present, but in the wrong order: an axis has to "
                "move, and reshape does not move axes. Use permute or transpose.",
                old="q = q.view(B, T, self.num_heads, self.head_dim).transpose(1, 2)",
                new="q = q.reshape(B, self.num_heads, T, self.head_dim)",
                more=(
                    (
                        "k = k.view(B, T, self.num_heads, "
                        "self.head_dim).transpose(1, 2)",
                        "k = k.reshape(B, self.num_heads, T, self.head_dim)",
                    ),
                    (
                        "v = v.view(B, T, self.num_heads, "
                        "self.head_dim).transpose(1, 2)",
                        "v = v.reshape(B, self.num_heads, T, self.head_dim)",
                    ),
                    (
                        "k = k.view(B, N, self.num_heads, "
                        "self.head_dim).transpose(1, 2)",
                        "k = k.reshape(B, self.num_heads, N, self.head_dim)",
                    ),
                    (
                        "v = v.view(B, N, self.num_heads, "
                        "self.head_dim).transpose(1, 2)",
                        "v = v.reshape(B, self.num_heads, N, self.head_dim)",
                    ),
                    (
                        "return q.view(B, T, self.num_heads, "
                        "self.head_dim).transpose(1, 2)",
                        "return q.reshape(B, self.num_heads, T, self.head_dim)",
                    ),
                ),
            ),
            Wrong(
                "A head is D/H neighbouring dimensions. Yours are H apart: in "
                "which order do you name the two factors of D?",
                old="q = q.view(B, T, self.num_heads, self.head_dim).transpose(1, 2)",
                new=(
                    "q = q.view(B, T, self.head_dim, self.num_heads).permute(0, "
                    "3, 1, 2)"
                ),
                more=(
                    (
                        "k = k.view(B, T, self.num_heads, "
                        "self.head_dim).transpose(1, 2)",
                        "k = k.view(B, T, self.head_dim, "
                        "self.num_heads).permute(0, 3, 1, 2)",
                    ),
                    (
                        "v = v.view(B, T, self.num_heads, "
                        "self.head_dim).transpose(1, 2)",
                        "v = v.view(B, T, self.head_dim, "
                        "self.num_heads).permute(0, 3, 1, 2)",
                    ),
                    (
                        "k = k.view(B, N, self.num_heads, "
                        "self.head_dim).transpose(1, 2)",
                        "k = k.view(B, N, self.head_dim, "
                        "self.num_heads).permute(0, 3, 1, 2)",
                    ),
                    (
                        "v = v.view(B, N, self.num_heads, "
                        "self.head_dim).transpose(1, 2)",
                        "v = v.view(B, N, self.head_dim, "
                        "self.num_heads).permute(0, 3, 1, 2)",
                    ),
                    (
                        "return q.view(B, T, self.num_heads, "
                        "self.head_dim).transpose(1, 2)",
                        "return q.view(B, T, self.head_dim, "
                        "self.num_heads).permute(0, 3, 1, 2)",
                    ),
                ),
            ),
            Wrong(
                "The rows of the joint matrix are first those of all queries, then "
                "of all keys, then of all values; they are not sorted by head.",
                old="self.in_proj(x, slice(0, 3 * D)).chunk(3, dim=-1)",
                new=(
                    "self.in_proj(x, slice(0, 3 * D)).view(B, T, self.num_heads, "
                    "3, -1).transpose(2, 3).flatten(3).unbind(2)"
                ),
            ),
            Wrong(
                "Self-attention is right. Which rows of the joint matrix give the "
                "queries, if keys and values come from a memory?",
                old="slice(0, D))",
                new="slice(D, 2 * D))",
            ),
            Wrong(
                "First keys, then values, in the order of their rows in the joint "
                "matrix.",
                old="k, v = self.in_proj(memory",
                new="v, k = self.in_proj(memory",
            ),
        ),
    ),
    Exercise(
        chapter=4,
        module="attention",
        parts=("MultiHeadAttention.forward", "MultiHeadAttention.attend"),
        title="heads in parallel, and their mix",
        points=9,
        minutes=45,
        difficulty="medium",
        tests=(
            "test_multi_head_attention_agrees_with_torch",
            "test_mask_agrees_with_torchs_key_padding_mask",
            "test_keys_and_values_can_be_computed_in_advance",
            "test_multi_head_attention_of_fully_masked_rows_is_zero",
            "test_multi_head_attention_drops_weights_only_in_training",
        ),
        wrong=(
            Wrong(
                "The heads of a word must become neighbours again: the axes of "
                "(B, H, T, D/H) are not yet in the right order to be joined.",
                old="output.transpose(1, 2).flatten(2)",
                new="output.reshape(output.size(0), output.size(2), -1)",
            ),
            Wrong(
                "What mixes the outputs of the heads? One more matrix follows them.",
                old="self.out_proj(output)",
                new="output",
            ),
            Wrong(
                "Dropout only in training: after `eval()` the same input gives "
                "the same output.",
                old="self.dropout if self.training else 0.0",
                new="self.dropout",
            ),
            Wrong(
                "A mask of (B, T, N) is the same for all heads: where among its "
                "axes does the axis of the heads belong?",
                old="mask.unsqueeze(-3)",
                new="mask.unsqueeze(0)",
            ),
            Wrong(
                "With a memory, queries come from x, and keys and values from the "
                "memory.",
                old="q = self.queries(x)",
                new="q = self.queries(memory)",
            ),
            Wrong(
                "`causal` must be passed on to the attention.",
                old="need_weights, causal, dropout",
                new="need_weights, False, dropout",
            ),
        ),
    ),
    Exercise(
        chapter=4,
        module="transformer",
        parts=("Embedding.forward",),
        title="words and their positions",
        points=2,
        minutes=10,
        difficulty="easy",
        tests=(
            "test_embedding_is_the_sum_of_word_and_position",
            "test_text_beyond_the_last_position_is_refused",
        ),
        wrong=(
            Wrong(
                "Attention ignores order. What tells the model the position of a word?",
                old=" + self.positions.weight[offset:end]",
                new="",
            ),
            Wrong(
                "The first of these words is at position `offset`: with a cache, "
                "there are others before it.",
                old="self.positions.weight[offset:end]",
                new="self.positions.weight[: tokens.size(1)]",
            ),
            Wrong(
                "Off by one: with how many words are all positions used up?",
                old="if end > max_length",
                new="if end >= max_length",
            ),
            Wrong(
                "The position of a word is its index in the sentence, not its "
                "index in the vocabulary.",
                old="self.positions.weight[offset:end]",
                new="self.positions(tokens % self.positions.num_embeddings)",
            ),
        ),
    ),
    Exercise(
        chapter=4,
        module="transformer",
        parts=(
            "TransformerBlock.forward",
            "TransformerBlock._self_attention",
            "TransformerBlock._mlp",
        ),
        title="attention, then a network for each position",
        points=14,
        minutes=75,
        difficulty="medium",
        tests=(
            "test_block_agrees_with_torch",
            "test_block_continues_from_cached_keys_and_values",
        ),
        wrong=(
            Wrong(
                "The output of attention is added to x; it does not replace it.",
                old=(
                    "x = x + y\n"
                    "            if cross_attention"
                ),
                new=(
                    "x = y\n"
                    "            if cross_attention"
                ),
                more=(
                    ("self.norm1(x + y)", "self.norm1(y)"),
                ),
            ),
            Wrong(
                "With pre-norm, the branch reads the normalised x, but its output "
                "is added to x itself: the path from the first block to the last "
                "stays free.",
                old="x = x + self._mlp(mlp_norm(x))",
                new="x = mlp_norm(x) + self._mlp(mlp_norm(x))",
            ),
            Wrong(
                "Each norm has its own place: the first is for attention, the "
                "second for the small network.",
                old="self.norm3 if cross_attention else self.norm2",
                new="self.norm3 if cross_attention else self.norm1",
            ),
            Wrong(
                "Post-norm: where does the norm go if it does not come before the "
                "branch?",
                old="self.norm1(x + y)",
                new="x + y",
                more=(
                    ("self.norm2(x + y)", "x + y"),
                    ("mlp_norm(x + self._mlp(x))", "x + self._mlp(x)"),
                ),
            ),
            Wrong(
                "In the keys and values, too, the past comes before the new words.",
                old="torch.cat([past_k, k], dim=2)",
                new="torch.cat([k, past_k], dim=2)",
                more=(
                    ("torch.cat([past_v, v], dim=2)", "torch.cat([v, past_v], dim=2)"),
                ),
            ),
            Wrong(
                "GELU has two versions: use the block's.",
                old="approximate=self.approximate",
                new='approximate="none"',
            ),
            Wrong(
                "Pass the mask on to the attention: padding is visible in yours.",
                old="attend(q, k, v, mask, causal",
                new="attend(q, k, v, None, causal",
            ),
        ),
    ),
    Exercise(
        chapter=4,
        module="transformer",
        parts=("TransformerEncoder.forward",),
        title="self-attention over a sentence",
        points=5,
        minutes=25,
        difficulty="easy",
        tests=(
            "test_encoder_agrees_with_torch",
            "test_encoding_ignores_padding_and_other_sentences",
            "test_encoder_dropout_is_only_in_training",
        ),
        wrong=(
            Wrong(
                "The encoding of a sentence changes if another one in the batch is "
                "longer: may a word attend to padding?",
                old="block(x, mask.unsqueeze(1))",
                new="block(x)",
            ),
            Wrong(
                "The mask (B, T) says which positions are visible, not which of "
                "them may look: which axis of (B, T, N) is that?",
                old="mask.unsqueeze(1)",
                new="mask.unsqueeze(2)",
            ),
            Wrong(
                "The last norm is for pre-norm only: a post-norm block already "
                "ends with one.",
                old="if self.pre_norm:",
                new="if True:",
            ),
            Wrong(
                "Where does the norm go without `pre_norm`? As in BERT, before "
                "the blocks.",
                old="if not self.pre_norm:",
                new="if False:",
            ),
            Wrong(
                "This is an encoder: each word also attends to the words after it.",
                old="block(x, mask.unsqueeze(1))",
                new="block(x, mask.unsqueeze(1), True)",
            ),
            Wrong(
                "Dropout only in training: after `eval()` the same sentence gives "
                "the same memory.",
                old="self.training)",
                new="True)",
            ),
        ),
    ),
    Exercise(
        chapter=4,
        module="transformer",
        parts=(
            "TransformerDecoder.step",
            "TransformerDecoder.start",
            "TransformerDecoder._advance",
        ),
        title="the picture as a prefix, and the key-value cache",
        points=16,
        minutes=90,
        difficulty="hard",
        tests=(
            "test_decoder_with_a_prefix_agrees_with_torchs_masked_encoder",
            "test_memory_is_projected_once[prefix]",
            "test_attention_weights_are_those_of_the_layers_in_order[prefix]",
            "test_embedding_is_tied_to_the_output[prefix]",
            "test_decoder_refuses_text_beyond_the_last_position[prefix]",
            "test_a_step_leaves_the_state_before_it_as_it_was[prefix]",
            "test_a_single_sentence_keeps_its_axis[prefix]",
        ),
        wrong=(
            Wrong(
                "The full forward is right, but stepping is not: the next state "
                "must also hold the keys and values of the new words.",
                old="TransformerState(new_past, state.memory",
                new="TransformerState(state.past, state.memory",
            ),
            Wrong(
                "Stepping goes wrong at the second word: what is its position?",
                old="self.embedding(tokens, state.length)",
                new="self.embedding(tokens)",
            ),
            Wrong(
                "The new state must count the new words.",
                old="state.mask, length)",
                new="state.mask, state.length)",
            ),
            Wrong(
                "The mask covers the prefix and all words so far, including those "
                "that are only in the cache.",
                old="F.pad(memory_mask, (0, length), value=True)",
                new="F.pad(memory_mask, (0, tokens.size(1)), value=True)",
            ),
            Wrong(
                "Words must not attend to the padding of the prefix: give the "
                "blocks a mask.",
                old="mask = F.pad(memory_mask, (0, length), value=True)",
                new="mask = None",
            ),
            Wrong(
                "The positions of the prefix all attend to one another: the "
                "picture has no order in time.",
                old="block(x, memory.mask.unsqueeze(1))",
                new="block(x, memory.mask.unsqueeze(1), True)",
            ),
            Wrong(
                "The last block, too, normalises x before it computes keys and values.",
                old="keys_values(last.norm1(x))",
                new="keys_values(x)",
            ),
            Wrong(
                "One more norm comes between the last block and the logits.",
                old="F.linear(self.norm(x),",
                new="F.linear(x,",
            ),
            Wrong(
                "A search may continue from the same state again: make a new list, "
                "and do not write into the old one.",
                old="        new_past = []\n",
                new="        new_past = state.past\n",
                more=(
                    (
                        "in zip(self.blocks, state.past, state.memory):",
                        "in zip(self.blocks, list(state.past), state.memory):",
                    ),
                    (
                        "            new_past.append(past)\n",
                        "            new_past[len(weights)] = past\n",
                    ),
                ),
            ),
            Wrong(
                "squeeze() without a number removes the batch axis, too, if there is "
                "one sentence only.",
                old="return logits.squeeze(1), state",
                new="return logits.squeeze(), state",
            ),
        ),
    ),
    Exercise(
        chapter=4,
        module="transformer",
        parts=("TransformerDecoder.reorder", "_reorder_cache"),
        title="reordering beams",
        points=8,
        minutes=40,
        difficulty="hard",
        tests=(
            "test_beams_of_a_memory_can_be_reordered_and_removed",
            "test_beams_share_the_memory_without_copies",
            "test_states_are_not_modified_by_later_steps",
        ),
        wrong=(
            Wrong(
                "A beam that continues another one's words needs its keys and "
                "values, too: the cache must be reordered with the beams.",
                old="past = _reorder_cache(state.past, index)",
                new="past = state.past",
            ),
            Wrong(
                "The beams of a picture share its memory, which is not copied for "
                "each of them: `memory_index` says which memories are needed.",
                old="needed = memory_index(index, rows, len(mask))",
                new="needed = index",
            ),
            Wrong(
                "When a picture is finished, its mask goes as well.",
                old="mask = mask.index_select(0, needed)",
                new="mask = mask",
            ),
            Wrong(
                "The mask is right, but the memory's keys and values must be "
                "reordered with it.",
                old="memory = _reorder_cache(memory, needed)",
                new="memory = memory",
            ),
            Wrong(
                "Reordering beams does not change the number of words.",
                old="memory, mask, state.length)",
                new="memory, mask, 0)",
            ),
            Wrong(
                "How many sentences were there before reordering? That is not the "
                "length of `index`.",
                old="rows = len(mask) if first_layer is None else len(first_layer[0])",
                new="rows = len(index)",
            ),
        ),
        test_file="test_decoders.py",
    ),
    Exercise(
        chapter=4,
        module="vision",
        parts=("VisionTransformer._encode", "VisionTransformer.features"),
        title="a picture as words",
        points=6,
        minutes=30,
        difficulty="medium",
        tests=(
            "test_vision_transformer_without_blocks_is_patches_and_positions",
            "test_vision_transformer_agrees_with_torchvision",
            "test_vision_transformer_features_have_the_documented_shape",
            "test_patches_keep_their_place_and_attend_to_all",
            "test_vision_transformer_applies_dropout_in_training_only",
            "test_vision_transformer_refuses_wrong_sizes",
        ),
        wrong=(
            Wrong(
                "Attention has no order: what tells the blocks where each patch was?",
                old="x + self.positions",
                new="x",
            ),
            Wrong(
                "The class token has a position, too: the first of the 1 + N. The "
                "patches have the others.",
                old="x + self.positions",
                new="x + F.pad(self.positions[:, 1:], (0, 0, 1, 0))",
            ),
            Wrong(
                "Where is the class token? `forward` reads it at the first "
                "position, and published positions expect it there.",
                old="[class_token, patches]",
                new="[patches, class_token]",
            ),
            Wrong(
                "Patches are read like a page: along the first row, then the "
                "second. Yours go column by column.",
                old="patches.flatten(2).transpose(1, 2)",
                new="patches.transpose(2, 3).flatten(2).transpose(1, 2)",
            ),
            Wrong(
                "The shape is right, but each vector mixes numbers of several "
                "patches: `conv_proj` puts D before the rows, so an axis has to "
                "move. A reshape moves nothing.",
                old="patches.flatten(2).transpose(1, 2)",
                new="patches.reshape(len(x), -1, self.out_channels)",
            ),
            Wrong(
                "The class token is not a patch. At which end of the sequence "
                "must it be left out?",
                old="self._encode(x)[:, 1:]",
                new="self._encode(x)[:, :-1]",
            ),
            Wrong(
                "A feature map has its D channels before rows and columns, as in a "
                "CNN.",
                old="patches.transpose(1, 2).unflatten(2, (rows, rows))",
                new="patches.unflatten(1, (rows, rows))",
            ),
            Wrong(
                "The blocks are pre-norm: nothing has normalised their sum yet. "
                "What comes after the last block?",
                old="return self.norm(x)",
                new="return x",
            ),
            Wrong(
                "Dropout is for training only: after `eval()` the same picture "
                "gives the same features.",
                old="self.training)",
                new="True)",
            ),
            Wrong(
                "Dropout applies to the sum of patches and positions, not to the "
                "patches alone.",
                old="F.dropout(x + self.positions, self.dropout, self.training)",
                new="F.dropout(x, self.dropout, self.training) + self.positions",
            ),
            Wrong(
                "A picture of another size would get the wrong positions: refuse "
                "it, with `_check_size`.",
                old="_check_size(x, self.image_size)",
                new="pass",
            ),
        ),
    ),
)
