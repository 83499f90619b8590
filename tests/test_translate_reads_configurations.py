"""D-BERT's JSON configurations: what they inherit, what overrides what, and what is wrong with them in one line."""

import json

import pytest
from translate_case import accept, flags_of, ours

from dataset.errors import UserError
from evaluation.tasks.table import select_tasks
from translation.confs import read_conf
from translation.translate import translate

CONFS = {
    "base.json": '{"distill_lambda": 1, "ce_lambda": 1, "distill_temperature": 3, "seed": 7, "workspace": "runs/base", "epochs": 20, '
                 '"batch_size": 50, "optimizer": "adam", "early_stop": true, "lr": 1, "device": "cuda:0", "use_maxpool": false, '
                 '"load_last_checkpoint": false, "float_score": false, "lookup_word": null, "odd": 3}',
    "sst2.json": '{"dataset_path": "data/SST-2", "dataset_name": "sst2", "vectors_file": "words.txt", "vectors_dir": "vectors", '
                 '"train_file": "joined.tsv", "dev_file": "dev.tsv", "workspace": "runs/sst2"}',
    "birnn.json": '{"_inherits_": ["base.json", "sst2.json"], "words_dim": 50, "clip_grad": 30000, "dropout": 0.25, "rnn_type": "gru", '
                  '"hidden_size": 64, "fc_size": 32, "mode": "non-static", "lr": 5e-4, "epochs": 30}',
    "pairs/siarnn.json": '{"_inherits_": "../birnn.json", "dataset_name": "mnli_mismatch", "dataset_path": "data/MNLI", "ce_lambda": 0.5}',
    "config.json": '{"model_file": "bert", "workspace": "ws", "seed": 0, "train_batch_size": 32, "eval_batch_size": 8, '
                   '"learning_rate": 5E-5, "num_train_epochs": 3, "warmup_proportion": 0.1, "gradient_accumulation_steps": 4, '
                   '"export": null, "uncased": true}',
    "rte-ft.json": '{"_inherits_": "config.json", "n_labels": 2, "task_name": "rte", "data_dir": "glue/RTE"}',
    "export.json": '{"_inherits_": "config.json", "task_name": "raw_pair", "data_dir": "800k", "train_file": "all.tsv", '
                   '"export": "logits.pt", "eval_batch_size": 128}',
}


@pytest.fixture
def confs(tmp_path, monkeypatch):
    for name, text in CONFS.items():
        path = tmp_path / "confs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "confs"


def test_a_file_overrides_its_parents_and_a_later_parent_an_earlier_one(confs):
    found = read_conf(confs / "pairs" / "siarnn.json")
    assert found["workspace"] == ["runs/sst2"]  # base.json says another
    assert found["epochs"] == ["30"] and found["lr"] == ["5e-4"] and found["ce_lambda"] == ["0.5"]
    assert found["dataset_name"] == ["mnli_mismatch"] and found["early_stop"] == ["true"] and found["lookup_word"] == []
    assert "_inherits_" not in found and found["batch_size"] == ["50"]


def test_a_student_gets_all_that_its_configuration_says(confs, tmp_path):
    (words,) = ours("python -m dbert.distill.run.distill_birnn --config confs/birnn.json")
    accept(words, tmp_path)
    assert flags_of(words) == {
        "student": "bilstm", "seed": "7", "num_epochs": "30", "train_batch_size": "50", "train_micro_batch_size_per_gpu": "50",
        "lr": "5e-4", "gradient_clipping": "30000", "embedding_size": "50", "dropout": "0.25", "cell": "gru", "hidden_size": "64",
        "fc_size": "32", "embedding": "non_static", "word_vectors": "vectors/words.txt", "task_name": "sst2", "glue_dir": "data",
        "transfer_set": "data/SST-2/joined.tsv", "method": "logit_mse:1,hard_labels:1", "weight_decay": "0",
        "lr_schedule": "constant_step", "num_warmup_steps": "0", "total_training_time": "8760", "output_dir": "runs", "job_name": "sst2",
    }


def test_the_command_line_overrides_the_configuration(confs, tmp_path):
    (words,) = ours("python -m dbert.run.distill_birnn --config confs/birnn.json --mode rand --hidden_size 9 --epochs 2 --ce_lambda 0 "
                    "--distill_lambda 0.5 --workspace here --batch_size 8 --lr 1 --dropout 0")
    accept(words, tmp_path)
    flags = flags_of(words)
    assert (flags["embedding"], flags["hidden_size"], flags["num_epochs"], flags["method"]) == ("random", "9", "2", "logit_mse:0.5")
    assert (flags["output_dir"], flags["job_name"], flags["train_batch_size"], flags["dropout"]) == (".", "here", "8", "0")
    assert "lr" not in flags and "word_vectors" not in flags


def test_what_a_configuration_says_to_no_effect_is_one_line(confs):
    notes = translate("python -m dbert.run.distill_birnn --config confs/birnn.json").notes
    (idle,) = [note for note in notes if note.startswith("confs/birnn.json: no effect here: ")]
    assert {"optimizer", "early_stop", "device", "dev_file", "distill_temperature"} <= set(idle.replace(",", "").split())
    assert "confs/birnn.json: not known, and passed over: odd" in notes
    assert not any("use_maxpool" in note for note in notes)


