"""A mistake in the flags or files of an extraction is one line, found before torch is imported, and writes nothing."""

import os
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
from cli_case import PROJECT, clean_environment, write_teacher
from tiny import VOCABULARY, make_shards, sample_arrays

from dataset.errors import UserError
from pretraining.teacher_cache.extraction_plan import plan_extraction

GOOD = {"dataset_path": "shards", "teacher_path": "teacher", "output_dir": "cache", "truncation_factor": 5}
# name -> (changes to GOOD, where None leaves a flag out; what is found; what would work)
CASES = {
    "too_many": ({"truncation_factor": VOCABULARY + 1}, f"the teacher's vocabulary has {VOCABULARY} entries", "at most as many work"),
    "zero": ({"truncation_factor": 0}, "--truncation_factor 0", "at least 1"),
    "word": ({"truncation_factor": "many"}, "--truncation_factor: .*'many'", "'many'"),
    "nothing": ({"truncation_factor": None}, "nothing to store", "--truncation_factor K, --sampled N or --hidden_layers"),
    "both": ({"sampled": 5}, "--truncation_factor .* --sampled", "give one of them"),
    "temperature_alone": ({"sampling_temperature": 2}, "--sampling_temperature belongs to --sampled", "leave it out"),
    "temperature": ({"truncation_factor": None, "sampled": 5, "sampling_temperature": -1}, "--sampling_temperature -1", "above 0"),
    "deep": ({"hidden_layers": "1,4"}, "layers 0 to 3, and no 4", "0 to 3"),
    "no_layer": ({"hidden_layers": "last"}, "--hidden_layers last", "such as 5,11"),
    "layer_twice": ({"hidden_layers": "1,1"}, "is in it twice", "name it once"),
    "unmasked": ({"dataset_path": "unmasked"}, "holds no masks: they are drawn anew", "--hidden_layers alone works"),
    "mixed": ({"dataset_path": "mixed", "truncation_factor": None, "hidden_layers": "1"}, "holds masks and .* none",
              "folders of their own"),
    "headless": ({"teacher_path": "headless"}, "no language-model head", "--hidden_layers works"),
    "causal": ({"teacher_path": "gpt"}, r"nothing is masked for a causal teacher \(gpt2\)", "--hidden_layers works"),
    "short": ({"teacher_path": "short"}, "sequences of 32 tokens, the teacher has 16 positions", "at most that length"),
    "other_tokenizer": ({"teacher_path": "other"}, "tokenizer_sha256", "use the tokenizer that made the shard"),
    "foreign": ({"dataset_path": "foreign"}, f"input_ids holds {VOCABULARY + 7}", f"below {VOCABULARY}"),
    "no_teacher": ({"teacher_path": "nowhere"}, "--teacher_path nowhere: no such folder", "Hugging Face folder"),
    "no_shards": ({"dataset_path": "nowhere"}, "no folder nowhere", "train_shard"),
    "output_is_a_file": ({"output_dir": "teacher/config.json"}, "it is a file", "give a folder"),
    "unknown": ({"truncation_facto": 3}, "--truncation_facto", "--help lists every flag"),
    "not_ours": ({"output_dir": "rubbish"}, "train_shard_0.teacher_cache cannot be read", "delete it and run"),
    "verify_writes_nothing": ({"verify": "", "overwrite": ""}, "--verify writes nothing", "leave --estimate and --overwrite out"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("extraction_mistakes")
    for name, changes in {"teacher": {}, "headless": {"head": False}, "short": {"max_position_embeddings": 16}, "other": {},
                          "gpt": {"model_type": "gpt2", "n_embd": 32, "n_layer": 4, "n_head": 4}}.items():
        write_teacher(place / name, **changes)
    (place / "other" / "tokenizer.json").unlink()
    tokens = (place / "other" / "vocab.txt").read_text().split()
    (place / "other" / "vocab.txt").write_text("\n".join([*tokens[:5], *reversed(tokens[5:])]) + "\n")
    make_shards(place / "shards", train=1, rows=8)
    make_shards(place / "unmasked", train=1, rows=8, masking="none")
    make_shards(place / "mixed", train=1, test=0, rows=8)
    make_shards(place / "mixed", train=0, test=1, rows=8, masking="none")
    (place / "foreign").mkdir()
    arrays = sample_arrays(6, 32, "static", np.random.default_rng(0))
    arrays["input_ids"][5, 2] = VOCABULARY + 7
    with h5py.File(place / "foreign" / "train_shard_0.hdf5", "w") as file:
        for key, values in arrays.items():
            file[key] = values
    (place / "rubbish").mkdir()
    (place / "rubbish" / "train_shard_0.teacher_cache").write_bytes(b"rubbish")
    return place


def words(changes: dict) -> list[str]:
    return [word for name, value in (GOOD | changes).items() if value is not None for word in (f"--{name}", str(value)) if word]


@pytest.fixture
def inside(place, monkeypatch):
    """In the folder of the inputs, with an environment that is put back."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)
    monkeypatch.chdir(place)
    return place


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_one_line(name, inside):
    changes, found, works = CASES[name]
    before = sorted(str(path) for path in inside.rglob("*"))
    with pytest.raises(UserError) as error:
        plan_extraction(words(changes))
    line = str(error.value)
    assert re.search(found, line) and re.search(works, line) and "\n" not in line, line
    assert sorted(str(path) for path in inside.rglob("*")) == before


def test_what_the_cases_spoil_is_good(inside):
    plan = plan_extraction(words({"hidden_layers": "3,1"}))
    assert (plan.header.k, plan.header.hidden_layers, len(plan.shards)) == (5, (1, 3), 2)
    assert plan_extraction(words({"dataset_path": "unmasked", "truncation_factor": None, "hidden_layers": "1"})).header.input == "unmasked"
    assert plan_extraction(words({"teacher_path": "gpt", "truncation_factor": None, "hidden_layers": "1"})).header.input == "unmasked"


def test_draws_far_from_the_distribution_are_said(inside):
    for temperature, said in (("0.5", 1), ("1", 0), ("2", 0)):
        plan = plan_extraction(words({"truncation_factor": None, "sampled": 5, "sampling_temperature": temperature}))
        assert len(plan.notes) == said and all(note.startswith("--sampling_temperature 0.5: below 1") for note in plan.notes)


def test_a_real_process_ends_with_status_2_before_torch(place, tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise RuntimeError('torch was imported')\n")
    finished = subprocess.run(
        [sys.executable, str(PROJECT / "extract_teacher_outputs.py"), *words(CASES["too_many"][0])], capture_output=True, text=True,
        cwd=place, env=clean_environment() | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}"}, timeout=60)
    assert (finished.returncode, finished.stdout, finished.stderr.count("\n")) == (2, "", 1), finished.stderr
    assert finished.stderr.startswith("error: --truncation_factor")
