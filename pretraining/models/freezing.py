"""Embeddings that keep their first values on request: no gradient, no weight decay, no place in the optimizer.

DistilBERT's recipe asks for frozen positions, which its scripts did not do for a DistilBERT student. Fixed sine and cosine positions
are frozen without being asked.
"""

from pretraining.args.distillation import DistillationFlags
from pretraining.models.encoder import Encoder
from pretraining.student_plan import StudentPlan


def freeze_embeddings(flags: DistillationFlags, plan: StudentPlan, student: Encoder) -> tuple[list[str], list[str]]:
    """Freeze what the flags and the student's configuration say: (names of parameters in the student's model, lines for the user)."""
    row, are_fixed = plan.architecture, plan.config.get("sinusoidal_pos_embds", False)
    wanted = {row.segments: "--freeze_token_type_embds"} if flags.freeze_token_type_embds else {}
    if flags.freeze_pos_embs or are_fixed:
        wanted[row.positions] = "sine and cosine positions" if are_fixed else "--freeze_pos_embs"
    names = {module: path for path, module in student.model.named_modules()}
    frozen, notes = [], []
    for path, why in wanted.items():
        if path is not None:
            embeddings = student.base.get_submodule(path)
            embeddings.requires_grad_(False)
            frozen.append(f"{names[embeddings]}.weight")
            notes.append(f"{why}: {frozen[-1]} ({embeddings.weight.numel()} numbers) keeps its first values")
    return frozen, notes
