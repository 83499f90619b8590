"""What follows from several flags together, or from the launcher: rules that more than one old script has.

The docstring of a rule is its line on the page.
"""

import json
import re
from pathlib import Path

from translation.calls import Translation
from translation.conversions import folder_of, name_of, number, product, quotient, shortest
from translation.shell import edit, value
from translation.table import YOURS

YEAR = "8760"
CONVERT_GOOGLE = (
    "{0}: a Google checkpoint; transformers 5 reads none, so once, in an environment of its own with pip install 'transformers==4.46.3' "
    "torch "
    "tensorflow: HF_HUB_OFFLINE=1 python -c \"from transformers import BertForPreTraining as B; B.from_pretrained('{0}.index', "
    "from_tf=True, config='{1}/bert_config.json').save_pretrained('{1}')\"; {1} is then the folder that the command names")
HUB = {"bert": "google-bert", "roberta": "FacebookAI", "distilroberta": "distilbert", "gpt2": "openai-community",
       "distilbert": "distilbert"}
GOOGLE_NAME = re.compile(r"L-(\d+)_H-(\d+)_A-(\d+)")
SHAPES = {"vocab_size": "vocab_size", "num_hidden_layers": "num_hidden_layers", "hidden_size": "hidden_size",
          "num_attention_heads": "num_attention_heads", "intermediate_size": "intermediate_size"}


def google_checkpoint(call: Translation) -> None:
    """A Google `bert_model.ckpt` is converted once, by a command that is printed; the folder is what our command names."""
    words = call.given.get("init_checkpoint")
    if words and value(words[0]).endswith(".ckpt"):
        call.note(CONVERT_GOOGLE.format(value(words[0]), folder_of(value(words[0]))))


def hub_name(*flags: str):
    """A name of the hub, such as `bert-base-uncased`, is downloaded first: teachers are folders here."""

    def rule(call: Translation) -> None:
        for flag in flags:
            name = call.word(flag)
            if name and re.fullmatch(r"[a-z][\w-]*", name) and name.split("-")[0] in HUB:
                call.note(f"{name} is a folder here: hf download {HUB[name.split('-')[0]]}/{name} --local-dir {name}")

    rule.__doc__ = hub_name.__doc__
    return rule


def run_folder(old: str):
    """The run lies where the old one lay: OUTPUT_DIR/JOB_NAME."""

    def rule(call: Translation) -> None:
        words = call.given.get(old)
        if words and name_of(value(words[0])) in ("", ".", ".."):
            call.set("--output_dir", words[0])
            call.set("--job_name", "run")
            call.note(f"--job_name run: {value(words[0])} has no last name that a run could have; the run lies in a folder `run` there")
        elif words:
            call.set("--output_dir", edit(words[0], folder_of))
            call.set("--job_name", edit(words[0], name_of))

    rule.__doc__ = run_folder.__doc__
    return rule


def a_year(call: Translation) -> None:
    """The old script knew no hours: the budget is a year, and steps end the run."""
    call.set("--total_training_time", YEAR)
    call.note(f"--total_training_time {YEAR}: the old script had no limit of hours; give the hours that you have, and --lr_schedule time "
              f"if "
              "the learning rate is to fall within them")


def google_shape(call: Translation) -> None:
    """Layers and widths are those of bert_config.json: read where it is at hand, else from Google's name of its folder."""
    if "--student_initialize" in call.last.flags:
        return
    words = call.given.get("bert_config_file")
    file = value(words[0]) if words else ""
    shape = read_shape(Path(file).expanduser()) or _shape_of_name(file)
    if shape is None:
        what = f"{file} is not here: put its numbers" if file else "no --bert_config_file: put the student's numbers"
        call.note(f"{what} in the place of LAYERS, WIDTH, HEADS and INNER_WIDTH")
        shape = {"num_hidden_layers": "LAYERS", "hidden_size": "WIDTH", "num_attention_heads": "HEADS", "intermediate_size": "INNER_WIDTH"}
    for name, number_ in shape.items():
        call.set(f"--{name}", number_)
    call.set("--encoder_ln_mode", "post-ln")
    call.set("--layernorm_embedding")
    if file:
        call.set("--tokenizer_name", edit(edit(words[0], folder_of), lambda text: f"{text}/vocab.txt"))
    else:
        call.set("--tokenizer_name", "VOCABULARY_FILE")
        call.note(f"--tokenizer_name VOCABULARY_FILE: put in {YOURS['VOCABULARY_FILE']}")
    call.note("the README gives the teacher's own configuration to the student, which begins at random; smaller: lower "
              "--num_hidden_layers; "
              "better: --teacher_path FOLDER and a bare --student_initialize in the place of the shape, which copies teacher layers")


