"""Objectives in one table, known without importing torch: flags are checked against it and the README's table is made from it.

Adding an objective is a file, a row here and a test.
"""

import difflib
import importlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dataset.errors import UserError

# What can become of the probability that the K largest leave over, see `objectives.truncated`. The default is the one whose gradients were
# measured to be nearest to those of the whole distribution (docs/teacher_cache.md).
REST, RENORMALISED, UNNORMALISED = TRUNCATED_TARGETS = ("rest", "renormalised", "unnormalised")
DEFAULT_TRUNCATED_TARGET = REST


@dataclass(frozen=True)
class ObjectiveEntry:
    """One row. `target` is `module:Class`.

    `teacher` says whether a teacher is needed, `teacher_logits` and `student_logits` whether language-model heads are. `layers` is how
    encoder layers are chosen where nothing is said: `uniform` or `last` pairs, or `all` of both models side by side; None where none are.
    `width`: `equal` hidden sizes only, or a learned projection where they differ (`projected`), or `free`. `same_heads`: equal head counts.
    `listens_to`: what of a teacher's inside it learns from. `truncated`: which of TRUNCATED_TARGETS can take the place of all its logits.
    `compares_samples`: defined on the micro-batch. `labels`: learns from the text's own tokens. `causal`: for which kind of model.
    """

    target: str
    summary: str
    paper: str
    equation: str
    teacher: bool = True
    teacher_logits: bool = False
    student_logits: bool = False
    layers: Literal["uniform", "last", "all"] | None = None
    width: Literal["free", "projected"] = "free"
    same_heads: bool = False
    listens_to: Literal["hidden", "attention", "embeddings"] | None = None
    truncated: tuple[str, ...] = ()
    compares_samples: bool = False
    labels: bool = False
    causal: Literal["never", "only", "any"] = "any"
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """One objective of a run: its weight, and from which to before which share of the budget it is learnt from. `layers` overrides the
    row's default choice of layers."""

    name: str
    weight: float = 1.0
    since: float = 0.0
    until: float = math.inf
    layers: str | None = None

    def is_active(self, progress: float) -> bool:
        return self.since <= progress < self.until


@dataclass(frozen=True)
class Composite:
    """A name that stands for several objectives. `paper` says where the set is from."""

    parts: tuple[Part, ...]
    summary: str
    paper: str
    options: tuple[str, ...] = ()


# Written by `python -m benchmarks.objectives`: each objective's step time relative to hidden_mse.
COSTS_FILE = Path(__file__).with_name("costs.json")

_PAIRS = ("layer_selection", "student_layer_selection")
_LOGITS = ("temperature", "logit_positions")
_TRUNCATION = ("truncation_factor", "truncated_target")
_WANG = "Wang et al. 2023, arXiv 2305.15032"
_TINYBERT = "Jiao et al. 2020 (TinyBERT), arXiv 1909.10351"
_MINILM = "Wang et al. 2020 (MiniLM), arXiv 2002.10957"
_DISTILBERT = "Sanh et al. 2019 (DistilBERT), arXiv 1910.01108"

