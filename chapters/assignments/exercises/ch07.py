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
        title="frozen modules really do not change",
        points=15,
        minutes=75,
        difficulty="hard",
        tests=(
            "test_pattern_freezes_matching_parameters_only",
            "test_pattern_without_a_match_is_refused_with_the_list_of_parts",
            "test_frozen_modules_have_no_dropout_until_unfrozen",
            "test_batch_norm_statistics_do_not_change_with_a_lora",
            "test_frozen_model_can_be_pickled",
        ),
        wrong=(
            Wrong(
                "A pattern may be the start of a name only up to a dot: "
                '"encoders.image.backb" matches nothing.',
                old='pattern + ".*"',
                new='pattern + "*"',
            ),
            Wrong(
                "A pattern that matches nothing is a typo: raise ValueError, and "
                "name it.",
                old="if not matching:",
                new="if False:",
            ),
            Wrong(
                "Without a gradient a weight does not change, but batch norm still "
                "updates its statistics, and dropout still drops. In which mode must "
                "a frozen module be, and what keeps it there after `model.train()`?",
                old="module.train = partial(_stay_in_eval, module)",
                new="pass",
            ),
            Wrong(
                "A module goes into eval mode only if all of its parameters are "
                "frozen: a half-frozen one still trains.",
                old="any(p.requires_grad for p in parameters)",
                new="all(p.requires_grad for p in parameters)",
            ),
            Wrong(
                "A module without parameters is not frozen: `any` of an empty list "
                "is False.",
                old="if parameters and not any",
                new="if not any",
            ),
            Wrong(
                "An unfrozen module must follow `model.train()` again.",
                old='module.__dict__.pop("train", None)',
                new="pass",
            ),
            Wrong(
                "A lambda cannot be pickled, and a frozen model is sent to other "
                "processes, too.",
                old="partial(_stay_in_eval, module)",
                new="lambda mode=True: module",
            ),
            Wrong(
                "Freezing changes the mode of frozen modules only: the others keep "
                "the model's mode.",
                old="model.train(model.training)",
                new="model.train()",
            ),
            Wrong(
                "In a regular expression a full stop matches any character; in these "
                "patterns only * is special.",
                old=(
                    "return fnmatchcase(name, pattern) or fnmatchcase(name, pattern + "
                    '".*")'
                ),
                new=(
                    'regex = pattern.replace("*", ".*")\n'
                    "    return bool(re.fullmatch(regex, name) or re.match(regex + "
                    '"[.]", name))'
                ),
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
            "test_layers_list_every_parameter_once_in_order_of_computation",
        ),
        wrong=(
            Wrong(
                "The order in which a model lists its parameters is not the order "
                "in which it computes: sort what comes before, in and after the "
                "blocks.",
                old="for depth in sorted(by_depth)",
                new="for depth in by_depth",
            ),
            Wrong(
                'As text, "10" comes before "2": sort the blocks by their number.',
                old="1, int(block[1])",
                new="1, block[1]",
            ),
            Wrong(
                "The backbone, a CNN or ViT, comes first in its encoder.",
                old='if ".backbone." in name:',
                new="if False:",
            ),
            Wrong(
                "The last norm of the backbone and the output of the decoder come "
                "after the blocks, not before them.",
                old="2 if is_after else 0",
                new="0",
            ),
            Wrong(
                "The decoder's embedding is its output, too: with all other "
                "parameters outside the blocks, it is the last layer.",
                old="is_after = part == 2 or ",
                new="is_after = ",
            ),
        ),
    ),
    Exercise(
        chapter=7,
        module="finetuning",
        parts=("parameter_groups",),
        title="weight decay, and layer-wise learning rates",
        points=8,
        minutes=35,
        difficulty="medium",
        tests=(
            "test_parameter_groups_hold_every_parameter_once_with_its_decay_and_factor",
        ),
        wrong=(
            Wrong(
                "The last layer, next to the output, learns fastest, at factor 1. "
                "From which end do you count?",
                old="enumerate(reversed(layers(model)))",
                new="enumerate(layers(model))",
            ),
            Wrong(
                "Biases, norms and single vectors do not decay.",
                old="weight_decay if decays else 0.0",
                new="weight_decay",
            ),
            Wrong(
                "A class token (1, 1, D) has three axes but is a single vector.",
                old="parameter.squeeze().dim()",
                new="parameter.dim()",
            ),
            Wrong(
                "A parameter is in two of your groups, so an optimizer would move "
                "it twice.",
                old="is_matrix == decays:",
                new="is_matrix >= decays:",
            ),
            Wrong(
                "Each layer is slower than the next by the same factor: that is a "
                "power, not a product.",
                old="layer_decay ** distance[name]",
                new="layer_decay * distance[name]",
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
            "test_gradual_unfreezing_starts_at_the_output",
        ),
        wrong=(
            Wrong(
                "The layer nearest to the output is unfrozen first.",
                old="in reversed(layers(model))",
                new="in layers(model)",
            ),
            Wrong(
                "`fraction` is a fraction of the layers with frozen parameters; the "
                "others do not count.",
                old="if frozen_names:",
                new="if True:",
            ),
            Wrong(
                "A layer is unfrozen when its fraction is reached, not before: "
                "round down.",
                old="int(fraction * len(frozen_layers))",
                new="round(fraction * len(frozen_layers))",
            ),
            Wrong(
                "Return whether this call has changed anything; layers that were "
                "trained before do not count.",
                old="return changed",
                new="return bool(free)",
            ),
            Wrong(
                "An unfrozen layer must also leave its eval mode: `unfreeze` does "
                "both.",
                old="unfreeze(model, *free)",
                new="[model.get_parameter(name).requires_grad_(True) for name in free]",
            ),
        ),
    ),
    Exercise(
        chapter=7,
        module="finetuning",
        parts=("LoRA.forward", "LoRA.matrix"),
        title="low-rank adaptation",
        points=6,
        minutes=30,
        difficulty="easy",
        tests=(
            "test_attention_with_lora_equals_attention_with_the_changed_matrix",
            "test_lora_dropout_acts_only_on_the_input_of_a",
            "test_lora_adds_scale_b_a_to_every_matrix_and_is_trained_alone",
            "test_linear_layer_with_lora_equals_loralib",
        ),
        wrong=(
            Wrong(
                "The change added to W x is scale · B A x. Where is the scale?",
                old="return self.scale * F.linear(",
                new="return F.linear(",
            ),
            Wrong(
                "The matrix is scale · B A. Where is the scale?",
                old="return self.scale * self.b @",
                new="return self.b @",
            ),
            Wrong(
                "`rows` selects rows of the product, so of B: attention asks for "
                "some of them if it needs only the queries.",
                old="self.b[rows]",
                new="self.b",
            ),
            Wrong(
                "Dropout acts on the input of A, not on the change.",
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
                "`scale` is the paper's α / r: it is already divided by the rank.",
                old="self.scale * F.linear(",
                new="self.scale / len(self.a) * F.linear(",
            ),
        ),
    ),
    Exercise(
        chapter=7,
        module="finetuning",
        parts=("LoRALinear.forward", "LoRAAttention.in_proj", "LoRALSTM.weight"),
        title="a LoRA in each kind of layer",
        points=5,
        minutes=25,
        difficulty="easy",
        tests=(
            "test_linear_layer_with_lora_equals_loralib",
            "test_attention_with_lora_equals_attention_with_the_changed_matrix",
            "test_lstm_with_lora_equals_an_lstm_with_changed_matrices",
            "test_lora_dropout_acts_only_on_the_input_of_a",
            "test_lora_adds_scale_b_a_to_every_matrix_and_is_trained_alone",
        ),
        wrong=(
            Wrong(
                "The change is added to W x; it does not replace it.",
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
                "Attention may ask for some rows only, such as those of the queries: "
                "the change must be for the same rows.",
                old='self.lora["in_proj_weight"](x, rows)',
                new='self.lora["in_proj_weight"](x)',
            ),
            Wrong(
                "In training, dropout acts on the x that goes into A. If you add B A "
                "to W first, there is no such x.",
                old='super().in_proj(x, rows) + self.lora["in_proj_weight"](x, rows)',
                new=(
                    "F.linear(x, (self.in_proj_weight + "
                    'self.lora["in_proj_weight"].matrix())[rows], '
                    "self.in_proj_bias[rows])"
                ),
            ),
            Wrong(
                "An LSTM asks for its matrix at each call, and W itself must not "
                "change: an in-place sum adds the change again and again.",
                old="super().weight(name) + self.lora[name].matrix()",
                new="super().weight(name).data.add_(self.lora[name].matrix().detach())",
            ),
            Wrong(
                "Each of the LSTM's matrices has its own LoRA, under the matrix's "
                "name.",
                old="self.lora[name].matrix()",
                new="next(iter(self.lora.values())).matrix()",
            ),
            Wrong(
                "The LSTM calls `weight` for every matrix that it uses: the result "
                "must include the change.",
                old="super().weight(name) + self.lora[name].matrix()",
                new="super().weight(name)",
            ),
        ),
    ),
    Exercise(
        chapter=7,
        module="finetuning",
        parts=("merge_lora", "remove_lora"),
        title="merge a LoRA, or remove it",
        points=4,
        minutes=20,
        difficulty="easy",
        tests=(
            "test_merged_lora_computes_the_same",
            "test_model_is_plain_again_without_its_lora",
        ),
        wrong=(
            Wrong(
                "`weight = weight + …` makes a new tensor, and the layer's weight "
                "stays as it was.",
                old="weight += lora.matrix()",
                new="weight = weight + lora.matrix()",
            ),
            Wrong(
                "The weight now includes the change. If the LoRA stays, the change "
                "counts twice.",
                old="    remove_lora(model)",
                new="    pass",
            ),
            Wrong(
                "Autograd must not record the merge: without `torch.no_grad` the "
                "weight becomes part of A's and B's graph.",
                old="@torch.no_grad()\n",
                new="",
            ),
            Wrong(
                "`matrix` returns scale · B A: the scale is already in it.",
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
                "A and B must be removed from the layer's parameters, too.",
                old="del layer.lora",
                new="pass",
            ),
            Wrong(
                "Without its LoRA the layer must get its plain class back: the other "
                "one looks for `layer.lora`.",
                old="layer.__class__ = _PLAIN_CLASS[type(layer)]",
                new="pass",
            ),
            Wrong(
                "W was never changed, so there is nothing to subtract: remove the "
                "LoRA, and W is as before.",
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
        title="load matching tensors, list the others",
        points=4,
        minutes=20,
        difficulty="easy",
        tests=(
            "test_matching_tensors_are_loaded_and_the_others_are_listed",
        ),
        wrong=(
            Wrong(
                "`strict=False` forgives names, but not shapes: leave out tensors "
                "of another shape.",
                old="if state[name].shape == ours[name].shape:",
                new="if True:",
            ),
            Wrong(
                '"Missing" names are only in the model, "unexpected" ones only in '
                "the state dict.",
                old="IncompatibleKeys(missing, unexpected, mismatched)",
                new="IncompatibleKeys(unexpected, missing, mismatched)",
            ),
            Wrong(
                "A tensor of another shape is mismatched, not missing.",
                old="for name in ours if name not in state]",
                new="for name in ours if name not in matching]",
            ),
            Wrong(
                "You list the two shapes in the wrong order: first comes the state "
                "dict's, then the model's.",
                old="tuple(state[name].shape)}, here {tuple(ours[name].shape)}",
                new="tuple(ours[name].shape)}, here {tuple(state[name].shape)}",
            ),
            Wrong(
                "The state dict is the caller's: copy what you need, and delete "
                "nothing.",
                old='            mismatched.append(f"{name} {shapes}")\n',
                new=(
                    '            mismatched.append(f"{name} {shapes}")\n'
                    "            del state[name]\n"
                ),
                more=(
                    (
                        "missing = [name for name in ours if name not in state]",
                        (
                            "mismatches = {text.split()[0] for text in mismatched}\n"
                            "    missing = [name for name in ours if name not in state "
                            "and name not in mismatches]"
                        ),
                    ),
                ),
            ),
            Wrong(
                "assign=True replaces the parameters, and an optimizer goes on moving "
                "the old ones.",
                old="strict=False)",
                new="strict=False, assign=True)",
            ),
        ),
    ),
    Exercise(
        chapter=7,
        module="weights",
        parts=("transfer_embedding_rows",),
        title="rows of words in both vocabularies",
        points=4,
        minutes=15,
        difficulty="easy",
        tests=(
            "test_common_words_keep_their_rows",
        ),
        wrong=(
            Wrong(
                "A word has a different number in each vocabulary: which number "
                "belongs to which tensor?",
                old="(i, index[word])",
                new="(index[word], index[word])",
            ),
            Wrong(
                "The tensors that you are given must not change: change a copy.",
                old="new = new.clone()",
                new="new = new",
            ),
            Wrong(
                "Words that are only in the new vocabulary keep their rows of `new`.",
                old="new = new.clone()",
                new="new = torch.zeros_like(new)",
            ),
            Wrong(
                "The result has the dtype of `new`: convert the old rows.",
                old="old[old_rows].to(new)",
                new="old[old_rows]",
            ),
            Wrong(
                "What if no word is in both vocabularies?",
                old=".reshape(-1, 2).T",
                new=".T",
            ),
        ),
    ),
)