def read_shape(file: Path) -> dict[str, str] | None:
    """The shape that a BERT's JSON tells, as words of our flags; None where it is not at hand or tells none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {name: str(content[key]) for name, key in SHAPES.items() if key in content} or None
    except (OSError, ValueError, TypeError):
        return None


def _shape_of_name(path: str) -> dict[str, str] | None:
    found = GOOGLE_NAME.search(path)
    if found is None:
        return None
    layers, width, heads = found.groups()
    return {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads, "intermediate_size": str(4 * int(width))}


def horovod_scales(call: Translation) -> None:
    """A batch is per process, the learning rate is multiplied and the steps are divided by the number of processes, as under Horovod."""
    ranks, micro, rate = call.ranks, call.word("train_batch_size") or "32", call.word("learning_rate") or "5e-5"
    if number(ranks) is None:
        call.note(f"--lr RATE: put in {rate} times the number of processes, as Horovod's script had it")
        call.set("--lr", "RATE")
    else:
        call.set("--lr", shortest(float(rate) * float(ranks)) if number(rate) is not None else "RATE")
    call.set("--train_batch_size", product(micro, ranks))
    for old, ours in (("num_train_steps", "--max_steps"), ("num_warmup_steps", "--num_warmup_steps")):
        call.set(ours, quotient(call.word(old) or "", ranks))
    _say_ranks(call)


def batch_of_one(call: Translation) -> None:
    """`--train_batch_size` counts all processes, `--train_micro_batch_size_per_gpu` one."""
    call.set("--train_batch_size", call.last.flags["--train_micro_batch_size_per_gpu"][0])


def _say_ranks(call: Translation) -> None:
    found = [word for words in call.last.flags.values() for word in words if word in ("PRODUCT", "QUOTIENT")]
    if found:
        call.note(f"{' and '.join(dict.fromkeys(found))}: put in the numbers; how many processes the launcher starts is not in the command")


def accumulated_batch(call: Translation) -> None:
    """`--train_batch_size` = batch_size x gradient_accumulation_steps x processes; log and checkpoint intervals count updates here."""
    micro, accumulation = call.word("batch_size") or "5", call.word("gradient_accumulation_steps") or "50"
    call.set("--train_batch_size", product(micro, accumulation, call.ranks))
    for old, ours in (("log_interval", "--print_steps"), ("checkpoint_interval", "--steps_between_checkpoints")):
        call.set(ours, quotient(call.word(old) or "", accumulation))
    _say_ranks(call)


def folders_of_samples(call: Translation) -> None:
    """Teacher outputs lie beside the samples here, and both folders are named."""
    words = call.given.get("input_file")
    if not words:
        return
    cache = value(edit(words[0], folder_of))
    samples = call.memory.get(cache)
    if samples is None:
        call.note(f"--dataset_path SAMPLES: put in the folder of samples that {cache} was made from (--dataset_path of "
                  f"extract_teacher_outputs.py)")
    call.set("--dataset_path", samples or "SAMPLES")


def remember_samples(call: Translation) -> None:
    """What is extracted is remembered within one input, for the training that follows."""
    if (words := call.given.get("input_file")) and (out := call.given.get("output_file")):
        call.memory[value(edit(out[0], folder_of))] = edit(words[0], folder_of)


def held_out(call: Translation) -> None:
    """`--do_eval` measures on test shards; a command that only measures does not exist here, and is printed as a comment."""
    if call.on("do_eval"):
        call.set("--do_validation")
        call.set("--validation_micro_batch", call.word("eval_batch_size") or "8")
        call.set("--validation_samples", product(call.word("max_eval_steps") or "100", call.word("eval_batch_size") or "8"))
        call.note("--do_eval: the old script measured on the training files; --do_validation measures on the test shards, which the "
                  "samples must "
                  "have (shard_data.py --num_test_shards)")
    if not call.on("do_train"):
        call.note("no --do_train: there is no command that only measures; run_pretraining.py measures while it trains, and metrics.jsonl "
                  "has it")
        call.inert = "do_train" in call.given or call.on("do_eval")
