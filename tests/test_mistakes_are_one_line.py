"""Every mistake that flags, files and config.json tell is one line and exit status 2, soon, before torch, and writes nothing."""

import json
import os
import re
import resource
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from cli_case import run_cases, run_script, write_teacher
from tiny import VOCABULARY, make_shards, sample_arrays

from pretraining.args.parser import INFO

SECONDS = 2.0  # of processor time: wall time would measure the machine's other work

# A run of the tiny teacher that passes every check before torch; each case below spoils it.
GOOD = {
    "distillation": None, "method": "hidden_mse", "teacher_path": "teacher", "student_initialize": None, "num_hidden_layers": 2,
    "layer_selection": "1,3", "dataset_path": "shards", "output_dir": "runs", "job_name": "job", "current_run_id": "1",
    "train_batch_size": 8, "train_micro_batch_size_per_gpu": 4, "do_validation": None, "layer_norm_type": "pytorch", "precision": "fp32",
}
SCRATCH = {"student_initialize": False, "encoder_ln_mode": "post-ln", "layernorm_embedding": None, "num_attention_heads": 4,
           "hidden_size": 32, "intermediate_size": 64}
LOGIT = {"method": "logit", "layer_selection": False}
# What every rank of a launch finds in its environment.
RANK_1 = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}

