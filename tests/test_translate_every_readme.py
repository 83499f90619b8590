"""Every command of the five READMEs becomes one that our own parsers accept, pasted by a real shell; what it says about itself is true.

The commands are told as data: values, and the forms in which the pages have them.
"""

import pytest
from cli_case import LITERAL_FLAGS, LOST_FLAGS, REPAIRED_FLAGS, command_line
from translate_case import accept, flags_of, ours, run_by_bash

from translation.translate import translate

BERT = "uncased_L-12_H-768_A-12"
CKPT, CONFIG, VOCAB = f"{BERT}/bert_model.ckpt", f"{BERT}/bert_config.json", f"{BERT}/vocab.txt"
INTERMEDIATE, LABELS = "data/record_intermed/wiki_intermed_0.tfrecord", "data/record_distill/wiki_distill_0.tfrecord"
STUDENT = {"bert_config_file": CONFIG, "input_file": LABELS, "output_dir": "output_dir", "truncation_factor": "10", "do_train": "True",
           "do_eval": "true"}
MPI = "mpirun -np 8|-H localhost:8|-bind-to none -map-by slot|-x NCCL_DEBUG=INFO -x LD_LIBRARY_PATH -x PATH|-mca pml ob1 -mca btl ^openib"

# script (with what stands before it) -> its flags, in the order of the pages of files 000 and 001
OFFLINE: list[tuple[str, dict]] = [
    ("python extract_jsons.py", {"folder": "/folderof/foldersof/jsons/", "write_file": "/filepath/write_file.txt"}),
    ("python split_text.py", {"read_file": "wikipedia.txt", "split_number": "20", "folder": "data/split_dir", "name_base": "wiki_split"}),
    ("python multifile_create_pretraining_data.py", {
        "input_dir": "data/split_dir/", "output_dir": "data/record_intermed", "output_base_name": "wiki_intermed", "vocab_file": VOCAB}),
    ("python extract_teacher_labels_truncated.py", {
        "bert_config_file": CONFIG, INTERMEDIATE: None, "output_file": LABELS, "truncation_factor": "10", "init_checkpoint": CKPT}),
    ("python network_distillation_single_machine_truncated.py", STUDENT),
    (f"{MPI}|python network_distillation_distributed_truncated.py", STUDENT),
]
PICKLE, COUNTS = "data/binarized_text.bert-base-uncased.pickle", "data/token_counts.bert-base-uncased.pickle"
DISTILBERT: list[tuple[str, dict]] = [
    ("python scripts/binarized_data.py", {"file_path": "data/dump.txt", "bert_tokenizer": "bert-base-uncased",
                                          "dump_file": "data/binarized_text"}),
    ("python scripts/token_counts.py", {"data_file": PICKLE, "token_counts_dump": COUNTS}),
    ("python train.py", {"dump_path": "serialization_dir/my_first_training", "data_file": PICKLE, "token_counts": COUNTS,
                         "force": "# overwrites the `dump_path` if it already exists."}),
    ("python -m torch.distributed.launch|--nproc_per_node=$N_GPU_NODE|--nnodes=$N_NODES|--node_rank $NODE_RANK|--master_addr $MASTER_ADDR|"
     "--master_port $MASTER_PORT|train.py", {"force": None, "n_gpu": "$WORLD_SIZE", "data_file": PICKLE, "token_counts": COUNTS,
                                             "dump_path": "serialization_dir/my_first_distillation"}),
]
EXPORTS = {"NODE_RANK": "0", "N_NODES": "1", "N_GPU_NODE": "4", "WORLD_SIZE": "4", "MASTER_PORT": "29511", "MASTER_ADDR": "127.0.0.1"}
D_BERT = {
    "dbert.distill.run.augment_data --dataset_file (the TSV dataset file) > (output file)": "augment",
    "dbert.distill.run.augment_paired_data --task (the task) --dataset_file (the TSV dataset file) > (output file)": "augment",
    "dbert.generate.cache_datasets --data-dir (directory) --output-file (cache file)": None,
    "dbert.generate.cache_datasets --data-dir (directory) --output-file (cache file) --dataset-type pair-sentence": None,
    "dbert.generate.finetune_transfoxl --save (checkpoint file) --cache-file (the cache file) --train-batch-size (# that'll fit)":
        "generate",
    "generate.finetune_gpt": "generate",
    "dbert.generate.build_sampler --cache-file (the cache file) --save (the prefix sampler output file) --model-type gpt2": None,
    "dbert.generate.sample_transfoxl --prefix-file (the prefix sampler) --paired > (output file)": "generate",
    "dbert.finetune.classifier --config confs/*-ft.json --learning_rate 4e-5 --workspace (output workspace directory)": "teach",
    "dbert.finetune.classifier --config confs/*_export.json --no_train --do_test_only --data_dir (the data directory) --export (logits "
    "file)":
        "label",
    "dbert.distill.run.join_logits": None,
    "dbert.run.distill_birnn --config confs/birnn_sst2.json": "distil",
    "dbert.distill.run.distill_birnn --config confs/birnn_sst2.json": "distil",
}
"""Command of the README -> ours; None: what it did is part of another step."""


