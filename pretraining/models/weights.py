"""What every weight of every family is made of: which of its axes are the width, whole heads, neurons, or none of these.

Names are those of the family's head class. Imports no torch: flags are checked against these tables.
"""

import re
from typing import NamedTuple

from pretraining.models.catalog import Architecture


class Axis(NamedTuple):
    """`kind` is width (the residual stream), heads, neurons, embedding (ELECTRA's own width) or fixed.

    parts: how many of them lie one after the other, such as query, key and value in one matrix.
    """

    kind: str
    parts: int = 1


WIDTH, HEADS, NEURONS, EMBEDDING, FIXED = (Axis(kind) for kind in ("width", "heads", "neurons", "embedding", "fixed"))
QKV, GATED = Axis("heads", 3), Axis("neurons", 2)

# Module -> the axes of its weight; the first pattern that matches counts. A bias has the axis of what comes out.
_BERT_LAYERS = {
    r".*LayerNorm": (WIDTH,),
    r".*\.attention\.self\.(query|key|value)": (HEADS, WIDTH),
    r".*\.attention\.output\.dense": (WIDTH, HEADS),
    r".*\.intermediate\.dense": (NEURONS, WIDTH),
    r".*\.layer\.\d+\.output\.dense": (WIDTH, NEURONS),
}
_BERT_LIKE = {r".*\.embeddings\.\w+_embeddings": (FIXED, WIDTH), **_BERT_LAYERS, r".*\.pooler\.dense": (WIDTH, WIDTH)}
_ROBERTA = {**_BERT_LIKE, r"lm_head\.dense": (WIDTH, WIDTH), r"lm_head\.layer_norm": (WIDTH,), r"lm_head\.decoder": (FIXED, WIDTH),
            r"lm_head": (FIXED,)}

NARROWABLE: dict[str, dict[str, tuple[Axis, ...]]] = {
    "bert": {
        **_BERT_LIKE, r"cls\.predictions\.transform\.dense": (WIDTH, WIDTH), r"cls\.predictions": (FIXED,),
        r"cls\.(predictions\.decoder|seq_relationship)": (FIXED, WIDTH),
    },
    "roberta": _ROBERTA,
    "roberta-prelayernorm": _ROBERTA,
    "distilbert": {
        r".*\.embeddings\.\w+_embeddings": (FIXED, WIDTH), r".*(LayerNorm|layer_norm)": (WIDTH,),
        r".*\.attention\.[qkv]_lin": (HEADS, WIDTH), r".*\.attention\.out_lin": (WIDTH, HEADS),
        r".*\.ffn\.lin1": (NEURONS, WIDTH), r".*\.ffn\.lin2": (WIDTH, NEURONS),
        r"vocab_transform": (WIDTH, WIDTH), r"vocab_projector": (FIXED, WIDTH),
    },
    "electra": {
        r".*\.embeddings\.\w+_embeddings": (FIXED, EMBEDDING), r".*\.embeddings\.LayerNorm": (EMBEDDING,),
        r"electra\.embeddings_project": (WIDTH, EMBEDDING), r"generator_predictions\.LayerNorm": (EMBEDDING,),
        r"generator_predictions\.dense": (EMBEDDING, WIDTH), r"generator_lm_head": (FIXED, EMBEDDING), **_BERT_LAYERS,
    },
    "modernbert": {
        r".*\.tok_embeddings": (FIXED, WIDTH), r".*norm": (WIDTH,), r".*\.attn\.Wqkv": (QKV, WIDTH), r".*\.attn\.Wo": (WIDTH, HEADS),
        r".*\.mlp\.Wi": (GATED, WIDTH), r".*\.mlp\.Wo": (WIDTH, NEURONS), r"head\.dense": (WIDTH, WIDTH), r"decoder": (FIXED, WIDTH),
    },
    "gpt2": {
        r".*\.w[tp]e": (FIXED, WIDTH), r".*\.ln_\w": (WIDTH,), r".*\.attn\.c_attn": (WIDTH, QKV), r".*\.attn\.c_proj": (HEADS, WIDTH),
        r".*\.mlp\.c_fc": (WIDTH, NEURONS), r".*\.mlp\.c_proj": (NEURONS, WIDTH), r"lm_head": (FIXED, WIDTH),
    },
}
_INPUTS_FIRST = ("gpt2",)  # whose matrices are (in, out)

# (family of the teacher, family of the student) -> how weights are called there. What is not named has no counterpart.
CROSSINGS: dict[tuple[str, str], dict[str, str]] = {
    ("bert", "distilbert"): {
        r"bert\.embeddings\.(word_embeddings|position_embeddings|LayerNorm)": r"distilbert.embeddings.\1",
        r"bert\.encoder\.(layer\.\d+\.attention)\.self\.query": r"distilbert.transformer.\1.q_lin",
        r"bert\.encoder\.(layer\.\d+\.attention)\.self\.key": r"distilbert.transformer.\1.k_lin",
        r"bert\.encoder\.(layer\.\d+\.attention)\.self\.value": r"distilbert.transformer.\1.v_lin",
        r"bert\.encoder\.(layer\.\d+\.attention)\.output\.dense": r"distilbert.transformer.\1.out_lin",
        r"bert\.encoder\.(layer\.\d+)\.attention\.output\.LayerNorm": r"distilbert.transformer.\1.sa_layer_norm",
        r"bert\.encoder\.(layer\.\d+)\.intermediate\.dense": r"distilbert.transformer.\1.ffn.lin1",
        r"bert\.encoder\.(layer\.\d+)\.output\.dense": r"distilbert.transformer.\1.ffn.lin2",
        r"bert\.encoder\.(layer\.\d+)\.output\.LayerNorm": r"distilbert.transformer.\1.output_layer_norm",
        r"cls\.predictions\.transform\.dense": "vocab_transform",
        r"cls\.predictions\.transform\.LayerNorm": "vocab_layer_norm",
        r"cls\.predictions\.decoder": "vocab_projector",
    },
}


def axes_of(family: str, name: str) -> tuple[Axis, ...]:
    """The axes of the weight `name`; KeyError for a family or a weight that no table knows."""
    module, _, kind = name.rpartition(".")
    axes = next((axes for pattern, axes in NARROWABLE[family].items() if re.fullmatch(pattern, module)), None)
    if axes is None:
        raise KeyError(f"{family} has no weight {name}")
    if kind == "weight":
        return axes
    return axes[-1:] if family in _INPUTS_FIRST else axes[:1]


def counterpart(names: dict[str, str], name: str) -> str | None:
    """What the weight `name` is called across a crossing; None where it has no counterpart."""
    module, _, kind = name.rpartition(".")
    for pattern, replacement in names.items():
        found = re.fullmatch(pattern, module)
        if found:
            return f"{found.expand(replacement)}.{kind}"
    return None


def layer_of(architecture: Architecture, name: str) -> tuple[int, str] | None:
    """(layer, rest of the name) of a weight of the head class; None for one outside the layers."""
    prefix = layer_prefix(architecture)
    if not name.startswith(prefix):
        return None
    index, _, rest = name.removeprefix(prefix).partition(".")
    return int(index), rest


def layer_prefix(architecture: Architecture) -> str:
    return f"{architecture.base}.{architecture.layers}."
