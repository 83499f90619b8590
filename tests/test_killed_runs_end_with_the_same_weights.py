"""A run of two ranks that is killed again and again, also inside saving and exporting, ends with the bits of one that never was.

After every kill nothing under the run's folder is half a file but what is named `.partial_*`; at the end nothing is.
"""

import json
import random
import time
from pathlib import Path

import pytest
import torch
import yaml
from launching import summary, without_times
from safetensors.torch import load_file
from stops_case import make_place
from transformers import AutoModelForMaskedLM
from zygote import Zygote

from dataset.files import PARTIAL_PREFIX
from pretraining.checkpoint import damage

KILLED = -9
AT_RANDOM = ("at random", 0, 0)
# (fault point, rank, how often it is reached), in an order in which a run meets them; a life goes on where the one before was killed.
# The run is 80 steps with markers at 20, 40 and 60. Until the exports begin it is at most at step 34, at the last random kill at 70.
KILLS = [
    ("validation", 1, 2), ("half of a metrics line", 0, 2),
    ("partial checkpoint made", 0, 1), ("half of a state file", 1, 1), ("half of a state file", 0, 2), ("before the manifest", 0, 1),
    ("half of the manifest", 0, 1), ("before the checkpoint's rename", 0, 1), ("after the checkpoint's rename", 0, 1),
    ("half of latest", 0, 1), ("before latest's rename", 0, 1), ("half of a checkpoint's removal", 0, 1),
    ("half of a metrics line", 0, 3), ("cutting the metrics", 0, 1), AT_RANDOM, AT_RANDOM,
    ("before the export", 0, 1), ("gathering weights for the export", 1, 1), ("half of the exported weights", 0, 1),
    ("before run_state.json", 0, 1), ("before the export's rename", 0, 1), ("after the export's rename", 0, 1),
    ("moving an export aside", 0, 1), *[AT_RANDOM] * 6,
    ("half of the exported weights", 0, 1), ("half of the summary", 0, 1), ("before the summary's rename", 0, 1),
]
# It needs a damaged newest checkpoint, older than the export that it saved.
NEEDS_DAMAGE = "moving an export aside"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("killed"))


def flags(place: Path, run: str) -> list[str]:
    return ["--dataset_path", str(place / "shards"), "--teacher_path", str(place / "teacher"), "--distillation", "--method",
            "hidden_mse:1.0,mlm:0.5", "--student_initialize", "--num_hidden_layers", "2", "--layer_selection", "1,3", "--train_batch_size",
            "8", "--train_micro_batch_size_per_gpu", "4", "--lr", "1e-3", "--output_dir", str(place / "out"), "--current_run_id", run,
            "--job_name", "job", "--steps_between_checkpoints", "4", "--print_steps", "7", "--do_validation", "--clock", "simulated:45",
            "--total_training_time", "1", "--finetune_time_markers", "0.25,0.5,0.75", "--layer_norm_type", "pytorch", "--precision",
            "fp32", "--zero_stage", "1", "--resume"]


class Checked:
    """Looks at everything in a run's folder after a kill. What was once seen to load is not loaded again."""

    def __init__(self, straight: Path) -> None:
        self.exported = {path.name for path in (straight / "finetune").iterdir() if path.is_dir()}
        self.files = {path.name for path in next((straight / "finetune").glob("progress_*")).iterdir()}
        self.loaded: set[tuple[Path, int]] = set()

    def look(self, run: Path, damaged: Path | None) -> None:
        for path in sorted(run.rglob("*")):
            if any(part.startswith(PARTIAL_PREFIX) for part in path.relative_to(run).parts) or path.is_dir():
                continue
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix in (".yaml", ".yml"):
                assert yaml.safe_load(path.read_text(encoding="utf-8")), path
            elif path.suffix == ".safetensors":
                load_file(path)
        if (run / "metrics.jsonl").exists():
            lines = (run / "metrics.jsonl").read_text(encoding="utf-8").split("\n")
            assert all(isinstance(json.loads(line), dict) for line in lines[:-1]), "only the last line may lack its end"
        for path in (run / "checkpoints").glob("step_*"):
            assert path == damaged or damage(path) is None, (path, damage(path))
        latest = run / "checkpoints" / "latest"
        assert not latest.exists() or (latest.parent / latest.read_text(encoding="utf-8").strip()).is_dir()
        for path in (run / "finetune").rglob("progress_*"):
            if PARTIAL_PREFIX not in str(path):
                self._export(path)

    def _export(self, path: Path) -> None:
        assert path.name in self.exported and {file.name for file in path.iterdir()} == self.files, path
        key = (path, (path / "model.safetensors").stat().st_ino)
        if key not in self.loaded:
            _, wrong = AutoModelForMaskedLM.from_pretrained(path, output_loading_info=True)
            assert not any(wrong.values()), (path, wrong)
            self.loaded.add(key)


