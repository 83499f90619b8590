"""DistilBERT (file 002): its scripts of September 2019, whose commands the README shows, and the newer ones of the same names."""

import json
import re
from pathlib import Path

from translation.calls import Translation
from translation.conversions import as_json, name_of, number, shortest, without_ending
from translation.rules import accumulated_batch, hub_name, run_folder
from translation.shell import edit
from translation.table import Flag, Script, Step, System, Takes, To, renamed, without_effect

FAMILIES = {"bert": "bert-mlm", "distilbert": "distilbert-mlm", "roberta": "roberta-mlm", "gpt2": "gpt2-clm"}
# Shapes of the repository's training_configs, by file name.
CONFIGS = {
    "distilbert-base-uncased": {"vocab_size": "30522"}, "distilbert-base-cased": {"vocab_size": "28996"},
    "distilbert-base-multilingual-cased": {"vocab_size": "119547"}, "distilroberta-base": {"vocab_size": "50265"},
    "distilgpt2": {"vocab_size": "50257"},
}
_SHAPE = {"num_hidden_layers": "6", "num_attention_heads": "12", "hidden_size": "768", "intermediate_size": "3072"}
_STUDENT = renamed("vocab_size=30522 max_position_embeddings n_layers>num_hidden_layers=6 n_heads>num_attention_heads=12 "
                   "dim>hidden_size=768 "
                   "hidden_dim>intermediate_size=3072 dropout>hidden_dropout_prob attention_dropout>attention_probs_dropout_prob "
                   "activation>hidden_act")
_SCRATCH = (*(flag.to[0].flag for flag in _STUDENT), "--initializer_range", "--sinusoidal_pos_embds")
_MASK_RULE = "of the masked tokens 80 % become [MASK], 10 % a random token, 10 % stay, always"


def sequences(call: Translation) -> None:
    """Three commands of ours; the folder of samples is called as the pickle without its ending."""
    dump, tokenizer = call.given.get("dump_file", ["data/dump"])[0], call.word("bert_tokenizer") or call.word("tokenizer_name") or ""

    def below(ending: str) -> str:
        return edit(dump, lambda text: f"{text}{ending}")

    call.set("--output_dir", below(".articles"), step="articles")
    call.set("--dir", below(".articles"), step="shards")
    call.set("--output_dir", below(".shards"), step="shards")
    call.set("--dir", below(".shards"), step="samples")
    call.set("--output_dir", below(f".{tokenizer}"), step="samples")
    call.note("a line of the text is an article here, cut where it is longer than a sample; a tenth of them is held out (shard_data.py "
              "--frac_test)")
    call.note(f"pickles that you have: dataset/convert_samples.py --format distilbert --input PICKLE --model_name {tokenizer} "
              f"--output_dir FOLDER")


def student_start(call: Translation) -> None:
    """With weights to begin from, their folder tells the shape; without, the flags do, and positions are sinusoidal as they were."""
    if "--student_initialize" in call.last.flags:
        call.drop(*_SCRATCH)
        return
    call.note("the student begins at random, as the old command says; in the place of its shape --student_initialize --student_layers "
              "0,2,4,7,9,11 would begin from teacher layers")
    if "sinusoidal_pos_embds" not in call.given:
        call.set("--sinusoidal_pos_embds")


def kind_of_student(call: Translation) -> None:
    """The shape is that of --student_config, where nothing is loaded; a known file's, or the JSON's where it is at hand."""
    kind = call.word("student_type") or "distilbert"
    call.set("--model_type", FAMILIES.get(kind, kind))
    if kind not in FAMILIES:
        call.note(f"--student_type {kind}: not supported: distilbert, roberta and gpt2 are")
    if "--student_initialize" in call.last.flags:
        return
    path = call.word("student_config") or ""
    known = CONFIGS.get(re.sub(r"\.json$", "", name_of(path)))
    shape = _read_config(Path(path).expanduser()) or (None if known is None else _SHAPE | known)
    if shape is None:
        what = f"{path} is not here: put its numbers" if path else "no --student_config: put the student's numbers"
        call.note(f"{what} in the place of LAYERS, HEADS, WIDTH and INNER_WIDTH")
        shape = dict(zip(_SHAPE, ("LAYERS", "HEADS", "WIDTH", "INNER_WIDTH"), strict=True))
    if kind == "gpt2":
        shape.pop("intermediate_size", None)
    for name, word in shape.items():
        call.set(f"--{name}", word)
    if kind == "distilbert":
        call.set("--sinusoidal_pos_embds")
    if kind == "roberta":
        call.set("--encoder_ln_mode", "post-ln")
        call.set("--layernorm_embedding")


