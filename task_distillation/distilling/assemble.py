"""From a checked plan to the parts of a run: tokenizer, encoded texts, student, dev sets, exports."""

import numpy as np
import torch
import xxhash
from tokenizers import Tokenizer

from evaluation.fine_tuning.tokens import Tokens
from evaluation.tasks.task import Examples
from pretraining.assemble_run import Parts, choose_device, make_trainer, run_on_ranks
from pretraining.control import Control
from pretraining.disk import check_disk
from pretraining.models.loading import quiet_transformers
from pretraining.precision import Precision
from pretraining.stopping import StopSignal
from pretraining.throughput import CostPerToken
from pretraining.trainer import Trainer
from task_distillation.distilling.batches import Collate, TextReader, TextRows
from task_distillation.distilling.export import StudentRecipe
from task_distillation.distilling.module import TaskModule
from task_distillation.distilling.plan import TaskPlan
from task_distillation.distilling.validation import DevSet, TaskValidator
from task_distillation.students.build import build_student, encode, make_tokenizer


def run(plan: TaskPlan, signal: StopSignal) -> str:
    """Train as planned; returns the exit reason. Writes nothing before everything that can be checked was checked."""
    device, precision = choose_device(plan.resolved)
    quiet_transformers()
    return run_on_ranks(plan, device, lambda control: prepare(plan, control, precision, device, signal))


def prepare(plan: TaskPlan, control: Control, precision: Precision, device: torch.device, signal: StopSignal) -> Trainer:
    """Everything that a run is made of, ready to start; the ranks must have been joined."""
    resolved, args, task = plan.resolved, plan.resolved.args, plan.data.task
    # Every rank makes the same from the same texts.
    tokenizer = make_tokenizer(plan.student, (text for column in plan.transfer.texts for text in column))
    student = build_student(plan.student, tokenizer, task, args.run.seed, resolved.notes.append)
    counts = student.parameter_counts()
    check_disk(resolved, plan.folder, counts.total)
    resolved.notes.append(f"{args.student.student}: {counts.total:,} parameters, {counts.without_embeddings:,} of them not embeddings; "
                          f"{len(plan.transfer):,} rows to learn from")

    def encoded(columns: list[list[str]]) -> list[Tokens]:
        return encode(plan.student.config, tokenizer, columns)

    rows = TextRows(encoded(plan.transfer.texts), plan.transfer.labels, plan.transfer.logits)
    module = TaskModule(student, resolved.methods, task.kind, args.objective.temperature, _vocabulary(tokenizer)).to(device)
    validator, collate = None, Collate(student.pad_token_id)
    if args.validation.do_validation:
        sets = [DevSet(name, TextRows(encoded(list(part.texts)), _labels(part, plan))) for name, part in plan.data.dev.items()]
        validator = TaskValidator(sets, plan.data, args.validation.validation_micro_batch, collate, control, precision, device)
    recipe = StudentRecipe(student, tokenizer, args.as_dict(), resolved.methods, plan.data, len(plan.transfer), plan.folder.path,
                           device.type, precision.name)
    parts = Parts(
        module=module, teacher=None, reader=TextReader(rows), rows=[len(rows)], collate=collate, validator=validator,
        recipe=recipe, cost=CostPerToken(counts.without_embeddings, 0), identify=plan.identity)
    return make_trainer(plan, parts, control, precision, device, signal)


def _vocabulary(tokenizer: Tokenizer) -> str:
    """A hash of its words by their ids. How texts are cut is not part of it: the embeddings stay the same words'."""
    words = tokenizer.get_vocab()
    return xxhash.xxh3_128_hexdigest("\n".join(sorted(words, key=words.__getitem__)).encode("utf-8", "surrogatepass"))


def _labels(part: Examples, plan: TaskPlan) -> np.ndarray:
    return np.array(part.labels, np.int64 if plan.data.task.kind == "classification" else np.float32)
