"""The exercises of chapter 3: LSTM decoder."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        3, "recurrent", ("LSTMCell.forward",), "one step of a long short-term memory", 5, 30, "easy",
        "test_lstm_cell_agrees_with_torch",
        (
            Wrong("The gates stand in the order i, f, g, o.", "i, f, g, o = gates", "i, f, o, g = gates"),
            Wrong("The forget gate is for the old cell, the input gate for what is new.",
                  "i, f, g, o = gates", "f, i, g, o = gates"),
            Wrong("Three gates are sigmoids; g is what is written into the cell, from -1 to 1.", "g.tanh()", "g.sigmoid()"),
            Wrong("The hidden state shows the cell through a tanh.", "cell.tanh()", "cell"),
            Wrong("There are two biases, as in torch: one for the input and one for the hidden state.",
                  "F.linear(hidden, self.weight_hh, self.bias_hh)", "F.linear(hidden, self.weight_hh)"),
            Wrong("The hidden state is made of the new cell, not of the old one.",
                  "cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()\n        hidden = o.sigmoid() * cell.tanh()",
                  "hidden = o.sigmoid() * cell.tanh()\n        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()"),
            Wrong("A state is (hidden, cell), in this order.", "return hidden, cell", "return cell, hidden"),
        ),
    ),
    Exercise(
        3, "recurrent", ("LSTM.forward", "LSTM._run"), "whole sentences, in layers and both ways", 20, 100, "hard",
        "test_lstm_agrees_with_torch test_lstm_takes_many_steps_of_the_cell test_lstm_step_by_step_gives_what_it_gives_at_once "
        "test_what_stands_behind_the_end_may_be_anything test_dropout_is_between_layers_and_only_in_training "
        "test_one_layer_has_no_dropout",
        (
            Wrong("The LSTM that reads from the end writes its outputs from the end as well: turn them around again.",
                  "            output = output.flip(0)", "            pass"),
            Wrong("The last state must be that of the last word, not of the padding behind it.",
                  "weight_hh, ended)", "weight_hh, None)"),
            Wrong("Behind a sentence's end the outputs are zero.", "output = output * live", "output = output"),
            Wrong("Read from the end, the padding comes first: where a sentence has ended must be turned around as well.",
                  "x.flip(0), None if live is None else ended.flip(0)", "x.flip(0), ended"),
            Wrong("There are two biases, as in torch.", "bias_ih + bias_hh", "bias_ih"),
            Wrong("Dropout is between layers: not before the first.", "if layer > 0:", "if True:"),
            Wrong("Dropout is for training only.", "self.dropout, self.training", "self.dropout, True"),
            Wrong("Each layer has a state of its own, and with two directions each layer has two.",
                  "state[0][len(hiddens)], state[1][len(cells)]", "state[0][layer], state[1][layer]"),
            Wrong("0 · NaN is NaN: what is behind the end must not be weighed with 0 but left out, as torch.where does.",
                  "output, cell = _Steps.apply(inputs, hidden, cell.to(weight_ih.dtype), weight_hh, ended)",
                  "output, keep = [], x.new_zeros(len(x), 1, 1) if ended is None else ended.to(x.dtype)\n"
                  "        for t in range(len(inputs)):\n"
                  "            i, f, g, o = (inputs[t] + hidden @ weight_hh.t()).chunk(4, dim=-1)\n"
                  "            cell = keep[t] * cell + (1 - keep[t]) * (f.sigmoid() * cell + i.sigmoid() * g.tanh())\n"
                  "            hidden = keep[t] * hidden + (1 - keep[t]) * (o.sigmoid() * cell.tanh())\n"
                  "            output.append(hidden)\n"
                  "        output = torch.stack(output)"),
        ),
    ),
    Exercise(
        3, "recurrent", ("_Steps.backward", "_Steps.forward"), "backpropagation through time by hand", 25, 120, "hard",
        "test_lstm_agrees_with_torch test_lstm_takes_many_steps_of_the_cell test_lstm_under_autocast_is_close_to_float32 "
        "test_lstm_keeps_nothing_without_gradients",
        (
            Wrong("h' = o tanh(c'): on the way back to the cell, the slope of this tanh counts too.",
                  "d_hidden * o * (1 - squashed * squashed)", "d_hidden * o"),
            Wrong("What the forget gate multiplied is the cell before the step, not the one behind it.",
                  "d_cell * cells[t] * f", "d_cell * cells[t + 1] * f"),
            Wrong("The cell's gradient goes back through the forget gate.", "d_cell = d_cell * f", "d_cell = d_cell"),
            Wrong("The hidden state of a step goes two ways: to the output, and into the next step. Both gradients add up.",
                  "d_hidden = d_hidden + d_output[t]", "d_hidden = d_output[t]"),
            Wrong("A row that has ended hands its hidden state on, and so its gradient.",
                  "kept = 0 if ended is None else ended[t] * d_hidden", "kept = 0"),
            Wrong("W_hh was multiplied with the hidden state before each step, not with the one behind it.",
                  "@ hiddens[:-1].flatten(0, 1)", "@ hiddens[1:].flatten(0, 1)"),
            Wrong("A row that has ended keeps its hidden state.", "hiddens[t + 1] += ended[t] * hiddens[t]", "pass"),
            Wrong("A row that has ended keeps its cell: its forget gate is 1, and nothing is written.",
                  "gates[..., width : 2 * width].masked_fill_(ended, torch.inf)", "pass"),
        ),
    ),
    Exercise(
        3, "attention", ("Memory.mean",), "the average of what is there", 2, 10, "easy",
        "test_the_mean_of_a_memory_leaves_padding_out",
        (
            Wrong("Padding is among what is averaged: both the sum and the number must leave it out.",
                  "(self.tokens * mask).sum(1) / mask.sum(1).clamp(min=1)", "self.tokens.mean(1)"),
            Wrong("Divide by how many places are real, not by how many there are.", "mask.sum(1).clamp(min=1)", "mask.size(1)"),
            Wrong("What stands in the padded places must not be added.", "(self.tokens * mask)", "self.tokens"),
            Wrong("Where no place is real, the mean is 0 here; 0 / 0 is NaN.", ".clamp(min=1)", ""),
            Wrong("The average is over the places, and of each number: (B, N, D) -> (B, D).",
                  "(self.tokens * mask).sum(1)", "(self.tokens * mask).sum(-1)"),
        ),
    ),
    Exercise(
        3, "recurrent", ("LSTMDecoder.start", "LSTMDecoder.step"), "a first state, and from word to word", 10, 60, "medium",
        "test_the_first_state_is_its_formula test_a_step_goes_on_from_the_state_before "
        "test_the_first_state_knows_more_than_the_mean_of_the_memory "
        "test_a_prefix_is_read_once_and_cross_attention_looks_again "
        "test_a_word_is_read_out_of_the_state_and_of_what_it_sees",
        (
            Wrong("The mean is of the real places: padding must not be in it.",
                  "Memory(self.glance(memory.tokens).relu(), memory.mask).mean()", "self.glance(memory.tokens).relu().mean(1)"),
            Wrong("The relu is for every place, before the mean: of a mean, opposites would already have cancelled out.",
                  "Memory(self.glance(memory.tokens).relu(), memory.mask).mean()",
                  "Memory(self.glance(memory.tokens), memory.mask).mean().relu()"),
            Wrong("A state lies between -1 and 1, as the LSTM's own: see the formula.", ".tanh()", ""),
            Wrong("The layers and sentences are mixed up: view only cuts the last axis into pieces, permute then moves them.",
                  "first.view(first.size(0), 2, self.lstm.num_layers, -1).permute(1, 2, 0, 3)",
                  "first.view(2, self.lstm.num_layers, first.size(0), -1)"),
            Wrong("The next step must begin where this one has ended.", "LSTMState(hidden, cell, state.memory)",
                  "LSTMState(state.hidden, state.cell, state.memory)"),
            Wrong("In training the words go in through _embed, which scales them: a step must do the same.",
                  "self._embed(token.unsqueeze(1))", "self.embedding(token.unsqueeze(1))"),
            Wrong("The LSTM's state is two things, and both must be given to it.", "(state.hidden, state.cell))  # (B, 1, H)",
                  "(state.hidden, torch.zeros_like(state.cell)))"),
        ),
    ),
    Exercise(
        3, "decoding", ("greedy_search", "_word_by_word", "_log_probs"), "always the most probable word", 12, 60, "medium",
        "test_it_needs_only_start_and_step test_an_empty_sentence_and_one_that_just_fits test_it_stops_when_all_have_ended "
        "test_max_length_cuts test_the_specials_are_never_written test_half_precision_logits_are_added_up_in_full "
        "test_nothing_to_learn_from_is_kept_and_nothing_is_changed",
        (
            Wrong("<pad>, <bos> and <unk> are never written, however probable.",
                  "log_probs[:, [PAD, BOS, UNK]] = -torch.inf", "pass"),
            Wrong("The log-probability is the model's own: what may not be written keeps its share of it.",
                  "return log_probs\n", "return log_probs.log_softmax(-1)\n"),
            Wrong("A sentence that has ended gains no more log-probability while the others go on.",
                  ".masked_fill(ended, 0.0)", ""),
            Wrong("Go on until the last sentence has ended, not the first.", "ended.all()", "ended.any()"),
            Wrong("When all have ended, stop: no step is needed any more.", "if ended.all():", "if False:"),
            Wrong("What does the decoder hear before its first word?", "BOS, device", "EOS, device"),
            Wrong("Each step begins with the state that the step before has left.",
                  "logits, state = decoder.step", "logits, _ = decoder.step"),
            Wrong("Small numbers are added up: half precision is too coarse for that.", "logits.float().log_softmax(-1)",
                  "logits.log_softmax(-1)"),
            Wrong("Nothing is learned here: without gradients there is nothing to keep.", "@torch.no_grad()\n", ""),
        ),
    ),
)
