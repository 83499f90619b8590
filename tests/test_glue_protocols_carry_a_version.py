"""A protocol is data with a version and a hash; what flags change in it is said, and what cannot work is one line with file and key."""

from dataclasses import fields

import pytest
import yaml

from dataset.errors import UserError
from evaluation.fine_tuning.settings import FineTuningSettings, check_for_kind
from evaluation.scoring.flags import make_parser, select_protocol
from evaluation.scoring.protocols import FOLDER, MNLI_STARTS, known_protocols, read_protocol
from evaluation.tasks.table import TASKS

GOOD = {"name": "own", "version": 2, "seeds": [1, 2], "aggregate": "median",
        "settings": {"learning_rate": 3e-5, "num_train_epochs": 2}, "grid": {"per_device_train_batch_size": [16, 32]},
        "tasks": {"RTE": {"num_train_epochs": 4}}, "start_from": {"RTE": "MNLI"}}


def write(folder, **changes):
    content = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def protocol_of(*flags):
    return select_protocol(make_parser("").parse_args(["--model_name_or_path", "m", *flags]))


def test_those_that_come_with_the_project_are_read_and_named_as_their_files():
    assert {"quick", "sane", "distilbert", "budget"} <= set(known_protocols())
    for name in known_protocols():
        protocol = read_protocol(name)
        assert protocol.name == name and protocol.version >= 1 and not protocol.start_from
        assert set(protocol.tasks) <= {task.name for task in TASKS}
        for task in TASKS:
            for point in protocol.points(task.name):
                assert not point.load_best_model_at_end and point.early_stopping_patience == -1
                check_for_kind(point, task.kind)


def test_the_published_ones_say_what_was_published():
    sane = read_protocol("sane")
    assert sane.aggregate == "median" and len(sane.seeds) == 5 and not sane.grid, "one set for all tasks"
    assert {(p.num_train_epochs, p.learning_rate, p.per_device_train_batch_size) for p in sane.points("RTE")} == {(5, 4e-5, 16)}
    points = read_protocol("budget").points("MRPC")
    assert {(point.learning_rate, point.per_device_train_batch_size) for point in points} == {
        (rate, size) for rate in (1e-5, 3e-5, 5e-5, 8e-5) for size in (16, 32)}
    assert {point.num_train_epochs for point in points} == {20}
    assert {point.num_train_epochs for point in read_protocol("budget").points("QNLI")} == {10}


def test_points_are_the_grid_times_the_seeds(tmp_path):
    protocol = read_protocol(write(tmp_path))
    assert [(p.per_device_train_batch_size, p.seed, p.num_train_epochs) for p in protocol.points("RTE")] == [
        (16, 1, 4), (16, 2, 4), (32, 1, 4), (32, 2, 4)]
    assert {p.num_train_epochs for p in protocol.points("SST-2")} == {2}


def test_the_hash_is_of_what_decides_a_score(tmp_path):
    first = read_protocol(write(tmp_path))
    path = tmp_path / "own.yaml"
    path.write_text(f"# a comment\n{path.read_text()}")
    assert read_protocol(str(path)).sha256 == first.sha256
    assert read_protocol(write(tmp_path, seeds=[5])).sha256 == first.sha256, "more seeds may join"
    different = [{"version": 3}, {"aggregate": "mean"}, {"settings": {"learning_rate": 3.1e-5}}, {"grid": None},
                 {"tasks": None}, {"start_from": None}]
    hashes = {read_protocol(write(tmp_path, **change)).sha256 for change in different}
    assert len(hashes | {first.sha256}) == len(different) + 1


def test_flags_change_a_protocol_and_the_result_says_which(tmp_path):
    path = write(tmp_path)
    plain = protocol_of("--protocol", path)
    assert plain.changed == () and plain == read_protocol(path)
    changed = protocol_of("--protocol", path, "--num_train_epochs", "1", "--per_device_train_batch_size", "8", "--seeds", "7,8")
    assert changed.changed == ("num_train_epochs", "per_device_train_batch_size")
    assert [(p.per_device_train_batch_size, p.num_train_epochs, p.seed) for p in changed.points("RTE")] == [(8, 1, 7), (8, 1, 8)]
    assert changed.sha256 != plain.sha256 and changed.describe()["name"] == "own" and changed.describe()["version"] == 2
    # Saying what the protocol says changes nothing.
    assert protocol_of("--protocol", path, "--seeds", "1,2").changed == ()
    begun = protocol_of("--protocol", "quick", "--start_from_mnli", "--task_name", "rte")
    assert begun.changed == ("start_from",) and begun.start_from == MNLI_STARTS
    for flags in (["--task_name", "sst2"], ["--task_name", "rte", "--do_eval"]):
        assert protocol_of("--protocol", "quick", "--start_from_mnli", *flags) == read_protocol("quick"), "it has no effect"


def test_what_is_said_twice_or_in_another_order_changes_nothing(tmp_path):
    path = write(tmp_path, settings={"learning_rate": 3e-5}, tasks={"rte": {"max_steps": 4}}, start_from={"rte": "mnli"})
    protocol = read_protocol(path)
    assert protocol.tasks == {"RTE": {"max_steps": 4}} and protocol.start_from == {"RTE": "MNLI"}
    assert protocol_of("--protocol", path, "--learning_rate", "3e-5", "--weight_decay", "0.01", "--seeds", "2,1") == protocol
    assert protocol_of("--protocol", path, "--seeds", "7").changed == ()
    changed = protocol_of("--protocol", path, "--learning_rate", "3e-5", "--max_steps", "5", "--seeds", "3,1")
    assert changed.changed == ("max_steps",) and changed.tasks == {} and changed.seeds == (1, 3)


