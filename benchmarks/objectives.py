"""Every objective's training step against the same step written as the originals write it, in turns in one process.

BERT-base shapes: teacher of 12 x 768, student of 6 layers, micro-batches of 8 x 128 tokens, a quarter of them padding. Ours is the
real trainer; the reference runs both models whole with all heads, states and attention maps in fp32 (`benchmarks.references`).
`hidden_mse` is also measured against TextBrewer 0.2.1 from PyPI where that is installed. Weights are random: speed does not
depend on them.

    python -m benchmarks.objectives                       # all of them, and the README's costs
    python -m benchmarks.objectives --only hidden_mse --rounds 5 --memory

Tokens are the student's real tokens with the teacher in the loop. The share of peak sets the matrix products of the layers that are
run against the fastest of several large products measured in the same process.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import (
    STUDENT_LAYERS,
    TEACHER_LAYERS,
    Step,
    base_flags,
    describe_machine,
    make_inputs,
    matmul_peak,
    our_step,
    peak_memory_gb,
    step_flops,
    timed,
)
from dataset.errors import run_command
from pretraining.objectives.catalog import COSTS_FILE, OBJECTIVES

PEER = "textbrewer"


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="bf16", help="of ours and of TextBrewer")
    parser.add_argument("--accumulation", type=int, default=4)
    parser.add_argument("--micro_batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2, help="timed turns of one optimizer step each; medians are reported")
    parser.add_argument("--only", help="comma-separated objectives; default: all, and the costs are written for the README")
    parser.add_argument("--memory", action="store_true", help="peak memory too, each loop in a process of its own")
    parser.add_argument("--loop", help="NAME:ours|reference|textbrewer, run one loop and print its peak memory")
    return parser.parse_args()


def objective_flags(name: str, teacher: Path) -> list[str]:
    """What beside the common flags makes a run of one objective from the teacher's layers, or without a teacher where none is needed."""
    if OBJECTIVES[name].teacher:
        return ["--distillation", "--teacher_path", str(teacher), "--method", name, "--student_initialize",
                "--num_hidden_layers", str(STUDENT_LAYERS)] + (["--layer_selection", "11"] if name == "hidden_mse" else [])
    if name == "mlm":
        return ["--teacher_path", str(teacher), "--method", name, "--student_initialize", "--num_hidden_layers", str(STUDENT_LAYERS)]
    shape = ["--hidden_size", "768", "--num_hidden_layers", str(STUDENT_LAYERS), "--num_attention_heads", "12",
             "--intermediate_size", "3072", "--vocab_size", "30522", "--method", name]
    if name == "clm":
        return ["--model_type", "gpt2-clm", *shape]
    return ["--model_type", "bert-mlm-nsp", "--encoder_ln_mode", "post-ln", "--layernorm_embedding", *shape]


class Loops:
    """Makes the loops of one run of this benchmark, on the same inputs."""

    def __init__(self, flags: argparse.Namespace, folder: Path) -> None:
        self.flags, self.folder = flags, folder
        self.teacher, self.shards = make_inputs(folder)

    def make(self, name: str, kind: str) -> Step:
        flags = self.flags
        if kind == "ours":
            common = base_flags(self.shards, self.folder, self.teacher, flags.precision, flags.micro_batch, flags.accumulation)
            return our_step([*common, *objective_flags(name, self.teacher), "--job_name", f"{name}_{id(self)}"])
        if kind == "reference":
            from benchmarks.references import reference_step

            return reference_step(name, self.teacher, self.shards, flags.micro_batch, flags.accumulation)
        from benchmarks.peers import textbrewer_step

        return textbrewer_step(self.teacher, self.shards, flags.micro_batch, flags.accumulation, flags.precision)


def has_peer() -> bool:
    from importlib.util import find_spec

    return find_spec(PEER) is not None


def measure(loops: Loops, name: str, kinds: list[str]) -> dict[str, dict[str, float]]:
    """Medians of tokens per second and seconds per step of each loop, taken in turns; the first turn warms up."""
    steps = {kind: loops.make(name, kind) for kind in kinds}
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for turn in range(loops.flags.rounds + 1):
        for kind, step in steps.items():
            result = timed(step, 1)
            if turn > 0:
                found[kind].append(result)
    return {kind: {"tokens_per_s": statistics.median(speed for speed, _ in results),
                   "step_s": statistics.median(seconds for _, seconds in results)} for kind, results in found.items()}


