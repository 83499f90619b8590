"""Run under torchrun by test_deepspeed_steps_equal_torch.py: every precision and ZeRO stage against plain torch AdamW."""

import json
import os
import sys

import torch
import torch.distributed as dist
from deepspeed.runtime import torch_autocast
from torch import nn

from pretraining.args.parser import parse
from pretraining.args.resolve import resolve
from pretraining.engine import Engine, engine_config, select_device, start_ranks, stop_ranks
from pretraining.launch import read_launch
from pretraining.optimizers import build_optimizer
from pretraining.precision import Precision

STEPS, MICRO, ACCUMULATION, WIDTH = 3, 4, 2, 8


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(WIDTH, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 4))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, inputs, count):
        share = self.body(inputs).float().square().sum() / count
        return share, {"loss": share.detach()}


def make_model() -> Model:
    torch.manual_seed(0)
    return Model()


def reference(precision: Precision, data: torch.Tensor, clip: float) -> tuple[list[torch.Tensor], float]:
    """Plain torch on the whole global batch of each step: (weights after all steps, norm of the first gradient)."""
    model = make_model()
    args = parse(["--lr", "0.01", "--weight_decay", "0.1"])
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in model.body.parameters() if p.ndim > 1], "weight_decay": 0.1},
         {"params": [p for p in model.body.parameters() if p.ndim == 1], "weight_decay": 0.0}],
        lr=args.optimization.lr, betas=(0.9, 0.999), eps=1e-6)
    first_norm = 0.0
    for step in range(STEPS):
        for micro in data[step].split(MICRO):
            with precision.autocast(torch.device("cpu")):
                share, _ = model(micro, float(len(data[step]) * 4))
            share.backward()
        norm = nn.utils.clip_grad_norm_(model.body.parameters(), clip if clip else float("inf"))
        first_norm = first_norm or float(norm)
        optimizer.step()
        optimizer.zero_grad()
    return [p.detach() for p in model.body.parameters()], first_norm


def drive(name: str, stage: int, clip: float) -> dict:
    launch = read_launch(-1)
    world, rank = launch.world_size, launch.rank
    args = parse(["--output_dir", "x", "--train_batch_size", str(MICRO * ACCUMULATION * world), "--train_micro_batch_size_per_gpu",
                  str(MICRO), "--lr", "0.01", "--weight_decay", "0.1", "--zero_stage", str(stage), "--gradient_clipping", str(clip)])
    precision = Precision(name)
    model = make_model()
    # DeepSpeed remembers per process that an engine used autocast; a run has one engine, this process has many.
    torch_autocast.TORCH_AUTOCAST_INITIALIZED = False
    engine = Engine(model, build_optimizer(model, args.optimization), engine_config(resolve(args, launch), precision), precision)
    start = {key: value.clone() for key, value in engine.master_weights().items()}
    begins_exact = all(torch.equal(start[key], value.detach()) for key, value in make_model().named_parameters())
    generator = torch.Generator().manual_seed(1)
    data = torch.randn(STEPS, MICRO * ACCUMULATION * world, WIDTH, generator=generator)
    norm = None
    for step in range(STEPS):
        engine.set_learning_rate(0.01)
        for micro_step in range(ACCUMULATION):
            place = (micro_step * world + rank) * MICRO
            micro = data[step, place : place + MICRO]
            engine.forward_backward(micro.half() if stage and name == "fp16" else micro, float(data.shape[1] * 4))
            if micro_step == ACCUMULATION - 1:
                engine.note_gradient_norm()
            engine.micro_step_done()
        norm = norm or engine.gradient_norm()
    expected, expected_norm = reference(precision, data, clip)
    weights = engine.master_weights()
    moved = [weights[key] for key, _ in model.body.named_parameters(prefix="body")]
    error = max(float((got - want).abs().max()) for got, want in zip(moved, expected, strict=True))
    return {"precision": name, "stage": stage, "clip": clip, "begins_exact": begins_exact, "error": error,
            "steps": engine.deepspeed.global_steps, "norm": norm, "expected_norm": expected_norm,
            "dtypes": sorted({str(value.dtype) for value in weights.values()}),
            "frozen_moved": not torch.equal(weights["frozen"], torch.ones(3))}


def main() -> None:
    device = select_device(read_launch(-1))
    start_ranks(device)
    if "fp16" in sys.argv[1]:
        # This CPU may lack fp16 instructions; torch computes it in software, which is enough to check the arithmetic around it.
        from deepspeed.accelerator import get_accelerator

        type(get_accelerator()).is_fp16_supported = lambda self: True
        type(get_accelerator()).supported_dtypes = lambda self: [torch.float32, torch.bfloat16, torch.float16]
    results = [drive(name, stage, clip) for name in sys.argv[1].split(",") for stage in (0, 1, 2) for clip in (0.0, 0.05)]
    if int(os.environ["RANK"]) == 0:
        print("RESULTS" + json.dumps(results))
    dist.barrier()
    stop_ranks()


if __name__ == "__main__":
    main()
