"""Each script runs by path, from inside the folder and with -m; each mistake is one line, status 2, nothing written."""

import re
import subprocess
import sys

import pytest
from tiny_corpus import (
    ROOT,
    folder_bytes,
    make_articles,
    run_script,
    write_articles,
    write_text_shard,
    write_vocabulary,
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "books").mkdir()
    (folder / "books" / "a.txt").write_text("One book. It ends.")
    write_articles(folder / "processed" / "wiki.txt", make_articles(6))
    write_text_shard(folder / "text" / "training0.txt", make_articles(3))
    write_vocabulary(folder / "tok")
    (folder / "empty").mkdir()
    return folder


TWO_AND_ONE = ["--num_train_shards", "2", "--num_test_shards", "1"]


def script_flags(name, inputs, output):
    return {
        "process_data": ["-f", inputs / "books", "-o", output, "--type", "text"],
        "shard_data": ["--dir", inputs / "processed", "-o", output, *TWO_AND_ONE],
        "generate_samples": ["--dir", inputs / "text", "-o", output, "--model_name", inputs / "tok"],
        "merge_shards": ["--data", inputs / "text", "--output_dir", output],
        "split_text": ["--read_file", inputs / "text" / "training0.txt", "--split_number", "2", "--folder", output, "--name_base", "x"],
    }[name]


NEEDED = {
    "convert_samples": "the following arguments are required: --format, --input, -o/--output_dir",
    "inspect_samples": "the following arguments are required: shards",
    "count_tokens": "the following arguments are required: --dir, -o/--output_file",
}


@pytest.mark.parametrize("name", NEEDED)
def test_the_tools_run_three_ways_as_well(name):
    ways = (([str(ROOT / "dataset" / f"{name}.py")], "/"), ([f"{name}.py"], ROOT / "dataset"), (["-m", f"dataset.{name}"], ROOT))
    for command, place in ways:
        done = subprocess.run([sys.executable, *command], cwd=place, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (2, f"error: {NEEDED[name]} (--help lists every flag)\n")


@pytest.mark.parametrize("name", ["process_data", "shard_data", "generate_samples", "merge_shards", "split_text"])
def test_three_ways_of_running_a_script_do_the_same(name, inputs, tmp_path):
    ways = {
        "path": ([str(ROOT / "dataset" / f"{name}.py")], tmp_path),
        "inside": ([f"{name}.py"], ROOT / "dataset"),
        "module": (["-m", f"dataset.{name}"], ROOT),
    }
    outputs = []
    for way, (command, place) in ways.items():
        flags = [str(flag) for flag in script_flags(name, inputs, tmp_path / way)]
        command = [sys.executable, *command, *flags]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        outputs.append(folder_bytes(tmp_path / way))
    assert outputs[0] and outputs[0] == outputs[1] == outputs[2]


MISTAKES = [
    ("process_data", ["-f", "{in}/none", "--type", "wiki"], "--file .* does not exist"),
    ("process_data", ["-f", "{in}/books", "--type", "wiki"], "is a folder; --type wiki needs a MediaWiki dump"),
    ("process_data", ["-f", "{in}/books/a.txt", "--type", "bookcorpus"], "needs a folder of"),
    ("process_data", ["-f", "{in}/empty", "--type", "text"], "holds no"),
    ("process_data", ["-f", "{in}/books", "--type", "text", "--n_processes", "0"], "1 or more would work"),
    ("shard_data", ["--dir", "{in}/none"], "--dir .* is no folder"),
    ("shard_data", ["--dir", "{in}/empty"], r"holds no \*.txt"),
    ("shard_data", ["--dir", "{in}/processed"], "found 6; --num_train_shards 3 --num_test_shards 3 would work"),
    ("shard_data", ["--dir", "{in}/processed", "--frac_test", "1"], "--frac_test 1.0 with --num_test_shards 256"),
    ("shard_data", ["--dir", "{in}/processed", "--num_test_shards", "0"], "or 0 for both, would work"),
    ("shard_data", ["--dir", "{in}/processed", "--language", "english"], "--language english; an ISO 639 code"),
    ("shard_data", ["--dir", "{in}/processed", "-o", "{in}/processed"], "is also --dir"),
    ("shard_data", ["--dir", "{in}/processed", "--dask_address", "nowhere"], "--dask_address nowhere: no Dask scheduler answers"),
    ("merge_shards", ["--data", "{in}/none"], "--data .* is no folder"),
    ("merge_shards", ["--data", "{in}/text", "--grep", "test"], "holds no text shard of test"),
    ("generate_samples", ["--dir", "{in}/none", "--model_name", "{in}/tok"], "--dir .* is no folder"),
    ("generate_samples", ["--dir", "{in}/empty", "--model_name", "{in}/tok"], r"holds no \*.txt"),
    ("generate_samples", ["--dir", "{in}/text"], "--model_name .* or --vocab_file would work"),
    ("generate_samples", ["--dir", "{in}/text", "--vocab_file", "{in}/no.txt"], "--vocab_file .* does not exist"),
    ("generate_samples", ["--dir", "{in}/text", "--model_name", "{in}/empty"], "no tokenizer.json and no vocab.txt"),
    ("generate_samples", ["--dir", "{in}/processed", "--model_name", "{in}/tok"], "neither 'train' nor 'test'"),
    ("generate_samples", ["--dir", "{in}/text", "--model_name", "{in}/tok", "--max_seq_length", "3"], "4 or more"),
    ("generate_samples", ["--dir", "{in}/text", "--model_name", "{in}/tok", "--masked_lm_prob", "1.5"], "0 to 1 would"),
    (
        "generate_samples",
        ["--dir", "{in}/text", "--model_name", "{in}/tok", "--masking", "none", "--dup_factor", "2"],
        "--dup_factor 1 would work",
    ),
]


@pytest.mark.parametrize(("name", "flags", "message"), MISTAKES)
def test_a_mistake_is_one_line(name, flags, message, inputs, tmp_path):
    output = tmp_path / "out"
    flags = [flag.replace("{in}", str(inputs)) for flag in flags]
    done = run_script(name, "--output_dir", output, *flags)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.split("\n") if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in done.stderr
    assert re.search(message, lines[0]), lines[0]
    assert not output.exists() or not any(output.iterdir())


def test_flags_without_effect_say_so(inputs, tmp_path):
    flags = ["--dir", inputs / "text", "-o", tmp_path / "out", "--vocab_file", inputs / "tok" / "vocab.txt"]
    flags += ["--model_name", "x"]
    done = run_script("generate_samples", *flags)
    assert done.returncode == 0, done.stderr
    assert "no effect: --model_name" in done.stderr
    done = run_script("process_data", *script_flags("process_data", inputs, tmp_path / "p"), "--n_processes", 4)
    assert "no effect: --n_processes" in done.stderr


def test_a_cap_below_the_probability_is_said(inputs, tmp_path):
    done = run_script("generate_samples", *script_flags("generate_samples", inputs, tmp_path / "out"), "--max_predictions_per_seq", "20")
    assert "--max_predictions_per_seq 20 masks 3.9% of a full sample; 77 would reach 15%" in done.stderr