OBJECTIVES: dict[str, ObjectiveEntry] = {
    "hidden_mse": ObjectiveEntry(
        target="pretraining.objectives.hidden:HiddenMse",
        summary="mean squared difference of hidden states, over real tokens and width, summed over pairs of layers",
        paper=f"{_WANG}; {_TINYBERT}, eq. 8", equation="Σ_(s,t) 1/(N·D) Σ_i ‖h_s,i W − h_t,i‖²",
        layers="uniform", width="projected", options=(*_PAIRS, "hidden_projection"),
        listens_to="hidden",
    ),
    "hidden_cls": ObjectiveEntry(
        target="pretraining.objectives.hidden:HiddenCls",
        summary="mean squared difference of the first token's hidden states",
        paper=_WANG, equation="Σ_(s,t) 1/(B·D) Σ_b ‖h_s,b,0 W − h_t,b,0‖²",
        layers="uniform", width="projected", causal="never", options=(*_PAIRS, "hidden_projection"),
        listens_to="hidden",
    ),
    "hidden_mse_combine": ObjectiveEntry(
        target="pretraining.objectives.hidden:HiddenMseCombine",
        summary="all chosen student layers side by side against a learned projection of all chosen teacher layers",
        paper=_WANG, equation="1/(N·Σ_s D) Σ_i ‖[h_s,i]_s − W [h_t,i]_t‖²",
        layers="all", options=_PAIRS,
        listens_to="hidden",
    ),
    "embedding_mse": ObjectiveEntry(
        target="pretraining.objectives.hidden:EmbeddingMse",
        summary="mean squared difference of what enters the first layer",
        paper=f"{_TINYBERT}, eq. 9", equation="1/(N·D) Σ_i ‖e_s,i W − e_t,i‖²",
        width="projected", options=("hidden_projection",),
        listens_to="embeddings",
    ),
    "cosine": ObjectiveEntry(
        target="pretraining.objectives.hidden:Cosine",
        summary="one minus the cosine of hidden states, over real tokens",
        paper=_DISTILBERT, equation="Σ_(s,t) 1/N Σ_i 1 − cos(h_s,i W, h_t,i)",
        layers="last", width="projected", options=(*_PAIRS, "hidden_projection"),
        listens_to="hidden",
    ),
    "att_mse": ObjectiveEntry(
        target="pretraining.objectives.attention:AttMse",
        summary="mean squared difference of attention scores before the softmax",
        paper=f"{_TINYBERT}, eq. 7; {_WANG}", equation="Σ_(s,t) 1/(H·Σ_b n_b²) Σ ‖A_s − A_t‖²,  A = Q Kᵀ/√d",
        layers="uniform", same_heads=True, options=_PAIRS,
        listens_to="attention",
    ),
    "att_kl": ObjectiveEntry(
        target="pretraining.objectives.attention:AttKl",
        summary="Kullback-Leibler divergence of attention distributions",
        paper=f"{_MINILM}, eq. 3; {_WANG}", equation="Σ_(s,t) 1/(H·N) Σ_h,i KL(σ(A_t) ‖ σ(A_s))",
        layers="uniform", same_heads=True, options=_PAIRS,
        listens_to="attention",
    ),
    "val_kl": ObjectiveEntry(
        target="pretraining.objectives.attention:ValKl",
        summary="Kullback-Leibler divergence of value relations",
        paper=f"{_MINILM}, eq. 4 and 5", equation="Σ_(s,t) 1/(H·N) Σ_h,i KL(σ(V_t V_tᵀ/√d) ‖ σ(V_s V_sᵀ/√d))",
        layers="uniform", same_heads=True, options=_PAIRS,
        listens_to="attention",
    ),
    "minilm_v2": ObjectiveEntry(
        target="pretraining.objectives.relations:MiniLmV2",
        summary="Kullback-Leibler divergence of query, key and value relations, over relation heads free of either model's head count",
        paper="Wang et al. 2021 (MiniLMv2), arXiv 2012.15828, eq. 4 to 6",
        equation="Σ_(s,t) Σ_X∈{Q,K,V} 1/(A_r·N) Σ_a,i KL(σ(X_t X_tᵀ/√d_t) ‖ σ(X_s X_sᵀ/√d_s))",
        layers="last", options=(*_PAIRS, "relation_heads"),
        listens_to="attention",
    ),
    "pear_col": ObjectiveEntry(
        target="pretraining.objectives.pearson:PearCol",
        summary="one minus the mean Pearson correlation of attention distributions along rows, columns, heads and sentences",
        paper=_WANG, equation="Σ_(s,t) Σ_axis 1 − mean ρ(σ(A_s), σ(A_t))",
        layers="last", same_heads=True, compares_samples=True, options=_PAIRS,
        listens_to="attention",
    ),
    "cka": ObjectiveEntry(
        target="pretraining.objectives.similarity:Cka",
        summary="one minus the linear centred kernel alignment of hidden states, over the real tokens of a micro-batch",
        paper="Kornblith et al. 2019, arXiv 1905.00414, eq. 1; Dasgupta and Cohn 2025 (ICLR)",
        equation="Σ_(s,t) 1 − ‖H̃_tᵀ H̃_s‖²_F / (‖H̃_sᵀ H̃_s‖_F ‖H̃_tᵀ H̃_t‖_F)",
        layers="uniform", compares_samples=True, options=_PAIRS,
        listens_to="hidden",
    ),
    "gram": ObjectiveEntry(
        target="pretraining.objectives.similarity:Gram",
        summary="squared difference of normalised Gram matrices between the real tokens of a sequence",
        paper="arXiv 2509.25253 (2025); Tung and Mori 2019, arXiv 1907.09682, for normalised similarities",
        equation="Σ_(s,t) 1/B Σ_b ‖G_s/‖G_s‖_F − G_t/‖G_t‖_F‖²_F,  G = H_b H_bᵀ",
        layers="uniform", options=_PAIRS,
        listens_to="hidden",
    ),
    "crd": ObjectiveEntry(
        target="pretraining.objectives.contrastive:Crd",
        summary="InfoNCE between projected states of the first token; the other samples of the micro-batch are the negatives",
        paper="Oord et al. 2018, arXiv 1807.03748, eq. 4; Tian et al. 2020 (CRD), arXiv 1910.10699",
        equation="−1/B Σ_b log( exp(z_s,b·z_t,b/τ) / Σ_c exp(z_s,b·z_t,c/τ) ),  z = W [h_l,0]_l, normalised",
        layers="last", compares_samples=True, causal="never", options=(*_PAIRS, "contrastive_width", "contrastive_temperature"),
        listens_to="hidden",
    ),
    "logit": ObjectiveEntry(
        target="pretraining.objectives.logit:LogitKl",
        summary="Kullback-Leibler divergence from the teacher's distribution over the vocabulary",
        paper=f"Hinton et al. 2015, arXiv 1503.02531; {_DISTILBERT}", equation="T²/M Σ_i KL(p_i ‖ q_i),  p = σ(z_t/T), q = σ(z_s/T)",
        teacher_logits=True, student_logits=True, options=(*_LOGITS, *_TRUNCATION),
        truncated=TRUNCATED_TARGETS,
    ),
    "reverse_kl": ObjectiveEntry(
        target="pretraining.objectives.logit:ReverseKl",
        summary="Kullback-Leibler divergence the other way round: from the student's distribution",
        paper="Gu et al. 2024 (MiniLLM), arXiv 2306.08543, eq. 1", equation="T²/M Σ_i KL(q_i ‖ p_i)",
        teacher_logits=True, student_logits=True, options=(*_LOGITS, *_TRUNCATION),
        truncated=(REST,),
    ),
    "symmetric_kl": ObjectiveEntry(
        target="pretraining.objectives.logit:SymmetricKl",
        summary="half the sum of both Kullback-Leibler divergences",
        paper="Jeffreys 1946; Kullback and Leibler 1951", equation="T²/(2M) Σ_i KL(p_i ‖ q_i) + KL(q_i ‖ p_i)",
        teacher_logits=True, student_logits=True, options=(*_LOGITS, *_TRUNCATION),
        truncated=(REST,),
    ),
    "logit_mse": ObjectiveEntry(
        target="pretraining.objectives.logit:LogitMse",
        summary="squared difference of logits, summed over the vocabulary",
        paper=_DISTILBERT, equation="1/M Σ_i ‖z_s,i − z_t,i‖²",
        teacher_logits=True, student_logits=True, options=("logit_positions",),
    ),
    "soft_ce": ObjectiveEntry(
        target="pretraining.objectives.logit:SoftCrossEntropy",
        summary="cross-entropy with the teacher's probabilities, or with its K largest (--truncation_factor K)",
        paper=f"Hinton et al. 2015, arXiv 1503.02531; top-K as in the offline pipelines; {_DISTILBERT}",
        equation="−1/M Σ_i Σ_v p_i(v) log q_i(v)",
        teacher_logits=True, student_logits=True, options=(*_TRUNCATION, "logit_positions"),
        truncated=TRUNCATED_TARGETS,
    ),
    "mlm": ObjectiveEntry(
        target="pretraining.objectives.language:MaskedLm",
        summary="cross-entropy with the original token at masked positions; needs no teacher",
        paper="Devlin et al. 2019 (BERT), arXiv 1810.04805", equation="1/M Σ_i −log σ(z_s,i)[y_i]",
        teacher=False, student_logits=True, labels=True, causal="never",
    ),
    "clm": ObjectiveEntry(
        target="pretraining.objectives.language:CausalLm",
        summary="cross-entropy with the next token; needs no teacher",
        paper="Radford et al. 2019 (GPT-2)", equation="1/K Σ_i −log σ(z_s,i)[x_i+1]",
        teacher=False, student_logits=True, labels=True, causal="only",
    ),
    "nsp": ObjectiveEntry(
        target="pretraining.objectives.language:NextSentence",
        summary="cross-entropy with the label of next-sentence prediction; needs no teacher (--model_type bert-mlm-nsp)",
        paper="Devlin et al. 2019 (BERT), arXiv 1810.04805", equation="1/B Σ_b −log σ(s_b)[n_b]",
        teacher=False, labels=True, causal="never",
    ),
}