def test_pairs_learn_softened_probabilities_and_scores_by_squared_error(confs, tmp_path):
    pairs = "python -m dbert.distill.run.distill_siamese_rnn_mnli --config confs/pairs/siarnn.json"
    assert select_tasks(["mnli"])[0].label_names == ("entailment", "neutral", "contradiction")
    assert any("logits_0 to 2 are those of entailment, neutral and contradiction" in note for note in translate(pairs).notes)
    (words,) = ours(pairs)
    accept(words, tmp_path)
    flags = flags_of(words)
    assert (flags["student"], flags["task_name"], flags["method"], flags["temperature"]) == (
        "siamese_bilstm", "mnli", "kl:1,hard_labels:0.5", "3")
    (scores,) = ours("python -m dbert.distill.run.distill_birnn --config confs/birnn.json --dataset_name sts")
    accept(scores, tmp_path)
    assert flags_of(scores)["method"] == "logit_mse:1" and flags_of(scores)["task_name"] == "stsb"
    (labels,) = ours("python -m dbert.distill.run.distill_kim --config confs/birnn.json --distill_lambda 0 --ce_lambda 2")
    accept(labels, tmp_path)
    assert flags_of(labels)["method"] == "labels:2" and "temperature" not in flags_of(labels)


def test_a_teacher_gets_all_that_its_configuration_says(confs, tmp_path):
    (words,) = ours("python -m dbert.finetune.classifier --config confs/rte-ft.json --learning_rate 4e-5")
    accept(words, tmp_path)
    assert flags_of(words) == {
        "model": "bert", "output_dir": "ws", "seed": "0", "per_device_train_batch_size": "8", "gradient_accumulation_steps": "4",
        "per_device_eval_batch_size": "8", "learning_rate": "4e-5", "num_train_epochs": "3", "warmup_ratio": "0.1", "task_name": "rte",
        "glue_dir": "glue"}
    (words,) = ours("python -m dbert.finetune.classifier --config confs/export.json --no_train --do_test_only")
    assert flags_of(words) == {"teacher_path": "ws", "transfer_set": "800k/all.tsv", "task_name": "TASK", "output": "logits.parquet",
                               "per_device_eval_batch_size": "128"}
    accept(words, tmp_path)


def test_words_of_a_configuration_are_quoted_for_the_shell(confs):
    (confs / "odd.json").write_text(json.dumps({"_inherits_": "birnn.json", "workspace": "my runs/it's one", "train_file": "a b.tsv"}))
    (words,) = ours("python -m dbert.run.distill_birnn --config confs/odd.json")
    flags = flags_of(words)
    assert (flags["output_dir"], flags["job_name"], flags["transfer_set"]) == ("my runs", "it's one", "data/SST-2/a b.tsv")


@pytest.mark.parametrize(("files", "words"), [
    ({"a.json": {"_inherits_": "b.json"}, "b.json": {"_inherits_": ["c.json"]}, "c.json": {"_inherits_": "b.json"}},
     "c.json: _inherits_ goes in a circle (b.json -> c.json -> b.json)"),
    ({"a.json": {"_inherits_": "a.json"}}, "a.json: _inherits_ goes in a circle (a.json -> a.json)"),
    ({"a.json": {"_inherits_": "gone.json"}}, "a.json: _inherits_ names gone.json: "),
    ({"a.json": {"_inherits_": [None]}}, "a.json: _inherits_ is '[None]'"),
    ({"a.json": [1]}, "a.json: not a JSON object"),
    ({"a.json": {"mode": {"a": 1}}}, "a.json: mode is an object"),
    ({"a.json": None}, "a.json: not JSON"),
])
def test_mistakes_in_configurations_are_one_line(files, words, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_text("{" if content is None else json.dumps(content))
    with pytest.raises(UserError) as error:
        translate(f"python -m dbert.run.distill_birnn --config {tmp_path}/a.json")
    assert words in str(error.value) and str(error.value).startswith(str(tmp_path)) and "\n" not in str(error.value)


def test_two_children_of_one_parent_are_no_circle(tmp_path):
    for name, content in {"a.json": {"_inherits_": ["b.json", "c.json"]}, "b.json": {"_inherits_": "d.json"},
                          "c.json": {"_inherits_": "d.json"}, "d.json": {"epochs": 5}}.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert read_conf(tmp_path / "a.json") == {"epochs": ["5"]}


def test_a_configuration_that_is_not_here_is_said_and_its_name_tells_the_task():
    result = translate("python -m dbert.run.distill_birnn --config confs/birnn_mrpc.json")
    assert any(note.startswith("confs/birnn_mrpc.json is not here") for note in result.notes)
    assert "--task_name mrpc" in result.text and "TRANSFER_SET" in result.text
    assert any(note.startswith("TRANSFER_SET: put in") for note in result.notes)
