"""benchmarks/size_latency.py tells parameters, bytes and seconds of models beside their teacher's, and its mistakes are one line."""

import json

import pytest
from tiny import make_model, make_teacher

from benchmarks.size_latency import main, parse_flags
from dataset.errors import UserError


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("sizes")
    make_teacher(root / "teacher", layers=4)
    make_teacher(root / "student", layers=2, family="distilbert")
    make_model("gpt2", layers=1).save_pretrained(root / "in_parts", max_shard_size="20KB")
    return root


def test_sizes_are_those_of_the_folders_and_ratios_are_to_the_first(folders, tmp_path, capsys):
    names = ("teacher", "student", "in_parts")
    main([*(str(folders / name) for name in names), "--length", "16", "--batches", "1", "3", "--rounds", "2", "--json",
          str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())["models"]
    made = [make_model(layers=4), make_model("distilbert", layers=2), make_model("gpt2", layers=1)]
    assert [one["parameters"] for one in found] == [sum(part.numel() for part in model.parameters()) for model in made]
    assert len(list((folders / "in_parts").glob("model-*.safetensors"))) > 1
    for name, one in zip(names, found, strict=True):
        assert one["file_bytes"] == sum(path.stat().st_size for path in (folders / name).glob("*.safetensors"))
        assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in one["seconds"].values()) and list(one["seconds"]) == ["1", "3"]
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.split()[:1] and line.split()[0] in names}
    assert rows["teacher"][2] == rows["teacher"][4] == "1.00" == rows["teacher"][7] == rows["teacher"][10]
    assert rows["student"][2] == f"{found[1]['parameters'] / found[0]['parameters']:.2f}"


@pytest.mark.parametrize(("flags", "message"), [
    ([], "a teacher's folder and a student's, or --shapes"), (["{teacher}"], "a teacher's folder and a student's"),
    (["--shapes", "{teacher}", "{student}"], "or --shapes alone"), (["{teacher}", "nowhere"], "nowhere: no such folder$"),
    (["{teacher}", "runs/progress_1.0_step_*"], r"progress_1.0_step_\*: no such folder; no folder fits this pattern"),
    (["{teacher}", "{teacher}/.."], r"\.\.: no config.json"),
    (["{teacher}", "{student}", "--rounds", "1"], "--rounds from 2"), (["{teacher}", "{student}", "--length", "65"], "has 64 positions")])
def test_mistakes_are_one_line(folders, flags, message):
    words = [word.format(teacher=folders / "teacher", student=folders / "student") for word in flags]
    with pytest.raises(UserError, match=message) as caught:
        main(words) if "65" in words else parse_flags(words)
    assert "\n" not in str(caught.value)
