"""What follows from several of D-BERT's flags together, from its JSON configurations, or from an earlier command of one input."""

import re
import shlex
from pathlib import Path

from translation.calls import Translation
from translation.confs import read_conf
from translation.conversions import folder_of, name_of, number, quotient, shortest, truth, without_ending
from translation.rules import YEAR, hub_name
from translation.shell import edit, value, variable
from translation.table import Takes

TASKS = {name: name for name in ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")} | {
    "sst-2": "sst2", "sst": "sst2", "sts": "stsb", "sts-b": "stsb", "qqb": "qqp", "mnli_match": "mnli", "mnli_mismatch": "mnli"}
_IN_A_NAME = re.compile(rf"(?:^|[_-])({'|'.join(sorted(TASKS, key=len, reverse=True))})(?=[_-]|$)")
ADADELTA_RATE = 0.1
"""Learning rates from here on are Adadelta's, whose usual one is 1."""


def to_parquet(text: str) -> str:
    """with the ending .parquet"""
    return f"${{{variable(text)}%.*}}.parquet" if variable(text) else f"{without_ending(text)}.parquet"


def language_model_in(text: str) -> str:
    """`language_model` in the folder called as the file without its ending"""
    return f"{without_ending(text)}/language_model"


def configuration(call: Translation) -> None:
    """`--config` is read where it is at hand, with what its `_inherits_` names; flags of the command line override it."""
    words = call.given.get("config")
    if not words:
        return
    path = value(words[0])
    file = Path(path).expanduser()
    if not file.is_file():
        call.note(f"{path} is not here, so what it says is missing in the line: translate where it lies, or give its values as flags")
        return
    idle, unknown = [], []
    for key, said in read_conf(file).items():
        row = call.script.flag(key)
        if row is None:
            unknown.append(key)
        elif row.no_effect:
            idle.append(key)
        elif said and row.names[0] not in call.given and not (row.takes is Takes.SWITCH and truth(said[0]) is False):
            call.give((f"{key} of {path}", row), [] if row.takes is Takes.SWITCH else [shlex.quote(word) for word in said])
    if idle:
        call.note(f"{path}: no effect here: {', '.join(idle)} (docs/migrating.md says why)")
    if unknown:
        call.note(f"{path}: not known, and passed over: {', '.join(unknown)}")


def _task_of_conf(call: Translation) -> str | None:
    """The task that the name of a configuration tells: confs/birnn_sst2.json."""
    words = call.given.get("config")
    found = _IN_A_NAME.search(name_of(value(words[0])).removesuffix(".json")) if words else None
    return TASKS[found.group(1)] if found else None


def _place(call: Translation, name: str | None, folder: str | None, glue: bool = True) -> None:
    """--task_name from its old name or from the folder of its files (a word), and --glue_dir from that folder."""
    last = name_of(value(folder)).lower() if folder else ""
    task = TASKS.get((name or "").lower()) or TASKS.get(last) or _task_of_conf(call)
    call.set("--task_name", task or "TASK")
    if task is None:
        call.note("--task_name TASK: put in the task, such as sst2; a TSV of your own is described by --task_file own.yaml in its place")
    if glue:
        call.set("--glue_dir", edit(folder, folder_of) if last in TASKS else "GLUE")
        if last not in TASKS:
            call.note("--glue_dir GLUE: put in the folder that holds the folders of GLUE's official files (SST-2, RTE, ...)")


def task_of_file(call: Translation) -> None:
    """`--task_name` and `--glue_dir` come from the path of the file: GLUE/SST-2/train.tsv."""
    words = call.given.get("dataset_file") or ["."]
    _place(call, call.word("task"), edit(words[0], folder_of))
    if "/" in value(words[0]) and name_of(value(words[0])) != "train.tsv":
        call.note(f"{value(words[0])}: the task's train.tsv is read; a file of your own is described by --task_file own.yaml")


def output_of_stdout(call: Translation) -> None:
    """Rows go to the file of `--output`, the one that standard output went to, and not to standard output."""
    target = call.take_stdout()
    call.set("--output", target or "augmented.tsv")
    if target is None:
        call.note("--output augmented.tsv: the rows go to that file, standard output has none")
    call.note("the file has a header line and begins with the training rows and their labels; --keep_originals false leaves them out")


def remember_text(call: Translation) -> None:
    """Which folder a cache is made from is remembered for the steps that follow in one input."""
    if (words := call.given.get("data-dir")) and (cache := call.word("output-file")):
        call.memory[f"text of {cache}"] = words[0]


