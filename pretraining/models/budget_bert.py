"""The checkpoint layout of academic-budget-bert and ours: the same numbers under other names.

Their encoder has two norms a layer under one pair of names, whether it normalises before or after; a dense layer and its activation
are one module, fused (`dense_act`) or separate (`dense_act.dense`); and there is a FinalLayerNorm, which only their pre-LN encoder runs.
Post-LN with normalised embeddings is BERT as it stands. Pre-LN with normalised embeddings is RoBERTa-PreLayerNorm, whose positions are
counted from one above the padding id: its table has that many rows more, which no real token reaches.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch

from dataset.errors import UserError

Weights = dict[str, torch.Tensor]

# What their config.json says beyond BERT's, and what it means where it is silent.
THEIR_SETTINGS: dict[str, Any] = {
    "hugging_face": False, "layernorm_embedding": True, "layer_norm_type": "pytorch", "encoder_ln_mode": "post-ln",
    "fused_linear_layer": True, "useLN": True, "sparse_mask_prediction": True,
}
KEPT = "academic_budget_bert"  # the key of our config.json that holds theirs, so that the way back gives the same file
PRE_LN_FAMILY = "roberta-prelayernorm"
_EPSILON = 1e-12  # written into their code
_OURS_ALONE = ("architectures", "layer_norm_eps", "tie_word_embeddings")  # what their code does not read
_ACTIVATIONS = ("gelu", "relu", "swish", "silu", "tanh")

_WORDS, _POSITIONS = "bert.embeddings.word_embeddings.weight", "bert.embeddings.position_embeddings.weight"
_DECODER, _DECODER_BIAS, _BIAS = "cls.predictions.decoder.weight", "cls.predictions.decoder.bias", "cls.predictions.bias"
_FINAL = "bert.encoder.FinalLayerNorm"

# Module names: theirs (linear layers as BERT's `dense`) -> those of BERT, and those of RoBERTa-PreLayerNorm.
_POST_LN = {
    r"(bert\.encoder\.layer\.\d+)\.PreAttentionLayerNorm": r"\1.attention.output.LayerNorm",
    r"(bert\.encoder\.layer\.\d+)\.PostAttentionLayerNorm": r"\1.output.LayerNorm",
    r"(bert\..*|cls\..*)": r"\1",
}
_PRE_LN = {
    r"bert(\.encoder\.layer\.\d+)\.PreAttentionLayerNorm": r"roberta_prelayernorm\1.attention.LayerNorm",
    r"bert(\.encoder\.layer\.\d+)\.PostAttentionLayerNorm": r"roberta_prelayernorm\1.intermediate.LayerNorm",
    r"bert\.encoder\.FinalLayerNorm": "roberta_prelayernorm.LayerNorm",
    r"cls\.predictions\.transform\.dense": "lm_head.dense",
    r"cls\.predictions\.transform\.LayerNorm": "lm_head.layer_norm",
    r"cls\.predictions(\.decoder)?": r"lm_head\1",
    r"bert(\..*)": r"roberta_prelayernorm\1",
}
# The way back.
_FROM_BERT = {
    r"(bert\.encoder\.layer\.\d+)\.attention\.output\.LayerNorm": r"\1.PreAttentionLayerNorm",
    r"(bert\.encoder\.layer\.\d+)\.output\.LayerNorm": r"\1.PostAttentionLayerNorm",
    r"(bert\..*|cls\..*)": r"\1",
}
_FROM_PRE_LN = {
    r"roberta_prelayernorm(\.encoder\.layer\.\d+)\.attention\.LayerNorm": r"bert\1.PreAttentionLayerNorm",
    r"roberta_prelayernorm(\.encoder\.layer\.\d+)\.intermediate\.LayerNorm": r"bert\1.PostAttentionLayerNorm",
    r"roberta_prelayernorm\.LayerNorm": "bert.encoder.FinalLayerNorm",
    r"lm_head\.dense": "cls.predictions.transform.dense",
    r"lm_head\.layer_norm": "cls.predictions.transform.LayerNorm",
    r"lm_head(\.decoder)?": r"cls.predictions\1",
    r"roberta_prelayernorm(\..*)": r"bert\1",
}
_FUSABLE = r".*(\.intermediate|\.pooler|\.transform)\.dense"  # the linear layers that an activation follows


def is_theirs(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is one of academic-budget-bert."""
    return any(name in config for name in ("encoder_ln_mode", "fused_linear_layer", "useLN", "sparse_mask_prediction"))


