"""DeepSpeed and precision."""

from dataclasses import dataclass

from pretraining.args.flags import flag

_KERNEL = "it belonged to --deepspeed_transformer_kernel"


@dataclass
class EngineFlags:
    precision: str = flag(None, "auto, fp32, bf16 or fp16; auto is bf16 where the device has it in hardware", str,
                          choices=("auto", "fp32", "bf16", "fp16"))
    fp16: bool = flag(False, "short for --precision fp16")
    fp16_backend: str = flag("ds", "ds: DeepSpeed with torch's autocast; apex: NVIDIA's, where importable",
                             choices=("ds", "apex"))
    fp16_opt: str = flag("O2", "apex's optimisation level", no_effect="mixed precision follows torch's autocast lists")
    zero_stage: int = flag(0, "DeepSpeed ZeRO stage: 0, 1 or 2")
    deepspeed_config: str = flag(None, "DeepSpeed JSON; \"auto\" values are filled in from the flags", str)
    deepspeed: bool = flag(False, "the originals' switch", no_effect="every step goes through DeepSpeed")
    deepspeed_transformer_kernel: bool = flag(False, "the originals' fused layer")
    stochastic_mode: bool = flag(False, "the originals' kernel option", no_effect=_KERNEL)
    attention_dropout_checkpoint: bool = flag(False, "the originals' kernel option", no_effect=_KERNEL)
    normalize_invertible: bool = flag(False, "the originals' kernel option", no_effect=_KERNEL)
    gelu_checkpoint: bool = flag(False, "the originals' kernel option", no_effect=_KERNEL)
    steps_per_print: int = flag(100, "DeepSpeed's own log line every so many steps")
    wall_clock_breakdown: bool = flag(False, "DeepSpeed's timing of every step")
    prescale_gradients: bool = flag(False, "DeepSpeed: divide gradients by the ranks before the all-reduce, not after")
    gradient_predivide_factor: float = flag(
        None, "DeepSpeed: divide gradients by this before the all-reduce, and by the rest of the ranks after it", float)
