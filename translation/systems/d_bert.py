"""D-BERT (file 003): task-specific distillation, here `run_task_distillation.py`.

A student's module has two paths where its README and its code disagree. Keys of its JSON configurations are rows like flags.
"""

from collections.abc import Callable

from translation.conversions import without_ending
from translation.rules import hub_name
from translation.systems.d_bert_rules import (
    configuration,
    embeddings,
    fine_tuned,
    language_model_in,
    learn_from,
    losses,
    old_optimizer,
    output_of_stdout,
    remember_join,
    remember_prefixes,
    remember_text,
    sampled,
    task_of_file,
    teach_or_label,
    workspace,
)
from translation.table import Flag, Script, Step, System, Takes, To, without_effect

_RUN = "run_task_distillation.py"
_TASK_SAYS = "the task says it"
_FELL_TOGETHER = ("generate does five old steps in one: reading the text, fine-tuning, first words, sampling and cleaning; its two halves "
                  "are --only finetune and --only sample",)


def _steps(command: str) -> tuple[Step, ...]:
    return (Step(command, f"{_RUN} {command}"),)


_AUGMENT = (
    Flag("mask_prob", (To("--mask_prob"),)), Flag("random_prob", (To("--random_prob"),)),
    Flag("window_prob", (To("--window_prob"),), default="0"), Flag("window_lengths", (To("--window_lengths"),), takes=Takes.LIST),
)


def _tuning(model: Flag) -> tuple[Flag, ...]:
    return (
        Flag("cache-file", page="the text is the task's"), Flag("save", (To("--output_dir", without_ending),)),
        *(Flag(name, (To(f"--{name.replace('-', '_')}"),), default=default) for name, default in (
            ("learning-rate", "5e-5"), ("train-batch-size", "48"), ("num-train-epochs", "3"), ("seed", "1111"),
            ("warmup-proportion", "0.1"), ("weight-decay", "1e-3"))),
        Flag("resume", no_effect="the same command goes on where it was"),
        *without_effect("eval-batch-size log-interval cache-dir", "what is measured on the way does not depend on it"),
        *(Flag(name, takes=Takes.SWITCH, no_effect=why) for name, why in (
            ("no-train", "--only sample draws from a model as it is"), ("test-eval", "GLUE's test sets have no labels and are not read"),
            ("use-sos", "texts begin as the tokenizer's own texts do"), ("no-drop-last", "the last, smaller batch is always learnt from"),
            ("reset", "another --output_dir begins anew"))),
        Flag("no-split-encode", takes=Takes.SWITCH, page="is the default; without it `--split_encode` is said (GPT-2)"),
        Flag("conditioned-model", unsupported="the texts of one class: a --task_file whose training file holds them"), model,
    )


_SAMPLE = (
    Flag("resume", (To("--lm_path", language_model_in),)), Flag("prefix-file", page="first words are counted by generate itself"),
    Flag("num-samples", (To("--num_samples"),), default="1500000"), Flag("seed", (To("--seed"),), default="1111"),
    Flag("paired", takes=Takes.SWITCH, no_effect=_TASK_SAYS), Flag("transfo-model", no_effect="the folder of --lm_path says it"),
)
_CONFIG = Flag("config", page="is read where it is at hand, with what its `_inherits_` names")
_GPU = "the first GPU is used where there is one"


