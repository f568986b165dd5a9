"""The exercises of chapter 5: cross-attention fusion."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        5, "attention", ("masked_softmax",), "softmax among what may be seen", 6, 30, "easy",
        "test_masked_softmax_is_the_softmax_of_what_may_be_seen test_masked_softmax_of_nothing_is_zero_with_finite_gradients",
        (
            Wrong("Every hidden place must be out of the softmax before it is computed: what is erased afterwards has had its "
                  "share.",
                  "scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)", "scores = scores"),
            Wrong("A score of 0 is a score like others, and often a high one. What must stand there for a weight of 0?",
                  "torch.finfo(scores.dtype).min)", "0.0)"),
            Wrong("Which axis sums to one? The weights of a query run over the places, the last axis.",
                  "return scores.softmax(-1).masked_fill", "return scores.softmax(-2).masked_fill"),
            Wrong("-1e9 is not in float16's range, and where nothing may be seen it is no answer either: ask the format for "
                  "its lowest number.",
                  "torch.finfo(scores.dtype).min", "-1e9"),
            Wrong("Where nothing may be seen all weights must be 0, not 1/N.", ".masked_fill(~mask, 0.0)", ""),
            Wrong("True stands for what may be seen; yours looks just at the rest.",
                  "scores = scores.masked_fill(~mask,", "mask = ~mask\n    scores = scores.masked_fill(~mask,"),
        ),
    ),
    Exercise(
        5, "attention", ("AdditiveAttention.forward",), "attention by a small network, and its gate", 10, 50, "medium",
        "test_additive_attention_is_its_formula test_additive_attention_to_nothing_is_zero_with_finite_gradients",
        (
            Wrong("The score is a network with a bend in it. Without tanh the query would add the same to all scores, and the "
                  "softmax would not notice it.",
                  "hidden.tanh()", "hidden"),
            Wrong("tanh of the sum, not the sum of two tanhs: only in the bend do query and memory meet.",
                  "self.query(query).unsqueeze(2) + self.key(memory).unsqueeze(1)",
                  "self.query(query).tanh().unsqueeze(2) + self.key(memory).tanh().unsqueeze(1)",
                  (("hidden.tanh()", "hidden"),)),
            Wrong("First tanh, then v: a score may be larger than 1.",
                  "self.score(hidden.tanh())", "self.score(hidden).tanh()"),
            Wrong("The gate lies between 0 and 1: a sigmoid.", ".sigmoid()", ""),
            Wrong("The gate is for the context. The weights still say where it looked, and sum to one.",
                  "context = context * self.gate(query).sigmoid()",
                  "context, weights = context * self.gate(query).sigmoid(), weights * self.gate(query).sigmoid()"),
            Wrong("The mask must reach the softmax.", ".squeeze(-1), mask)", ".squeeze(-1), None)"),
        ),
    ),
    Exercise(
        5, "attention", ("doubly_stochastic_penalty",), "every place is looked at once", 4, 20, "easy",
        "test_the_penalty_is_its_formula test_padded_words_and_places_are_not_penalised "
        "test_there_is_no_penalty_where_every_place_is_looked_at_once",
        (
            Wrong("What the model looked at behind the end of a caption counts for nothing.",
                  "(weights * words.unsqueeze(-1))", "weights"),
            Wrong("Padded places need not be looked at: for them there is no penalty.",
                  "((1 - looked).square() * places)", "(1 - looked).square()"),
            Wrong("A sum over the places, and a mean over the batch only.", ".sum(1).mean()", ".mean()"),
            Wrong("The mean over the batch, so that the penalty does not depend on its size.", ".sum(1).mean()", ".sum()"),
            Wrong("The sum over the words stands within the square: a place may be looked at in parts.",
                  "(1 - looked).square() * places", "((1 - weights).square() * words.unsqueeze(-1)).sum(1) * places"),
            Wrong("Over a caption, each place: which axis of (B, T, N) is summed, so that (B, N) is left?",
                  "words.unsqueeze(-1)).sum(1)", "words.unsqueeze(-1)).sum(2)"),
        ),
    ),
    Exercise(
        5, "recurrent", ("LSTMDecoder._look", "LSTMDecoder._read_out"), "a hidden state that asks", 11, 60, "medium",
        "test_a_word_is_read_out_of_the_state_and_of_what_it_sees test_a_prefix_is_read_once_and_cross_attention_looks_again "
        "test_a_sentence_is_read_out_at_once_and_where_it_looked_is_told test_what_is_read_out_is_dropped_and_only_in_training",
        (
            Wrong("The state and what it sees stand side by side, the state first.",
                  "torch.cat([outputs, context], dim=-1)", "torch.cat([context, outputs], dim=-1)"),
            Wrong("A tanh stands between the matrix that combines and the words.",
                  "self.combine(outputs).tanh()", "self.combine(outputs)"),
            Wrong("Each place has one vector, but some of them are padding: who tells the attention?",
                  "tokens, tokens, mask, need_weights)", "tokens, tokens, None, need_weights)"),
            Wrong("Words have a bias of their own: some are frequent whatever is to be seen.",
                  "self.embedding.weight, self.bias)", "self.embedding.weight)"),
            Wrong("Dropout only in training: after `eval()` nothing is left to chance.",
                  "self.dropout, self.training)", "self.dropout, True)"),
            Wrong("Weights are (B, 1, 1, T, N), as of one layer and one head: the new axes stand before those of words and "
                  "places.",
                  "weights[:, None, None]", "weights[..., None, None]"),
        ),
    ),
    Exercise(
        5, "transformer", ("TransformerBlock.forward",), "a block that looks at words, then at the memory", 11, 60, "medium",
        "test_block_with_cross_attention_agrees_with_torch test_the_weights_of_a_block_are_those_that_torch_has "
        "test_block_dropout_is_in_every_branch_and_only_in_training test_a_block_looks_at_one_memory_for_all_its_beams",
        (
            Wrong("The block looks at the memory through its own attention, `multihead_attn`, and not once more through "
                  "`self_attn`.",
                  "query = self.multihead_attn.queries(y)", "query = self.self_attn.queries(y)"),
            Wrong("Words know no padding, but a memory does: its mask must reach the attention.",
                  "query, *memory, memory_mask, need_weights=need_weights",
                  "query, *memory, need_weights=need_weights"),
            Wrong("Three branches, three norms: the second is for the memory, the third for the small network.",
                  "norm = self.norm3 or self.norm2", "norm = self.norm2"),
            Wrong("What was seen in the memory is added to x, and does not replace it.",
                  "x + self._drop(y.view_as(x))", "self._drop(y.view_as(x))"),
            Wrong("Dropout stands in every branch, in that of the memory as well.", "self._drop(y.view_as(x))", "y.view_as(x)"),
            Wrong("The memory has no order in time: every word sees all of it.",
                  "query, *memory, memory_mask, need_weights=need_weights",
                  "query, *memory, memory_mask, True, need_weights"),
            Wrong("There may be more sentences than memories: the beams of a picture. Let them ask as words of one sentence "
                  "do.",
                  "y = y.reshape(len(memory[0]), -1, y.size(-1))", "y = y"),
        ),
    ),
    Exercise(
        5, "transformer", ("TransformerDecoder.start",), "a memory that is read once", 5, 25, "medium",
        "test_decoder_with_cross_attention_is_torchs_decoder test_the_memory_is_projected_once[cross_attention] "
        "test_decoder_with_a_prefix_is_torchs_encoder_with_a_mask",
        (
            Wrong("Each block has its own keys and values of the memory: it has its own matrices.",
                  "[block.multihead_attn.keys_values(memory.tokens) for block in self.blocks]",
                  "[self.blocks[0].multihead_attn.keys_values(memory.tokens)] * len(self.blocks)"),
            Wrong("It is the cross-attention that will look at these keys: whose matrices make them?",
                  "block.multihead_attn.keys_values(memory.tokens)", "block.self_attn.keys_values(memory.tokens)"),
            Wrong("The memory comes normed from its encoder: the norms of a block are for the words.",
                  "keys_values(memory.tokens) for", "keys_values(block.norm2(memory.tokens)) for"),
            Wrong("No word has been written yet: the length is 0, whatever there is to look at.",
                  "memory.mask, 0)", "memory.mask, memory.tokens.size(1))"),
            Wrong("A state remembers the mask of the memory, or padding is seen.",
                  "seen, memory.mask, 0)", "seen, torch.ones_like(memory.mask), 0)"),
        ),
    ),
    Exercise(
        5, "metrics", ("attention_inside",), "how much of the look falls on the thing", 7, 35, "medium",
        "test_attention_inside_a_box_is_that_of_its_pixels",
        (
            Wrong("Rows of (h, w) run from top to bottom, columns from left to right.",
                  "covered(weights.size(0), top, bottom)", "covered(weights.size(0), left, right)",
                  (("covered(weights.size(1), left, right)", "covered(weights.size(1), top, bottom)"),)),
            Wrong("A place that is only partly within the box counts for just that part.",
                  "edges.clamp(low, high).diff() * positions / size",
                  "(edges.clamp(low, high).diff() * positions / size).ceil()"),
            Wrong("What comes first is a sum of weights, which are shares already; only the area is a mean.",
                  "(weights * inside).sum().item()", "(weights * inside).mean().item()"),
            Wrong("The share of the picture: of all its pixels, and not how many places the box touches.",
                  "inside.mean().item()", "(inside > 0).float().mean().item()"),
            Wrong("Box and picture are in pixels, weights in places: how many pixels does a place have?",
                  "torch.linspace(0, size, positions + 1", "torch.linspace(0, positions, positions + 1"),
        ),
    ),
)
