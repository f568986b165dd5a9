"""The exercises of chapter 4: transformer decoder."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        4, "attention", ("causal_mask",), "who may see whom", 2, 10, "easy",
        "test_the_causal_mask_shows_what_stands_before",
        (
            Wrong("With fewer queries than places, the queries are the last of the places: a single one, over a cache, sees "
                  "all. Yours are right only for T = N.",
                  ".tril(N - T)", ".tril()"),
            Wrong("Each query sees what stands before it, and nothing behind it. Print the mask for T = N = 4: yours shows "
                  "the future.",
                  ".tril(N - T)", ".triu(N - T)"),
            Wrong("A query sees itself as well, so that the first of N = T has something to look at.",
                  ".tril(N - T)", ".tril(N - T - 1)"),
            Wrong("The right places, but a mask is of booleans: True where one may look.", "dtype=torch.bool, ", ""),
            Wrong("True stands for what may be seen. Torch's own layers have it the other way round.",
                  "torch.ones(T, N, dtype=torch.bool, device=device).tril(N - T)",
                  "~torch.ones(T, N, dtype=torch.bool, device=device).tril(N - T)"),
        ),
    ),
    Exercise(
        4, "attention", ("scaled_dot_product_attention",), "scores, mask, softmax, sum", 10, 60, "medium",
        "test_agrees_with_torch test_agrees_with_the_formula_word_for_word test_both_paths_agree_in_float32 "
        "test_the_weights_sum_to_one_or_to_nothing test_who_may_see_nothing_gets_zeros_and_finite_gradients "
        "test_causal_attention_sees_the_triangle_and_the_mask_besides "
        "test_who_sees_nothing_of_the_triangle_gets_zeros_and_finite_gradients test_dropout_drops_weights_and_only_as_asked",
        (
            Wrong("The variance of a sum of D products grows with D. What brings it back to 1, before the softmax?",
                  " / math.sqrt(query.size(-1))", ""),
            Wrong("By what are the scores divided? By a root of the width of a query, not of the number of places.",
                  "math.sqrt(query.size(-1))", "math.sqrt(key.size(-2))"),
            Wrong("Divide by the root of the width, not by the width: it is the standard deviation that should become 1.",
                  "math.sqrt(query.size(-1))", "query.size(-1)"),
            Wrong("`causal` holds besides the mask: what one of the two hides is hidden.", "mask & triangle", "triangle"),
            Wrong("The kernel's own triangle begins at the first place. With fewer queries than places it is not ours: use "
                  "`causal_mask` there.",
                  " and T == N and not need_weights", " and not need_weights"),
            Wrong("A mask of torch's kernel says what may be seen, as ours does: do not turn it round.",
                  "mask = mask | fully_masked", "mask = ~mask | fully_masked"),
            Wrong("A query that may see nothing: its output is zeros, and not the average of everything.",
                  "output.masked_fill(fully_masked, 0.0)", "output"),
            Wrong("Dropout is for the weights that are used. Those that are returned say where it looked, and have lost "
                  "nothing.",
                  "weights = masked_softmax(scores, mask)", "weights = F.dropout(masked_softmax(scores, mask), dropout)",
                  (("F.dropout(weights, dropout) @ value", "weights @ value"),)),
        ),
    ),
    Exercise(
        4, "attention",
        ("MultiHeadAttention.project", "MultiHeadAttention.queries", "MultiHeadAttention.keys_values",
         "MultiHeadAttention._heads"),
        "one matrix, and H heads of it", 6, 30, "medium",
        "test_multi_head_attention_agrees_with_torch test_padding_is_torchs_key_padding_mask "
        "test_keys_and_values_can_be_computed_before",
        (
            Wrong("All numbers are there, but in the wrong place: an axis has to move, and a reshape only cuts anew. Move it "
                  "with permute or transpose.",
                  "x.transpose(1, 2)", "x.reshape(len(x), self.num_heads, x.size(1), -1)"),
            Wrong("A head is D/H neighbouring dimensions. Yours are H apart: in which order do you name the two factors of D?",
                  "(self.num_heads, -1)", "(-1, self.num_heads)",
                  (("x.transpose(1, 2)", "x.permute(0, 3, 1, 2)"),)),
            Wrong("The rows of the joint matrix are first all queries, then all keys, then all values, and not head after "
                  "head.",
                  "query, keys, values = self.in_proj(x, slice(None)).chunk(3, dim=-1)",
                  "joint = self.in_proj(x, slice(None)).unflatten(-1, (self.num_heads, 3, -1))\n"
                  "        query, keys, values = joint.transpose(-3, -2).flatten(-2).unbind(-2)"),
            Wrong("Self-attention is right. Which rows of the joint matrix make a query, if keys and values are of a memory?",
                  "slice(self.embed_dim))", "slice(self.embed_dim, 2 * self.embed_dim))"),
            Wrong("First keys, then values, in the order in which their rows stand in the joint matrix.",
                  "keys, values = self.in_proj(memory", "values, keys = self.in_proj(memory"),
        ),
    ),
    Exercise(
        4, "attention", ("MultiHeadAttention.forward", "MultiHeadAttention.attend"),
        "heads side by side, and mixed", 9, 45, "medium",
        "test_multi_head_attention_agrees_with_torch test_padding_is_torchs_key_padding_mask "
        "test_keys_and_values_can_be_computed_before test_heads_that_see_nothing_give_zeros "
        "test_multi_head_attention_drops_weights_only_in_training",
        (
            Wrong("The heads of a word belong side by side again: (B, H, T, D/H) is not in that order yet when you join its "
                  "axes.",
                  "output.transpose(1, 2).flatten(2)", "output.reshape(output.size(0), output.size(2), -1)"),
            Wrong("Who mixes what the heads have found? One more matrix stands behind them.",
                  "self.out_proj(output)", "output"),
            Wrong("Dropout only in training: after `eval()` the same input gives the same output.",
                  "self.dropout if self.training else 0.0", "self.dropout"),
            Wrong("A mask of (B, T, N) is the same for all heads: where among its axes is the one of the heads?",
                  "mask.unsqueeze(-3)", "mask.unsqueeze(0)"),
            Wrong("With a memory, x asks and the memory answers: queries of the one, keys and values of the other.",
                  "query = self.queries(x)", "query = self.queries(memory)"),
            Wrong("`causal` must get through to the attention.",
                  "need_weights, causal, dropout", "need_weights, False, dropout"),
        ),
    ),
    Exercise(
        4, "transformer", ("Embedding.forward",), "words, and where they stand", 2, 10, "easy",
        "test_a_word_is_the_sum_of_its_vector_and_that_of_where_it_stands test_a_text_that_runs_over_the_positions_is_refused",
        (
            Wrong("Attention does not know any order. What tells the model where a word stands?",
                  " + self.positions.weight[first:end]", ""),
            Wrong("The first of these words stands at the position `first`: in a cache there are others before it.",
                  "self.positions.weight[first:end]", "self.positions.weight[: tokens.size(1)]"),
            Wrong("Off by one: with how many words are all positions taken?", "if end > there", "if end >= there"),
            Wrong("The position of a word is its place in the sentence, and not which word it is.",
                  "self.positions.weight[first:end]", "self.positions(tokens % self.positions.num_embeddings)"),
        ),
    ),
    Exercise(
        4, "transformer",
        ("TransformerBlock.forward", "TransformerBlock._before", "TransformerBlock._after", "TransformerBlock._mlp"),
        "attention, then a network for each place", 14, 75, "medium",
        "test_block_agrees_with_torch test_a_block_goes_on_from_its_past",
        (
            Wrong("What attention finds is added to x, and does not replace it.",
                  "x + self._drop(y))\n\n        if self.multihead_attn", "self._drop(y))\n\n        if self.multihead_attn"),
            Wrong("With pre-norm, what is added comes of the normed x, but it is added to x as it was: the way from the first "
                  "block to the last stays free.",
                  "self._after(norm, x + self._drop(y))",
                  "self._after(norm, self._before(norm, x) + self._drop(y))"),
            Wrong("Each norm has its own place: the first is for attention, the second for the small network.",
                  "norm = self.norm3 or self.norm2", "norm = self.norm3 or self.norm1"),
            Wrong("Post-norm: where does the norm stand if it does not stand before?",
                  "return x if self.pre_norm else norm(x)", "return x"),
            Wrong("The past stands before the new words, in the order of the text, also among keys and values.",
                  "torch.cat([past[0], keys], dim=2)", "torch.cat([keys, past[0]], dim=2)",
                  (("torch.cat([past[1], values], dim=2)", "torch.cat([values, past[1]], dim=2)"),)),
            Wrong("GELU has two versions: the block says which.", "approximate=self.approximate", 'approximate="none"'),
            Wrong("The mask must reach the attention: padding was seen.",
                  "attend(query, keys, values, mask, causal", "attend(query, keys, values, None, causal"),
        ),
    ),
    Exercise(
        4, "transformer", ("TransformerEncoder.forward",), "a sentence that reads itself", 5, 25, "easy",
        "test_encoder_agrees_with_torch test_padding_and_neighbours_change_nothing_of_what_is_read "
        "test_encoder_dropout_is_only_in_training",
        (
            Wrong("A sentence is read in another way if its neighbour in the batch is longer: who may look at padding?",
                  "block(x, mask.unsqueeze(1))", "block(x)"),
            Wrong("The mask (B, T) says which places may be looked at, not who may look: which axis of (B, T, N) is that?",
                  "mask.unsqueeze(1)", "mask.unsqueeze(2)"),
            Wrong("A last norm is for pre-norm only: a post-norm block has one at its end already.",
                  "self.norm(x) if self.pre_norm else x", "self.norm(x)"),
            Wrong("Where does the norm stand without `pre_norm`? As in BERT, before the blocks.",
                  "x = self.norm(x)\n", "pass\n"),
            Wrong("This is an encoder: every word sees those behind it as well.",
                  "block(x, mask.unsqueeze(1))", "block(x, mask.unsqueeze(1), True)"),
            Wrong("Dropout only in training: after `eval()` the same sentence gives the same memory.",
                  "self.training)", "True)"),
        ),
    ),
    Exercise(
        4, "transformer", ("TransformerDecoder.step", "TransformerDecoder.start", "TransformerDecoder._advance"),
        "the picture as a prefix, and a cache", 16, 90, "hard",
        "test_decoder_with_a_prefix_is_torchs_encoder_with_a_mask test_the_memory_is_projected_once[prefix] "
        "test_the_weights_are_those_of_the_layers_in_order[prefix] test_the_embedding_is_also_the_output[prefix] "
        "test_a_text_longer_than_the_positions_is_refused[prefix]",
        (
            Wrong("The full forward is right, but stepping is not: the next state must hold the keys and values of the new "
                  "words, too.",
                  "TransformerState(past, state.memory", "TransformerState(state.past, state.memory"),
            Wrong("Stepping goes wrong at the second word: at which position does it stand?",
                  "self.embedding(tokens, state.length)", "self.embedding(tokens)"),
            Wrong("The state must remember how many words there are now.",
                  "state.mask, length), looked", "state.mask, state.length), looked"),
            Wrong("The mask speaks of the prefix and of all words so far, also those that are in the cache only.",
                  "F.pad(memory_mask, (0, length), value=True)", "F.pad(memory_mask, (0, tokens.size(1)), value=True)"),
            Wrong("Words look at the padding of the prefix.",
                  "mask = F.pad(memory_mask, (0, length), value=True)", "mask = None"),
            Wrong("The places of the prefix see one another, all of them: the picture has no order in time.",
                  "block(x, memory.mask.unsqueeze(1))", "block(x, memory.mask.unsqueeze(1), True)"),
            Wrong("The keys and values of the last block are of what it norms first, as a block does.",
                  "keys_values(last.norm1(x))", "keys_values(x)"),
            Wrong("One norm more stands between the last block and the words.", "F.linear(self.norm(x),", "F.linear(x,"),
        ),
    ),
    Exercise(
        4, "transformer", ("TransformerDecoder.reorder", "_pick"), "beams that change places", 8, 40, "hard",
        "test_beams_of_a_memory_stay_together_change_places_and_leave test_beams_do_not_copy_the_memory "
        "test_a_state_can_be_returned_to",
        (
            Wrong("A beam that takes another's place takes the words along that this one has written: they are in its cache.",
                  "past = _pick(state.past, index)", "past = state.past"),
            Wrong("The beams of a picture share its memory, which is then not copied for each: `owners` says which are needed.",
                  'index if self.fusion == "prefix" else owners(index, rows, len(mask))', "index"),
            Wrong("When a picture leaves, its mask leaves as well.",
                  "mask = mask.index_select(0, owner)", "mask = mask"),
            Wrong("The mask is right, but what is it of? Keys and values of the memory have to follow the pictures, too.",
                  "memory = _pick(memory, owner)", "memory = memory"),
            Wrong("How many words there are does not change when beams change places.",
                  "memory, mask, state.length)", "memory, mask, 0)"),
            Wrong("How many sentences were there before? That is not the number of those that are wanted.",
                  "rows = len(mask) if past[0] is None else len(state.past[0][0])", "rows = len(index)"),
        ),
        test_file="test_decoders.py",
    ),
    Exercise(
        4, "vision", ("VisionTransformer._encode", "VisionTransformer.features"), "a picture as words", 6, 30, "medium",
        "test_vision_transformer_without_blocks_is_patches_and_positions test_vision_transformer_agrees_with_torchvision "
        "test_vision_transformer_features_have_the_promised_shape test_a_patch_is_at_its_place_and_seen_by_all "
        "test_vision_transformer_drops_in_training_only test_vision_transformer_refuses_what_does_not_fit",
        (
            Wrong("To attention, a set of patches has no order. What tells the blocks where each patch was?",
                  "x + self.positions", "x"),
            Wrong("The class token has a position, too: the first of the 1 + N. The patches have the others.",
                  "x + self.positions", "x + F.pad(self.positions[:, 1:], (0, 0, 1, 0))"),
            Wrong("Where does the class token stand? `forward` reads it at the first position, and published positions "
                  "expect it there.",
                  "[class_token, patches]", "[patches, class_token]"),
            Wrong("Patches are read as a page is: along the first row, then the second. Yours go column by column.",
                  "patches.flatten(2).transpose(1, 2)", "patches.transpose(2, 3).flatten(2).transpose(1, 2)"),
            Wrong("The shape is right, but the numbers of a patch are not those of one patch: `conv_proj` puts D before the "
                  "rows, so an axis has to move. A reshape moves nothing.",
                  "patches.flatten(2).transpose(1, 2)", "patches.reshape(len(x), -1, self.out_channels)"),
            Wrong("The class token is no patch. At which end of the sequence is it left out?",
                  "self._encode(x)[:, 1:]", "self._encode(x)[:, :-1]"),
            Wrong("A grid has its D channels before rows and columns, as a CNN's has.",
                  "patches.transpose(1, 2).unflatten(2, (rows, rows))", "patches.unflatten(1, (rows, rows))"),
            Wrong("The blocks are pre-norm: nothing has normed their sum yet. What stands after the last block?",
                  "return self.norm(x)", "return x"),
            Wrong("Dropout only in training: after `eval()` the same picture gives the same features.",
                  "self.training)", "True)"),
            Wrong("What is dropped is the sum of patches and positions, not the patches alone.",
                  "F.dropout(x + self.positions, self.dropout, self.training)",
                  "F.dropout(x, self.dropout, self.training) + self.positions"),
            Wrong("A picture of another size would meet the wrong positions: refuse it, with `_check_size`.",
                  "_check_size(x, self.image_size)", "pass"),
        ),
    ),
)
