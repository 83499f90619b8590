"""The one table: every flag of every old script has its row, every row's answer is a command that our parsers take, and the page is its
print.
"""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from cli_case import LITERAL_FLAGS, LOST_FLAGS
from test_every_flag_counts import FURTHER_FLAGS
from translate_case import YOURS, accept, flags_of, ours, run_by_bash

from dataset import generate_samples, merge_shards, process_data, shard_data
from pretraining.args.parser import INFO
from translation import own
from translation.migrating import PAGE, page
from translation.shell import parse_shell
from translation.systems import SCRIPTS, SYSTEMS
from translation.table import Flag, Script, Takes
from translation.translate import translate

_TRAIN_OF_002 = """force dump_path data_file token_counts temperature alpha_ce alpha_mlm alpha_mse mlm_mask_prop word_mask word_keep
word_rand
mlm_smoothing restrict_ce_to_mask n_epoch batch_size group_by_size gradient_accumulation_steps warmup_prop weight_decay learning_rate
adam_epsilon max_grad_norm initializer_range fp16 fp16_opt_level n_gpu local_rank seed log_interval checkpoint_interval """
_DISTIL_OF_000 = """bert_config_file input_file output_dir init_checkpoint max_seq_length max_predictions_per_seq do_train do_eval
train_batch_size eval_batch_size learning_rate num_train_steps num_warmup_steps save_checkpoints_steps iterations_per_loop max_eval_steps
use_tpu tpu_name tpu_zone gcp_project master num_tpu_cores """
_LABELS_OF_000 = "bert_config_file input_file output_file init_checkpoint max_seq_length max_predictions_per_seq batch_size "
_TUNE_OF_003 = """cache-file save learning-rate train-batch-size eval-batch-size num-train-epochs seed warmup-proportion weight-decay
log-interval resume cache-dir no-train test-eval use-sos no-split-encode no-drop-last conditioned-model reset """
_STUDENT_OF_003 = """config workspace dataset_path dataset_name seed epochs distill_lambda distill_temperature ce_lambda lookup_word
batch_size dropout lr mode load_last_checkpoint load_best_checkpoint train_file dev_file test_file eval_test_only export_eval_labels
hidden_size use_maxpool float_score optimizer early_stop device use_data_parallel logits_path vectors_file vectors_dir output_channel
words_dim clip_grad n_feature_maps rnn_type fc_size weight_decay"""
# Title in the table, if a name has several scripts, or the name -> all its flags.
FLAGS_OF_THEIRS = {
    "extract Wikipedia": "output json",
    "extract_jsons.py": "folder write_file",
    "split_text.py": "read_file split_number folder name_base",
    "multifile_create_pretraining_data.py": "input_dir output_dir output_base_name vocab_file do_lower_case max_seq_length "
                                            "max_predictions_per_seq random_seed dupe_factor masked_lm_prob short_seq_prob",
    "extract_teacher_labels_truncated.py": f"{_LABELS_OF_000} truncation_factor",
    "extract_teacher_labels.py": _LABELS_OF_000,
    "network_distillation_single_machine_truncated.py": f"{_DISTIL_OF_000} truncation_factor",
    "network_distillation_single_machine.py": _DISTIL_OF_000,
    "network_distillation_distributed_truncated.py": f"{_DISTIL_OF_000} truncation_factor",
    "network_distillation_distributed.py": _DISTIL_OF_000,
    "run_squad_distributed.py": _DISTIL_OF_000,
    "run_classifier_distributed.py": "data_dir bert_config_file task_name vocab_file output_dir init_checkpoint do_lower_case "
                                     "max_seq_length do_train do_eval do_predict train_batch_size eval_batch_size predict_batch_size "
                                     "learning_rate num_train_epochs warmup_proportion",
    "samples of 2019": "file_path bert_tokenizer dump_file",
    "samples, newer script": "file_path tokenizer_type tokenizer_name dump_file",
    "token_counts.py": "data_file token_counts_dump vocab_size",
    "extract_for_distil.py": "bert_model dump_checkpoint vocab_transform",
    "extract_distilbert.py": "model_type model_name dump_checkpoint vocab_transform",
    "extract.py": "model_type model_name dump_checkpoint vocab_transform",
    "train of 2019": f"""{_TRAIN_OF_002} vocab_size max_position_embeddings sinusoidal_pos_embds n_layers n_heads dim hidden_dim dropout
        attention_dropout activation tie_weights_ from_pretrained_weights from_pretrained_config bert_model tokens_per_batch shuffle""",
    "train, newer script": f"""{_TRAIN_OF_002} student_type student_config student_pretrained_weights teacher_type teacher_name alpha_clm
        alpha_cos mlm freeze_pos_embs freeze_token_type_embds""",
    "run_squad_w_distillation.py": """teacher_type teacher_name_or_path alpha_ce alpha_squad temperature model_type model_name_or_path
        output_dir train_file predict_file do_train do_eval max_seq_length doc_stride learning_rate num_train_epochs""",
    "dbert.distill.run.augment_data": "mask_prob random_prob window_prob window_lengths n_iter dataset_file seed tokenizer",
    "dbert.distill.run.augment_paired_data": "dataset_file f task random_prob mask_prob window_prob window_lengths single_only_prob "
                                             "paired_prob n_iter",
    "dbert.generate.cache_datasets": "data-dir output-file seed no-char-dict resume dataset-type column column1 column2 filter-label "
                                     "label-column word-level",
    "dbert.generate.finetune_transfoxl": f"{_TUNE_OF_003} transfo-model",
    "dbert.generate.finetune_gpt": f"{_TUNE_OF_003} gpt2-model",
    "dbert.generate.build_sampler": "cache-file save gpt2-model transfo-model model-type seed",
    "dbert.generate.sample_transfoxl": "resume prefix-file num-samples paired seed transfo-model",
    "dbert.generate.sample_gpt": "gpt2-model transfo bert resume prefix-file num-samples paired num-buffers balance-every simple-sample "
                                 "msl",
    "dbert.generate.clean_gen": "files tokenize paired",
    "dbert.finetune.classifier": "config model_file workspace seed not_uncased n_labels device data_dir task_name do_test_only no_train "
                                 "eval_batch_size visualize train_file learning_rate export max_seq_length train_batch_size "
                                 "num_train_epochs uncased do_train do_eval warmup_proportion gradient_accumulation_steps fp16 loss_scale "
                                 "no_cuda",
    "dbert.distill.run.join_logits": "logits_file n_logits dataset_file format output_file dataset_name",
    **dict.fromkeys(("dbert.run.distill_birnn", "dbert.distill.run.distill_siamese_rnn", "dbert.distill.run.distill_simple_siamese",
                     "dbert.distill.run.distill_kim"), _STUDENT_OF_003),
    "process_data.py": "f o type n_processes",
    "shard_data.py": "dir o num_train_shards num_test_shards frac_test",
    "merge_shards.py": "data output_dir ratio grep",
    "generate_samples.py": "dir o model_name dup_factor seed vocab_file do_lower_case masked_lm_prob max_seq_length "
                           "max_predictions_per_seq n_processes",
    "create_pretraining_data.py": "vocab_file input_file output_file bert_model max_seq_length dupe_factor max_predictions_per_seq "
                                  "masked_lm_prob short_seq_prob do_lower_case random_seed no_nsp",
    "create_pretraining_data_roberta.py": "input_file output_file bert_model max_seq_length dupe_factor max_predictions_per_seq",
    "run_pretraining.py": " ".join([*LITERAL_FLAGS, *LOST_FLAGS, *sorted(FURTHER_FLAGS), "local-rank"]),
    "generate_training_commands.py": "param_file job_name init_cmd search_type",
    "run_glue.py": """model_name_or_path task_name max_seq_length output_dir overwrite_output_dir do_train do_eval do_predict
        evaluation_strategy eval_steps per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps learning_rate
        weight_decay max_grad_norm num_train_epochs lr_scheduler_type warmup_steps group_name project_name early_stopping_patience
        fp16_full_eval warmup_ratio total_steps log_group pad_to_max_length train_file validation_file""",
    "huggingface_finetune.py": "",
}
SAYS_NO_FLAG = {"multinode_train.sh", "dbert.generate.finetune_bert", "run_classifier.py", "run_squad.py", "wikiextractor",
                "wikiextractor.WikiExtractor", "WikiExtractor.py", "binarized_data.py", "train.py"}
