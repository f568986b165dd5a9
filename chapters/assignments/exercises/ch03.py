"""The exercises of chapter 3: LSTM decoder."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        chapter=3,
        module="recurrent",
        parts=("LSTMCell.forward",),
        title="one step of a long short-term memory",
        points=5,
        minutes=30,
        difficulty="easy",
        tests=(
            "test_lstm_cell_agrees_with_torch",
        ),
        wrong=(
            Wrong(
                "The gates come in the order i, f, g, o.",
                old="i, f, g, o = gates",
                new="i, f, o, g = gates",
            ),
            Wrong(
                "The forget gate multiplies the old cell, the input gate the new "
                "content.",
                old="i, f, g, o = gates",
                new="f, i, g, o = gates",
            ),
            Wrong(
                "Three gates are sigmoids; g is the content written into the "
                "cell, from -1 to 1.",
                old="g.tanh()",
                new="g.sigmoid()",
            ),
            Wrong(
                "The hidden state shows the cell through a tanh.",
                old="cell.tanh()",
                new="cell",
            ),
            Wrong(
                "There are two biases, as in torch: one for the input and one for "
                "the hidden state.",
                old="F.linear(hidden, self.weight_hh, self.bias_hh)",
                new="F.linear(hidden, self.weight_hh)",
            ),
            Wrong(
                "The hidden state is computed from the new cell, not from the old one.",
                old=(
                    "cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()\n"
                    "        hidden = o.sigmoid() * cell.tanh()"
                ),
                new=(
                    "hidden = o.sigmoid() * cell.tanh()\n"
                    "        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()"
                ),
            ),
            Wrong(
                "A state is (hidden, cell), in this order.",
                old="return hidden, cell",
                new="return cell, hidden",
            ),
        ),
    ),
    Exercise(
        chapter=3,
        module="recurrent",
        parts=("LSTM.forward", "LSTM._run"),
        title="whole sentences, in layers and in both directions",
        points=20,
        minutes=100,
        difficulty="hard",
        tests=(
            "test_lstm_agrees_with_torch",
            "test_lstm_repeats_the_cell",
            "test_lstm_step_by_step_equals_the_whole_sequence",
            "test_steps_after_the_end_have_no_effect",
            "test_dropout_is_between_layers_and_only_in_training",
            "test_one_layer_has_no_dropout",
            "test_lstm_stays_on_the_device_of_its_input",
        ),
        wrong=(
            Wrong(
                "The LSTM that reads from the end also writes its outputs from "
                "the end: reverse them again.",
                old="            output = output.flip(0)",
                new="            pass",
            ),
            Wrong(
                "The last state must be that of the last word, not that of the "
                "padding after it.",
                old="weight_hh, ended)",
                new="weight_hh, None)",
            ),
            Wrong(
                "Past the end of a sentence, the outputs are zero.",
                old="output = output.masked_fill(ended, 0.0)",
                new="pass",
            ),
            Wrong(
                "Read from the end, the padding comes first: the mask of ended "
                "steps must be reversed as well.",
                old="ended = ended.flip(0)",
                new="pass",
            ),
            Wrong(
                "There are two biases, as in torch.",
                old="bias_ih + bias_hh",
                new="bias_ih",
            ),
            Wrong(
                "Dropout goes between layers, not before the first one.",
                old="if layer > 0:",
                new="if True:",
            ),
            Wrong(
                "Dropout is for training only.",
                old="self.dropout, self.training",
                new="self.dropout, True",
            ),
            Wrong(
                "Each layer has a state of its own, and with two directions each "
                "layer has two.",
                old="first_hidden[len(hiddens)]",
                new="first_hidden[layer]",
                more=(
                    ("first_cell[len(cells)]", "first_cell[layer]"),
                ),
            ),
            Wrong(
                "0 · NaN is NaN: inputs past the end must be left out, as "
                "torch.where does, not multiplied by 0.",
                old=(
                    "output, cell = LSTMFunction.apply(inputs, hidden, cell, "
                    "weight_hh, ended)"
                ),
                new=(
                    "output = []\n"
                    "        keep = x.new_zeros(len(x), 1, 1) if ended is None "
                    "else ended.to(x.dtype)\n"
                    "        for t in range(len(inputs)):\n"
                    "            i, f, g, o = (inputs[t] + hidden @ "
                    "weight_hh.t()).chunk(4, dim=-1)\n"
                    "            new_cell = f.sigmoid() * cell + i.sigmoid() * "
                    "g.tanh()\n"
                    "            cell = keep[t] * cell + (1 - keep[t]) * new_cell\n"
                    "            hidden = keep[t] * hidden + (1 - keep[t]) * "
                    "(o.sigmoid() * cell.tanh())\n"
                    "            output.append(hidden)\n"
                    "        output = torch.stack(output)"
                ),
            ),
            Wrong(
                "The first state must be where the input is: torch.zeros makes it on "
                "the CPU.",
                old=(
                    "x.new_zeros(self.num_layers * len(self.directions), x.size(0), "
                    "self.hidden_size)"
                ),
                new=(
                    "torch.zeros(self.num_layers * len(self.directions), x.size(0), "
                    "self.hidden_size)"
                ),
            ),
        ),
    ),
    Exercise(
        chapter=3,
        module="recurrent",
        parts=("LSTMFunction.backward", "LSTMFunction.forward"),
        title="backpropagation through time by hand",
        points=25,
        minutes=120,
        difficulty="hard",
        tests=(
            "test_lstm_agrees_with_torch",
            "test_lstm_repeats_the_cell",
            "test_lstm_under_autocast_is_close_to_float32",
            "test_lstm_without_gradients_saves_no_graph",
        ),
        wrong=(
            Wrong(
                "h' = o tanh(c'): the gradient of the cell also contains the "
                "slope of this tanh.",
                old="d_hidden * o * (1 - tanh_cell * tanh_cell)",
                new="d_hidden * o",
            ),
            Wrong(
                "The forget gate multiplied the cell before the step, not the one "
                "after it.",
                old="d_cell * cells[t] * f",
                new="d_cell * cells[t + 1] * f",
            ),
            Wrong(
                "The cell's gradient goes back through the forget gate.",
                old="d_cell = d_cell * f",
                new="d_cell = d_cell",
            ),
            Wrong(
                "The hidden state of a step goes two ways: to the output, and "
                "into the next step. The two gradients add up.",
                old="d_hidden = d_hidden + d_output[t]",
                new="d_hidden = d_output[t]",
            ),
            Wrong(
                "A row that has ended passes its hidden state on unchanged, so its "
                "gradient passes unchanged, too.",
                old="d_copied = 0 if ended is None else ended[t] * d_hidden",
                new="d_copied = 0",
            ),
            Wrong(
                "W_hh was multiplied by the hidden state before each step, not by "
                "the one after it.",
                old="hiddens[:-1].flatten(0, 1)",
                new="hiddens[1:].flatten(0, 1)",
            ),
            Wrong(
                "A row that has ended keeps its hidden state.",
                old="hiddens[t + 1] += ended[t] * hiddens[t]",
                new="pass",
            ),
            Wrong(
                "A row that has ended keeps its cell: its forget gate is 1, and "
                "nothing is written.",
                old="gates[..., H : 2 * H].masked_fill_(ended, torch.inf)",
                new="pass",
            ),
        ),
    ),
    Exercise(
        chapter=3,
        module="attention",
        parts=("Memory.mean",),
        title="the average of the real positions",
        points=2,
        minutes=10,
        difficulty="easy",
        tests=(
            "test_mean_of_a_memory_ignores_padding",
        ),
        wrong=(
            Wrong(
                "Padding is in your average: both the sum and the count must "
                "leave it out.",
                old="(self.tokens * mask).sum(1) / mask.sum(1).clamp(min=1)",
                new="self.tokens.mean(1)",
            ),
            Wrong(
                "Divide by the number of real positions, not of all positions.",
                old="mask.sum(1).clamp(min=1)",
                new="mask.size(1)",
            ),
            Wrong(
                "The vectors at padded positions must not be added.",
                old="(self.tokens * mask)",
                new="self.tokens",
            ),
            Wrong(
                "Without any real position, the mean is 0 here; 0 / 0 is NaN.",
                old=".clamp(min=1)",
                new="",
            ),
            Wrong(
                "Average over the positions, separately for each dimension: (B, "
                "N, D) -> (B, D).",
                old="(self.tokens * mask).sum(1)",
                new="(self.tokens * mask).sum(-1)",
            ),
            Wrong(
                "The memory must not change: a product in place erases what the "
                "decoder will read.",
                old="(self.tokens * mask).sum(1)",
                new="self.tokens.mul_(mask).sum(1)",
            ),
        ),
    ),
    Exercise(
        chapter=3,
        module="recurrent",
        parts=("LSTMDecoder.start", "LSTMDecoder.step"),
        title="the initial state, and one step per word",
        points=10,
        minutes=60,
        difficulty="medium",
        tests=(
            "test_initial_state_matches_its_formula",
            "test_step_continues_from_the_previous_state",
            "test_initial_state_depends_on_more_than_the_mean_of_the_memory",
            "test_only_cross_attention_reads_the_memory_at_each_step",
            "test_logits_are_computed_from_state_and_context",
            "test_beams_of_a_memory_step_together",
        ),
        wrong=(
            Wrong(
                "The mean is over the real positions: padding must not be in it.",
                old="Memory(features, memory.mask).mean()",
                new="features.mean(1)",
            ),
            Wrong(
                "Apply the relu to each position, before the mean: in the mean, "
                "opposites have already cancelled out.",
                old=".relu()",
                new="",
                more=(
                    (
                        "Memory(features, memory.mask).mean()",
                        "Memory(features, memory.mask).mean().relu()",
                    ),
                ),
            ),
            Wrong(
                "The initial state lies between -1 and 1, like the LSTM's own: "
                "see the formula.",
                old=".tanh()",
                new="",
            ),
            Wrong(
                "Layers and sentences are mixed up: view only cuts the last axis "
                "into pieces, and permute then moves them.",
                old="state.view(state.size(0), 2, self.lstm.num_layers, -1)",
                new="state.view(2, self.lstm.num_layers, state.size(0), -1)",
                more=(
                    (".permute(1, 2, 0, 3)", ""),
                ),
            ),
            Wrong(
                "The next step must start from the state in which this one ended.",
                old="LSTMState(hidden, cell, state.memory)",
                new="LSTMState(state.hidden, state.cell, state.memory)",
            ),
            Wrong(
                "In training, words go through _embed, which scales them: a step "
                "must do the same.",
                old="self._embed(token.unsqueeze(1))",
                new="self.embedding(token.unsqueeze(1))",
            ),
            Wrong(
                "The LSTM's state has two parts, hidden and cell, and needs both.",
                old="(state.hidden, state.cell)",
                new="(state.hidden, torch.zeros_like(state.cell))",
            ),
            Wrong(
                "In a beam search there are fewer memories than sentences: how many "
                "are there?",
                old="memories = len(state.memory.tokens)",
                new="memories = len(token)",
            ),
        ),
    ),
    Exercise(
        chapter=3,
        module="decoding",
        parts=("greedy_search", "_word_by_word", "_log_probs"),
        title="always the most probable word",
        points=12,
        minutes=60,
        difficulty="medium",
        tests=(
            "test_greedy_search_needs_only_start_and_step",
            "test_empty_sentences_and_sentences_of_max_length",
            "test_greedy_search_stops_when_all_sentences_have_ended",
            "test_max_length_cuts_sentences",
            "test_greedy_search_never_generates_special_tokens",
            "test_half_precision_logits_are_summed_in_float32",
            "test_greedy_search_keeps_no_gradients_and_changes_nothing",
            "test_log_probs_of_large_logits_are_finite",
        ),
        wrong=(
            Wrong(
                "<pad>, <bos> and <unk> are never generated, however probable they "
                "are.",
                old="log_probs[:, [PAD, BOS, UNK]] = -torch.inf",
                new="pass",
            ),
            Wrong(
                "The log-probability is the model's own: forbidden tokens keep their "
                "probability, which is not redistributed.",
                old="return log_probs\n",
                new="return log_probs.log_softmax(-1)\n",
            ),
            Wrong(
                "A sentence that has ended adds no more log-probability while the "
                "others continue.",
                old=".masked_fill(ended, 0.0)",
                new="",
            ),
            Wrong(
                "Continue until the last sentence has ended, not the first.",
                old="ended.all()",
                new="ended.any()",
            ),
            Wrong(
                "When all sentences have ended, stop: no further step is needed.",
                old="if ended.all():",
                new="if False:",
            ),
            Wrong(
                "Which token does the decoder get before the first word?",
                old="BOS, device",
                new="EOS, device",
            ),
            Wrong(
                "Each step starts from the state that the previous step returned.",
                old="logits, state = decoder.step",
                new="logits, _ = decoder.step",
            ),
            Wrong(
                "Sum log-probabilities in float32: half precision is too coarse.",
                old="logits.float().log_softmax(-1)",
                new="logits.log_softmax(-1)",
            ),
            Wrong(
                "Nothing is trained here: turn gradients off, so that no graph is "
                "stored.",
                old="@torch.no_grad()\n",
                new="",
            ),
            Wrong(
                "exp(89) is infinite in float32, and so is the sum: log_softmax "
                "subtracts the largest logit first.",
                old="log_probs = logits.float().log_softmax(-1)",
                new=(
                    "weights = logits.float().exp()\n"
                    "    log_probs = (weights / weights.sum(-1, keepdim=True)).log()"
                ),
            ),
            Wrong(
                "The softmax of a very improbable word is 0 in float32, and its "
                "logarithm -inf: take both at once.",
                old="log_probs = logits.float().log_softmax(-1)",
                new="log_probs = logits.float().softmax(-1).log()",
            ),
        ),
    ),
)