def spell(start: str, flags: dict, between: str) -> str:
    """A command with `between` in front of every flag: a backslash and a new line, only a new line, or a blank."""
    return between.join([*start.split("|"), *(f"--{name}" + (f" {word}" if word else "") for name, word in flags.items())])


FORMS = {"blank": " ", "backslashes": " \\\n    ", "no_backslashes": "\n    ", "blanks_behind": " \\  \n  "}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("start, flags", OFFLINE, ids=[start.split()[-1] for start, _ in OFFLINE])
def test_commands_of_the_offline_pipeline_are_accepted_in_every_form(start, flags, form, tmp_path):
    """001 has no backslashes, and the bullet of the next paragraph behind each command."""
    text = spell(start, flags, FORMS[form]) + " -" * (form == "no_backslashes")
    (words,) = ours(text)
    accept(words, tmp_path, ranks=8 if "mpirun" in words else 1)
    assert [words] == ours(spell(start, flags, " "))


def test_the_offline_pipeline_as_a_whole_names_the_folders_of_one_another(tmp_path):
    text = "\n".join(spell(start, flags, " \\\n") for start, flags in OFFLINE)
    jsons, split, samples, cache, student, distributed = (flags_of(words) for words in ours(text))
    assert jsons == {"type": "wikiextractor", "file": "/folderof/foldersof/jsons/", "output_dir": "/filepath/write_file"}
    assert (split["dir"], split["output_dir"], split["num_train_shards"], split["num_test_shards"]) == (
        "wikipedia", "data/split_dir", "20", "2")
    assert (samples["dir"], samples["output_dir"], samples["vocab_file"]) == ("data/split_dir", "data/record_intermed", VOCAB)
    assert "nsp" in samples and samples["dup_factor"] == "10"
    assert (samples["max_predictions_per_seq"], samples["max_seq_length"]) == ("20", "128")
    assert cache == {"dataset_path": "data/record_intermed", "output_dir": "data/record_distill", "truncation_factor": "10",
                     "teacher_path": BERT, "batch_size": "32"}
    for run in (student, distributed):
        assert (run["dataset_path"], run["teacher_cache"]) == ("data/record_intermed", "data/record_distill")
        assert (run["method"], run["truncated_target"], run["model_type"]) == ("soft_ce,nsp", "unnormalised", "bert-mlm-nsp")
        assert (run["output_dir"], run["job_name"]) == (".", "output_dir")
        assert (run["num_hidden_layers"], run["hidden_size"], run["num_attention_heads"], run["intermediate_size"]) == (
            "12", "768", "12", "3072")
        assert "do_validation" in run and run["lr_schedule"] == "constant_step"
        assert run["encoder_ln_mode"] == "post-ln" and "layernorm_embedding" in run and run["tokenizer_name"] == VOCAB
    assert (student["lr"], student["max_steps"], student["num_warmup_steps"], student["train_batch_size"]) == (
        "5e-5", "100000", "10000", "32")
    # Horovod: the learning rate times the processes, steps divided by them, the batch per process.
    assert (float(distributed["lr"]), distributed["max_steps"], distributed["train_batch_size"]) == (4e-4, "12500", "256")
    assert (distributed["train_micro_batch_size_per_gpu"], distributed["num_warmup_steps"]) == ("32", "1250")


