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
                "The gates stand in the order i, f, g, o.",
                old="i, f, g, o = gates",
                new="i, f, o, g = gates",
            ),
            Wrong(
                "The forget gate is for the old cell, the input gate for what is new.",
                old="i, f, g, o = gates",
                new="f, i, g, o = gates",
            ),
            Wrong(
                "Three gates are sigmoids; g is what is written into the cell, "
                "from -1 to 1.",
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
                old=(
                    "F.linear(\n"
                    "            hidden, self.weight_hh, self.bias_hh\n"
                    "        )"
                ),
                new="F.linear(hidden, self.weight_hh)",
            ),
            Wrong(
                "The hidden state is made of the new cell, not of the old one.",
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
        title="whole sentences, in layers and both ways",
        points=20,
        minutes=100,
        difficulty="hard",
        tests=(
            "test_lstm_agrees_with_torch",
            "test_lstm_takes_many_steps_of_the_cell",
            "test_lstm_step_by_step_gives_what_it_gives_at_once",
            "test_what_stands_behind_the_end_may_be_anything",
            "test_dropout_is_between_layers_and_only_in_training",
            "test_one_layer_has_no_dropout",
        ),
        wrong=(
            Wrong(
                "The LSTM that reads from the end writes its outputs from the end "
                "as well: turn them around again.",
                old="            output = output.flip(0)",
                new="            pass",
            ),
            Wrong(
                "The last state must be that of the last word, not of the padding "
                "behind it.",
                old=(
                    "weight_hh, ended\n"
                    "        )"
                ),
                new="weight_hh, None)",
            ),
            Wrong(
                "Behind a sentence's end the outputs are zero.",
                old="output = output * live",
                new="output = output",
            ),
            Wrong(
                "Read from the end, the padding comes first: where a sentence has "
                "ended must be turned around as well.",
                old="x.flip(0), None if live is None else ended.flip(0)",
                new="x.flip(0), ended",
            ),
            Wrong(
                "There are two biases, as in torch.",
                old="bias_ih + bias_hh",
                new="bias_ih",
            ),
            Wrong(
                "Dropout is between layers: not before the first.",
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
                old="state[0][len(hiddens)], state[1][len(cells)]",
                new="state[0][layer], state[1][layer]",
            ),
            Wrong(
                "0 · NaN is NaN: what is behind the end must not be weighed with "
                "0 but left out, as torch.where does.",
                old=(
                    "output, cell = LSTMFunction.apply(\n"
                    "            inputs, hidden, cell.to(weight_ih.dtype), "
                    "weight_hh, ended\n"
                    "        )"
                ),
                new=(
                    "output, keep = [], x.new_zeros(len(x), 1, 1) if ended is "
                    "None else ended.to(x.dtype)\n"
                    "        for t in range(len(inputs)):\n"
                    "            i, f, g, o = (inputs[t] + hidden @ "
                    "weight_hh.t()).chunk(4, dim=-1)\n"
                    "            cell = keep[t] * cell + (1 - keep[t]) * "
                    "(f.sigmoid() * cell + i.sigmoid() * g.tanh())\n"
                    "            hidden = keep[t] * hidden + (1 - keep[t]) * "
                    "(o.sigmoid() * cell.tanh())\n"
                    "            output.append(hidden)\n"
                    "        output = torch.stack(output)"
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
            "test_lstm_takes_many_steps_of_the_cell",
            "test_lstm_under_autocast_is_close_to_float32",
            "test_lstm_keeps_nothing_without_gradients",
        ),
        wrong=(
            Wrong(
                "h' = o tanh(c'): on the way back to the cell, the slope of this "
                "tanh counts too.",
                old="d_hidden * o * (1 - squashed * squashed)",
                new="d_hidden * o",
            ),
            Wrong(
                "What the forget gate multiplied is the cell before the step, not "
                "the one behind it.",
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
                "into the next step. Both gradients add up.",
                old="d_hidden = d_hidden + d_output[t]",
                new="d_hidden = d_output[t]",
            ),
            Wrong(
                "A row that has ended hands its hidden state on, and so its gradient.",
                old="kept = 0 if ended is None else ended[t] * d_hidden",
                new="kept = 0",
            ),
            Wrong(
                "W_hh was multiplied with the hidden state before each step, not "
                "with the one behind it.",
                old=(
                    "@ hiddens[:-1].flatten(\n"
                    "            0, 1\n"
                    "        )"
                ),
                new="@ hiddens[1:].flatten(0, 1)",
            ),
            Wrong(
                "A row that has ended keeps its hidden state.",
                old="hiddens[t + 1] += ended[t] * hiddens[t]",
                new="pass",
            ),
            Wrong(
                "A row that has ended keeps its cell: its forget gate is 1, and "
                "nothing is written.",
                old="gates[..., width : 2 * width].masked_fill_(ended, torch.inf)",
                new="pass",
            ),
        ),
    ),
    Exercise(
        chapter=3,
        module="attention",
        parts=("Memory.mean",),
        title="the average of what is there",
        points=2,
        minutes=10,
        difficulty="easy",
        tests=(
            "test_the_mean_of_a_memory_leaves_padding_out",
        ),
        wrong=(
            Wrong(
                "Padding is among what is averaged: both the sum and the number "
                "must leave it out.",
                old="(self.tokens * mask).sum(1) / mask.sum(1).clamp(min=1)",
                new="self.tokens.mean(1)",
            ),
            Wrong(
                "Divide by how many places are real, not by how many there are.",
                old="mask.sum(1).clamp(min=1)",
                new="mask.size(1)",
            ),
            Wrong(
                "What stands in the padded places must not be added.",
                old="(self.tokens * mask)",
                new="self.tokens",
            ),
            Wrong(
                "Where no place is real, the mean is 0 here; 0 / 0 is NaN.",
                old=".clamp(min=1)",
                new="",
            ),
            Wrong(
                "The average is over the places, and of each number: (B, N, D) -> "
                "(B, D).",
                old="(self.tokens * mask).sum(1)",
                new="(self.tokens * mask).sum(-1)",
            ),
        ),
    ),
    Exercise(
        chapter=3,
        module="recurrent",
        parts=("LSTMDecoder.start", "LSTMDecoder.step"),
        title="a first state, and from word to word",
        points=10,
        minutes=60,
        difficulty="medium",
        tests=(
            "test_the_first_state_is_its_formula",
            "test_a_step_goes_on_from_the_state_before",
            "test_the_first_state_knows_more_than_the_mean_of_the_memory",
            "test_a_prefix_is_read_once_and_cross_attention_looks_again",
            "test_a_word_is_read_out_of_the_state_and_of_what_it_sees",
        ),
        wrong=(
            Wrong(
                "The mean is of the real places: padding must not be in it.",
                old="Memory(self.init_proj(memory.tokens).relu(), memory.mask).mean()",
                new="self.init_proj(memory.tokens).relu().mean(1)",
            ),
            Wrong(
                "The relu is for every place, before the mean: of a mean, "
                "opposites would already have cancelled out.",
                old="Memory(self.init_proj(memory.tokens).relu(), memory.mask).mean()",
                new="Memory(self.init_proj(memory.tokens), memory.mask).mean().relu()",
            ),
            Wrong(
                "A state lies between -1 and 1, as the LSTM's own: see the formula.",
                old=".tanh()",
                new="",
            ),
            Wrong(
                "The layers and sentences are mixed up: view only cuts the last "
                "axis into pieces, permute then moves them.",
                old=(
                    "first.view(first.size(0), 2, self.lstm.num_layers, -1).permute(\n"
                    "            1, 2, 0, 3\n"
                    "        )"
                ),
                new="first.view(2, self.lstm.num_layers, first.size(0), -1)",
            ),
            Wrong(
                "The next step must begin where this one has ended.",
                old="LSTMState(hidden, cell, state.memory)",
                new="LSTMState(state.hidden, state.cell, state.memory)",
            ),
            Wrong(
                "In training the words go in through _embed, which scales them: a "
                "step must do the same.",
                old="self._embed(token.unsqueeze(1))",
                new="self.embedding(token.unsqueeze(1))",
            ),
            Wrong(
                "The LSTM's state is two things, and both must be given to it.",
                old=(
                    "(state.hidden, state.cell)\n"
                    "        )  # (B, 1, H)"
                ),
                new="(state.hidden, torch.zeros_like(state.cell)))",
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
                "Nothing is learned here: without gradients, no graph needs to be "
                "stored.",
                old="@torch.no_grad()\n",
                new="",
            ),
        ),
    ),
)
