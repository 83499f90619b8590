"""--deepspeed_config FILE: a user's DeepSpeed JSON beside our flags, with one owner for every number.

`"auto"` (as Hugging Face's files have it) takes the flag's value. A number that contradicts a flag which was given is an error; where
the flag was not given the file's number becomes the flag's. Everything else (communication, logging, ...) goes through untouched.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataset.errors import UserError
from pretraining.args.parser import INFO, Args

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


@dataclass
class DeepSpeedFile:
    """What the file adds to the configuration that `pretraining.engine` builds from the flags."""

    extra: dict[str, Any] = field(default_factory=dict)
    zero: dict[str, Any] = field(default_factory=dict)


def read_deepspeed_file(args: Args, notes: list[str]) -> DeepSpeedFile:
    """Read --deepspeed_config, move what our flags own into `args`, return the rest; UserError for contradictions."""
    path = args.engine.deepspeed_config
    if path is None:
        return DeepSpeedFile()
    config = _load(path)
    for key, flag in _OWNED.items():
        _adopt(args, path, key, config.pop(key, "auto"), flag)
    accumulation = config.pop("gradient_accumulation_steps", "auto")
    batch, micro = args.optimization.train_batch_size, args.optimization.train_micro_batch_size_per_gpu
    if accumulation != "auto" and batch % (micro * accumulation):
        raise UserError(f"--deepspeed_config {path}: gradient_accumulation_steps {accumulation} does not fit a batch of {batch} in "
                        f"micro-batches of {micro}; write \"auto\"")
    zero = config.pop("zero_optimization", {})
    _adopt(args, path, "zero_optimization.stage", zero.pop("stage", "auto"), "zero_stage")
    for key in ("offload_optimizer", "offload_param"):
        if zero.pop(key, {"device": "none"}).get("device") != "none":
            raise UserError(f"--deepspeed_config {path}: {key} is not supported; remove it")
    _precision(args, path, config)
    _optimizer(args, path, config, notes)
    return DeepSpeedFile(
        extra={key: value for key, value in config.items() if value != "auto"},
        zero={key: value for key, value in zero.items() if value != "auto"},
    )


def _load(path: str) -> dict[str, Any]:
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"--deepspeed_config {path}: no such file; leave the flag out, or give a DeepSpeed JSON")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--deepspeed_config {path}: not JSON ({error})") from None
    if not isinstance(config, dict):
        raise UserError(f"--deepspeed_config {path}: found a {type(config).__name__}, expected an object")
    return config


def _adopt(args: Args, path: str, key: str, value: Any, flag: str) -> None:
    """Let the file set `flag` where the command line did not, and refuse two different values."""
    if value == "auto":
        return
    try:
        wanted = INFO[flag].convert(value)
    except ValueError as error:
        raise UserError(f"--deepspeed_config {path}: {key}: {error}") from None
    if flag in args.given and args.get(flag) != wanted:
        raise UserError(f"--deepspeed_config {path}: {key} is {value}, --{flag} is {args.get(flag)}; write \"auto\" in the file")
    args.set(flag, wanted)


def _precision(args: Args, path: str, config: dict[str, Any]) -> None:
    """fp16 and bf16 sections: only their `enabled` is taken, the rest of mixed precision is ours."""
    for section, precision in (("fp16", "fp16"), ("bf16", "bf16")):
        enabled = config.pop(section, {}).get("enabled", "auto")
        if enabled == "auto" or not enabled:
            continue
        asked = args.engine.precision or ("fp16" if args.engine.fp16 else None)
        if asked not in (None, "auto", precision):
            raise UserError(f"--deepspeed_config {path}: {section} is enabled, the flags ask for {asked}; write \"auto\" in the file")
        args.engine.precision = precision
    for key in ("torch_autocast", "amp"):
        if key in config:
            raise UserError(f"--deepspeed_config {path}: {key} is set by --precision; remove it from the file")


def _optimizer(args: Args, path: str, config: dict[str, Any], notes: list[str]) -> None:
    """optimizer and scheduler sections are the flags' business; "auto" ones, as Hugging Face's files have them, are dropped."""
    optimizer = config.pop("optimizer", None)
    if optimizer is not None:
        if str(optimizer.get("type", "auto")).lower() not in ("auto", args.optimization.optimizer_type):
            raise UserError(f"--deepspeed_config {path}: optimizer {optimizer['type']} against --optimizer_type "
                            f"{args.optimization.optimizer_type}; remove the section")
        for key, flag in (("lr", "lr"), ("weight_decay", "weight_decay"), ("eps", "adam_eps")):
            _adopt(args, path, f"optimizer.params.{key}", optimizer.get("params", {}).get(key, "auto"), flag)
        betas = optimizer.get("params", {}).get("betas", "auto")
        for value, flag in zip(betas if betas != "auto" else ("auto", "auto"), ("adam_beta1", "adam_beta2"), strict=True):
            _adopt(args, path, "optimizer.params.betas", value, flag)
    scheduler = config.pop("scheduler", None)
    if scheduler is not None:
        if any(value != "auto" for value in scheduler.get("params", {}).values()):
            raise UserError(f"--deepspeed_config {path}: the scheduler section contradicts --lr_schedule; remove it")
        notes.append("--deepspeed_config: its scheduler section has no effect: --lr_schedule drives the learning rate")
