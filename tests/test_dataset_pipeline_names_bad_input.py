"""What generate_samples cannot work with is one line with status 2 that names the file; nothing is half-written, nothing done is lost."""

import re
import resource
import signal
import subprocess
import sys

import pytest
from sampling_case import ODD_VOCABULARY, Here, byte_level, wordpiece
from tiny_corpus import ROOT, WORDS, folder_bytes, make_articles, write_text_shard, write_vocabulary
from tokenizers import decoders

from dataset import generate_samples, jobs
from dataset.errors import UserError


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ProcessExecutor", Here)  # `shell` has real processes
    write_text_shard(tmp_path / "text" / "training0.txt", make_articles(20))
    write_text_shard(tmp_path / "text" / "test0.txt", make_articles(3))
    write_vocabulary(tmp_path / "tok")
    return tmp_path


def generate(place, *flags, output="out"):
    defaults = {"--dir": place / "text", "-o": place / output, "--model_name": place / "tok", "--max_seq_length": 32, "--n_processes": 1}
    given = dict(zip(flags[::2], flags[1::2], strict=True)) if len(flags) % 2 == 0 else {flags[0]: None}
    arguments = [str(part) for pair in {**defaults, **given}.items() for part in pair if part is not None]
    generate_samples.main(arguments)
    return folder_bytes(place / output)


def shell(place, *flags, limit=None):
    """The command as a user runs it; `limit`: bytes that a file may have, as on a full disk."""

    def prepare() -> None:
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, str(ROOT / "dataset" / "generate_samples.py"), "--dir", "text", "-o", "out", "--model_name", "tok"]
    command += ["--max_seq_length", "32", "--n_processes", "2", *flags]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120, preexec_fn=prepare)


def test_text_that_is_not_utf8_stops_its_own_shard_only_or_is_replaced(place, capsys):
    good = generate(place)
    bad = place / "text" / "training1.txt"
    bad.write_bytes(b"Bara doso.\n\nLuti caf\xe9 meso.\n" + b"Bara.\n" * 9)
    done = shell(place, "--overwrite")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 + done.stderr.count("no effect"), done.stderr
    message = r"error: 1 of 3 text shards failed, the others are done: training1\.txt: \S*text/training1\.txt line 3 is not UTF-8 \(.*\)"
    assert re.search(message + "; --errors replace goes on", done.stderr), done.stderr
    assert {name: content for name, content in folder_bytes(place / "out").items() if "_0" in name} == good
    assert sorted(folder_bytes(place / "out")) == ["test_shard_0.hdf5", "train_shard_0.hdf5"]
    replaced = generate(place, "--errors", "replace", output="replaced")
    bad.write_text("Bara doso.\n\nLuti caf\ufffd meso.\n" + "Bara.\n" * 9, encoding="utf-8")
    with pytest.raises(UserError, match=r"was made with errors replace, now it is strict; another --output_dir or --overwrite would work"):
        generate(place, output="replaced")
    strict = generate(place, output="strict")
    assert {len(content) for content in strict.values()} == {len(content) for content in replaced.values()}
    capsys.readouterr()
    assert generate(place, output="strict") == strict and "3 shards are there" in capsys.readouterr().out


NO_TEXT, NO_TOKEN = "training1.txt holds no text", "training1.txt: the tokenizer (vocabulary of 62) made no token of it"


@pytest.mark.parametrize(
    ("text", "found"), [(b"", NO_TEXT), (b"\n\n", NO_TEXT), (b"\xef\xbb\xbf", NO_TEXT), (b" \n\x01\n", NO_TOKEN), (b"\r\n\r\n", NO_TEXT)]
)
def test_a_text_shard_without_text_is_named_and_the_others_are_made(place, text, found):
    (place / "text" / "training1.txt").write_bytes(text)
    with pytest.raises(UserError, match=r"^1 of 3 text shards failed, the others are done: training1\.txt: .*" + re.escape(found)):
        generate(place)
    assert sorted(folder_bytes(place / "out")) == ["test_shard_0.hdf5", "train_shard_0.hdf5"]