COMPOSITES: dict[str, Composite] = {
    "att_mse_hidden_mse": Composite((Part("att_mse"), Part("hidden_mse")), "att_mse + hidden_mse", _WANG, _PAIRS),
    "att_kl_hidden_mse": Composite((Part("att_kl"), Part("hidden_mse")), "att_kl + hidden_mse", _WANG, _PAIRS),
    "att_val_og": Composite(
        (Part("att_kl", layers="last"), Part("val_kl", layers="last")), "att_kl + val_kl of the last layer", _MINILM, _PAIRS),
    "att_val_two_stage": Composite(
        (Part("mlm"), Part("att_kl", layers="last"), Part("val_kl", layers="last")),
        "mlm up to --second_stage of the budget, then att_kl + val_kl of the last layer", _WANG, (*_PAIRS, "second_stage")),
    "tinybert": Composite(
        (Part("embedding_mse"), Part("hidden_mse"), Part("att_mse")), "embedding_mse + hidden_mse + att_mse", _TINYBERT,
        (*_PAIRS, "hidden_projection")),
    "distilbert": Composite(
        (Part("logit"), Part("mlm"), Part("clm"), Part("logit_mse"), Part("cosine")),
        "alpha_ce logit + alpha_mlm mlm + alpha_clm clm + alpha_mse logit_mse + alpha_cos cosine", _DISTILBERT,
        ("alpha_ce", "alpha_mlm", "alpha_clm", "alpha_mse", "alpha_cos", *_LOGITS, *_TRUNCATION)),
}

