"""Commands that are ours already, and the flags of ours that old scripts of the same name did not have."""

from pretraining.args.parser import INFO

OWN_SCRIPTS = ("extract_teacher_outputs.py", "run_task_distillation.py", "translate_command.py", "dataset/split_text.py",
               "dataset/count_tokens.py", "dataset/inspect_samples.py", "dataset/convert_samples.py")
"""Scripts whose path tells that they are ours. Those that old systems had too (run_pretraining.py, dataset/process_data.py, ...) are rows
of the table, which leaves what is right in both as it is."""

OWN_MODULES = (
    *(f"dataset.{name}" for name in ("process_data", "shard_data", "merge_shards", "split_text", "generate_samples", "count_tokens",
                                     "inspect_samples", "convert_samples")),
    "pretraining.extract_student", "pretraining.convert_budget_bert", "evaluation.sweep", "evaluation.report", "translation.migrating",
)

_WORKERS = "n_processes dask_address"
PROCESS_DATA = frozenset("f file o output_dir type errors field dataset_split dataset_config n_processes help".split())
SHARD_DATA = frozenset(
    f"dir o output_dir num_train_shards num_test_shards frac_test language errors overwrite seed help {_WORKERS}".split())
MERGE_SHARDS = frozenset("data output_dir ratio grep overwrite help".split())
GENERATE_SAMPLES = frozenset(
    f"dir o output_dir model_name vocab_file do_lower_case max_seq_length nsp no_nsp masking whole_word_masking masked_lm_prob "
    f"max_predictions_per_seq dup_factor short_seq_prob errors overwrite seed help {_WORKERS}".split())


def trainer_flags() -> frozenset[str]:
    """Every flag of run_pretraining.py."""
    return frozenset(INFO) | {f"no_{name}" for name, info in INFO.items() if info.is_bool and info.default is True} | {
        "config", "local-rank", "help"}


def scorer_flags() -> frozenset[str]:
    """Every flag of run_glue.py."""
    from evaluation.scoring.flags import make_parser

    return frozenset(name.lstrip("-") for action in make_parser("")._actions for name in action.option_strings)
