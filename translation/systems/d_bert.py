"""D-BERT (file 003): task-specific distillation, planned here as `run_task_distillation.py`. Its commands are printed as comments."""

from translation.calls import Translation
from translation.table import Flag, Script, Step, System, Takes, To


def planned(call: Translation) -> None:
    """The command comes with task-specific distillation."""
    call.note(f"{call.call.name}: not there yet: run_task_distillation.py comes with task-specific distillation; the names in the line are "
              "the planned ones")


def teach_or_label(call: Translation) -> None:
    """With `--export` the teacher's outputs on the transfer set are written: `label` in the place of `teach`."""
    if "export" in call.given:
        call.last.fixed = ["label"]


def _rows(words: str) -> tuple[Flag, ...]:
    """`name`, `name?` for a switch, `name*` for several words; dashes become underscores."""
    rows = []
    for word in words.split():
        name = word.rstrip("?*")
        takes = Takes.SWITCH if word.endswith("?") else Takes.LIST if word.endswith("*") else Takes.WORD
        rows.append(Flag(name, (To(f"--{name.replace('-', '_')}"),), takes=takes))
    return tuple(rows)


def _script(names: str, command: str, flags: str, example: str, title: str, *more: Flag, rules=()) -> Script:
    return Script(tuple(names.split()), (Step("planned", f"run_task_distillation.py {command}"),), (*_rows(flags), *more), example=example,
                  title=title, rules=(*rules, planned), planned=True)


_FINE_TUNE = ("cache-file save learning-rate train-batch-size eval-batch-size num-train-epochs seed warmup-proportion weight-decay "
              "log-interval "
              "resume cache-dir no-train? test-eval? use-sos? no-split-encode? no-drop-last? conditioned-model? reset?")
_SAMPLE = "resume prefix-file num-samples paired? seed transfo-model"
_DISTIL = "config load_last_checkpoint? load_best_checkpoint? eval_test_only? export_eval_labels?"

D_BERT = System("d_bert", "D-BERT: from a fine-tuned BERT to a BiLSTM", (
    _script("dbert.distill.run.augment_data", "augment", "mask_prob random_prob window_prob window_lengths* n_iter dataset_file seed "
                                                         "tokenizer",
            "python -m dbert.distill.run.augment_data --dataset_file SST-2/train.tsv > augmented.txt", "transfer set by rules"),
    _script("dbert.distill.run.augment_paired_data", "augment", "task random_prob mask_prob window_prob window_lengths* single_only_prob "
            "paired_prob n_iter", "python -m dbert.distill.run.augment_paired_data --task mrpc --dataset_file MRPC/train.tsv > "
                                  "augmented.txt",
            "the same for pairs", Flag("dataset_file f", (To("--dataset_file"),))),
    _script("dbert.generate.cache_datasets", "generate", "data-dir output-file seed no-char-dict? resume dataset-type column column1 "
                                                         "column2 "
            "filter-label label-column word-level?", "python -m dbert.generate.cache_datasets --data-dir SST-2 --output-file cache.pt",
            "transfer set by a language model: its text"),
    _script("dbert.generate.finetune_transfoxl", "generate", f"{_FINE_TUNE} transfo-model",
            "python -m dbert.generate.finetune_transfoxl --save model.pt --cache-file cache.pt --train-batch-size 48", "the language "
                                                                                                                       "model"),
    _script("dbert.generate.finetune_gpt", "generate", f"{_FINE_TUNE} gpt2-model",
            "python -m dbert.generate.finetune_gpt --save model.pt --cache-file cache.pt", "the language model, GPT-2"),
    _script("dbert.generate.finetune_bert", "generate", f"{_FINE_TUNE} bert-model",
            "python -m dbert.generate.finetune_bert --save model.pt --cache-file cache.pt", "the language model, BERT"),
    _script("dbert.generate.build_sampler", "generate", "cache-file save gpt2-model transfo-model model-type seed",
            "python -m dbert.generate.build_sampler --cache-file cache.pt --save prefixes.pt --model-type gpt2", "first words"),
    _script("dbert.generate.sample_transfoxl", "generate", _SAMPLE,
            "python -m dbert.generate.sample_transfoxl --prefix-file prefixes.pt --paired > sampled.txt", "sampling"),
    _script("dbert.generate.sample_gpt", "generate", f"{_SAMPLE} gpt2-model transfo? bert? num-buffers balance-every simple-sample? msl",
            "python -m dbert.generate.sample_gpt --prefix-file prefixes.pt --resume model.pt > sampled.txt", "sampling, GPT-2"),
    _script("dbert.generate.clean_gen", "generate", "files* tokenize? paired?", "python -m dbert.generate.clean_gen --files sampled.txt",
            "cleaning"),
    _script("dbert.finetune.classifier", "teach", "config model_file workspace seed not_uncased? n_labels device data_dir task_name "
                                                  "do_test_only? "
            "no_train? eval_batch_size visualize? train_file learning_rate export max_seq_length train_batch_size num_train_epochs",
            "python -m dbert.finetune.classifier --config confs/sst2-ft.json --learning_rate 4e-5 --workspace teacher",
            "teacher; with `--export` its outputs", rules=(teach_or_label,)),
    _script("dbert.distill.run.join_logits", "label", "logits_file n_logits dataset_file format output_file dataset_name",
            "python -m dbert.distill.run.join_logits --logits_file logits.pt --dataset_file augmented.txt", "outputs beside the text"),
    _script("dbert.run.distill_birnn dbert.distill.run.distill_birnn dbert.distill.run.distill_siamese_rnn "
            "dbert.distill.run.distill_siamese_rnn_mnli dbert.distill.run.distill_simple_siamese "
            "dbert.distill.run.distill_single_classifier "
            "dbert.distill.run.distill_kim", "distil", _DISTIL,
            "python -m dbert.run.distill_birnn --config confs/birnn_sst2.json", "student"),
))
