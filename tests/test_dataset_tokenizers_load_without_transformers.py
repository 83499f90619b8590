"""Tokenizers from folders, files, names: nothing cut or padded, lower-casing as told, the vocabulary's fingerprint."""

import hashlib
import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
from tiny_corpus import ROOT, SPECIAL, STEMS, UNUSED, WORDS, run_script, write_text_shard, write_vocabulary
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from dataset import generate_samples
from dataset.errors import UserError
from dataset.shard_format import read_info
from dataset.tokenizer import (
    is_lowercasing,
    load_tokenizer,
    masking_exclusions,
    special_ids,
    vocabulary_sha256,
    vocabulary_size,
)

TEXT = "Bara dosos luti!"
CASED = ["Bara", "doso", "##s", "luti", "!"]
UNCASED = ["bara", "doso", "##s", "luti", "!"]


def tokens(tokenizer: Tokenizer) -> list[str]:
    return tokenizer.encode(TEXT, add_special_tokens=False).tokens


def test_a_folder_with_only_a_vocabulary_a_file_and_a_tokenizer_json_agree(tmp_path):
    file = write_vocabulary(tmp_path / "a")
    tokenizer = load_tokenizer(tmp_path / "a")
    (tmp_path / "b").mkdir()
    tokenizer.enable_padding(length=50)
    tokenizer.enable_truncation(3)
    tokenizer.save(str(tmp_path / "b" / "tokenizer.json"))
    assert tokens(Tokenizer.from_file(str(tmp_path / "b" / "tokenizer.json"))) != CASED
    for place in (tmp_path / "a", file, tmp_path / "b", str(tmp_path / "b" / "tokenizer.json")):
        loaded = load_tokenizer(place)
        assert tokens(loaded) == CASED and loaded.padding is None and loaded.truncation is None
        assert loaded.encode("doso").tokens == ["[CLS]", "doso", "[SEP]"]
        assert vocabulary_sha256(loaded) == vocabulary_sha256(tokenizer)


@pytest.mark.parametrize(
    ("words", "config", "expected"),
    [
        (WORDS, None, CASED),
        ([*STEMS, "##s", "!"], None, UNCASED),
        (WORDS, {"do_lower_case": True}, UNCASED),
        (WORDS, {"do_lower_case": False}, CASED),
        (WORDS, {}, CASED),
    ],
)
def test_a_bare_vocabulary_lower_cases_as_its_config_or_its_own_pieces_say(tmp_path, words, config, expected):
    write_vocabulary(tmp_path, words)
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert tokens(load_tokenizer(tmp_path)) == expected
    assert tokens(load_tokenizer(tmp_path, lowercase=True)) == UNCASED
    assert is_lowercasing(load_tokenizer(tmp_path, lowercase=False)) is False


def test_lower_casing_is_refused_where_it_cannot_be_told(tmp_path):
    tokenizer = load_tokenizer(write_vocabulary(tmp_path))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase()])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert tokens(load_tokenizer(tmp_path, lowercase=True)) == UNCASED
    with pytest.raises(UserError, match="Sequence normalizer cannot be told otherwise"):
        load_tokenizer(tmp_path, lowercase=False)


def roberta() -> Tokenizer:
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "madeupword0000"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*names, *letters])}
    tokenizer = Tokenizer(models.BPE({**vocabulary, "zz": len(vocabulary) + 1}, []))
    tokenizer.add_special_tokens(names[:5])
    return tokenizer


