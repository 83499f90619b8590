"""The teacher, what is learnt from it, and what the student starts from."""

from dataclasses import dataclass

from pretraining.args.flags import flag, parse_bool_or_path, parse_int
from pretraining.objectives.catalog import DEFAULT_TRUNCATED_TARGET, TRUNCATED_TARGETS


@dataclass
class DistillationFlags:
    distillation: bool = flag(False, "learn from a teacher; without it the student is pre-trained with --method mlm")
    teacher_path: str = flag(None, "Hugging Face folder of the teacher", str)
    teacher_cache: str = flag(
        None, "folder of outputs that extract_teacher_outputs.py stored for the shards: no teacher is run", str, metavar="DIR")
    method: str = flag(None, "objective, or a weighted sum such as hidden_mse:1.0,mlm:0.5", str)
    layer_selection: str = flag(
        None, "0-based teacher layers such as 1,3,5, or last, uniform, first; one entry pairs with the student's last layer; default: as "
        "the objective's paper does", str,
    )
    student_layer_selection: str = flag(
        None, "0-based student layers paired with --layer_selection, or last, uniform, first; default: the last for one entry, else all "
        "in order", str,
    )
    hidden_projection: str = flag(
        "auto", "where widths differ, hidden states are compared through a learned linear map (auto), or refused (none)",
        choices=("auto", "none"),
    )
    temperature: float = flag(1.0, "softmax temperature of the objectives that compare logits by their divergence")
    logit_positions: str = flag(
        None, "where logits are compared: at masked positions or at all real tokens; default: masked, all for a causal student", str,
        choices=("masked", "all"),
    )
    truncation_factor: int = flag(
        None, "how many of the teacher's largest probabilities count at a position (soft_ce, logit, reverse_kl, symmetric_kl); default: "
        "all, or as many as --teacher_cache holds", parse_int)
    truncated_target: str = flag(
        None, "what becomes of the probability that those leave over: one more class (rest), nothing (unnormalised, as pipelines with "
        f"stored teachers have it), or shared out among them (renormalised); default: {DEFAULT_TRUNCATED_TARGET}", str,
        choices=TRUNCATED_TARGETS)
    relation_heads: int = flag(
        None, "minilm_v2: relation heads; default: 48, or the largest number below it that divides both widths", parse_int)
    contrastive_width: int = flag(128, "crd: width of the projected states")
    contrastive_temperature: float = flag(0.07, "crd: softmax temperature")
    second_stage: float = flag(0.5, "att_val_two_stage: share of the budget at which relations take over from mlm")
    alpha_ce: float = flag(None, "--method distilbert: weight of logit; default 5", float)
    alpha_mlm: float = flag(None, "--method distilbert: weight of mlm; default 2", float)
    alpha_clm: float = flag(None, "--method distilbert: weight of clm; default 0", float)
    alpha_mse: float = flag(None, "--method distilbert: weight of logit_mse; default 0", float)
    alpha_cos: float = flag(None, "--method distilbert: weight of cosine; default 1", float)
    student_initialize: bool | str = flag(
        False, "bare: copy the teacher's embeddings, layers and MLM head; a path: load that folder; absent: random",
        parse_bool_or_path, bare=True,
    )
    student_layers: str = flag(
        None, "teacher layers that a bare --student_initialize copies: 0-based such as 0,2,4, or uniform (evenly spaced, ending at the "
        "last), first, last, distilbert; default: uniform", str,
    )
    freeze_pos_embs: bool = flag(False, "the student's position embeddings keep their first values")
    freeze_token_type_embds: bool = flag(False, "the student's token-type (segment) embeddings keep their first values")
    aug: bool = flag(False, "put random tokens in place of most tokens of every second training sequence, for teacher and student alike")
    fearture_learn: str = flag(
        None, "accepted and ignored by the originals", str, no_effect="--method says what is learnt",
    )