def _student(names: str, student: str, kind: str, flags: tuple[Flag, ...], example: str, title: str, *notes: str,
             rules: tuple[Callable, ...] = ()) -> Script:
    no_effect = {
        "dev_file test_file": "students are measured on the task's own dev sets", "device": _GPU, "weight_decay": "Adadelta had none",
        "optimizer": "the old script used Adadelta whatever it said", "early_stop": "the old script did not stop early either",
        "use_data_parallel": "torchrun in front of the command trains on several GPUs",
        "n_feature_maps": "the students that are here do not have it", "logits_path lookup_word": "the old script did not use it either",
    }
    if kind != "kl":
        no_effect["distill_temperature"] = "squared error of logits has none"
    return Script(
        tuple(names.split()), (Step("distil", f"{_RUN} distil --student {student}"),), (
            _CONFIG, Flag("workspace", page="`--output_dir` and `--job_name`: the run lies at OUTPUT_DIR/JOB_NAME"),
            Flag("dataset_path", page="`--transfer_set`, with train_file; `--glue_dir`, where it is a folder of GLUE's"),
            Flag("dataset_name", page="`--task_name`"), Flag("train_file", page="`--transfer_set`, in dataset_path"),
            Flag("seed", (To("--seed"),), default="0"), Flag("epochs", (To("--num_epochs"),), default="20"),
            Flag("batch_size", (To("--train_batch_size"), To("--train_micro_batch_size_per_gpu")), default="50"),
            Flag("lr", (To("--lr"),), page="`--lr` of AdamW; the usual 1 of Adadelta is left out"),
            Flag("distill_lambda", page=f"the weight of `{kind}` in `--method`; default 1"),
            Flag("ce_lambda", page="the weight of `hard_labels` in `--method`; default 1"),
            *((Flag("distill_temperature", page="`--temperature`; default 3"),) if kind == "kl" else ()),
            Flag("float_score", takes=Takes.BOOLEAN, page="squared error alone: a regression"),
            Flag("mode", page="`--embedding`: random, static, non_static, multichannel"),
            Flag("vectors_dir", page="`--word_vectors`, with vectors_file"), Flag("vectors_file", page="`--word_vectors`, in vectors_dir"),
            Flag("words_dim", (To("--embedding_size"),)), Flag("dropout", (To("--dropout"),)),
            Flag("clip_grad", (To("--gradient_clipping"),)), *flags,
            Flag("load_last_checkpoint", (To("--resume"),), takes=Takes.BOOLEAN),
            Flag("load_best_checkpoint", takes=Takes.BOOLEAN, unsupported="--resume goes on with the last one", fine=("false",)),
            Flag("eval_test_only", takes=Takes.BOOLEAN, unsupported="the scores of a run are in its metrics.jsonl", fine=("false",)),
            Flag("export_eval_labels", takes=Takes.BOOLEAN, unsupported="an exported student gives its logits itself", fine=("false",)),
            *(row for words, why in no_effect.items() for row in without_effect(words, why)),
        ), example=example, title=title, rules=(configuration, learn_from, *rules, embeddings, losses(kind), old_optimizer, workspace),
        notes=notes)


_RECURRENT = (
    Flag("hidden_size", (To("--hidden_size"),)), Flag("fc_size", (To("--fc_size"),)), Flag("rnn_type", (To("--cell"),)),
    *without_effect("output_channel", "it is a size of the Kim CNN"),
    Flag("use_maxpool", takes=Takes.BOOLEAN, unsupported="the last states are read; the old switch pooled the word embeddings and crashed",
         fine=("false",)),
)
_CONVOLUTION = (
    Flag("output_channel", (To("--feature_maps"),)), *without_effect("hidden_size fc_size rnn_type", "it is a size of the BiLSTM"),
    Flag("use_maxpool", takes=Takes.BOOLEAN, no_effect="the maxima over time are always read"),
)