def _read_config(file: Path) -> dict[str, str] | None:
    keys = {"num_hidden_layers": ("n_layers", "num_hidden_layers", "n_layer"),
            "num_attention_heads": ("n_heads", "num_attention_heads", "n_head"),
            "hidden_size": ("dim", "hidden_size", "n_embd"), "intermediate_size": ("hidden_dim", "intermediate_size"),
            "vocab_size": ("vocab_size",)}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {ours: str(content[key]) for ours, names in keys.items() for key in names if key in content} or None
    except (OSError, ValueError, TypeError):
        return None


def one_loss(call: Translation) -> None:
    """A causal student has --alpha_clm and no masked tokens (`--alpha_mlm 0 --alpha_clm 2`), any other one --alpha_mlm and `--alpha_clm
    0`."""
    if (call.word("student_type") or "") == "gpt2":
        call.drop("--token_counts", "--mlm_smoothing")
        if number(call.word("alpha_mlm") or "") != 0:
            call.set("--alpha_mlm", "0")
            call.note(f"--alpha_mlm {call.word('alpha_mlm')}: nothing is masked for a causal student, whose weight of the text is "
                      "--alpha_clm")
        if number(call.word("alpha_clm") or "") == 0:
            call.set("--alpha_clm", "2")
            call.note("--alpha_clm 2: put in the weight of the text; without it and --alpha_mlm the student would not learn from it")
    elif number(call.word("alpha_clm") or "") != 0:
        said = f"--alpha_clm {call.word('alpha_clm')}" if "alpha_clm" in call.given else "the old default of --alpha_clm, 0.5"
        call.set("--alpha_clm", "0")
        call.note(f"--alpha_clm 0: {said}, is for causal students, and the old script refused it beside masked tokens")
    if not call.on("mlm") and call.word("student_type") != "gpt2":
        call.note("without --mlm the old script trained a causal model, which only gpt2 is; --alpha_mlm above 0 is what learns masked "
                  "tokens here")


def passes_are_hours(call: Translation) -> None:
    """Passes over the text cannot be told as hours, and the learning rate falls within a budget of hours."""
    call.set("--lr_schedule", "time")
    call.set("--total_training_time", "HOURS")
    call.note(f"--total_training_time HOURS: put in the hours that you have; the old script made {call.word('n_epoch')} passes over the "
              f"text, and "
              "--num_epochs, which counts shards, can end the run sooner")


def even_masks(call: Translation) -> None:
    """Without `--token_counts` all tokens are masked with one probability."""
    if "token_counts" not in call.given and call.word("student_type") != "gpt2":
        call.note("without --token_counts all tokens are masked with one probability; dataset/count_tokens.py writes the counts")


def logits_everywhere(call: Translation) -> None:
    """Teacher and student are compared at all tokens, unless `--restrict_ce_to_mask`."""
    call.set("--logit_positions", "masked" if call.on("restrict_ce_to_mask") else "all")
    if not call.on("group_by_size"):
        call.set("--group_by_length")


def layers_of_teacher(call: Translation) -> None:
    """Which kind of student it is."""
    kind = call.word("model_type") or "bert"
    call.set("--model_type", FAMILIES["distilbert" if kind == "bert" else kind if kind in FAMILIES else "distilbert"])


def one_weight(call: Translation) -> None:
    """`--alpha` = alpha_ce / (alpha_ce + alpha_squad)."""
    teacher, labels = number(call.word("alpha_ce") or ""), number(call.word("alpha_squad") or "")
    if teacher is None or labels is None or teacher + labels <= 0:
        call.set("--alpha", "SHARE")
        call.note("--alpha SHARE: put in alpha_ce / (alpha_ce + alpha_squad)")
    else:
        call.set("--alpha", shortest(teacher / (teacher + labels)))
    if "teacher_name_or_path" not in call.given:
        call.drop("--alpha", "--temperature")
    call.set("--task_name", "SQuAD-2.0" if call.on("version_2_with_negative") else "SQuAD-1.1")
    call.set("--glue_dir", "FOLDER")
    call.note("--glue_dir FOLDER: put in the folder in which SQuAD/train-v1.1.json and SQuAD/dev-v1.1.json lie (official names)")


def on_one_device(call: Translation) -> None:
    """Fine-tunings run on one device each."""
    if call.call.launcher:
        call.note("fine-tunings run on one device each, several at a time with --devices; the launcher is left out")