# name of the case -> (changes to GOOD, a pattern for what was found, a pattern for what would work)
FLAGS: dict[str, tuple[dict, str, str]] = {
    "unknown_flag": ({"train_batchsize": 8}, "unknown flag --train_batchsize", "did you mean --train_batch_size"),
    "dashes": ({"teacher-path": "x"}, "unknown flag --teacher-path", "did you mean --teacher_path"),
    "abbreviation": ({"teacher_pat": "x"}, "unknown flag --teacher_pat", "did you mean --teacher_path"),
    "missing_value": ({"lr": None}, "--lr", "expected one argument"),
    "no_number": ({"lr": "fast"}, "--lr: .*'fast'", "peak learning rate"),
    "empty_number": ({"lr": ""}, "--lr: .*''", "peak learning rate"),
    "nan": ({"lr": "nan"}, "--lr nan", "number above 0"),
    "inf": ({"total_training_time": "inf"}, "--total_training_time inf", "number above 0"),
    "negative": ({"weight_decay": "-1"}, "--weight_decay -1", "at least 0"),
    "fraction_of_a_step": ({"max_steps": "1.5"}, "--max_steps: '1.5' is not a whole number", "optimizer steps"),
    "huge": ({"max_steps": "9" * 400}, "--max_steps: '9+'... is beyond 64 bits", "optimizer steps"),
    "nan_seed": ({"seed": "nan"}, "--seed: 'nan' is not a whole number", "seed of"),
    "negative_seed": ({"seed": "-1"}, "--seed -1", "from 0 to"),
    "boolean": ({"do_validation": "perhaps"}, "--do_validation: 'perhaps'", "true nor false"),
    "choice": ({"curve": "cosine"}, "--curve: 'cosine'", "linear, exp"),
    "nan_early_stop": ({"early_stop_eval_loss": "nan"}, "--early_stop_eval_loss nan", "finite"),
    "nan_dropout": ({"hidden_dropout_prob": "nan"}, "--hidden_dropout_prob nan", "from 0 to below 1"),
    "batch": ({"train_batch_size": 10}, "--train_batch_size 10 is not a multiple of .* 4 times 1 rank",
              r"--train_batch_size (8|12) works"),
    "micro_zero": ({"train_micro_batch_size_per_gpu": 0}, "--train_micro_batch_size_per_gpu 0", "number above 0"),
    "clock": ({"clock": "sundial"}, "--clock sundial", "simulated:SECONDS_PER_STEP"),
    "clock_number": ({"clock": "simulated:-1"}, "--clock simulated:-1", "such as simulated:2.5"),
    "clock_nan": ({"clock": "simulated:nan"}, "--clock simulated:nan", "such as simulated:2.5"),
    "marker_zero": ({"finetune_time_markers": "0,0.5"}, "'0' is not a fraction", "above 0 and up to 1"),
    "marker_above": ({"finetune_time_markers": "0.5,1.5"}, "'1.5' is not a fraction", "above 0 and up to 1"),
    "marker_word": ({"finetune_time_markers": "0.5,,1"}, "'' is not a fraction", "above 0 and up to 1"),
    "marker_nan": ({"finetune_time_markers": "nan"}, "'nan' is not a fraction", "above 0 and up to 1"),
    "objective": ({"method": "hidden_mes"}, "'hidden_mes' is not an objective", "available: hidden_mse, hidden_cls.* mlm, .*tinybert"),
    "empty_objective": ({"method": ""}, "'' is not an objective", "available: hidden_mse"),
    "weight": ({"method": "hidden_mse:inf"}, "weight of hidden_mse is 'inf'", "positive number"),
    "no_method": ({"method": False, "layer_selection": False}, "--distillation needs --method", "available: hidden_mse"),
    "no_teacher_path": ({"teacher_path": False, **SCRATCH}, "--distillation needs --teacher_path", "Hugging Face folder"),
    "option": ({"temperature": 2}, "--temperature belongs to logit", "leave it out"),
    "schedule": ({"lr_schedule": "step"}, "--lr_schedule step", "needs --max_steps"),
    "zero_stage": ({"zero_stage": 3}, "--zero_stage 3", "0, 1 and 2 work"),
    "heads_zero": ({**SCRATCH, "num_attention_heads": 0}, "--num_attention_heads 0", "number above 0"),
    "no_output": ({"output_dir": False}, "--output_dir is missing", "OUTPUT_DIR/JOB_NAME"),
    "empty_output": ({"output_dir": ""}, "--output_dir is empty", "give a path"),
    "empty_teacher": ({"teacher_path": ""}, "--teacher_path is empty", "give a path"),
    "empty_job": ({"job_name": ""}, "--job_name ''", "a name below --output_dir"),
    "climbing_job": ({"job_name": "../.."}, "--job_name '../..'", "a name below --output_dir"),
    "predivide": ({"prescale_gradients": None, "gradient_predivide_factor": 2}, "--gradient_predivide_factor", "give one of them"),
    "resume_overwrite": ({"resume": None, "overwrite": None}, "--resume .* --overwrite", "give one of them"),
    "load_empty": ({"load_training_checkpoint": ""}, "--load_training_checkpoint is empty", "give a path"),
    "load_id": ({"load_checkpoint_id": "step_4"}, "--load_checkpoint_id step_4: of which run", "--load_training_checkpoint FOLDER"),
    "changes": ({"allow_changes": None}, "--allow_changes is about a saved run", "give --resume"),
    "keep_none": ({"keep_checkpoints": 0}, "--keep_checkpoints 0", "number above 0"),
    "steps_between": ({"steps_between_checkpoints": 0}, "--steps_between_checkpoints 0", "-1 for never"),
    "minutes_between": ({"minutes_between_checkpoints": "nan"}, "--minutes_between_checkpoints nan", "-1 for never"),
    "deadline_word": ({"deadline": "tomorrow"}, "--deadline tomorrow", "2026-12-01T08:00"),
    "deadline_past": ({"deadline": "2020-01-01T00:00"}, "--deadline 2020-01-01T00:00 has passed", "a later time, or none"),
    "deadline_far": ({"deadline": "2020-13-01T00:00"}, "--deadline 2020-13-01T00:00", "or none"),
    "part_twice": ({"method": "tinybert,hidden_mse"}, "hidden_mse is in it twice", "add the weights up"),
    "weight_word": ({"method": "att_mse:much"}, "the weight of att_mse is 'much'", "a positive number"),
    "foreign_option": ({"relation_heads": 4}, "--relation_heads belongs to minilm_v2", "leave it out"),
    "alpha_without_distilbert": ({"alpha_ce": 1}, "--alpha_ce belongs to distilbert", "leave it out"),
    "stage": ({"method": "att_val_two_stage", "layer_selection": False, "second_stage": 1.5}, "--second_stage 1.5", "above 0 and below 1"),
    "stage_never": ({"method": "att_val_two_stage", "layer_selection": False, "early_exit_time_marker": 1}, "would stop before 50%",
                    "--second_stage sets where"),
    "alphas_zero": ({"method": "distilbert", "layer_selection": False, "alpha_ce": 0, "alpha_mlm": 0, "alpha_cos": 0},
                    "every alpha is 0", "give one above 0"),
    "stage_zero_1": ({"method": "att_val_two_stage", "layer_selection": False, "zero_stage": 1}, "changes what is learnt",
                     "--zero_stage 0"),
    "aug_text": ({"method": "hidden_mse,mlm", "aug": None}, "--aug replaces the text that mlm learns", "look at the teacher"),
    "lamb_zero_1": ({"optimizer_type": "lamb", "zero_stage": 1}, "lamb: it needs the shapes of weights", "--zero_stage 0 works, or adamw"),
    "coefficients": ({"optimizer_type": "lamb", "min_coeff": 2}, "--min_coeff 2.0 is above --max_coeff 0.3", "swap"),
    "tracker": ({"report_to": "wandb"}, "wandb is not installed", "pip install wandb"),
    "tensorboard": ({"report_to": "tensorboard"}, "tensorboard is not installed", "pip install tensorboard"),
}
FILES: dict[str, tuple[dict, str, str]] = {
    "config_missing": ({"config": "nowhere.yaml"}, "--config nowhere.yaml: no such file", "give a YAML file"),
    "config_key": ({"config": "key.yaml"}, "unknown key 'layer_selecton'", "did you mean layer_selection"),
    "config_broken": ({"config": "broken.yaml"}, "--config broken.yaml: not a recipe", "one `flag: value` per line"),
    "config_list": ({"config": "list.yaml"}, "found a list", "one `flag: value` per line"),
    "config_nested": ({"config": "nested.yaml"}, "job_name: found a mapping", "a value or a list"),
    "config_deep": ({"config": "deep.yaml"}, "found lists or mappings inside a list", "a value or a list"),
    "config_twice": ({"config": "twice.yaml"}, "'lr' is written twice", "one `flag: value` per line"),
    "config_binary": ({"config": "teacher/model.safetensors"}, "not a recipe", "one `flag: value` per line"),
    "config_value": ({"config": "value.yaml"}, r"value.yaml: max_steps: .*\[|max_steps: .*'1,2'", "optimizer steps"),
    "deepspeed_batch": ({"deepspeed_config": "ds_batch.json"}, "train_batch_size is 16, --train_batch_size is 8", 'write "auto"'),
    "deepspeed_accumulation": ({"deepspeed_config": "ds_accumulation.json"}, "gradient_accumulation_steps is 4, .* takes 2",
                               'write "auto"'),
    "teacher_missing": ({"teacher_path": "nowhere"}, "--teacher_path nowhere: no such folder", "config.json and model.safetensors"),
    "teacher_without_weights": ({"teacher_path": "no_weights"}, "--teacher_path no_weights: no weights", "model.safetensors"),
    "teacher_without_config": ({"teacher_path": "no_config"}, "--teacher_path no_config: no config.json", "Hugging Face folder"),
    "teacher_is_a_file": ({"teacher_path": "teacher/config.json"}, "no such folder", "Hugging Face folder"),
    "config_json_list": ({"teacher_path": "json_list"}, "model_type None", r"known: bert-mlm \(bert\)"),
    "config_json_broken": ({"teacher_path": "json_broken"}, "config.json is not JSON", "save the model again"),
    "config_json_depth": ({"teacher_path": "no_depth"}, "config.json lacks num_hidden_layers", "save the model again"),
    "config_json_width": ({"teacher_path": "no_width"}, "config.json lacks hidden_size", "save the model again"),
    "config_json_word": ({"teacher_path": "word_width"}, "hidden_size '32'", "a whole number above 0"),
    "config_json_heads": ({"teacher_path": "odd_heads"}, "hidden_size 32, which does not divide by num_attention_heads 5", "divide"),
    "config_json_dropout": ({"teacher_path": "dropout"}, "hidden_dropout_prob 'x'", "from 0 to below 1"),
    "config_json_null": ({"teacher_path": "null_positions"}, "max_position_embeddings None", "a whole number above 0"),
    "config_json_activation": ({"teacher_path": "activation"}, r"hidden_act \['gelu'\]", "such as gelu"),
    "config_json_family": ({"teacher_path": "t5"}, "model_type 't5'", r"known: bert-mlm \(bert\)"),
    "weights_garbage": ({"teacher_path": "garbage"}, "model.safetensors is not a safetensors file", "copy it again"),
    "weights_list": ({"teacher_path": "header_list"}, "model.safetensors is not a safetensors file", "copy it again"),
    "weights_pointer": ({"teacher_path": "pointer"}, "model.safetensors is not a safetensors file", "copy it again"),
    "weights_empty": ({"teacher_path": "empty"}, "model.safetensors is not a safetensors file", "copy it again"),
    "weights_cut": ({"teacher_path": "cut"}, r"model.safetensors has \d+ bytes, expected \d+", "copy it again"),
    "weights_index": ({"teacher_path": "bad_index"}, "no index of weights", "copy it again"),
    "weights_part": ({"teacher_path": "lost_part"}, "names part_2.safetensors, which is not there", "copy the whole folder"),
    "bin_garbage": ({"teacher_path": "bin_garbage"}, "pytorch_model.bin is not a file of torch.save", "copy it again"),
    "bin_cut": ({"teacher_path": "bin_cut"}, "pytorch_model.bin .* was cut short", "copy it again"),
    "headless_logit": ({"teacher_path": "headless", **LOGIT}, "logit: logit compares logits.* no language-model head", "hidden_mse works"),
    "layer_outside": ({"layer_selection": "1,4"}, "layer 4 is outside the teacher", "0 to 3"),
    "layer_negative": ({"layer_selection": "-1"}, "layer -1 is outside the teacher", "0 to 3"),
    "layer_word": ({"layer_selection": "deepest"}, "'deepest' is not a layer number", "1,3,5, or one of last, uniform, first"),
    "layer_empty": ({"layer_selection": ""}, "'' is not a layer number", "1,3,5"),
    "student_layers_outside": ({"student_layers": "0,4"}, "--student_layers 0,4: layer 4 is outside the teacher", "0 to 3"),
    "student_layers_count": ({"student_layers": "0,1,2"}, "are 3 layers, --num_hidden_layers is 2", "leave one out"),
    "too_deep": ({"num_hidden_layers": 5}, "--num_hidden_layers 5", "1 to 4 works"),
    "unequal": ({"layer_selection": "0,1,3"}, "3 teacher layers .* 2 student layers", "equally long"),
    "student_outside": ({"student_layer_selection": "0,2"}, "layer 2 is outside the student", "0 to 1"),
    "width": ({**SCRATCH, "hidden_size": 64, "hidden_projection": "none"}, "student's hidden_size is 64, the teacher's 32",
              "free of width: .*minilm_v2.*cka"),
    "width_of_copied_layers": ({"hidden_size": 64}, "--hidden_size 64: .* 32", "at most that works"),
    "width_between_heads": ({"hidden_size": 20}, "--hidden_size 20: the teacher's heads of 8", "16 or 24 works"),
    "head_counts": ({**SCRATCH, "num_attention_heads": 2, "method": "att_kl"}, "the student has 2 heads, the teacher 4",
                    "--num_attention_heads 4 works, .*minilm_v2"),
    "head_counts_of_a_cut": ({"hidden_size": 16, "method": "att_kl"}, "the student has 2 heads, the teacher 4", "--hidden_size 32 works"),
    "contrast_of_one": ({"method": "crd", "train_micro_batch_size_per_gpu": 1}, "no other sample to tell apart", "2 or more works"),
    "relation_heads": ({"method": "minilm_v2", "relation_heads": 5, "layer_selection": False}, "--relation_heads 5 does not divide",
                       "these do: 1, 2, 4, 8, 16, 32"),
    "causal_teacher": ({**SCRATCH, "teacher_path": "gpt", "model_type": "bert-mlm"}, "a gpt2 and a bert", "both be causal, or both not"),
    "copying_across": ({"teacher_path": "teacher", "model_type": "roberta-mlm"}, "the teacher is bert, the student roberta",
                       "--model_type bert-mlm works"),
    "clm_encoder": ({"method": "hidden_mse,clm"}, "bert.* sees both sides", "trained by mlm"),
    "nsp_head": ({"method": "hidden_mse,nsp"}, "the student has no next-sentence head", "--model_type bert-mlm-nsp has one"),
    "nsp_labels": ({"method": "hidden_mse,nsp", "model_type": "bert-mlm-nsp"}, "holds no next_sentence_labels", "shards with them"),
    "heads": ({**SCRATCH, "num_attention_heads": 5}, "--hidden_size 32 does not divide", "--num_attention_heads 5"),
    "pre_ln": ({"encoder_ln_mode": "pre-ln"}, "--encoder_ln_mode pre-ln: bert is post-ln", "leave the flag out"),
    "student_missing": ({"student_initialize": "nowhere"}, "--student_initialize nowhere: no such folder", "Hugging Face folder"),
    "student_vocabulary": ({"student_initialize": "small_vocabulary", "num_hidden_layers": 4}, "vocab_size is 20, the teacher's",
                           "teacher's vocabulary works"),
    "student_depth": ({"student_initialize": "teacher"}, "--num_hidden_layers 2", "has 4 layers"),
    "no_tokenizer": ({"teacher_path": "bare"}, "no tokenizer", "give --tokenizer_name"),
    "tokenizer_missing": ({"tokenizer_name": "./models/nowhere/at/all"}, "no such file or folder", "vocab.txt or a hub name"),
    "shards_missing": ({"dataset_path": "nowhere"}, "--dataset_path nowhere: no such folder", "train and test HDF5 shards"),
    "no_train": ({"dataset_path": "no_train"}, "no train shard", "train_shard_0.hdf5"),
    "no_test": ({"dataset_path": "no_test"}, "no test shards", "leave the flag out"),
    "beyond_vocabulary": ({"dataset_path": "beyond"}, f"input_ids holds {VOCABULARY + 7}", f"below {VOCABULARY}"),
    "foreign_beyond_tokenizer": ({"dataset_path": "foreign", "tokenizer_name": "few_tokens"},
                                 r"input_ids holds \d+, expected numbers below 20 \(the run's tokenizer has 20 tokens",
                                 "--tokenizer_name with the one that made the shards"),
    "foreign_other_start": ({"dataset_path": "foreign", "tokenizer_name": "other_start"},
                            r"row 0 begins with token 2, and the start token of the run's tokenizer is 3",
                            "--tokenizer_name with the one that made the shards"),
    "unmasked_foreign": ({"dataset_path": "unmasked"}, "no masked_lm_positions .* no attribute mask_token_id", "generate_samples.py"),
    "broken_shard": ({"dataset_path": "broken_shard"}, "is no HDF5 file", "copy it anew"),
    "other_tokenizer": ({"tokenizer_name": "other_tokenizer"}, "tokenizer_sha256", "use the tokenizer that made the shard"),
    "too_long": ({"teacher_path": "short"}, "sequences of 32 tokens, the models have 16 positions", "at most that length"),
    "below_a_file": ({"output_dir": "teacher/config.json/runs"}, "config.json is a file", "choose a folder"),
    "kernel_folder": ({"output_dir": "/proc/x"}, "--output_dir /proc/x.*(cannot write|no permission)", "choose"),
    "long_name": ({"job_name": "x" * 300}, "File name too long", "choose another folder"),
    "finished": ({"current_run_id": "finished"}, r"holds a finished run \(max_steps\)", "--overwrite moves it aside"),
    "load_nowhere": ({"load_training_checkpoint": "nowhere"}, "--load_training_checkpoint nowhere: no checkpoint", "the folder of a run"),
    "load_overwritten": ({"current_run_id": "unfinished", "overwrite": None, "load_training_checkpoint": "runs/job/unfinished"},
                         "--overwrite would move the checkpoints", "leave it out"),
    "unfinished": ({"current_run_id": "unfinished"}, "unfinished run with checkpoints", "--resume goes on"),
    "summary_list": ({"current_run_id": "summary_list"}, "not a summary of a run", "--overwrite"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder in which GOOD would run, and everything that the cases above name."""
    place = tmp_path_factory.mktemp("mistakes")
    write_teacher(place / "teacher")
    make_shards(place / "shards", train=1, rows=12)
    make_teachers(place)
    make_recipes(place)
    make_wrong_shards(place)
    (place / "other_tokenizer").mkdir()
    tokens = (place / "teacher" / "vocab.txt").read_text().split()
    (place / "other_tokenizer" / "vocab.txt").write_text("\n".join([*tokens[:5], *reversed(tokens[5:])]) + "\n")
    for name, chosen in (("few_tokens", tokens[:20]), ("other_start", [*tokens[:2], tokens[3], tokens[2], *tokens[4:]])):
        (place / name).mkdir()
        (place / name / "vocab.txt").write_text("\n".join(chosen) + "\n")
    for name, summary in (("finished", {"exit_reason": "max_steps"}), ("unfinished", {"exit_reason": "signal"}), ("summary_list", [])):
        folder = place / "runs" / "job" / name
        (folder / "checkpoints" / "step_5").mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps(summary))
    return place


def make_teachers(place: Path) -> None:
    for name, changes in {
        "no_weights": {}, "no_config": {}, "json_list": {}, "json_broken": {}, "garbage": {}, "header_list": {}, "pointer": {}, "empty": {},
        "cut": {}, "bad_index": {}, "lost_part": {}, "no_depth": {"num_hidden_layers": ...}, "no_width": {"hidden_size": ...},
        "word_width": {"hidden_size": "32"}, "odd_heads": {"num_attention_heads": 5}, "dropout": {"hidden_dropout_prob": "x"},
        "null_positions": {"max_position_embeddings": None}, "activation": {"hidden_act": ["gelu"]},
        "bin_garbage": {}, "bin_cut": {}, "t5": {"model_type": "t5"},
        "gpt": {"model_type": "gpt2", "n_embd": 32, "n_layer": 4, "n_head": 4},
        "headless": {"head": False}, "bare": {"tokenizer": False},
        "short": {"max_position_embeddings": 16}, "small_vocabulary": {"vocab_size": 20},
    }.items():
        write_teacher(place / name, **changes)
    for name in ("no_weights", "bad_index", "lost_part", "bin_garbage", "bin_cut"):
        (place / name / "model.safetensors").unlink()
    (place / "no_config" / "config.json").unlink()
    (place / "json_list" / "config.json").write_text("[1, 2]")
    (place / "json_broken" / "config.json").write_text('{"model_type": "bert"')
    whole = (place / "cut" / "model.safetensors").read_bytes()
    header = b"[1, 2]"
    for name, content in {"garbage": (20).to_bytes(8, "little") + b"\xff" * 40, "cut": whole[:-10], "empty": b"",
                          "header_list": len(header).to_bytes(8, "little") + header,
                          "pointer": b"version https://git-lfs.github.com/spec/v1\n"}.items():
        (place / name / "model.safetensors").write_bytes(content)
    (place / "bin_garbage" / "pytorch_model.bin").write_bytes(b"garbage")
    with zipfile.ZipFile(place / "bin_cut" / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", b"0" * 1000)
    os.truncate(place / "bin_cut" / "pytorch_model.bin", 500)
    (place / "bad_index" / "model.safetensors.index.json").write_text("[]")
    (place / "lost_part" / "model.safetensors.index.json").write_text('{"weight_map": {"a": "part_2.safetensors"}}')


def make_recipes(place: Path) -> None:
    for name, text in {
        "key.yaml": "layer_selecton: 3\n", "broken.yaml": "lr: [1, 2\nseed", "list.yaml": "- lr\n- 1\n",
        "nested.yaml": "job_name: {a: b}\n", "deep.yaml": "layer_selection: [[1], 3]\n", "twice.yaml": "lr: 1\nlr: 2\n",
        "value.yaml": "max_steps: [1, 2]\n",
        "ds_batch.json": '{"train_batch_size": 16}', "ds_accumulation.json": '{"gradient_accumulation_steps": 4}',
    }.items():
        (place / name).write_text(text)


def make_wrong_shards(place: Path) -> None:
    make_shards(place / "no_train", train=0, rows=4)
    make_shards(place / "no_test", train=1, test=0, rows=4)
    (place / "broken_shard").mkdir()
    (place / "broken_shard" / "train_shard_0.hdf5").write_bytes(b"no HDF5")
    (place / "broken_shard" / "test_shard_0.hdf5").write_bytes(b"no HDF5")
    for name, masking in (("beyond", "static"), ("foreign", "static"), ("unmasked", "none")):
        (place / name).mkdir()
        for split in ("train", "test"):  # as other scripts write them: no attributes
            arrays = sample_arrays(6, 32, masking, np.random.default_rng(0))
            arrays["input_ids"][5, 2] = VOCABULARY + 7 if name == "beyond" else 9
            with h5py.File(place / name / f"{split}_shard_0.hdf5", "w") as file:
                for key, values in arrays.items():
                    file[key] = values


def words(changes: dict) -> list[str]:
    """GOOD with `changes` as a command line: None is a bare flag, False one that is left out."""
    flags = GOOD | changes
    return [word for name, value in flags.items() if value is not False
            for word in ([f"--{name}"] if value is None else [f"--{name}", str(value)])]


NO_PACKAGES = """
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("wandb", "tensorboard") else find_spec(name, *rest)
"""


@pytest.fixture(scope="module")
def results(place) -> dict[str, dict]:
    """What each case did, all run in one process, and GOOD with --print_config last."""
    cases = FLAGS | FILES
    alone = run_cases(place, [*(words(changes) for changes, *_ in cases.values()), [*words({}), "--print_config"]], prelude=NO_PACKAGES)
    return dict(zip([*cases, "good"], alone, strict=True))


@pytest.mark.parametrize("name", FLAGS | FILES)
def test_a_mistake_is_one_line_and_status_2(name, results):
    _, found, works = (FLAGS | FILES)[name]
    result = results[name]
    assert result["status"] == 2, result
    assert result["out"] == ""
    assert result["err"].count("\n") == 1
    assert result["err"].endswith("\n")
    line = result["err"].rstrip()
    assert line.startswith("error: ")
    assert re.search(found, line), line
    assert re.search(works, line), line
    assert len(line) < 700


@pytest.mark.parametrize("name", FLAGS | FILES)
def test_a_mistake_is_found_soon_before_torch_and_writes_nothing(name, results):
    assert results[name]["heavy"] == []
    assert results[name]["seconds"] < SECONDS
    assert results[name]["changed"] == []


def test_the_run_that_the_cases_spoil_is_a_good_one(place, results):
    """Else every case could fail for a reason of its own."""
    assert results["good"]["status"] == 0
    probe = ("from pretraining.args.parser import parse\nfrom pretraining.args.resolve import resolve\n"
             "from pretraining.launch import read_launch\nfrom pretraining.preflight import make_plan\n"
             "plan = lambda: make_plan(resolve(parse(sys.argv[1:]), read_launch(-1)))\n"
             "run_pretraining_main = lambda: print(plan().objectives.parts['hidden_mse'].pairs) or 0\n"
             "import run_pretraining\nrun_pretraining.main = run_pretraining_main\n")
    passed = run_cases(place, [words({}), words(SCRATCH), words({"current_run_id": "finished", "overwrite": None}),
                               words({"current_run_id": "summary_list", "overwrite": None}),
                               words({"current_run_id": "unfinished", "resume": None}), words({"finetune_time_markers": ""})],
                       prelude=probe)
    for result in passed:
        assert (result["status"], result["out"], result["err"]) == (0, "((0, 1), (1, 3))\n", "")
        assert (result["heavy"], result["changed"]) == ([], [])


def test_rank_1_of_a_launch_says_nothing_and_rank_0_speaks(place):
    cases = [words(FLAGS["batch"][0]), words(FILES["no_test"][0]), words(FLAGS["unknown_flag"][0])]
    for rank, lines in (("1", 0), ("0", 1)):
        for result in run_cases(place, cases, [RANK_1 | {"RANK": rank}] * len(cases)):
            assert (result["status"], result["out"], result["err"].count("\n")) == (2, "", lines)


def test_an_environment_that_no_launcher_makes_is_a_mistake(place):
    environments = [RANK_1 | change for change in ({"RANK": "one"}, {"RANK": "2"}, {"RANK": "0", "WORLD_SIZE": "0"},
                                                   {"RANK": "0", "MASTER_PORT": "x"}, {"RANK": "0", "LOCAL_RANK": "-2"})]
    environments.append({"RANK": "0", "WORLD_SIZE": "2"})
    for result in run_cases(place, [words({})] * len(environments), environments):
        assert (result["status"], result["out"], result["err"].count("\n"), result["heavy"]) == (2, "", 1, []), result


@pytest.mark.parametrize("name", ["unknown_flag", "headless_logit", "beyond_vocabulary"])
def test_a_real_process_ends_soon_with_status_2(name, place, tmp_path):
    """Torch, DeepSpeed and transformers cannot be imported here at all."""
    for package in ("torch", "deepspeed", "transformers"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(f"raise RuntimeError('{package} was imported')\n")
    changes = {key: str(place / value) if key in ("teacher_path", "dataset_path", "output_dir") else value
               for key, value in (GOOD | (FLAGS | FILES)[name][0]).items()}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    finished = run_script(*words(changes), PYTHONPATH=str(tmp_path))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (finished.returncode, finished.stdout, finished.stderr.count("\n")) == (2, "", 1), finished.stderr
    assert re.search((FLAGS | FILES)[name][1], finished.stderr)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < SECONDS


def test_fp16_on_a_cpu_without_it_names_what_works_and_writes_nothing(place):
    """What the device knows needs torch, and is still found before anything is written."""
    prelude = "import pretraining.precision\npretraining.precision.cpu_features = set\n"
    [result] = run_cases(place, [words({"precision": False, "fp16": None})], prelude=prelude)
    assert (result["status"], result["out"], result["err"].count("\n"), result["changed"]) == (2, "", 1, [])
    assert re.search("--precision fp16 .*no fp16.*it can do fp32: append --precision fp32", result["err"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_named(place):
    (place / "locked").mkdir(mode=0o500, exist_ok=True)
    [result] = run_cases(place, [words({"output_dir": "locked/runs"})])
    assert (result["status"], result["err"].count("\n")) == (2, 1)
    assert "no permission" in result["err"]


def test_help_lists_every_flag():
    finished = run_script("--help")
    assert finished.returncode == 0
    assert {f"--{name}" for name in INFO} <= set(re.findall(r"--\w+", finished.stdout))