def to_ours(config: Mapping[str, Any], weights: Mapping[str, torch.Tensor], source: str) -> tuple[dict[str, Any], Weights]:
    """(config.json, weights by the names of `transformers`) of a folder of theirs; UserError where no class computes the same."""
    theirs = {name: config.get(name, default) for name, default in THEIR_SETTINGS.items()}
    is_pre_ln = theirs["encoder_ln_mode"] == "pre-ln"
    _check_exact(config, theirs, weights, source)
    plain = {re.sub(r"\.dense_act(\.dense)?(?=\.)", ".dense", name): tensor for name, tensor in weights.items()}
    if _WORDS in plain and _DECODER in plain and torch.equal(plain[_WORDS], plain[_DECODER]):
        del plain[_DECODER]
    if _BIAS in plain and _DECODER_BIAS in plain and torch.equal(plain[_BIAS], plain[_DECODER_BIAS]):
        del plain[_DECODER_BIAS]
    ours = {name: value for name, value in config.items() if name not in THEIR_SETTINGS}
    kept = {name: config[name] for name in (*THEIR_SETTINGS, *_OURS_ALONE) if name in config}
    ours.update({KEPT: kept, "layer_norm_eps": _EPSILON, "tie_word_embeddings": _DECODER not in plain})
    if not is_pre_ln:
        kept_weights = {name: tensor for name, tensor in plain.items() if not name.startswith(_FINAL)}
        head = "BertForPreTraining" if "cls.seq_relationship.weight" in plain else "BertForMaskedLM"
        ours.update(model_type="bert", architectures=[head if _BIAS in plain else "BertModel"])
        return ours, _renamed(kept_weights, _POST_LN)
    offset = config.get("pad_token_id", 0) + 1
    table = plain[_POSITIONS]
    plain[_POSITIONS] = torch.cat([table.new_zeros(offset, table.shape[1]), table])
    head = "RobertaPreLayerNormForMaskedLM" if _BIAS in plain else "RobertaPreLayerNormModel"
    ours.update(model_type=PRE_LN_FAMILY, architectures=[head], pad_token_id=offset - 1, max_position_embeddings=len(table) + offset)
    return ours, _renamed(plain, _PRE_LN)