_BINARIZE = (
    Flag("file_path", (To("--file", step="articles"),), default="data/dump.txt"),
    Flag("dump_file", default="data/dump", page="`--output_dir`: DUMP_FILE.TOKENIZER, with .articles and .shards beside it"),
)
_SAMPLES = (
    Step("articles", "dataset/process_data.py --type lines"),
    Step("shards", "dataset/shard_data.py --num_train_shards 8 --num_test_shards 2"),
    Step("samples", "dataset/generate_samples.py --masking none --max_seq_length 512"),
)
_LOSSES = (Flag("temperature", (To("--temperature"),), default="2"), Flag("restrict_ce_to_mask", takes=Takes.SWITCH,
                                                                           page="`--logit_positions masked`; without it `all`"))
_MASKS = (
    Flag("mlm_mask_prop", unsupported="the share of masked tokens is generate_samples.py --masked_lm_prob", fine=("0.15",)),
    Flag("word_mask", unsupported=_MASK_RULE, fine=("0.8",)), Flag("word_keep", unsupported=_MASK_RULE, fine=("0.1",)),
    Flag("word_rand", unsupported=_MASK_RULE, fine=("0.1",)), *renamed("mlm_smoothing"),
)
_LOOP = (
    Flag("n_epoch", default="3", page="none: `--total_training_time` is the budget in hours, `--num_epochs` counts shards"),
    Flag("batch_size", (To("--train_micro_batch_size_per_gpu"),), default="5"),
    Flag("group_by_size", takes=Takes.SWITCH, page="`--group_by_length` without it: giving the flag switched grouping off"),
    Flag("gradient_accumulation_steps", default="50", page="`--train_batch_size`: batch_size x gradient_accumulation_steps x processes"),
    Flag("warmup_prop", (To("--warmup_proportion"),), default="0.05"), *renamed("weight_decay=0.0"),
    Flag("learning_rate", (To("--lr"),), default="5e-4"), Flag("adam_epsilon", (To("--adam_eps"),)),
    Flag("max_grad_norm", (To("--gradient_clipping"),), default="5.0"), *renamed("initializer_range"),
    Flag("fp16", (To("--fp16"),), takes=Takes.SWITCH), Flag("fp16_opt_level", no_effect="mixed precision follows torch's autocast lists"),
    Flag("n_gpu", no_effect="the launcher says how many processes there are"),
    Flag("local_rank", no_effect="launchers set it"), *renamed("seed=56"),
    Flag("log_interval", default="500", page="`--print_steps`: divided by gradient_accumulation_steps, since it counted micro-batches"),
    Flag("checkpoint_interval", default="4000", page="`--steps_between_checkpoints`: divided likewise"),
)
_PATHS = (
    Flag("dump_path", page="`--output_dir` and `--job_name`: the run lies at OUTPUT_DIR/JOB_NAME"),
    Flag("data_file", (To("--dataset_path", without_ending),)), Flag("token_counts", (To("--token_counts", as_json),)),
    Flag("force", (To("--overwrite"),), takes=Takes.SWITCH, note="--overwrite moves an old run aside; the old script deleted its folder"),
)
_TRAIN = "run_pretraining.py --distillation --method distilbert --adam_beta2 0.98"
_NEEDS = "--teacher_path=TEACHER --dataset_path=SAMPLES --output_dir=RUNS"
_RULES = (accumulated_batch, passes_are_hours, even_masks, logits_everywhere, run_folder("dump_path"))
_RUN = "--data_file data/corpus.bert-base-uncased.pickle --token_counts data/counts.bert-base-uncased.pickle --dump_path runs/first --force"

BINARIZE_OLD = Script(
    ("binarized_data.py",), _SAMPLES,
    (*_BINARIZE, Flag("bert_tokenizer", (To("--model_name", step="samples"),), default="bert-base-uncased")),
    example="python scripts/binarized_data.py --file_path data/text.txt --bert_tokenizer bert-base-uncased --dump_file data/corpus",
    title="samples", rules=(sequences,))
BINARIZE_NEW = Script(
    ("binarized_data.py",), _SAMPLES,
    (*_BINARIZE, Flag("tokenizer_type", no_effect="the tokenizer tells what it is"),
     Flag("tokenizer_name", (To("--model_name", step="samples"),), default="bert-base-uncased")),
    example="python scripts/binarized_data.py --file_path data/text.txt --tokenizer_type roberta --tokenizer_name roberta-base --dump_file "
            "data/corpus",
    title="samples, newer script", rules=(sequences,))
