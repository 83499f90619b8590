"""Batch, optimizer and learning-rate schedule."""

from dataclasses import dataclass

from pretraining.args.flags import flag, parse_int


@dataclass
class OptimizationFlags:
    train_batch_size: int = flag(65536, "samples per optimizer step over all ranks")
    train_micro_batch_size_per_gpu: int = flag(32, "samples per forward pass and rank")
    gradient_accumulation_steps: int = flag(
        None, "overwritten by the originals", parse_int,
        no_effect="it follows from --train_batch_size, --train_micro_batch_size_per_gpu and the number of ranks",
    )
    optimizer_type: str = flag("adamw", "optimizer", choices=("adam", "adamw", "lamb", "adafactor", "muon"))
    lr: float = flag(0.011, "peak learning rate")
    weight_decay: float = flag(
        0.01, "weight decay, decoupled but for adam (L2) and lamb (inside its trust ratio); not for biases and normalisation")
    adam_beta1: float = flag(0.9, "beta 1 of adam, adamw, lamb and of muon's AdamW part")
    adam_beta2: float = flag(0.999, "beta 2 of the same")
    adam_eps: float = flag(1e-6, "epsilon of the same")
    bias_correction: bool = flag(False, "lamb: correct the moments for their start at zero")
    max_coeff: float = flag(0.3, "lamb: largest trust ratio")
    min_coeff: float = flag(0.01, "lamb: smallest trust ratio")
    gradient_clipping: float = flag(1.0, "largest global gradient norm; 0: no clipping")
    lr_schedule: str = flag("time", "what drives the schedule: hours, steps, or steps with a fixed warm-up",
                            choices=("step", "constant_step", "time"))
    curve: str = flag("linear", "shape of warm-up and decay", choices=("linear", "exp"))
    warmup_proportion: float = flag(0.06, "share of --total_training_time or --max_steps spent warming up")
    num_warmup_steps: int = flag(1000, "warm-up of --lr_schedule constant_step, in steps")
    decay_rate: float = flag(0.99, "--curve exp: factor per --decay_step")
    decay_step: float = flag(1000.0, "--curve exp: steps per factor (hours under --lr_schedule time)")
