"""The student's architecture.

Shape flags without a value follow the teacher or the folder that the student is taken from; a student from scratch takes the
originals' defaults, given in the help.
"""

from dataclasses import dataclass

from pretraining.args.flags import flag, parse_bool, parse_int
from pretraining.models.catalog import MODEL_TYPES

# What the originals use when nothing is said, for a student from scratch.
SCRATCH_DEFAULTS = {
    "vocab_size": 30522,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
}


@dataclass
class ModelFlags:
    model_type: str = flag(
        None, "the student's architecture; default: that of the student's folder, else the teacher's, else bert-mlm", str,
        choices=MODEL_TYPES,
    )
    tokenizer_name: str = flag(
        None, "name, folder or vocab.txt of the tokenizer saved with every export; default: the teacher's or student's", str,
    )
    vocab_size: int = flag(None, "default: the teacher's; 30522 from scratch", parse_int)
    hidden_size: int = flag(
        None, "default: the teacher's; 1024 from scratch; narrower with a bare --student_initialize: the most important dimensions, heads "
        "and neurons of the teacher are kept", parse_int,
    )
    num_hidden_layers: int = flag(None, "default: as many as --student_layers names; 24 from scratch", parse_int)
    num_attention_heads: int = flag(
        None, "default: the teacher's, or as many of its heads as fit into a narrower --hidden_size; 16 from scratch", parse_int)
    intermediate_size: int = flag(None, "default: the teacher's; 4096 from scratch", parse_int)
    hidden_act: str = flag(None, "gelu, relu, swish or tanh; default: the teacher's", str,
                           choices=("gelu", "relu", "swish", "tanh"))
    hidden_dropout_prob: float = flag(None, "the student's; default: as the teacher's config.json says", float)
    attention_probs_dropout_prob: float = flag(None, "the student's; default: as the teacher's config.json says", float)
    max_position_embeddings: int = flag(None, "default: the teacher's; 512 from scratch", parse_int)
    type_vocab_size: int = flag(None, "default: the teacher's; 2 from scratch", parse_int)
    initializer_range: float = flag(None, "default: the teacher's; 0.02 from scratch", float)
    sinusoidal_pos_embds: bool = flag(
        False, "a DistilBERT from scratch has fixed sine and cosine position embeddings, as its original configurations say; default: "
        "random ones that are learnt")
    add_nsp: bool = flag(False, "next-sentence prediction too: --model_type bert-mlm-nsp, and nsp added to --method")
    encoder_ln_mode: str = flag(
        None, "where the encoder normalises; default: as the architecture does, but a BERT or RoBERTa from scratch is pre-ln; pre-ln turns "
        "these two into roberta-prelayernorm-mlm", str, choices=("pre-ln", "post-ln"),
    )
    layernorm_embedding: bool = flag(
        None, "LayerNorm after the embeddings; default: as the architecture has it; a post-LN BERT or RoBERTa from scratch needs it said",
        parse_bool,
    )
    layer_norm_type: str = flag("apex", "implementation of LayerNorm", choices=("pytorch", "apex", "rms_norm"))
    fused_linear_layer: bool = flag(
        True, "the originals' layer that joins a matrix product and its activation",
        no_effect="it changed parameter names, not numbers; transformers' layers are used",
    )
    sparse_mask_prediction: bool = flag(
        True, "evaluate the MLM head at masked positions only",
        no_effect="the head is always evaluated at masked positions only; the loss is the same",
    )
    hugging_face: bool = flag(
        False, "weights are in Hugging Face's layout", no_effect="every model folder is read in Hugging Face's layout",
    )
    model_name_or_path: str = flag(
        None, "accepted and ignored by the originals", str, no_effect="use --teacher_path and --student_initialize",
    )
    config_name: str = flag(
        None, "accepted and ignored by the originals", str, no_effect="the shape flags or the teacher give the configuration",
    )
    cache_dir: str = flag(
        None, "accepted and ignored by the originals", str, no_effect="Hugging Face's HF_HOME says where downloads go",
    )
    pretrain_run_args: str = flag(
        None, "the originals' JSON of model_type and tokenizer_name", str, no_effect="use --model_type and --tokenizer_name",
    )
