"""What the ranks of one launch do for test_pieces_equal_the_whole.py: one piece of every case's run, one case after the other.

    drive_runs:main CASES.json PIECE REPORT

A case is {"name": ..., "flags": [...], "cuts": [[step, signal, rank or None], ...]}; one without cuts has no pieces. Launch 0 trains every
case straight through, and once up to its first cut; every further launch, in processes of its own, takes the cut runs to the next cut or
to the end. The last one compares them, its ranks sharing the cases, and writes REPORT.RANK.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from launching import without_times
from safetensors.torch import load_file

from pretraining import assemble
from pretraining.args.parser import parse
from pretraining.args.resolve import resolve
from pretraining.control import Control
from pretraining.engine import select_device, start_ranks, stop_ranks
from pretraining.export import load_hf_tokenizer
from pretraining.launch import read_launch
from pretraining.models.loading import quiet_transformers
from pretraining.precision import select_precision
from pretraining.preflight import make_plan
from pretraining.stopping import StopSignal

LAST_STEP = 24


class Driver:
    """Runs pieces in this process, which is one rank of several."""

    def __init__(self) -> None:
        self.launch = read_launch(-1)
        self.device = select_device(self.launch)
        quiet_transformers()
        start_ranks(self.device)
        self.control = Control(self.launch.rank, self.launch.world_size)

    def run(self, flags: list[str], cut: list | None = None) -> str:
        """The exit reason; with `cut` (step, signal, rank) that rank, or every one, sends itself the signal after that step."""
        plan = make_plan(resolve(parse(flags), self.launch))
        precision, _ = select_precision(plan.resolved.args.engine.precision, self.device)
        trainer = assemble.prepare(plan, load_hf_tokenizer(plan.tokenizer_source), self.control, precision, self.device,
                                   StopSignal())
        if cut is not None:
            plain_step, (last, number, rank) = trainer.step, cut

            def step(*inputs: object) -> None:
                plain_step(*inputs)
                if trainer.progress.step == last and rank in (None, self.launch.rank):
                    os.kill(os.getpid(), number)

            trainer.step = step
        return trainer.run()

    def piece(self, case: dict, piece: int) -> None:
        """The straight run along with the first piece."""
        name, cuts = case["name"], case["cuts"]
        if piece == 0:
            straight = self.run([*case["flags"], "--job_name", name, "--current_run_id", "straight"])
            assert straight == "max_steps", (name, straight)
        if cuts and piece <= len(cuts):
            cut = cuts[piece] if piece < len(cuts) else None
            reason = self.run([*case["flags"], "--job_name", name, "--current_run_id", "pieces", "--resume"], cut)
            assert reason == ("max_steps" if cut is None else "signal"), (name, piece, reason)


def load_export(run: Path) -> tuple[list[str], str]:
    """(what `transformers` misses or does not expect in the last export, the class it loads)."""
    marker = run / "finetune" / json.loads((run / "summary.json").read_text())["markers"][-1]
    name = json.loads((marker / "config.json").read_text())["architectures"][0]
    model, info = getattr(transformers, name).from_pretrained(marker, output_loading_info=True)
    return [entry for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for entry in info[kind]], type(model).__name__


def differences(one: Any, other: Any, place: str) -> Iterator[str]:
    """Where two nested values differ, tensors to the last bit."""
    if type(one) is not type(other):
        yield f"{place}: {type(one).__name__} and {type(other).__name__}"
    elif isinstance(one, torch.Tensor):
        if one.dtype != other.dtype or not torch.equal(one, other):
            yield place
    elif isinstance(one, dict):
        if one.keys() != other.keys():
            yield f"{place}: keys {sorted(map(str, one.keys() ^ other.keys()))}"
        for key in one.keys() & other.keys():
            yield from differences(one[key], other[key], f"{place}/{key}")
    elif isinstance(one, (list, tuple)):
        if len(one) != len(other):
            yield f"{place}: {len(one)} and {len(other)} entries"
        for index, (mine, theirs) in enumerate(zip(one, other, strict=False)):
            yield from differences(mine, theirs, f"{place}/{index}")
    elif hasattr(one, "__dict__"):
        yield from differences(vars(one), vars(other), place)
    elif one != other:
        yield f"{place}: {one} and {other}"


def files_below(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}


def read(path: Path) -> Any:
    """A file's content, compared by value; what names the run, times it or holds its place in metrics.jsonl left out."""
    if path.suffix == ".pt":
        return torch.load(path, weights_only=False)
    if path.suffix == ".safetensors":
        return load_file(path)
    text = path.read_text(encoding="utf-8")
    if path.name == "state.json":
        state = json.loads(text)
        state["flags"].pop("current_run_id")
        for timed in ("timed_s", "timed_tokens", "longest_gap_s", "longest_save_s"):  # wall times, and what was timed
            del state["progress"][timed]
        del state["metrics_bytes"]
        return state
    return text.replace("pieces:", "straight:") if path.name == "README.md" else text


def compare_folders(straight: Path, pieces: Path) -> Iterator[str]:
    """All files but the manifest, whose sizes and hashes are those of files with other names in them."""
    ours, theirs = (files_below(folder) for folder in (straight, pieces))
    if ours.keys() != theirs.keys():
        yield f"{straight.name}: files {sorted(ours.keys() ^ theirs.keys())}"
    for name in sorted(ours.keys() & theirs.keys()):
        if name != "manifest.json":
            yield from differences(read(ours[name]), read(theirs[name]), f"{straight.name}/{name}")


def metrics(run: Path) -> tuple[list[dict[str, Any]], set[int]]:
    """(events that no cut adds, without wall times; steps of checkpoints)."""
    events = without_times(run)
    kept = [event for event in events if event["event"] not in ("resume", "checkpoint") and event.get("exit_reason") != "signal"]
    return kept, {event["step"] for event in events if event["event"] == "checkpoint"}


def compare(case: dict, output: Path) -> dict:
    straight, pieces = (output / case["name"] / run for run in ("straight", "pieces" if case["cuts"] else "straight"))
    (ours, saved), (theirs, saved_too) = metrics(straight), metrics(pieces)
    resumed = [event for event in without_times(pieces) if event["event"] == "resume"]
    newest = Path("checkpoints") / f"step_{LAST_STEP}"
    train = [event for event in theirs if event["event"] == "train"]
    wrong, model = load_export(pieces)
    markers = json.loads((straight / "summary.json").read_text())["markers"]
    return {
        "name": case["name"], "wrong": wrong, "model": model, "markers": markers, "resumed": [event["step"] for event in resumed],
        "weights": sorted(load_file(pieces / "finetune" / markers[-1] / "model.safetensors")),
        "exports": list(compare_folders(straight / "finetune", pieces / "finetune")),
        "state": list(compare_folders(straight / newest, pieces / newest)),
        "metrics": list(differences(ours, theirs, "metrics")) + [f"no checkpoint at {step}" for step in sorted(saved - saved_too)],
        "validations": sum(event["event"] == "validation" for event in theirs),
        "losses": [event["loss"] for event in train],
        "terms": sorted({key for event in train for key in event if key.startswith("loss/")}),
    }


def main() -> None:
    cases, piece, report = json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2]), Path(sys.argv[3])
    driver = Driver()
    for case in cases:
        driver.piece(case, piece)
    if piece == max(len(case["cuts"]) for case in cases):
        rank, ranks = driver.launch.rank, driver.launch.world_size
        found = [compare(case, Path(parse(case["flags"]).run.output_dir)) for case in cases[rank::ranks]]
        report.with_suffix(f".{rank}").write_text(json.dumps(found))
    driver.control.barrier()
    stop_ranks()
