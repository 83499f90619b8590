"""Speed of training: tokens and samples per second, and the share of the device's matrix-multiply peak where that is known."""

from dataclasses import dataclass

# Dense bf16/fp16 tensor-core peak in FLOP/s as the vendors state it, by a part of the device's name.
_PEAKS = {
    "H200": 989e12, "H100": 989e12, "A100": 312e12, "A40": 150e12, "A10": 125e12, "L40": 181e12, "L4": 121e12, "V100": 125e12,
    "T4": 65e12, "A6000": 155e12, "RTX 4090": 165e12, "RTX 3090": 71e12,
}


def device_peak(device_name: str, precision: str) -> float | None:
    """Peak FLOP/s of a GPU by name in 16-bit formats, or None where it is not known (fp32, CPUs, other GPUs)."""
    if precision == "fp32":
        return None
    return next((peak for name, peak in _PEAKS.items() if name in device_name), None)


@dataclass(frozen=True)
class CostPerToken:
    """FLOPs per non-padding token: 6 per student parameter in layers (forward and backward), 2 per teacher parameter run, as usual for
    encoders; embeddings are lookups and attention scores are left out, so the share of peak is a lower bound."""

    student_parameters: int
    teacher_parameters: int

    @property
    def flops(self) -> float:
        return 6.0 * self.student_parameters + 2.0 * self.teacher_parameters


def share_of_peak(tokens_per_s: float, cost: CostPerToken, peak_per_device: float | None, devices: int) -> float | None:
    """Share of the peak of all devices together (MFU), or None where the peak is not known."""
    return None if peak_per_device is None else tokens_per_s * cost.flops / (peak_per_device * devices)