DEFAULT_ALPHAS = {"logit": 5.0, "mlm": 2.0, "clm": 0.0, "logit_mse": 0.0, "cosine": 1.0}


def parse_method(text: str, second_stage: float = 0.5, alphas: dict[str, float] | None = None) -> list[Part]:
    """`a` or `a:0.5,b:1.0` -> parts, composites resolved; UserError for unknown names, bad weights and repetitions.

    `second_stage`: the share of the budget at which a method of two stages changes over. `alphas`: weights of the parts of `distilbert`.
    """
    parts: dict[str, Part] = {}
    for word in text.split(","):
        name, separator, weight_text = word.strip().partition(":")
        if name not in OBJECTIVES and name not in COMPOSITES:
            close = difflib.get_close_matches(name, [*OBJECTIVES, *COMPOSITES], n=1)
            raise UserError(f"--method {text}: {name!r} is not an objective{f'; did you mean {close[0]}?' if close else ''}; available: "
                            f"{', '.join([*OBJECTIVES, *COMPOSITES])}")
        try:
            weight = float(weight_text) if separator else 1.0
        except ValueError:
            weight = math.nan
        if not (math.isfinite(weight) and weight > 0):
            raise UserError(f"--method {text}: the weight of {name} is {weight_text!r}; a positive number is needed")
        for part in _expand(name, second_stage, DEFAULT_ALPHAS if alphas is None else alphas):
            if part.name in parts:
                raise UserError(f"--method {text}: {part.name} is in it twice; name it once and add the weights up")
            parts[part.name] = replace(part, weight=weight * part.weight)
    return list(parts.values())


def _expand(name: str, second_stage: float, alphas: dict[str, float]) -> list[Part]:
    if name in OBJECTIVES:
        return [Part(name)]
    parts = list(COMPOSITES[name].parts)
    if name == "distilbert":
        return [replace(part, weight=alphas[part.name]) for part in parts if alphas[part.name] > 0]
    if name == "att_val_two_stage":
        return [replace(part, until=second_stage) if part.name == "mlm" else replace(part, since=second_stage) for part in parts]
    return parts


def objective_class(name: str) -> type:
    """The class behind a name; imports its module (and torch)."""
    module, _, attribute = OBJECTIVES[name].target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def markdown_table() -> str:
    """The README's tables of objectives and of composites; `python -m pretraining.objectives.catalog` prints them."""
    costs = json.loads(COSTS_FILE.read_text(encoding="utf-8"))["cost"] if COSTS_FILE.is_file() else {}
    lines = ["| `--method` | loss | equation | needs | cost | paper |", "|---|---|---|---|---|---|"]
    for name, entry in OBJECTIVES.items():
        cost = f"{costs[name]:.2f}" if name in costs else "-"
        lines.append(f"| `{name}` | {entry.summary} | {entry.equation} | {_needs(entry)} | {cost} | {entry.paper} |")
    lines += ["", "| `--method` | stands for | paper |", "|---|---|---|"]
    lines += [f"| `{name}` | {composite.summary} | {composite.paper} |" for name, composite in COMPOSITES.items()]
    return "\n".join(lines)


def _needs(entry: ObjectiveEntry) -> str:
    layers = {"uniform": "layers (default: evenly spaced)", "last": "layers (default: the last)", "all": "layers (default: all)"}
    words = [text for is_needed, text in (
        (entry.teacher, "teacher"), (entry.teacher_logits, "its language-model head"), (entry.layers is not None, layers.get(entry.layers)),
        (entry.same_heads, "equal head counts"), (entry.compares_samples, "is defined on the micro-batch"),
        (entry.causal == "only", "a causal student")) if is_needed]
    return ", ".join(words) or "the text"


if __name__ == "__main__":
    print(markdown_table())
