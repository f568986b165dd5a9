"""The exercises of chapter 7: fine-tuning."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        chapter=7,
        module="finetuning",
        parts=(
            "freeze",
            "unfreeze",
            "_matches_pattern",
            "_set_frozen_modes",
            "_stay_in_eval",
        ),
        title="what is frozen is really still",
        points=15,
        minutes=75,
        difficulty="hard",
        tests=(
            "test_a_pattern_freezes_what_it_fits_and_nothing_else",
            "test_a_pattern_that_fits_nothing_is_named_in_a_line_with_what_there_is",
            "test_nothing_is_dropped_in_what_is_frozen_until_it_wakes",
            "test_beside_a_lora_batch_norm_is_still",
            "test_a_frozen_model_can_be_sent_and_comes_back_frozen",
        ),
        wrong=(
            Wrong(
                "A pattern may be the beginning of a name only up to a dot: "
                "\"encoders.image.backb\" is nothing's name.",
                old='pattern + ".*"',
                new='pattern + "*"',
            ),
            Wrong(
                "A pattern that fits nothing is a slip of the pen: raise "
                "ValueError, and name it.",
                old="if not fitting:",
                new="if False:",
            ),
            Wrong(
                "Without a gradient a weight stands still, but batch norm still "
                "counts and dropout still drops. In which mode must a frozen part "
                "be, and what keeps it there when `model.train()` is called?",
                old="module.train = partial(_stay_in_eval, module)",
                new="pass",
            ),
            Wrong(
                "A part is still only if all of its parameters are frozen: one "
                "that is frozen by half goes on training.",
                old="any(p.requires_grad for p in parameters)",
                new="all(p.requires_grad for p in parameters)",
            ),
            Wrong(
                "A module without any parameter is not frozen: `any` of nothing "
                "is False.",
                old="if parameters and not any",
                new="if not any",
            ),
            Wrong(
                "What is freed must follow `model.train()` again.",
                old='module.__dict__.pop("train", None)',
                new="pass",
            ),
            Wrong(
                "A lambda cannot be pickled, and a frozen model goes to other "
                "processes too.",
                old="partial(_stay_in_eval, module)",
                new="lambda mode=True: module",
            ),
            Wrong(
                "Freezing changes the mode of what is frozen only: the rest stays "
                "in the mode in which the model was.",
                old="model.train(model.training)",
                new="model.train()",
            ),
        ),
    ),
    Exercise(
        chapter=7,
        module="finetuning",
        parts=("layers", "_depth"),
        title="the layers, from the input to the output",
        points=8,
        minutes=40,
        difficulty="medium",
        tests=(
            "test_layers_have_every_parameter_once_in_the_order_in_which_they_compute",
        ),
        wrong=(
            Wrong(
                "The order in which a model names its parameters is not the order "
                "in which it computes: what stands before the blocks and what "
                "behind them must be sorted.",
                old="for depth in sorted(found)",
                new="for depth in found",
            ),
            Wrong(
                'As text, "10" stands before "2": sort the blocks by their number.',
                old="1, int(numbered[1])",
                new="1, numbered[1]",
            ),
            Wrong(
                "A CNN or ViT comes before all else of its encoder.",
                old=(
                    '0 if ".backbone." in name else 1 if '
                    'name.startswith("encoders.") else 2'
                ),
                new='1 if name.startswith("encoders.") else 2',
            ),
            Wrong(
                "Of the backbone and the decoder, the last norm or the output "
                "stands behind the blocks, not before them.",
                old="2 if behind else 0",
                new="0",
            ),
            Wrong(
                "The decoder's embedding is its output too: with all that has no "
                "number there, it is the last layer.",
                old="behind = part == 2 or ",
                new="behind = ",
            ),
        ),
    ),
    Exercise(
        chapter=7,
        module="finetuning",
        parts=("parameter_groups",),
        title="who decays, and how fast each layer learns",
        points=8,
        minutes=35,
        difficulty="medium",
        tests=(
            "test_groups_have_every_parameter_once_with_its_decay_and_its_rate",
        ),
        wrong=(
            Wrong(
                "The layer next to the output learns fastest, at factor 1. From "
                "which end do you count?",
                old="enumerate(reversed(layers(model)))",
                new="enumerate(layers(model))",
            ),
            Wrong(
                "Biases, norms and single vectors do not decay.",
                old="weight_decay * decays",
                new="weight_decay",
            ),
            Wrong(
                "A class token (1, 1, D) has three axes and is a single vector "
                "all the same.",
                old="parameter.squeeze().dim()",
                new="parameter.dim()",
            ),
            Wrong(
                "Here a parameter is in two groups, and an optimizer would move "
                "it twice.",
                old=") == decays:",
                new=") >= decays:",
            ),
            Wrong(
                "Each layer is slower than the next by the same factor: a power, "
                "not a product.",
                old="layer_decay ** depth[name]",
                new="layer_decay * depth[name]",
            ),
        ),
    ),
    Exercise(
        chapter=7,
        module="finetuning",
        parts=("gradual_unfreezing",),
        title="gradual unfreezing",
        points=6,
        minutes=30,
        difficulty="medium",
        tests=(
            "test_thawing_goes_by_layers_from_the_output",
        ),
        wrong=(
            Wrong(
                "What is nearest to the output is freed first.",
                old="for names in reversed(chosen) if names",
                new="for names in chosen if names",
            ),
            Wrong(
                "The share is of the layers in which something is frozen; the "
                "others do not count.",
                old="[names for names in reversed(chosen) if names]",
                new="[names for names in reversed(chosen)]",
            ),
            Wrong(
                "A layer is freed when its share is reached, not before: round down.",
                old="int(fraction * len(chosen))",
                new="round(fraction * len(chosen))",
            ),
            Wrong(
                "The answer is whether this call has changed anything; what was "
                "free before is no change.",
                old="return change",
                new="return bool(free)",
            ),
            Wrong(
                "A layer that is freed must also wake from its eval mode: "
                "`unfreeze` does both.",
                old="unfreeze(model, *free)",
                new="[model.get_parameter(name).requires_grad_(True) for name in free]",
            ),
        ),
    ),
    Exercise(
        chapter=7,
        module="finetuning",
        parts=("LoRA.forward", "LoRA.matrix"),
        title="a change of low rank",
        points=6,
        minutes=30,
        difficulty="easy",
        tests=(
            "test_attention_with_lora_is_attention_with_another_matrix",
            "test_dropout_is_for_what_goes_into_the_change_only",
            "test_every_matrix_of_a_decoder_is_joined_by_scale_b_a_which_alone_is_trained",
            "test_a_linear_layer_with_lora_is_that_of_loralib",
        ),
        wrong=(
            Wrong(
                "What is added to W x is scale · B A x. Where is the scale?",
                old="return self.scale * F.linear(",
                new="return F.linear(",
            ),
            Wrong(
                "The matrix is scale · B A. Where is the scale?",
                old="return self.scale * self.b @",
                new="return self.b @",
            ),
            Wrong(
                "`rows` chooses rows of the product, so of B: an attention that "
                "needs the queries alone asks for these.",
                old="self.b[rows]",
                new="self.b",
            ),
            Wrong(
                "Dropout is for what goes into A, not for what is added.",
                old=(
                    "x = F.dropout(x, self.dropout, self.training)\n"
                    "        return self.scale * F.linear(F.linear(x, self.a), "
                    "self.b[rows])"
                ),
                new=(
                    "return F.dropout(self.scale * F.linear(F.linear(x, self.a), "
                    "self.b[rows]), self.dropout, self.training)\n"
                ),
            ),
            Wrong(
                "In eval mode nothing is dropped.",
                old="self.dropout, self.training",
                new="self.dropout, True",
            ),
            Wrong(
                "`scale` is what the paper calls α / r: the division by the rank "
                "is done.",
                old="self.scale * F.linear(",
                new="self.scale / len(self.a) * F.linear(",
            ),
        ),
    ),
    Exercise(
        chapter=7,
        module="finetuning",
        parts=("LoRALinear.forward", "LoRAAttention.in_proj", "LoRALSTM.weight"),
        title="where a LoRA joins its layer",
        points=5,
        minutes=25,
        difficulty="easy",
        tests=(
            "test_a_linear_layer_with_lora_is_that_of_loralib",
            "test_attention_with_lora_is_attention_with_another_matrix",
            "test_an_lstm_with_lora_is_an_lstm_with_other_matrices",
            "test_dropout_is_for_what_goes_into_the_change_only",
            "test_every_matrix_of_a_decoder_is_joined_by_scale_b_a_which_alone_is_trained",
        ),
        wrong=(
            Wrong(
                "The change is added to W x, it does not replace it.",
                old='super().forward(x) + self.lora["weight"](x)',
                new='self.lora["weight"](x)',
            ),
            Wrong(
                "The change, like W, is multiplied with the layer's input x, not "
                "with its output.",
                old='super().forward(x) + self.lora["weight"](x)',
                new='self.lora["weight"](super().forward(x)) + super().forward(x)',
            ),
            Wrong(
                "Attention may ask for some rows only, as for the queries: the "
                "change must be of the same rows.",
                old='self.lora["in_proj_weight"](x, rows)',
                new='self.lora["in_proj_weight"](x)',
            ),
            Wrong(
                "In training, dropout acts on the x that goes into A. If B A is "
                "added to W first, there is nowhere to drop it.",
                old='super().in_proj(x, rows) + self.lora["in_proj_weight"](x, rows)',
                new=(
                    "F.linear(x, (self.in_proj_weight + "
                    'self.lora["in_proj_weight"].matrix())[rows], '
                    "self.in_proj_bias[rows])"
                ),
            ),
            Wrong(
                "An LSTM asks for its matrix at each call, and W itself must not "
                "change: a sum in place adds the change again and again.",
                old="super().weight(name) + self.lora[name].matrix()",
                new="super().weight(name).data.add_(self.lora[name].matrix().detach())",
            ),
            Wrong(
                "Each of the LSTM's matrices has a LoRA of its own, known by the "
                "matrix's name.",
                old="self.lora[name].matrix()",
                new="next(iter(self.lora.values())).matrix()",
            ),
            Wrong(
                "The LSTM calls `weight` for every matrix that it uses: what this "
                "returns must include the change.",
                old="super().weight(name) + self.lora[name].matrix()",
                new="super().weight(name)",
            ),
        ),
    ),
    Exercise(
        chapter=7,
        module="finetuning",
        parts=("merge_lora", "remove_lora"),
        title="into the weights, or away without a trace",
        points=4,
        minutes=20,
        difficulty="easy",
        tests=(
            "test_a_merged_lora_computes_the_same_and_counts_once",
            "test_without_its_lora_a_model_is_plain_again",
        ),
        wrong=(
            Wrong(
                "`weight = weight + …` gives the name to a new tensor, and the "
                "layer's weight stays as it was.",
                old="weight += lora.matrix()",
                new="weight = weight + lora.matrix()",
            ),
            Wrong(
                "The weight holds the change now. If the LoRA stays, its change "
                "counts twice.",
                old="    remove_lora(model)",
                new="    pass",
            ),
            Wrong(
                "Merging is no step for autograd: without `torch.no_grad` the "
                "weight becomes part of A's and B's graph.",
                old="@torch.no_grad()\n",
                new="",
            ),
            Wrong(
                "`matrix` gives scale · B A: the scale is in it already.",
                old="weight += lora.matrix()",
                new="weight += lora.scale * lora.matrix()",
            ),
            Wrong(
                "A layer may have several matrices, as an LSTM does: merge the "
                "change of each.",
                old="in layer.lora.items():",
                new="in list(layer.lora.items())[:1]:",
            ),
            Wrong(
                "A and B must go from the layer's parameters too.",
                old="del layer.lora",
                new="pass",
            ),
            Wrong(
                "Without its LoRA the layer must be of its plain class: the other "
                "one looks for `layer.lora`.",
                old="layer.__class__ = _PLAIN_CLASS[type(layer)]",
                new="pass",
            ),
            Wrong(
                "W was never changed, so there is nothing to subtract: take the "
                "LoRA away, and W is what it was.",
                old="        del layer.lora\n",
                new=(
                    "        for name, lora in layer.lora.items():\n"
                    "            layer.get_parameter(name).data -= "
                    "lora.matrix().detach()\n"
                    "        del layer.lora\n"
                ),
            ),
        ),
    ),
    Exercise(
        chapter=7,
        module="weights",
        parts=("load_matching",),
        title="what fits is loaded, and the rest is said",
        points=4,
        minutes=20,
        difficulty="easy",
        tests=(
            "test_what_fits_is_loaded_and_the_rest_is_said",
        ),
        wrong=(
            Wrong(
                "`strict=False` forgives names, but not shapes: leave out what is "
                "of another shape.",
                old="for name in common if state[name].shape == ours[name].shape}",
                new="for name in common}",
            ),
            Wrong(
                '"Missing" is what the model has and the state dict has not, and '
                '"unexpected" the other way round.',
                old=(
                    "[name for name in ours if name not in state],\n"
                    "        [name for name in state if name not in ours]"
                ),
                new=(
                    "[name for name in state if name not in ours], [name for name "
                    "in ours if name not in state]"
                ),
            ),
            Wrong(
                "What is there in another shape is not missing.",
                old="for name in ours if name not in state]",
                new="for name in ours if name not in fitting]",
            ),
            Wrong(
                "Say which shape is theirs and which is ours: first the state "
                "dict's, then the model's.",
                old="tuple(state[name].shape)}, here {tuple(ours[name].shape)}",
                new="tuple(ours[name].shape)}, here {tuple(state[name].shape)}",
            ),
        ),
    ),
    Exercise(
        chapter=7,
        module="weights",
        parts=("transfer_embedding_rows",),
        title="the rows of the words that both know",
        points=4,
        minutes=15,
        difficulty="easy",
        tests=(
            "test_the_rows_of_common_words_are_kept",
        ),
        wrong=(
            Wrong(
                "A word has another number in each vocabulary: which number "
                "belongs to which tensor?",
                old="(i, index[word])",
                new="(index[word], index[word])",
            ),
            Wrong(
                "What you were given must stay as it is: change a copy.",
                old="new = new.clone()",
                new="new = new",
            ),
            Wrong(
                "Words that only the new vocabulary knows keep their rows of `new`.",
                old="new = new.clone()",
                new="new = torch.zeros_like(new)",
            ),
            Wrong(
                "The result has the type of `new`: convert the old rows.",
                old="old[from_rows].to(new)",
                new="old[from_rows]",
            ),
            Wrong(
                "What if no word is in both?",
                old=".reshape(-1, 2).T",
                new=".T",
            ),
        ),
    ),
)