D_BERT = System("d_bert", "D-BERT: from a fine-tuned BERT to a BiLSTM", (
    Script(
        ("dbert.distill.run.augment_data",), _steps("augment"), (
            Flag("dataset_file", page="`--task_name` and `--glue_dir`, from its path"), *_AUGMENT,
            Flag("n_iter", (To("--n_iter"),)), Flag("seed", (To("--seed"),)),
            Flag("tokenizer", no_effect="words are split as the tagger of --tagger reads them")),
        example="python -m dbert.distill.run.augment_data --dataset_file glue/SST-2/train.tsv > augmented.tsv",
        title="transfer set by rules", rules=(task_of_file, output_of_stdout)),
    Script(
        ("dbert.distill.run.augment_paired_data",), _steps("augment"), (
            Flag("dataset_file f", page="`--task_name` and `--glue_dir`, from its path"), Flag("task", page="`--task_name`"), *_AUGMENT,
            Flag("n_iter", (To("--n_iter"),)), Flag("single_only_prob", (To("--single_only_prob"),)),
            Flag("paired_prob", no_effect="it had none there: 1 - single_only_prob is what it means")),
        example="python -m dbert.distill.run.augment_paired_data --task mrpc --dataset_file glue/MRPC/train.tsv > augmented.tsv",
        title="the same for pairs", rules=(task_of_file, output_of_stdout)),
    Script(
        ("dbert.generate.cache_datasets",), (), (
            Flag("data-dir", page="`--task_name` and `--glue_dir` of `generate`, from its path"),
            Flag("output-file", page="is not needed"),
            *without_effect("seed dataset-type column column1 column2 label-column", f"generate reads the task's files: {_TASK_SAYS}"),
            Flag("filter-label", unsupported="the texts of one class: a --task_file whose training file holds them"),
            Flag("resume", no_effect="generate goes on where it was"),
            *(Flag(name, takes=Takes.SWITCH, no_effect="the tokenizer of --lm_path is used") for name in ("no-char-dict", "word-level"))),
        example="python -m dbert.generate.cache_datasets --data-dir glue/SST-2 --output-file cache.pt",
        title="transfer set by a language model: its text", rules=(remember_text,), notes=_FELL_TOGETHER,
        instead="no step of its own: generate reads the task's train.tsv and dev.tsv itself"),
    Script(
        ("dbert.generate.finetune_transfoxl",), (Step("generate", f"{_RUN} generate --only finetune --lm_path gpt2"),), _tuning(
            Flag("transfo-model", unsupported="transformers has no Transformer-XL any more: a GPT-2 is in its place")),
        example="python -m dbert.generate.finetune_transfoxl --save model.pt --cache-file cache.pt --train-batch-size 48",
        title="the language model", rules=(fine_tuned,), notes=(
            *_FELL_TOGETHER, "transformers has no Transformer-XL any more: the line fine-tunes a GPT-2 (hf download openai-community/gpt2 "
                             "--local-dir gpt2); any causal model works")),
    Script(
        ("dbert.generate.finetune_gpt",), (Step("generate", f"{_RUN} generate --only finetune"),), _tuning(
            Flag("gpt2-model", (To("--lm_path"),), default="gpt2")),
        example="python -m dbert.generate.finetune_gpt --save model.pt --cache-file cache.pt", title="the language model, GPT-2",
        rules=(hub_name("gpt2-model"), fine_tuned), notes=_FELL_TOGETHER),
    Script(
        ("dbert.generate.finetune_bert",), (), (
            *without_effect("cache-file save learning-rate train-batch-size eval-batch-size num-train-epochs seed warmup-proportion "
                            "weight-decay log-interval resume cache-dir conditioned-model bert-model", "there is nothing to fine-tune"),
            *(Flag(name, takes=Takes.SWITCH, no_effect="there is nothing to fine-tune")
              for name in ("no-train", "test-eval", "use-sos", "no-split-encode", "no-drop-last", "reset"))),
        example="python -m dbert.generate.finetune_bert --save model.pt --cache-file cache.pt", title="a masked language model",
        instead="a masked model draws no text: augment replaces words by others of their part of speech, generate needs a causal model"),
    Script(
        ("dbert.generate.build_sampler",), (), (
            Flag("cache-file", page="is not needed"), Flag("save", page="is not needed"),
            *without_effect("gpt2-model transfo-model model-type", "the folder of --lm_path says it"),
            Flag("seed", no_effect="counting draws nothing")),
        example="python -m dbert.generate.build_sampler --cache-file cache.pt --save prefixes.pt --model-type gpt2", title="first words",
        rules=(remember_prefixes,), notes=_FELL_TOGETHER, instead="no step of its own: generate counts the first tokens itself"),
    Script(
        ("dbert.generate.sample_transfoxl",), (Step("generate", f"{_RUN} generate --only sample"),), _SAMPLE,
        example="python -m dbert.generate.sample_transfoxl --prefix-file prefixes.pt --paired > sampled.txt", title="sampling",
        rules=(sampled,)),
    Script(
        ("dbert.generate.sample_gpt",), (Step("generate", f"{_RUN} generate --only sample"),), (
            *_SAMPLE, Flag("msl", (To("--max_new_tokens"),)), Flag("gpt2-model", no_effect="the folder of --lm_path says it"),
            *without_effect("num-buffers balance-every", "texts are drawn in batches of --sample_batch_size"),
            *(Flag(name, takes=Takes.SWITCH, no_effect="the folder of --lm_path says it") for name in ("transfo", "simple-sample")),
            Flag("bert", takes=Takes.SWITCH, unsupported="a causal model draws the texts")),
        example="python -m dbert.generate.sample_gpt --prefix-file prefixes.pt --resume model.pt > sampled.txt", title="sampling, GPT-2",
        rules=(sampled,)),
    Script(
        ("dbert.generate.clean_gen",), (), (
            Flag("files", takes=Takes.LIST, page="is not needed"),
            *(Flag(name, takes=Takes.SWITCH, no_effect=why) for name, why in (
                ("tokenize", "students split words themselves"), ("paired", _TASK_SAYS)))),
        example="python -m dbert.generate.clean_gen --files sampled.txt", title="cleaning", notes=_FELL_TOGETHER,
        instead="no step of its own: generate writes clean rows, pairs with both texts, and none twice"),
    Script(
        ("dbert.finetune.classifier",), _steps("teach"), (
            _CONFIG, Flag("model_file", (To("--model"),)),
            Flag("workspace", (To("--output_dir"),), default="local_workspace", page="`--output_dir`; with `--export` `--teacher_path`"),
            Flag("data_dir", page="`--glue_dir` is its folder; with `--export` `--transfer_set` is its train.tsv"),
            Flag("task_name", page="the same; raw_single, raw_pair and imdb are no tasks: `--task_name` says what the teacher knows"),
            Flag("train_file", page="with `--export` the file of `--transfer_set`; else the task's train.tsv is read"),
            Flag("export", page="`label --output`, with the ending .parquet"),
            Flag("seed", (To("--seed"),), default="0"), Flag("learning_rate", (To("--learning_rate"),)),
            Flag("num_train_epochs", (To("--num_train_epochs"),)), Flag("max_seq_length", (To("--max_seq_length"),)),
            Flag("train_batch_size", (To("--per_device_train_batch_size"),)),
            Flag("gradient_accumulation_steps", (To("--gradient_accumulation_steps"),)),
            Flag("eval_batch_size", (To("--per_device_eval_batch_size"),)), Flag("warmup_proportion", (To("--warmup_ratio"),)),
            Flag("device", (To("--device"),), page="`--device`; with `--export` `--devices`"),
            Flag("fp16", takes=Takes.BOOLEAN, unsupported="--precision fp16, or bf16", fine=("false",)),
            Flag("no_cuda", takes=Takes.BOOLEAN, unsupported="--device cpu", fine=("false",)),
            Flag("no_train", takes=Takes.SWITCH, page="with `--export` is what `label` does"),
            Flag("do_test_only", takes=Takes.SWITCH, no_effect="test sets are scored by run_glue.py"),
            *without_effect("n_labels", _TASK_SAYS), *without_effect("loss_scale", "it is found while training"),
            *(Flag(name, takes=Takes.BOOLEAN, no_effect=why) for name, why in (
                ("not_uncased", "the tokenizer in the model's folder says it"), ("uncased", "the tokenizer in the model's folder says it"),
                ("visualize", "teach.json has the scores"), ("do_train", "teach trains"), ("do_eval", "teach scores")))),
        example="python -m dbert.finetune.classifier --config confs/sst2-ft.json --learning_rate 4e-5 --workspace teacher",
        title="teacher; with `--export` its outputs", rules=(configuration, teach_or_label), notes=(
            "every weight of the teacher is trained, which the old script's optimiser did on no machine",)),
    Script(
        ("dbert.distill.run.join_logits",), (), (
            Flag("logits_file", page="`distil --logits`, with the ending .parquet"), Flag("dataset_file", page="`distil --transfer_set`"),
            *without_effect("n_logits format dataset_name", _TASK_SAYS), Flag("output_file", page="is not needed")),
        example="python -m dbert.distill.run.join_logits --logits_file logits.pt --dataset_file augmented.tsv",
        title="outputs beside the text", rules=(remember_join,), notes=(
            "files that the old script joined are read as they are, as --transfer_set alone",),
        instead="no step of its own: distil joins --transfer_set and --logits by row and text, and refuses what does not belong together"),
    _student(
        "dbert.run.distill_birnn dbert.distill.run.distill_birnn", "bilstm", "logit_mse", _RECURRENT,
        "python -m dbert.run.distill_birnn --config confs/birnn_sst2.json", "student",
        "the sizes of birnn_sst2.json are the defaults here"),
    _student(
        "dbert.distill.run.distill_siamese_rnn dbert.distill.run.distill_siamese_rnn_mnli dbert.distill.run.distill_qqp",
        "siamese_bilstm", "kl", _RECURRENT,
        "python -m dbert.distill.run.distill_siamese_rnn --config confs/siarnn_qqb.json", "student of pairs, softened probabilities"),
    _student(
        "dbert.distill.run.distill_simple_siamese dbert.distill.run.distill_siamese_rnn_mse", "siamese_bilstm", "logit_mse", _RECURRENT,
        "python -m dbert.distill.run.distill_simple_siamese --config confs/siarnn_sts.json", "student of pairs, squared error"),
    _student(
        "dbert.distill.run.distill_kim dbert.distill.run.distill_single_classifier", "kim_cnn", "kl", _CONVOLUTION,
        "python -m dbert.distill.run.distill_kim --config confs/kim_cnn_sst2.json", "Kim's CNN",
        "distill_single_classifier weighted the teacher's rows by how sure it was; here every row counts alike"),
))
