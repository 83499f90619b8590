"""The official TSV files of GLUE with their quotes, byte order marks, line ends, missing headers and torn rows."""

import pytest

from dataset.errors import UserError
from evaluation.metrics.glue import METRICS
from evaluation.tasks.own import METRICS_OF_KIND
from evaluation.tasks.submission import submission_name
from evaluation.tasks.table import GLUE, LAYOUTS, TASKS, load_task, select_tasks
from evaluation.tasks.task import Examples

PARSES = "sentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
MNLI_START = f"index\tpromptID\tpairID\tgenre\t{PARSES}\tsentence1\tsentence2"
MNLI_ROW = "{}\t31193\t31193n\tgovernment\t( a )\t( b )\t(ROOT a)\t(ROOT b)\t{}\t{}"
# task -> file -> lines, as in the official archives; then, for each set, texts and labels.
FILES = {
    "CoLA": {
        "train": ["gj04\t1\t\tThe more, \"the merrier.", "cj99\t0\t*\tThey drank the pub."],
        "dev": ["gj04\t0\t*\tWeather and smoke.", "bc01\t1\t\tYes"],
    },
    "SST-2": {
        name: ["sentence\tlabel", "it 's a \"charming journey . \t1", "bleak\x0c and\u2028 desperate \t0"] for name in ("train", "dev")
    },
    "MRPC": {
        name: [
            "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
            '1\t1355540\t1355592\tHe said so .\t" The pie " does " not fit .', "0\t20\t21\tOne .\tTwo .",
        ] for name in ("train", "dev")
    },
    "STS-B": {
        name: [
            "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
            "0\tmain-captions\tMSRvid\t2012test\t0001\tnone\tnone\tA plane.\tAn \"air plane.\t5.000",
            "1\tmain-news\tf\t2012\t2\tn\tn\tA.\tB.\t0.556",
        ] for name in ("train", "dev")
    },
    "QQP": {
        "train": [
            "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "133273\t213221\t213222\tHow \"is it?\tWhat is it?\t1",
            "402555\t536040\t536041\tWho?\t\t0",
        ],
        "dev": ["id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "1\t2\t3\tWhy?\tHow?\t0"],
    },
    "MNLI": {
        "train": [f"{MNLI_START}\tlabel1\tgold_label", f"{MNLI_ROW.format(0, 'A cat.', 'An animal.')}\tneutral\tentailment"],
        **{
            name: [f"{MNLI_START}\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label",
                   f"{MNLI_ROW.format(0, name, 'x')}\tneutral\tneutral\tentailment\tneutral\tneutral\tneutral",
                   f"{MNLI_ROW.format(1, name, 'y')}\tneutral\tneutral\tcontradiction\tneutral\tneutral\tcontradiction"]
            for name in ("dev_matched", "dev_mismatched")
        },
    },
    "QNLI": {
        name: ["index\tquestion\tsentence\tlabel", "0\tWho?\tI.\tnot_entailment", "1\tWhy?\tSo.\tentailment"]
        for name in ("train", "dev")
    },
    "RTE": {
        name: ["index\tsentence1\tsentence2\tlabel", "0\tA \"b.\tC.\tnot_entailment", "1\tD.\t\"E.\tentailment"]
        for name in ("train", "dev")
    },
    "WNLI": {name: ["index\tsentence1\tsentence2\tlabel", "0\tI stuck a pin.\tThe carrot.\t1", "1\tA\tB\t0"] for name in ("train", "dev")},
}
EXPECTED = {
    "CoLA": {"train": ((['The more, "the merrier.', "They drank the pub."],), [1, 0]), "dev": ((["Weather and smoke.", "Yes"],), [0, 1])},
    "SST-2": {name: (([FILES["SST-2"]["dev"][1][:-2], FILES["SST-2"]["dev"][2][:-2]],), [1, 0]) for name in ("train", "dev")},
    "MRPC": {name: ((["He said so .", "One ."], ['" The pie " does " not fit .', "Two ."]), [1, 0]) for name in ("train", "dev")},
    "STS-B": {name: ((["A plane.", "A."], ['An "air plane.', "B."]), [5.0, 0.556]) for name in ("train", "dev")},
    "QQP": {"train": ((['How "is it?', "Who?"], ["What is it?", ""]), [1, 0]), "dev": ((["Why?"], ["How?"]), [0])},
    "MNLI": {
        "train": ((["A cat."], ["An animal."]), [0]),
        "matched": ((["dev_matched"] * 2, ["x", "y"]), [1, 2]),
        "mismatched": ((["dev_mismatched"] * 2, ["x", "y"]), [1, 2]),
    },
    "QNLI": {name: ((["Who?", "Why?"], ["I.", "So."]), [1, 0]) for name in ("train", "dev")},
    "RTE": {name: ((['A "b.', "D."], ["C.", '"E.']), [1, 0]) for name in ("train", "dev")},
    "WNLI": {name: ((["I stuck a pin.", "A"], ["The carrot.", "B"]), [1, 0]) for name in ("train", "dev")},
}
WAYS = {
    "plain": lambda lines: "\n".join(lines) + "\n",
    "byte order mark": lambda lines: "\ufeff" + "\n".join(lines) + "\n",
    "CRLF": lambda lines: "\r\n".join(lines) + "\r\n",
    "no last line end": lambda lines: "\ufeff" + "\r\n".join(lines),
    "empty lines at the end": lambda lines: "\n".join(lines) + "\n\n\n",
}
AX_FULL = [
    "Lexical Semantics\tPredicate-Argument Structure\tLogic\tKnowledge\tDomain\tPremise\tHypothesis\tLabel",
    "\t\tNegation\t\tArtificial\tThe cat sat.\tThe cat did not sit.\tcontradiction", "\t\t\t\tNews\tA\tB\tneutral",
]


def named(name):
    return select_tasks([name])[0]


def write(glue_dir, name, files, way=WAYS["plain"], folder=None):
    place = glue_dir / (folder or name)
    place.mkdir(parents=True, exist_ok=True)
    for part, lines in files.items():
        (place / f"{part}.tsv").write_bytes((lines if isinstance(lines, str) else way(lines)).encode("utf-8"))
    return glue_dir


def plain(examples):
    return examples.texts, examples.labels


def refused(load, *parts):
    with pytest.raises(UserError) as caught:
        load()
    text = str(caught.value)
    assert [part for part in parts if part not in text] == [], text
    assert "\n" not in text


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FILES)
def test_every_task_in_every_way_files_are_saved(tmp_path, name, way):
    data = load_task(named(name), write(tmp_path, name, FILES[name], WAYS[way]))
    assert {"train": plain(data.train), **{part: plain(found) for part, found in data.dev.items()}} == EXPECTED[name]
    assert list(data.dev) == [part for part in EXPECTED[name] if part != "train"]
    assert data.test == {}