def bias_note(config: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> str | None:
    """What to say where a model of theirs has a bias of the head that their head, evaluated at masked positions only, never adds."""
    if config.get("sparse_mask_prediction", True) and _BIAS in weights and bool(weights[_BIAS].any()):
        return (f"{_BIAS} is not zero: academic-budget-bert with sparse_mask_prediction never added it to its logits, and BERT does; "
                "hidden states are the same")
    return None


def _check_exact(config: Mapping[str, Any], theirs: Mapping[str, Any], weights: Mapping[str, torch.Tensor], source: str) -> None:
    """UserError, in one line, for a model that no class of `transformers` computes exactly."""
    reason = None
    if not theirs["useLN"]:
        reason = "useLN is false, and every class of transformers normalises"
    elif theirs["layer_norm_type"] not in ("pytorch", "apex"):
        reason = f"layer_norm_type is {theirs['layer_norm_type']}, and these classes have LayerNorm; pytorch and apex convert"
    elif not theirs["layernorm_embedding"]:
        reason = "layernorm_embedding is false, and these classes normalise their embeddings"
    elif theirs["encoder_ln_mode"] == "pre-ln" and config.get("hidden_act", "gelu") != "gelu":
        reason = f"hidden_act is {config['hidden_act']}, and the head of RoBERTa-PreLayerNorm has gelu; post-ln converts with any"
    elif theirs["encoder_ln_mode"] == "pre-ln" and "cls.seq_relationship.weight" in weights:
        reason = "it is pre-ln with a next-sentence head, which RoBERTa-PreLayerNorm has not; post-ln converts"
    elif _POSITIONS not in weights:
        reason = f"its weights lack {_POSITIONS}; the folder of a whole model converts"
    if reason is not None:
        raise UserError(f"{source}: cannot be converted exactly: {reason}")


def to_theirs(
    config: Mapping[str, Any], weights: Mapping[str, torch.Tensor], is_fused: bool | None, source: str,
) -> tuple[dict[str, Any], Weights]:
    """(config.json, weights) of theirs for a BERT or a RoBERTa-PreLayerNorm of ours; the inverse of `to_ours`.

    is_fused: which of their linear layers; None is what the model had before it came to us, else fused, their default.
    """
    family = config.get("model_type")
    if family not in ("bert", PRE_LN_FAMILY):
        raise UserError(f"{source}: config.json says model_type {family!r}; academic-budget-bert has bert and {PRE_LN_FAMILY}")
    if config.get("layer_norm_eps", _EPSILON) != _EPSILON:
        raise UserError(f"{source}: layer_norm_eps is {config['layer_norm_eps']}, theirs is always {_EPSILON}; another model is needed")
    if config.get("hidden_act", "gelu") not in _ACTIVATIONS:
        raise UserError(f"{source}: hidden_act is {config['hidden_act']}, theirs is one of {', '.join(_ACTIVATIONS)}")
    is_pre_ln = family == PRE_LN_FAMILY
    prefix = "roberta_prelayernorm." if is_pre_ln else "bert."
    heads = ("lm_head.", "cls.")
    whole = {name if name.startswith((prefix, *heads)) else prefix + name: tensor for name, tensor in weights.items()
             if not name.endswith("position_ids")}
    plain = _renamed(whole, _FROM_PRE_LN if is_pre_ln else _FROM_BERT)
    if _POSITIONS not in plain:
        raise UserError(f"{source}: its weights lack {_POSITIONS}; the folder of a whole model converts")
    kept = dict(config.get(KEPT, {}))
    settings = {**THEIR_SETTINGS, **{name: kept.pop(name) for name in THEIR_SETTINGS if name in kept},
                "encoder_ln_mode": "pre-ln" if is_pre_ln else "post-ln", "hugging_face": False}
    if is_fused is not None:
        settings["fused_linear_layer"] = is_fused
    theirs = {**{name: value for name, value in config.items() if name not in (KEPT, *_OURS_ALONE)}, "model_type": "bert", **settings}
    if is_pre_ln:
        offset = config.get("pad_token_id", 1) + 1
        plain[_POSITIONS] = plain[_POSITIONS][offset:].clone()
        theirs["max_position_embeddings"] = len(plain[_POSITIONS])
    elif f"{_FINAL}.weight" not in plain:
        # Their class has it in post-LN too and never runs it.
        width = plain[_WORDS].shape[1]
        plain[f"{_FINAL}.weight"] = plain[_WORDS].new_ones(width)
        plain[f"{_FINAL}.bias"] = plain[_WORDS].new_zeros(width)
    if _BIAS in plain:
        plain.setdefault(_DECODER, plain[_WORDS])
        if settings["sparse_mask_prediction"]:
            plain.pop(_DECODER_BIAS, None)
        else:
            plain.setdefault(_DECODER_BIAS, plain[_BIAS])
    theirs.update(kept)
    dense = ".dense_act" if settings["fused_linear_layer"] else ".dense_act.dense"
    return theirs, {_with_dense(name, dense): tensor for name, tensor in plain.items()}


def _with_dense(name: str, dense: str) -> str:
    module, _, kind = name.rpartition(".")
    return f"{module.removesuffix('.dense')}{dense}.{kind}" if re.fullmatch(_FUSABLE, module) else name


def _renamed(weights: Mapping[str, torch.Tensor], names: Mapping[str, str]) -> Weights:
    renamed = {}
    for name, tensor in weights.items():
        module, _, kind = name.rpartition(".")
        found = next((match.expand(new) for old, new in names.items() if (match := re.fullmatch(old, module))), None)
        if found is None:
            raise UserError(f"a weight {name} belongs to no BERT; the folder of a whole model converts")
        renamed[f"{found}.{kind}"] = tensor
    return renamed
