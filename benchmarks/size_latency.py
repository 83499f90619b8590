"""Size and latency of students against their teacher, as ratios from one process (DistilBERT's README: 40 % smaller, 60 % faster).

    python -m benchmarks.size_latency TEACHER STUDENT [STUDENT ...] --length 128
    python -m benchmarks.size_latency --shapes

Folders are any of Hugging Face's encoders or causal models, read with their bare `AutoModel`; sizes are of the whole folder's weights, head
included, tied weights once. `--shapes` needs no folder: BERT-base, DistilBERT's shape and a 3-layer one with random weights, as
fast as trained ones. Latency is of one forward pass in eval mode on full rows of random ids, models in turns so that a machine that slows
down favours none; the median is told, and beside it the interquartile range as a share of it. On a GPU every pass is waited for.

Only ratios mean anything on a machine that others use; `taskset -c 0` holds the process to one core.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common import describe_machine
from dataset.errors import OneLineParser, UserError, run_command
from dataset.files import write_json
from pretraining.models.catalog import WEIGHT_FILES

if TYPE_CHECKING:
    import torch

SHAPES = {"bert-base": ("BertConfig", {}), "distilbert": ("DistilBertConfig", {}),
          "bert-3-layers": ("BertConfig", {"num_hidden_layers": 3})}


@dataclass
class Measured:
    """One model. `parameters` with its head, `file_bytes` of the weights on disk, `seconds` of every pass by batch size."""

    name: str
    parameters: int
    file_bytes: int
    vocabulary: int
    seconds: dict[int, list[float]] = field(default_factory=dict)

    def latency(self, batch: int) -> float:
        return statistics.median(self.seconds[batch])

    def spread(self, batch: int) -> float:
        """Interquartile range as a share of the median."""
        low, _, high = statistics.quantiles(self.seconds[batch], n=4)
        return (high - low) / self.latency(batch)


def parse_flags(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = OneLineParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("folders", type=Path, nargs="*", help="the teacher's folder, then those of its students")
    parser.add_argument("--shapes", action="store_true", help="random models of published shapes in the place of folders")
    parser.add_argument("--length", type=int, default=128, help="tokens of a row; default: 128")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32], help="rows of a pass; default: 1 32")
    parser.add_argument("--rounds", type=int, default=9, help="timed passes of each model and batch; default: 9")
    parser.add_argument("--json", type=Path, help="write every number there")
    flags = parser.parse_args(arguments)
    if flags.shapes == bool(flags.folders) or len(flags.folders) == 1:
        raise UserError("give a teacher's folder and a student's, or --shapes alone")
    if min(flags.length, flags.rounds - 1, *flags.batches) < 1:
        raise UserError("--length and --batches count from 1, --rounds from 2")
    for folder in flags.folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder{'; no folder fits this pattern' * ('*' in str(folder))}")
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder}: no config.json in it; give a Hugging Face folder")
    return flags


def make_shapes(place: Path) -> list[Path]:
    """Folders of random models with their language-model heads, at the shapes of `SHAPES`."""
    import transformers

    folders = []
    for name, (config_class, settings) in SHAPES.items():
        config = getattr(transformers, config_class)(**settings)
        transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(place / name)
        folders.append(place / name)
    return folders


def weight_bytes(folder: Path) -> int:
    """Bytes of the weights that `transformers` would load: one file, or those that an index names."""
    first = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if first is None:
        raise UserError(f"{folder}: no weights in it; one of {', '.join(WEIGHT_FILES)} is needed")
    names = {first.name}
    if first.suffix == ".json":
        names = set(json.loads(first.read_text(encoding="utf-8"))["weight_map"].values())
    return sum((folder / name).stat().st_size for name in names)


def load(folder: Path, length: int, device: str) -> tuple[Measured, Callable[["torch.Tensor"], None]]:
    """(the model's sizes, its forward pass on ids (B, L))."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    if length > config.max_position_embeddings:
        raise UserError(f"--length {length}: {folder} has {config.max_position_embeddings} positions")
    head = getattr(transformers, (config.architectures or [""])[0], transformers.AutoModel)
    measured = Measured(folder.name, head.from_pretrained(folder).num_parameters(), weight_bytes(folder), config.vocab_size)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval().to(device)

    @torch.inference_mode()
    def run(ids: "torch.Tensor") -> None:
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
        if device == "cuda":
            torch.cuda.synchronize()

    return measured, run


def measure(folders: list[Path], length: int, batches: list[int], rounds: int) -> list[Measured]:
    """Every model at every batch size, in turns; the first pass of each is a warm-up and not counted."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    os.environ.setdefault("DS_ACCELERATOR", device)  # transformers imports DeepSpeed for some models, which else warns on stdout
    models = [load(folder, length, device) for folder in folders]
    generator = torch.Generator().manual_seed(0)
    for batch in batches:
        for turn in range(rounds + 1):
            for measured, run in models:
                ids = torch.randint(0, measured.vocabulary, (batch, length), generator=generator).to(device)
                started = time.perf_counter()
                run(ids)
                if turn:
                    measured.seconds.setdefault(batch, []).append(time.perf_counter() - started)
    return [measured for measured, _ in models]


def table(found: list[Measured], batches: list[int]) -> list[str]:
    """One line a model; every ratio is to the first one, the teacher."""
    teacher = found[0]
    lines = [f"{'model':<24}  {'M params':>8}  {'ratio':>5}  {'MB':>7}  {'ratio':>5}"
             + "".join(f"  {f'ms at {batch}':>9}  {'spread':>6}  {'faster':>6}" for batch in batches)]
    for one in found:
        line = (f"{one.name[-24:]:<24}  {one.parameters / 1e6:8.2f}  {one.parameters / teacher.parameters:5.2f}  "
                f"{one.file_bytes / 1e6:7.1f}  {one.file_bytes / teacher.file_bytes:5.2f}")
        for batch in batches:
            line += (f"  {1e3 * one.latency(batch):9.2f}  {one.spread(batch):6.0%}  {teacher.latency(batch) / one.latency(batch):6.2f}")
        lines.append(line)
    return [*lines, "", f"ratio: to {teacher.name}; faster: its latency by the model's"]


def main(arguments: list[str] | None = None) -> None:
    flags = parse_flags(arguments)
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        folders = make_shapes(Path(temporary)) if flags.shapes else flags.folders
        found = measure(folders, flags.length, flags.batches, flags.rounds)
    print(f"{describe_machine()}; fp32, rows of {flags.length} tokens, medians of {flags.rounds} passes\n")
    print("\n".join(table(found, flags.batches)))
    if flags.json is not None:
        write_json(flags.json, {"machine": describe_machine(), "length": flags.length, "models": [asdict(one) for one in found]})


if __name__ == "__main__":
    run_command(main)