def test_mrpc_from_its_sources(tmp_path):
    header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
    rows = ["1\t1\t2\ta \"x\tb", "0\t3\t4\tc\td", "1\t5\t6\te\tf"]
    folder = tmp_path / "MRPC"
    folder.mkdir()
    (folder / "msr_paraphrase_train.txt").write_text("\ufeff" + "\r\n".join([header, *rows]) + "\r\n", encoding="utf-8")
    (folder / "msr_paraphrase_test.txt").write_text(f"\ufeff{header}\n1\t7\t8\tg\th\n", encoding="utf-8")
    refused(lambda: load_task(named("mrpc"), tmp_path), str(folder), "dev_ids.tsv")
    (folder / "dev_ids.tsv").write_text("3\t4\n99\t98\n")
    data = load_task(named("mrpc"), tmp_path, test=True)
    assert (plain(data.train), plain(data.dev["dev"])) == (((['a "x', "e"], ["b", "f"]), [1, 1]), ((["c"], ["d"]), [0]))
    assert data.test["test"] == Examples((["g"], ["h"]), None)
    write(tmp_path, "MRPC", {"train": [header, rows[0], rows[2]], "dev": [header, rows[1]]})
    assert load_task(named("mrpc"), tmp_path).sha256 == data.sha256
    (folder / "dev_ids.tsv").write_text("1\t1\n")
    (folder / "train.tsv").unlink()
    refused(lambda: load_task(named("mrpc"), tmp_path), "msr_paraphrase_train.txt: none of its pairs")