"""Names without a list of their own: of a title above, without flags, or not written down anywhere."""


def find(key: str) -> Script:
    titles = {"samples of 2019": ("binarized_data.py", "samples"), "train of 2019": ("train.py", "train")}
    name, title = titles.get(key, (None, key))
    return next(script for script in SCRIPTS if (script.title == title and (name is None or name in script.names)) or (
        name is None and key in script.names))


@pytest.mark.parametrize("key", FLAGS_OF_THEIRS)
def test_every_flag_of_an_old_script_has_a_row(key):
    script = find(key)
    missing = [name for name in FLAGS_OF_THEIRS[key].split() if script.flag(name) is None]
    assert not missing


def test_every_script_of_the_table_has_its_flags_listed_here():
    listed = {name for key in FLAGS_OF_THEIRS for name in find(key).names}
    assert not {name for script in SCRIPTS for name in script.names} - listed - SAYS_NO_FLAG


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: f"{script.names[0]}:{script.title}")
def test_a_script_has_no_flag_twice_and_every_row_says_something(script):
    names = [name for flag in script.flags for name in flag.names]
    assert len(names) == len(set(names))
    assert not [flag.old for flag in script.flags if not (flag.to or flag.no_effect or flag.unsupported or flag.page)]
    assert not [flag.old for flag in script.flags if flag.no_effect and flag.unsupported]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: f"{script.names[0]}:{script.title}")
