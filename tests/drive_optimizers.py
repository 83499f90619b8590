"""Run by test_optimizers_equal_their_formulas.py: every optimizer through DeepSpeed at ZeRO 0, against itself without DeepSpeed."""

import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.runtime import torch_autocast
from torch import nn

from pretraining.args.optimization import OptimizationFlags
from pretraining.args.parser import parse
from pretraining.args.resolve import resolve
from pretraining.engine import Engine, engine_config, select_device, start_ranks, stop_ranks
from pretraining.launch import read_launch
from pretraining.optimizers import build_optimizer
from pretraining.precision import Precision

STEPS, MICRO, ACCUMULATION, LENGTH, VOCABULARY, WIDTH = 4, 4, 2, 6, 11, 8
RATES = (0.01, 0.003, 0.0, 0.02)
OVERFLOWS = 8  # each halves the loss scale, which starts at 65536


class Model(nn.Module):
    """Tied embeddings, matrices, norms and a projection of an objective."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embeddings = nn.Embedding(VOCABULARY, WIDTH)
        self.body = nn.Sequential(nn.Linear(WIDTH, 16), nn.GELU(), nn.Linear(16, WIDTH), nn.LayerNorm(WIDTH))
        self.objective = nn.Sequential(nn.Linear(WIDTH, 5, bias=False))

    def forward(self, tokens_BL, count):
        hidden_BLD = self.body(self.embeddings(tokens_BL))
        logits_BLV = hidden_BLD @ self.embeddings.weight.T
        share = (logits_BLV.float().square().sum() + self.objective(hidden_BLD).float().square().sum()) / count
        return share, {"loss": share.detach()}


def bare_steps(model: Model, flags: OptimizationFlags, precision: Precision, tokens: torch.Tensor, count: float) -> None:
    """All steps without DeepSpeed: gradients of the micro-batches add up, then the optimizer steps."""
    optimizer = build_optimizer(model, flags)
    for step, rate in enumerate(RATES):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for micro in tokens[step].split(MICRO):
            with precision.autocast(torch.device("cpu")):
                share, _ = model(micro, count)
            share.backward()
        optimizer.step()
        optimizer.zero_grad()


def engine_steps(engine: Engine, tokens: torch.Tensor, count: float, steps: Iterable[int]) -> None:
    for step in steps:
        engine.set_learning_rate(RATES[step])
        for micro in tokens[step].split(MICRO):
            engine.forward_backward(micro, count)
            engine.micro_step_done()


def distance(model: Model, weights: dict[str, torch.Tensor]) -> float:
    return max(float((weights[name] - parameter.detach()).abs().max()) for name, parameter in model.named_parameters())


def drive(name: str, precision: Precision) -> dict:
    """Distances from the bare optimizer: of a run, and of a run whose second half is a new engine that loaded the first's checkpoint.

    Under fp16 both runs begin with gradients that overflow, which must leave weights and optimizer as they were.
    """
    launch = read_launch(-1)
    args = parse(["--output_dir", "x", "--train_batch_size", str(MICRO * ACCUMULATION), "--train_micro_batch_size_per_gpu", str(MICRO),
                  "--weight_decay", "0.1", "--adam_beta2", "0.98", "--zero_stage", "0", "--gradient_clipping", "0"])
    config = engine_config(resolve(args, launch), precision)
    args.optimization.optimizer_type = name
    tokens = torch.randint(VOCABULARY, (STEPS, MICRO * ACCUMULATION, LENGTH), generator=torch.Generator().manual_seed(1))
    count = float(tokens[0].numel())

    def new_engine() -> Engine:
        # DeepSpeed remembers per process that an engine used autocast; a run has one engine, this process has many.
        torch_autocast.TORCH_AUTOCAST_INITIALIZED = False
        model = Model()
        return Engine(model, build_optimizer(model, args.optimization), config, precision)

    def started_engine() -> Engine:
        engine = new_engine()
        if precision.name == "fp16":
            engine_steps(engine, tokens, 1e-38, [0] * OVERFLOWS)
        return engine

    bare = Model()
    bare_steps(bare, args.optimization, precision, tokens, count)
    whole, first, second = started_engine(), started_engine(), new_engine()
    after_overflow = distance(Model(), whole.master_weights())
    engine_steps(whole, tokens, count, range(STEPS))
    engine_steps(first, tokens, count, range(STEPS // 2))
    with tempfile.TemporaryDirectory() as folder:
        first.save(Path(folder))
        second.load(Path(folder))
        second.load_scaler_state(first.scaler_state())
    engine_steps(second, tokens, count, range(STEPS // 2, STEPS))
    return {"optimizer": name, "precision": precision.name, "whole": distance(bare, whole.master_weights()),
            "resumed": distance(whole.module, second.master_weights()), "after_overflow": after_overflow,
            "moved": distance(bare, {name: weight.detach() for name, weight in Model().named_parameters()})}


def main() -> None:
    start_ranks(select_device(read_launch(-1)))
    # This CPU may lack fp16 instructions; torch computes it in software, which is enough to check the arithmetic around it.
    type(get_accelerator()).is_fp16_supported = lambda self: True
    type(get_accelerator()).supported_dtypes = lambda self: [torch.float32, torch.bfloat16, torch.float16]
    print("RESULTS" + json.dumps([drive(name, Precision(precision)) for name in sys.argv[1:] for precision in ("fp32", "bf16", "fp16")]))
    stop_ranks()


if __name__ == "__main__":
    main()