COUNTS = Script(
    ("token_counts.py",), (Step("counts", "dataset/count_tokens.py"),),
    (Flag("data_file", (To("--dir", without_ending),), default="data/dump.bert-base-uncased.pickle"),
     Flag("token_counts_dump", (To("--output_file", as_json),), default="data/token_counts.bert-base-uncased.pickle"),
     Flag("vocab_size", no_effect="the samples tell it")),
    example="python scripts/token_counts.py --data_file data/corpus.bert-base-uncased.pickle --token_counts_dump "
            "data/counts.bert-base-uncased.pickle",
    title="token counts")
_EXTRACT_STEP = (Step("student", "-m pretraining.extract_student --student_layers 0,2,4,7,9,11 --num_hidden_layers 6",
                      needs="--output_dir=STUDENT"),)
_EXTRACT_FLAGS = (
    Flag("dump_checkpoint", (To("--output_dir", without_ending),)),
    Flag("vocab_transform", takes=Takes.SWITCH, no_effect="the language-model head is always taken along"),
)
EXTRACT_OLD = Script(
    ("extract_for_distil.py",), _EXTRACT_STEP, (Flag("bert_model", (To("--teacher_path"),), default="bert-base-uncased"), *_EXTRACT_FLAGS),
    example="python scripts/extract_for_distil.py --bert_model bert-base-uncased --dump_checkpoint data/student.pth --vocab_transform",
    title="first weights from the teacher", rules=(layers_of_teacher, hub_name("bert_model")))
EXTRACT_NEW = Script(
    ("extract_distilbert.py", "extract.py"), _EXTRACT_STEP,
    (Flag("model_type", page="`--model_type`: distilbert-mlm of a BERT, roberta-mlm, gpt2-clm"),
     Flag("model_name", (To("--teacher_path"),), default="bert-base-uncased"), *_EXTRACT_FLAGS),
    example="python scripts/extract.py --model_type roberta --model_name roberta-base --dump_checkpoint data/student.pth",
    title="first weights, newer scripts", rules=(layers_of_teacher, hub_name("model_name")))
TRAIN_OLD = Script(
    ("train.py",), (Step("train", f"{_TRAIN} --model_type distilbert-mlm", launched=True, needs=_NEEDS),),
    (*_PATHS, *_STUDENT,
     Flag("sinusoidal_pos_embds", takes=Takes.SWITCH, page="`--sinusoidal_pos_embds` without it: giving the flag switched them off"),
     Flag("tie_weights_", takes=Takes.SWITCH, unsupported="decoder and embeddings are always tied (giving the flag untied them)"),
     Flag("from_pretrained_weights", (To("--student_initialize", without_ending),)),
     Flag("from_pretrained_config", no_effect="the student's folder has its config.json"),
     Flag("bert_model", (To("--teacher_path"),), default="bert-base-uncased"), *_LOSSES,
     *renamed("alpha_ce=0.5 alpha_mlm=0.5 alpha_mse"), Flag("tokens_per_batch", unsupported="--train_micro_batch_size_per_gpu with "
                                                                                             "--group_by_length", fine=("-1",)),
     Flag("shuffle", takes=Takes.SWITCH, unsupported="samples are always shuffled (giving the flag switched that off)"), *_MASKS, *_LOOP),
    example=f"python train.py --bert_model bert-base-uncased {_RUN}", title="train", required=("dump_path", "data_file", "token_counts"),
    rules=(*_RULES, lambda call: call.set("--alpha_cos", "0"), student_start, hub_name("bert_model")))
TRAIN_NEW = Script(
    ("train.py",), (Step("train", _TRAIN, launched=True, needs=_NEEDS),),
    (*_PATHS, Flag("student_type", page="`--model_type`: distilbert-mlm, roberta-mlm, gpt2-clm"),
     Flag("student_config", page="the shape: `--num_hidden_layers`, `--hidden_size`, `--num_attention_heads`, `--intermediate_size`; with "
                                 "`--student_initialize` none, since the folder tells it"),
     Flag("student_pretrained_weights", (To("--student_initialize", without_ending),)),
     Flag("teacher_type", no_effect="the teacher's config.json tells it"), Flag("teacher_name", (To("--teacher_path"),)), *_LOSSES,
     *renamed("alpha_ce=0.5 alpha_mlm=0.0 alpha_clm=0.5 alpha_mse alpha_cos=0.0"),
     Flag("mlm", takes=Takes.SWITCH, page="is what the student's kind says"), *_MASKS,
     *(Flag(name, (To(f"--{name}"),), takes=Takes.SWITCH) for name in ("freeze_pos_embs", "freeze_token_type_embds")), *_LOOP),
    example="python train.py --student_type distilbert --student_config training_configs/distilbert-base-uncased.json "
            "--student_pretrained_weights data/student.pth --teacher_type bert --teacher_name bert-base-uncased --alpha_ce 5.0 "
            "--alpha_mlm 2.0 "
            f"--alpha_cos 1.0 --alpha_clm 0.0 --mlm --freeze_pos_embs {_RUN}",
    title="train, newer script", required=("dump_path", "data_file", "student_type", "student_config", "teacher_type", "teacher_name"),
    rules=(*_RULES, kind_of_student, one_loss, hub_name("teacher_name")))
