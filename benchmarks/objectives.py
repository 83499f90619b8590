"""Every objective's training step against the same step written as the originals write it, in turns, each in a process of its own.

BERT-base shapes: teacher of 12 x 768, student of 6 layers, micro-batches of 8 x 128 tokens, a quarter of them padding. Ours is the
real trainer; the reference runs both models whole with all heads, states and attention maps in fp32 (`benchmarks.references`).
`hidden_mse` is also measured against a plain torch loop, and against TextBrewer 0.2.1 from PyPI where that is installed. Weights are
random: speed does not depend on them.

    python -m benchmarks.objectives                       # all of them, and the README's costs
    python -m benchmarks.objectives --loops ours          # the README's costs alone
    python -m benchmarks.objectives --only hidden_mse --rounds 5

An objective's cost is its step's time over that of ours for `hidden_mse`, which takes a turn beside every objective.
Tokens are the student's real tokens with the teacher in the loop. The share of peak sets the matrix products of the layers that are
run against the fastest of several large products measured in the same process.
"""

import argparse
import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.common import LENGTH, STUDENT_LAYERS, TEACHER_LAYERS, Step, base_flags, describe_machine, make_inputs, our_step, step_flops
from benchmarks.workers import Worker
from dataset.errors import UserError, run_command
from pretraining.objectives.catalog import COSTS_FILE, OBJECTIVES

