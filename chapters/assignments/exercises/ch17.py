"""The exercises of chapter 17: one model for all of it."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        chapter=17,
        module="mixture",
        parts=("mixing_rates",),
        title="how often is each task drawn?",
        points=4,
        minutes=20,
        difficulty="easy",
        tests=(
            "test_at_temperature_1_every_example_is_equally_frequent",
            "test_rates_are_those_of_t5",
            "test_a_high_temperature_makes_the_tasks_equal",
            "test_a_low_temperature_does_not_overflow",
            "test_impossible_sizes_are_refused",
        ),
        wrong=(
            Wrong(
                "Raise each size to the power of 1 / T.",
                old="** (1 / temperature)",
                new="** temperature",
            ),
            Wrong(
                "The rates sum to 1.",
                old="[power / sum(powers) for power in powers]",
                new="powers",
            ),
            Wrong(
                "A larger task counts as if it had `limit` examples, and a smaller one stays as it is.",
                old="min(size, limit)",
                new="limit",
            ),
            Wrong(
                "10⁹ examples at a low temperature are more than a float can hold: divide by the "
                "largest size first.",
                old="(size / max(sizes)) **",
                new="float(size) **",
            ),
            Wrong(
                "Zero examples, a temperature of 0 and an empty list are refused.",
                old="temperature <= 0 or",
                new="temperature < 0 or",
            ),
            Wrong(
                "A task without examples cannot be drawn.",
                old="min(sizes, default=0) <= 0",
                new="min(sizes, default=0) < 0",
            ),
            Wrong(
                "The sizes are the caller's: clip them in a new list.",
                old="        sizes = [min(size, limit) for size in sizes]\n",
                new=(
                    "        for k in range(len(sizes)):\n"
                    "            sizes[k] = min(sizes[k], limit)\n"
                ),
            ),
        ),
    ),
    Exercise(
        chapter=17,
        module="mixture",
        parts=("deal_tasks",),
        title="the task that lacks most comes next",
        points=5,
        minutes=25,
        difficulty="medium",
        tests=(
            "test_every_beginning_has_the_shares",
            "test_tasks_are_dealt_by_what_they_lack",
        ),
        wrong=(
            Wrong(
                "A task that has just been dealt lacks less.",
                old="dealt[task] += 1",
                new="pass",
            ),
            Wrong(
                "What a task should have grows with the number of examples.",
                old="rate * number - n",
                new="rate - n",
            ),
            Wrong(
                "The next one is the task that lacks most, not the one that lacks least.",
                old="max(lacking)",
                new="min(lacking)",
            ),
            Wrong(
                "A block is several examples of one task.",
                old="[task] * block",
                new="[task]",
            ),
            Wrong(
                "The last block may be cut: there are exactly `count` examples.",
                old="order[:count]",
                new="order",
            ),
        ),
    ),
    Exercise(
        chapter=17,
        module="mixture",
        parts=("mixture_loss",),
        title="the gradient of a mixture",
        points=5,
        minutes=25,
        difficulty="medium",
        tests=(
            "test_a_task_with_weight_2_counts_as_if_its_examples_occurred_twice",
            "test_the_gradient_of_a_mixture_is_the_weighted_mean_of_its_tasks",
            "test_padding_does_not_count_even_if_its_loss_is_not_finite",
            "test_equal_weights_give_the_loss_of_the_model",
        ),
        wrong=(
            Wrong(
                "The weight belongs to the example's task.",
                old="weights[tasks]",
                new="weights.mean().expand(len(tasks))",
            ),
            Wrong(
                "The count has the weights too: otherwise a weight changes the learning rate as well.",
                old="(weight * mask.sum(1)).sum()",
                new="mask.sum()",
            ),
            Wrong(
                "Padding has no loss.",
                old="(losses * mask).sum(1)",
                new="losses.sum(1)",
            ),
            Wrong(
                "The sum runs over words; nothing is divided by the length of a sentence.",
                old="(losses * mask).sum(1)",
                new="(losses * mask).sum(1) / mask.sum(1)",
            ),
            Wrong(
                "Count words, not examples.",
                old="weight * mask.sum(1)",
                new="weight * mask.any(1)",
            ),
        ),
    ),
    Exercise(
        chapter=17,
        module="mixture",
        parts=("answer_loss",),
        title="do not learn to write the instruction",
        points=5,
        minutes=30,
        difficulty="medium",
        tests=(
            "test_only_the_answer_is_learned_as_with_transformers_labels",
            "test_an_instruction_of_one_word_leaves_the_whole_rest_to_learn",
        ),
        wrong=(
            Wrong(
                "The instruction's words do not count.",
                old="targets.masked_fill(~is_answer, PAD)",
                new="targets",
            ),
            Wrong(
                "The logits at t predict the word at t + 1.",
                old="logits[:, :-1]",
                new="logits[:, 1:]",
            ),
            Wrong(
                "The first word of the answer is written after the last one of the instruction: it counts.",
                old="position >= instruction_lengths",
                new="position > instruction_lengths",
            ),
            Wrong(
                "Targets begin with the second word: the first of them is at position 1.",
                old="torch.arange(1, tokens.size(1)",
                new="torch.arange(0, tokens.size(1) - 1",
            ),
            Wrong(
                "Padding after the answer does not count.",
                old=", ignore_index=PAD)",
                new=")",
            ),
            Wrong(
                "The mean is over the words that count.",
                old=", ignore_index=PAD)",
                new=', ignore_index=PAD, reduction="sum") / targets.numel()',
            ),
        ),
    ),
    Exercise(
        chapter=17,
        module="finetuning",
        parts=("Adapter.__init__", "Adapter.forward", "AdapterLinear.forward"),
        title="a narrow network behind a layer",
        points=5,
        minutes=25,
        difficulty="easy",
        tests=(
            "test_adapter_is_a_bottleneck_with_a_way_around_it",
            "test_new_adapters_change_nothing_and_are_trained_alone",
            "test_the_output_of_an_adapted_layer_is_adapted",
        ),
        test_file="test_small_changes.py",
        wrong=(
            Wrong(
                "There is a way around: x + …",
                old="return x + self.up(",
                new="return self.up(",
            ),
            Wrong(
                "At the start nothing is changed: W_up is 0.",
                old="nn.init.zeros_(self.up.weight)",
                new="pass",
            ),
            Wrong(
                "At the start nothing is changed: b_up is 0.",
                old="nn.init.zeros_(self.up.bias)",
                new="pass",
            ),
            Wrong(
                "Between the two matrices is a gelu.",
                old="F.gelu(self.down(x))",
                new="F.relu(self.down(x))",
            ),
            Wrong(
                "Without anything between them, two matrices are one: where is the gelu?",
                old="F.gelu(self.down(x))",
                new="self.down(x)",
            ),
            Wrong(
                "The adapter follows the layer.",
                old="self.adapter(super().forward(x))",
                new="super().forward(self.adapter(x)) if self.in_features == self.out_features else super().forward(x)",
            ),
        ),
    ),
    Exercise(
        chapter=17,
        module="finetuning",
        parts=("train_biases",),
        title="nothing but the biases",
        points=3,
        minutes=15,
        difficulty="easy",
        tests=(
            "test_only_biases_are_trained",
            "test_a_model_without_biases_has_none_to_train",
            "test_the_trained_biases_are_pefts",
        ),
        test_file="test_small_changes.py",
        wrong=(
            Wrong(
                "All else is frozen.",
                old="model.requires_grad_(False)",
                new="pass",
            ),
            Wrong(
                "An LSTM's are called bias_ih_l0: the name begins with bias.",
                old='own_name.startswith("bias") or ',
                new="",
            ),
            Wrong(
                "An attention's is called in_proj_bias: the name ends with bias.",
                old=' or own_name.endswith("bias")',
                new="",
            ),
            Wrong(
                "If there is none, say so.",
                old="if not biases:",
                new="if False:",
            ),
        ),
    ),
    Exercise(
        chapter=17,
        module="finetuning",
        parts=("swap_change",),
        title="many changes of one base",
        points=8,
        minutes=45,
        difficulty="hard",
        tests=(
            "test_changes_are_swapped_by_name_and_taken_out_to_the_bit",
            "test_a_change_of_another_base_is_refused_by_name",
            "test_a_change_with_other_words_is_loaded_by_itself_only",
        ),
        test_file="test_small_changes.py",
        wrong=(
            Wrong(
                "Take out the LoRA that is in the model.",
                old="    remove_lora(model)\n",
                new="",
            ),
            Wrong(
                "Take out the adapters that are in the model.",
                old="    remove_adapters(model)\n",
                new="",
            ),
            Wrong(
                "Take out the prompt.",
                old="    model.prompt = None\n",
                new="",
            ),
            Wrong(
                "Biases that were replaced get their old values back.",
                old="model.get_parameter(name).copy_(x)",
                new="pass",
            ),
            Wrong(
                "Keep a copy of what is replaced: the parameter itself will change.",
                old="own[name].detach().clone()",
                new="own[name].detach()",
            ),
            Wrong(
                "A whole model is no change.",
                old="if not change:",
                new="if False:",
            ),
        ),
    ),
)