def test_the_example_of_every_script_becomes_commands_that_are_taken(script, tmp_path):
    commands = ours(script.example)
    assert bool(commands) == bool(script.steps) and bool(script.steps) != bool(script.instead)
    for words in commands:
        accept(words, tmp_path, ranks=8 if "mpirun" in words else 16 if "deepspeed" in words else 1)


def word_for(name: str, default: str | None) -> str:
    """A value of the old flag, of its kind."""
    words = {"type": "wiki", "student_type": "roberta", "model_type": "roberta", "task_name": "RTE", "activation": "relu",
             "lr_scheduler_type": "linear", "eval_strategy": "steps", "evaluation_strategy": "steps", "grep": "train", "ratio": "2",
             "max_seq_length": "384", "min_coeff": "0.1", "frac_test": "0.2", "do_lower_case": "1", "local_rank": "0", "local-rank": "0",
             "optimizer_type": "lamb", "mode": "multichannel", "rnn_type": "gru", "dataset_name": "qqb", "task": "mnli", "lr": "5e-4",
             "clip_grad": "5", "float_score": "true", **dict.fromkeys((
                 "words_dim", "msl", "n_iter", "window_lengths", "output_channel", "distill_lambda", "ce_lambda", "distill_temperature"),
                 "3")}
    if name in words:
        return words[name]
    if default is not None and re.fullmatch(r"-?[\d.e-]+", default):
        return default
    if re.search(r"prob|prop|alpha|dropout|rate|decay|smoothing|epsilon|ratio|range|word_", name):
        return "0.25"
    if re.search(r"size|num|steps?$|epoch|layers|heads|dim|seed|factor|interval|length|norm|parts|bytes|processes|beta|stride|threshold|"
                 r"embeddings|accumulation|patience|dupe|dup_|predictions", name):
        return "4"
    return "some/thing.txt"


