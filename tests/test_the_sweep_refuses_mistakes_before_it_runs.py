"""A mistake anywhere in a sweep's recipe is one line that names file, key or point, before anything is written and without torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cli_case import write_teacher
from launching import ROOT, clean_environment
from sweep_case import make_place, recipe
from tiny_glue import write_squad, write_sst2

from dataset.errors import UserError
from evaluation.sweep.__main__ import main
from evaluation.sweep.recipe import read_recipe
from evaluation.sweep.runs import make_runs

INITS = [{"name": "last", "student_layers": "2,3"}, {"name": "first", "student_layers": [0, 1]}]
SCORE = {"protocol": "quick", "task_name": "sst2", "glue_dir": "PLACE/glue", "max_seq_length": 32}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = make_place(tmp_path_factory.mktemp("mistakes"))
    write_teacher(place / "other")
    write_squad(write_sst2(place / "glue", train=8, dev=4), train=4, dev=4)
    write_teacher(place / "short", max_position_embeddings=16)
    (place / "base.yaml").write_text("overwrite: true\n", encoding="utf-8")
    return place


def here(place, value):
    """`value` with the folder of the tests in place of the word PLACE."""
    if isinstance(value, dict):
        return {key: here(place, one) for key, one in value.items()}
    if isinstance(value, list):
        return [here(place, one) for one in value]
    return value.replace("PLACE", str(place)) if isinstance(value, str) else value


@pytest.mark.parametrize(("changes", "told"), [
    ({"names": "x"}, "unknown key 'names'; did you mean name?"),
    ({"lr": 1}, "unknown key 'lr'; flags of the trainer belong below `flags`"),
    ({"name": "a/b"}, "name 'a/b' becomes a folder"),
    ({"output_dir": ...}, "no output_dir"),
    ({"flags": {"wieght_decay": 0}}, "flags: unknown flag 'wieght_decay'; did you mean weight_decay?"),
    ({"flags": {"seed": 1}}, "flags: seed: a sweep sets it itself; its key 'seeds' says it"),
    ({"flags": {"overwrite": True}}, "flags: overwrite belongs to one call of the trainer"),
    ({"flags": {"lr": "fast"}}, "flags: lr: could not convert string to float: 'fast'"),
    ({"flags": {"lr": {"a": 1}}}, "flags: lr: found a mapping"),
    ({"flags": {"lr": "-1"}}, "method=hidden_mse: --lr -1.0: a number above 0 is needed"),
    ({"grid": {"metod": ["hidden_mse"]}}, "grid: unknown flag 'metod'; did you mean method?"),
    ({"grid": {"method": []}}, "grid: method: [] is no list"),
    ({"grid": {"method": ["hidden_mse", "hidden_mes"]}}, "recipe.yaml: method=hidden_mes: --method hidden_mes: 'hidden_mes' is not an obj"),
    ({"grid": {"method": ["hidden_mse"], "lr": ["5e-4", "0.0005"]}}, "grid: lr: 0.0005 is there twice"),
    ({"grid": {"method": ["hidden_mse"], "lr": ["x"]}}, "grid: lr: could not convert"),
    ({"grid": {"method": ["hidden_mse:1,mlm:2", "hidden_mse-1,mlm-2"]}}, "would share the folder method=hidden_mse-1-mlm-2; name them"),
    ({"grid": {"method": ["hidden_mse"], "project_name": ["a", "b"]}}, "project_name=b are the same run"),
    ({"grid": {"method": ["hidden_mse"], "init": [*INITS, {"name": "third", "student_layers": "2, 3"}]}},
     "init=last and method=hidden_mse,init=third are the same run"),
    ({"grid": {"method": ["hidden_mse"], "init": [*INITS, {"student_layers": "1,2"}]}}, "grid: init: a mapping without a name"),
    ({"grid": {"method": ["hidden_mse"], "init": INITS, "student_layers": ["1,2"]}},
     "student_layers is set by init=last and by student_layers=1,2"),
    ({"grid": {"method": ["hidden_mse"], "lr": ["1e-4"]}, "flags": {"lr": 1}}, "lr is in flags and in the grid (lr)"),
    ({"grid": {"method": ["hidden_mse"], "init": [{"name": "far", "student_layers": "3,9"}]}},
     "method=hidden_mse,init=far: --student_layers"),
    ({"exclude": [{"methd": "att_mse"}]}, "exclude: 'methd' is no axis of the grid; did you mean method?"),
    ({"exclude": [{"method": "att_kl"}]}, "exclude: method: att_kl is no value of the grid; its values are hidden_mse, att_mse"),
    ({"exclude": [{"method": "att_mse"}, {"method": "hidden_mse"}]}, "exclude leaves no point"),
    ({"exclude": {"method": "att_mse"}}, "exclude: a list of partial points"),
    ({"seeds": [1, 1]}, "seeds: ['1', '1']; a list of different whole numbers"),
    ({"seeds": 3}, "seeds: 3; a list"),
    ({"budget_hours": "-1"}, "budget_hours: -1; a number of hours above 0"),
    ({"launcher": "no_such_launcher x"}, "no program no_such_launcher on the PATH"),
    ({"config": "nowhere.yaml"}, "method=hidden_mse: --config nowhere.yaml: no such file"),
    ({"config": "PLACE/base.yaml"}, "overwrite belongs to one call and not to a run"),
    ({"flags": {"teacher_path": "nowhere"}}, "method=hidden_mse: --teacher_path nowhere: no such folder"),
    ({"launcher": "torchrun --nproc_per_node=3"}, "--train_batch_size 8 is not a multiple of --train_micro_batch_size_per_gpu 8 times 3"),
    ({"score": {**SCORE, "protocl": 1}}, "score: unknown flag --protocl; did you mean --protocol?"),
    ({"score": {**SCORE, "protocol": "quik"}}, "score: --protocol quik: no such protocol; did you mean quick?"),
    ({"score": {**SCORE, "task_name": "sst3"}}, "score: --task_name: unknown task 'sst3'"),
    ({"score": {**SCORE, "run_dir": "x"}}, "score: run_dir; a sweep sets it for each run"),
    ({"score": {**SCORE, "glue_dir": "nowhere"}}, "score: --glue_dir nowhere: no such folder"),
    ({"score": SCORE, "baselines": {"cut": "nowhere"}}, "score: --baseline cut=nowhere: nowhere: no such folder"),
    ({"score": SCORE, "baselines": {"cut": "PLACE/short"}}, "/short: --max_seq_length 32: the model in PLACE/short has 16 positions"),
    ({"score": {**SCORE, "glue_dir": None}}, "score: SST-2: no data named; --glue_dir"),
    ({"score": {**SCORE, "task_name": "rte"}}, "score: PLACE/glue: no folder RTE"),
    ({"score": {**SCORE, "start_from_mnli": True, "task_name": "sst2,ax"}}, "score: PLACE/glue: no folder diagnostic"),
    ({"score": {**SCORE, "task_name": "squad"}}, "score: --max_seq_length 32: with --max_query_length 64 and --doc_stride 128"),
    ({"score": {**SCORE, "max_seq_length": 100000}}, "method=hidden_mse: score: --max_seq_length 100000: the student has 64 positions"),
    ({"score": {**SCORE, "do_eval": True}}, "score: without do_train models are scored with the heads that they have"),
    ({"score": {**SCORE, "teacher_path": "nowhere"}}, "score: nowhere: no such folder"),
    ({"score": {**SCORE, "teacher_path": "PLACE/teacher"}}, "score: the teacher PLACE/teacher: no architecture in its config.json"),
    ({"score": {**SCORE, "with_teacher": True}, "baselines": {"teacher": "PLACE/teacher"}}, "score: two models are called 'teacher'"),
    ({"score": {**SCORE, "with_teacher": True}, "flags": {"teacher_path": ...},
      "grid": {"method": ["hidden_mse"], "teacher_path": ["PLACE/teacher", {"name": "other", "teacher_path": "PLACE/other"}]}},
     "score: with_teacher: the runs have 2 teachers (PLACE/teacher, PLACE/other)"),
    ({"score": {**SCORE, "devices": "cpu, cuda:99"}}, "score: --devices cpu, cuda:99: cuda:99 is not here"),
    ({"baselines": {"cut": "nowhere"}}, "baselines without score"),
    ({"hyperparameters": {"lr": ["1e-4"]}}, "beside hyperparameters; one of the two forms"),
])
def test_each_mistake_is_one_line(place, changes, told):
    path = recipe(place, **here(place, changes))
    with pytest.raises(UserError) as error:
        main([str(path), "--run"])
    assert here(place, told) in str(error.value) and "\n" not in str(error.value)
    assert not (place / "out").exists()


@pytest.mark.parametrize(("text", "told"), [
    ("name: [", "recipe.yaml, line 1: not YAML"), ("a: 1\na: 2\n", "'a' is written twice"), ("- a\n", "not a mapping"),
])
def test_what_is_no_recipe_is_named(tmp_path, text, told):
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        main([str(tmp_path / "recipe.yaml")])
    assert told in str(error.value)


def test_calls_that_contradict_themselves_are_refused(place):
    for flags, told in (("--table", "no score"), ("--score", "no score")):
        with pytest.raises(UserError, match=told):
            main([str(recipe(place)), flags])
    with pytest.raises(UserError, match="--print_commands runs nothing"):
        main([str(recipe(place)), "--run", "--print_commands"])
    with pytest.raises(UserError, match="nowhere: no such file"):
        main(["nowhere"])


def test_the_checks_import_no_torch_and_a_mistake_is_status_2(place):
    code = ("import sys\nfrom dataset.errors import run_command\nfrom evaluation.sweep.__main__ import main\n"
            "main([sys.argv[1]])\nassert not {'torch', 'transformers', 'scipy'} & set(sys.modules)\n"
            "run_command(lambda: main([sys.argv[2]]))\n")
    good = recipe(place, score=here(place, SCORE)).rename(place / "good.yaml")
    bad = recipe(place, flags={"lr": "-1"})
    done = subprocess.run([sys.executable, "-c", code, str(good), str(bad)], cwd=ROOT,
                          env=clean_environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr, done.stderr


def test_points_are_called_after_what_varies_and_their_flags_mean_what_they_say(place):
    grid = {"method": ["hidden_mse", {"name": "weighted", "method": "hidden_mse:1.0,mlm:0.5"}],
            "init": [*INITS, {"name": "none", "student_initialize": False}], "lr": ["5e-4", 0.001], "aug": [False]}
    path = recipe(place, grid=grid, exclude=[{"init": "none"}, {"method": "weighted", "lr": "5e-4"}], flags={"student_initialize": ...})
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for init in content["grid"]["init"][:2]:
        init["student_initialize"] = True
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    runs = make_runs(read_recipe(path))
    assert [run.id for run in runs[:6]] == [
        "method=hidden_mse,init=last,lr=0.0005,aug=false/seed_1", "method=hidden_mse,init=last,lr=0.001,aug=false/seed_1",
        "method=hidden_mse,init=first,lr=0.0005,aug=false/seed_1", "method=hidden_mse,init=first,lr=0.001,aug=false/seed_1",
        "method=weighted,init=last,lr=0.001,aug=false/seed_1", "method=weighted,init=first,lr=0.001,aug=false/seed_1"]
    last = runs[5].flags
    assert (last["method"], last["student_layers"], last["lr"], last["aug"], last["seed"]) == ("hidden_mse:1.0,mlm:0.5", "0,1", 0.001,
                                                                                              False, 1)
    assert len(runs) == 12 and runs[6].flags["seed"] == 2


def test_without_seeds_a_point_has_the_seed_of_its_recipe(place):
    (place / "seeded.yaml").write_text("seed: 7\n", encoding="utf-8")
    runs = make_runs(read_recipe(recipe(place, seeds=..., config=str(place / "seeded.yaml"))))
    assert [run.id for run in runs] == ["method=hidden_mse/seed_7", "method=att_mse/seed_7"]


def test_the_originals_form_is_translated_and_false_means_false(place, capsys):
    path = place / "originals.yaml"
    fixed = yaml.safe_load(recipe(place).read_text(encoding="utf-8"))["flags"]
    path.write_text(json.dumps({
        "hyperparameters": {"lr": ["1e-3", "2e-3"], "seed": [3, 4], "method": "hidden_mse", "fused_linear_layer": [False]},
        "default_parameters": {**fixed, "output_dir": str(place / "out"), "job_name": "theirs", "current_run_id": "x", "deepspeed": True,
                               "do_validation": False, "fp16": False}}), encoding="utf-8")
    assert main([str(path), "--print_commands"]) == 0
    done = capsys.readouterr()
    lines = [line for line in done.out.splitlines() if not line.startswith("#")]
    assert len(lines) == 4
    assert all(f"--{said}" in line for line in lines for said in ("do_validation false", "fp16 false", "deepspeed true"))
    assert "false means false here (do_validation, fp16, fused_linear_layer); the originals' script made it true" in done.err
    runs = make_runs(read_recipe(path))
    assert [run.id for run in runs] == [f"lr={lr},method=hidden_mse,fused_linear_layer=false/seed_{seed}"
                                        for seed in (3, 4) for lr in ("0.001", "0.002")]
    assert runs[0].flags["do_validation"] is False and runs[0].flags["fp16"] is False and runs[0].flags["deepspeed"] is True
    assert runs[0].folder == place / "out" / "theirs" / runs[0].id