PLAIN, PEER, BASE = "plain", "textbrewer", "hidden_mse"


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="bf16", help="of ours and of TextBrewer")
    parser.add_argument("--accumulation", type=int, default=4)
    parser.add_argument("--micro_batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2, help="timed turns of one optimizer step each; medians are reported")
    parser.add_argument("--only", help="comma-separated objectives; default: all, and the costs are written for the README")
    parser.add_argument("--loops", default=f"ours,reference,{PLAIN},{PEER}", help="comma-separated, of ours, reference, plain, textbrewer")
    return parser.parse_args()


def objective_flags(name: str, teacher: Path) -> list[str]:
    """What beside the common flags makes a run of one objective from the teacher's layers, or without a teacher where none is needed."""
    depth = ["--num_hidden_layers", str(STUDENT_LAYERS)]
    copied = ["--teacher_path", str(teacher), "--method", name, "--student_initialize", *depth]
    if OBJECTIVES[name].teacher:
        # One pair of last layers for the objective that the others' costs are relative to, as in the published command.
        return ["--distillation", *copied] + (["--layer_selection", "11"] if name == "hidden_mse" else [])
    if name == "mlm":
        return copied
    shape = ["--hidden_size", "768", *depth, "--num_attention_heads", "12", "--intermediate_size", "3072", "--vocab_size", "30522",
             "--method", name]
    if name == "clm":
        return ["--model_type", "gpt2-clm", *shape]
    return ["--model_type", "bert-mlm-nsp", "--encoder_ln_mode", "post-ln", "--layernorm_embedding", *shape]


def make_ours(name: str, inputs: tuple[Path, Path], precision: str, micro_batch: int, accumulation: int, folder: Path) -> Step:
    teacher, shards = inputs
    return our_step([*base_flags(shards, folder, teacher, precision, micro_batch, accumulation), *objective_flags(name, teacher)])


def make_reference(name: str, inputs: tuple[Path, Path], micro_batch: int, accumulation: int, folder: Path) -> Step:
    from benchmarks.references import reference_step

    return reference_step(name, *inputs, micro_batch, accumulation)


def make_peer(kind: str, inputs: tuple[Path, Path], precision: str, micro_batch: int, accumulation: int, folder: Path) -> Step:
    from benchmarks import peers

    make = {PLAIN: peers.plain_step, PEER: peers.textbrewer_step}[kind]
    return make(*inputs, micro_batch, accumulation, precision, folder)


def ours(name: str, flags: argparse.Namespace, inputs: tuple[Path, Path]) -> Worker:
    return Worker(partial(make_ours, name, inputs, flags.precision, flags.micro_batch, flags.accumulation), flags.precision)


def workers_of(name: str, flags: argparse.Namespace, inputs: tuple[Path, Path]) -> dict[str, Worker]:
    sizes, asked = (flags.micro_batch, flags.accumulation), flags.loops.split(",")
    found = {"ours": ours(name, flags, inputs)}
    if "reference" in asked:
        found["reference"] = Worker(partial(make_reference, name, inputs, *sizes), "fp32")
    for kind in (PLAIN, PEER):
        if kind in asked and name == BASE and (kind == PLAIN or find_spec(PEER) is not None):
            found[kind] = Worker(partial(make_peer, kind, inputs, flags.precision, *sizes), flags.precision)
    return found


def measure(name: str, flags: argparse.Namespace, inputs: tuple[Path, Path], base: Worker) -> list[dict[str, Any]]:
    """One row a loop: medians over turns of one step each; the first turn warms up. `base` is ours for hidden_mse."""
    with ExitStack() as stack:
        workers = {kind: stack.enter_context(worker) for kind, worker in workers_of(name, flags, inputs).items()}
        turns = [{kind: worker.step() for kind, worker in (workers | {BASE: base}).items()} for _ in range(flags.rounds + 1)][1:]
        memory = {kind: worker.memory_gb() for kind, worker in workers.items()}
        peaks = {kind: worker.peak() for kind, worker in workers.items()}
    rows = []
    for kind in workers:
        seconds = statistics.median(turn[kind][1] for turn in turns)
        rows.append({
            "objective": name, "loop": kind, "tokens_per_s": statistics.median(turn[kind][0] for turn in turns), "step_s": seconds,
            "memory_gb": memory[kind], "share_of_peak": flops_of(name, flags) / seconds / peaks[kind],
            "cost": statistics.median(turn[kind][1] / turn[BASE][1] for turn in turns),
            "of_reference": statistics.median(turn[kind][0] / turn["reference"][0] for turn in turns) if "reference" in workers else None})
    return rows


def flops_of(name: str, flags: argparse.Namespace) -> float:
    """Layers' matrix products over all columns of a step, as the hardware sees them; heads and attention are not counted."""
    if name == "embedding_mse":
        return 0.0
    return step_flops(flags.micro_batch * flags.accumulation * LENGTH, TEACHER_LAYERS if OBJECTIVES[name].teacher else 0, STUDENT_LAYERS)


def line_of(rows: list[dict[str, Any]]) -> str:
    cells = []
    for row in rows:
        ratio = "" if row["of_reference"] is None else f"{row['of_reference']:.2f} of the reference's speed, "
        cells.append(f"{row['loop']} {row['tokens_per_s']:.0f} tokens/s, {ratio}{row['cost']:.2f} of {BASE}'s time, "
                     f"{row['step_s']:.2f} s, {row['share_of_peak']:.2f} of peak, {row['memory_gb']:.2f} GB")
    return f"{rows[0]['objective']}: {'; '.join(cells)}"


def write_costs(rows: list[dict[str, Any]], flags: argparse.Namespace) -> None:
    """The README's tables take their costs from this file."""
    COSTS_FILE.write_text(json.dumps({
        "machine": describe_machine(), "precision": flags.precision, "accumulation": flags.accumulation,
        "cost": {row["objective"]: 1.0 if row["objective"] == BASE else round(row["cost"], 2) for row in rows if row["loop"] == "ours"},
    }, indent=2) + "\n")


def main() -> int:
    flags = parse_flags()
    names = flags.only.split(",") if flags.only else list(OBJECTIVES)
    unknown = next((name for name in names if name not in OBJECTIVES), None)
    if unknown is not None:
        raise UserError(f"--only {unknown}: not an objective; known: {', '.join(OBJECTIVES)}")
    if PEER in flags.loops and find_spec(PEER) is None:
        print("note: TextBrewer is not installed (pip install textbrewer==0.2.1) and is left out", file=sys.stderr)
    rows = []
    with tempfile.TemporaryDirectory(prefix="objectives_") as folder:
        inputs = make_inputs(Path(folder))
        with ours(BASE, flags, inputs) as base:
            for name in names:
                measured = measure(name, flags, inputs, base)
                print(line_of(measured), flush=True)
                rows += measured
    if not flags.only:
        write_costs(rows, flags)
    return 0


if __name__ == "__main__":
    run_command(main)