COMPANIONS = {"train_file": "--validation_file dev.tsv", "validation_file": "--train_file train.tsv"}


def with_flag(script: Script, flag: Flag) -> tuple[str, str]:
    """(the example with this flag of it in the place of its own, the flag as it is said there)."""
    (command,), _ = parse_shell(script.example)
    words, name = list(command.words), flag.names[0]
    if f"--{name}" in words:
        at = words.index(f"--{name}")
        has_word = flag.takes is not Takes.SWITCH and at + 1 < len(words) and not words[at + 1].startswith("--")
        del words[at:at + 1 + has_word]
    value = {Takes.SWITCH: [], Takes.BOOLEAN: ["True"], Takes.OPTIONAL: []}.get(flag.takes, [word_for(name, flag.default)])
    if flag.fine and flag.takes is Takes.WORD:
        value = [flag.fine[0]]
    said = [f"{'--' if len(name) > 1 else '-'}{name}", *value]
    return " ".join([*words, *said, *(COMPANIONS.get(name, "").split() if "run_glue.py" in words else [])]), " ".join(said)


CONVERTED = [script for script in SCRIPTS if not script.same and script.steps and script.flags]


@pytest.mark.parametrize("script", CONVERTED, ids=lambda script: f"{script.names[0]}:{script.title}")
def test_every_flag_of_an_old_script_may_stand_in_a_command(script, tmp_path):
    """Beside the example, in the place of its value there: what comes is taken by our parser, and a flag without effect says so."""
    flags = [flag for flag in script.flags if flag.names[0] != script.positional]
    results = []
    for flag in flags:
        text, said = with_flag(script, flag)
        results.append(translate(text))
        if flag.no_effect:
            assert f"{said}: no effect here: {flag.no_effect}" in results[-1].notes
    commands = run_by_bash("\n".join(result.text for result in results))
    assert len(commands) >= len(flags)
    for index, words in enumerate(commands):
        (tmp_path / str(index)).mkdir()
        accept(words, tmp_path / str(index), ranks=8 if "mpirun" in words else 16 if "deepspeed" in words else 1)


def test_a_flag_that_is_not_supported_says_what_would_work():
    (note,) = [note for note in translate("python train.py --dump_path a --data_file b --token_counts c --word_mask 0.7").notes
               if "--word_mask" in note]
    assert note.startswith("--word_mask 0.7: not supported: ")
    fine = translate("python train.py --dump_path a --data_file b --token_counts c --word_mask .80").notes
    assert not [note for note in fine if "--word_mask" in note]


def test_both_sets_of_flags_of_distilbert_are_told_apart(tmp_path):
    old = "python train.py --dump_path a/b --data_file c.pickle --token_counts d.pickle"
    assert flags_of(ours(f"{old} --n_layers 4 --dim 128")[0])["num_hidden_layers"] == "4"
    new = f"{old} --student_type gpt2 --student_config training_configs/distilgpt2.json --teacher_type gpt2 --teacher_name gpt2"
    (causal,) = ours(new)
    flags = flags_of(causal)
    assert (flags["model_type"], flags["alpha_clm"], flags["alpha_mlm"], flags["vocab_size"]) == ("gpt2-clm", "0.5", "0.0", "50257")
    assert "token_counts" not in flags
    accept(causal, tmp_path)
    (roberta,) = ours(new.replace("gpt2", "roberta").replace("distilroberta", "distilroberta-base") + " --mlm --alpha_mlm 1 --alpha_clm 0")
    assert flags_of(roberta)["model_type"] == "roberta-mlm" and flags_of(roberta)["vocab_size"] == "50265"
    accept(roberta, tmp_path)


