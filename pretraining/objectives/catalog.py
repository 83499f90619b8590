"""Objectives in one table, known without importing torch: flags are checked against it and the README's table is made from it.

Adding an objective is a file, a row here and a test.
"""

import importlib
import math
from dataclasses import dataclass

from dataset.errors import UserError


@dataclass(frozen=True)
class ObjectiveEntry:
    """One row. `target` is `module:Class`.

    `teacher` says whether a teacher is needed, `teacher_logits` and `student_logits` whether MLM heads are, `layers` whether
    pairs of encoder layers are compared, `same_width` whether both models must be equally wide.
    """

    target: str
    summary: str
    paper: str
    equation: str
    teacher: bool = True
    teacher_logits: bool = False
    student_logits: bool = False
    layers: bool = False
    same_width: bool = False
    options: tuple[str, ...] = ()


OBJECTIVES: dict[str, ObjectiveEntry] = {
    "hidden_mse": ObjectiveEntry(
        target="pretraining.objectives.hidden:HiddenMse",
        summary="mean squared difference of hidden states, over real tokens and width, summed over pairs of layers",
        paper="Wang et al. 2023, arXiv 2305.15032; Jiao et al. 2020 (TinyBERT), arXiv 1909.10351",
        equation="Σ_(s,t) 1/(N·D) Σ_i ‖h_s,i − h_t,i‖²",
        layers=True, same_width=True, options=("layer_selection", "student_layer_selection"),
    ),
    "logit": ObjectiveEntry(
        target="pretraining.objectives.logit:LogitKl",
        summary="Kullback-Leibler divergence from the teacher's distribution at masked positions",
        paper="Hinton et al. 2015, arXiv 1503.02531; Sanh et al. 2019 (DistilBERT), arXiv 1910.01108",
        equation="T²/M Σ_i KL(softmax(z_t,i/T) ‖ softmax(z_s,i/T))",
        teacher_logits=True, student_logits=True, options=("temperature",),
    ),
    "mlm": ObjectiveEntry(
        target="pretraining.objectives.mlm:MaskedLm",
        summary="cross-entropy with the original token at masked positions; needs no teacher",
        paper="Devlin et al. 2019 (BERT), arXiv 1810.04805",
        equation="1/M Σ_i −log softmax(z_s,i)[y_i]",
        teacher=False, student_logits=True,
    ),
}

# Names that the originals accept and that are not here yet.
PLANNED = (
    "hidden_cls", "hidden_mse_combine", "att_mse", "att_kl", "att_val_og", "minilm_v2", "pear_col", "att_mse_hidden_mse",
    "att_kl_hidden_mse", "att_val_two_stage",
)


def parse_method(text: str) -> list[tuple[str, float]]:
    """`a` or `a:0.5,b:1.0` -> [(name, weight), ...]; UserError for unknown names, bad weights and repetitions."""
    known = ", ".join(OBJECTIVES)
    terms: dict[str, float] = {}
    for part in text.split(","):
        name, separator, weight_text = part.strip().partition(":")
        if name in PLANNED:
            raise UserError(f"--method {name}: not available yet; available: {known}")
        if name not in OBJECTIVES:
            raise UserError(f"--method {text}: {name!r} is not an objective; available: {known}")
        if name in terms:
            raise UserError(f"--method {text}: {name} is named twice; add the weights up")
        try:
            weight = float(weight_text) if separator else 1.0
        except ValueError:
            weight = math.nan
        if not (math.isfinite(weight) and weight > 0):
            raise UserError(f"--method {text}: the weight of {name} is {weight_text!r}; a positive number is needed")
        terms[name] = weight
    return list(terms.items())


def objective_class(name: str) -> type:
    """The class behind a name; imports its module (and torch)."""
    module, _, attribute = OBJECTIVES[name].target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def markdown_table() -> str:
    """The README's table of objectives; `python -m pretraining.objectives.catalog` prints it."""
    lines = ["| `--method` | loss | equation | needs | paper |", "|---|---|---|---|---|"]
    for name, entry in OBJECTIVES.items():
        needs = [text for is_needed, text in (
            (entry.teacher, "teacher"), (entry.teacher_logits, "its MLM head"), (entry.layers, "pairs of layers"),
            (entry.same_width, "equal widths")) if is_needed]
        lines.append(f"| `{name}` | {entry.summary} | {entry.equation} | {', '.join(needs) or 'masked samples'} | {entry.paper} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown_table())
