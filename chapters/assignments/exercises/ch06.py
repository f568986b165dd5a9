"""The exercises of chapter 6: the training loop."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        chapter=6,
        module="training",
        parts=("warmup_and_cosine",),
        title="a learning rate that rises and falls",
        points=3,
        minutes=15,
        difficulty="easy",
        tests=(
            "test_learning_rate_rises_linearly_and_falls_as_a_cosine",
        ),
        wrong=(
            Wrong(
                "Where is the warmup? Your first steps use the full rate, before "
                "Adam has seen any gradients.",
                old="return min(warmup, cosine)",
                new="return cosine",
            ),
            Wrong(
                "`warmup_fraction` is not a number of steps but a fraction of all "
                "steps.",
                old="(step + 1) / (warmup_fraction * steps)",
                new="(step + 1) / warmup_fraction",
            ),
            Wrong(
                "Off by one: a first step with a learning rate of 0 would be wasted.",
                old="warmup = (step + 1)",
                new="warmup = step",
            ),
            Wrong(
                "It is half a cosine, from 1 to 0: halfway through the steps it has "
                "fallen to one half.",
                old="math.cos(math.pi * step / steps)",
                new="math.cos(2 * math.pi * step / steps)",
            ),
            Wrong(
                "A cosine lies between -1 and 1: this one should end at 0.",
                old="0.5 + 0.5 * math.cos",
                new="math.cos",
            ),
            Wrong(
                "The warmup need not be a whole number of steps: do not round, and "
                "with int() it may even be 0.",
                old="(step + 1) / (warmup_fraction * steps)",
                new="(step + 1) / max(1, int(warmup_fraction * steps))",
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
            "test_references_at_once_are_like_separate_examples",
            "test_an_objective_takes_the_place_of_the_loss",
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
            Wrong(
                "Some models are trained with another objective: call it, and return "
                "what it returns.",
                old="if self.objective:",
                new="if False:",
            ),
            Wrong(
                "The target may be (B, K, T), K references of an example, and the "
                "logits are then (B·K, T, V): flatten both.",
                old=(
                    "            logits.flatten(0, 1),\n"
                    "            target.flatten(),\n"
                ),
                new=(
                    "            logits.transpose(1, 2),\n"
                    "            target,\n"
                ),
            ),
        ),
    ),
    Exercise(
        chapter=6,
        module="reliability",
        parts=("GradScaler.update", "GradScaler.unscale"),
        title="the loss scale of float16",
        points=4,
        minutes=20,
        difficulty="easy",
        tests=(
            "test_loss_scale_follows_that_of_torch",
            "test_unscaled_gradients_are_those_of_the_loss",
        ),
        wrong=(
            Wrong(
                "An overflow halves the scale.",
                old="self.scale /= 2",
                new="self.scale *= 2",
            ),
            Wrong(
                "The 2,000 good steps must be in a row: an overflow sets the count "
                "back to 0.",
                old=(
                    "            self.good_steps = 0\n"
                    "            return\n"
                ),
                new="            return\n",
            ),
            Wrong(
                "After the scale has doubled, the count starts again at 0.",
                old=(
                    "            self.scale *= 2\n"
                    "            self.good_steps = 0\n"
                ),
                new="            self.scale *= 2\n",
            ),
            Wrong(
                "Off by one: the scale doubles after exactly 2,000 steps without an "
                "overflow, not one later.",
                old="self.good_steps == 2000",
                new="self.good_steps > 2000",
            ),
            Wrong(
                "The loss was multiplied by the scale, and so was every gradient: "
                "undo that before the gradients are used.",
                old="parameter.grad /= self.scale",
                new="pass",
            ),
            Wrong(
                "A frozen parameter has no gradient.",
                old="if parameter.grad is not None:",
                new="if True:",
            ),
            Wrong(
                "`parameters` is an Iterable, such as the generator "
                "model.parameters(): it can be read once only.",
                old="        for parameter in parameters:\n",
                new=(
                    "        if all(parameter.grad is None for parameter in "
                    "parameters):\n"
                    "            return\n"
                    "        for parameter in parameters:\n"
                ),
            ),
        ),
    ),
    Exercise(
        chapter=6,
        module="training",
        parts=("Trainer._micro_batches", "Trainer._scaled"),
        title="a batch in micro-batches",
        points=7,
        minutes=35,
        difficulty="medium",
        tests=(
            "test_micro_batches_add_up_to_the_batch",
            "test_accumulated_gradient_is_that_of_the_whole_batch_averaged_over_words",
            "test_step_equals_that_of_torch",
            "test_clipping_ignores_the_loss_scale_of_float16",
        ),
        wrong=(
            Wrong(
                "Each example belongs in exactly one micro-batch: together they "
                "are the batch.",
                old="value[i::number]",
                new="value[: len(value) // number]",
            ),
            Wrong(
                "A batch may be smaller than `accumulation_steps`: a micro-batch "
                "must not be empty.",
                old="min(self.config.accumulation_steps, size)",
                new="self.config.accumulation_steps",
            ),
            Wrong(
                "A batch is sorted by length, so neighbours are alike: deal the "
                "examples out like cards, so that each micro-batch has short and long "
                "ones.",
                old="value[i::number]",
                new="value.tensor_split(number)[i]",
            ),
            Wrong(
                "The loss is a sum over words: divide it by `first_count`, or the "
                "gradient grows with the batch.",
                old="self.world_size / first_count",
                new="self.world_size",
            ),
            Wrong(
                "In float16 small gradients become 0: multiply the loss by the scale "
                "before you call backward().",
                old="loss * self.scaler.scale * self.world_size",
                new="loss * self.world_size",
            ),
        ),
    ),
    Exercise(
        chapter=6,
        module="training",
        parts=("Trainer._train_step", "Trainer._set_learning_rates"),
        title="one step, or none",
        points=20,
        minutes=100,
        difficulty="hard",
        tests=(
            "test_step_equals_that_of_torch",
            "test_clipping_bounds_the_gradient_and_reports_its_norm_before",
            "test_step_with_a_nonfinite_gradient_is_skipped_and_counted",
            "test_skipped_steps_do_not_move_the_schedule",
            "test_clipping_ignores_the_loss_scale_of_float16",
            "test_float16_halves_a_loss_scale_that_is_too_large",
            "test_accumulated_gradient_is_that_of_the_whole_batch_averaged_over_words",
            "test_micro_batches_add_up_to_the_batch",
        ),
        wrong=(
            Wrong(
                "The mean of the micro-batches' means is not the mean over all "
                "words: micro-batches have different numbers of words.",
                old="self._scaled(loss, first_count)",
                new="self._scaled(loss, count * self.config.accumulation_steps)",
                more=(
                    ("self._rescale(first_count / count)", "pass"),
                ),
            ),
            Wrong(
                "Divide by a number of words, not by the number of micro-batches: "
                "the loss is a sum over words.",
                old="self._scaled(loss, first_count)",
                new="self._scaled(loss, self.config.accumulation_steps)",
                more=(
                    ("self._rescale(first_count / count)", "pass"),
                ),
            ),
            Wrong(
                "Divide the loss of every micro-batch by the same number: "
                "`first_count` is the count of the first one.",
                old="if first_count is None:",
                new="if True:",
            ),
            Wrong(
                "Report the loss of all micro-batches, not only that of the last one.",
                old="loss_sum += loss.detach()",
                new="loss_sum = loss.detach()",
            ),
            Wrong(
                "Report the count of all micro-batches, not only that of the last one.",
                old="count_sum += count",
                new="count_sum = count.float()",
            ),
            Wrong(
                "The sum of the losses is only reported: without detach() it keeps "
                "the graph of every micro-batch in memory.",
                old="loss_sum += loss.detach()",
                new="loss_sum = loss_sum + loss",
            ),
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
                "First divide the gradients by the scale, then clip: otherwise you "
                "clip gradients that are 65,536 times too large.",
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
                old="self._rescale(first_count / count)",
                new="pass",
            ),
            Wrong(
                "A gradient with a NaN in it must not reach the weights.",
                old="is_finite = math.isfinite(stats.norm)",
                new="is_finite = True",
            ),
            Wrong(
                "A skipped step has changed something already: the running "
                "statistics of batch norm.",
                old="                buffer.copy_(before)\n",
                new="                pass\n",
            ),
            Wrong(
                "The schedule counts the steps that were made, not those that "
                "were skipped.",
                old="step = self.step - self.skipped",
                new="step = self.step",
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
        title="a file that is never half written",
        points=7,
        minutes=35,
        difficulty="medium",
        tests=(
            "test_written_file_can_be_read",
            "test_content_is_on_the_disk_before_the_rename",
            "test_file_size_limit_keeps_the_old_checkpoint",
            "test_impossible_folder_is_refused",
            "test_folder_in_place_of_the_file_is_refused",
            "test_other_errors_pass_through_and_keep_the_old_checkpoint",
        ),
        wrong=(
            Wrong(
                "If you write into the file itself, the old one is lost before the "
                "new one is complete: write a temporary file, then rename it.",
                old='path.with_name(path.name + ".writing")',
                new="path",
                more=(
                    ("os.replace(temporary, path)", "pass"),
                ),
            ),
            Wrong(
                "A rename may reach the disk before the content: what would you "
                "find after a power cut?",
                old=(
                    "            os.fsync(file.fileno())  # the content is on the "
                    "disk before the name is\n"
                ),
                new="",
            ),
            Wrong(
                "First the content on the disk, then the new name: you rename the "
                "file before it is safe.",
                old="os.fsync(file.fileno())",
                new="os.replace(temporary, path), os.fsync(file.fileno())",
                more=(
                    (
                        (
                            "        os.replace(temporary, path)\n"
                            "    except"
                        ),
                        "    except",
                    ),
                ),
            ),
            Wrong(
                "Ctrl-C is no failed write, and neither is a bug: let them "
                "through as they are.",
                old="except (OSError, RuntimeError) as error",
                new="except BaseException as error",
            ),
            Wrong(
                "Whatever fails, no temporary file may remain.",
                old="            temporary.unlink()\n",
                new="            pass\n",
            ),
            Wrong(
                "The folder may not exist yet.",
                old="path.parent.mkdir(parents=True, exist_ok=True)",
                new="pass",
            ),
            Wrong(
                "Torch turns a failed write into a RuntimeError: the caller should "
                "get an OSError for that, too.",
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
                "A process without examples gets an example that does not count: its "
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
                old="seed_of(self.seed, self.epoch)",
                new="seed_of(self.seed + self.rank, self.epoch)",
            ),
            Wrong(
                "A run that resumes in the middle of an epoch must not get its first "
                "`skip` batches again.",
                old="batches[self.skip :]",
                new="batches",
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
        parts=("first_nonfinite", "_is_finite"),
        title="where the first NaN comes from",
        points=9,
        minutes=45,
        difficulty="medium",
        tests=(
            "test_first_nonfinite_output_is_named",
            "test_nonfinite_weight_is_named_before_outputs",
            "test_gradient_is_named_only_if_all_outputs_are_finite",
            "test_gradient_nearest_to_the_loss_is_named_first",
            "test_frozen_weights_have_no_gradient_to_check",
            "test_nested_outputs_are_checked",
            "test_finite_outputs_are_not_named",
            "test_no_hooks_remain_when_the_model_fails",
            "test_the_mode_of_the_model_stays",
        ),
        wrong=(
            Wrong(
                "A NaN spreads: everything after the first one has it as well. "
                "Which of those that you found came first?",
                old='return found[0] if found else "the loss"',
                new='return found[-1] if found else "the loss"',
            ),
            Wrong(
                "Gradients are computed from the loss back to the input: the "
                "first wrong one is the nearest to the loss.",
                old="reversed(list(model.named_parameters()))",
                new="list(model.named_parameters())",
            ),
            Wrong(
                "Infinity is not finite either.",
                old="bool(output.isfinite().all())",
                new="not output.isnan().any()",
            ),
            Wrong(
                "An output may be a tuple, and that may contain tuples: check "
                "every tensor in them.",
                old="return all(_is_finite(part) for part in output)",
                new="return _is_finite(output[0]) if output else True",
            ),
            Wrong(
                "Your hooks stay on the model after you return, or when its forward "
                "pass fails: remove each of them.",
                old="            handle.remove()\n",
                new="            pass\n",
            ),
            Wrong(
                "A frozen parameter has no gradient at all.",
                old="if weight.grad is not None and not weight.grad",
                new="if not weight.grad",
            ),
            Wrong(
                "A weight that is not finite spoils what follows: name it before "
                "the outputs.",
                old='found.append(f"the weight {name}")',
                new="pass",
            ),
            Wrong(
                "The model was in training, some of its modules perhaps not: whoever "
                "calls you wants it back as it was.",
                old="            model(batch)\n",
                new=(
                    "            model.eval()\n"
                    "            model(batch)\n"
                ),
            ),
        ),
    ),
)