def test_special_ids_of_both_families(tmp_path):
    bert = special_ids(load_tokenizer(write_vocabulary(tmp_path)))
    assert (bert.pad, bert.unk, bert.cls, bert.sep, bert.mask) == (0, 1, 2, 3, 4) and bert.all == {0, 1, 2, 3, 4}
    ids = special_ids(roberta())
    assert (ids.cls, ids.pad, ids.sep, ids.unk, ids.mask) == (0, 1, 2, 3, 4) and ids.all == {0, 1, 2, 3, 4}
    with pytest.raises(UserError, match=r"no mask token.*\[MASK\] or <mask>"):
        special_ids(Tokenizer(models.WordLevel({"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3}, "[UNK]")))


def test_masking_excludes_special_and_spare_tokens_and_gaps(tmp_path):
    excluded = masking_exclusions(load_tokenizer(write_vocabulary(tmp_path)))
    assert excluded.tolist() == [0, 1, 2, 3, 4, 5, 6] and excluded.dtype == np.int64
    tokenizer = roberta()
    assert masking_exclusions(tokenizer).tolist() == [0, 1, 2, 3, 4, 5, vocabulary_size(tokenizer) - 2]


def test_the_fingerprint_is_the_hash_of_tokens_in_id_order(tmp_path):
    tokenizer = load_tokenizer(write_vocabulary(tmp_path))
    listed = "\n".join([*SPECIAL, *UNUSED, *WORDS])
    assert vocabulary_sha256(tokenizer) == hashlib.sha256(listed.encode()).hexdigest()
    assert vocabulary_sha256(load_tokenizer(tmp_path, lowercase=True)) == vocabulary_sha256(tokenizer)
    with_gap = Tokenizer(models.WordLevel({"é": 0, "b": 2}, "é"))
    assert vocabulary_sha256(with_gap) == hashlib.sha256("é\n\nb".encode()).hexdigest()
    assert vocabulary_size(with_gap) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.txt", "a\nb\n", r"lacks \[PAD\], \[CLS\]"),
        ("tokenizer.json", "{}", "is no tokenizer"),
        ("readme.md", "", "no tokenizer.json and no vocab.txt"),
    ],
)
def test_a_folder_without_a_tokenizer_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        load_tokenizer(tmp_path)


def test_a_name_that_leads_nowhere_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"no such file or folder; a local folder .* would work"):
        load_tokenizer("some/where/else")
    write_text_shard(tmp_path / "text" / "training0.txt", [["Bara."]])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    places = ["--dir", tmp_path / "text", "-o", tmp_path / "out"]
    done = run_script("generate_samples", *places, "--model_name", "no-such-name")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stderr.startswith("error: no tokenizer")
    assert "a local folder with tokenizer.json or vocab.txt" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_in_the_hub_cache_needs_no_network(tmp_path, monkeypatch):
    snapshot = tmp_path / "models--some--model" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    load_tokenizer(write_vocabulary(tmp_path)).save(str(snapshot / "tokenizer.json"))
    (tmp_path / "models--some--model" / "refs").mkdir()
    (tmp_path / "models--some--model" / "refs" / "main").write_text("0123")
    code = "from dataset.tokenizer import load_tokenizer; print(load_tokenizer('some/model').encode('doso').tokens)"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert "doso" in done.stdout, done.stderr


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize(("flags", "expected"), [([], None), (["0"], 0), (["1"], 1)])
def test_do_lower_case_beats_what_the_tokenizer_says(tmp_path, told, flags, expected):
    expected = int(told) if expected is None else expected
    flags = ["--do_lower_case", *flags] if flags else []
    write_text_shard(tmp_path / "text" / "training0.txt", [["Bara doso."]])
    vocabulary = write_vocabulary(tmp_path / "tok")
    (tmp_path / "tok" / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": told}))
    out = tmp_path / "out"
    generate_samples.main([
        "--dir", str(tmp_path / "text"), "-o", str(out), "--vocab_file", str(vocabulary), "--masking", "none",
        "--n_processes", "1", "--short_seq_prob", "0", "--max_seq_length", "8", *flags,
    ])  # fmt: skip
    info = read_info(out / "train_shard_0.hdf5")
    assert info.attributes["lowercase"] == expected
    with h5py.File(info.path) as file:
        first = int(file["input_ids"][0, 1])
    tokenizer = load_tokenizer(vocabulary)
    assert tokenizer.id_to_token(first) == ("bara" if expected else "Bara")


def test_nothing_in_the_room_loads_torch_or_transformers():
    modules = [path.stem for path in (ROOT / "dataset").glob("*.py") if path.stem != "__init__"]
    assert len(modules) > 10
    imports = "; ".join(f"import dataset.{module}" for module in modules)
    code = f"{imports}; import sys; print({{'torch', 'transformers'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr
