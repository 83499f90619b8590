"""--deepspeed_config FILE: a user's DeepSpeed JSON beside our flags, with one owner for every number.

`"auto"` (as Hugging Face's files have it) takes the flag's value. A number that contradicts a flag which was given is an error; where
the flag was not given the file's number becomes the flag's. What `pretraining.engine` must set itself is refused. Everything else
(communication, logging, ...) goes through untouched.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataset.errors import UserError
from pretraining.args.flags import parse_int
from pretraining.args.run_values import RunValues

# DeepSpeed key -> our flag.
_OWNED = {
    "train_batch_size": "train_batch_size",
    "train_micro_batch_size_per_gpu": "train_micro_batch_size_per_gpu",
    "gradient_clipping": "gradient_clipping",
    "steps_per_print": "steps_per_print",
    "wall_clock_breakdown": "wall_clock_breakdown",
    "prescale_gradients": "prescale_gradients",
    "gradient_predivide_factor": "gradient_predivide_factor",
}
_OPTIMIZER_OWNED = {"lr": "lr", "weight_decay": "weight_decay", "eps": "adam_eps"}
# Why a key cannot be in the file.
_REFUSED = {
    "torch_autocast": "--precision sets it",
    "amp": "--precision sets it",
    "bfloat16": "the key is bf16 now, and --precision bf16 sets it",
    "data_types": "gradients accumulate in fp32",
    "communication_data_type": "gradients are reduced in fp32",
    "zero_force_ds_cpu_optimizer": "the optimizer is torch's",
}


@dataclass
class DeepSpeedFile:
    """What the file adds to the configuration that `pretraining.engine` builds from the flags.

    `accumulation` is the file's gradient_accumulation_steps, to be compared with what the batch sizes give; None: not said.
    """

    extra: dict[str, Any] = field(default_factory=dict)
    zero: dict[str, Any] = field(default_factory=dict)
    accumulation: int | None = None


def read_deepspeed_file(args: RunValues, notes: list[str]) -> DeepSpeedFile:
    """Read --deepspeed_config, move what our flags own into `args`, return the rest; UserError for contradictions."""
    path = args.engine.deepspeed_config
    if path is None:
        return DeepSpeedFile()
    source = f"--deepspeed_config {path}"
    config = _load(path, source)
    for key, reason in _REFUSED.items():
        if config.pop(key, "auto") != "auto":
            raise UserError(f"{source}: {key} cannot be set, {reason}; remove it from the file")
    if config.pop("zero_allow_untested_optimizer", True) is not True:
        raise UserError(f"{source}: zero_allow_untested_optimizer must be true for torch's AdamW; remove it from the file")
    for key, flag in _OWNED.items():
        _adopt(args, source, key, config.pop(key, "auto"), flag)
    accumulation = _accumulation(source, config.pop("gradient_accumulation_steps", "auto"))
    zero = _section(source, config, "zero_optimization")
    _adopt(args, source, "zero_optimization.stage", zero.pop("stage", "auto"), "zero_stage")
    for key in ("offload_optimizer", "offload_param"):
        if _section(source, zero, key).get("device", "none") not in ("none", "auto"):
            raise UserError(f"{source}: {key} is not supported; remove it")
    if zero.pop("cpu_offload", "auto") not in ("auto", False):
        raise UserError(f"{source}: cpu_offload is not supported; remove it")
    _precision(args, source, config, notes)
    _optimizer(args, source, config)
    _scheduler(source, config, notes)
    return DeepSpeedFile(extra=_without_auto(config), zero=_without_auto(zero), accumulation=accumulation)


def _load(path: str, source: str) -> dict[str, Any]:
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"{source}: no such file; leave the flag out, or give a DeepSpeed JSON")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(f"{source}: not JSON ({error}); give a DeepSpeed JSON") from None
    if not isinstance(config, dict):
        raise UserError(f"{source}: found a {type(config).__name__}, expected an object of DeepSpeed's keys")
    return config


def _section(source: str, config: dict[str, Any], key: str) -> dict[str, Any]:
    """Take the section `key` out of `config`; empty where it is missing, null or "auto"."""
    section = config.pop(key, None)
    if section is None or section == "auto":
        return {}
    if not isinstance(section, dict):
        raise UserError(f"{source}: {key} is {json.dumps(section)}, expected an object such as {{}}")
    return dict(section)


def _without_auto(config: dict[str, Any]) -> dict[str, Any]:
    """`config` without its "auto" entries, at any depth; DeepSpeed does not know the word."""
    return {key: _without_auto(value) if isinstance(value, dict) else value for key, value in config.items() if value != "auto"}


def _adopt(args: RunValues, source: str, key: str, value: Any, flag: str) -> None:
    """Let the file set `flag` where the command line did not, and refuse two different values."""
    if value == "auto":
        return
    info = args.flags.info[flag]
    try:
        if isinstance(value, bool) != info.is_bool or isinstance(value, (list, str)):
            raise ValueError(f"found {json.dumps(value)}, expected {'true or false' if info.is_bool else 'a number'}")
        wanted = info.convert(value)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{source}: {key}: {error}, or \"auto\"") from None
    if flag in args.given and args.get(flag) != wanted:
        raise UserError(f"{source}: {key} is {value}, --{flag} is {args.get(flag)}; write \"auto\" in the file")
    args.set(flag, wanted)


def _accumulation(source: str, value: Any) -> int | None:
    if value == "auto":
        return None
    try:
        steps = 0 if isinstance(value, bool) else parse_int(str(value))
    except ValueError:
        steps = 0
    if steps < 1:
        raise UserError(f"{source}: gradient_accumulation_steps is {json.dumps(value)}, expected a whole number above 0, or \"auto\"")
    return steps


def _precision(args: RunValues, source: str, config: dict[str, Any], notes: list[str]) -> None:
    """fp16 and bf16 sections: only their `enabled` is taken, the rest of mixed precision is ours."""
    asked = args.engine.precision or ("fp16" if args.engine.fp16 else None)
    for name in ("fp16", "bf16"):
        section = _section(source, config, name)
        enabled = section.pop("enabled", "auto")
        if enabled != "auto" and not isinstance(enabled, bool):
            raise UserError(f"{source}: {name}.enabled is {json.dumps(enabled)}, expected true, false or \"auto\"")
        if enabled is False and asked == name:
            raise UserError(f"{source}: {name}.enabled is false, the flags ask for {name}; write \"auto\" in the file")
        if enabled is True and asked not in (None, "auto", name):
            raise UserError(f"{source}: {name} is enabled, {asked} is asked for already; write \"auto\" in the file")
        if enabled is True:
            args.engine.precision = asked = name
        said = [key for key, value in section.items() if value != "auto"]
        if said:
            notes.append(f"--deepspeed_config: {name}.{said[0]} has no effect: loss scaling is set by --precision")


def _optimizer(args: RunValues, source: str, config: dict[str, Any]) -> None:
    """The optimizer section is the flags' business: its numbers become theirs, anything else in it is refused."""
    optimizer = _section(source, config, "optimizer")
    kind = optimizer.get("type", "auto")
    if str(kind).lower() not in ("auto", args.optimization.optimizer_type):
        raise UserError(f"{source}: optimizer.type is {json.dumps(kind)}, --optimizer_type is {args.optimization.optimizer_type}; "
                        "remove the section")
    params = _section(source, optimizer, "params")
    for key, flag in _OPTIMIZER_OWNED.items():
        _adopt(args, source, f"optimizer.params.{key}", params.pop(key, "auto"), flag)
    betas = params.pop("betas", "auto")
    if betas != "auto":
        if not isinstance(betas, list) or len(betas) != 2:
            raise UserError(f"{source}: optimizer.params.betas is {json.dumps(betas)}, expected two numbers, or \"auto\"")
        for value, flag in zip(betas, ("adam_beta1", "adam_beta2"), strict=True):
            _adopt(args, source, "optimizer.params.betas", value, flag)
    unknown = [key for key, value in params.items() if value != "auto"]
    if unknown:
        raise UserError(f"{source}: optimizer.params.{unknown[0]} has no flag here; remove it")


def _scheduler(source: str, config: dict[str, Any], notes: list[str]) -> None:
    """The schedule is --lr_schedule's; a section that is all "auto", as Hugging Face's files have it, is dropped."""
    scheduler = _section(source, config, "scheduler")
    if any(value != "auto" for value in _section(source, scheduler, "params").values()):
        raise UserError(f"{source}: the scheduler section contradicts --lr_schedule; remove it")
    if scheduler:
        notes.append("--deepspeed_config: its scheduler section has no effect: --lr_schedule drives the learning rate")
