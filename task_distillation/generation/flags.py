"""The flags of `generate`, their checks, and the two groups of settings that decide what comes out. Imports no torch."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from dataset.errors import OneLineParser, UserError
from dataset.flags import LARGEST_SEED, parse
from evaluation.fine_tuning.settings import boolean
from pretraining.args.flags import parse_int
from task_distillation.task_flags import add_task_flags

FINE_TUNE, SAMPLE = "finetune", "sample"
PRECISIONS = ("auto", "fp32", "bf16")
RANGES = {
    "num_samples": (1, None), "num_train_epochs": (1, None), "train_batch_size": (1, None), "warmup_proportion": (0, 1),
    "weight_decay": (0, 1e6), "max_length": (2, None), "max_new_tokens": (1, None), "sample_batch_size": (1, None), "top_k": (0, None),
}
MOST = 1e6
METAVARS = {float: "X", parse_int: "N"}
TRAINING_FLAGS = ("learning_rate", "train_batch_size", "num_train_epochs", "warmup_proportion", "weight_decay", "split_encode")
SAMPLING_FLAGS = ("num_samples", "temperature", "top_k", "top_p", "max_new_tokens", "sample_batch_size", "keep_originals")


@dataclass(frozen=True)
class TrainingSettings:
    """What decides the language model, besides the model it starts from and the texts. `max_length`: tokens kept of a row."""

    learning_rate: float = 5e-5
    train_batch_size: int = 48
    num_train_epochs: int = 3
    warmup_proportion: float = 0.1
    weight_decay: float = 1e-3
    max_length: int = 128
    split_encode: bool = False
    seed: int = 0


@dataclass(frozen=True)
class SamplingSettings:
    """What decides the texts, besides the language model and its prefixes. `sample_batch_size`: texts of one chunk."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 128
    sample_batch_size: int = 256
    seed: int = 0


def make_parser() -> OneLineParser:
    """The parser of `generate`."""
    train, sample = TrainingSettings(), SamplingSettings()
    parser = OneLineParser(
        prog="run_task_distillation.py generate", allow_abbrev=False,
        description="A transfer set from a causal language model: fine-tune it on the task's training texts, then draw texts from it.")
    add = parser.add_argument
    add("--output_dir", type=Path, required=True, metavar="DIR", help="gets transfer_set.tsv, generation.json, the language model and what "
        "a killed run goes on from")
    add("--only", choices=(FINE_TUNE, SAMPLE),
        help=f"{FINE_TUNE}: stop before the sampling; {SAMPLE}: draw from the model of --lm_path as it is (default: both)")
    add("--devices", default="auto", metavar="NAMES", help="such as cuda:0,cuda:1 or cpu,cpu: one process each draws texts, the first one "
        "trains; auto: every GPU, else one process for each core")
    add("--precision", default="auto", choices=PRECISIONS, help="auto: bf16 where the hardware has it, else fp32")
    add("--seed", type=parse_int, default=train.seed, metavar="N", help="of the training and of the draws (default 0)")
    add_task_flags(parser)
    model = parser.add_argument_group("the language model: a folder, or a configuration to train from scratch")
    model.add_argument("--lm_path", type=Path, metavar="FOLDER", help="a causal language model of transformers with its tokenizer")
    model.add_argument("--lm_config", type=Path, metavar="JSON",
                       help='train one from scratch, such as {"model_type": "gpt2", "n_layer": 4, "n_embd": 256, "n_head": 4}')
    model.add_argument("--lm_tokenizer", type=Path, metavar="FOLDER", help="tokenizer for --lm_config; default: a byte-level BPE that is "
                       "trained on the task's texts, of the vocab_size that the JSON names, else of 8000 tokens")
    tuning = parser.add_argument_group("fine-tuning")
    for name, kind, text in (
        ("learning_rate", float, "peak of AdamW's, which rises for the warm-up and then falls to 0"),
        ("train_batch_size", parse_int, "rows of one update"),
        ("num_train_epochs", parse_int, "passes over the texts; that of the lowest dev perplexity is kept"),
        ("warmup_proportion", float, "share of the updates with rising learning rate"),
        ("weight_decay", float, "AdamW's, for matrices"),
        ("max_length", parse_int, "tokens kept of a row, ends of text included"),
    ):
        default = getattr(train, name)
        tuning.add_argument(f"--{name}", type=kind, default=default, metavar=METAVARS[kind], help=f"{text} (default {default})")
    tuning.add_argument("--split_encode", type=boolean, nargs="?", const=True, default=False, metavar="true|false",
                        help="cut every text at a random letter, anew in each epoch, and encode both parts (default false)")
    draw = parser.add_argument_group("sampling")
    for name, kind, default, text in (
        ("num_samples", parse_int, 100_000, "texts to draw, before empty and repeated ones are dropped"),
        ("temperature", float, sample.temperature, "T of softmax(logits / T)"),
        ("top_k", parse_int, sample.top_k, "draw from the K likeliest tokens; 0: from all"),
        ("top_p", float, sample.top_p, "draw from the likeliest tokens that have this probability together; 1: from all"),
        ("max_new_tokens", parse_int, sample.max_new_tokens, "a text without an end by then is thrown away and drawn anew"),
        ("sample_batch_size", parse_int, sample.sample_batch_size, "texts drawn together; part of what decides the texts"),
    ):
        draw.add_argument(f"--{name}", type=kind, default=default, metavar=METAVARS[kind], help=f"{text} (default {default})")
    draw.add_argument("--keep_originals", type=boolean, nargs="?", const=True, default=True, metavar="true|false",
                      help="begin the transfer set with the training texts and their labels (default true)")
    return parser


