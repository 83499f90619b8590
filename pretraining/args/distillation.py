"""The teacher, what is learnt from it, and what the student starts from."""

from dataclasses import dataclass

from pretraining.args.flags import flag, parse_bool_or_path


@dataclass
class DistillationFlags:
    distillation: bool = flag(False, "learn from a teacher; without it the student is pre-trained with --method mlm")
    teacher_path: str = flag(None, "Hugging Face folder of the teacher", str)
    method: str = flag(None, "objective, or a weighted sum such as hidden_mse:1.0,mlm:0.5", str)
    temperature: float = flag(1.0, "softmax temperature of --method logit")
    layer_selection: str = flag(
        None, "0-based teacher layers, such as 1,3,5; one entry pairs with the student's last layer; default: evenly spaced",
        str,
    )
    student_layer_selection: str = flag(
        None, "0-based student layers paired with --layer_selection; default: the last for one entry, else all in order", str,
    )
    student_initialize: bool | str = flag(
        False, "bare: copy the teacher's embeddings, layers and MLM head; a path: load that folder; absent: random",
        parse_bool_or_path, bare=True,
    )
    student_layers: str = flag(
        None, "0-based teacher layers that a bare --student_initialize copies; default: evenly spaced, ending at the last", str,
    )
    aug: bool = flag(False, "random tokens in half of the batches", not_yet="random token augmentation")
    fearture_learn: str = flag(
        None, "accepted and ignored by the originals", str, no_effect="--method says what is learnt",
    )
