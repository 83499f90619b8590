"""Stored outputs are taken for their own shards, tokenizer, teacher and masks alone, and for objectives that they cover."""

import json
import re
import shutil

import h5py
import numpy as np
import pytest
from cache_case import extract, make_place, plan_of, run_flags, stored_reader
from tiny import VOCABULARY, make_shards, make_teacher

from dataset.errors import UserError
from dataset.shard_format import find_shards
from pretraining.batches.order import Segment

SOFT = ("--method", "soft_ce")
CAUSAL = ("--model_type", "gpt2-clm", "--tokenizer_name", "gpt", "--dataset_path", "unmasked", "--teacher_cache", "causal",
          "--encoder_ln_mode", None, "--layernorm_embedding", None)
# name -> (flags; what is found; what would work)
FLAGS = {
    "attention": (("--method", "minilm_v2"), "stores no attention", "take one of hidden_mse"),
    "embeddings": (("--method", "embedding_mse"), "it needs the teacher's embeddings", "run the teacher"),
    "layer": (("--method", "hidden_mse", "--layer_selection", "1,2"), r"hidden layer 2 of the teacher is not in .*\(stored: 1, 3\)",
              "--hidden_layers 2 stores it"),
    "all_logits": (("--method", "logit_mse"), "it needs all logits, and .* holds 5 a position", "soft_ce or logit"),
    "all_positions": ((*SOFT, "--logit_positions", "all"), "masked positions only", "leave --logit_positions out"),
    "larger": ((*SOFT, "--truncation_factor", "6"), "holds 5 entries a position", "at most as many work"),
    "reverse": (("--method", "reverse_kl", "--truncated_target", "unnormalised"), "--truncated_target unnormalised", "works with rest"),
    "softened": (("--method", "logit", "--temperature", "2", "--truncated_target", "unnormalised"), "follow from all logits", "or rest"),
    "aug": ((*SOFT, "--aug", "true"), "--aug changes what teacher and student read", "leave one of them out"),
    "other_teacher": ((*SOFT, "--teacher_path", "second"), "of another teacher", "leave --teacher_path out"),
    "no_folder": ((*SOFT, "--teacher_cache", "nowhere"), "--teacher_cache nowhere: no such folder", "extract_teacher_outputs.py"),
    "empty_folder": ((*SOFT, "--teacher_cache", "empty"), "no stored outputs", "extract_teacher_outputs.py"),
    "no_targets": ((*SOFT, "--teacher_cache", "states"), "no targets in", "--truncation_factor K stores them"),
    "fresh_masks": ((*SOFT, "--dataset_path", "unmasked", "--teacher_cache", "plain"), "drawn anew in every epoch", "run the teacher"),
    "fresh_masks_elsewhere": ((*SOFT, "--dataset_path", "unmasked"), "drawn anew in every epoch", "run the teacher"),
    "causal": (("--method", "clm,logit", *CAUSAL), "nothing is masked for it", "run the teacher"),
    "causal_distilbert": (("--method", "distilbert", *CAUSAL), "whose text is not masked", "--alpha_mlm 0 --alpha_clm 2"),
    "same_weights": ((*SOFT, "--teacher_path", "relu"), "whose hidden_act was gelu, .* has relu", "leave --teacher_path out"),
    "two_teachers": ((*SOFT, "--teacher_cache", "heads"), "the teacher's num_attention_heads is 2, 4 in", "so that they agree"),
    "a_folder": ((*SOFT, "--teacher_cache", "folder"), "is a folder, where a file", "move it away"),
    "more_than_there_are": (("--teacher_cache", None, "--teacher_path", "teacher", *SOFT, "--truncation_factor", "1000"),
                            f"--truncation_factor 1000: the teacher's vocabulary has {VOCABULARY} entries", "at most as many work"),
    "masks_in_the_file": (("--method", "hidden_mse", "--layer_selection", "3", "--teacher_cache", "plain"),
                          "predictions is|read the text without masks|other samples", "extract it anew"),
    "another_shard": ((*SOFT, "--dataset_path", "other_shards"), "it belongs to other samples than", "the shards that it was made of"),
    "more_rows": ((*SOFT, "--dataset_path", "more_rows"), "rows is 24, .* has 30", "extract it anew"),
    "more_shards": ((*SOFT, "--dataset_path", "more_shards"), "nothing stored for train_shard_2.hdf5", "goes on with what is there"),
    "unfinished": ((*SOFT, "--teacher_cache", "lacking"), "test_shard_0.teacher_cache is missing", "goes on with what is there"),
    "two_extractions": ((*SOFT, "--teacher_cache", "patched"), "k is 4, 5 in", "so that they agree"),
    "another_tokenizer": ((*SOFT, "--dataset_path", "renamed"), "tokenizer_sha256 is", "the tokenizer and shards that it was made of"),
    "damaged": ((*SOFT, "--teacher_cache", "damaged"), "train_shard_0.teacher_cache cannot be read", "delete it and run"),
    "not_distilling": ((*SOFT, "--distillation", "false"), "needs a teacher|without --distillation", "--distillation"),
    "nothing_truncated": (("--teacher_cache", None, "--teacher_path", "teacher", *SOFT, "--truncated_target", "rest"),
                          "is about truncated targets", "give --truncation_factor K"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = make_place(tmp_path_factory.mktemp("refused"))
    cache = extract(place, "cache", "--truncation_factor", "5", "--hidden_layers", "1,3")
    extract(place, "states", "--hidden_layers", "1")
    make_shards(place / "unmasked", rows=24, uneven=True, masking="none")
    extract(place, "plain", "--hidden_layers", "3", shards="unmasked")
    make_teacher(place / "second", seed=1)
    same_weights(place, "relu", hidden_act="relu", transformers_version="1.0", hidden_dropout_prob=0.3)
    same_weights(place, "two_heads", num_attention_heads=2)
    same_weights(place, "renewed", transformers_version="1.0", hidden_dropout_prob=0.3, use_cache=False)
    make_teacher(place / "gpt", layers=2, family="gpt2")
    extract(place, "causal", "--hidden_layers", "1", shards="unmasked", teacher="gpt")
    (place / "empty").mkdir()
    make_shards(place / "other_shards", rows=24, uneven=True, seed=1)
    make_shards(place / "more_rows", rows=30, uneven=True)
    make_shards(place / "more_shards", rows=24, train=3, uneven=True)
    for name in ("lacking", "patched", "damaged", "heads", "folder"):
        shutil.copytree(cache, place / name)
    (place / "lacking" / "test_shard_0.teacher_cache").unlink()
    extract(place, "four", "--truncation_factor", "4", "--hidden_layers", "1,3")
    shutil.copy(place / "four" / "test_shard_0.teacher_cache", place / "patched")
    (place / "folder" / "test_shard_0.teacher_cache").unlink()
    (place / "folder" / "test_shard_0.teacher_cache").mkdir()
    extract(place, "other_heads", "--truncation_factor", "5", "--hidden_layers", "1,3", teacher="two_heads")
    shutil.copy(place / "other_heads" / "test_shard_0.teacher_cache", place / "heads")
    (place / "damaged" / "train_shard_0.teacher_cache").write_bytes(b"damaged")
    shutil.copytree(place / "shards", place / "renamed")
    for path in (place / "renamed").iterdir():
        with h5py.File(path, "r+") as file:
            del file.attrs["tokenizer_sha256"]
    for path in (place / "cache").iterdir():
        assert path.suffix == ".teacher_cache"
    return place


def same_weights(place, name: str, **settings) -> None:
    """The teacher with other settings in config.json."""
    shutil.copytree(place / "teacher", place / name)
    config = json.loads((place / name / "config.json").read_text())
    (place / name / "config.json").write_text(json.dumps(config | settings))


def flags(place, *more: str | None) -> list[str]:
    found = run_flags(place, "1", "--teacher_cache", str(place / "cache"))
    for name, value in zip(more[::2], more[1::2], strict=True):
        while name in found:
            at = found.index(name)
            bare = at + 1 == len(found) or found[at + 1].startswith("--")
            del found[at : at + (1 if bare else 2)]
        if value is not None:
            path = name in ("--teacher_cache", "--teacher_path", "--dataset_path", "--tokenizer_name")
            found += [name, str(place / value) if path and value != "nowhere" else value]
    return found


@pytest.mark.parametrize("name", FLAGS)
def test_a_mistake_is_one_line(name, place):
    more, found, works = FLAGS[name]
    if name == "another_tokenizer":
        vocabulary = (place / "teacher" / "vocab.txt").read_text().split()
        (place / "odd").mkdir(exist_ok=True)
        (place / "odd" / "vocab.txt").write_text("\n".join([*vocabulary[:5], *reversed(vocabulary[5:])]) + "\n")
        more = (*more, "--tokenizer_name", str(place / "odd"))
    with pytest.raises(UserError) as error:
        plan_of(flags(place, *more))
    line = str(error.value)
    assert re.search(found, line) and re.search(works, line) and "\n" not in line, line


def test_what_the_cases_spoil_is_good(place):
    plan = plan_of(flags(place, *SOFT))
    assert plan.teacher is None and plan.cache.header.k == 5
    flags_of_run = plan.resolved.args.distillation
    assert (flags_of_run.truncation_factor, flags_of_run.truncated_target) == (5, "rest")
    assert plan_of(flags(place, *SOFT, "--teacher_path", "teacher")).teacher is not None
    assert plan_of(flags(place, *SOFT, "--teacher_path", "renewed")).teacher is not None  # what decides no output may differ


def test_a_tokenizer_that_cannot_be_compared_is_said(place):
    for shards, is_said in (("renamed", True), ("shards", False)):
        plan = plan_of(flags(place, *SOFT, "--dataset_path", shards, "--tokenizer_name", "nowhere"))
        assert any("it cannot be compared with the teacher's" in note for note in plan.resolved.notes) == is_said


def test_a_shard_that_changed_past_its_first_rows_is_noticed_when_it_is_read(place):
    make_shards(place / "long", train=1, test=1, rows=80)
    extract(place, "long_cache", "--truncation_factor", "5", shards="long")
    path = find_shards(place / "long")[0][0]
    with h5py.File(path, "r+") as file:
        file["input_ids"][79, 1] = 9
    plan = plan_of(flags(place, *SOFT, "--dataset_path", "long", "--teacher_cache", "long_cache"))
    with pytest.raises(UserError, match="its shard was another one when it was made"):
        stored_reader(plan).read([Segment(0, 0, np.arange(2))])


def test_files_of_a_cache_are_no_shards(place):
    shutil.copytree(place / "shards", place / "together")
    for path in (place / "cache").iterdir():
        shutil.copy(path, place / "together")
    assert [path.suffix for part in find_shards(place / "together") for path in part] == [".hdf5"] * 3
    plan_of(flags(place, *SOFT, "--dataset_path", "together", "--teacher_cache", "together"))
