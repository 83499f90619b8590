"""What every objective of a run will compare, decided from config.json files: layers, relation heads, positions of logits.

Also refuses what the two models cannot give one another, before torch is imported.
"""

from dataclasses import dataclass
from typing import Any

from dataset.errors import UserError
from pretraining.args.resolve_run import Resolved
from pretraining.layers import choose_layers, pair_layers
from pretraining.models.catalog import Architecture, ModelFolder
from pretraining.objectives.catalog import OBJECTIVES, Part

RELATION_HEADS = 48  # MiniLMv2's choice for teachers of base size


@dataclass(frozen=True)
class PartPlan:
    """One objective's layers: `pairs` are ((student layer, teacher layer), ...), empty for objectives that do not pair layers."""

    pairs: tuple[tuple[int, int], ...] = ()
    student_layers: tuple[int, ...] = ()
    teacher_layers: tuple[int, ...] = ()


@dataclass(frozen=True)
class ObjectivePlan:
    """`parts` by the name of the objective."""

    parts: dict[str, PartPlan]
    relation_heads: int = 1
    all_positions: bool = False


def plan_objectives(
    resolved: Resolved, student: dict[str, Any], architecture: Architecture, teacher: ModelFolder | None,
) -> ObjectivePlan:
    """`student` is the student's configuration under our names, `architecture` its row. UserError for what cannot be compared."""
    methods = resolved.methods
    for part in methods:
        _check_kind(resolved, part, architecture)
        _check_micro_batch(resolved, part)
        _check_models(resolved, part, student, teacher)
    parts = {part.name: _layers(resolved, part, student, teacher) for part in methods}
    return ObjectivePlan(parts, _relation_heads(resolved, student, teacher), _all_positions(resolved, architecture))


def _check_kind(resolved: Resolved, part: Part, architecture: Architecture) -> None:
    """Whether the student is a model that the objective can teach at all."""
    wanted = OBJECTIVES[part.name].causal
    if wanted == "never" and architecture.causal and part.name == "mlm" and "distilbert" in resolved.args.distillation.method:
        raise UserError(f"--method distilbert: the student ({architecture.family}) is a causal model, whose text is not masked, and learns "
                        "clm in the place of mlm: give --alpha_mlm 0 --alpha_clm 2")
    if wanted == "never" and architecture.causal:
        raise UserError(f"--method {part.name}: the student ({architecture.family}) is a causal model, whose first token sees only itself "
                        "and whose text is not masked; clm, hidden_mse and minilm_v2 work")
    if wanted == "only" and not architecture.causal:
        cure = "; --alpha_clm 0 leaves it out" if "distilbert" in resolved.args.distillation.method else ""
        raise UserError(f"--method {part.name}: the student ({architecture.family}) sees both sides of a token, and is trained by "
                        f"mlm{cure}")
    if part.name == "nsp" and architecture.next_sentence is None:
        raise UserError("--method nsp: the student has no next-sentence head; --model_type bert-mlm-nsp has one")


def _check_micro_batch(resolved: Resolved, part: Part) -> None:
    """Objectives that compare samples learn little or nothing from one at a time."""
    if OBJECTIVES[part.name].compares_samples and resolved.args.optimization.train_micro_batch_size_per_gpu == 1:
        if part.name == "crd":
            raise UserError("--method crd: with --train_micro_batch_size_per_gpu 1 there is no other sample to tell apart; 2 or more works")
        resolved.notes.append(f"--method {part.name} compares the samples of a micro-batch, and --train_micro_batch_size_per_gpu is 1")


def _check_models(resolved: Resolved, part: Part, student: dict[str, Any], teacher: ModelFolder | None) -> None:
    entry = OBJECTIVES[part.name]
    if not entry.teacher or teacher is None:
        return
    if entry.teacher_logits and teacher.has_head is False:
        raise UserError(f"--method {resolved.args.distillation.method}: {part.name} compares logits, but --teacher_path {teacher.path} "
                        "has no language-model head; hidden_mse works with this teacher")
    mine, other = student["hidden_size"], teacher.config["hidden_size"]
    if entry.width == "projected" and mine != other and resolved.args.distillation.hidden_projection == "none":
        free = [name for name, row in OBJECTIVES.items() if row.width == "free" and row.teacher]
        raise UserError(f"--method {part.name} needs equal widths under --hidden_projection none: the student's hidden_size is {mine}, the "
                        f"teacher's {other}; --hidden_projection auto learns a map, and these are free of width: {', '.join(free)}")
    mine, other = student["num_attention_heads"], teacher.config["num_attention_heads"]
    if entry.same_heads and mine != other:
        free = [name for name, row in OBJECTIVES.items() if not row.same_heads and row.teacher and row.layers]
        is_cut = resolved.args.distillation.student_initialize is True  # heads are kept whole, so their number follows the width
        works = f"--hidden_size {teacher.config['hidden_size']}" if is_cut else f"--num_attention_heads {other}"
        raise UserError(f"--method {part.name} needs equal head counts: the student has {mine} heads, the teacher {other}; "
                        f"{works} works, or an objective free of heads: {', '.join(free)}")


def _layers(resolved: Resolved, part: Part, student: dict[str, Any], teacher: ModelFolder | None) -> PartPlan:
    entry, flags = OBJECTIVES[part.name], resolved.args.distillation
    if entry.layers is None or teacher is None:
        return PartPlan()
    depths = teacher.config["num_hidden_layers"], student["num_hidden_layers"]
    if entry.layers == "all":
        student_layers, teacher_layers = choose_layers(flags.layer_selection, flags.student_layer_selection, *depths)
        return PartPlan(student_layers=student_layers, teacher_layers=teacher_layers)
    pairs = pair_layers(flags.layer_selection, flags.student_layer_selection, *depths, default=part.layers or entry.layers)
    return PartPlan(pairs, tuple(mine for mine, _ in pairs), tuple(other for _, other in pairs))


def _relation_heads(resolved: Resolved, student: dict[str, Any], teacher: ModelFolder | None) -> int:
    if teacher is None or not any("relation_heads" in OBJECTIVES[part.name].options for part in resolved.methods):
        return 1
    asked, widths = resolved.args.distillation.relation_heads, (student["hidden_size"], teacher.config["hidden_size"])
    fitting = [count for count in range(1, min(widths) + 1) if all(width % count == 0 for width in widths)]
    if asked is None:
        return max(count for count in fitting if count <= RELATION_HEADS)
    if asked not in fitting:
        raise UserError(f"--relation_heads {asked} does not divide both widths ({widths[0]} and {widths[1]}); these do: "
                        f"{', '.join(map(str, fitting))}")
    return asked


def _all_positions(resolved: Resolved, architecture: Architecture) -> bool:
    asked = resolved.args.distillation.logit_positions
    if asked == "masked" and architecture.causal:
        raise UserError("--logit_positions masked: nothing is masked for a causal student; leave the flag out")
    return architecture.causal if asked is None else asked == "all"