def parse_flags(arguments: list[str]) -> argparse.Namespace:
    """Checked flags; UserError for a value that makes no sense and for flags that contradict one another."""
    flags = parse(make_parser(), arguments, RANGES | {"seed": (0, LARGEST_SEED)})
    for name, most in (("learning_rate", MOST), ("temperature", MOST), ("top_p", 1.0)):
        if not 0 < (value := getattr(flags, name)) <= most:
            raise UserError(f"--{name} {value}; more than 0 and up to {most:g} would work")
    if (flags.lm_path is None) == (flags.lm_config is None):
        found = "no language model named" if flags.lm_path is None else "--lm_path and --lm_config: two language models"
        raise UserError(f"{found}; --lm_path FOLDER, or --lm_config JSON to train one from scratch, would work")
    if flags.only == SAMPLE and flags.lm_config is not None:
        raise UserError(f"--only {SAMPLE} --lm_config: a new model has learned nothing to draw; --lm_path FOLDER would work")
    if flags.lm_tokenizer is not None and flags.lm_config is None:
        raise UserError("--lm_tokenizer: the folder of --lm_path brings its own; it goes with --lm_config")
    return flags


def without_effect(flags: argparse.Namespace) -> list[str]:
    """A line for every flag that was given another value than its default and does nothing here."""
    names = {SAMPLE: TRAINING_FLAGS, FINE_TUNE: SAMPLING_FLAGS}.get(flags.only, ())
    why = {SAMPLE: "nothing is trained", FINE_TUNE: "nothing is drawn"}.get(flags.only)
    given = [(name, getattr(flags, name)) for name in names if getattr(flags, name) != make_parser().get_default(name)]
    return [f"--{name} {value}: no effect: --only {flags.only}, {why}" for name, value in given]


def training_settings(flags: argparse.Namespace) -> TrainingSettings:
    return TrainingSettings(**{name: getattr(flags, name) for name in TrainingSettings.__dataclass_fields__})


def sampling_settings(flags: argparse.Namespace) -> SamplingSettings:
    return SamplingSettings(**{name: getattr(flags, name) for name in SamplingSettings.__dataclass_fields__})