def flip_a_byte(run: Path) -> Path:
    """Damage the newest checkpoint; returns it."""
    newest = max((run / "checkpoints").glob("step_*"), key=lambda path: int(path.name.removeprefix("step_")))
    states = next(newest.rglob("*model_states.pt"))
    content = bytearray(states.read_bytes())
    content[len(content) // 2] ^= 1
    states.write_bytes(content)
    return newest


def wait_at_random(run: Path, dice: random.Random) -> None:
    """Until a random moment of a life's start, or, twice as often, of its first steps: those begin with a line of metrics.jsonl."""
    if dice.random() < 1 / 3:
        time.sleep(dice.uniform(0.0, 1.0))
        return
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + 60
    before = metrics.read_bytes()
    while metrics.read_bytes() == before and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(dice.uniform(0.0, 0.7))


def same_everything(straight: Path, killed: Path) -> None:
    ours, theirs = ({name: value for name, value in summary(run).items() if name not in ("closing_s", "tokens_per_s")}
                    for run in (straight, killed))
    assert ours == theirs and len(ours["markers"]) == 4
    for marker in ours["markers"]:
        first, second = (load_file(run / "finetune" / marker / "model.safetensors") for run in (straight, killed))
        assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first), marker
        states = [json.loads((run / "finetune" / marker / "run_state.json").read_text(encoding="utf-8")) for run in (straight, killed)]
        assert states[0] == states[1]
    assert [event for event in without_times(killed) if event["event"] != "resume"] == without_times(straight)


def kill_and_resume(place: Path, zygote: Zygote, name: str, kills: list[tuple[str, int, int]], seed: int) -> None:
    out, dice = place / "out" / "job", random.Random(seed)
    straight, run = out / "straight", out / name
    if not straight.exists():
        zygote.run(flags(place, "straight"), ranks=2)
    checked, damaged = Checked(straight), None
    for point, rank, count in kills:
        if point == NEEDS_DAMAGE:
            damaged = flip_a_byte(run)
        if point == AT_RANDOM[0]:
            life = zygote.start(flags(place, name), ranks=2, patches={"slow_steps": {"seconds": 0.1, "most": 5}})
            wait_at_random(run, dice)
            assert life.kill() == [KILLED, KILLED], life.stderr()
        else:
            life = zygote.start(flags(place, name), ranks=2, fault={"point": point, "rank": rank, "count": count})
            reached = life.ended([rank], 60) and life.statuses[rank] == KILLED
            # The machine goes down a moment later, all of it.
            time.sleep(dice.uniform(0, 0.2))
            life.kill()
            assert reached, f"{point} was never reached\n{life.stderr()}"
        for folder in (run, *out.glob(f"{name}.old_*")):
            checked.look(folder, damaged)
    zygote.run(flags(place, name), ranks=2)
    same_everything(straight, run)
    assert not [path for path in run.rglob("*") if path.name.startswith(PARTIAL_PREFIX)]
    checked.look(run, None)


def test_kills_up_to_the_first_marker_change_nothing(place, zygote):
    """The moments of a checkpoint; those of exports and of the end are among the thirty."""
    kill_and_resume(place, zygote, "killed", KILLS[:13], seed=4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4, 9))
def test_thirty_kills_change_nothing(place, zygote, seed):
    assert len(KILLS) >= 30 and KILLS.count(AT_RANDOM) == 8
    kill_and_resume(place, zygote, f"killed_{seed}", KILLS, seed)
