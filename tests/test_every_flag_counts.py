"""No flag is parsed and ignored: changing it changes the resolved run and something reads it, or it says "no effect: why", or it is an
error.
"""

import ast
import re
from pathlib import Path

import pytest
from cli_case import LOST_FLAGS, PROJECT, REPAIRED_FLAGS, command_line

from dataset.errors import UserError
from pretraining.args.methods import ALPHAS
from pretraining.args.parser import FLAGS, GROUPS, INFO, parse
from pretraining.args.resolve import resolve
from pretraining.launch import Launch
from pretraining.student_plan import _FREE, _SHAPE

# The flags that the original accepts beside the 56 of the command (reference 5.1).
FURTHER_FLAGS = set(re.findall(r"\w+", """
fearture_learn config_name cache_dir pretrain_run_args model_name_or_path async_worker gradient_accumulation_steps stochastic_mode
attention_dropout_checkpoint normalize_invertible gelu_checkpoint deepspeed_transformer_kernel vocab_size max_position_embeddings
type_vocab_size initializer_range sparse_mask_prediction hugging_face max_predictions_per_seq local_rank load_training_checkpoint
load_checkpoint_id max_steps_per_epoch num_epochs add_nsp finetune_checkpoint_at_end scale_cnt_limit log_throughput_every decay_rate
decay_step num_warmup_steps bias_correction max_coeff min_coeff num_workers aug steps_per_print wall_clock_breakdown prescale_gradients
gradient_predivide_factor fp16_opt
"""))

# Another value for every flag that is no number, no boolean and no choice.
OTHER_WORDS = {
    "output_dir": "elsewhere", "job_name": "other", "current_run_id": "2", "project_name": "other", "dataset_path": "elsewhere",
    "tokenizer_name": "elsewhere", "teacher_path": "elsewhere", "method": "hidden_mse,mlm:0.5", "layer_selection": "1,3",
    "student_layer_selection": "2", "student_initialize": "elsewhere", "student_layers": "0,2,4,6,8,10",
    "finetune_time_markers": "0.5", "clock": "simulated:2", "load_training_checkpoint": "elsewhere", "load_checkpoint_id": "latest",
    "deadline": "2999-01-01T00:00", "token_counts": "elsewhere", "teacher_cache": "elsewhere",
    "fearture_learn": "x", "model_name_or_path": "x", "config_name": "x", "cache_dir": "x", "pretrain_run_args": "x", "fp16_opt": "O1",
}
# What beside the command of file 004 makes another value of a flag legal (False: left out).
COMPANIONS: dict[str, dict] = {
    "temperature": {"method": "hidden_mse,logit"}, "do_validation": {"use_early_stopping": False},
    "logit_positions": {"method": "hidden_mse,logit"}, "truncation_factor": {"method": "hidden_mse,soft_ce"},
    "truncated_target": {"method": "hidden_mse,soft_ce", "truncation_factor": "10"},
    "relation_heads": {"method": "minilm_v2"}, "contrastive_width": {"method": "crd"}, "contrastive_temperature": {"method": "crd"},
    "second_stage": {"method": "att_val_two_stage"}, "load_checkpoint_id": {"load_training_checkpoint": "elsewhere"},
    "allow_changes": {"resume": None}, "mlm_smoothing": {"token_counts": "elsewhere"},
    **{name: {"method": "distilbert"} for name in ("alpha_ce", "alpha_mlm", "alpha_clm", "alpha_mse", "alpha_cos")},
    **{name: {"optimizer_type": "lamb"} for name in ("bias_correction", "max_coeff", "min_coeff")},
}
# Flags whose every other value is an error today.
REFUSED = {"max_steps_per_epoch", "deepspeed_transformer_kernel"}
# Functions that look at flags only to refuse them: a flag read by nothing else has no effect.
CHECKS = ("check_ranges", "_check_paths", "_check_checkpoints", "_notes_and_refusals")


def outcome(flags: dict) -> tuple[str, dict, list[str]]:
    """("error", {}, [line]) or ("run", what was resolved, its notes)."""
    args = parse(command_line(flags))
    try:
        resolved = resolve(args, Launch(rank=0, world_size=1, local_rank=0, launched=False))
    except UserError as error:
        return "error", {}, [str(error)]
    values = {name: args.get(name) for name in INFO}
    derived = (resolved.methods, resolved.accumulation, resolved.exit_hours, resolved.markers, resolved.simulated_seconds_per_step,
               resolved.deepspeed_file)
    return "run", {"flags": values, "derived": derived}, resolved.notes