def test_torn_rows_of_qqp_are_passed_over_and_counted(tmp_path, capsys):
    header, *rows = FILES["QQP"]["train"]
    torn = ["97931\t1\t2\tHow did he die?\tIs it true? ", "\"\tWas it real?\t0"]
    write(tmp_path, "QQP", {"train": [header, *rows * 1000, *torn], "dev": FILES["QQP"]["dev"]})
    assert len(load_task(named("qqp"), tmp_path).train) == 2000
    assert "train.tsv: 2 torn lines passed over (line 2002 is the first); 2000 rows read" in capsys.readouterr().err
    write(tmp_path, "QQP", {"train": [header, *rows * 900, *torn]})
    refused(lambda: load_task(named("qqp"), tmp_path), "train.tsv, line 1802", "1 others, of 1802", "6 columns")


def test_test_sets_have_ids_and_no_labels(tmp_path):
    files = {
        "CoLA": {"test": ["index\tsentence", "0\tBill \"whistled.", "2\tB"]},
        "QQP": {"test": ["id\tquestion1\tquestion2", "0\tA?\tB?", "7\tC?\tD?"]},
        "MNLI": {"test_mismatched": [MNLI_START, MNLI_ROW.format(5, "p", "h")], "test_matched": [MNLI_START, MNLI_ROW.format(9, "q", "i")]},
        "SST-2": {"test": ["index\tsentence", "3\tone"]},
        "MRPC": {"test": ["index\t#1 ID\t#2 ID\t#1 String\t#2 String", "4\t1\t2\tone\ttwo"]},
        "RTE": {},
    }
    found = {}
    for name, more in files.items():
        data = load_task(named(name), write(tmp_path, name, FILES[name] | more), test=True)
        found[name] = data.test
        assert data.sha256 == load_task(named(name), tmp_path).sha256
    assert found == {
        "CoLA": {"test": Examples((['Bill "whistled.', "B"],), None, ["0", "2"])},
        "QQP": {"test": Examples((["A?", "C?"], ["B?", "D?"]), None, ["0", "7"])},
        "MNLI": {"matched": Examples((["q"], ["i"]), None, ["9"]), "mismatched": Examples((["p"], ["h"]), None, ["5"])},
        "SST-2": {"test": Examples((["one"],), None, ["3"])},
        "MRPC": {"test": Examples((["one"], ["two"]), None, ["4"])},
        "RTE": {},
    }


def test_the_diagnostic_set_with_and_without_labels(tmp_path):
    ax = named("diagnostic")
    refused(lambda: load_task(ax, tmp_path), "no folder diagnostic")
    write(tmp_path, "AX", {"diagnostic": ["index\tsentence1\tsentence2", "0\tp\th", "1\tq\ti"]}, folder="diagnostic")
    refused(lambda: load_task(ax, tmp_path), "no diagnostic-full.tsv", "--do_predict")
    data = load_task(ax, tmp_path, test=True)
    assert (data.dev, data.test) == ({}, {"test": Examples((["p", "q"], ["h", "i"]), None, ["0", "1"])})
    write(tmp_path, "AX", {"diagnostic-full": AX_FULL}, folder="diagnostic")
    data = load_task(ax, tmp_path)
    assert plain(data.dev["dev"]) == ((["The cat sat.", "A"], ["The cat did not sit.", "B"]), [2, 1])
    assert (len(data.train), len(data.train.texts), data.task.metrics[0]) == (0, 2, "matthews")