def test_settings_are_judged_together_and_in_their_own_types(tmp_path):
    """A setting that needs another one may stand in another place than that."""
    every = {"settings": {"eval_strategy": "epoch"}, "grid": None, "tasks": {"SST-2": {"load_best_model_at_end": True}}}
    path = write(tmp_path, **every)
    assert read_protocol(path).points("SST-2")[0].load_best_model_at_end
    assert protocol_of("--protocol", path, "--early_stopping_patience", "2").points("RTE")[0].early_stopping_patience == 2
    path = write(tmp_path, **every | {"grid": {"early_stopping_patience": [1.0, 2.0]}})
    assert [point.early_stopping_patience for point in read_protocol(path).points("RTE")] == [1, 1, 2, 2]


def test_flags_alone_are_a_protocol_without_a_name():
    protocol = protocol_of("--learning_rate", "2e-5", "--seeds", "3,4")
    assert (protocol.name, protocol.version, protocol.seeds) == ("flags", 0, (3, 4))
    assert [point.learning_rate for point in protocol.points("RTE")] == [2e-5, 2e-5]
    assert protocol_of().seeds == (42,) and protocol_of("--seed", "5").seeds == (5,)
    assert protocol_of("--seed", "5").sha256 == protocol_of().sha256 != protocol_of("--learning_rate", "1e-5", "--seed", "5").sha256
    names = {item.name for item in fields(FineTuningSettings)}
    assert {"settings", *protocol_of().settings} == {"settings", *names} - {"seed"}


@pytest.mark.parametrize(("changes", "told"), [
    ({"settings": {"learning_rat": 1e-5}}, r"settings: unknown setting learning_rat; did you mean learning_rate\?"),
    ({"settings": {"seed": 1}}, "settings: unknown setting seed; seeds is a key of the protocol"),
    ({"settings": {"learning_rate": "4e-5"}}, r"learning_rate '4e-5' is not a float; 4e-05 is text in YAML, write it with a dot: 4.0e-5"),
    ({"settings": {"learning_rate": True}}, "learning_rate True is not a float"),
    ({"settings": {"learning_rate": -1.0}}, "own.yaml: --learning_rate -1.0: give more than 0"),
    ({"settings": {"num_train_epochs": None}}, "num_train_epochs None is not a float"),
    ({"settings": {"per_device_train_batch_size": 1.5}}, "per_device_train_batch_size 1.5 is not an int"),
    ({"settings": [1]}, r"settings is \[1\]; a mapping would work"),
    ({"tasks": {"RTE": {"epochs": 1}}}, "tasks: RTE: unknown setting epochs"),
    ({"grid": {"learning_rate": [1e-5]}}, "learning_rate is set and in the grid"),
    ({"grid": {"warmup_ratio": []}}, "grid of warmup_ratio: a list of different values would work"),
    ({"grid": {"warmup_ratio": [0.1, 0.1]}}, "a list of different values would work"),
    ({"grid": {"warmup_ratio": [0, 0.0]}}, "a list of different values would work"),
    ({"start_from": {"RTE": 5}}, "start_from: 5 is no task; a mapping of names to names"),
    ({"start_from": {"RTE": ["MNLI"]}}, r"start_from: \['MNLI'\] is no task"),
    ({"start_from": {"RTE": None}}, "start_from: None is no task"),
    ({"tasks": {"RTE": {"early_stopping_patience": 2}}}, "add --eval_strategy epoch"),
    ({"grid": {"warmup_ratio": [2.0]}}, "own.yaml: --warmup_ratio 2.0: give 1 or less"),
    ({"seeds": []}, "seeds .*different whole numbers from 0 on"),
    ({"seeds": [1, 1]}, "different whole numbers from 0 on"),
    ({"seeds": [True]}, "different whole numbers from 0 on"),
    ({"seeds": 3}, "different whole numbers from 0 on"),
    ({"version": 0}, "version 0; a whole number from 1 on"),
    ({"version": "1"}, "version '1'; a whole number from 1 on"),
    ({"aggregate": "max"}, "aggregate 'max'; median or mean would work"),
    ({"aggregate": None}, "no aggregate; a protocol needs"),
    ({"start_from": {"RTE": "RTE"}}, "start_from RTE: RTE, which starts from another task itself"),
    ({"start_from": {"RTE": "MNLI", "MNLI": "QNLI"}}, "start_from RTE: MNLI, which starts from another task"),
    ({"sedes": [1]}, r"unknown key sedes; did you mean seeds\?"),
])
def test_what_cannot_work_is_one_line_with_file_and_key(tmp_path, changes, told):
    path = write(tmp_path, **changes)
    with pytest.raises(UserError, match=told) as error:
        read_protocol(path)
    assert str(error.value).startswith(path) and "\n" not in str(error.value)


def test_an_unknown_protocol_names_those_that_there_are(tmp_path):
    with pytest.raises(UserError, match=r"--protocol quik: no such protocol; did you mean quick\?; budget, .* or the path of a YAML file"):
        read_protocol("quik")
    with pytest.raises(UserError, match=r"no such file; a YAML file or one of budget"):
        read_protocol(str(tmp_path / "x.yaml"))
    for content in ("[1]", "a: [", "\x00", "name"):
        (tmp_path / "x.yaml").write_text(content)
        with pytest.raises(UserError, match=r"x\.yaml: not (YAML|a mapping)"):
            read_protocol(str(tmp_path / "x.yaml"))
    assert FOLDER.is_dir()