@pytest.mark.parametrize("path", ["data/x_0.tfrecord", "/data/x_0.tfrecord"])
def test_a_path_that_lost_its_flag_is_the_input(path):
    (words,) = ours(f"python extract_teacher_labels_truncated.py --bert_config_file b --{path} --output_file c/d.tfrecord")
    assert flags_of(words)["dataset_path"] == path.rpartition("/")[0]


def test_mpirun_stays_in_front_with_its_words():
    (words,) = ours(spell(*OFFLINE[-1], " "))
    assert words[:words.index("run_pretraining.py")] == [*MPI.replace("|", " ").split(), "python"]


def test_what_the_offline_pages_do_wrong_is_said():
    said = "\n".join(note for start, flags in OFFLINE for note in translate(spell(start, flags, " ")).notes)
    assert f"--{INTERMEDIATE} is a path without its flag: read as --input_file {INTERMEDIATE}" in said
    assert f"from_pretrained('{CKPT}.index', from_tf=True" in said and "transformers==4.46.3" in said
    assert "measured on the training files" in said


def test_wikiextractor_is_run_as_a_program_of_this_project(tmp_path):
    (words,) = ours("Run python WikiExtractor.py /dumppath/your_chosen_dump.bz2 --output /outputdir/ --json")
    assert words == ["python", "-m", "wikiextractor.WikiExtractor", "/dumppath/your_chosen_dump.bz2", "--output", "/outputdir/", "--json"]
    accept(words, tmp_path)
    assert ours("WikiExtractor.py /dumppath/your_chosen_dump.bz2 --output /outputdir/ --json") == [words]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("start, flags", DISTILBERT, ids=["binarize", "counts", "train", "launched"])
def test_commands_of_distilbert_are_accepted_in_every_form(start, flags, form, tmp_path):
    commands = ours(spell(start, flags, FORMS[form]), **EXPORTS)
    for words in commands:
        accept(words, tmp_path, ranks=4 if "torch.distributed.launch" in words else 1)
    assert commands == ours(spell(start, flags, " "), **EXPORTS)


def test_distilbert_keeps_its_numbers():
    binarize, counts, train, launched = (ours(spell(start, flags, " \\\n"), **EXPORTS) for start, flags in DISTILBERT)
    articles, shards, samples = (flags_of(words) for words in binarize)
    assert articles["type"] == "lines" and articles["file"] == "data/dump.txt"
    assert (articles["output_dir"], shards["output_dir"]) == (shards["dir"], samples["dir"])
    assert (samples["masking"], samples["model_name"]) == ("none", "bert-base-uncased")
    assert samples["output_dir"] == flags_of(counts[0])["dir"] == flags_of(train[0])["dataset_path"] == PICKLE.removesuffix(".pickle")
    assert flags_of(counts[0])["output_file"] == flags_of(train[0])["token_counts"] == COUNTS.replace(".pickle", ".json")
    one, four = flags_of(train[0]), flags_of(launched[0])
    expected = {"method": "distilbert", "model_type": "distilbert-mlm", "temperature": "2", "alpha_ce": "0.5", "alpha_mlm": "0.5",
                "alpha_cos": "0", "lr": "5e-4", "warmup_proportion": "0.05", "weight_decay": "0.0", "adam_beta2": "0.98",
                "gradient_clipping": "5.0", "seed": "56", "num_hidden_layers": "6", "hidden_size": "768", "num_attention_heads": "12",
                "intermediate_size": "3072", "train_micro_batch_size_per_gpu": "5", "logit_positions": "all", "print_steps": "10",
                "steps_between_checkpoints": "80", "teacher_path": "bert-base-uncased", "overwrite": None, "group_by_length": None}
    assert expected.items() <= one.items() and expected.items() <= four.items()
    assert (one["train_batch_size"], four["train_batch_size"]) == ("250", "1000")  # 5 x 50 on one process, on 4
    assert (four["output_dir"], four["job_name"]) == ("serialization_dir", "my_first_distillation")


