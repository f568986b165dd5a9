"""The exercises of chapter 7: fine-tuning."""

from .exercise import Exercise, Wrong

EXERCISES = (
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
        "test_a_linear_layer_with_lora_is_that_of_loralib "
        "test_attention_with_lora_is_attention_with_another_matrix "
        "test_an_lstm_with_lora_is_an_lstm_with_other_matrices "
        "test_dropout_is_for_what_goes_into_the_change_only "
        "test_every_matrix_of_a_decoder_is_joined_by_scale_b_a_which_alone_is_trained",
        (
            Wrong("The change is added to W x, it does not replace it.",
                  'super().forward(x) + self.lora["weight"](x)', 'self.lora["weight"](x)'),
            Wrong("The change, like W, is multiplied with the layer's input x, not with its output.",
                  'super().forward(x) + self.lora["weight"](x)',
                  'self.lora["weight"](super().forward(x)) + super().forward(x)'),
            Wrong("Attention may ask for some rows only, as for the queries: the change must be of the same rows.",
                  'self.lora["in_proj_weight"](x, rows)', 'self.lora["in_proj_weight"](x)'),
            Wrong("In training, dropout acts on the x that goes into A. If B A is added to W first, there is nowhere to "
                  "drop it.",
                  'super().in_proj(x, rows) + self.lora["in_proj_weight"](x, rows)',
                  'F.linear(x, (self.in_proj_weight + self.lora["in_proj_weight"].matrix())[rows], '
                  "self.in_proj_bias[rows])"),
            Wrong("An LSTM asks for its matrix at each call, and W itself must not change: a sum in place adds the change "
                  "again and again.",
                  "super().weight(name) + self.lora[name].matrix()",
                  "super().weight(name).data.add_(self.lora[name].matrix().detach())"),
            Wrong("Each of the LSTM's matrices has a LoRA of its own, known by the matrix's name.",
                  "self.lora[name].matrix()", "next(iter(self.lora.values())).matrix()"),
            Wrong("The LSTM calls `weight` for every matrix that it uses: what this returns must include the change.",
                  "super().weight(name) + self.lora[name].matrix()", "super().weight(name)"),
        ),
    ),
    Exercise(
        7, "finetuning", ("merge_lora", "remove_lora"), "into the weights, or away without a trace", 4, 20, "easy",
        "test_a_merged_lora_computes_the_same_and_counts_once test_without_its_lora_a_model_is_plain_again",
        (
            Wrong("`weight = weight + …` gives the name to a new tensor, and the layer's weight stays as it was.",
                  "weight += lora.matrix()", "weight = weight + lora.matrix()"),
            Wrong("The weight holds the change now. If the LoRA stays, its change counts twice.",
                  "    remove_lora(model)", "    pass"),
            Wrong("Merging is no step for autograd: without `torch.no_grad` the weight becomes part of A's and B's graph.",
                  "@torch.no_grad()\n", ""),
            Wrong("`matrix` gives scale · B A: the scale is in it already.",
                  "weight += lora.matrix()", "weight += lora.scale * lora.matrix()"),
            Wrong("A layer may have several matrices, as an LSTM does: merge the change of each.",
                  "in layer.lora.items():", "in list(layer.lora.items())[:1]:"),
            Wrong("A and B must go from the layer's parameters too.", "del layer.lora", "pass"),
            Wrong("Without its LoRA the layer must be of its plain class: the other one looks for `layer.lora`.",
                  "layer.__class__ = _PLAIN_CLASS[type(layer)]", "pass"),
            Wrong("W was never changed, so there is nothing to subtract: take the LoRA away, and W is what it was.",
                  "        del layer.lora\n",
                  "        for name, lora in layer.lora.items():\n"
                  "            layer.get_parameter(name).data -= lora.matrix().detach()\n"
                  "        del layer.lora\n"),
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
)