SQUAD = Script(
    ("run_squad_w_distillation.py", "run_squad.py"),
    (Step("score", "run_glue.py", needs="--model_name_or_path=MODEL --output_dir=SCORES"),),
    (Flag("model_name_or_path", (To("--model_name_or_path"),)), Flag("teacher_name_or_path", (To("--teacher_path"),)),
     *without_effect("model_type teacher_type config_name tokenizer_name", "the model's folder tells it"),
     Flag("alpha_ce", default="0.5", page="`--alpha`: alpha_ce / (alpha_ce + alpha_squad)"), Flag("alpha_squad", default="0.5",
                                                                                                  page="`--alpha`"),
     Flag("temperature", (To("--temperature"),), default="2.0"), *renamed("output_dir"),
     *without_effect("train_file predict_file data_dir", "--glue_dir FOLDER holds SQuAD/train-v1.1.json and SQuAD/dev-v1.1.json"),
     Flag("version_2_with_negative", takes=Takes.SWITCH, page="`--task_name SQuAD-2.0`"), *renamed("null_score_diff_threshold"),
     *renamed("max_seq_length=384 doc_stride=128 max_query_length=64 n_best_size max_answer_length"),
     *(Flag(name, (To(f"--{name}"),), takes=Takes.SWITCH) for name in ("do_train", "do_eval")),
     Flag("evaluate_during_training", (To("--eval_strategy", lambda _: "steps"),), takes=Takes.WORD, page="`--eval_strategy steps`"),
     Flag("per_gpu_train_batch_size", (To("--per_device_train_batch_size"),), default="8"),
     Flag("per_gpu_eval_batch_size", (To("--per_device_eval_batch_size"),), default="8"),
     *renamed("learning_rate gradient_accumulation_steps weight_decay=0.0 adam_epsilon max_grad_norm num_train_epochs max_steps"),
     Flag("warmup_steps", (To("--warmup_steps"),)), *renamed("seed"), Flag("logging_steps", no_effect="every fine-tuning writes its "
                                                                                                      "losses"),
     *without_effect("save_steps", "a fine-tuning is not checkpointed; --save_models keeps the result"),
     *without_effect("eval_all_checkpoints", "--run_dir scores every marker of a run", Takes.SWITCH),
     Flag("overwrite_output_dir", (To("--overwrite"),), takes=Takes.SWITCH),
     *without_effect("do_lower_case", "the tokenizer in the model's folder says it", Takes.SWITCH),
     *without_effect("overwrite_cache verbose_logging", "nothing is cached, and answers are not logged", Takes.SWITCH),
     Flag("no_cuda", (To("--devices", lambda _: "cpu"),), takes=Takes.WORD, page="`--devices cpu`"),
     Flag("fp16", (To("--precision", lambda _: "fp16"),), takes=Takes.WORD, page="`--precision fp16`"),
     *without_effect("fp16_opt_level cache_dir local_rank server_ip server_port threads lang_id", "HF_HOME, --devices and torch's "
                                                                                                  "autocast take "
                                                                                                  "its place")),
    example="python run_squad_w_distillation.py --model_type distilbert --model_name_or_path runs/student --teacher_type bert "
            "--teacher_name_or_path teachers/bert-squad --train_file squad/train-v1.1.json --predict_file squad/dev-v1.1.json --do_train "
            "--do_eval --learning_rate 3e-5 --output_dir scores",
    title="second distillation, on SQuAD", rules=(one_weight, on_one_device))

DISTILBERT = System("distilbert", "DistilBERT", (
    BINARIZE_OLD, BINARIZE_NEW, COUNTS, EXTRACT_OLD, EXTRACT_NEW, TRAIN_OLD, TRAIN_NEW, SQUAD))
