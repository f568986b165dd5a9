"""The exercises of chapter 5: cross-attention fusion."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        chapter=5,
        module="attention",
        parts=("masked_softmax",),
        title="softmax among what may be seen",
        points=6,
        minutes=30,
        difficulty="easy",
        tests=(
            "test_masked_softmax_is_the_softmax_of_what_may_be_seen",
            "test_masked_softmax_of_nothing_is_zero_with_finite_gradients",
        ),
        wrong=(
            Wrong(
                "Every hidden place must be out of the softmax before it is "
                "computed: what is erased afterwards has had its fraction.",
                old="scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)",
                new="scores = scores",
            ),
            Wrong(
                "A score of 0 is a score like others, and often a high one. What "
                "must stand there for a weight of 0?",
                old="torch.finfo(scores.dtype).min)",
                new="0.0)",
            ),
            Wrong(
                "Which axis sums to one? The weights of a query run over the "
                "places, the last axis.",
                old="return scores.softmax(-1).masked_fill",
                new="return scores.softmax(-2).masked_fill",
            ),
            Wrong(
                "-1e9 is not in float16's range, and where nothing may be seen it "
                "is no answer either: ask the format for its lowest number.",
                old="torch.finfo(scores.dtype).min",
                new="-1e9",
            ),
            Wrong(
                "Where nothing may be seen all weights must be 0, not 1/N.",
                old=".masked_fill(~mask, 0.0)",
                new="",
            ),
            Wrong(
                "True stands for what may be seen; yours looks just at the rest.",
                old="scores = scores.masked_fill(~mask,",
                new=(
                    "mask = ~mask\n"
                    "    scores = scores.masked_fill(~mask,"
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
            "test_additive_attention_is_its_formula",
            "test_additive_attention_to_nothing_is_zero_with_finite_gradients",
        ),
        wrong=(
            Wrong(
                "The score is a network with a bend in it. Without tanh the query "
                "would add the same to all scores, and the softmax would not "
                "notice it.",
                old="hidden.tanh()",
                new="hidden",
            ),
            Wrong(
                "tanh of the sum, not the sum of two tanhs: only in the bend do "
                "query and memory meet.",
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
                "First tanh, then v: a score may be larger than 1.",
                old="self.score(hidden.tanh())",
                new="self.score(hidden).tanh()",
            ),
            Wrong(
                "The gate lies between 0 and 1: a sigmoid.",
                old=".sigmoid()",
                new="",
            ),
            Wrong(
                "The gate is for the context. The weights still say where it "
                "looked, and sum to one.",
                old="context = context * self.gate(query).sigmoid()",
                new=(
                    "context, weights = context * self.gate(query).sigmoid(), "
                    "weights * self.gate(query).sigmoid()"
                ),
            ),
            Wrong(
                "The mask must reach the softmax.",
                old=".squeeze(-1), mask)",
                new=".squeeze(-1), None)",
            ),
        ),
    ),
    Exercise(
        chapter=5,
        module="attention",
        parts=("doubly_stochastic_penalty",),
        title="every place is looked at once",
        points=4,
        minutes=20,
        difficulty="easy",
        tests=(
            "test_the_penalty_is_its_formula",
            "test_padded_words_and_places_are_not_penalised",
            "test_there_is_no_penalty_where_every_place_is_looked_at_once",
        ),
        wrong=(
            Wrong(
                "What the model looked at behind the end of a caption counts for "
                "nothing.",
                old="(weights * words.unsqueeze(-1))",
                new="weights",
            ),
            Wrong(
                "Padded places need not be looked at: for them there is no penalty.",
                old="((1 - looked).square() * places)",
                new="(1 - looked).square()",
            ),
            Wrong(
                "A sum over the places, and a mean over the batch only.",
                old=".sum(1).mean()",
                new=".mean()",
            ),
            Wrong(
                "The mean over the batch, so that the penalty does not depend on "
                "its size.",
                old=".sum(1).mean()",
                new=".sum()",
            ),
            Wrong(
                "The sum over the words stands within the square: a place may be "
                "looked at in parts.",
                old="(1 - looked).square() * places",
                new="((1 - weights).square() * words.unsqueeze(-1)).sum(1) * places",
            ),
            Wrong(
                "Over a caption, each place: which axis of (B, T, N) is summed, "
                "so that (B, N) is left?",
                old="words.unsqueeze(-1)).sum(1)",
                new="words.unsqueeze(-1)).sum(2)",
            ),
        ),
    ),
    Exercise(
        chapter=5,
        module="recurrent",
        parts=("LSTMDecoder._attend", "LSTMDecoder._compute_logits"),
        title="a hidden state that asks",
        points=11,
        minutes=60,
        difficulty="medium",
        tests=(
            "test_a_word_is_read_out_of_the_state_and_of_what_it_sees",
            "test_a_prefix_is_read_once_and_cross_attention_looks_again",
            "test_a_sentence_is_read_out_at_once_and_where_it_looked_is_told",
            "test_what_is_read_out_is_dropped_and_only_in_training",
        ),
        wrong=(
            Wrong(
                "The state and what it sees stand side by side, the state first.",
                old="torch.cat([outputs, context], dim=-1)",
                new="torch.cat([context, outputs], dim=-1)",
            ),
            Wrong(
                "A tanh stands between the matrix that combines and the words.",
                old="self.combine(outputs).tanh()",
                new="self.combine(outputs)",
            ),
            Wrong(
                "Each place has one vector, but some of them are padding: who "
                "tells the attention?",
                old=(
                    "tokens, tokens, mask, need_weights\n"
                    "        )"
                ),
                new="tokens, tokens, None, need_weights)",
            ),
            Wrong(
                "Words have a bias of their own: some are frequent whatever is to "
                "be seen.",
                old="self.embedding.weight, self.bias)",
                new="self.embedding.weight)",
            ),
            Wrong(
                "Dropout only in training: after `eval()` nothing is left to chance.",
                old="self.dropout, self.training)",
                new="self.dropout, True)",
            ),
            Wrong(
                "Weights are (B, 1, 1, T, N), as of one layer and one head: the "
                "new axes stand before those of words and places.",
                old="weights[:, None, None]",
                new="weights[..., None, None]",
            ),
        ),
    ),
    Exercise(
        chapter=5,
        module="transformer",
        parts=("TransformerBlock.forward",),
        title="a block that looks at words, then at the memory",
        points=11,
        minutes=60,
        difficulty="medium",
        tests=(
            "test_block_with_cross_attention_agrees_with_torch",
            "test_the_weights_of_a_block_are_those_that_torch_has",
            "test_block_dropout_is_in_every_branch_and_only_in_training",
            "test_a_block_looks_at_one_memory_for_all_its_beams",
        ),
        wrong=(
            Wrong(
                "The block looks at the memory through its own attention, "
                "`multihead_attn`, and not once more through `self_attn`.",
                old="query = self.multihead_attn.queries(y)",
                new="query = self.self_attn.queries(y)",
            ),
            Wrong(
                "Words know no padding, but a memory does: its mask must reach "
                "the attention.",
                old="query, *memory, memory_mask, need_weights=need_weights",
                new="query, *memory, need_weights=need_weights",
            ),
            Wrong(
                "Three branches, three norms: the second is for the memory, the "
                "third for the small network.",
                old="norm = self.norm3 or self.norm2",
                new="norm = self.norm2",
            ),
            Wrong(
                "What was seen in the memory is added to x, and does not replace it.",
                old="x + self._drop(y.view_as(x))",
                new="self._drop(y.view_as(x))",
            ),
            Wrong(
                "Dropout stands in every branch, in that of the memory as well.",
                old="self._drop(y.view_as(x))",
                new="y.view_as(x)",
            ),
            Wrong(
                "The memory has no order in time: every word sees all of it.",
                old="query, *memory, memory_mask, need_weights=need_weights",
                new="query, *memory, memory_mask, True, need_weights",
            ),
            Wrong(
                "There may be more sentences than memories: the beams of a "
                "picture. Let them ask as words of one sentence do.",
                old="y = y.reshape(len(memory[0]), -1, y.size(-1))",
                new="y = y",
            ),
        ),
    ),
    Exercise(
        chapter=5,
        module="transformer",
        parts=("TransformerDecoder.start",),
        title="a memory that is read once",
        points=5,
        minutes=25,
        difficulty="medium",
        tests=(
            "test_decoder_with_cross_attention_is_torchs_decoder",
            "test_the_memory_is_projected_once[cross_attention]",
            "test_decoder_with_a_prefix_is_torchs_encoder_with_a_mask",
        ),
        wrong=(
            Wrong(
                "Each block has its own keys and values of the memory: it has its "
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
                "It is the cross-attention that will look at these keys: whose "
                "matrices make them?",
                old="block.multihead_attn.keys_values(memory.tokens)",
                new="block.self_attn.keys_values(memory.tokens)",
            ),
            Wrong(
                "The memory comes normed from its encoder: the norms of a block "
                "are for the words.",
                old="keys_values(memory.tokens) for",
                new="keys_values(block.norm2(memory.tokens)) for",
            ),
            Wrong(
                "No word has been written yet: the length is 0, whatever there is "
                "to look at.",
                old="memory.mask, 0)",
                new="memory.mask, memory.tokens.size(1))",
            ),
            Wrong(
                "A state remembers the mask of the memory, or padding is seen.",
                old="seen, memory.mask, 0)",
                new="seen, torch.ones_like(memory.mask), 0)",
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
        ),
    ),
)