def memory_of(flags: argparse.Namespace, name: str, kind: str) -> float:
    command = [sys.executable, "-m", "benchmarks.objectives", "--loop", f"{name}:{kind}", "--precision", flags.precision,
               "--accumulation", str(flags.accumulation), "--micro_batch", str(flags.micro_batch)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1])


def measure_all(flags: argparse.Namespace) -> list[dict[str, Any]]:
    names = flags.only.split(",") if flags.only else list(OBJECTIVES)
    unknown = next((name for name in names if name not in OBJECTIVES), None)
    if unknown is not None:
        raise SystemExit(f"error: --only {unknown}: not an objective; known: {', '.join(OBJECTIVES)}")
    if not has_peer():
        print("note: TextBrewer is not installed (pip install textbrewer==0.2.1) and is left out", file=sys.stderr)
    rows = []
    with tempfile.TemporaryDirectory(prefix="objectives_") as folder:
        loops = Loops(flags, Path(folder))
        for name in names:
            kinds = ["ours", "reference"] + ([PEER] if name == "hidden_mse" and has_peer() else [])
            # Before this process takes the memory for itself.
            memory = {kind: memory_of(flags, name, kind) for kind in kinds} if flags.memory else {}
            results = measure(loops, name, kinds)
            peak = {"ours": matmul_peak(flags.precision), "reference": matmul_peak("fp32"), PEER: matmul_peak(flags.precision)}
            rows += [{"objective": name, "loop": kind, **result, "memory_gb": memory.get(kind),
                      "share_of_peak": _share(name, loops, result, peak[kind]),
                      "speedup": result["tokens_per_s"] / results["reference"]["tokens_per_s"]} for kind, result in results.items()]
            print(_line(rows[-len(kinds):]), flush=True)
    return rows


def _share(name: str, loops: Loops, result: dict[str, float], peak: float) -> float:
    """Against all columns of a micro-batch, as the matrix products see them; MLM heads and attention are not counted."""
    tokens = loops.flags.micro_batch * loops.flags.accumulation * 128
    layers = TEACHER_LAYERS if OBJECTIVES[name].teacher and name != "embedding_mse" else 0
    student = 0 if name == "embedding_mse" else STUDENT_LAYERS
    return step_flops(tokens, layers, student) / result["step_s"] / peak


def _line(rows: list[dict[str, Any]]) -> str:
    cells = []
    for row in rows:
        memory = f", {row['memory_gb']:.2f} GB" if row["memory_gb"] else ""
        cells.append(f"{row['loop']} {row['tokens_per_s']:.0f} tokens/s, {row['step_s']:.2f} s, {row['share_of_peak']:.2f} of peak{memory}")
    return f"{rows[0]['objective']}: {rows[0]['speedup']:.2f} times the reference ({'; '.join(cells)})"


def write_costs(rows: list[dict[str, Any]], flags: argparse.Namespace) -> None:
    """The README's table takes its costs from this file."""
    ours = {row["objective"]: row for row in rows if row["loop"] == "ours"}
    base = ours["hidden_mse"]["step_s"]
    COSTS_FILE.write_text(json.dumps({
        "machine": describe_machine(), "precision": flags.precision, "accumulation": flags.accumulation,
        "cost": {name: round(row["step_s"] / base, 2) for name, row in ours.items()},
        "speedup": {name: round(row["speedup"], 2) for name, row in ours.items()}}, indent=2) + "\n")


def main() -> int:
    flags = parse_flags()
    if flags.loop:
        name, _, kind = flags.loop.partition(":")
        with tempfile.TemporaryDirectory(prefix="objectives_") as folder:
            step = Loops(flags, Path(folder)).make(name, kind)
            for _ in range(2):
                step()
            print(peak_memory_gb())
        return 0
    rows = measure_all(flags)
    if not flags.only:
        write_costs(rows, flags)
    return 0


if __name__ == "__main__":
    run_command(main)