def test_the_shape_of_a_student_that_is_loaded_is_its_folders():
    old = ("python train.py --dump_path a/b --data_file c.pickle --token_counts d.pickle --n_layers 4 --dim 128 --from_pretrained_config "
           "e.json "
           "--from_pretrained_weights f/g.pth")
    flags = flags_of(ours(old)[0])
    assert flags["student_initialize"] == "f/g"
    assert not {"num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size"} & set(flags)
    assert "sinusoidal_pos_embds" not in flags
    assert "sinusoidal_pos_embds" in flags_of(ours(old.partition(" --from")[0])[0])
    assert "sinusoidal_pos_embds" not in flags_of(ours(old.partition(" --from")[0] + " --sinusoidal_pos_embds")[0])


def test_a_runs_folder_may_be_a_variable():
    (words,) = run_by_bash(translate("python train.py --dump_path $OUT --data_file $D --token_counts d").text, OUT="x/y", D="z.pickle")
    assert (flags_of(words)["output_dir"], flags_of(words)["job_name"], flags_of(words)["dataset_path"]) == ("x", "y", "z")


def test_extraction_takes_the_layers_of_the_original_whatever_the_depth():
    for command, kind in (("extract_for_distil.py --bert_model b", "distilbert-mlm"),
                          ("extract_distilbert.py --model_name b", "distilbert-mlm"),
                          ("extract.py --model_type roberta --model_name b", "roberta-mlm"),
                          ("extract.py --model_type gpt2 --model_name b", "gpt2-clm")):
        flags = flags_of(ours(f"python scripts/{command} --dump_checkpoint x/y.pth")[0])
        assert (flags["student_layers"], flags["model_type"], flags["output_dir"]) == ("0,2,4,7,9,11", kind, "x/y")


def test_squads_two_weights_become_one():
    start = "python run_squad_w_distillation.py --model_name_or_path s --output_dir o --do_train"
    taught = flags_of(ours(f"{start} --teacher_name_or_path t --alpha_ce 3 --alpha_squad 1")[0])
    assert (taught["alpha"], taught["temperature"], taught["task_name"]) == ("0.75", "2.0", "SQuAD-1.1")
    alone = flags_of(ours(f"{start} --version_2_with_negative")[0])
    assert "alpha" not in alone and "temperature" not in alone and alone["task_name"] == "SQuAD-2.0"


@pytest.mark.parametrize("name, script", [("PROCESS_DATA", process_data), ("SHARD_DATA", shard_data), ("MERGE_SHARDS", merge_shards),
                                          ("GENERATE_SAMPLES", generate_samples)])
def test_our_flags_of_scripts_with_old_names_are_known(name, script):
    said = StringIO()
    with redirect_stdout(said), pytest.raises(SystemExit):
        script.parse_flags(["--help"])
    listed = [line.strip().split("  ")[0] for line in said.getvalue().splitlines() if re.match("  -", line)]
    assert {flag for line in listed for flag in re.findall(r"(?<!\S)--?(\w+)", line)} - {"h"} == getattr(own, name)


def test_every_word_in_capitals_is_explained_where_it_stands():
    for script in SCRIPTS:
        result = translate(script.example)
        for word in YOURS:
            if re.search(rf"(?<![\w-]){word}(?!\w)", result.text):
                assert any(word in note for note in result.notes), (script.names[0], word)


def test_the_page_is_the_table():
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m translation.migrating writes it"


def test_the_page_has_every_script_and_every_flag():
    text = page()
    for system in SYSTEMS:
        for script in system.scripts:
            section = text.split(f"### `{script.names[0]}`: {script.title}\n")[1].split("\n### ")[0]
            for name in (name for flag in script.flags for name in flag.names):
                assert f"`--{name}`" in section or f"`-{name}`" in section or f"`{name}`" in section, (script.names[0], name)
    assert not {flag for flag in re.findall(r"`--(\w+)`", text.split("## Task-agnostic")[0]) if flag.startswith("teacher_ca")} - set(INFO)


def test_the_page_names_no_file_of_ours_that_is_not_there():
    root = Path(__file__).resolve().parents[1]
    named = set(re.findall(r"`((?:configs|translation|dataset|docs)/[\w./]*)`", page()))
    assert named and not [name for name in named if not (root / name).exists()]
