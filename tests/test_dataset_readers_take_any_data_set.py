"""Data sets of the real `datasets` library, saved or local, row by row in order; the hub that cannot be reached is one line at once."""

import json
import os
import shutil
import time

import datasets
import pytest
from reader_case import articles
from tiny_corpus import run_script

from dataset.errors import UserError

ROWS = [{"id": number, "text": f"Row {number}\nof many." if number % 5 else None} for number in range(600)]
EXPECTED = [f"Row {number} of many." for number in range(600) if number % 5]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rows = datasets.Dataset.from_list(ROWS)
    rows.save_to_disk(folder / "saved")
    rows.select(range(599, -1, -1)).save_to_disk(folder / "reversed")
    datasets.DatasetDict(train=rows, test=rows.select([1, 2])).save_to_disk(folder / "both")
    (folder / "parts").mkdir()
    rows.select(range(300)).to_parquet(folder / "parts" / "train-00000-of-00002.parquet")
    rows.select(range(300, 600)).to_parquet(folder / "parts" / "train-00001-of-00002.parquet")
    rows.select([3]).to_parquet(folder / "parts" / "test-00000-of-00001.parquet")
    rows.to_parquet(folder / "a.parquet")
    rows.to_json(folder / "a.jsonl.gz", compression="gzip")
    rows.to_csv(folder / "a.csv")
    rows.to_csv(folder / "a.tsv", sep="\t")
    (folder / "array.json").write_text(json.dumps(ROWS))
    (folder / "a.txt").write_text("".join(f"Row {row['id']} of many.\n" if row["text"] else "\n" for row in ROWS))
    (folder / "cut.parquet").write_bytes((folder / "a.parquet").read_bytes()[:-500])
    (folder / "cut.jsonl").write_text('{"text": "fine"}\n{"text":\n')
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_every_local_form_gives_the_rows_in_order(data, tmp_path, capsys):
    for name in ("saved", "both", "parts", "a.parquet", "a.jsonl.gz", "a.csv", "a.tsv", "array.json", "a.txt"):
        assert articles("datasets", data / name, tmp_path) == EXPECTED, name
        assert "480 articles" in (said := capsys.readouterr().out) and "120 empty left out" in said
    assert articles("datasets", data / "reversed", tmp_path) == EXPECTED[::-1]
    assert articles("datasets", data / "both", tmp_path, "--dataset_split", "test") == EXPECTED[:2]
    assert articles("datasets", data / "parts", tmp_path, "--dataset_split", "test") == [EXPECTED[2]]


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("saved", ["--field", "id"], "saved, row 1: the field id is of type int; a field of text would work"),
        ("saved", ["--field", "body"], "no field body; its fields are id, text"),
        ("array.json", ["--field", "body"], "no field body; its fields are id, text"),
        ("both", ["--dataset_split", "dev"], "no split dev; --dataset_split train or test would work"),
        ("parts", ["--dataset_split", "dev"], "cannot open .*dev.*train"),
        ("cut.parquet", [], "datasets cannot open .*cut.parquet: "),
        ("cut.jsonl", [], "datasets cannot read .*cut.jsonl to its end: "),
        ("a/b/c", [], "--file a/b/c does not exist"),
    ],
)
def test_what_a_data_set_lacks_is_one_line(data, tmp_path, name, flags, message, monkeypatch):
    monkeypatch.chdir(data)
    with pytest.raises(UserError, match=message) as error:
        articles("datasets", name, tmp_path / "out", *flags)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_the_output_cannot_lie_in_the_data_set_and_a_flag_without_effect_is_named(data, tmp_path, capsys):
    with pytest.raises(UserError, match="whose files are the data set"):
        articles("datasets", data / "parts", data / "parts" / "out")
    for name in ("saved", "a.csv"):
        articles("datasets", data / name, tmp_path, "--dataset_config", "en", "--dataset_split", "dev")
        said = capsys.readouterr().err
        assert said.count("no effect: --dataset_config: ") == said.count("no effect: --dataset_split: ") == 1


def test_a_name_on_a_hub_out_of_reach_is_one_line_within_seconds(tmp_path):
    # Port 9 of the loopback refuses at once; the library alone would try again for 23 seconds.
    for setting in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        start = time.monotonic()
        flags = ["-f", "someone/corpus", "-o", tmp_path / "out", "--type", "datasets"]
        done = run_script("process_data", *flags, env={**environment, "HF_HOME": str(tmp_path / "home"), **setting}, cwd=tmp_path)
        assert time.monotonic() - start < 15
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("error: ") and "someone/corpus" in done.stderr


def test_offline_a_name_is_read_from_the_cache(data, tmp_path):
    home = tmp_path / "home"
    datasets.load_dataset(str(data / "parts"), cache_dir=str(home / "datasets"))
    shutil.move(home / "datasets" / "parts", home / "datasets" / "someone___corpus")
    for file in (home / "datasets").rglob("parts-*.arrow"):
        file.rename(file.with_name(file.name.replace("parts-", "corpus-")))
    flags = ["-f", "someone/corpus", "-o", tmp_path / "out", "--type", "datasets"]
    done = run_script("process_data", *flags, env={**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "datasets_one_article_per_line.txt").read_text() == "".join(f"{text}\n\n" for text in EXPECTED)
