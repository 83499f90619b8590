"""--deepspeed_config: "auto" takes the flags' values, numbers become the flags', contradictions and nonsense are one line."""

import json
import re
from typing import Any

import pytest

from dataset.errors import UserError
from pretraining.args.parser import parse
from pretraining.args.resolve import resolve
from pretraining.args.resolve_run import Resolved
from pretraining.launch import Launch

# What Hugging Face's documentation and trainers write: everything left to the trainer.
ALL_AUTO = {
    "train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto", "steps_per_print": "auto", "wall_clock_breakdown": "auto", "prescale_gradients": "auto",
    "gradient_predivide_factor": "auto", "zero_allow_untested_optimizer": True,
    "fp16": {"enabled": "auto", "loss_scale": "auto"}, "bf16": {"enabled": "auto"},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"}},
    "scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": "auto", "warmup_max_lr": "auto", "warmup_num_steps": "auto"}},
    "zero_optimization": {"stage": "auto", "overlap_comm": "auto", "offload_optimizer": {"device": "none"}, "offload_param": None},
}
FLAGS = ("--output_dir", "runs", "--train_batch_size", "8", "--train_micro_batch_size_per_gpu", "2")


@pytest.fixture
def read(tmp_path):
    """read(content, *flags, ranks=1) -> Resolved; `content` is the file's text or what its JSON says."""
    def run(content: Any, *flags: str, ranks: int = 1, base: tuple[str, ...] = FLAGS) -> Resolved:
        path = tmp_path / "deepspeed.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        args = parse([*base, *flags, "--deepspeed_config", str(path)])
        return resolve(args, Launch(rank=0, world_size=ranks, local_rank=0, launched=ranks > 1))
    return run


def flags_of(resolved: Resolved) -> dict:
    return {name: value for name, value in resolved.args.as_dict().items() if name != "deepspeed_config"}


def test_a_file_of_auto_changes_nothing_and_leaves_nothing_for_deepspeed_to_misread(read):
    empty, auto = read({}), read(ALL_AUTO)
    assert flags_of(auto) == flags_of(empty)
    assert (auto.deepspeed_file.extra, auto.deepspeed_file.zero, auto.deepspeed_file.accumulation) == ({}, {}, None)
    assert [note for note in auto.notes if note not in empty.notes] == [
        "--deepspeed_config: its scheduler section has no effect: --lr_schedule drives the learning rate"]


def test_numbers_of_the_file_become_the_flags(read):
    resolved = read({
        "train_batch_size": 12, "train_micro_batch_size_per_gpu": 3, "gradient_accumulation_steps": 2, "gradient_clipping": 0.25,
        "steps_per_print": 7, "wall_clock_breakdown": True, "gradient_predivide_factor": 2.0, "bf16": {"enabled": True},
        "fp16": {"enabled": False}, "zero_optimization": {"stage": 2},
        "optimizer": {"type": "AdamW", "params": {"lr": 2e-4, "betas": [0.8, 0.95], "eps": 1e-7, "weight_decay": 0.1}},
    }, ranks=2, base=("--output_dir", "runs"))
    values = flags_of(resolved)
    expected = {
        "train_batch_size": 12, "train_micro_batch_size_per_gpu": 3, "gradient_clipping": 0.25, "steps_per_print": 7,
        "wall_clock_breakdown": True, "gradient_predivide_factor": 2.0, "precision": "bf16", "zero_stage": 2, "lr": 2e-4,
        "adam_beta1": 0.8, "adam_beta2": 0.95, "adam_eps": 1e-7, "weight_decay": 0.1}
    assert {name: values[name] for name in expected} == expected
    assert resolved.accumulation == 2


def test_a_number_that_agrees_with_a_flag_is_no_contradiction(read):
    resolved = read({"train_batch_size": 8, "gradient_clipping": 0.5, "fp16": {"enabled": True}, "gradient_accumulation_steps": 4.0},
                    "--gradient_clipping", "0.5", "--fp16")
    assert resolved.args.engine.precision == "fp16"


def test_what_is_nobodys_goes_through_untouched_without_its_autos(read):
    resolved = read({"zero_optimization": {"overlap_comm": True, "reduce_bucket_size": "auto", "stage": 1},
                     "comms_logger": {"enabled": True, "verbose": "auto", "deeper": {"a": "auto", "b": [1]}}, "dump_state": False})
    assert resolved.deepspeed_file.extra == {"comms_logger": {"enabled": True, "deeper": {"b": [1]}}, "dump_state": False}
    assert resolved.deepspeed_file.zero == {"overlap_comm": True}