def test_columns_are_found_by_name(tmp_path):
    files = dict.fromkeys(("train", "dev"), "label\tnote\tsentence\n1\tx\tgood\n0\ty\tbad\n")
    assert load_task(named("sst2"), write(tmp_path, "SST-2", files)).dev["dev"].texts == (["good", "bad"],)


@pytest.mark.parametrize("folder", ["SST-2", "SST2", "sst2"])
def test_usual_folder_names(tmp_path, folder):
    assert load_task(named("SST-2"), write(tmp_path, "SST-2", FILES["SST-2"], folder=folder)).dev["dev"].labels == [1, 0]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("SST-2", "sentence\tlabel\ngood\t1\nbad\n", ["line 3", "found 1 columns", "expected 2 (sentence, label)"]),
        ("SST-2", "sentence\tlabel\ngood\tvery\t1\n", ["line 2", "found 3 columns", "expected 2"]),
        ("SST-2", "sentence\tlabel\ngood\t1\n\nbad\t0\n", ["line 3", "found 1 columns"]),
        ("SST-2", "sentence\tlabel\ngood\t2\n", ["line 2", "'2'", "column label", "0, 1"]),
        ("SST-2", "text\tlabel\ngood\t1\n", ["line 1", "'text, label'", "no 'sentence'", "sentence, label"]),
        ("SST-2", "sentence\tlabel\n", ["no examples"]),
        ("SST-2", "", ["line 1", "empty", "sentence, label"]),
        ("SST-2", "\ufeff\n\n", ["line 1", "empty", "sentence, label"]),
        ("RTE", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tmaybe\n", ["line 2", "'maybe'", "entailment, not_entailment"]),
        ("MRPC", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t2\t3\ta\n", ["line 2", "found 4 columns", "expected 5"]),
        ("CoLA", "gj04\t1\t\ta\ngj04\t2\t\tb\n", ["line 2", "'2'", "column label"]),
        ("CoLA", "gj04\t1\t\ta\n1\tb\n", ["line 2", "found 2 columns", "expected 4 (source, label, star, sentence)"]),
        ("STS-B", "sentence1\tsentence2\tscore\na\tb\t5.1\n", ["line 2", "'5.1'", "column score", "a number from 0 to 5"]),
        ("STS-B", "sentence1\tsentence2\tscore\na\tb\t2\na\tb\tnan\n", ["line 3", "'nan'"]),
        ("STS-B", "sentence1\tsentence2\tscore\na\tb\thigh\n", ["line 2", "'high'"]),
        ("MNLI", f"{MNLI_START}\tlabel1\tgold_label\n{MNLI_ROW.format(0, 'a', 'b')}\tneutral\t-\n", ["line 2", "'-'", "column gold_label"]),
        ("QQP", "id\tquestion1\tquestion2\tis_duplicate\n1\ta\tb\n", ["line 2", "columns"]),
    ],
)
def test_broken_lines_are_named(tmp_path, name, text, told):
    write(tmp_path, name, FILES[name] | {"train": text})
    refused(lambda: load_task(named(name), tmp_path), str(tmp_path / name / "train.tsv"), *told)


def test_what_is_not_there_is_named(tmp_path):
    load = lambda name, folder=tmp_path: lambda: load_task(named(name), folder)  # noqa: E731
    refused(load("mnli", tmp_path / "none"), f"--glue_dir {tmp_path / 'none'}: no such folder", "MNLI/train.tsv")
    refused(load("mnli"), f"{tmp_path}: no folder MNLI", "train.tsv and dev_matched.tsv and dev_mismatched.tsv")
    write(tmp_path, "MNLI", {name: FILES["MNLI"][name] for name in ("train", "dev_matched")})
    refused(load("mnli"), f"{tmp_path / 'MNLI'}: no dev_mismatched.tsv")
    refused(lambda: load_task(named("mnli"), None), "MNLI: no data named", "--glue_dir")
    refused(lambda: load_task(named("mnli"), tmp_path, dataset_name="nyu-mll/glue"), "--glue_dir and --dataset_name")


