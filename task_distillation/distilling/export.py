"""A student's folder at a marker: what `students.folder` writes, its card, and its scores in the run's glue.json as any other model's."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer

from dataset.errors import UserError
from dataset.files import whole_folder
from evaluation.fine_tuning.model_folder import fingerprint
from evaluation.fine_tuning.scorer import constant_metrics_of
from evaluation.scoring.candidates import read_marker
from evaluation.scoring.card import update_card
from evaluation.scoring.jobs import AS_IT_IS
from evaluation.scoring.results import add_results
from evaluation.tasks.task import TaskData
from pretraining.console import say
from pretraining.objectives.catalog import Part
from task_distillation.distilling.validation import SCORE
from task_distillation.protocol import PROTOCOL
from task_distillation.students.folder import save_student
from task_distillation.students.part import Student

STUDENT_PREFIX = "student."
LOSS_WORDS = {"logit_mse": "squared error of the teacher's logits", "kl": "divergence from the teacher", "labels": "the labels",
              "hard_labels": "the teacher's choice"}


@dataclass(frozen=True)
class StudentRecipe:
    """What every export of a run shares. `run`: the run's folder, which keeps the scores; `rows`: of the transfer set."""

    student: Student
    tokenizer: Tokenizer
    flags: dict[str, Any]
    methods: list[Part]
    data: TaskData
    rows: int
    run: Path
    device: str
    precision: str

    def export(self, weights: dict[str, torch.Tensor], folder: Path, state: dict[str, Any]) -> None:
        """Write `folder`, whole or not at all, and add its scores to the run's, where `state` has them."""
        own = {name.removeprefix(STUDENT_PREFIX): tensor for name, tensor in weights.items()}
        folder.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(folder) as partial:
            save_student(partial, self.student, self.tokenizer, own)
            (partial / "README.md").write_text(self._card(folder.name, state), encoding="utf-8")
            (partial / "run_state.json").write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        scores = {name.removeprefix(SCORE): value for name, value in state["quality"].items() if name.startswith(SCORE)}
        if scores:
            row = self._row(folder, scores)
            try:
                add_results(self.run, [row])
                update_card(folder, [row], [self.data.task])
            except UserError as error:  # a score that metrics.jsonl has as well must not cost the export
                say(f"note: {error}")

    def _row(self, folder: Path, scores: dict[str, float]) -> dict[str, Any]:
        """The marker's score, as run_glue.py would write one of a model with its own head."""
        task, counts = self.data.task, self.student.parameter_counts()
        return {
            "model": folder.name, "role": "marker", "folder": str(folder), "task": task.name, "task_version": task.version,
            **asdict(read_marker(folder)),
            "headline": task.headline, "metric_names": list(task.metrics), "seed": self.flags["seed"],
            "settings": {"max_length": self.flags["max_length"], "precision": self.precision},
            "protocol": PROTOCOL.describe(), "weights_sha256": fingerprint(folder), "data_sha256": self.data.sha256,
            "mode": AS_IT_IS, "teacher_sha256": None, "start": None, "grid_point": {},
            "metrics": scores, "constant_metrics": constant_metrics_of(task, self.data.dev), "diverged": False, "selected_on_dev": False,
            "best_step": 0, "history": [], "train_size": self.rows, "dev_size": len(next(iter(self.data.dev.values()))),
            "train_seconds": 0.0, "precision": self.precision, "device": self.device, "new_weights": [], "parameters": counts.total,
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        }

    def _card(self, name: str, state: dict[str, Any]) -> str:
        flags, task, counts = self.flags, self.data.task, self.student.parameter_counts()
        source = flags["transfer_set"] or "the task's training set"
        methods = ", ".join(f"{part.weight:g} x {part.name} ({LOSS_WORDS[part.name]})" for part in self.methods)
        reach = f"{state['step']} steps, {state['samples']:,} rows seen"
        lines = [
            "---", "library_name: transformers" if flags["student"] == "encoder" else "library_name: pytorch", "---", "",
            f"# {name}: {flags['student']} for {task.name}", "",
            f"A student of {counts.total:,} parameters ({counts.without_embeddings:,} without embeddings), by task-specific distillation.",
            "", f"- classes: {', '.join(task.label_names)}" if task.label_names else "- a regression: one score",
            f"- learnt from: {self.rows:,} rows of {source}", f"- teacher's logits: {flags['logits'] or 'none, or beside the texts'}",
            f"- objective: {methods}",
            f"- budget: {state['hours']:.4f} of {flags['total_training_time']} hours, {reach}",
            *(f"- {label}: {value:.6g}" for label, value in state["losses"].items()),
            "", "`python run_task_distillation.py export FOLDER --output_dir serving` makes it ready to serve without this project.", "",
        ]
        return "\n".join(lines)