def remember_prefixes(call: Translation) -> None:
    """Which cache the prefixes come from is remembered for the sampling."""
    cache, save = call.word("cache-file"), call.word("save")
    for what in ("text", "model"):
        if f"{what} of {cache}" in call.memory:
            call.memory[f"{what} of {save}"] = call.memory[f"{what} of {cache}"]


def fine_tuned(call: Translation) -> None:
    """The model lies in OUTPUT_DIR/language_model; its text is the task's, whose folder the cache told."""
    cache = call.word("cache-file")
    _place(call, None, call.memory.get(f"text of {cache}"))
    if call.script.flag("gpt2-model") is not None and not call.on("no-split-encode"):
        call.set("--split_encode")
    folder = call.last.flags.setdefault("--output_dir", ["finetuned"])[0]
    if [value(folder)] == call.last.flags.get("--lm_path", [""]):
        call.set("--output_dir", edit(folder, lambda text: f"{text}_finetuned"))
    call.memory[f"model of {cache}"] = edit(call.last.flags["--output_dir"][0], lambda text: f"{text}/language_model")


def sampled(call: Translation) -> None:
    """The texts lie in OUTPUT_DIR/transfer_set.tsv; OUTPUT_DIR is called as the file that standard output went to."""
    prefixes = call.word("prefix-file")
    _place(call, None, call.memory.get(f"text of {prefixes}"))
    if "resume" not in call.given:
        known = call.memory.get(f"model of {prefixes}")
        call.set("--lm_path", known or "MODEL/language_model")
        if known is None:
            call.note("--lm_path MODEL/language_model: put in --output_dir of the fine-tuning; the old command needed --resume too")
    target = call.take_stdout()
    call.set("--output_dir", "generated" if target is None else edit(target, without_ending))
    call.note(f"the texts lie in {value(call.last.flags['--output_dir'][0])}/transfer_set.tsv, clean and each once, behind the training "
              "rows and their labels; --keep_originals false leaves those out")


def teach_or_label(call: Translation) -> None:
    """With `--export` the teacher's logits of `--data_dir`/train.tsv are written: `label` in the place of `teach`."""
    given, made = call.given, call.last
    folder = given.get("data_dir", [None])[0]
    if "export" not in given:
        _place(call, call.word("task_name"), folder)
        hub_name("model_file")(call)
        if "--model" not in made.flags:
            call.set("--model", "MODEL")
            call.note("--model MODEL: put in the folder of the encoder, such as bert-large-uncased (hf download "
                      "google-bert/bert-large-uncased --local-dir bert-large-uncased)")
        if "train_batch_size" in given and (steps := call.word("gradient_accumulation_steps")):
            call.set("--per_device_train_batch_size", quotient(call.word("train_batch_size"), steps))
        if call.on("no_train"):
            call.note("--no_train: not supported: run_glue.py --model_name_or_path FOLDER --do_eval scores a teacher as it is")
        call.memory["teacher"] = made.flags["--output_dir"][0]
        return
    made.fixed, old, made.flags = ["label"], made.flags, {}
    call.set("--teacher_path", old["--output_dir"][0] if "workspace" in given else call.memory.get("teacher", old["--output_dir"][0]))
    file = call.word("train_file") or "train.tsv"
    call.set("--transfer_set", edit(folder, lambda text: f"{text.rstrip('/')}/{file}") if folder else "TRANSFER_SET")
    if folder is None:
        call.note("--transfer_set TRANSFER_SET: put in the file of texts, as augment and generate write it")
    _place(call, call.word("task_name"), folder, glue=False)
    call.set("--output", edit(given["export"][0], to_parquet))
    for flag in ("--per_device_eval_batch_size", "--max_seq_length"):
        if flag in old:
            made.flags[flag] = old[flag]
    if "--device" in old:
        made.flags["--devices"] = old["--device"]
    call.note("--teacher_path is the folder that `teach` wrote; the transfer set has a header line here; logits are kept by row and text, "
              "so that no join is needed")


def remember_join(call: Translation) -> None:
    """Both files are remembered for the student that follows in one input."""
    for what, name in (("transfer set", "dataset_file"), ("logits", "logits_file")):
        if words := call.given.get(name):
            call.memory[what] = words[0] if what == "transfer set" else edit(words[0], to_parquet)


