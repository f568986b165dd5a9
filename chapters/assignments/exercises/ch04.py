"""The exercises of chapter 4: transformer decoder."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        chapter=4,
        module="attention",
        parts=("causal_mask",),
        title="who may see whom",
        points=2,
        minutes=10,
        difficulty="easy",
        tests=(
            "test_the_causal_mask_shows_what_stands_before",
        ),
        wrong=(
            Wrong(
                "With fewer queries than places, the queries are the last of the "
                "places: a single one, over a cache, sees all. Yours are right "
                "only for T = N.",
                old=".tril(N - T)",
                new=".tril()",
            ),
            Wrong(
                "Each query sees what stands before it, and nothing behind it. "
                "Print the mask for T = N = 4: yours shows the future.",
                old=".tril(N - T)",
                new=".triu(N - T)",
            ),
            Wrong(
                "A query sees itself as well, so that the first of N = T has "
                "something to look at.",
                old=".tril(N - T)",
                new=".tril(N - T - 1)",
            ),
            Wrong(
                "The right places, but a mask is of booleans: True where one may look.",
                old="dtype=torch.bool, ",
                new="",
            ),
            Wrong(
                "True stands for what may be seen. Torch's own layers have it the "
                "other way round.",
                old="torch.ones(T, N, dtype=torch.bool, device=device).tril(N - T)",
                new="~torch.ones(T, N, dtype=torch.bool, device=device).tril(N - T)",
            ),
        ),
    ),
    Exercise(
        chapter=4,
        module="attention",
        parts=("scaled_dot_product_attention",),
        title="scores, mask, softmax, sum",
        points=10,
        minutes=60,
        difficulty="medium",
        tests=(
            "test_agrees_with_torch",
            "test_agrees_with_the_formula_word_for_word",
            "test_both_paths_agree_in_float32",
            "test_the_weights_sum_to_one_or_to_nothing",
            "test_who_may_see_nothing_gets_zeros_and_finite_gradients",
            "test_causal_attention_sees_the_triangle_and_the_mask_besides",
            "test_who_sees_nothing_of_the_triangle_gets_zeros_and_finite_gradients",
            "test_dropout_drops_weights_and_only_as_asked",
        ),
        wrong=(
            Wrong(
                "The variance of a sum of D products grows with D. What brings it "
                "back to 1, before the softmax?",
                old=" / math.sqrt(query.size(-1))",
                new="",
            ),
            Wrong(
                "By what are the scores divided? By a root of the width of a "
                "query, not of the number of places.",
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
                "`causal` holds besides the mask: what one of the two hides is hidden.",
                old="mask & triangle",
                new="triangle",
            ),
            Wrong(
                "The kernel's own triangle begins at the first place. With fewer "
                "queries than places it is not ours: use `causal_mask` there.",
                old=" and T == N and not need_weights",
                new=" and not need_weights",
            ),
            Wrong(
                "A mask of torch's kernel says what may be seen, as ours does: do "
                "not turn it round.",
                old="mask = mask | fully_masked",
                new="mask = ~mask | fully_masked",
            ),
            Wrong(
                "A query that may see nothing: its output is zeros, and not the "
                "average of everything.",
                old="output.masked_fill(fully_masked, 0.0)",
                new="output",
            ),
            Wrong(
                "Dropout is for the weights that are used. Those that are "
                "returned say where it looked, and have lost nothing.",
                old="weights = masked_softmax(scores, mask)",
                new="weights = F.dropout(masked_softmax(scores, mask), dropout)",
                more=(
                    ("F.dropout(weights, dropout) @ value", "weights @ value"),
                ),
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
            "MultiHeadAttention._heads",
        ),
        title="one matrix, and H heads of it",
        points=6,
        minutes=30,
        difficulty="medium",
        tests=(
            "test_multi_head_attention_agrees_with_torch",
            "test_padding_is_torchs_key_padding_mask",
            "test_keys_and_values_can_be_computed_before",
        ),
        wrong=(
            Wrong(
                "All numbers are there, but in the wrong place: an axis has to "
                "move, and a reshape only cuts anew. Move it with permute or "
                "transpose.",
                old="x.transpose(1, 2)",
                new="x.reshape(len(x), self.num_heads, x.size(1), -1)",
            ),
            Wrong(
                "A head is D/H neighbouring dimensions. Yours are H apart: in "
                "which order do you name the two factors of D?",
                old="(self.num_heads, -1)",
                new="(-1, self.num_heads)",
                more=(
                    ("x.transpose(1, 2)", "x.permute(0, 3, 1, 2)"),
                ),
            ),
            Wrong(
                "The rows of the joint matrix are first all queries, then all "
                "keys, then all values, and not head after head.",
                old=(
                    "query, keys, values = self.in_proj(x, slice(None)).chunk(3, "
                    "dim=-1)"
                ),
                new=(
                    "joint = self.in_proj(x, slice(None)).unflatten(-1, "
                    "(self.num_heads, 3, -1))\n"
                    "        query, keys, values = joint.transpose(-3, "
                    "-2).flatten(-2).unbind(-2)"
                ),
            ),
            Wrong(
                "Self-attention is right. Which rows of the joint matrix make a "
                "query, if keys and values are of a memory?",
                old="slice(self.embed_dim))",
                new="slice(self.embed_dim, 2 * self.embed_dim))",
            ),
            Wrong(
                "First keys, then values, in the order in which their rows stand "
                "in the joint matrix.",
                old="keys, values = self.in_proj(memory",
                new="values, keys = self.in_proj(memory",
            ),
        ),
    ),
    Exercise(
        chapter=4,
        module="attention",
        parts=("MultiHeadAttention.forward", "MultiHeadAttention.attend"),
        title="heads side by side, and mixed",
        points=9,
        minutes=45,
        difficulty="medium",
        tests=(
            "test_multi_head_attention_agrees_with_torch",
            "test_padding_is_torchs_key_padding_mask",
            "test_keys_and_values_can_be_computed_before",
            "test_heads_that_see_nothing_give_zeros",
            "test_multi_head_attention_drops_weights_only_in_training",
        ),
        wrong=(
            Wrong(
                "The heads of a word belong side by side again: (B, H, T, D/H) is "
                "not in that order yet when you join its axes.",
                old="output.transpose(1, 2).flatten(2)",
                new="output.reshape(output.size(0), output.size(2), -1)",
            ),
            Wrong(
                "Who mixes what the heads have found? One more matrix stands "
                "behind them.",
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
                "axes is the one of the heads?",
                old="mask.unsqueeze(-3)",
                new="mask.unsqueeze(0)",
            ),
            Wrong(
                "With a memory, x asks and the memory answers: queries of the "
                "one, keys and values of the other.",
                old="query = self.queries(x)",
                new="query = self.queries(memory)",
            ),
            Wrong(
                "`causal` must get through to the attention.",
                old="need_weights, causal, dropout",
                new="need_weights, False, dropout",
            ),
        ),
    ),
    Exercise(
        chapter=4,
        module="transformer",
        parts=("Embedding.forward",),
        title="words, and where they stand",
        points=2,
        minutes=10,
        difficulty="easy",
        tests=(
            "test_a_word_is_the_sum_of_its_vector_and_that_of_where_it_stands",
            "test_a_text_that_runs_over_the_positions_is_refused",
        ),
        wrong=(
            Wrong(
                "Attention does not know any order. What tells the model where a "
                "word stands?",
                old=" + self.positions.weight[first:end]",
                new="",
            ),
            Wrong(
                "The first of these words stands at the position `first`: in a "
                "cache there are others before it.",
                old="self.positions.weight[first:end]",
                new="self.positions.weight[: tokens.size(1)]",
            ),
            Wrong(
                "Off by one: with how many words are all positions taken?",
                old="if end > there",
                new="if end >= there",
            ),
            Wrong(
                "The position of a word is its place in the sentence, and not "
                "which word it is.",
                old="self.positions.weight[first:end]",
                new="self.positions(tokens % self.positions.num_embeddings)",
            ),
        ),
    ),
    Exercise(
        chapter=4,
        module="transformer",
        parts=(
            "TransformerBlock.forward",
            "TransformerBlock._before",
            "TransformerBlock._after",
            "TransformerBlock._mlp",
        ),
        title="attention, then a network for each place",
        points=14,
        minutes=75,
        difficulty="medium",
        tests=(
            "test_block_agrees_with_torch",
            "test_a_block_goes_on_from_its_past",
        ),
        wrong=(
            Wrong(
                "What attention finds is added to x, and does not replace it.",
                old=(
                    "x + self._drop(y))\n"
                    "\n"
                    "        if self.multihead_attn"
                ),
                new=(
                    "self._drop(y))\n"
                    "\n"
                    "        if self.multihead_attn"
                ),
            ),
            Wrong(
                "With pre-norm, what is added comes of the normed x, but it is "
                "added to x as it was: the way from the first block to the last "
                "stays free.",
                old="self._after(norm, x + self._drop(y))",
                new="self._after(norm, self._before(norm, x) + self._drop(y))",
            ),
            Wrong(
                "Each norm has its own place: the first is for attention, the "
                "second for the small network.",
                old="norm = self.norm3 or self.norm2",
                new="norm = self.norm3 or self.norm1",
            ),
            Wrong(
                "Post-norm: where does the norm stand if it does not stand before?",
                old="return x if self.pre_norm else norm(x)",
                new="return x",
            ),
            Wrong(
                "The past stands before the new words, in the order of the text, "
                "also among keys and values.",
                old="torch.cat([past[0], keys], dim=2)",
                new="torch.cat([keys, past[0]], dim=2)",
                more=(
                    (
                        "torch.cat([past[1], values], dim=2)",
                        "torch.cat([values, past[1]], dim=2)",
                    ),
                ),
            ),
            Wrong(
                "GELU has two versions: the block says which.",
                old="approximate=self.approximate",
                new='approximate="none"',
            ),
            Wrong(
                "The mask must reach the attention: padding was seen.",
                old="attend(query, keys, values, mask, causal",
                new="attend(query, keys, values, None, causal",
            ),
        ),
    ),
    Exercise(
        chapter=4,
        module="transformer",
        parts=("TransformerEncoder.forward",),
        title="a sentence that reads itself",
        points=5,
        minutes=25,
        difficulty="easy",
        tests=(
            "test_encoder_agrees_with_torch",
            "test_padding_and_neighbours_change_nothing_of_what_is_read",
            "test_encoder_dropout_is_only_in_training",
        ),
        wrong=(
            Wrong(
                "A sentence is read in another way if its neighbour in the batch "
                "is longer: who may look at padding?",
                old="block(x, mask.unsqueeze(1))",
                new="block(x)",
            ),
            Wrong(
                "The mask (B, T) says which places may be looked at, not who may "
                "look: which axis of (B, T, N) is that?",
                old="mask.unsqueeze(1)",
                new="mask.unsqueeze(2)",
            ),
            Wrong(
                "A last norm is for pre-norm only: a post-norm block has one at "
                "its end already.",
                old="self.norm(x) if self.pre_norm else x",
                new="self.norm(x)",
            ),
            Wrong(
                "Where does the norm stand without `pre_norm`? As in BERT, before "
                "the blocks.",
                old="x = self.norm(x)\n",
                new="pass\n",
            ),
            Wrong(
                "This is an encoder: every word sees those behind it as well.",
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
        title="the picture as a prefix, and a cache",
        points=16,
        minutes=90,
        difficulty="hard",
        tests=(
            "test_decoder_with_a_prefix_is_torchs_encoder_with_a_mask",
            "test_the_memory_is_projected_once[prefix]",
            "test_the_weights_are_those_of_the_layers_in_order[prefix]",
            "test_the_embedding_is_also_the_output[prefix]",
            "test_a_text_longer_than_the_positions_is_refused[prefix]",
        ),
        wrong=(
            Wrong(
                "The full forward is right, but stepping is not: the next state "
                "must hold the keys and values of the new words, too.",
                old="TransformerState(past, state.memory",
                new="TransformerState(state.past, state.memory",
            ),
            Wrong(
                "Stepping goes wrong at the second word: at which position does "
                "it stand?",
                old="self.embedding(tokens, state.length)",
                new="self.embedding(tokens)",
            ),
            Wrong(
                "The state must remember how many words there are now.",
                old="state.mask, length), looked",
                new="state.mask, state.length), looked",
            ),
            Wrong(
                "The mask speaks of the prefix and of all words so far, also "
                "those that are in the cache only.",
                old="F.pad(memory_mask, (0, length), value=True)",
                new="F.pad(memory_mask, (0, tokens.size(1)), value=True)",
            ),
            Wrong(
                "Words look at the padding of the prefix.",
                old="mask = F.pad(memory_mask, (0, length), value=True)",
                new="mask = None",
            ),
            Wrong(
                "The places of the prefix see one another, all of them: the "
                "picture has no order in time.",
                old="block(x, memory.mask.unsqueeze(1))",
                new="block(x, memory.mask.unsqueeze(1), True)",
            ),
            Wrong(
                "The keys and values of the last block are of what it norms "
                "first, as a block does.",
                old="keys_values(last.norm1(x))",
                new="keys_values(x)",
            ),
            Wrong(
                "One norm more stands between the last block and the words.",
                old="F.linear(self.norm(x),",
                new="F.linear(x,",
            ),
        ),
    ),
    Exercise(
        chapter=4,
        module="transformer",
        parts=("TransformerDecoder.reorder", "_pick"),
        title="beams that change places",
        points=8,
        minutes=40,
        difficulty="hard",
        tests=(
            "test_beams_of_a_memory_stay_together_change_places_and_leave",
            "test_beams_do_not_copy_the_memory",
            "test_a_state_can_be_returned_to",
        ),
        wrong=(
            Wrong(
                "A beam that takes another's place takes the words along that "
                "this one has written: they are in its cache.",
                old="past = _pick(state.past, index)",
                new="past = state.past",
            ),
            Wrong(
                "The beams of a picture share its memory, which is then not "
                "copied for each: `memory_index` says which are needed.",
                old=(
                    'index if self.fusion == "prefix" else memory_index(index, '
                    "rows, len(mask))"
                ),
                new="index",
            ),
            Wrong(
                "When a picture leaves, its mask leaves as well.",
                old="mask = mask.index_select(0, owner)",
                new="mask = mask",
            ),
            Wrong(
                "The mask is right, but what is it of? Keys and values of the "
                "memory have to follow the pictures, too.",
                old="memory = _pick(memory, owner)",
                new="memory = memory",
            ),
            Wrong(
                "How many words there are does not change when beams change places.",
                old="memory, mask, state.length)",
                new="memory, mask, 0)",
            ),
            Wrong(
                "How many sentences were there before? That is not the number of "
                "those that are wanted.",
                old="rows = len(mask) if past[0] is None else len(state.past[0][0])",
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
                "A feature map has its D channels before rows and columns, as a "
                "CNN's has.",
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