def test_a_vocabulary_without_a_mask_is_refused_before_anything_is_written(place):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    (place / "tok" / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    with pytest.raises(UserError, match=r"vocab\.txt lacks \[MASK\]; a WordPiece vocab\.txt has them, one token a line"):
        generate(place)
    tokenizer = wordpiece([token for token in ODD_VOCABULARY if token != "[MASK]"])
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    assert "[MASK]" not in vocabulary
    (place / "tok" / "tokenizer.json").write_text(tokenizer.to_str().replace("[MASK]", "[OTHER]"), encoding="utf-8")
    with pytest.raises(UserError, match=r"the tokenizer has no mask token; one named \[MASK\] or <mask> would work"):
        generate(place)
    assert not (place / "out").exists()


@pytest.mark.parametrize("masking", ["static", "none"])
def test_whole_words_need_a_tokenizer_that_marks_them(place, masking):
    tokenizer = byte_level()
    tokenizer.decoder = decoders.BPEDecoder()
    tokenizer.save(str(place / "tok" / "tokenizer.json"))
    arguments = ["--dir", place / "text", "-o", place / "out", "--model_name", place / "tok", "--masking", masking, "--n_processes", 1]
    with pytest.raises(UserError, match="the tokenizer does not mark where words begin; masking of single tokens would work"):
        generate_samples.main([str(part) for part in (*arguments, "--whole_word_masking")])
    assert not (place / "out").exists()
    generate_samples.main(list(map(str, arguments)))


def test_shards_of_another_tokenizer_or_other_settings_are_kept_and_named(place, capsys):
    made = generate(place)
    words = [*reversed(WORDS), "zzz"]
    write_vocabulary(place / "other", words)
    write_vocabulary(place / "lower")
    cases = {
        ("--model_name", place / "other"): "tokenizer_sha256",
        ("--do_lower_case", "1"): "lowercase",
        ("--max_seq_length", "31"): "max_seq_length",
        ("--masked_lm_prob", "0.2"): "masked_lm_prob",
        ("--max_predictions_per_seq", "9"): "max_predictions_per_seq",
        ("--short_seq_prob", "0.2"): "short_seq_prob",
        ("--masking", "none"): "masking",
        ("--seed", "1"): "seed",
        ("--errors", "replace"): "errors",
        ("--nsp",): "nsp",
        ("--whole_word_masking",): "whole_word_masking",
    }
    for flags, name in cases.items():
        advice = "another --output_dir or --overwrite would work"
        with pytest.raises(UserError, match=rf"shard_0\.hdf5 was made with {name} .*, now it is .*; {advice}"):
            generate(place, *flags)
    (place / "out" / "train_shard_0.hdf5").write_bytes(made["train_shard_0.hdf5"][:5000])
    capsys.readouterr()
    assert generate(place) == made
    assert "train_shard_0.hdf5 was cut short" in capsys.readouterr().err
    assert generate(place, "--overwrite") == made


def test_flags_that_cannot_work(place):
    for flags, message in [
        (["--max_seq_length", "5", "--nsp"], "--max_seq_length 5; 6 or more would work"),
        (["--max_seq_length", "3"], "--max_seq_length 3; 4 or more would work"),
        (["--nsp", "--no_nsp"], "--nsp and --no_nsp contradict each other"),
        (["--short_seq_prob", "-0.1"], "--short_seq_prob -0.1; 0 to 1 would work"),
        (["--seed", "-1"], "--seed -1; 0 to 18446744073709551615 would work"),
        (["--seed", str(2**64)], "--seed 18446744073709551616; 0 to 18446744073709551615 would work"),
        (["--n_processes", "0"], "--n_processes 0; 1 or more would work"),
        (["--max_predictions_per_seq", "0"], "1 or more would work"),
        (["--dup_factor", "0"], "1 or more would work"),
        (["--errors", "ignore"], "argument --errors: invalid choice"),
    ]:
        places = ["--dir", place / "text", "-o", place / "out", "--model_name", place / "tok"]
        with pytest.raises(UserError, match=message):
            generate_samples.main([str(part) for part in (*places, *flags)])
    assert not (place / "out").exists()


def test_a_full_disk_is_one_line_and_leaves_no_half_of_a_shard(place):
    write_text_shard(place / "text" / "training1.txt", make_articles(2500, seed=5))
    done = shell(place, limit=100_000)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    message = r"error: 1 of 3 text shards failed, the others are done: training1\.txt: \S*out/train_shard_1\.hdf5 cannot be written "
    assert re.search(message + r"\(.*File too large.*\); free some space or name another folder", done.stderr), done.stderr
    assert sorted(folder_bytes(place / "out")) == ["test_shard_0.hdf5", "train_shard_0.hdf5"], "no hidden rest either"
    assert shell(place).returncode == 0
    assert generate(place, output="again") == folder_bytes(place / "out")


def test_an_output_folder_that_cannot_be_one(place):
    (place / "out").write_text("a file")
    done = shell(place)
    assert done.returncode == 2 and "Traceback" not in done.stderr and done.stderr.startswith("error: "), done.stderr
    assert "out" in done.stderr and (place / "out").read_text() == "a file"


def test_text_that_has_no_other_document_for_pairs_is_said(place, capsys):
    write_text_shard(place / "text" / "training0.txt", [[sentence for article in make_articles(30) for sentence in article]])
    generate(place, "--nsp")
    said = capsys.readouterr().err
    assert re.search(r"\d+ samples \([45]\d\.\d%\) are true pairs where chance wanted a text of another document: .*num_train_shards", said)
    write_text_shard(place / "text" / "training0.txt", make_articles(30))
    generate(place, "--nsp")
    assert "true pairs" not in capsys.readouterr().err
