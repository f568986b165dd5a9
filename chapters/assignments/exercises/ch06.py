"""The exercises of chapter 6: the training loop."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        chapter=6,
        module="training",
        parts=("warmup_and_cosine",),
        title="a rate that rises and falls",
        points=3,
        minutes=15,
        difficulty="easy",
        tests=(
            "test_the_learning_rate_rises_and_falls",
        ),
        wrong=(
            Wrong(
                "Where is the warm-up? The first steps go with the full rate, "
                "when Adam knows nothing yet.",
                old=(
                    "min((step + 1) / (warmup_fraction * steps), 0.5 + 0.5 * "
                    "math.cos(math.pi * step / steps))"
                ),
                new="0.5 + 0.5 * math.cos(math.pi * step / steps)",
            ),
            Wrong(
                "`warmup_fraction` is not a number of steps but a fraction of all "
                "steps.",
                old="(step + 1) / (warmup_fraction * steps)",
                new="(step + 1) / warmup_fraction",
            ),
            Wrong(
                "Off by one: a first step with a rate of 0 would be lost.",
                old="(step + 1)",
                new="step",
            ),
            Wrong(
                "Half a cosine, from 1 to 0: in the middle it has fallen to one half.",
                old="math.cos(math.pi * step / steps)",
                new="math.cos(2 * math.pi * step / steps)",
            ),
            Wrong(
                "A cosine lies between -1 and 1: this one is to end at 0.",
                old="0.5 + 0.5 * math.cos",
                new="math.cos",
            ),
        ),
    ),
    Exercise(
        chapter=6,
        module="model",
        parts=("EncoderDecoder.loss",),
        title="the loss counts words only",
        points=4,
        minutes=20,
        difficulty="easy",
        tests=(
            "test_padding_does_not_change_the_loss",
            "test_smoothed_loss_follows_the_formula_and_ignores_padding",
            "test_loss_is_in_float32_and_smoothed_in_training_only",
        ),
        wrong=(
            Wrong(
                "Padding is ignored: a longer neighbour in the batch must not "
                "change the loss.",
                old="ignore_index=PAD,",
                new="",
            ),
            Wrong(
                "Return the sum over the words, not their mean: the caller "
                "divides once, after adding up all micro-batches.",
                old='reduction="sum",',
                new="",
            ),
            Wrong(
                "Half precision is enough for the layers, but not for a sum over "
                "thousands of words: convert the logits to float32 first.",
                old="teacher_forcing_ratio=teacher_forcing_ratio).float()",
                new="teacher_forcing_ratio=teacher_forcing_ratio)",
            ),
            Wrong(
                "With label smoothing, part of the loss is the mean over the "
                "whole vocabulary.",
                old=(
                    ",\n"
                    "            label_smoothing=smoothing"
                ),
                new="",
            ),
            Wrong(
                "Validation measures the true words only: smooth the labels in "
                "training, not in eval mode.",
                old="self.label_smoothing if self.training else 0.0",
                new="self.label_smoothing",
            ),
            Wrong(
                "In training, `teacher_forcing_ratio` is the fraction of true "
                "words that the decoder reads: pass it on.",
                old="self(batch, teacher_forcing_ratio=teacher_forcing_ratio)",
                new="self(batch, teacher_forcing_ratio=1.0)",
            ),
            Wrong(
                "In eval mode the decoder reads the true words only, whatever "
                "`teacher_forcing_ratio` is in training.",
                old="self.teacher_forcing_ratio if self.training else 1.0",
                new="self.teacher_forcing_ratio",
            ),
            Wrong(
                "Count the words, and not the padding after them.",
                old="(target != PAD).sum()",
                new="(target == target).sum()",
            ),
        ),
    ),
    Exercise(
        chapter=6,
        module="reliability",
        parts=("GradScaler.update", "GradScaler.unscale"),
        title="a scale for float16",
        points=4,
        minutes=20,
        difficulty="easy",
        tests=(
            "test_the_scale_follows_that_of_torch",
            "test_dividing_by_the_scale_gives_the_gradients_of_the_loss",
        ),
        wrong=(
            Wrong(
                "An overflow halves the scale.",
                old="self.scale /= 2",
                new="self.scale *= 2",
            ),
            Wrong(
                "2,000 good steps in a row: an overflow begins the count anew.",
                old="self.good_steps + 1 if finite else 0",
                new="self.good_steps + finite",
            ),
            Wrong(
                "After it has doubled, the count begins anew.",
                old="self.scale, self.good_steps = 2 * self.scale, 0",
                new="self.scale = 2 * self.scale",
            ),
            Wrong(
                "Off by one: after 2,000 steps without an overflow, and not one later.",
                old="self.good_steps == 2000",
                new="self.good_steps > 2000",
            ),
            Wrong(
                "The loss was multiplied by the scale, and every gradient with "
                "it: undo that before use.",
                old="parameter.grad /= self.scale",
                new="pass",
            ),
            Wrong(
                "What is frozen has no gradient.",
                old="if parameter.grad is not None:",
                new="if True:",
            ),
        ),
    ),
    Exercise(
        chapter=6,
        module="training",
        parts=("Trainer._gradient",),
        title="a batch in parts",
        points=12,
        minutes=60,
        difficulty="hard",
        tests=(
            "test_the_gradient_of_parts_is_that_of_the_whole_batch_by_words",
            "test_a_step_is_what_torch_s_own_pieces_make_of_it",
            "test_clipping_does_not_see_the_scale_of_float16",
            "test_the_parts_of_a_batch_add_up_to_its_loss_its_words_and_its_examples",
        ),
        wrong=(
            Wrong(
                "The mean of the micro-batches' means is not the mean over all "
                "words: they have different numbers of words.",
                old="self.processes / unit).backward()",
                new="self.processes / part_count / micro_batches).backward()",
            ),
            Wrong(
                "Divide by a number of words, not by the number of micro-batches: "
                "the loss is a sum over words.",
                old="self.processes / unit).backward()",
                new="self.processes / micro_batches).backward()",
            ),
            Wrong(
                "Divide the loss of each micro-batch by the same number: `unit` "
                "is the count of the first one.",
                old="if unit is None:",
                new="if True:",
            ),
            Wrong(
                "Each example belongs in exactly one micro-batch: together they "
                "are the batch.",
                old="value[i::micro_batches]",
                new="value[: len(value) // micro_batches]",
            ),
            Wrong(
                "In float16 small gradients become 0: multiply the loss by the "
                "scale before you go backward.",
                old="part * self.scaler.scale * self.processes",
                new="part * self.processes",
            ),
            Wrong(
                "Return the loss of all micro-batches, not only that of the last one.",
                old="loss += part.detach()",
                new="loss = part.detach()",
            ),
            Wrong(
                "Return the count of all micro-batches, not only that of the last one.",
                old="count += part_count",
                new="count = part_count",
            ),
            Wrong(
                "The loss is only reported: without detach() it holds on to the "
                "graph of every micro-batch.",
                old="loss += part.detach()",
                new="loss = loss + part",
            ),
        ),
    ),
    Exercise(
        chapter=6,
        module="training",
        parts=("Trainer._train_step", "Trainer._set_learning_rates"),
        title="one step, or none",
        points=15,
        minutes=75,
        difficulty="hard",
        tests=(
            "test_a_step_is_what_torch_s_own_pieces_make_of_it",
            "test_clipping_bounds_the_gradient_and_tells_its_norm_before",
            "test_a_step_whose_gradient_is_not_finite_changes_nothing_and_is_counted",
            "test_the_schedule_does_not_move_with_a_skipped_step",
            "test_clipping_does_not_see_the_scale_of_float16",
            "test_float16_halves_a_scale_that_is_too_large_and_goes_on",
            "test_the_gradient_of_parts_is_that_of_the_whole_batch_by_words",
        ),
        wrong=(
            Wrong(
                "Clear the gradients after each step, or the next ones are added "
                "to them.",
                old="self.optimizer.zero_grad()",
                new="pass",
            ),
            Wrong(
                "Clip the gradient: a single batch can throw the weights far away.",
                old=(
                    "nn.utils.clip_grad_norm_(self.model.parameters(), "
                    "self.config.clip_norm)"
                ),
                new="nn.utils.clip_grad_norm_(self.model.parameters(), math.inf)",
            ),
            Wrong(
                "First divide the gradients by the scale, then clip: otherwise "
                "you clip 65,536 times their norm.",
                old="        self.scaler.unscale(self.model.parameters())\n",
                new="",
                more=(
                    (
                        "        stats = Step(",
                        (
                            "        self.scaler.unscale(self.model.parameters())\n"
                            "        stats = Step("
                        ),
                    ),
                ),
            ),
            Wrong(
                "With micro-batches, the gradient was divided by the words of the "
                "first one only. How many are there in all?",
                old="self._rescale(unit / count)",
                new="pass",
            ),
            Wrong(
                "A gradient with a NaN in it must not reach the weights.",
                old="is_finite = math.isfinite(stats.norm)",
                new="is_finite = True",
            ),
            Wrong(
                "A skipped step has changed something already: batch norm has "
                "seen the batch.",
                old="                buffer.copy_(before)\n",
                new="                pass\n",
            ),
            Wrong(
                "The schedule counts the steps that were made, not those that "
                "were skipped.",
                old="self.step - self.skipped, self.steps",
                new="self.step, self.steps",
            ),
            Wrong(
                "After each step, the scaler must learn whether the gradient was "
                "finite.",
                old="self.scaler.update(is_finite)",
                new="pass",
            ),
            Wrong(
                "The schedule has to reach the optimizer: each of its groups "
                "holds a learning rate.",
                old='group["lr"] =',
                new='group["rate"] =',
            ),
        ),
    ),
    Exercise(
        chapter=6,
        module="reliability",
        parts=("write_atomically",),
        title="a file that is never half",
        points=7,
        minutes=35,
        difficulty="medium",
        tests=(
            "test_what_is_written_can_be_read",
            "test_all_of_it_is_on_the_disk_before_it_takes_the_place_of_the_old_one",
            "test_a_file_that_may_not_be_so_big_keeps_the_old_checkpoint",
            "test_a_folder_that_cannot_be",
            "test_a_folder_in_the_place_of_the_file",
            "test_what_else_happens_while_writing_keeps_the_old_checkpoint",
        ),
        wrong=(
            Wrong(
                "Whoever writes into the file itself has lost the old one before "
                "the new one is whole: write beside it, then rename.",
                old='path.with_name(path.name + ".writing")',
                new="path",
                more=(
                    ("os.replace(beside, path)", "pass"),
                ),
            ),
            Wrong(
                "A rename may reach the disk before what was written: what would "
                "be there after a power cut?",
                old=(
                    "            os.fsync(file.fileno())  # on the disk, before "
                    "the name is\n"
                ),
                new="",
            ),
            Wrong(
                "First on the disk, then the name: yours has the new name before "
                "it is safe.",
                old="os.fsync(file.fileno())",
                new="os.replace(beside, path), os.fsync(file.fileno())",
                more=(
                    (
                        (
                            "        os.replace(beside, path)\n"
                            "    except"
                        ),
                        "    except",
                    ),
                ),
            ),
            Wrong(
                "Ctrl-C is no failed write, and a mistake in the program is none "
                "either: let them through as they are.",
                old="except (OSError, RuntimeError) as error",
                new="except BaseException as error",
            ),
            Wrong(
                "Whatever fails, no half file may be left beside.",
                old="            beside.unlink()\n",
                new="            pass\n",
            ),
            Wrong(
                "The folder may not be there yet.",
                old="path.parent.mkdir(parents=True, exist_ok=True)",
                new="pass",
            ),
            Wrong(
                "Torch makes a RuntimeError of a write that failed: to whoever "
                "calls, that is an OSError as well.",
                old="except (OSError, RuntimeError) as error",
                new="except OSError as error",
            ),
        ),
    ),
    Exercise(
        chapter=6,
        module="batches",
        parts=("BucketSampler.__iter__",),
        title="a shard of each batch for every process",
        points=8,
        minutes=40,
        difficulty="medium",
        tests=(
            "test_processes_split_each_batch",
            "test_shards_of_a_batch_have_similar_lengths",
            "test_all_processes_together_load_each_caption_once",
            "test_start_skips_the_first_batches",
        ),
        wrong=(
            Wrong(
                "Every process takes the whole batch: which examples are its own?",
                old="batch[self.rank :: self.world_size]",
                new="batch",
            ),
            Wrong(
                "A process without examples must still get a batch, or the others "
                "wait for it forever: an example without target words.",
                old=(
                    "            else:\n"
                    "                yield [(batch[0], None)]"
                ),
                new="",
            ),
            Wrong(
                "A process without examples gets one that does not count: its "
                "epoch is None.",
                old="[(batch[0], None)]",
                new="[(batch[0], self.epoch)]",
            ),
            Wrong(
                "Processes wait for one another, so their shards should take "
                "equally long: deal the sorted sentences out one by one, not in "
                "blocks.",
                old="batch[self.rank :: self.world_size]",
                new=(
                    "batch[self.rank * len(batch) // self.world_size : (self.rank "
                    "+ 1) * len(batch) // self.world_size]"
                ),
            ),
            Wrong(
                "All processes must draw the same order, or their shards overlap: "
                "the seed must not depend on the rank.",
                old="_digest(self.seed, self.epoch)",
                new="_digest(self.seed + self.rank, self.epoch)",
            ),
            Wrong(
                "Resuming in the middle of an epoch skips batches, not examples.",
                old="shuffled[self.skip :]",
                new="shuffled",
                more=(
                    (
                        "(len(self.lengths), generator=generator).tolist()",
                        (
                            "(len(self.lengths), "
                            "generator=generator).tolist()[self.skip :]"
                        ),
                    ),
                ),
            ),
        ),
    ),
    Exercise(
        chapter=6,
        module="reliability",
        parts=("first_nonfinite",),
        title="where the first NaN comes from",
        points=9,
        minutes=45,
        difficulty="medium",
        tests=(
            "test_the_first_layer_whose_output_is_not_finite_is_named",
            "test_a_weight_that_is_not_finite_is_named_before_what_follows_from_it",
            "test_a_gradient_is_named_only_where_all_outputs_are_finite",
            "test_of_several_gradients_the_one_nearest_to_the_loss_is_named",
            "test_frozen_weights_have_no_gradient_and_are_no_trouble",
            "test_in_whatever_an_output_is_wrapped_it_is_found",
            "test_what_is_finite_is_not_named",
            "test_no_hooks_are_left_where_the_model_fails",
        ),
        wrong=(
            Wrong(
                "A NaN spreads: everything behind the first one has it as well. "
                "Which of what you found came first?",
                old='return next(iter(found), "the loss")',
                new='return found[-1] if found else "the loss"',
            ),
            Wrong(
                "Gradients are computed from the loss back to the input: the "
                "first that is wrong is the nearest to the loss.",
                old=(
                    "    gradients.reverse()  # as they are computed: from the "
                    "loss back to the input\n"
                ),
                new="",
            ),
            Wrong(
                "Infinity is not finite either.",
                old="bool(output.isfinite().all())",
                new="not output.isnan().any()",
            ),
            Wrong(
                "An output may be a tuple, and in it there may be tuples: look "
                "into them.",
                old="return all(map(finite, output))",
                new="return finite(output[0]) if output else True",
            ),
            Wrong(
                "The hooks stay on the model when it is done, or when it fails: "
                "each must go.",
                old="            handle.remove()\n",
                new="            pass\n",
            ),
            Wrong(
                "What is frozen has no gradient at all.",
                old=(
                    "if weight.grad is not None\n"
                    "    ]"
                ),
                new="]",
            ),
            Wrong(
                "A weight that is not finite spoils what follows: name it before "
                "the outputs.",
                old=(
                    "in model.named_parameters()\n"
                    "        if not weight.isfinite().all()\n"
                    "    ]"
                ),
                new="in ()]",
            ),
        ),
    ),
)