def test_the_launched_example_of_distilbert_is_pasted_as_one_script():
    exports = "".join(f"export {name}={word}\n" for name, word in EXPORTS.items())
    text = exports + "\npkill -f 'python -u train.py'\n\n" + spell(*DISTILBERT[-1], FORMS["backslashes"]) + "\n"
    kill, launch = run_by_bash(translate(text).text)
    assert kill == ["pkill", "-f", "python -u train.py"]
    assert launch[:launch.index("run_pretraining.py")] == [
        "python", "-m", "torch.distributed.launch", "--nproc_per_node=4", "--nnodes=1", "--node_rank", "0", "--master_addr", "127.0.0.1",
        "--master_port", "29511"]
    assert translate(f"export MASTER_PORT=<AN_OPEN_PORT>\n{text}").text.startswith("export MASTER_PORT=AN_OPEN_PORT\n")


@pytest.mark.parametrize("command", D_BERT)
def test_commands_of_d_bert_are_ours_or_say_what_does_their_work(command, tmp_path):
    result = translate(f"python -m {command}")
    commands = run_by_bash(result.text)
    if D_BERT[command] is None:
        assert commands == [] and result.text.startswith(f"# -m {command.split()[0]}: no step of its own: ")
        return
    (words,) = commands
    assert words[:3] == ["python", "run_task_distillation.py", D_BERT[command]]
    accept(["32" if word == "(# that'll fit)" else word for word in words], tmp_path)


def test_the_pages_of_d_bert_as_a_whole_name_the_files_of_one_another(tmp_path):
    text = """
python -m dbert.generate.cache_datasets --data-dir glue/SST-2 --output-file cache.pt
python -m dbert.generate.finetune_gpt --save lm.pt --cache-file cache.pt --train-batch-size 16 --gpt2-model gpt2-medium
python -m dbert.generate.build_sampler --cache-file cache.pt --save prefixes.pt --model-type gpt2
python -m dbert.generate.sample_gpt --prefix-file prefixes.pt > sampled.txt
python -m dbert.finetune.classifier --config confs/sst2-ft.json --data_dir glue/SST-2 --model_file bert --learning_rate 4e-5 --workspace ws
python -m dbert.finetune.classifier --config confs/sst_export.json --no_train --do_test_only --data_dir 800k-export --export out/logits.pt
python -m dbert.distill.run.join_logits --logits_file out/logits.pt --dataset_file sampled/transfer_set.tsv
python -m dbert.run.distill_birnn --config confs/birnn_sst2.json --dataset_path glue/SST-2 --workspace runs/birnn --lr 5e-4
"""
    commands = ours(text)
    for number, words in enumerate(commands):
        (tmp_path / str(number)).mkdir()
        accept(words, tmp_path / str(number))
    tune, sample, teach, label, distil = (flags_of(words) for words in commands)
    assert (tune["only"], tune["lm_path"], tune["output_dir"], tune["task_name"], tune["glue_dir"]) == (
        "finetune", "gpt2-medium", "lm", "sst2", "glue")
    assert (tune["train_batch_size"], tune["seed"], "split_encode" in tune) == ("16", "1111", True)
    assert (sample["only"], sample["lm_path"], sample["output_dir"]) == ("sample", "lm/language_model", "sampled")
    assert (sample["num_samples"], sample["task_name"], sample["glue_dir"]) == ("1500000", "sst2", "glue")
    assert teach == {"model": "bert", "learning_rate": "4e-5", "output_dir": "ws", "seed": "0", "task_name": "sst2", "glue_dir": "glue"}
    assert label == {"teacher_path": "ws", "transfer_set": "800k-export/train.tsv", "task_name": "sst2", "output": "out/logits.parquet"}
    expected = {"student": "bilstm", "transfer_set": "sampled/transfer_set.tsv", "logits": "out/logits.parquet", "task_name": "sst2",
                "glue_dir": "glue", "method": "logit_mse:1,hard_labels:1", "lr": "5e-4", "num_epochs": "20", "train_batch_size": "50",
                "output_dir": "runs", "job_name": "birnn", "total_training_time": "8760", "lr_schedule": "constant_step",
                "num_warmup_steps": "0", "weight_decay": "0"}
    assert expected.items() <= distil.items()
    said = translate(text).notes
    assert sum("generate does five old steps in one" in note for note in said) == 1
    assert any("hf download openai-community/gpt2-medium" in note for note in said)


