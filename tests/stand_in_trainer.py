"""Plays the trainer where a test is about the sweep around it: the same flags, folder, files, signals and exit statuses, in 0.2 s a run.

A sweep starts it as its launcher: `python stand_in_trainer.py run_pretraining.py FLAGS`. What a run does is told by PLAY in the
environment, JSON of run id -> one of
    fail   an error, status 2
    wait   train half of the hours, then wait for a signal, save for a moment, end with `signal` and status 75
Every other run uses up its hours. A run that finds metrics goes on from there.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pretraining.args.parser import parse
from pretraining.run_folder import RunFolder, finished_reason, run_path


def main() -> int:
    args = parse(sys.argv[2:])
    folder, hours = RunFolder(run_path(args)), args.budget.total_training_time
    play = json.loads(os.environ.get("PLAY", "{}")).get(args.run.current_run_id)
    assert args.run.resume
    if play == "fail":
        print("some words before\nerror: the disk is full\nand after", flush=True)
        return 2
    if finished_reason(folder):
        return 0
    folder.path.mkdir(parents=True, exist_ok=True)
    (folder.path / "args.yaml").write_text(yaml.safe_dump(args.as_dict()), encoding="utf-8")
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.append(number))
    with folder.metrics.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"event": "resume" if folder.metrics.stat().st_size else "start", "hours": 0.0}) + "\n")
        file.write(json.dumps({"event": "train", "hours": hours / 2}) + "\n")
    while play == "wait" and not asked:
        time.sleep(0.01)
    if play == "wait":
        time.sleep(0.3)
    reason = "signal" if asked else "time_budget"
    folder.summary.write_text(json.dumps({"exit_reason": reason, "hours": hours / 2 if asked else hours}), encoding="utf-8")
    return 75 if asked else 0


if __name__ == "__main__":
    sys.exit(main())