def other_words(name: str, now: object, folder: Path) -> list[str]:
    """Words that give flag `name` another value than `now`."""
    info = INFO[name]
    if name == "deepspeed_config":
        (folder / "deepspeed.json").write_text('{"steps_per_print": 5}', encoding="utf-8")
        return [str(folder / "deepspeed.json")]
    if name in OTHER_WORDS:
        return [OTHER_WORDS[name]]
    if info.choices is not None:
        return [choice for choice in info.choices if choice != now]
    if info.is_bool:
        return ["false" if now else "true"]
    number = {"zero_stage": 1, "hidden_dropout_prob": 0.25, "attention_probs_dropout_prob": 0.25, "train_batch_size": 2048,
              "train_micro_batch_size_per_gpu": 512, "adam_beta1": 0.5, "adam_beta2": 0.5, "validation_begin_proportion": 0.5,
              "validation_end_proportion": 0.5, "warmup_proportion": 0.5, "second_stage": 0.25,
              "min_coeff": 0.2}.get(name, 3)
    return [str(number)]


def outcomes(name: str, folder: Path) -> list[tuple[str, bool, list[str]]]:
    """For every other value of flag `name`: "run" or "error", whether the run is another one, and the notes that it adds."""
    flags = REPAIRED_FLAGS | COMPANIONS.get(name, {}) | ({name: False} if INFO[name].no_effect else {})
    kind, base, base_notes = outcome(flags)
    assert kind == "run", base_notes
    found = []
    for word in other_words(name, base["flags"][name], folder):
        kind, changed, notes = outcome(flags | {name: word})
        found.append((kind, changed != base, [note for note in notes if note not in base_notes]))
    return found


@pytest.mark.parametrize("name", INFO)
def test_changing_a_flag_changes_the_run_or_says_why_not_or_is_an_error(name, tmp_path):
    found = outcomes(name, tmp_path)
    assert found
    for kind, differs, notes in found:
        if kind == "error":
            assert f"--{name}" in notes[0]
        elif INFO[name].no_effect is not None:
            assert any(note.startswith(f"--{name}: no effect: ") for note in notes)
        else:
            assert differs
    # --distillation changes only together with --method.
    assert all(kind == "error" for kind, _, _ in found) == (name in REFUSED or name == "distillation")


def test_every_flag_that_is_not_without_effect_is_read():
    assert not unread(flags_with_effect())


def test_a_flag_that_nobody_reads_is_found():
    assert unread({("run", "made_up"), ("run", "seed"), ("engine", "seed"), ("data", "async_worker")}) == {
        ("run", "made_up"), ("engine", "seed"), ("data", "async_worker")}


def test_every_flag_of_the_original_is_known():
    assert len(REPAIRED_FLAGS) == 56
    assert not (REPAIRED_FLAGS.keys() | FURTHER_FLAGS) - INFO.keys()
    assert LOST_FLAGS.keys() <= INFO.keys()


def test_every_flag_says_what_it_does_and_has_one_group():
    assert all(info.help for info in INFO.values())
    assert len(INFO) == sum(len(group.__dataclass_fields__) for group in GROUPS.values())


def flags_with_effect() -> set[tuple[str, str]]:
    """(group, name) of every flag that claims to change the run. --fp16_backend only says which backend runs instead."""
    return {(FLAGS.group_of[name], name) for name, info in INFO.items() if info.no_effect is None} - {
        (FLAGS.group_of[name], name) for name in (*REFUSED, "fp16_backend")}


def unread(wanted: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of `wanted` that no code outside the declarations and the pure checks reads."""
    # Read by name, in loops over these tables.
    read = {("model", name) for name in (*_SHAPE, *_FREE)} | {("distillation", name) for name in ALPHAS}
    for path in [PROJECT / "run_pretraining.py", *sorted((PROJECT / "pretraining").rglob("*.py"))]:
        for function in [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)]:
            if function.name not in CHECKS:
                read |= reads(function)
    return wanted - read


def reads(function: ast.FunctionDef) -> set[tuple[str, str]]:
    """(group, flag) for every `args.group.flag` that is read in `function`, directly or through a local name of the group."""
    class_names = {group.__name__: name for name, group in GROUPS.items()}
    aliases = {argument.arg: class_names[argument.annotation.id] for argument in function.args.args
               if isinstance(argument.annotation, ast.Name) and argument.annotation.id in class_names}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            aliases |= dict(bound_groups(node.targets[0], node.value))
    found = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            group = aliases.get(node.value.id) if isinstance(node.value, ast.Name) else group_of(node.value)
            if group is not None:
                found.add((group, node.attr))
    return found


def group_of(node: ast.expr) -> str | None:
    """The group that an expression such as `plan.resolved.args.budget` stands for."""
    return node.attr if isinstance(node, ast.Attribute) and node.attr in GROUPS else None


def bound_groups(target: ast.expr, value: ast.expr) -> list[tuple[str, str]]:
    """(local name, group) for `flags = args.budget` and `a, b = args.budget, args.run`."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return [pair for one, other in zip(target.elts, value.elts, strict=True) for pair in bound_groups(one, other)]
    group = group_of(value)
    return [(target.id, group)] if isinstance(target, ast.Name) and group is not None else []
