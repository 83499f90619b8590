"""What the demo found: one table, a picture, and whether the student learnt. Everything is read from what the stages wrote."""

import json
import math
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dataset.files import write_json, write_text
from demo.pipeline import CUT_NAME, TEACHER_NAME, Places
from demo.workshop import Workshop, seconds_text
from evaluation.scoring.candidates import find_markers
from evaluation.scoring.plot import draw_curve
from evaluation.scoring.results import read_results

TASK = "movie-review snippets"


@dataclass(frozen=True)
class Line:
    """One model. `score`: share of held-out snippets that are right. `tokens_per_s`: the student's non-padding tokens in training."""

    model: str
    hours: float | None
    held_out_loss: float | None
    score: float
    tokens_per_s: float | None


def read_events(metrics: Path) -> list[dict[str, Any]]:
    """The events of a metrics.jsonl, without a last line that was cut short."""
    events = []
    for line in metrics.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return events


def loss_before_training(events: Iterable[dict[str, Any]]) -> float:
    """The held-out loss at step 0: the untrained cut's, by the trainer's own validation."""
    return next(event["loss"] for event in events if event["event"] == "validation" and event["step"] == 0)


def training_speed(events: Iterable[dict[str, Any]], after: int, until: int) -> float | None:
    """Student tokens per second of the `train` events in (after, until] steps: all their tokens over all their seconds."""
    tokens = seconds = 0.0
    before = 0
    for event in events:
        if event["event"] != "train":
            continue
        if after < event["step"] <= until:
            tokens += event["tokens"] - before
            seconds += (event["tokens"] - before) / event["tokens_per_s"]
        before = event["tokens"]
    return tokens / seconds if seconds else None


def collect(shop: Workshop, places: Places) -> tuple[list[Line], list[dict[str, Any]]]:
    """(lines of the table: teacher, cut, markers in order; their rows of glue.json in the same order)."""
    events = read_events(places.run / "metrics.jsonl")
    newest = {row["folder"]: row for row in read_results(places.scores)}
    rows = [newest[shop.shown(places.work / name)] for name in ("teacher", "untrained_cut")]
    teacher, cut = (row["metrics"][row["headline"]] for row in rows)
    lines = [Line(TEACHER_NAME, None, None, teacher, None), Line(CUT_NAME, 0.0, loss_before_training(events), cut, None)]
    before = 0
    for candidate in find_markers(places.run):
        row, marker = newest[shop.shown(candidate.folder)], candidate.marker
        lines.append(Line(f"student at {marker.fraction:.0%}", marker.hours, marker.validation_loss, row["metrics"][row["headline"]],
                          training_speed(events, before, marker.step)))
        rows.append(row)
        before = marker.step
    return lines, rows


def format_table(lines: list[Line]) -> str:
    """The lines as text; a dash where there is nothing to say."""
    def cell(value: float | None, shape: str) -> str:
        return "-" if value is None else f"{value:{shape}}"

    cells = [("model", "hours", "held-out loss", "accuracy %", "tokens/s")]
    cells += [(line.model, cell(line.hours, ".4f"), cell(line.held_out_loss, ".4f"), cell(100 * line.score, ".1f"),
               cell(line.tokens_per_s, ".0f")) for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))])
                     for row in cells)


def verdict(lines: list[Line], held_out: int) -> tuple[bool, list[str]]:
    """(whether the last student's held-out loss is below the cut's, sentences about loss and score)."""
    teacher, cut, student = lines[0], lines[1], lines[-1]
    learnt = student is not cut and student.held_out_loss < cut.held_out_loss
    gain, gap = student.score - cut.score, teacher.score - cut.score
    error = math.sqrt(student.score * (1 - student.score) / held_out)
    sentences = [f"Held-out loss: {cut.held_out_loss:.4f} for the untrained cut, {student.held_out_loss:.4f} for the student."]
    if gain > 0:
        share = f", {gain / gap:.0%} of the way to the teacher" if gap > 0 else ""
        doubt = "; less than one standard error, so it may be chance" if gain < error else ""
        sentences.append(f"Score: the student is {100 * gain:.1f} points above the untrained cut{share}{doubt}.")
    else:
        sentences.append(f"Score: the student is NOT above the untrained cut ({100 * student.score:.1f} against {100 * cut.score:.1f}).")
    sentences.append(f"{held_out} held-out snippets: one standard error of a score is {100 * error:.1f} points.")
    return learnt, sentences


def report(shop: Workshop, places: Places, minutes: float) -> bool:
    """Print the table, write table.txt, demo.json and demo.png to the run's folder; False where the student has not learnt."""
    lines, rows = collect(shop, places)
    learnt, sentences = verdict(lines, rows[0]["dev_size"])
    picture = places.run / "demo.png"
    draw_curve([{**row, "task": TASK} for row in rows], picture, f"Score against training time: {minutes:g} minutes, 6 layers into 3")
    total = sum(shop.seconds.values())
    where = [f"picture      {shop.shown(picture)}", f"students     {shop.shown(places.run / 'finetune')}",
             f"checkpoints  {shop.shown(places.run / 'checkpoints')}", f"scores       {shop.shown(places.scores / 'glue.json')}"]
    took = ", ".join(f"{name} {seconds_text(seconds)}" for name, seconds in shop.seconds.items())
    text = "\n".join([format_table(lines), "", *sentences, "", *where, "", f"stages: {took}; in all {seconds_text(total)}"])
    write_text(places.run / "table.txt", text + "\n")
    write_json(places.run / "demo.json", {
        "minutes": minutes, "learnt": learnt, "lines": [asdict(line) for line in lines], "verdict": sentences,
        "held_out_snippets": rows[0]["dev_size"], "train_snippets": rows[0]["train_size"], "fine_tuning": rows[0]["settings"],
        "precision": rows[0]["precision"], "stage_seconds": {name: round(value, 2) for name, value in shop.seconds.items()},
        "total_seconds": round(total, 2),
    })
    shop.say(f"\n{text}\n")
    if not learnt:
        print("error: the trained student's held-out loss is not below the untrained cut's; the run's metrics.jsonl shows how it went",
              file=sys.stderr)
    return learnt
