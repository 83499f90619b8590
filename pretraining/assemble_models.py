"""Teacher and student of a plan: the weights that are loaded, copied or drawn, what the objectives ask of both, and what is frozen."""

from dataclasses import dataclass
from typing import Any

import torch

from pretraining.layer_norm import use_apex_layer_norm
from pretraining.models.encoder import Encoder
from pretraining.models.freezing import freeze_embeddings
from pretraining.models.loading import load_model
from pretraining.models.student import BuiltModel, build_student
from pretraining.models.teacher import Teacher
from pretraining.objectives.base import ObjectiveContext, Shape
from pretraining.objectives.catalog import OBJECTIVES
from pretraining.objectives.weighted import WeightedObjectives
from pretraining.precision import Precision
from pretraining.preflight import Plan
from pretraining.teacher_cache.teacher import StoredTeacher
from pretraining.trained_module import TrainedModule


@dataclass
class Models:
    """Teacher and trained module, on their device. `head_trained`: whether a loss reaches the student's MLM head.

    `frozen`: parameters of the trained module that no loss reaches; `kept`: those of the student that the user has frozen.
    """

    teacher: Teacher | StoredTeacher | None
    module: TrainedModule
    built: BuiltModel
    head_trained: bool
    frozen: list[str]
    kept: list[str]


def build_models(plan: Plan, precision: Precision, device: torch.device) -> Models:
    """Teacher and student from the plan; the student's unreached parameters are frozen."""
    resolved, args = plan.resolved, plan.resolved.args
    torch.manual_seed(args.run.seed)  # the first weights of learned projections
    objective = WeightedObjectives(resolved.methods, objective_contexts(plan))
    needs = objective.all_needs
    teacher = teacher_model = teacher_architecture = None
    if plan.teacher is not None:
        teacher_architecture = plan.teacher.architecture
    if plan.teacher is not None and (plan.cache is None or plan.student.source == "teacher"):
        teacher_model = BuiltModel(*load_model(plan.teacher.path, "--teacher_path", teacher_architecture))
    built = build_student(plan.student, plan.architecture, teacher_model, teacher_architecture, needs.student.head,
                          needs.student.next_sentence, args.run.seed)
    if needs.teacher is not None and plan.cache is not None:
        teacher = StoredTeacher()
    elif needs.teacher is not None:
        teacher = Teacher(teacher_model, teacher_architecture, needs.teacher, precision, device)
    module = TrainedModule(Encoder(built.model, plan.architecture, built.has_head, needs.student), objective)
    frozen = module.freeze_unreached(None if plan.taught_by is None else shape_of(plan.taught_by.config), built.model.config.vocab_size)
    kept, lines = freeze_embeddings(args.distillation, plan.student, module.student)
    resolved.notes.extend(lines)
    for name, layers in layers_compared(plan).items():
        resolved.notes.append(f"{name} compares layers {layers} (student-teacher)")
    takes_head = plan.student.source == "folder" or (plan.student.source == "teacher" and teacher_model.has_head)
    if needs.student.head and not takes_head:
        resolved.notes.append("the student's language-model head starts from random weights")
    if frozen:
        count = sum(module.get_parameter(name).numel() for name in frozen)
        resolved.notes.append(f"{len(frozen)} weights ({count} numbers) that no loss reaches are frozen, such as {frozen[0]}")
    if args.model.layer_norm_type == "apex":
        use_apex_layer_norm(module, device)
    module.to(device)
    head_trained = built.has_head and any(
        parameter.requires_grad for name, parameter in module.student.model.named_parameters() if plan.architecture.in_head(name))
    return Models(teacher, module, built, head_trained, frozen, kept)


def shape_of(config: dict[str, Any]) -> Shape:
    return Shape(config["num_hidden_layers"], config["hidden_size"], config["num_attention_heads"])


def layers_compared(plan: Plan) -> dict[str, str]:
    """Objective -> the layers it compares, for people: `5-11` is student layer 5 with teacher layer 11."""
    return {name: ", ".join(f"{mine}-{other}" for mine, other in part.pairs) or
            f"{', '.join(map(str, part.student_layers))} with {', '.join(map(str, part.teacher_layers))}"
            for name, part in plan.objectives.parts.items() if part.teacher_layers}


def objective_contexts(plan: Plan) -> dict[str, ObjectiveContext]:
    """What every objective of the run is built from, by its name."""
    flags, objectives = plan.resolved.args.distillation, plan.objectives
    teacher = None if plan.taught_by is None else shape_of(plan.taught_by.config)
    truncation = {} if flags.truncated_target is None else {"truncated_target": flags.truncated_target}
    return {name: ObjectiveContext(
        student=shape_of(plan.student.config), teacher=teacher, pairs=part.pairs, student_layers=part.student_layers,
        teacher_layers=part.teacher_layers, temperature=flags.temperature, all_positions=objectives.all_positions,
        truncation_factor=flags.truncation_factor if OBJECTIVES[name].truncated else None, **truncation,
        relation_heads=objectives.relation_heads, contrastive_width=flags.contrastive_width,
        contrastive_temperature=flags.contrastive_temperature,
    ) for name, part in objectives.parts.items()}