def test_rows_by_rules_go_to_the_file_that_standard_output_went_to():
    start = "python -m dbert.distill.run.augment_data --dataset_file $GLUE/SST-2/train.tsv --n_iter 5 --seed 3"
    (words,) = ours(f"{start} > out/a.tsv", GLUE="glue")
    assert flags_of(words) == {"task_name": "sst2", "glue_dir": "glue", "output": "out/a.tsv", "n_iter": "5", "seed": "3",
                               "window_prob": "0"}
    assert flags_of(ours(f"{start} >>b.tsv 2> log", GLUE="glue")[0])["output"] == "b.tsv"
    assert translate(f"{start} >>b.tsv 2> log").text.endswith("2> log")
    assert flags_of(ours(start, GLUE="glue")[0])["output"] == "augmented.tsv"
    (pairs,) = ours("python -m dbert.distill.run.augment_paired_data --task sts -f glue/STS-B/train.tsv --window_lengths 1 2 > c.tsv")
    assert (flags_of(pairs)["task_name"], flags_of(pairs)["glue_dir"]) == ("stsb", "glue")
    assert pairs[pairs.index("--window_lengths") + 2] == "2"


LAUNCHERS = ("python", "python -m torch.distributed.launch", "torchrun", "deepspeed", "mpirun -np 2 python",
             "CUDA_VISIBLE_DEVICES=0 python", "torchrun --nproc_per_node 2", "deepspeed --num_gpus=2")


@pytest.mark.parametrize("start", LAUNCHERS)
def test_the_task_agnostic_command_stays_itself_under_every_launcher(start, tmp_path):
    lines = [f"{start} run_pretraining.py", *(" ".join([f"--{name}", *([word] if word else [])]) for name, word in REPAIRED_FLAGS.items())]
    repaired = " \\\n    ".join(lines)
    broken = " \\\n    ".join(lines[:len(LITERAL_FLAGS) + 1]) + "".join(f"\n    {line}" for line in lines[len(LITERAL_FLAGS) + 1:])
    literal = " \\\n    ".join(lines[:len(LITERAL_FLAGS) + 1])
    (words,), (mended,), (short,) = ours(repaired), ours(broken), ours(literal)
    assert words == mended
    expected = [word.replace("~", "/home/user", 1) for word in command_line(REPAIRED_FLAGS)]
    assert words[words.index("run_pretraining.py") + 1:] == expected
    assert words[:words.index("run_pretraining.py")] == [word for word in start.split() if "=0" not in word]
    assert short == words[:len(words) - len(command_line(LOST_FLAGS))]
    accept(words, tmp_path)
    accept(short, tmp_path)
    assert any("lacks a backslash" in note for note in translate(broken).notes)
    assert not any("lacks a backslash" in note for note in translate(repaired).notes)
    assert any("last six flags" in note for note in translate(literal).notes)
    assert not any("last six flags" in note for note in translate(repaired).notes)