def learn_from(call: Translation) -> None:
    """`--transfer_set` is DATASET_PATH/TRAIN_FILE with the logits in its columns, as join_logits wrote it, or the two files themselves."""
    folder, file = call.given.get("dataset_path", [None])[0], call.word("train_file") or "train.tsv"
    _place(call, call.word("dataset_name"), folder)
    if "transfer set" in call.memory or "logits" in call.memory:
        call.set("--transfer_set", call.memory.get("transfer set", "TRANSFER_SET"))
        call.set("--logits", call.memory.get("logits", "LOGITS"))
    elif folder is not None:
        call.set("--transfer_set", edit(folder, lambda text: f"{text.rstrip('/')}/{file}"))
        call.note(f"{value(call.last.flags['--transfer_set'][0])}: a file with logits in its columns, as join_logits wrote it, is read "
                  "as it is; texts and logits apart: --transfer_set TEXTS --logits LOGITS, as `label` wrote them")
    else:
        call.set("--transfer_set", "TRANSFER_SET")
        call.set("--logits", "LOGITS")
    if call.last.flags["--task_name"] == ["mnli"]:
        call.note("MNLI's classes as numbers are refused, as programs number them in different orders: a label column needs their names, "
                  "and logits_0 to 2 are those of entailment, neutral and contradiction")
    for word, what in (("TRANSFER_SET", "the file of texts, as augment and generate write it"), ("LOGITS", "what label wrote of it")):
        if [word] in call.last.flags.values():
            call.note(f"{word}: put in {what}")


def embeddings(call: Translation) -> None:
    """`mode` rand, static, non-static or multichannel; word vectors are VECTORS_DIR/VECTORS_FILE, in text format."""
    mode = call.word("mode")
    known = {"rand": "random", "static": "static", "non-static": "non_static", "multichannel": "multichannel"}
    if mode is None:
        return
    if mode not in known:
        call.note(f"--mode {mode}: not supported: {', '.join(known)} are")
        return
    call.set("--embedding", known[mode])
    if mode != "rand":
        folder, file = (call.given.get(name, [None])[0] for name in ("vectors_dir", "vectors_file"))
        found = file if folder is None or file is None else edit(folder, lambda text: f"{text.rstrip('/')}/{value(file)}")
        call.set("--word_vectors", found or "VECTORS")
        if found is None:
            call.note("--word_vectors VECTORS: put in the file of word vectors, in word2vec's or GloVe's text format")


def losses(kind: str):
    """`distill_lambda` and `ce_lambda` are the weights in `--method`; a score is learnt by squared error alone."""

    def rule(call: Translation) -> None:
        teacher, labels = (number(call.word(name) or "1") for name in ("distill_lambda", "ce_lambda"))
        if teacher is None or labels is None:
            call.note("distill_lambda and ce_lambda: put their values into --method")
            teacher, labels = teacher if teacher is not None else 1.0, labels if labels is not None else 1.0
        is_score = call.on("float_score") or call.last.flags.get("--task_name") == ["stsb"]
        hard = "hard_labels" if teacher > 0 else "labels"
        parts = [(kind if not is_score else "logit_mse", teacher), (hard, 0.0 if is_score and teacher > 0 else labels)]
        call.set("--method", ",".join(f"{name}:{shortest(weight)}" for name, weight in parts if weight > 0) or "labels:1")
        if kind == "kl" and teacher > 0 and not is_score:
            call.set("--temperature", call.word("distill_temperature") or "3")
            call.note("kl is multiplied by the square of its temperature, as in its paper, which the old script left out")
        if hard == "labels" and not is_score:
            call.note("distill_lambda 0: labels are those of the transfer set")

    rule.__doc__ = losses.__doc__
    return rule


def old_optimizer(call: Translation) -> None:
    """Adadelta at a constant rate becomes AdamW at that rate, without weight decay; a rate that only Adadelta takes is left out."""
    rate = number(call.word("lr") or "")
    if rate is None or rate >= ADADELTA_RATE:
        call.drop("--lr")
    call.set("--weight_decay", "0")
    call.set("--lr_schedule", "constant_step")
    call.set("--num_warmup_steps", "0")
    call.set("--total_training_time", YEAR)
    call.note(f"Adadelta, whatever the configuration said, is AdamW here; --total_training_time {YEAR}: the old script had no limit of "
              "hours, its passes end the run; give the hours that you have, and --lr_schedule time if the learning rate is to fall in them")
    call.note("the old script kept the pass that was best on the dev set; the last one is exported here, and --finetune_time_markers "
              "exports some on the way")


def workspace(call: Translation) -> None:
    """The run lies where the old one lay: OUTPUT_DIR/JOB_NAME."""
    words = call.given.get("workspace") or ["local_workspace"]
    call.set("--output_dir", edit(words[0], folder_of))
    call.set("--job_name", edit(words[0], name_of))
