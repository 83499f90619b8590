"""Which number format a run computes in. Weights, gradients, optimizer state and loss reductions stay fp32."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from dataset.errors import UserError

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """`name` is fp32, bf16 or fp16."""

    name: str

    @property
    def dtype(self) -> torch.dtype:
        """The format of matrix products."""
        return _DTYPES.get(self.name, torch.float32)

    def autocast(self, device: torch.device) -> AbstractContextManager:
        if self.name == "fp32":
            return nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)


def cpu_features() -> set[str]:
    """Instruction sets as Linux lists them; empty where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), set())


def available(device: torch.device) -> dict[str, bool]:
    """Format -> whether the device has it in hardware."""
    if device.type == "cuda":
        return {"fp32": True, "bf16": torch.cuda.is_bf16_supported(including_emulation=False), "fp16": True}
    features = cpu_features()
    return {
        "fp32": True,
        "bf16": bool(features & {"avx512_bf16", "amx_bf16"}),
        "fp16": bool(features & {"avx512_fp16", "amx_fp16"}),
    }


def select_precision(asked: str, device: torch.device) -> tuple[Precision, str | None]:
    """The precision that `asked` (auto, fp32, bf16, fp16) means on `device`, and a line to print about it or None.

    UserError where the device cannot do it, naming what it can.
    """
    hardware = available(device)
    if asked == "auto":
        name = "bf16" if hardware["bf16"] else "fp32"
        return Precision(name), f"--precision auto: {name} on this {device.type}"
    if asked == "fp16" and not hardware["fp16"]:
        raise UserError(f"--precision fp16 (--fp16): this {device.type} has no fp16 (AVX512-FP16 or AMX-FP16 on a CPU); it can do "
                        f"{', '.join(name for name, is_there in hardware.items() if is_there)}: append --precision "
                        f"{'bf16' if hardware['bf16'] else 'fp32'}")
    if asked == "bf16" and not hardware["bf16"]:
        if device.type == "cuda":
            raise UserError("--precision bf16: this GPU has no bf16; it can do fp32, fp16")
        return Precision(asked), "--precision bf16: this CPU has no bf16 in hardware, so it will be slow; fp32 is faster here"
    return Precision(asked), None
