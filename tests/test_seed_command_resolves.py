"""The command of file 004 resolves with every value as written: literal, repaired, as a recipe, and with what launchers append."""

import pytest
import yaml
from cli_case import LITERAL_FLAGS, LOST_FLAGS, PROJECT, REPAIRED_FLAGS, command_line, print_config, run_script

from pretraining.args.flag_set import ONE_SHOT
from pretraining.args.parser import INFO, parse
from pretraining.args.resolve import resolve
from pretraining.launch import Launch

RECIPE = "configs/hidden_mse_6layer.yaml"


def resolved(*words: str, ranks: int = 1) -> dict:
    """Every resolved flag of a command line, found in this process."""
    args = parse(list(words))
    resolve(args, Launch(rank=0, world_size=ranks, local_rank=0, launched=ranks > 1))
    return args.as_dict()


def as_written(flags: dict[str, str | None]) -> dict:
    """The values that the written words stand for, by rules of this file and not of the parser."""
    whole = ("max_steps", "print_steps", "num_epochs_between_checkpoints", "validation_epochs", "validation_epochs_begin",
             "validation_epochs_end", "validation_micro_batch", "early_stop_time", "seed", "hidden_size", "num_hidden_layers",
             "num_attention_heads", "intermediate_size", "train_batch_size", "train_micro_batch_size_per_gpu")
    words = ("layer_selection", "current_run_id", "finetune_time_markers")
    values: dict = {}
    for name, word in flags.items():
        if word is None:
            values[name] = True
        elif name in whole:
            values[name] = int(word)
        elif name in words or word[0] not in "0123456789":
            values[name] = word
        else:
            values[name] = float(word)
    return values | ({"fused_linear_layer": False} if "fused_linear_layer" in flags else {})


def chosen(values: dict, flags: dict) -> dict:
    return {name: values[name] for name in flags}


def test_the_command_has_56_flags_and_the_recipe_holds_them_all():
    assert len(LITERAL_FLAGS) == 50
    assert len(REPAIRED_FLAGS) == 56
    assert yaml.safe_load((PROJECT / RECIPE).read_text(encoding="utf-8")).keys() == REPAIRED_FLAGS.keys()


def test_the_literal_command_keeps_every_value_and_loses_what_the_shell_loses():
    values = print_config(*command_line(LITERAL_FLAGS))
    assert chosen(values, LITERAL_FLAGS) == as_written(LITERAL_FLAGS)
    assert chosen(values, LOST_FLAGS) == {
        "finetune_time_markers": None, "fused_linear_layer": True, "layer_norm_type": "apex", "fp16": False, "fp16_backend": "ds",
        "student_initialize": False}
    assert values["precision"] == "auto"
    assert values["gradient_accumulation_steps"] == 4


def test_the_repaired_command_and_the_recipe_and_its_own_output_resolve_to_the_same(tmp_path):
    values = print_config(*command_line(REPAIRED_FLAGS))
    assert chosen(values, REPAIRED_FLAGS) == as_written(REPAIRED_FLAGS)
    assert values["precision"] == "fp16"
    assert values.keys() == INFO.keys() - set(ONE_SHOT)
    assert print_config("--config", RECIPE) == values
    (tmp_path / "printed.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    again = run_script("--config", str(tmp_path / "printed.yaml"), "--print_config")
    assert yaml.safe_load(again.stdout) == values
    # A recipe that repeats defaults asks for nothing that could be without effect.
    first = run_script("--config", RECIPE, "--print_config")
    assert again.stderr == first.stderr
    assert "--fused_linear_layer: no effect" in first.stderr
    assert "--sparse_mask_prediction" not in first.stderr


@pytest.mark.parametrize("appended", ["--local-rank=0", "--local_rank=0", "--local_rank 0"])
@pytest.mark.parametrize("flags", [LITERAL_FLAGS, REPAIRED_FLAGS], ids=["literal", "repaired"])
def test_what_launchers_append_changes_nothing(appended, flags):
    words = command_line(flags)
    assert resolved(*words, *appended.split()) == resolved(*words)
    assert resolved(*appended.split(), *words) == resolved(*words)
    assert parse([*words, *appended.split()]).run.local_rank == 0


@pytest.mark.parametrize("word", ["true", "True", "1", "yes", "YES", "on"])
def test_bare_booleans_may_have_a_value(word):
    bare = {name: None for name, value in REPAIRED_FLAGS.items() if value is None and name != "student_initialize"}
    assert len(bare) == 6
    assert resolved(*command_line(REPAIRED_FLAGS | dict.fromkeys(bare, word))) == resolved(*command_line(REPAIRED_FLAGS))


@pytest.mark.parametrize("word", ["false", "FALSE", "0", "no", "off"])
def test_a_boolean_set_to_false_is_off(word):
    values = resolved(*command_line(REPAIRED_FLAGS | {"fp16": word, "use_early_stopping": word}))
    assert (values["fp16"], values["use_early_stopping"], values["precision"]) == (False, False, "auto")


@pytest.mark.parametrize("name", ["fused_linear_layer", "sparse_mask_prediction", "async_worker", "finetune_checkpoint_at_end"])
def test_flags_that_are_on_by_default_have_a_twin_that_turns_them_off(name):
    flags = {key: value for key, value in REPAIRED_FLAGS.items() if key != name}
    assert resolved(*command_line(flags))[name] is True
    assert resolved(*command_line(flags), f"--no_{name}")[name] is False
    assert resolved(*command_line(flags), f"--{name}", "false")[name] is False


def test_the_command_line_beats_the_recipe_and_ranks_divide_the_accumulation():
    values = resolved("--config", str(PROJECT / RECIPE), "--lr", "1e-3", "--precision", "fp32", "--student_initialize", "false", ranks=2)
    assert (values["lr"], values["precision"], values["student_initialize"]) == (1e-3, "fp32", False)
    assert values["gradient_accumulation_steps"] == 2


def test_recipe_values_mean_what_they_mean_on_the_command_line(tmp_path):
    """YAML itself reads 010 as 8, 1:30 as 90 and `no` as false."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("current_run_id: 010\njob_name: 1:30\nproject_name: no\nlayer_selection: [1, 3]\nmax_steps: 1e5\n"
                      "finetune_time_markers: [0.5, 1.0]\nteacher_path: ~\nfp16: yes\n", encoding="utf-8")
    args = parse(["--config", str(recipe)])
    assert (args.run.current_run_id, args.run.job_name, args.run.project_name) == ("010", "1:30", "no")
    assert (args.distillation.layer_selection, args.distillation.teacher_path) == ("1,3", None)
    assert (args.budget.max_steps, args.budget.finetune_time_markers, args.engine.fp16) == (100_000, "0.5,1.0", True)


def test_fp16_on_the_command_line_overrides_a_recipes_precision(tmp_path):
    from pretraining.args.parser import parse
    from pretraining.args.resolve import resolve
    from pretraining.launch import Launch

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("precision: fp32\noutput_dir: x\ntrain_batch_size: 32\n")

    def precision(*flags):
        return resolve(parse(["--config", str(recipe), *flags]), Launch(0, 1, 0, False)).args.engine.precision

    assert [precision(), precision("--fp16"), precision("--fp16", "--precision", "bf16")] == ["fp32", "fp16", "bf16"]
