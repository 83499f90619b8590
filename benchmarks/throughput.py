"""Student tokens per second with the teacher in the loop: our trainer against a plain torch loop that does the same work.

Both run in one process, in turns, on the same batches: BERT-base teacher (12 x 768), 6-layer student cut from it, last hidden states
matched, micro-batches of 8 x 128, AdamW. The plain loop is what a careful person would write by hand: no heads, SDPA, autocast,
fused AdamW, accumulation. Ours adds DeepSpeed, the global loss, the message between ranks, the loader and counter-seeded dropout.
Peak memory is taken in a process of its own for each. Weights are random: speed does not depend on them.

    python -m benchmarks.throughput --precision bf16 --accumulation 4
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import STUDENT_LAYERS, Step, base_flags, make_inputs, our_step, peak_memory_gb, timed
from dataset.errors import run_command


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="bf16")
    parser.add_argument("--accumulation", type=int, default=4)
    parser.add_argument("--micro_batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5, help="timed turns of each loop; medians are reported")
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps per turn")
    parser.add_argument("--only", choices=("ours", "plain"), help="run one loop and print its peak memory")
    return parser.parse_args()


def plain_loop(flags: argparse.Namespace, teacher_folder: Path, shards: Path) -> Step:
    """The same step as a plain torch loop over the same shard."""
    import h5py
    import torch
    import transformers

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[flags.precision]
    teacher = transformers.BertModel.from_pretrained(teacher_folder, add_pooling_layer=False, dtype=torch.float32).to(device).eval()
    config = transformers.BertConfig.from_pretrained(teacher_folder, num_hidden_layers=STUDENT_LAYERS)
    student = transformers.BertModel(config, add_pooling_layer=False).to(device).train()
    decayed = [parameter for parameter in student.parameters() if parameter.ndim > 1]
    plain = [parameter for parameter in student.parameters() if parameter.ndim == 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}], lr=1e-4, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=flags.precision == "fp16")
    with h5py.File(shards / "train_shard_0.hdf5") as file:
        ids, masks = file["input_ids"][:].astype(np.int64), file["input_mask"][:].astype(np.int64)
    place = 0

    def step() -> int:
        nonlocal place
        tokens = 0
        for _ in range(flags.accumulation):
            rows = np.arange(place, place + flags.micro_batch) % len(ids)
            place += flags.micro_batch
            width = -(-int(masks[rows].sum(1).max()) // 8) * 8
            input_ids = torch.from_numpy(ids[rows, :width]).to(device)
            mask = torch.from_numpy(masks[rows, :width]).to(device)
            tokens += int(masks[rows].sum())
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                with torch.no_grad():
                    target = teacher(input_ids, attention_mask=mask).last_hidden_state
                output = student(input_ids, attention_mask=mask).last_hidden_state
                difference = (output.float() - target.float()) * mask.unsqueeze(-1)
                loss = difference.square().sum() / (mask.sum() * output.shape[-1])
            scaler.scale(loss / flags.accumulation).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return tokens

    return step


def peak_of(loop: str, flags: argparse.Namespace) -> float:
    command = [sys.executable, "-m", "benchmarks.throughput", "--only", loop, "--precision", flags.precision,
               "--accumulation", str(flags.accumulation), "--micro_batch", str(flags.micro_batch)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(output.strip().splitlines()[-1])


def main() -> int:
    flags = parse_flags()
    with tempfile.TemporaryDirectory(prefix="throughput_") as name:
        folder = Path(name)
        teacher, shards = make_inputs(folder)
        common = base_flags(shards, folder, teacher, flags.precision, flags.micro_batch, flags.accumulation)
        hidden_mse = ["--distillation", "--teacher_path", str(teacher), "--method", "hidden_mse", "--student_initialize",
                      "--num_hidden_layers", str(STUDENT_LAYERS), "--layer_selection", "11"]
        makers = {"ours": lambda: our_step([*common, *hidden_mse]), "plain": lambda: plain_loop(flags, teacher, shards)}
        if flags.only:
            step = makers[flags.only]()
            for _ in range(3):
                step()
            print(peak_memory_gb())
            return 0
        # Before this process takes the launcher's variables and the memory for itself.
        peaks = {name: round(peak_of(name, flags), 2) for name in makers}
        loops = {name: make() for name, make in makers.items()}
        speeds: dict[str, list[float]] = {name: [] for name in loops}
        for round_number in range(flags.rounds + 1):
            for name, step in loops.items():
                speed, _ = timed(step, flags.steps)
                if round_number > 0:  # the first turn warms up
                    speeds[name].append(speed)
        ratios = [ours / plain for ours, plain in zip(speeds["ours"], speeds["plain"], strict=True)]
    result = {
        "precision": flags.precision, "accumulation": flags.accumulation, "micro_batch": flags.micro_batch,
        "tokens_per_s": {name: round(statistics.median(values), 1) for name, values in speeds.items()},
        "ratio_median": round(statistics.median(ratios), 3), "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "peak_memory_gb": peaks,
    }
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    run_command(main)