def test_the_resolved_flags_with_the_same_file_resolve_to_the_same(read, tmp_path):
    """args.yaml of a run names the file and holds its numbers."""
    import yaml

    content = {"gradient_clipping": 0.25, "bf16": {"enabled": True}, "zero_optimization": {"stage": 1}}
    values = read(content).args.as_dict()
    (tmp_path / "args.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    assert read(content, "--config", str(tmp_path / "args.yaml")).args.as_dict() == values


def test_settings_of_mixed_precision_that_are_not_taken_say_so(read):
    resolved = read({"fp16": {"enabled": True, "loss_scale": 128, "hysteresis": "auto"}})
    assert "--deepspeed_config: fp16.loss_scale has no effect: loss scaling is set by --precision" in resolved.notes


# file content, flags beside FLAGS, a pattern for what was found, a pattern for what would work
CONTRADICTIONS = [
    ({"train_batch_size": 16}, (), "train_batch_size is 16, --train_batch_size is 8", 'write "auto"'),
    ({"train_micro_batch_size_per_gpu": 4}, (), "train_micro_batch_size_per_gpu is 4, .* is 2", 'write "auto"'),
    ({"gradient_accumulation_steps": 2}, (), "gradient_accumulation_steps is 2, a batch of 8 .* takes 4", 'write "auto"'),
    ({"gradient_clipping": 1.0}, ("--gradient_clipping", "0"), "gradient_clipping is 1.0, --gradient_clipping is 0.0", 'write "auto"'),
    ({"zero_optimization": {"stage": 1}}, ("--zero_stage", "2"), "zero_optimization.stage is 1, --zero_stage is 2", 'write "auto"'),
    ({"zero_optimization": {"stage": 3}}, (), "--zero_stage 3", "0, 1 and 2 work"),
    ({"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}, (), "offload_optimizer", "remove it"),
    ({"zero_optimization": {"cpu_offload": True}}, (), "cpu_offload", "remove it"),
    ({"bf16": {"enabled": True}}, ("--fp16",), "bf16 is enabled, fp16 is asked for already", 'write "auto"'),
    ({"fp16": {"enabled": True}}, ("--precision", "fp32"), "fp16 is enabled, fp32 is asked for", 'write "auto"'),
    ({"fp16": {"enabled": False}}, ("--fp16",), "fp16.enabled is false, the flags ask for fp16", 'write "auto"'),
    ({"fp16": {"enabled": True}, "bf16": {"enabled": True}}, (), "bf16 is enabled, fp16 is asked for already", 'write "auto"'),
    ({"torch_autocast": {"enabled": True}}, (), "torch_autocast cannot be set, --precision sets it", "remove it"),
    ({"amp": {"enabled": True}}, (), "amp cannot be set", "remove it"),
    ({"bfloat16": {"enabled": True}}, (), "bfloat16 .* bf16 now", "remove it"),
    ({"data_types": {"grad_accum_dtype": "bf16"}}, (), "data_types cannot be set", "remove it"),
    ({"communication_data_type": "bf16"}, (), "communication_data_type cannot be set", "remove it"),
    ({"zero_allow_untested_optimizer": False}, (), "zero_allow_untested_optimizer must be true", "remove it"),
    ({"optimizer": {"type": "Lamb"}}, (), 'optimizer.type is "Lamb", --optimizer_type is adamw', "remove the section"),
    ({"optimizer": {"params": {"lr": 0.1}}}, ("--lr", "0.2"), "optimizer.params.lr is 0.1, --lr is 0.2", 'write "auto"'),
    ({"optimizer": {"params": {"betas": [0.9, 0.9]}}}, ("--adam_beta2", "0.98"), "--adam_beta2 is 0.98", 'write "auto"'),
    ({"optimizer": {"params": {"amsgrad": True}}}, (), "optimizer.params.amsgrad has no flag", "remove it"),
    ({"scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 10}}}, (), "scheduler section contradicts", "remove it"),
]
NONSENSE = [
    (b"{", "not JSON", "DeepSpeed JSON"), (b"\xff\xfe", "not JSON", "DeepSpeed JSON"), (b"", "not JSON", "DeepSpeed JSON"),
    (b"[" * 100_000, "not JSON", "DeepSpeed JSON"), ([1], "found a list", "an object"), (3, "found a int", "an object"),
    (None, "found a NoneType", "an object"),
    ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps is 0", "above 0"),
    ({"gradient_accumulation_steps": "four"}, 'is "four"', "above 0"),
    ({"gradient_accumulation_steps": [4]}, r"is \[4\]", "above 0"),
    ({"gradient_accumulation_steps": None}, "is null", "above 0"),
    ({"gradient_accumulation_steps": True}, "is true", "above 0"),
    ({"train_batch_size": None}, "train_batch_size: ", '"auto"'),
    ({"train_batch_size": "8"}, 'train_batch_size: found "8", expected a number', '"auto"'),
    ({"train_batch_size": [8]}, r"train_batch_size: found \[8\]", '"auto"'),
    ({"train_batch_size": {"a": 1}}, "train_batch_size: found a mapping", '"auto"'),
    ({"train_batch_size": 1.5}, "train_batch_size: '1.5' is not a whole number", '"auto"'),
    ({"train_batch_size": True}, "train_batch_size: found true, expected a number", '"auto"'),
    ({"steps_per_print": 10**400}, "steps_per_print: .*beyond 64 bits", '"auto"'),
    ({"gradient_clipping": float("nan")}, "--gradient_clipping nan", "at least 0"),
    ({"wall_clock_breakdown": 1}, "wall_clock_breakdown: found 1, expected true or false", '"auto"'),
    ({"wall_clock_breakdown": "yes"}, 'wall_clock_breakdown: found "yes"', '"auto"'),
    *(({section: value}, f"{section} is {re.escape(json.dumps(value))}", "expected an object")
      for section in ("zero_optimization", "fp16", "bf16", "optimizer", "scheduler") for value in ([1], 2, True, "on", 1.5)),
    ({"zero_optimization": {"offload_param": "cpu"}}, 'offload_param is "cpu"', "expected an object"),
    ({"zero_optimization": {"stage": "two"}}, 'zero_optimization.stage: found "two"', '"auto"'),
    ({"zero_optimization": {"stage": None}}, "zero_optimization.stage: ", '"auto"'),
    ({"fp16": {"enabled": "yes"}}, 'fp16.enabled is "yes"', "true, false"),
    ({"fp16": {"enabled": 1}}, "fp16.enabled is 1", "true, false"),
    ({"bf16": {"enabled": []}}, r"bf16.enabled is \[\]", "true, false"),
    ({"optimizer": {"type": ["AdamW"]}}, "optimizer.type is", "remove the section"),
    ({"optimizer": {"params": [1]}}, r"params is \[1\]", "expected an object"),
    ({"optimizer": {"params": {"betas": 0.9}}}, "betas is 0.9", "two numbers"),
    ({"optimizer": {"params": {"betas": [0.9]}}}, r"betas is \[0.9\]", "two numbers"),
    ({"optimizer": {"params": {"betas": [0.9, "x"]}}}, 'betas: found "x"', '"auto"'),
    ({"optimizer": {"params": {"lr": {}}}}, "optimizer.params.lr: found a mapping", '"auto"'),
    ({"scheduler": {"params": 3}}, "params is 3", "expected an object"),
]


def assert_one_line(error: pytest.ExceptionInfo, found: str, works: str) -> None:
    line = str(error.value)
    assert re.search(found, line), line
    assert re.search(works, line), line
    assert "--" in line
    assert len(line) < 500


@pytest.mark.parametrize(("content", "flags", "found", "works"), CONTRADICTIONS, ids=lambda value: None)
def test_a_contradiction_is_refused(read, content, flags, found, works):
    with pytest.raises(UserError) as error:
        read(content, *flags)
    assert_one_line(error, found, works)


@pytest.mark.parametrize(("content", "found", "works"), NONSENSE, ids=lambda value: None)
def test_nonsense_is_one_line(read, content, found, works):
    with pytest.raises(UserError) as error:
        read(content)
    assert_one_line(error, found, works)


def test_a_missing_file_is_named():
    args = parse([*FLAGS, "--deepspeed_config", "nowhere.json"])
    with pytest.raises(UserError, match=r"--deepspeed_config nowhere\.json: no such file"):
        resolve(args, Launch(rank=0, world_size=1, local_rank=0, launched=False))
