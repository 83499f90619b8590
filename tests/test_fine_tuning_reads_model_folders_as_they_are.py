"""What is read of a model folder before torch: the weights that transformers will load, a fingerprint of all that decides a score, and one
line for a config or an index that is not what transformers writes.
"""

import json
from pathlib import Path

import pytest
from cli_case import write_teacher

from dataset.errors import UserError
from evaluation.fine_tuning.checks import check_fine_tuning, check_scoring
from evaluation.fine_tuning.model_folder import WEIGHTS, fingerprint, weight_files
from evaluation.fine_tuning.settings import FineTuningSettings
from evaluation.tasks.task import Task

TASK = Task("RTE", "classification", ("accuracy",), "accuracy", ("entailment", "not_entailment"))
SETTINGS = FineTuningSettings(max_seq_length=32)
HEAD = ["BertForSequenceClassification"]


def test_weights_are_those_that_transformers_takes(tmp_path):
    """All four forms in one folder, the first taken away again and again."""
    for name in WEIGHTS:
        kept = f"shard of {name.split('.')[0]}"
        index = {"weight_map": {"b": f"{kept} 2", "a": f"{kept} 1"}}
        (tmp_path / name).write_text(json.dumps(index) if name.endswith("index.json") else "")
        for number in (1, 2):
            (tmp_path / f"{kept} {number}").touch()
    wanted = [["model.safetensors"], ["shard of model 1", "shard of model 2"], ["pytorch_model.bin"],
              ["shard of pytorch_model 1", "shard of pytorch_model 2"]]
    for name, files in zip(WEIGHTS, wanted, strict=True):
        assert weight_files(tmp_path) == [tmp_path / file for file in files]
        (tmp_path / name).unlink()
    with pytest.raises(UserError, match="no weights; expected model"):
        weight_files(tmp_path)


def test_the_order_is_transformers_own(tmp_path):
    """With an index beside a pytorch_model.bin it loads what the index lists: the other would not load."""
    from safetensors import safe_open
    from tiny_glue import make_model
    from transformers import AutoModelForMaskedLM

    folder = make_model(tmp_path / "model")
    one = (folder / "model.safetensors").rename(folder / "one.safetensors")
    with safe_open(one, "np") as file:
        listed = dict.fromkeys(file.keys(), one.name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    (folder / "pytorch_model.bin").write_bytes(b"no weights")
    assert weight_files(folder) == [one]
    AutoModelForMaskedLM.from_pretrained(folder)


def test_any_file_that_decides_a_score_changes_the_fingerprint(tmp_path):
    folder = write_teacher(tmp_path / "model")
    seen = {fingerprint(folder)}
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "merges.txt", "special_tokens_map.json",
                 "added_tokens.json", "spm.model", "tokenizer.model", "bpe.codes"):
        with (folder / name).open("ab") as file:
            file.write(name.encode())
        seen.add(fingerprint(folder))
    (folder / "README.md").write_text("a card")
    assert len(seen) == 11 and fingerprint(folder) in seen


@pytest.mark.parametrize(("key", "value", "told"), [
    ("id2label", ["entailment", "not_entailment"], "a mapping of numbers to names"),
    ("id2label", {"first": "entailment", "second": "not_entailment"}, "a mapping of numbers to names"),
    ("label2id", {"entailment": "one", "not_entailment": None}, "a mapping of names to numbers"),
    ("architectures", [1], "a list of names"), ("architectures", "BertModel", "a list of names"),
    ("model_type", 5, "a name such as bert"), ("model_type", None, "model_type is null"), ("num_labels", "two", "a number"),
    ("max_position_embeddings", "64", "a number"), ("pad_token_id", [0], "a number"),
    ("num_hidden_layers", -1, "a number of layers from 1"),
])
def test_a_config_of_other_types_is_one_line(tmp_path, key, value, told):
    folder = write_teacher(tmp_path / "model", **{"architectures": HEAD, key: value})
    for check in (check_fine_tuning, check_scoring):
        with pytest.raises(UserError, match=told) as error:
            check(folder, TASK, SETTINGS)
        assert str(error.value).startswith(f"{folder}/config.json: {key} is ") and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": null}', '{"weight_map": ["a"]}', '{"weight_map": {"a": 1}}',
                                  '{"weight_map": {"a": [1]}}', '{"weight_map": {}}', "[" * 100_000])
def test_an_index_that_is_none_is_one_line(tmp_path, text):
    folder = write_teacher(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    index: Path = folder / "model.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(UserError, match="copy the whole folder") as error:
        check_fine_tuning(folder, TASK, SETTINGS)
    assert str(error.value).startswith(f"{index}: ") and "\n" not in str(error.value)


def test_a_null_padding_id_has_robertas_positions(tmp_path):
    folder = write_teacher(tmp_path / "model", model_type="roberta", pad_token_id=None)
    with pytest.raises(UserError, match="has 62 positions"):
        check_fine_tuning(folder, TASK, FineTuningSettings(max_seq_length=63))
