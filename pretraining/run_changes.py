"""Whether a saved run and this one are the same run: the flags, the data and the DeepSpeed options that change what is computed."""

from collections.abc import Iterator
from typing import Any

from pretraining.args.flag_set import FlagSet
from pretraining.objectives.catalog import OBJECTIVES, Part

# Flags that may differ between the pieces of one run: they change where, how fast, how long and how loudly it runs, and not what a step
# computes. `data_identity` notices folders and files with other content, and `changed_options` a DeepSpeed file with other options.
_FREE = frozenset({
    "output_dir", "job_name", "current_run_id", "project_name", "print_steps", "report_to", "num_workers",
    "minutes_between_checkpoints", "steps_between_checkpoints", "num_epochs_between_checkpoints",
    "keep_checkpoints", "keep_marker_checkpoints", "finetune_checkpoint_at_end", "finetune_time_markers", "early_exit_time_marker",
    "num_epochs", "do_validation", "validation_epochs", "validation_epochs_begin", "validation_epochs_end", "validation_begin_proportion",
    "validation_end_proportion", "validation_micro_batch", "use_early_stopping", "early_stop_time", "early_stop_eval_loss",
    "scale_cnt_limit", "steps_per_print", "wall_clock_breakdown", "deepspeed_config", "tokenizer_name", "dataset_path", "teacher_path",
    "token_counts", "teacher_cache",
    "fp16", "fp16_backend", "layer_norm_type",  # --precision says what they decide, and both layer norms compute the same
})
# Sections of a DeepSpeed file that only tell.
_FREE_OPTIONS = ("comms_logger", "csv_monitor", "dump_state", "flops_profiler", "memory_breakdown", "tensorboard", "wandb")
# The optimizer's state of one cannot be read as another's.
STATE_FLAGS = ("optimizer_type", "zero_stage")


def changed_flags(saved: dict[str, Any], now: dict[str, Any], flags: FlagSet, methods: list[Part]) -> Iterator[tuple[str, str]]:
    """(flag, `flag: old -> new`) for every flag that changes what is computed and differs; one unknown to the saved run had its default."""
    info = flags.info
    free = _FREE | flags.free | {name for name in info if info[name].no_effect} | _conditionally_free(now, methods)
    for name, value in now.items():
        old = saved.get(name, info[name].default)
        if name not in free and old != value:
            yield name, f"{name}: {old} -> {value}"


def _conditionally_free(now: dict[str, Any], methods: list[Part]) -> set[str]:
    free = set()
    comparing = {name for name, row in OBJECTIVES.items() if row.compares_samples}
    if not any(part.name in comparing for part in methods):
        free |= {"train_micro_batch_size_per_gpu", "group_by_length"}
    if now.get("token_counts") is None:
        free.add("mlm_smoothing")
    if now["lr_schedule"] == "time":
        free.add("max_steps")  # it stops the run and is the total of no schedule
    elif all(part.since == 0 and part.until == float("inf") for part in methods):
        free.add("total_training_time")
    return free


def changed_options(saved: dict[str, Any], now: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """`deepspeed_config: option: old -> new` for every option of a DeepSpeed file that differs, sections by dotted names."""
    for name in dict.fromkeys((*saved, *now)):
        old, new = saved.get(name), now.get(name)
        if name in _FREE_OPTIONS or old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from changed_options(old, new, f"{prefix}{name}.")
        else:
            yield f"deepspeed_config: {prefix}{name}: {old} -> {new}"


def changed_data(saved: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """What of `data_identity` differs, in words. A run without validation reads no test shards and has none to compare.

    An entry that the saved run does not know was empty in it.
    """
    words = {"train": "the train shards are others", "test": "the test shards are others", "teacher": "the teacher's weights are others",
             "teacher_cache": "the teacher's stored outputs are others", "token_counts": "the token counts are others"}
    for name, value in now.items():
        old = saved.get(name)
        if old != value and not (name == "test" and not (old and value)):
            yield words.get(name, f"the {name} changed")
