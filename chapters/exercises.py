"""The exercises: which pieces of the library a learner writes anew, and how people get them wrong.

Each names its tests. Each has wrong versions, made from the library's by replacing text that occurs once in its parts. They
prove that the tests notice, and where a learner's code fails as one of them does, its hint is the one that fits.
"""

from typing import NamedTuple


class Wrong(NamedTuple):
    """A mistake that people make: what to think about, and what makes it of the library's version."""

    hint: str
    old: str
    new: str
    more: tuple[tuple[str, str], ...] = ()  # further (old, new)


class Exercise(NamedTuple):
    """A piece to write anew."""

    chapter: int
    module: str  # of mmscratch
    parts: tuple[str, ...]  # "function" or "Class.method": what is stubbed, and what is taken from the learner
    title: str
    points: int
    minutes: int
    difficulty: str  # "easy", "medium" or "hard"
    tests: str  # names of test functions of tests/test_<module>.py, with spaces between
    wrong: tuple[Wrong, ...]
    test_file: str = ""  # if it isn't tests/test_<module>.py

    @property
    def name(self) -> str:
        """What a learner calls it: the first of its parts."""
        return self.parts[0]


EXERCISES = (
    # --- 1: images and words -----------------------------------------------------------------------------------------
    Exercise(
        1, "text", ("tokenize",), "a sentence to words and signs", 1, 5, "easy",
        "test_tokenize test_both_spellings_of_an_umlaut_are_the_same_word test_tokens_hold_all_of_the_text_but_spaces",
        (
            Wrong("Spaces alone do not part a text: a comma is a token, and so is every Chinese character. There is a pattern "
                  "for it above the function.",
                  '_TOKEN.findall(unicodedata.normalize("NFC", text.lower()))', "text.lower().split()"),
            Wrong("Small and capital letters should give the same word.", "text.lower()", "text"),
            Wrong("An ü can be one character of Unicode, or a u and two dots. Both look the same and should be the same word.",
                  'unicodedata.normalize("NFC", text.lower())', "text.lower()"),
            Wrong("NFD takes letters and their accents apart, and the pattern then cuts words there. Which form joins them?",
                  '"NFC"', '"NFD"'),
            Wrong("casefold() does more than to make letters small: what happens to ß?", "text.lower()", "text.casefold()"),
        ),
    ),
    Exercise(
        1, "text", ("detokenize",), "tokens to a sentence as a person writes it", 3, 15, "easy",
        "test_detokenize_writes_as_a_person_would test_what_is_joined_is_split_again_in_the_same_way",
        (
            Wrong("A space between all tokens is not how people write: look at commas, brackets and Chinese.",
                  'text += token if together else " " + token', 'text += " " + token if text else token'),
            Wrong("No space before the first token: there is nothing yet to part it from.", "not text or (", "text and ("),
            Wrong("Behind an opening bracket there is no space either.", "or _NO_SPACE_AFTER.fullmatch(text[-1])", ""),
            Wrong("A Chinese character needs no space on either side: look at the token, and at what stands before it.",
                  "or _WIDE.fullmatch(text[-1])", ""),
            Wrong("A token is a sign only if all of it is: 3.5 holds a full stop and is still a number that needs its space.",
                  "_NO_SPACE_BEFORE.fullmatch(token)", "_NO_SPACE_BEFORE.search(token)"),
        ),
    ),
    Exercise(
        1, "text", ("Vocabulary.build",), "the words that are worth a number", 2, 10, "easy",
        "test_build_orders_by_frequency_then_by_spelling test_build_keeps_what_is_frequent_enough "
        "test_a_special_in_a_text_is_only_a_word",
        (
            Wrong("Words that are equally frequent must not stand in the order in which they were met: it is that of the data.",
                  "key=lambda word: (-counts[word], word)", "key=lambda word: -counts[word]"),
            Wrong("The commonest word comes first, not last.", "(-counts[word], word)", "(counts[word], word)"),
            Wrong('"At least min_freq times": a word that is there exactly so often stays.',
                  "count >= min_freq", "count > min_freq"),
            Wrong('A text may hold "<eos>", but the vocabulary has its specials already.', " and word not in SPECIALS", ""),
            Wrong("A word that stands in a sentence twice counts twice.",
                  "for word in sentence)", "for word in set(sentence))"),
        ),
    ),
    Exercise(
        1, "text", ("Vocabulary.encode", "Vocabulary.decode"), "words to numbers and back", 2, 10, "easy",
        "test_the_specials_come_first test_an_unknown_word_is_unk test_a_special_in_a_text_is_only_a_word "
        "test_decode_stops_at_the_first_eos test_encode_then_decode_gives_the_sentence_back",
        (
            Wrong("A word that nobody has seen is no error: it has a number too.",
                  "self.index.get(token, UNK)", "self.index[token]"),
            Wrong("An unknown word must not vanish: <unk> holds its place.",
                  "self.index.get(token, UNK) for token in tokens",
                  "self.index[token] for token in tokens if token in self.index"),
            Wrong('The word "<eos>" in a text is as unknown as any other: it must not become the special.',
                  "self.index.get(token, UNK)", "self.words.index(token) if token in self.words else UNK"),
            Wrong("At <eos> the sentence is over; what stands behind it must not be read.", "break", "continue"),
            Wrong("<pad> is no end: it is left out, and the reading goes on.", "if i == EOS:", "if i in (EOS, PAD):"),
            Wrong("<pad> and <bos> are no words of the sentence. But <unk> stands for one, and stays.",
                  "(PAD, BOS)", "(PAD, BOS, UNK)"),
            Wrong("<bos> is not a word of the sentence either.", "i not in (PAD, BOS)", "i != PAD"),
        ),
    ),
    Exercise(
        1, "images", ("normalize",), "pictures around zero", 1, 5, "easy",
        "test_normalize_is_torchvisions",
        (
            Wrong("MEAN and STD are of numbers from 0 to 1, and the pictures go from 0 to 255.", " * 255", ""),
            Wrong("Which axis is that of the colours? Broadcasting begins from the right.", ".view(3, 1, 1)", ".view(3)"),
            Wrong("The mean has to be brought to the same scale as the picture, and so has the deviation.",
                  "(images - mean) / std", "(images / 255 - mean) / std"),
            Wrong("Divided by the standard deviation, not by its square.",
                  "(images - mean) / std", "(images - mean) / std**2 * 255"),
            Wrong("Scaled but not moved: what is dark should be below zero.", "(images - mean)", "images"),
        ),
    ),
    Exercise(
        1, "batches", ("collate",), "examples to a batch", 3, 15, "easy",
        "test_collate_pads_to_the_longest_of_the_batch",
        (
            Wrong("The batch's own axis comes first: (B, T), not (T, B).", "batch_first=True", "batch_first=False"),
            Wrong("The numbers behind the end are those of <pad>.", "padding_value=PAD", "padding_value=-1"),
            Wrong("Padding belongs behind the words, not before them.",
                  "padding_value=PAD", 'padding_value=PAD, padding_side="left"'),
            Wrong("Of different lengths, the longest decides: nothing of a sentence may be cut off.",
                  "pad_sequence(values,", "pad_sequence([value[: len(values[0])] for value in values],"),
            Wrong("Every sequence is padded, not only the one called target.", "values[0].dim() == 1", 'name == "target"'),
        ),
    ),
    Exercise(
        1, "batches", ("BucketSampler.__iter__",), "sentences of similar length together", 8, 40, "medium",
        "test_each_example_comes_exactly_once_an_epoch test_the_order_depends_on_seed_and_epoch_only "
        "test_start_goes_on_where_another_stopped test_sentences_of_similar_length_come_together",
        (
            Wrong("Much padding: within a pool, sentences of similar length should stand together before the batches are cut.",
                  "pool = sorted(order[first : first + self.pool * self.batch_size], key=self.lengths.__getitem__)",
                  "pool = order[first : first + self.pool * self.batch_size]"),
            Wrong("Only each pool is sorted, not the whole epoch: with pools of one batch, nothing is bucketed.",
                  "range(0, len(order), self.pool * self.batch_size)", "range(0, len(order), len(order))",
                  (("order[first : first + self.pool * self.batch_size]", "order"),)),
            Wrong("The batches of a pool come from short to long: shuffle them too, or the model reads by length.",
                  "torch.randperm(len(batches), generator=generator).tolist()", "range(len(batches))"),
            Wrong("Another epoch, another order: the numbers that chance begins with must depend on the epoch as well.",
                  "_digest(self.seed, self.epoch)", "_digest(self.seed)"),
            Wrong("Seed 0 in epoch 1 gives what seed 1 gives in epoch 0: a sum does not keep two numbers apart.",
                  "_digest(self.seed, self.epoch)", "_digest(self.seed + self.epoch)"),
            Wrong("The order may not depend on torch's common generator, nor move it on: use one of your own for all.",
                  "torch.randperm(len(self.lengths), generator=generator)", "torch.randperm(len(self.lengths))"),
            Wrong("start(epoch, skip) leaves out the first batches of what the epoch would have been; nothing else changes.",
                  "[self.skip :]", ""),
            Wrong("The last batch may be a small one, but its examples must come.",
                  "range(0, len(pool), self.batch_size)", "range(0, len(pool) - self.batch_size + 1, self.batch_size)"),
        ),
    ),
    # --- 2: CNN encoder ----------------------------------------------------------------------------------------------
    Exercise(
        2, "vision", ("conv2d",), "convolution as one matrix product", 20, 120, "medium",
        "test_conv2d_agrees_with_torch",
        (
            Wrong("A picture has four sides, and F.pad wants a number for each of them.", "(padding,) * 4", "(padding,) * 2"),
            Wrong("What deep learning calls convolution does not turn the filter around: see the formula.",
                  "weight.flatten(1)", "weight.flip(2, 3).flatten(1)"),
            Wrong("The stride holds in both directions.", ".unfold(3, columns, stride)", ".unfold(3, columns, 1)"),
            Wrong("The numbers of a window and those of a filter must lie in the same order: channel, row, column.",
                  "windows.permute(0, 2, 3, 1, 4, 5)", "windows.permute(0, 2, 3, 4, 5, 1)"),
            Wrong("Rows and columns of the window have changed places: a filter need not be square.",
                  "windows.permute(0, 2, 3, 1, 4, 5)", "windows.permute(0, 2, 3, 1, 5, 4)"),
            Wrong("What of the bias?", "y = y + bias", "y = y"),
            Wrong("Channels come second: (B, O, H', W').", "return y.permute(0, 3, 1, 2)", "return y"),
        ),
    ),
    Exercise(
        2, "vision", ("BasicBlock.forward", "BasicBlock.__init__", "_shortcut"), "the block of ResNet-18", 8, 40, "medium",
        "test_basic_block_agrees_with_torchvision",
        (
            Wrong("The last ReLU comes after the sum: before it, the block could only add.",
                  "return F.relu(y + (x if self.downsample is None else self.downsample(x)))",
                  "return F.relu(y) + (x if self.downsample is None else self.downsample(x))"),
            Wrong("Where is x? Without what goes around the convolutions it is no residual block.",
                  "y + (x if self.downsample is None else self.downsample(x))", "y"),
            Wrong("The stride sits on the first convolution, not on the second.",
                  "_conv(in_channels, channels, 3, stride)", "_conv(in_channels, channels, 3)",
                  (("_conv(channels, channels, 3)", "_conv(channels, channels, 3, stride)"),)),
            Wrong("There is a ReLU between the two convolutions, or they would be one.", "F.relu(self.bn1(self.conv1(x)))",
                  "self.bn1(self.conv1(x))"),
            Wrong("As many channels but half the size: x must be made to fit then too.",
                  "if stride == 1 and in_channels == out_channels", "if in_channels == out_channels"),
            Wrong("The convolution of the shortcut has a batch norm behind it, as every other one.",
                  ", nn.BatchNorm2d(out_channels))", ")"),
            Wrong("Where x fits as it is, it goes around unchanged: there are no weights on that way.",
                  "if stride == 1 and in_channels == out_channels", "if False"),
        ),
    ),
    Exercise(
        2, "vision", ("Bottleneck.forward", "Bottleneck.__init__"), "the block of ResNet-50", 5, 25, "medium",
        "test_bottleneck_agrees_with_torchvision",
        (
            Wrong("The stride sits on the 3×3, as in torchvision: a 1×1 with a stride passes over three of four places.",
                  "_conv(in_channels, channels, 1)", "_conv(in_channels, channels, 1, stride)",
                  (("_conv(channels, channels, 3, stride)", "_conv(channels, channels, 3)"),)),
            Wrong("How many channels come out of the block? The shortcut must give as many.",
                  "_shortcut(in_channels, 4 * channels, stride)", "_shortcut(in_channels, channels, stride)"),
            Wrong("A ReLU follows on each of the first two batch norms.", "y = F.relu(self.bn2(self.conv2(y)))",
                  "y = self.bn2(self.conv2(y))"),
            Wrong("The last ReLU comes after the sum, not before it.", "y = self.bn3(self.conv3(y))",
                  "y = F.relu(self.bn3(self.conv3(y)))"),
            Wrong("Where is x? Without what goes around the convolutions it is no residual block.",
                  "y + (x if self.downsample is None else self.downsample(x))", "y"),
        ),
    ),
    Exercise(
        2, "vision", ("ResNet.__init__",), "four stages from a list of depths", 20, 100, "hard",
        "test_deep_resnet_has_the_parameters_of_torchvision test_resnet_of_a_list_of_stages_agrees_with_torchvision "
        "test_resnet_features_have_the_promised_shape test_without_classes_there_is_no_classifier",
        (
            Wrong("The first stage keeps the size: before it, the 7×7 and the pooling have halved twice.",
                  "2 if i > 0 and j == 0 else 1", "2 if j == 0 else 1"),
            Wrong("A stage halves the picture once, in its first block, and the blocks behind keep the size.",
                  "2 if i > 0 and j == 0 else 1", "2 if i > 0 else 1"),
            Wrong("What comes out of a Bottleneck is four times as wide, and the next block takes it in.",
                  "channels = (width << i) * block.expansion", "channels = width << i"),
            Wrong("Each stage is twice as wide as the one before.", "channels, width << i, stride", "channels, width, stride",
                  (("(width << i) * block.expansion", "width * block.expansion"),)),
            Wrong("From which depth on are the blocks bottlenecks? A list of stages is of basic blocks.",
                  "depth >= 50", "depth >= 102"),
            Wrong("With num_classes=0 there is no classifier: it has no weights, and out come the features.",
                  "nn.Linear(channels, num_classes) if num_classes else nn.Identity()", "nn.Linear(channels, num_classes)"),
            Wrong("torchvision's first convolution has no bias: a batch norm follows, which takes away any mean.",
                  "stride=2, padding=3, bias=False", "stride=2, padding=3"),
        ),
    ),
    Exercise(
        2, "vision", ("VGG.__init__",), "stacks of 3×3 convolutions", 10, 50, "medium",
        "test_vgg_has_the_parameters_of_torchvision test_vgg_features_agree_with_torchvision "
        "test_without_classes_there_is_no_classifier",
        (
            Wrong("The ReLU comes behind the batch norm: the other way round, the norm would bring negative numbers back.",
                  "layers += [nn.BatchNorm2d(width)] if batch_norm else []", "layers += [nn.ReLU()]",
                  (("layers += [nn.ReLU()]\n                channels",
                    "layers += [nn.BatchNorm2d(width)] if batch_norm else []\n                channels"),)),
            Wrong("A 3×3 takes one place from every side, unless it is padded; only the pooling makes the picture smaller.",
                  "width, 3, padding=1", "width, 3"),
            Wrong("There is one pooling for each stage, not one for each convolution.",
                  "layers += [nn.ReLU()]", "layers += [nn.ReLU(), nn.MaxPool2d(2)]",
                  (("            layers += [nn.MaxPool2d(2)]\n", ""),)),
            Wrong("VGG's convolutions have a bias, also where a batch norm follows.",
                  "width, 3, padding=1", "width, 3, padding=1, bias=not batch_norm",
                  (("nn.init.zeros_(module.bias)", "pass"),)),
            Wrong("The last two stages are equally wide: 512 channels.",
                  "(64, 128, 256, 512, 512)", "(64, 128, 256, 512, 1024)"),
            Wrong("Two hidden layers of 4096, each with its ReLU and its dropout, and then the classes.",
                  "nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(),", ""),
            Wrong("The pooling takes windows of 2×2 that do not overlap.",
                  "nn.MaxPool2d(2)", "nn.MaxPool2d(3, stride=2, padding=1)"),
            Wrong("With num_classes=0 there is no classifier.", "if num_classes:", "if True:"),
        ),
    ),
    Exercise(
        2, "metrics", ("label_scores",), "precision, recall and F1", 10, 50, "medium",
        "test_label_scores_by_hand",
        (
            Wrong("Precision asks of what was said how much was true; recall, of what was true how much was said.",
                  "((tp, found), (tp, there),", "((tp, there), (tp, found),"),
            Wrong("A label that was never said, or is never there: 0 / 0 is 0 here, not NaN.", "of.clamp(min=1)", "of"),
            Wrong("A decision is right too where a label is rightly not found: the accuracy counts those as well.",
                  "(predicted == true).float().mean(0)", "tp / len(true)"),
            Wrong("micro adds up the counts of all labels before it divides; a mean of the labels' scores is macro.",
                  'if average == "micro":', "if False:"),
            Wrong('Without an average, each label has a score of its own; with "macro" there is one number.',
                  "if average else scores", 'if average == "micro" else scores'),
            Wrong("Above the line of F1, what was rightly found counts twice: see the formula.",
                  "(2 * tp, found + there)", "(tp, found + there)"),
            Wrong("The scores are counted for each label over the things, and not for each thing over its labels.",
                  "found, there, tp = predicted.sum(0), true.sum(0), (predicted & true).sum(0)",
                  "found, there, tp = predicted.sum(1), true.sum(1), (predicted & true).sum(1)"),
        ),
    ),
    Exercise(
        2, "metrics", ("confusion_matrix",), "what is taken for what", 4, 20, "easy",
        "test_confusion_matrix_counts_every_pair test_confusion_matrix_agrees_with_scikit_learn",
        (
            Wrong("Rows are the true classes, columns those that were predicted.",
                  "true.long() * num_classes + predicted.long()", "predicted.long() * num_classes + true.long()"),
            Wrong("A pair that occurs twice counts 2: with matrix[true, predicted] += 1 it is written twice, and counts 1.",
                  "return torch.bincount(cells, minlength=num_classes**2)",
                  "return torch.bincount(cells, minlength=num_classes**2).clamp(max=1)"),
            Wrong("Classes that never occur have their rows and columns too.", ", minlength=num_classes**2", ""),
            Wrong("Numbers of 8 bits overflow when they are multiplied: make them long before.",
                  "true.long() * num_classes + predicted.long()", "true * num_classes + predicted"),
            Wrong("Counts are wanted, not shares.", ".view(num_classes, num_classes)",
                  ".view(num_classes, num_classes) / len(true)"),
        ),
    ),
    # --- 3: LSTM decoder ---------------------------------------------------------------------------------------------
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
    # --- 4: transformer decoder --------------------------------------------------------------------------------------
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
                  "attn_mask=mask | blind", "attn_mask=~mask | blind"),
            Wrong("A query that may see nothing: its output is zeros, and not the average of everything.",
                  "output.masked_fill(blind, 0.0)", "output"),
            Wrong("Dropout is for the weights that are used. Those that are returned say where it looked, and have lost "
                  "nothing.",
                  "weights = masked_softmax(scores, mask)", "weights = F.dropout(masked_softmax(scores, mask), dropout)",
                  (("F.dropout(weights, dropout) @ value", "weights @ value"),)),
        ),
    ),
    Exercise(
        4, "attention",
        ("MultiHeadAttention.project", "MultiHeadAttention.queries", "MultiHeadAttention.keys_values",
         "MultiHeadAttention._split"),
        "one matrix, and H heads of it", 6, 30, "medium",
        "test_multi_head_attention_agrees_with_torch test_padding_is_torchs_key_padding_mask "
        "test_keys_and_values_can_be_computed_before",
        (
            Wrong("All numbers are there, but in the wrong place: an axis has to move, and a reshape only cuts anew. Move it "
                  "with permute or transpose.",
                  "heads.permute(2, 0, 3, 1, 4)",
                  "heads.reshape(heads.size(2), heads.size(0), self.num_heads, heads.size(1), -1)"),
            Wrong("A head is D/H neighbouring dimensions. Yours are H apart: in which order do you name the two factors of D?",
                  "(parts, self.num_heads, -1)", "(parts, -1, self.num_heads)",
                  (("permute(2, 0, 3, 1, 4)", "permute(2, 0, 4, 1, 3)"),)),
            Wrong("The rows of the joint matrix are first all queries, then all keys, then all values, and not head after "
                  "head.",
                  "(parts, self.num_heads, -1)", "(self.num_heads, parts, -1)",
                  (("permute(2, 0, 3, 1, 4)", "permute(3, 0, 2, 1, 4)"),)),
            Wrong("Self-attention is right. Which rows of the joint matrix make a query, if keys and values are of a memory?",
                  "slice(self.embed_dim)), 1)[0]", "slice(self.embed_dim, 2 * self.embed_dim)), 1)[0]"),
            Wrong("First keys, then values, in the order in which their rows stand in the joint matrix.",
                  "slice(self.embed_dim, None)), 2)", "slice(self.embed_dim, None)), 2)[::-1]"),
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
                  "self.out_proj(output.transpose(1, 2).flatten(2))", "output.transpose(1, 2).flatten(2)"),
            Wrong("Dropout only in training: after `eval()` the same input gives the same output.",
                  "self.dropout if self.training else 0.0", "self.dropout"),
            Wrong("A mask of (B, T, N) is the same for all heads: where among its axes is the one of the heads?",
                  "mask.unsqueeze(-3)", "mask.unsqueeze(0)"),
            Wrong("With a memory, x asks and the memory answers: queries of the one, keys and values of the other.",
                  "(self.queries(x), *self.keys_values(memory))", "self.project(memory)"),
            Wrong("`causal` must get through to the attention.",
                  "need_weights, causal, dropout)", "need_weights, False, dropout)"),
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
            Wrong("Off by one: with how many words are all positions taken?", "if end > self", "if end >= self"),
            Wrong("The position of a word is its place in the sentence, and not which word it is.",
                  "self.positions.weight[first:end]", "self.positions(tokens % self.positions.num_embeddings)"),
        ),
    ),
    Exercise(
        4, "transformer", ("TransformerBlock.forward", "TransformerBlock._before", "TransformerBlock._after"),
        "attention, then a network for each place", 14, 75, "medium",
        "test_block_agrees_with_torch test_a_block_goes_on_from_its_past",
        (
            Wrong("What attention finds is added to x, and does not replace it.",
                  "x + self._drop(y))\n        if self.multihead_attn", "self._drop(y))\n        if self.multihead_attn"),
            Wrong("With pre-norm, what is added comes of the normed x, but it is added to x as it was: the way from the first "
                  "block to the last stays free.",
                  "self._after(norm, x + self._drop(self.linear2(y)))",
                  "self._after(norm, self._before(norm, x) + self._drop(self.linear2(y)))"),
            Wrong("Each norm has its own place: the first is for attention, the second for the small network.",
                  "norm = self.norm3 or self.norm2", "norm = self.norm3 or self.norm1"),
            Wrong("Post-norm: where does the norm stand if it does not stand before?",
                  "return x if self.pre_norm else norm(x)", "return x"),
            Wrong("The past stands before the new words, in the order of the text, also among keys and values.",
                  "zip(past, seen)", "zip(seen, past)"),
            Wrong("GELU has two versions: the block says which.", "approximate=self.approximate", 'approximate="none"'),
            Wrong("The mask must reach the attention: padding was seen.",
                  "attend(query, *seen, mask, causal", "attend(query, *seen, None, causal"),
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
        4, "transformer", ("TransformerDecoder.reorder",), "beams that change places", 8, 40, "hard",
        "test_beams_of_a_memory_stay_together_change_places_and_leave test_beams_do_not_copy_the_memory "
        "test_a_state_can_be_returned_to",
        (
            Wrong("A beam that takes another's place takes the words along that this one has written: they are in its cache.",
                  "past, memory, mask = pick(state.past, index)", "past, memory, mask = state.past"),
            Wrong("The beams of a picture share its memory, which is then not copied for each: `owners` says which are needed.",
                  'index if self.fusion == "prefix" else owners(index, rows, len(mask))', "index"),
            Wrong("When a picture leaves, its mask leaves as well.",
                  "pick(memory, owner), mask.index_select(0, owner)", "pick(memory, owner), mask"),
            Wrong("The mask is right, but what is it of? Keys and values of the memory have to follow the pictures, too.",
                  "memory, mask = pick(memory, owner), mask", "memory, mask = memory, mask"),
            Wrong("How many words there are does not change when beams change places.",
                  "memory, mask, state.length)", "memory, mask, 0)"),
            Wrong("How many sentences were there before? That is not the number of those that are wanted.",
                  "rows = len(mask) if past[0] is None else len(state.past[0][0])", "rows = len(index)"),
        ),
        test_file="test_decoders.py",
    ),
    # --- 5: cross-attention fusion -----------------------------------------------------------------------------------
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
                  "attend(query, *memory, memory_mask, need_weights=need_weights)",
                  "attend(query, *memory, need_weights=need_weights)"),
            Wrong("Three branches, three norms: the second is for the memory, the third for the small network.",
                  "norm = self.norm3 or self.norm2", "norm = self.norm2"),
            Wrong("What was seen in the memory is added to x, and does not replace it.",
                  "x + self._drop(y.view_as(x))", "self._drop(y.view_as(x))"),
            Wrong("Dropout stands in every branch, in that of the memory as well.", "self._drop(y.view_as(x))", "y.view_as(x)"),
            Wrong("The memory has no order in time: every word sees all of it.",
                  "attend(query, *memory, memory_mask, need_weights=need_weights)",
                  "attend(query, *memory, memory_mask, True, need_weights)"),
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
                  "covered(weights.size(0), top, bottom).unsqueeze(1) * covered(weights.size(1), left, right)",
                  "covered(weights.size(0), left, right).unsqueeze(1) * covered(weights.size(1), top, bottom)"),
            Wrong("A place that is only partly within the box counts for just that part.",
                  "edges.diff() * places / size", "(edges.diff() * places / size).ceil()"),
            Wrong("What comes first is a sum of weights, which are shares already; only the area is a mean.",
                  "(weights * inside).sum().item()", "(weights * inside).mean().item()"),
            Wrong("The share of the picture: of all its pixels, and not how many places the box touches.",
                  "inside.mean().item()", "(inside > 0).float().mean().item()"),
            Wrong("Box and picture are in pixels, weights in places: how many pixels does a place have?",
                  "torch.linspace(0, size, places + 1", "torch.linspace(0, places, places + 1"),
        ),
    ),
    # --- 6: the training loop ----------------------------------------------------------------------------------------
    Exercise(
        6, "training", ("warmup_and_cosine",), "a rate that rises and falls", 3, 15, "easy",
        "test_the_learning_rate_rises_and_falls",
        (
            Wrong("Where is the warm-up? The first steps go with the full rate, when Adam knows nothing yet.",
                  "min(warmup * (step + 1) / steps, 0.5 + 0.5 * math.cos(math.pi * step / steps))",
                  "0.5 + 0.5 * math.cos(math.pi * step / steps)"),
            Wrong("`warmup` is no number of steps: it rises for one in so many of all.",
                  "warmup * (step + 1) / steps", "(step + 1) / warmup"),
            Wrong("Off by one: a first step with a rate of 0 would be lost.", "(step + 1)", "step"),
            Wrong("Half a cosine, from 1 to 0: in the middle it has fallen to one half.",
                  "math.cos(math.pi * step / steps)", "math.cos(2 * math.pi * step / steps)"),
            Wrong("A cosine lies between -1 and 1: this one is to end at 0.", "0.5 + 0.5 * math.cos", "math.cos"),
        ),
    ),
    Exercise(
        6, "training", ("word_loss",), "the loss of words, and of nothing else", 4, 20, "easy",
        "test_the_loss_of_words_asks_for_its_logits_as_it_is_told "
        "test_the_loss_is_that_of_the_formula_and_pads_count_in_neither_term",
        (
            Wrong("Padding counts for nothing: a longer neighbour in the batch must not change the loss.",
                  "ignore_index=PAD, ", ""),
            Wrong("The sum over the words, not their mean: whoever adds up parts of a batch divides at the end.",
                  'ignore_index=PAD, reduction="sum"', "ignore_index=PAD"),
            Wrong("Half precision is enough for the layers, but not for a sum over so many words: the loss is float32's.",
                  "teacher_forcing=teacher_forcing).float()", "teacher_forcing=teacher_forcing)"),
            Wrong("With `smoothing`, a little of the loss is the mean over all words.",
                  "    if smoothing:\n        return _SmoothedCrossEntropy.apply(logits, target, smoothing)\n", ""),
            Wrong("The model must be told how much of the truth it may see.",
                  "model(batch, teacher_forcing=teacher_forcing)", "model(batch, teacher_forcing=1.0)"),
        ),
    ),
    Exercise(
        6, "training", ("_SmoothedCrossEntropy.forward", "_SmoothedCrossEntropy.backward"),
        "a loss whose gradient is done by hand", 12, 60, "hard",
        "test_the_smoothed_loss_and_its_gradient_are_those_of_torch",
        (
            Wrong("The loss is right, the gradient is not: what comes from behind has to be multiplied in, by the chain rule.",
                  "gradient * d_loss", "gradient"),
            Wrong("The loss is right. Which words give no gradient? Those that are padding.", ".mul_(real)", ""),
            Wrong("Padding counts in the loss.", "loss.masked_fill(~real, 0.0)", "loss"),
            Wrong("The smoothed part is spread over all V words: it is their mean, not their sum.",
                  "smoothing * logits.mean(-1, keepdim=True)", "smoothing * logits.sum(-1, keepdim=True)"),
            Wrong("The loss is right, but in the gradient every word, not only the right one, has its share of s.",
                  "probabilities.sub_(smoothing / logits.size(-1))", "probabilities"),
            Wrong("The word itself loses 1 - s in the gradient, not 1.", "smoothing - 1))", "-1.0))"),
            Wrong("The exponential of a logit of 10,000 is infinite. Take the highest out before, and add it afterwards.",
                  "highest - probabilities.gather(1, word).log()", "logits.exp().sum(-1, keepdim=True).log()"),
        ),
    ),
    Exercise(
        6, "devices", ("GradScaler.update", "GradScaler.unscale"), "a scale for float16", 4, 20, "easy",
        "test_the_scale_follows_that_of_torch test_dividing_by_the_scale_gives_the_gradients_of_the_loss",
        (
            Wrong("An overflow halves the scale.", "self.scale /= 2", "self.scale *= 2"),
            Wrong("2,000 good steps in a row: an overflow begins the count anew.",
                  "self.good_steps + 1 if finite else 0", "self.good_steps + finite"),
            Wrong("After it has doubled, the count begins anew.",
                  "self.scale, self.good_steps = 2 * self.scale, 0", "self.scale = 2 * self.scale"),
            Wrong("Off by one: after 2,000 steps without an overflow, and not one later.",
                  "self.good_steps == 2000", "self.good_steps > 2000"),
            Wrong("The loss was multiplied by the scale, and every gradient with it: undo that before use.",
                  "parameter.grad /= self.scale", "pass"),
            Wrong("What is frozen has no gradient.", "if parameter.grad is not None:", "if True:"),
        ),
    ),
    Exercise(
        6, "training", ("Trainer._gradient",), "a batch in parts", 12, 60, "hard",
        "test_the_gradient_of_parts_is_that_of_the_whole_batch_by_words test_a_step_is_what_torch_s_own_pieces_make_of_it "
        "test_the_share_of_words_that_it_is_told_is_that_of_the_settings test_clipping_does_not_see_the_scale_of_float16 "
        "test_the_parts_of_a_batch_tell_its_loss_and_count_its_words",
        (
            Wrong("The mean of the parts' means is not the mean over all words, for parts have different numbers of them.",
                  "self.processes / words).backward()", 'self.processes / (part["target"] != PAD).sum() / count).backward()'),
            Wrong("Divide by the words, not by the number of parts: the loss is a sum over words.",
                  "self.processes / words).backward()", "self.processes / count).backward()"),
            Wrong("What is a word? Padding is none.", 'real = batch["target"] != PAD', 'real = batch["target"] >= PAD'),
            Wrong("The parts must together be the batch: each example in one of them.",
                  "value[i::count]", "value[: len(value) // count]"),
            Wrong("float16 needs larger gradients than the loss has: where is the scale?",
                  "part_loss * self.scaler.scale * self.processes", "part_loss * self.processes"),
            Wrong("The loss that is told is that of all parts, not of the last.",
                  "loss += part_loss.detach()", "loss = part_loss.detach()"),
            Wrong("The settings also say how much of the truth the model is told.",
                  "self.config.label_smoothing, self.config.teacher_forcing)", "self.config.label_smoothing)"),
        ),
    ),
    Exercise(
        6, "training", ("Trainer._train_step",), "one step, or none", 15, 75, "hard",
        "test_a_step_is_what_torch_s_own_pieces_make_of_it test_clipping_bounds_the_gradient_and_tells_its_norm_before "
        "test_a_step_whose_gradient_is_not_finite_changes_nothing_and_is_counted "
        "test_the_schedule_does_not_move_with_a_skipped_step test_clipping_does_not_see_the_scale_of_float16 "
        "test_float16_halves_a_scale_that_is_too_large_and_goes_on",
        (
            Wrong("The gradient of the last step is still there when the next one is added to it.",
                  "self.optimizer.zero_grad()", "pass"),
            Wrong("Where is the clipping? One batch can throw the weights far away.",
                  "nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)",
                  "nn.utils.clip_grad_norm_(self.model.parameters(), math.inf)"),
            Wrong("First divide the gradients by the scale, then clip: else it is 65,536 times their norm that is clipped.",
                  "        self.scaler.unscale(self.model.parameters())\n", "",
                  (("        asked, late =", "        self.scaler.unscale(self.model.parameters())\n        asked, late ="),)),
            Wrong("A gradient with a NaN in it must not reach the weights.",
                  "finite = math.isfinite(told.norm)", "finite = True"),
            Wrong("A skipped step has changed something already: batch norm has seen the batch.",
                  "                buffer.copy_(before)\n", "                pass\n"),
            Wrong("The schedule counts the steps that were made, not those that were skipped.",
                  "self.step - self.skipped, self.steps", "self.step, self.steps"),
            Wrong("The scaler has to hear after each step how it went.", "self.scaler.update(finite)", "pass"),
            Wrong("The schedule has to reach the optimizer: each of its groups holds a learning rate.",
                  'group["lr"] = self.config', 'group["rate"] = self.config'),
        ),
    ),
    Exercise(
        6, "checkpoints", ("write_atomically",), "a file that is never half", 7, 35, "medium",
        "test_what_is_written_can_be_read test_all_of_it_is_on_the_disk_before_it_takes_the_place_of_the_old_one "
        "test_a_file_that_may_not_be_so_big_keeps_the_old_checkpoint test_a_folder_that_cannot_be "
        "test_a_folder_in_the_place_of_the_file test_what_else_happens_while_writing_keeps_the_old_checkpoint",
        (
            Wrong("Whoever writes into the file itself has lost the old one before the new one is whole: write beside it, "
                  "then rename.",
                  'path.with_name(path.name + ".writing")', "path", (("os.replace(beside, path)", "pass"),)),
            Wrong("A rename may reach the disk before what was written: what would be there after a power cut?",
                  "            os.fsync(file.fileno())  # on the disk, before the name is\n", ""),
            Wrong("First on the disk, then the name: yours has the new name before it is safe.",
                  "os.fsync(file.fileno())", "os.replace(beside, path), os.fsync(file.fileno())",
                  (("        os.replace(beside, path)\n    except", "    except"),)),
            Wrong("Ctrl-C is no failed write, and a mistake in the program is none either: let them through as they are.",
                  "except (OSError, RuntimeError) as error", "except BaseException as error"),
            Wrong("Whatever fails, no half file may be left beside.", "            beside.unlink()\n", "            pass\n"),
            Wrong("The folder may not be there yet.", "path.parent.mkdir(parents=True, exist_ok=True)", "pass"),
            Wrong("Torch makes a RuntimeError of a write that failed: to whoever calls, that is an OSError as well.",
                  "except (OSError, RuntimeError) as error", "except OSError as error"),
        ),
    ),
    Exercise(
        6, "batches", ("BucketSampler.__iter__",), "each process its share", 8, 40, "medium",
        "test_processes_share_each_batch test_the_shares_of_a_batch_are_of_similar_length "
        "test_the_loaders_of_all_processes_give_each_caption_once test_start_goes_on_where_another_stopped",
        (
            Wrong("Every process takes the whole batch: which examples are its own?",
                  "batches[i][self.rank :: self.size]", "batches[i]"),
            Wrong("A process for which nothing is left must still have a batch, or the others wait for it forever: a picture "
                  "without words.",
                  "or [(batches[i][0], None)]", ""),
            Wrong("Nothing is left for a process, so it gets something that counts for nothing: its visit is None, not the "
                  "epoch.",
                  "[(batches[i][0], None)]", "[(batches[i][0], self.epoch)]"),
            Wrong("Processes wait for one another, so their shares should take equally long: deal the sorted sentences out in "
                  "turn, not in blocks.",
                  "batches[i][self.rank :: self.size]",
                  "batches[i][self.rank * len(batches[i]) // self.size : (self.rank + 1) * len(batches[i]) // self.size]"),
            Wrong("All processes must draw the same order, or their shares overlap: the seed must not know the rank.",
                  "_digest(self.seed, self.epoch)", "_digest(self.seed + self.rank, self.epoch)"),
            Wrong("Who goes on in the midst of an epoch leaves out batches, and not examples.",
                  ".tolist()[self.skip :]", ".tolist()",
                  (("(len(self.lengths), generator=generator).tolist()",
                    "(len(self.lengths), generator=generator).tolist()[self.skip :]"),)),
        ),
    ),
    Exercise(
        6, "faults", ("first_not_finite",), "where the first NaN comes from", 9, 45, "medium",
        "test_the_first_layer_whose_output_is_not_finite_is_named "
        "test_a_weight_that_is_not_finite_is_named_before_what_follows_from_it "
        "test_a_gradient_is_named_only_where_all_outputs_are_finite "
        "test_of_several_gradients_the_one_nearest_to_the_loss_is_named "
        "test_frozen_weights_have_no_gradient_and_are_no_trouble test_in_whatever_an_output_is_wrapped_it_is_found "
        "test_what_is_finite_is_not_named test_no_hooks_are_left_where_the_model_fails",
        (
            Wrong("A NaN spreads: everything behind the first one has it as well. Which of what you found came first?",
                  'return next(iter(found), "the loss")', 'return found[-1] if found else "the loss"'),
            Wrong("Gradients are computed from the loss back to the input: the first that is wrong is the nearest to the loss.",
                  "    gradients.reverse()  # as they are computed: from the loss back to the input\n", ""),
            Wrong("Infinity is not finite either.", "bool(output.isfinite().all())", "not output.isnan().any()"),
            Wrong("An output may be a tuple, and in it there may be tuples: look into them.",
                  "return all(map(finite, output))", "return finite(output[0]) if output else True"),
            Wrong("The hooks stay on the model when it is done, or when it fails: each must go.",
                  "            handle.remove()\n", "            pass\n"),
            Wrong("What is frozen has no gradient at all.", " if weight.grad is not None]", "]"),
            Wrong("A weight that is not finite spoils what follows: name it before the outputs.",
                  "in model.named_parameters() if not weight.isfinite().all()]", "in ()]"),
        ),
    ),
    # --- 7: fine-tuning ----------------------------------------------------------------------------------------------
    Exercise(
        7, "finetuning", ("freeze", "unfreeze", "_fits", "_settle", "_stay"), "what is frozen is really still", 15, 75, "hard",
        "test_a_pattern_freezes_what_it_fits_and_nothing_else "
        "test_a_pattern_that_fits_nothing_is_named_in_a_line_with_what_there_is "
        "test_nothing_is_dropped_in_what_is_frozen_until_it_wakes test_beside_a_lora_batch_norm_is_still "
        "test_a_frozen_model_can_be_sent_and_comes_back_frozen",
        (
            Wrong("A pattern may be the beginning of a name only up to a dot: \"encoders.image.backb\" is nothing's name.",
                  'pattern + ".*"', 'pattern + "*"'),
            Wrong("A pattern that fits nothing is a slip of the pen: raise ValueError, and name it.",
                  "if not fitting:", "if False:"),
            Wrong("Without a gradient a weight stands still, but batch norm still counts and dropout still drops. In which "
                  "mode must a frozen part be, and what keeps it there when `model.train()` is called?",
                  "module.train = partial(_stay, module)", "pass"),
            Wrong("A part is still only if all of its parameters are frozen: one that is frozen by half goes on training.",
                  "any(p.requires_grad for p in parameters)", "all(p.requires_grad for p in parameters)"),
            Wrong("A module without any parameter is not frozen: `any` of nothing is False.",
                  "if parameters and not any", "if not any"),
            Wrong("What is freed must follow `model.train()` again.", 'module.__dict__.pop("train", None)', "pass"),
            Wrong("A lambda cannot be pickled, and a frozen model goes to other processes too.",
                  "partial(_stay, module)", "lambda mode=True: module"),
            Wrong("Freezing changes the mode of what is frozen only: the rest stays in the mode in which the model was.",
                  "model.train(model.training)", "model.train()"),
        ),
    ),
    Exercise(
        7, "finetuning", ("layers", "_depth"), "the layers, from the input to the output", 8, 40, "medium",
        "test_layers_have_every_parameter_once_in_the_order_in_which_they_compute",
        (
            Wrong("The order in which a model names its parameters is not the order in which it computes: what stands before "
                  "the blocks and what behind them must be sorted.", "for depth in sorted(found)", "for depth in found"),
            Wrong('As text, "10" stands before "2": sort the blocks by their number.', "1, int(numbered[1])", "1, numbered[1]"),
            Wrong("A CNN or ViT comes before all else of its encoder.",
                  '0 if ".backbone." in name else 1 if name.startswith("encoders.") else 2',
                  '1 if name.startswith("encoders.") else 2'),
            Wrong("Of the backbone and the decoder, the last norm or the output stands behind the blocks, not before them.",
                  "2 if behind else 0", "0"),
            Wrong("The decoder's embedding is its output too: with all that has no number there, it is the last layer.",
                  "behind = part == 2 or ", "behind = "),
        ),
    ),
    Exercise(
        7, "finetuning", ("parameter_groups",), "who decays, and how fast each layer learns", 8, 35, "medium",
        "test_groups_have_every_parameter_once_with_its_decay_and_its_rate",
        (
            Wrong("The layer next to the output learns fastest, at factor 1. From which end do you count?",
                  "enumerate(reversed(layers(model)))", "enumerate(layers(model))"),
            Wrong("Biases, norms and single vectors do not decay.", "weight_decay * decays", "weight_decay"),
            Wrong("A class token (1, 1, D) has three axes and is a single vector all the same.",
                  "parameter.squeeze().dim()", "parameter.dim()"),
            Wrong("Here a parameter is in two groups, and an optimizer would move it twice.", ") == decays:", ") >= decays:"),
            Wrong("Each layer is slower than the next by the same factor: a power, not a product.",
                  "layer_decay ** depth[name]", "layer_decay * depth[name]"),
        ),
    ),
    Exercise(
        7, "finetuning", ("thaw",), "gradual unfreezing", 6, 30, "medium",
        "test_thawing_goes_by_layers_from_the_output",
        (
            Wrong("What is nearest to the output is freed first.",
                  "for names in reversed(chosen) if names", "for names in chosen if names"),
            Wrong("The share is of the layers in which something is frozen; the others do not count.",
                  "[names for names in reversed(chosen) if names]", "[names for names in reversed(chosen)]"),
            Wrong("A layer is freed when its share is reached, not before: round down.",
                  "int(share * len(chosen))", "round(share * len(chosen))"),
            Wrong("The answer is whether this call has changed anything; what was free before is no change.",
                  "return change", "return bool(free)"),
            Wrong("A layer that is freed must also wake from its eval mode: `unfreeze` does both.",
                  "unfreeze(model, *free)", "[model.get_parameter(name).requires_grad_(True) for name in free]"),
        ),
    ),
    Exercise(
        7, "finetuning", ("LoRA.forward", "LoRA.matrix"), "a change of low rank", 6, 30, "easy",
        "test_attention_with_lora_is_attention_with_another_matrix test_dropout_is_for_what_goes_into_the_change_only "
        "test_every_matrix_of_a_decoder_is_joined_by_scale_b_a_which_alone_is_trained "
        "test_a_linear_layer_with_lora_is_that_of_loralib",
        (
            Wrong("What is added to W x is scale · B A x. Where is the scale?",
                  "return self.scale * F.linear(", "return F.linear("),
            Wrong("The matrix is scale · B A. Where is the scale?", "return self.scale * self.b @", "return self.b @"),
            Wrong("`rows` chooses rows of the product, so of B: an attention that needs the queries alone asks for these.",
                  "self.b[rows]", "self.b"),
            Wrong("Dropout is for what goes into A, not for what is added.",
                  "x = F.dropout(x, self.dropout, self.training)\n        return self.scale * F.linear(F.linear(x, self.a), "
                  "self.b[rows])",
                  "return F.dropout(self.scale * F.linear(F.linear(x, self.a), self.b[rows]), self.dropout, self.training)\n"),
            Wrong("In eval mode nothing is dropped.", "self.dropout, self.training", "self.dropout, True"),
            Wrong("`scale` is what the paper calls α / r: the division by the rank is done.",
                  "self.scale * F.linear(", "self.scale / len(self.a) * F.linear("),
        ),
    ),
    Exercise(
        7, "finetuning", ("LoRALinear.forward", "LoRAAttention.in_proj", "LoRALSTM.weight"), "where a LoRA joins its layer", 5,
        25, "easy",
        "test_attention_with_lora_is_attention_with_another_matrix test_dropout_is_for_what_goes_into_the_change_only "
        "test_every_matrix_of_a_decoder_is_joined_by_scale_b_a_which_alone_is_trained "
        "test_a_merged_lora_computes_the_same_and_is_taken_out_to_the_bit",
        (
            Wrong("Once it is merged, a linear layer's weight holds the change: then nothing is to be added.",
                  "y if self.lora.merged is not None else y + self.lora(x)\n", "y + self.lora(x)\n"),
            Wrong("Once it is merged, the attention's joint matrix holds the change: then nothing is to be added.",
                  "y if self.lora.merged is not None else y + self.lora(x, rows)", "y + self.lora(x, rows)"),
            Wrong("Attention may ask for some rows only, as for the queries: the change must be of the same rows.",
                  "self.lora(x, rows)", "self.lora(x)"),
            Wrong("The LoRA stands beside the layer: W x stays.", "else y + self.lora(x)\n", "else self.lora(x)\n"),
            Wrong("An LSTM asks for its matrix at each call, and W itself must not change: a sum in place adds the change "
                  "again and again.", "weight + lora.matrix()", "weight.data.add_(lora.matrix().detach())"),
            Wrong("Each of the LSTM's matrices has a LoRA of its own, and is merged by itself.",
                  "weight if lora.merged is not None else weight + lora.matrix()", "weight"),
        ),
    ),
    Exercise(
        7, "finetuning", ("LoRA.merge", "LoRA.unmerge"), "into the weight, and out again to the bit", 4, 20, "easy",
        "test_a_merged_lora_computes_the_same_and_is_taken_out_to_the_bit",
        (
            Wrong("(W + ΔW) - ΔW is rounded twice, and is W only nearly. What must `merge` keep?",
                  "weight.copy_(self.merged)", "weight -= self.matrix()"),
            Wrong("What is kept must be a copy: a tensor that changes in place changes under all of its names.",
                  "weight.clone()", "weight"),
            Wrong("A second `merge` must change nothing.", "if self.merged is None:", "if True:"),
            Wrong("A second `unmerge` must change nothing.", "if self.merged is not None:", "if True:"),
            Wrong("`weight = weight + …` gives the name to a new tensor, and the layer's weight stays as it was.",
                  "weight += self.matrix()", "weight = weight + self.matrix()"),
            Wrong("After `unmerge` it is no longer merged: who asks must see that.",
                  "            self.merged = None", "            pass"),
        ),
    ),
    Exercise(
        7, "weights", ("load_fitting",), "what fits is loaded, and the rest is said", 4, 20, "easy",
        "test_what_fits_is_loaded_and_the_rest_is_said",
        (
            Wrong("`strict=False` forgives names, but not shapes: leave out what is of another shape.",
                  "for name in common if state[name].shape == ours[name].shape}", "for name in common}"),
            Wrong('"Missing" is what the model has and the state dict has not, and "unexpected" the other way round.',
                  "[name for name in ours if name not in state], [name for name in state if name not in ours]",
                  "[name for name in state if name not in ours], [name for name in ours if name not in state]"),
            Wrong("What is there in another shape is not missing.",
                  "for name in ours if name not in state]", "for name in ours if name not in fitting]"),
            Wrong("Say which shape is theirs and which is ours: first the state dict's, then the model's.",
                  "tuple(state[name].shape)}, here {tuple(ours[name].shape)}",
                  "tuple(ours[name].shape)}, here {tuple(state[name].shape)}"),
        ),
    ),
    Exercise(
        7, "weights", ("keep_rows",), "the rows of the words that both know", 4, 15, "easy",
        "test_the_rows_of_common_words_are_kept",
        (
            Wrong("A word has another number in each vocabulary: which number belongs to which tensor?",
                  "(i, index[word])", "(index[word], index[word])"),
            Wrong("What you were given must stay as it is: change a copy.", "new = new.clone()", "new = new"),
            Wrong("Words that only the new vocabulary knows keep their rows of `new`.",
                  "new = new.clone()", "new = torch.zeros_like(new)"),
            Wrong("The result has the type of `new`: convert the old rows.", "old[from_rows].to(new)", "old[from_rows]"),
            Wrong("What if no word is in both?", ".reshape(-1, 2).T", ".T"),
        ),
    ),
    # --- 8: beam search ----------------------------------------------------------------------------------------------
    Exercise(
        8, "decoding", ("sample",), "drawn at random: temperature, top-k, top-p", 10, 50, "medium",
        "test_words_are_drawn_as_often_as_they_are_probable test_samples_are_repeatable_and_each_is_its_own "
        "test_samples_among_one_word_are_greedy test_samples_that_make_no_sense_are_refused",
        (
            Wrong("A low temperature makes the probable more probable. Is it a factor or a divisor?",
                  ") / temperature  #", ") * temperature  #"),
            Wrong("Probabilities that are all divided by the same number keep their proportions: the temperature divides the "
                  "logits.", ") / temperature  #", ")  #", (("logits.softmax(-1)", "logits.softmax(-1) / temperature"),)),
            Wrong("The word that crosses the line belongs to the nucleus: what counts is the probability of the words before "
                  "it.", "probabilities.cumsum(-1) - probabilities", "probabilities.cumsum(-1)"),
            Wrong("What was drawn is a place in the sorted list, and not yet a word.",
                  "words.gather(1, probabilities.multinomial(1, generator=generator))",
                  "probabilities.multinomial(1, generator=generator)"),
            Wrong("With top_k = k, k words are left.", "logits[:, top_k:]", "logits[:, top_k + 1 :]"),
            Wrong("top_p is the share of what temperature and top_k have left, not of the model's own probabilities.",
                  "before = probabilities.cumsum(-1) - probabilities",
                  "own = log_probs.softmax(-1).gather(1, words); before = own.cumsum(-1) - own"),
            Wrong("Draw with the generator that was given: else nobody can repeat it.", "(1, generator=generator)", "(1)"),
            Wrong("A temperature of 0 or below, or of infinity, makes no sense: raise ValueError, and say so.",
                  "if not 0 < temperature < math.inf:", "if temperature < 0:"),
        ),
    ),
    Exercise(
        8, "recurrent", ("LSTMDecoder.reorder",), "beams change places", 3, 15, "easy",
        "test_beams_change_places test_beams_do_not_copy_the_memory",
        (
            Wrong("The first axis of the state is the layers: the sentences are the second.",
                  "state.hidden.index_select(1, index)", "state.hidden.index_select(0, index)"),
            Wrong("Hidden state and cell belong together: both change places.",
                  "state.cell.index_select(1, index)", "state.cell"),
            Wrong("Who changes places takes along what it looks at: `owners` says which memories.",
                  "else Memory(*(part.index_select(0, owner) for part in state.memory))", "else state.memory"),
            Wrong("Beams of one picture share its memory: where `owners` says None, nothing of it is to be copied.",
                  "state.memory if owner is None else",
                  "Memory(*(part.clone() for part in state.memory)) if owner is None else"),
            Wrong("`owners` must know how many sentences there are now: that is an axis of the hidden state.",
                  "state.hidden.size(1)", "len(index)"),
        ),
        "test_decoders.py",
    ),
    Exercise(
        8, "decoding", ("beam_search", "_pick"), "beam search, and its end", 30, 150, "hard",
        "test_beams_enough_find_all_sentences_there_are test_of_many_languages_beam_search_is_the_slow_search "
        "test_an_end_that_is_not_among_the_best_does_not_count test_an_end_takes_no_beam_away "
        "test_it_goes_on_while_a_longer_sentence_may_be_better test_it_stops_as_soon_as_nothing_better_can_come "
        "test_with_the_greedy_sentence_it_is_never_worse_than_greedy test_beams_that_make_no_sense_are_refused",
        (
            Wrong("When beams change places, their states must too: each goes on from the state of its own beginning.",
                  "source = beam.gather(1, kept) + K *",
                  "source = torch.arange(kept.size(1), device=device).clamp(max=K - 1).expand(len(live), -1) + K *"),
            Wrong("When beams change places, their words must too: whose beginning does each candidate continue?",
                  "_pick(words, beam), token",
                  "_pick(words, torch.arange(beam.size(1), device=device).clamp(max=K - 1).expand_as(beam)), token"),
            Wrong("Look at twice as many candidates as there are beams: else each <eos> takes one beam away.",
                  "min(2 * num_beams, K * V)", "min(num_beams, K * V)"),
            Wrong("An <eos> is a sentence found only if it is among the first num_beams candidates.",
                  " & (torch.arange(ended.size(1), device=device) < num_beams)", ""),
            Wrong("That enough sentences were found is not the end: a beginning may still become better than these.",
                  "going = log_prob[:, 0] / longest**length_penalty > found[:, -1]", "going = found[:, -1] == -torch.inf"),
            Wrong("The bound: a beginning can keep its log-probability and become longer. At which length would its score be "
                  "highest, for a penalty above 0, and for one of 0 or below?",
                  "longest = max_length if length_penalty > 0 else length + 1", "longest = length"),
            Wrong("<eos> counts in the length of a sentence.",
                  "score = total / length**", "score = total / max(length - 1, 1) **"),
            Wrong("A beam that has ended is no beginning any more.", "total.masked_fill(ended, -torch.inf).topk", "total.topk"),
            Wrong("With `keep_greedy`, the greedy sentence is one more to choose from.", "if keep_greedy:", "if False:"),
            Wrong("The rows of the state of batch entry i begin at i · K.",
                  " + K * torch.arange(len(live), device=device).unsqueeze(1)", " + 0 * live.unsqueeze(1)"),
        ),
    ),
    Exercise(
        8, "decoding", ("_forbid",), "no short sentences, and nothing said twice", 8, 40, "medium",
        "test_no_n_words_stand_in_a_sentence_twice test_where_no_word_is_left_the_sentence_ends "
        "test_of_many_languages_beam_search_is_the_slow_search",
        (
            Wrong("n words that were written are enough for the next word to repeat: what of a word twice in a row, with n = "
                  "1?", "if 0 < n <= words.size(-1):", "if 0 < n < words.size(-1):"),
            Wrong("A word is forbidden if all of the n - 1 words before it are those of an earlier place.",
                  "== last).all(-1)", "== last).any(-1)"),
            Wrong("A sentence that is too short must not end, whether words may be repeated or not.",
                  "if not too_short and n == 0:", "if n == 0:"),
            Wrong("Where no word is left at all, <eos> is.",
                  "nothing_left = log_probs.amax(-1) == -torch.inf", "nothing_left = torch.zeros_like(eos, dtype=torch.bool)"),
            Wrong("Where only <eos> is left it keeps the probability that the model gave it.",
                  "torch.where(nothing_left, eos, ", "torch.where(nothing_left, 0.0, "),
            Wrong("Forbid only what would repeat, not each word that was written before.", ".masked_fill(~repeated, PAD)", ""),
        ),
    ),
    # --- 9: BLEU and its relatives -----------------------------------------------------------------------------------
    Exercise(
        9, "metrics", ("exact_match",), "word for word what somebody wrote", 1, 5, "easy",
        "test_exact_match",
        (
            Wrong("Any of the references will do, not only the first.", "in map(list, refs)", "in map(list, refs[:1])"),
            Wrong("Word for word: the same words in another order are another sentence.",
                  "list(h) in map(list, refs)", "sorted(h) in map(sorted, refs)"),
            Wrong('A set forgets the order, and how often a word is there: ["a"] is not ["a", "a"].',
                  "list(h) in map(list, refs)", "set(h) in map(set, refs)"),
            Wrong("A tuple never equals a list, though both may hold the same words.",
                  "list(h) in map(list, refs)", "h in refs"),
            Wrong("There may be no hypotheses at all. Then the share is 0, not an error.",
                  "max(len(hypotheses), 1)", "len(hypotheses)"),
        ),
    ),
    Exercise(
        9, "metrics", ("_ngrams",), "n words in a row", 1, 5, "easy",
        "test_document_frequencies_by_brute_force test_the_statistics_of_bleu_by_brute_force test_cider_d_by_hand",
        (
            Wrong("Five words hold three n-grams of three. Count at both ends: the last n-gram ends with the last word.",
                  "zip(*(tokens[i:] for i in range(n)))", "zip(*(tokens[i:-1] for i in range(n)))"),
            Wrong("At the end too few words are left: what is shorter than n is no n-gram.",
                  "zip(*(tokens[i:] for i in range(n)))", "(tuple(tokens[i : i + n]) for i in range(len(tokens)))"),
            Wrong("n-grams overlap: one begins at each word.",
                  "zip(*(tokens[i:] for i in range(n)))",
                  "(tuple(tokens[i : i + n]) for i in range(0, len(tokens) - n + 1, n))"),
            Wrong("They are counted and kept in sets, which takes something that cannot change: a tuple, not a list.",
                  "zip(*(tokens[i:] for i in range(n)))", "map(list, zip(*(tokens[i:] for i in range(n))))"),
            Wrong("What stands there twice has to come twice, as others count it.",
                  "zip(*(tokens[i:] for i in range(n)))", "iter(set(zip(*(tokens[i:] for i in range(n)))))"),
        ),
    ),
    Exercise(
        9, "metrics", ("bleu_statistics",), "what BLEU adds up: lengths, n-grams found, n-grams written", 10, 50, "medium",
        "test_the_statistics_of_bleu_by_brute_force test_the_statistics_of_bleu_add_up "
        "test_bleu_agrees_with_sacrebleu_on_one_sentence",
        (
            Wrong('Is it clipped? "the the the" has one word right, not three, if a reference has "the" only once.',
                  "min(count, max(list(_ngrams(ref, n)).count(ngram) for ref in refs)) - 1", "count - 1"),
            Wrong("It is clipped by the one reference that has most of it, not by all of them together.",
                  "max(list(_ngrams", "sum(list(_ngrams"),
            Wrong("What is rightly written twice counts twice, if a reference has it twice. Does a set stand where a count "
                  "should?", "if len(set(ngrams)) < len(ngrams):", "if False:"),
            Wrong("Two references may be equally close in length. Then the shorter one counts.",
                  "min((abs(len(ref) - length), len(ref)) for ref in refs)[1]",
                  "-min((abs(len(ref) - length), -len(ref)) for ref in refs)[1]"),
            Wrong("The reference length that counts is the closest to the hypothesis', not the smallest.",
                  "min((abs(len(ref) - length), len(ref)) for ref in refs)[1]", "min(len(ref) for ref in refs)"),
            Wrong("All references have a say in the length, not only the first.",
                  "min((abs(len(ref) - length), len(ref)) for ref in refs)[1]", "len(refs[0])"),
            Wrong("A sentence of two words has no trigrams: 0 of them, and not fewer.",
                  "[max(length - n, 0) for", "[length - n for"),
            Wrong("How many n-grams has a sentence of five words, for n = 1? The totals are off by one.",
                  "[max(length - n, 0) for", "[max(length - n - 1, 0) for"),
        ),
    ),
    Exercise(
        9, "metrics", ("bleu", "_bleu", "sentence_bleu"), "BLEU: brevity, the geometric mean, smoothing", 12, 60, "medium",
        "test_bleu_by_hand test_a_sentence_shorter_than_an_n_gram_has_a_bleu_of_its_own_and_none_as_a_corpus "
        "test_bleu_of_a_corpus_is_not_the_mean_over_sentences test_the_statistics_of_bleu_add_up "
        "test_bleu_agrees_with_sacrebleu_on_one_sentence test_sentence_bleu_agrees_with_sacrebleu",
        (
            Wrong("Who writes little, and only what is sure, scores too high. What does the formula say of a short "
                  "hypothesis?", "1.0 if sys_len >= ref_len else math.exp(1 - ref_len / sys_len) if sys_len else 0.0", "1.0"),
            Wrong("Brevity punishes who is shorter. It rewards nobody for being longer: bp is at most 1.",
                  "1.0 if sys_len >= ref_len else math", "math"),
            Wrong("In bp, which of the two lengths is divided by which?",
                  "math.exp(1 - ref_len / sys_len) if", "math.exp(1 - sys_len / ref_len) if"),
            Wrong("The mean of the precisions is the geometric one: a mean of their logarithms.",
                  "math.exp(sum(map(math.log, known)) / len(known)) if all(known) else 0.0", "sum(known) / len(known)"),
            Wrong("The logarithms are added up, but a mean divides by how many there are.",
                  "sum(map(math.log, known)) / len(known)", "sum(map(math.log, known))"),
            Wrong('"exp" takes 1/2 for the first count that is 0, 1/4 for the next, and so on.', "halved /= 2", "halved = 0.5"),
            Wrong('"add-k" leaves the single words as they are, and begins with n = 2.',
                  "[first, *(number + 1 for number in rest)]", "[first + 1, *(number + 1 for number in rest)]"),
            Wrong("A corpus is not the mean of its sentences: counts and lengths are added up over all of them, and divided "
                  "once.",
                  "return _bleu(bleu_statistics(hypotheses, references, max_order).sum(0).tolist(), smooth_method)",
                  "each = [_bleu(row, smooth_method) for row in bleu_statistics(hypotheses, references, "
                  "max_order).tolist()]\n    return each[0]._replace(score=sum(one.score for one in each) / len(each))"),
            Wrong("A sentence of two words has no trigrams to get wrong. In sentence_bleu, what cannot be counted is left "
                  "out.", ", effective_order=True", ""),
        ),
    ),
    Exercise(
        9, "metrics", ("_longest_common_subsequence",), "a table, of which one row is enough", 5, 25, "medium",
        "test_rouge_l_by_hand test_rouge_l_by_brute_force",
        (
            Wrong("The shared words must stand in the same order, but not side by side: a gap does not begin anew from 0.",
                  "max(row[j], above[j + 1])", "0"),
            Wrong("A word that fits adds 1 to the cell diagonally above. From the one directly above, a word of b could be "
                  "used twice.", "above[j] + 1 if", "above[j + 1] + 1 if"),
            Wrong("A word that fits adds 1 to the cell diagonally above. From the one on the left, a word of a could be used "
                  "twice.", "above[j] + 1 if", "row[j] + 1 if"),
            Wrong("Where the words differ, either may be left out: look above as well as to the left.",
                  "max(row[j], above[j + 1])", "row[j]"),
            Wrong("Where the words differ, either may be left out: look to the left as well as above.",
                  "max(row[j], above[j + 1])", "above[j + 1]"),
            Wrong("How many words both have is not enough: they must come in the same order.",
                  "return row[-1]", "return sum((Counter(a) & Counter(b)).values())"),
        ),
    ),
    Exercise(
        9, "metrics", ("rouge_l",), "ROUGE-L: how much comes in the same order", 4, 20, "easy",
        "test_rouge_l_by_hand test_rouge_l_by_brute_force test_rouge_l_agrees_with_the_coco_evaluation",
        (
            Wrong("Recall weighs more than precision. Which of the two does β² stand beside, below the line?",
                  "(r + 1.2**2 * p)", "(p + 1.2**2 * r)"),
            Wrong("β is 1.2, not 1: recall weighs more.", "(1 + 1.2**2) * p * r / (r + 1.2**2 * p)", "2 * p * r / (r + p)"),
            Wrong("It is β squared in the formula, in both places.",
                  "(1 + 1.2**2) * p * r / (r + 1.2**2 * p)", "(1 + 1.2) * p * r / (r + 1.2 * p)"),
            Wrong("The best precision and the best recall may come from different references.",
                  "max(lcs / max(len(ref), 1) for lcs, ref in zip(common, refs))",
                  "max(common) / max(len(refs[common.index(max(common))]), 1)"),
            Wrong("Of several references the best one counts, not their mean.",
                  "p = max(common) /", "p = sum(common) / len(common) /"),
            Wrong("If nothing is shared, p and r are both 0, and the formula divides by 0.", " if p else 0.0", ""),
            Wrong("Two sentences without words are equal. What does the docstring say of them?",
                  " if hypothesis or ref else 1", ""),
        ),
    ),
    Exercise(
        9, "metrics", ("document_frequencies",), "in how many pictures an n-gram is mentioned", 3, 15, "easy",
        "test_document_frequencies_by_hand test_document_frequencies_by_brute_force test_cider_d_by_hand "
        "test_cider_d_takes_the_frequencies_of_other_pictures",
        (
            Wrong("A picture counts once, however often its references have the n-gram.",
                  "set(chain.from_iterable(_ngrams(ref, n) for ref in refs for n in range(1, 5)))",
                  "chain.from_iterable(_ngrams(ref, n) for ref in refs for n in range(1, 5))"),
            Wrong("All references of a picture are one document together, not one each.",
                  "set(chain.from_iterable(_ngrams(ref, n) for ref in refs for n in range(1, 5)))",
                  "chain.from_iterable(set(chain.from_iterable(_ngrams(ref, n) for n in range(1, 5))) for ref in refs)"),
            Wrong("An n-gram may stand in any of a picture's references, not only in the first.",
                  "for ref in refs for n", "for ref in refs[:1] for n"),
            Wrong("One to four tokens, and four is included.", "range(1, 5)", "range(1, 4)"),
            Wrong("How many documents are there: pictures, not references.", "len(references)", "sum(map(len, references))"),
        ),
    ),
    Exercise(
        9, "metrics", ("cider_d",), "CIDEr-D: what is worth saying", 18, 90, "hard",
        "test_cider_d_by_hand test_cider_d_takes_the_frequencies_of_other_pictures "
        "test_cider_d_agrees_with_the_coco_evaluation",
        (
            Wrong("The D: what is written more often than the reference has it must not count more. Where is min in your sum?",
                  "min(c_h[ngram], c_r[ngram])", "c_h[ngram]"),
            Wrong("What stands in no reference at all is the rarest of all, not worthless: the formula has max(1, frequency).",
                  "lambda: rarest", "lambda: 0.0"),
            Wrong("Both g in the product have their logarithm, so it is there twice.",
                  "* rarity[ngram] ** 2", "* rarity[ngram]"),
            Wrong("The norms are those of g, that is, of the counts with their weights.",
                  "count * rarity[ngram] for ngram, count", "count for ngram, count"),
            Wrong("A difference in length should cost something: the factor exp(…) is missing.",
                  " * math.exp(-(apart**2) / (2 * 6.0**2))", ""),
            Wrong("σ is squared in the formula, so a small difference costs little.", "(2 * 6.0**2)", "(2 * 6.0)"),
            Wrong("The score is the mean over n = 1 to 4 as well; yours goes beyond 10.", "alike / 4", "alike"),
            Wrong("The mean over the references, not the best of them.",
                  "total += alike / 4",
                  "total = max(total, alike / 4",
                  (("(2 * 6.0**2))", "(2 * 6.0**2)))"), (" / len(refs)", ""))),
            Wrong("Frequencies that are given come first; those of the references stand in only if there are none.",
                  "frequencies or document_frequencies(references)", "document_frequencies(references)"),
        ),
    ),
    Exercise(
        9, "metrics", ("bootstrap",), "how sure is a score?", 5, 25, "medium",
        "test_the_interval_is_cut_from_a_thousand_scores_of_sums test_the_interval_of_a_mean_is_near_the_normal_one "
        "test_the_same_seed_gives_the_same_interval",
        (
            Wrong("Drawn with repetition: some examples come twice and others never. If each comes once, all sums are the "
                  "same.", "draw.integers(N, size=N)", "draw.permutation(N)"),
            Wrong("95 % in the middle leaves 2.5 % at each end, not 5 %.",
                  "scores[25].tolist(), scores[-26]", "scores[50].tolist(), scores[-51]"),
            Wrong("The lowest and the highest of all depend on chance alone: 2.5 % are cut off at each end.",
                  "scores[25].tolist(), scores[-26]", "scores[0].tolist(), scores[-1]"),
            Wrong("`score` takes sums over the drawn examples, not their means.", "].sum(0)", "].mean(0)"),
            Wrong("As many as there are examples are drawn each time: with fewer, the interval is too wide.",
                  "draw.integers(N, size=N)", "draw.integers(N, size=(N + 1) // 2)"),
            Wrong("Nothing can be cut off at the ends before the scores are in order.",
                  "np.sort([", "np.array([", ((", axis=0)", ")"),)),
            Wrong("If `score` makes several, each is put in order by itself, over the 1,000 draws.", ", axis=0)", ", axis=-1)"),
            Wrong("The same seed must give the same interval: chance begins from it.", "default_rng(seed)", "default_rng()"),
        ),
    ),
    Exercise(
        9, "text", ("caption_tokenize",), "the words that papers count", 4, 20, "medium",
        "test_tokens_are_those_of_the_java_program",
        (
            Wrong("What counts as punctuation is in a list. It has single signs only, so some signs stay as words.",
                  "if token not in _PUNCTUATION:", "if any(map(str.isalnum, token)):"),
            Wrong("Punctuation is no word here: commas and full stops must go.", "if token not in _PUNCTUATION:", "if token:"),
            Wrong('Small letters only after the split: the pattern tells "Miss." from "miss." by them.',
                  "_PTB_TOKEN.findall(text)", "_PTB_TOKEN.findall(text.lower())"),
            Wrong("Capital and small letters should give the same word in the end.",
                  "token = token.lower()", "token = str(token)"),
            Wrong("Before the text is split, some of it is read as something else: &amp; is only another way to write &.",
                  "_READ_AS.items()", "{}.items()"),
            Wrong("Some tokens are written in another way than they stood there: ½ is 1/2, and ’s is 's.",
                  "_WRITTEN_AS.get(token, token)", "token"),
            Wrong("A bracket has a name of letters, in the middle of a token too.",
                  '.replace("(", "-lrb-").replace(")", "-rrb-")', ""),
            Wrong('"1 1/2" is one token: the space in it is one that does not part.', '.replace(" ", "\\u00a0")', ""),
        ),
    ),
    # --- 10: translation ---------------------------------------------------------------------------------------------
    Exercise(
        10, "text", ("BytePairEncoding.learn", "_join"), "which pieces are worth a number", 25, 120, "hard",
        "test_the_example_of_the_paper test_learning_stops_where_nothing_is_there_twice "
        "test_the_order_of_the_sentences_does_not_matter test_names_are_all_different_whatever_is_learned "
        "test_rare_characters_the_mark_and_what_cannot_be_printed_are_bytes "
        "test_learning_is_that_of_a_learner_that_counts_everything_anew test_hugging_face_learns_and_writes_the_same",
        (
            Wrong("A pair counts as often as its word is there, not once a word.", "sign * frequencies[k]", "sign"),
            Wrong('Of "a a a" only the first two are joined, and the third stays.',
                  "for i in ids:\n        if joined and (joined[-1], i) == pair:",
                  "for before, i in zip([PAD, *ids], ids):\n        if (before, i) == pair:"),
            Wrong("Of pairs that are equally frequent, the one of the older pieces comes first.",
                  "(-pair_counts[pair], pair))",
                  "(-pair_counts[pair], (-pair[0], -pair[1])))",
                  (("count, pair = heappop(heap)", "count, (a, b) = heappop(heap); pair = -a, -b"),)),
            Wrong("A merge changes the counts of the neighbours too: take the old pairs of the word away, and count the new "
                  "ones.", "                    count_pairs(k, -1)\n", "                    pair_counts[pair] = 0\n"),
            Wrong("A pair that occurs once is no piece.", "if pair_counts[pair] > 1:", "if pair_counts[pair] > 0:"),
            Wrong("A character that is there once gets no number, and is written as bytes.",
                  "if characters[c] > 1 and", "if characters[c] > 0 and"),
            Wrong("Count how often a character occurs, not in how many words.",
                  'Counter("".join(counts.elements()))', 'Counter("".join(counts))'),
            Wrong("An entry of the heap is as old as its count: if the count has changed since, it is no longer true.",
                  "if -count == pair_counts[pair] and", "if"),
        ),
    ),
    Exercise(
        10, "text", ("BytePairEncoding.encode", "BytePairEncoding._spell"), "from words to pieces", 8, 40, "medium",
        "test_the_example_of_the_paper test_rare_characters_the_mark_and_what_cannot_be_printed_are_bytes "
        "test_pieces_are_encoded_and_decoded_as_words_are test_any_tokens_come_back_exactly "
        "test_the_merge_that_was_learned_first_goes_first_wherever_it_stands test_hugging_face_learns_and_writes_the_same",
        (
            Wrong("The merge that was learned first goes first, wherever in the word it stands.",
                  "min(pairs, key=self.merges.get)", "pairs[0]"),
            Wrong("What was joined can be joined again, until no pair is left that was learned.",
                  "while pairs :=", "if pairs :="),
            Wrong('Every token begins with "▁": else one could not tell where one ends.',
                  "ids = [FIRST_CHARACTER]", "ids = []"),
            Wrong("An unknown character is the bytes of its UTF-8, of which there may be up to four.",
                  'byte for byte in c.encode("utf-8", "surrogatepass")', "byte for byte in [ord(c) % 256]"),
            Wrong('A "▁" within a token is written as bytes: as a piece it would begin another token.',
                  "known = c in self.index and c != START", "known = c in self.index"),
            Wrong("A string is a sequence of characters too: refuse it, with TypeError.",
                  "if isinstance(tokens, str):", "if False:"),
        ),
    ),
    Exercise(
        10, "text", ("BytePairEncoding.decode", "_read_utf8"), "from pieces to words", 6, 30, "medium",
        "test_bytes_that_are_no_text_become_a_sign test_pieces_are_encoded_and_decoded_as_words_are "
        "test_any_tokens_come_back_exactly test_any_text_comes_back_exactly test_whatever_a_model_writes_is_decoded",
        (
            Wrong("A character may be several bytes: collect the bytes of a token, and read them together.",
                  "bytes([i - FIRST_BYTE])", "chr(i - FIRST_BYTE).encode()"),
            Wrong("A model may begin with any piece: the first one begins a token in any case.", " or not tokens", ""),
            Wrong('A model may write bytes that are no UTF-8: then "\\ufffd" stands for them.',
                  'return text.decode("utf-8", "replace")', "raise"),
            Wrong("The sentence is over at the first <eos>.", "break", "continue"),
            Wrong('"▁" says where a token begins, and is no part of it.', "piece.removeprefix(START)", "piece"),
            Wrong("A byte has a name, such as <0xE7>, but it stands for the byte.",
                  "is_byte = FIRST_BYTE <= i < FIRST_CHARACTER", "is_byte = False"),
        ),
    ),
    Exercise(
        10, "recurrent", ("LSTMEncoder.forward",), "a sentence, read from both sides", 4, 20, "easy",
        "test_encoder_agrees_with_torch_on_packed_sequences test_padding_and_neighbours_change_nothing_of_what_is_read "
        "test_each_word_is_read_from_both_sides test_encoder_drops_words_and_states_and_only_in_training",
        (
            Wrong("Who reads from the end meets the padding first: the LSTM must know where each sentence ends.",
                  ", lengths=mask.sum(1)", ""),
            Wrong("The embedding's numbers are small, of variance 1/D: bring the words to variance 1.",
                  " * self.embedding.embedding_dim**0.5", ""),
            Wrong("In the mask, True is a word and False is padding.", "self.training)), mask)", "self.training)), ~mask)"),
            Wrong("In eval mode nothing is dropped.",
                  "words = F.dropout(words, self.dropout, self.training)", "words = F.dropout(words, self.dropout)"),
            Wrong("Dropout is for the LSTM's states too, before they are projected.",
                  "F.dropout(states, self.dropout, self.training)", "states"),
        ),
    ),
    Exercise(
        10, "model", ("EncoderDecoder.forward",), "teacher forcing, and less of it", 10, 50, "medium",
        "test_the_logits_at_t_know_the_words_before_t_and_no_others test_the_first_word_comes_after_bos "
        "test_told_every_word_it_writes_word_by_word_what_it_writes_at_once "
        "test_told_no_word_it_goes_on_from_what_it_finds_most_probable test_told_some_words_the_others_are_its_own "
        "test_gradients_flow_when_it_goes_on_from_its_own_words",
        (
            Wrong("The decoder sees the word that it is to write: shift the target by one, and begin with <bos>.",
                  "torch.cat([bos, target[:, :-1]], dim=1)", "target"),
            Wrong("With a teacher forcing of 0.7, seven of ten words are the true ones.",
                  "< teacher_forcing, true", "> teacher_forcing, true"),
            Wrong("Each sentence of a batch has a coin of its own.", "torch.rand(len(true), ", "torch.rand(1, "),
            Wrong("The coin is thrown anew for each word.",
                  "for true in target.unbind(1):  # (B,)\n",
                  "coin = torch.rand(len(target)); numbers = iter(target.unbind(1))\n        for true in numbers:\n",
                  (("torch.rand(len(true), device=true.device) < teacher", "coin < teacher"),)),
            Wrong("What the model finds most probable, not a word drawn at random.",
                  "logits.argmax(-1)", "logits.softmax(-1).multinomial(1).squeeze(1)"),
            Wrong("Logits are (B, T, V): the second axis is the words of the sentence.",
                  "torch.stack(found, dim=1)", "torch.stack(found)"),
        ),
    ),
    # --- 11: multimodal translation ----------------------------------------------------------------------------------
    Exercise(
        11, "model", ("fuse",), "two memories side by side", 2, 10, "easy",
        "test_fuse_lays_memories_side_by_side test_several_modalities_are_fused_with_vectors_of_one_length",
        (
            Wrong("Side by side means more places, not longer vectors: along which axis do the places lie?",
                  "torch.cat([m.tokens for m in memories], 1)", "torch.cat([m.tokens for m in memories], -1)"),
            Wrong("The masks go side by side as well: padding of one memory must stay padding in both.",
                  "torch.cat([m.mask for m in memories], 1)",
                  "torch.ones(memories[0].mask.size(0), sum(m.mask.size(1) for m in memories)).bool()"),
            Wrong("A mask for each place: that of the first memory is too short for all.",
                  "torch.cat([m.mask for m in memories], 1)", "memories[0].mask"),
            Wrong("There may be more than two memories.",
                  "m.tokens for m in memories]",
                  "m.tokens for m in memories[:2]]",
                  (("m.mask for m in memories]", "m.mask for m in memories[:2]]"),)),
            Wrong("They lie in the order in which they were given.",
                  "m.tokens for m in memories]",
                  "m.tokens for m in memories[::-1]]",
                  (("m.mask for m in memories]", "m.mask for m in memories[::-1]]"),)),
        ),
    ),
    Exercise(
        11, "model", ("EncoderDecoder.encode",), "what is given, on an equal footing", 8, 40, "medium",
        "test_a_missing_modality_is_not_fused test_several_modalities_are_fused_with_vectors_of_one_length "
        "test_a_picture_that_stands_alone_is_never_dropped test_without_modality_dropout_nothing_is_drawn "
        "test_of_some_pictures_each_sentence_sees_its_own_or_none "
        "test_in_training_some_lack_the_picture_and_as_many_the_sentence_but_none_both",
        (
            Wrong("A batch need not have all that the model could read: what it lacks is not encoded.",
                  "[name for name in self.encoders if name in batch]", "list(self.encoders)"),
            Wrong("An equal footing: the vectors of one modality are longer than those of the other, and would win every "
                  "softmax.", "if len(self.encoders) > 1:  #", "if False:  #"),
            Wrong("A sentence must look the same to the decoder whether a picture is beside it or not: what decides is how "
                  "many modalities the model has, not how many this batch has.",
                  "if len(self.encoders) > 1:  #", "if len(given) > 1:  #"),
            Wrong("A model of one modality has nothing to bring to the same length: leave its memory as the encoder gave it.",
                  "if len(self.encoders) > 1:  #", "if True:  #"),
            Wrong("Each vector by itself is brought to the same length, not all of a sentence together.",
                  "m.tokens.shape[-1:]", "m.tokens.shape[1:]"),
            Wrong("Who lacks a picture is told by has_image in the batch, if it is there.", 'batch.get(f"has_{name}")', "None"),
            Wrong("Modalities are dropped in training only; a model that is in use should see all that there is.",
                  "self.training and ", ""),
            Wrong("Where only one is given there is nothing to choose from, and no coin to toss.", " and len(given) > 1", ""),
            Wrong("With modality_dropout, in training, a share of the examples should lack one of its modalities.",
                  "if self.training and", "if False and"),
        ),
    ),
    Exercise(
        11, "model", ("_encode_some",), "who has no picture neither sees nor computes one", 10, 50, "hard",
        "test_of_some_pictures_each_sentence_sees_its_own_or_none test_batch_norm_learns_of_the_pictures_that_are_there "
        "test_those_without_a_picture_see_nothing_of_what_stands_in_its_place "
        "test_no_picture_is_as_good_as_none_that_is_there "
        "test_without_any_picture_the_gradient_of_what_sees_is_0_and_not_none",
        (
            Wrong("Masked afterwards is too late: the blank pictures went through batch norm, and changed the others.",
                  "rows, training = there",
                  "if there.any():\n        every = encoder(inputs)\n        return Memory(every.tokens, every.mask & "
                  "there[:, None])\n    rows, training = there"),
            Wrong("Zeros are not nothing: a place of zeros still gets a share of the attention. What must its mask say?",
                  "mask.index_copy(0, rows, some.mask)", "torch.ones_like(mask)"),
            Wrong("Each memory belongs in the row of its own example, not in the first rows that are free.",
                  "tokens.index_copy(0, rows, some.tokens)", "torch.cat([some.tokens, tokens[len(rows) :]])"),
            Wrong("If nobody has a picture, the encoder still needs a gradient, of 0: processes that train together wait for "
                  "it.",
                  "0 * some.tokens.expand(len(inputs), -1, -1)", "some.tokens.new_zeros(len(inputs), *some.tokens.shape[1:])"),
            Wrong("What is computed only for its gradient of 0 is no picture that batch norm should learn of.",
                  "encoder.eval()(inputs[:1])", "encoder(inputs[:1])"),
            Wrong("The encoder must be left as it was found: in training if it was in training.",
                  "encoder.train(training)", "encoder.eval()"),
            Wrong("The encoder must be left as it was found: one that was not in training must not be afterwards.",
                  "encoder.train(training)", "encoder.train()"),
        ),
    ),
    Exercise(
        11, "model", ("_drop_some",), "a coin for each example", 5, 25, "medium",
        "test_in_training_some_lack_the_picture_and_as_many_the_sentence_but_none_both",
        (
            Wrong("With a coin for each modality, some examples lose both. One of them must be left.",
                  "(chosen != i)", "(torch.rand(B, device=device) >= share / len(there))"),
            Wrong("An example that has only one modality must keep it.", " | (count < 2)", ""),
            Wrong("A coin for each example, not one for the whole batch.",
                  "torch.rand(B, device=device)", "torch.rand(1, device=device)"),
            Wrong("`share` of the examples lack something. With two modalities, each is lacking in half of those.",
                  " * len(there) / share", " / share"),
            Wrong("Each modality should be left out as often as another. Is it always the same one?",
                  "(torch.rand(B, device=device) * len(there) / share).floor()",
                  "torch.where(torch.rand(B, device=device) < share, 0, len(there))"),
            Wrong("Who lacks a picture to begin with does not get one by a coin.", "has & (", "("),
            Wrong("None says that all examples have it.", "torch.ones(B", "torch.zeros(B"),
        ),
    ),
    Exercise(
        11, "scenes", ("mask_colours", "_without_an"), "a stain where the colours were", 4, 20, "easy",
        "test_masking_by_hand test_masking_does_not_tell_that_the_word_begins_with_a_vowel "
        "test_masking_leaves_no_colour_word test_masked_captions_are_the_same_whatever_the_colours",
        (
            Wrong('"an [v] star" tells that the hidden word begins with a vowel, and so that it is "orange".',
                  "return _without_an(re.sub(pattern, MASKED, caption))", "return re.sub(pattern, MASKED, caption)"),
            Wrong('Only an "an" right before what is hidden must change: "an anchor" stays.', " (?={re.escape(MASKED)})", " "),
            Wrong("In German a colour has endings: what is left of them would tell the gender twice.", "(e[rsnm]?)?\\b", ""),
            Wrong("Each language has its own words for the colours.", 'if language == "en":', 'if language != "zh":'),
            Wrong("All colours of the sentence are hidden, not only the first.",
                  "MASKED, caption))", "MASKED, caption, count=1))"),
            Wrong("Hide the colour and nothing else: 的 is no part of it.",
                  'pattern = "|".join(colour.chinese for', 'pattern = "|".join(colour.chinese + "的" for'),
        ),
    ),
    Exercise(
        11, "scenes", ("mask_noun",), "a stain where a noun was", 4, 20, "medium",
        "test_masking_a_noun_by_hand test_each_noun_is_masked_in_turn_and_nothing_else "
        "test_masking_does_not_tell_that_the_word_begins_with_a_vowel",
        (
            Wrong("German nouns have a capital letter, and the list of words has none.", ", re.IGNORECASE", ""),
            Wrong("If `which` is larger than the number of nouns, it is counted on from the start.",
                  "which % len(found)", "which"),
            Wrong("A sentence may have no noun that you know. It stays as it is.",
                  "    if not found:\n        return caption\n", ""),
            Wrong("The same noun may stand there twice, and only one of them is to be hidden.",
                  "caption[:start] + MASKED + caption[end:]", "caption.replace(caption[start:end], MASKED)"),
            Wrong('"an [v]" tells that the noun begins with a vowel. There is a function for that.',
                  "_without_an(caption[:start] + MASKED + caption[end:])", "caption[:start] + MASKED + caption[end:]"),
            Wrong("Counted from the start of the sentence, not from its end.",
                  "found[which % len(found)]", "found[-1 - which % len(found)]"),
            Wrong("Some nouns are the beginning of others. The pattern must not stop amid a word.",
                  'rf"\\b(?:{nouns})\\b"', "nouns", ((", reverse=True", ""),)),
        ),
    ),
    Exercise(
        11, "scenes", ("colour_of",), "which colour a token names", 2, 10, "easy",
        "test_the_colours_of_a_caption_are_known_by_their_tokens test_every_german_ending_of_a_colour_is_known",
        (
            Wrong("A German colour may end like an ending by itself: look for the whole word first.",
                  "colours.get(token) or ", ""),
            Wrong("German has five endings of adjectives; you know fewer.", "e[rsnm]?$", "e[rs]?$"),
            Wrong('Only German has these endings: in English, "reds" is no colour.',
                  're.sub(r"e[rsnm]?$", "", token) if language == "de" else token', 're.sub(r"(e[rsnm]?|s)$", "", token)'),
            Wrong("To the tokenizer each Chinese character is a token, so the whole word never comes.",
                  "word[0] == token", "word == token"),
            Wrong("The character 色 stands in every Chinese colour: which of a word's characters tells the colour?",
                  "word[0] == token", "token in word"),
            Wrong("A word that only begins like a colour is none.",
                  "colours.get(token) or colours",
                  "next((colours[word] for word in colours if token.startswith(word)), None) or colours"),
        ),
    ),
    Exercise(
        11, "metrics", ("words_right",), "of the words that were hidden, which are right?", 3, 15, "easy",
        "test_words_right_by_hand test_words_right_are_those_of_all_sentences_in_order",
        (
            Wrong("Two colours that have changed places are both wrong: the n-th is compared with the n-th.",
                  "name == other for name, other in zip_longest(wanted, written[: len(wanted)])",
                  "name in written for name in wanted"),
            Wrong("A word that the hypothesis lacks is wrong. It must not drop out of the list.", "in zip_longest(", "in zip("),
            Wrong("The words of the reference are asked for; what the hypothesis has beyond them is not counted.",
                  "written[: len(wanted)]", "written"),
            Wrong('Names are compared, not words: "scarlet" for "red" is right, if both mean the same.',
                  "[name for token in tokens", "[token for token in tokens"),
            Wrong("The first of the references decides, not the last.", "refs[0]", "refs[-1]"),
            Wrong("One verdict a word, not one a sentence.",
                  "right += [name == other for name, other in zip_longest(wanted, written[: len(wanted)])]",
                  "right += [written == wanted] * bool(wanted)"),
        ),
    ),
)  # fmt: skip