def test_bytes_that_are_not_utf8_are_named(tmp_path):
    write(tmp_path, "SST-2", FILES["SST-2"])
    (tmp_path / "SST-2" / "dev.tsv").write_bytes(b"sentence\tlabel\ngood\t1\ncaf\xe9\t0\n")
    refused(lambda: load_task(named("SST-2"), tmp_path), "dev.tsv, line 3: not UTF-8")


def test_names_of_tasks_in_any_spelling():
    assert [task.name for task in select_tasks(["sst2,MRPC", "SST-2", "rte", "sts_b"])] == ["SST-2", "MRPC", "RTE", "STS-B"]
    assert [task.name for task in select_tasks(["squad", "SQuAD_v2", "squad1.1", "squad-v2.0"])] == ["SQuAD-1.1", "SQuAD-2.0"]
    refused(lambda: select_tasks(["sst3"]), "'sst3'; did you mean sst2?; known tasks are CoLA, SST-2, MRPC, STS-B, QQP, MNLI")
    refused(lambda: select_tasks([" , "]), "no task named", "CoLA")


def test_every_row_of_the_table_is_complete():
    for task in TASKS:
        assert task.headline in task.metrics
        assert task.kind == "span" or set(task.metrics) <= set(METRICS)
        assert select_tasks([task.name]) == [task]
    for task, layout in GLUE.items():
        assert len(layout.label_values) == len(task.label_names) == len(set(layout.label_values))
        assert (layout.limits is not None) == (task.kind == "regression")
    assert {name for names in METRICS_OF_KIND.values() for name in names} == set(METRICS)
    assert {submission_name(named(name), "test") for name in LAYOUTS if name != "MNLI"} == set(LAYOUTS) - {"MNLI"}


def test_label_order_is_the_hubs():
    # As the ClassLabel features of nyu-mll/glue name them.
    assert {task.name: ", ".join(task.label_names) for task in GLUE} == {
        "CoLA": "unacceptable, acceptable", "SST-2": "negative, positive", "MRPC": "not_equivalent, equivalent", "STS-B": "",
        "QQP": "not_duplicate, duplicate", "MNLI": "entailment, neutral, contradiction", "QNLI": "entailment, not_entailment",
        "RTE": "entailment, not_entailment", "WNLI": "not_entailment, entailment", "AX": "entailment, neutral, contradiction",
    }
    assert {task.name: (task.headline, *sorted(task.metrics)) for task in GLUE if task.metrics != ("accuracy",)} == {
        "CoLA": ("matthews", "matthews"), "MRPC": ("f1", "accuracy", "f1"), "QQP": ("f1", "accuracy", "f1"),
        "STS-B": ("spearman", "pearson", "spearman"), "AX": ("matthews", "accuracy", "matthews"),
    }


def test_changed_data_has_another_hash(tmp_path):
    write(tmp_path, "RTE", FILES["RTE"])
    first = load_task(named("RTE"), tmp_path).sha256
    hashes = {first}
    for part in ("train", "dev"):
        for old, new in (("D.", "D!"), ("1\tD.", "7\tD."), ("\tentailment", "\tnot_entailment")):
            lines = [line.replace(old, new) for line in FILES["RTE"][part]]
            found = load_task(named("RTE"), write(tmp_path, "RTE", FILES["RTE"] | {part: lines})).sha256
            assert (found == first) == (old == "1\tD.")  # an index is neither text nor label
            hashes.add(found)
    assert len(hashes) == 5
    assert load_task(named("RTE"), write(tmp_path, "RTE", FILES["RTE"], WAYS["CRLF"])).sha256 == first
