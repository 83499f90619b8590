"""Everything DeepSpeed: its configuration, its initialisation, precision, ranks, and the traps of version 0.19.

- bf16 at every ZeRO stage, and fp16 at stage 0, run as DeepSpeed's `torch_autocast`: weights, gradients and optimizer state stay fp32.
  DeepSpeed's own `bf16` and `fp16` sections start from rounded masters, and at stage 0 take a hidden step at construction.
- `lower_precision_safe_modules` is empty: otherwise ZeRO 1 and 2 would reduce the gradients of linear layers in 16 bits.
- fp16 at stages 1 and 2 needs DeepSpeed's `fp16` section (its autocast path scales and clips each parameter group by itself);
  there the masters are set to the unrounded weights after initialisation, and gradients accumulate in fp32.
- Its shared-memory collectives for CPUs are compiled on first use, under a lock that a killed process leaves behind; gloo is used.

After `initialize` the masters are compared with the weights that went in, and a difference is an error.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import xxhash
from torch import nn

from pretraining.args.resolve_run import Resolved
from pretraining.launch import Launch
from pretraining.precision import Precision
from pretraining.rendezvous import fresh_store, shares_launchers_store

TIMEOUT = timedelta(minutes=30)
TAG = "deepspeed"


def select_device(launch: Launch) -> torch.device:
    """The GPU of this rank, or the CPU."""
    if torch.cuda.is_available():
        torch.cuda.set_device(launch.local_rank)
        return torch.device("cuda", launch.local_rank)
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    return torch.device("cpu")


def start_ranks(device: torch.device) -> None:
    """Import DeepSpeed quietly and join the process group (nccl on CUDA, gloo on CPU)."""
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    import deepspeed
    from deepspeed.ops import __compatible_ops__ as compatible

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    compatible["deepspeed_shm_comm"] = False
    backend = "nccl" if device.type == "cuda" else "gloo"
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if not dist.is_initialized() and (shares_launchers_store() or world_size == 1):
        # One process needs no port, and somebody else may have taken the free one since it was found.
        store = fresh_store(rank, world_size, TIMEOUT) if shares_launchers_store() else dist.HashStore()
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=TIMEOUT)
    # Where a process group exists DeepSpeed takes that one.
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False, timeout=TIMEOUT)


def stop_ranks() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def uses_deepspeed_fp16(precision: Precision, stage: int) -> bool:
    return precision.name == "fp16" and stage > 0


def engine_config(resolved: Resolved, precision: Precision) -> dict[str, Any]:
    """The DeepSpeed configuration that the flags and --deepspeed_config give."""
    args, file = resolved.args, resolved.deepspeed_file
    stage = args.engine.zero_stage
    config: dict[str, Any] = {
        "train_batch_size": args.optimization.train_batch_size,
        "train_micro_batch_size_per_gpu": args.optimization.train_micro_batch_size_per_gpu,
        "gradient_accumulation_steps": resolved.accumulation,
        "gradient_clipping": args.optimization.gradient_clipping,
        "steps_per_print": args.engine.steps_per_print,
        "wall_clock_breakdown": args.engine.wall_clock_breakdown,
        "prescale_gradients": args.engine.prescale_gradients,
        "zero_optimization": {**file.zero, "stage": stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
    }
    if args.engine.gradient_predivide_factor is not None:
        config["gradient_predivide_factor"] = args.engine.gradient_predivide_factor
    if uses_deepspeed_fp16(precision, stage):
        config["fp16"] = {"enabled": True, "loss_scale": 0, "loss_scale_window": 1000, "hysteresis": 2, "min_loss_scale": 1}
    elif precision.name != "fp32":
        dtype = {"bf16": "bfloat16", "fp16": "float16"}[precision.name]
        config["torch_autocast"] = {"enabled": True, "dtype": dtype, "lower_precision_safe_modules": []}
    return {**file.extra, **config}


@dataclass
class Written:
    """What one rank wrote of a checkpoint: path -> (bytes, xxh3-128), or in `error` the first reason why not all of it."""

    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    error: str | None = None


class Engine:
    """A thin face over DeepSpeed's engine: forward and backward per micro-batch, one step, weights in fp32, its checkpoint."""

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, Any], precision: Precision) -> None:
        import deepspeed

        self.precision, self.config = precision, config
        self.stage = config["zero_optimization"]["stage"]
        self.accumulation = config["gradient_accumulation_steps"]
        self.world_size = dist.get_world_size()
        self._norm: torch.Tensor | None = None
        self._native_fp16 = uses_deepspeed_fp16(precision, self.stage)
        digests = {name: _digest(parameter) for name, parameter in module.named_parameters()}
        # DeepSpeed's fp16 rounds the weights in the module and keeps fp32 masters of the trained ones only.
        initial = {name: parameter.detach().to("cpu", torch.float32, copy=True) for name, parameter in module.named_parameters()
                   } if self._native_fp16 else {}
        self._frozen = {name: initial[name] for name, parameter in module.named_parameters()
                        if self._native_fp16 and not parameter.requires_grad}
        self.deepspeed, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config, dist_init_required=False)
        self.module = self.deepspeed.module
        self._prepare_saving()
        if self._native_fp16:
            self._set_masters(initial)
        self._check_start(digests)
        if self.world_size == 1 and self.stage == 0:
            # It would copy all gradients into one buffer and back to reduce them over a single rank.
            self.deepspeed.enable_backward_allreduce = False

    def forward_backward(self, *inputs: Any) -> dict[str, torch.Tensor]:
        """One micro-batch; returns the module's second output. DeepSpeed divides by accumulation and ranks, which is undone here."""
        loss, shares = self.deepspeed(*inputs)
        self.deepspeed.backward(loss * (self.world_size * self.accumulation))
        return shares

    def micro_step_done(self, idle: list[nn.Parameter] | None = None) -> None:
        """Tell DeepSpeed that a micro-batch ended; at the last of a step this updates the weights, but for those that are `idle`.

        DeepSpeed gives every weight that no loss reached a gradient of zeros, and with one weight decay and momentum would move it.
        Idle weights need ZeRO 0: the other stages update flat buffers.
        """
        for parameter in idle or ():
            parameter.grad = None
        self.deepspeed.step()

    def set_learning_rate(self, rate: float) -> None:
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = rate

    def note_gradient_norm(self) -> None:
        """Remember the norm of the reduced gradients: call it between a step's last backward pass and `micro_step_done`.

        At ZeRO 1 and 2 DeepSpeed computes it in the step itself.
        """
        if self.stage == 0:
            gradients = [parameter.grad for parameter in self.module.parameters() if parameter.grad is not None]
            self._norm = torch.nn.utils.get_total_norm(gradients) / self.loss_scale

    def gradient_norm(self) -> float | None:
        """Global norm before clipping of the step that was noted; None where there was none. Waits for the device."""
        norm = self._norm if self.stage == 0 else self.deepspeed.get_global_grad_norm()
        return None if norm is None else float(norm)

    @property
    def loss_scale(self) -> float:
        """1 unless fp16."""
        scaler = self._autocast_scaler
        if scaler is not None:
            return scaler.get_scale()
        return float(getattr(self.deepspeed.optimizer, "loss_scale", 1.0)) if self._native_fp16 else 1.0

    @property
    def _autocast_scaler(self) -> torch.amp.GradScaler | None:
        return self.deepspeed.torch_autocast_z0_gradscaler

    def master_weights(self) -> dict[str, torch.Tensor]:
        """fp32 weights of the whole module by name, on the CPU. All ranks call it together."""
        return {name: self._master(name, parameter).to("cpu", torch.float32, copy=True)
                for name, parameter in self.module.named_parameters()}

    def _master(self, name: str, parameter: nn.Parameter) -> torch.Tensor:
        """The fp32 weight behind a parameter. All ranks call it together."""
        from deepspeed.utils import safe_get_full_fp32_param

        if name in self._frozen:
            return self._frozen[name]
        return safe_get_full_fp32_param(parameter) if self._native_fp16 else parameter.detach()

    def weights_are_finite(self) -> bool:
        """Whether no trained weight is NaN or infinite. Waits for the device; ranks hold the same weights and agree."""
        trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        return bool(torch.stack([torch.isfinite(parameter.detach()).all() for parameter in trained]).all())

    def _prepare_saving(self) -> None:
        from pretraining.checkpoint_writer import CheckpointWriter

        self._writer = self.deepspeed.checkpoint_engine = CheckpointWriter()
        # Scripts that DeepSpeed would copy into every checkpoint, past its writer; our exports make them pointless.
        self.deepspeed._copy_recovery_script = lambda folder: None

    def save(self, folder: Path) -> Written:
        """DeepSpeed's checkpoint below `folder`/deepspeed: what this rank wrote, or why it could not. All ranks call it together.

        A rank that cannot write raises nothing, because the others would wait for it.
        """
        written = self._writer.written = Written()
        self.deepspeed.save_checkpoint(str(folder), tag=TAG, save_latest=False)
        return written

    def checkpoint_bytes(self) -> int:
        """Bytes of the tensors that `save` writes on this rank, each storage once, as torch.save does."""
        states = [self.deepspeed.optimizer.state_dict()] if self.stage > 0 or dist.get_rank() == 0 else []
        if dist.get_rank() == 0:
            states.append(self.module.state_dict())
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in _tensors(states)}
        return sum(storages.values())

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote. All ranks call it together.

        Weight decay, betas and the like stay those that the optimizer was made with: a run that may change them says so by its flags.
        """
        options = [{name: value for name, value in group.items() if name != "params"} for group in self.deepspeed.optimizer.param_groups]
        loaded, _ = self.deepspeed.load_checkpoint(str(folder), tag=TAG, load_lr_scheduler_states=False)
        if loaded is None:
            raise RuntimeError(f"DeepSpeed found no checkpoint in {folder}")
        for group, own in zip(self.deepspeed.optimizer.param_groups, options, strict=True):
            group.update(own)

    def scaler_state(self) -> dict[str, Any]:
        """State of torch's gradient scaler, which DeepSpeed's checkpoint leaves out; empty without one."""
        return self._autocast_scaler.state_dict() if self._autocast_scaler is not None else {}

    def load_scaler_state(self, state: dict[str, Any]) -> None:
        if self._autocast_scaler is not None and state:
            self._autocast_scaler.load_state_dict(state)

    def _set_masters(self, initial: dict[str, torch.Tensor]) -> None:
        from deepspeed.utils import safe_set_full_fp32_param

        for name, parameter in self.module.named_parameters():
            if parameter.requires_grad:
                safe_set_full_fp32_param(parameter, initial[name].to(parameter.device))

    def _check_start(self, digests: dict[str, str]) -> None:
        """DeepSpeed must not have stepped, and its masters must be the weights that went in."""
        if self.deepspeed.global_steps != 0:
            raise RuntimeError(f"DeepSpeed counts {self.deepspeed.global_steps} steps before the first")
        for name, parameter in self.module.named_parameters():
            if _digest(self._master(name, parameter)) != digests[name]:
                raise RuntimeError(f"DeepSpeed changed the weights of {name} at construction; this version is not supported")


def _tensors(state: Any) -> Iterator[torch.Tensor]:
    """Every tensor in nested dictionaries and lists."""
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, (dict, list, tuple)):
        for part in state.values() if isinstance(state, dict) else state:
            yield from _tensors(part)


def _digest(weight: torch.Tensor) -> str:
    """Tells fp32 weights apart without keeping a second set of them."""
    return xxhash.xxh3_128_hexdigest(weight.detach().to("cpu", torch.float32).contiguous().numpy())
