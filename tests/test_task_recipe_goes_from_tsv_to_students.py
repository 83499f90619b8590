"""One command makes teacher, texts, logits, students and programs of them, does nothing twice, and goes on where it was stopped."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml
from launching import ROOT, clean_environment
from task_case import CALL
from tiny_glue import make_model, write_sst2

import run_task_distillation
from dataset.errors import UserError
from evaluation.report.page import write_report
from evaluation.scoring.results import read_results
from task_distillation.recipe import run as recipe_run
from task_distillation.recipe.command import main
from task_distillation.recipe.read import read_recipe
from task_distillation.recipe.steps import plan_steps
from task_distillation.recipe.summary import retention

RECIPE = """
task_name: SST-2
seeds: [1, 2]
teach: {max_steps: 30, learning_rate: 1.0e-3, per_device_train_batch_size: 16, max_seq_length: 32, precision: fp32}
augment: {n_iter: 2, n_processes: 1}
label: {devices: cpu, max_seq_length: 32, precision: fp32}
distil: {student: bilstm, hidden_size: 8, fc_size: 8, embedding_size: 16, lr: 0.01, clock: "simulated:60", total_training_time: 0.2,
         finetune_time_markers: 1.0, precision: fp32}
export: {formats: torch_export}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    write_sst2(folder / "glue")
    make_model(folder / "encoder")
    (folder / "sst2.yaml").write_text(RECIPE)
    return folder


def words(place, *more, name="sst2.yaml"):
    return [str(place / name), "--model", str(place / "encoder"), "--glue_dir", str(place / "glue"), "--output_dir", str(place / "out"),
            "--devices", "cpu", *more]


@pytest.fixture
def started(monkeypatch, zygote):
    """The subcommands that were started; they run in this process, `distil` in a fork, because a new Python for each takes a minute."""
    found = []

    def start(line):
        assert line[:2] == [sys.executable, str(recipe_run.SCRIPT)]
        found.append(line[2])
        if line[2] == "distil":
            return zygote.start(line[2:], call=CALL).wait()[0], False
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", line[1:])
            return run_task_distillation.main() or 0, False

    monkeypatch.setattr(recipe_run, "start", start)
    return found


def test_from_tsv_to_programs_and_on_after_every_kind_of_stop(place, started, monkeypatch, capsys):
    plain, failing = recipe_run.start, ["label", "distil"]

    def start(line):
        if failing and line[2] == failing[0]:
            failing.pop(0)
            return -9, False
        return plain(line)

    monkeypatch.setattr(recipe_run, "start", start)
    for stopped in ("label", "distil seed 1"):
        with pytest.raises(UserError, match=f"{stopped}: ended by signal 9; the same command goes on"):
            main(words(place))
    main(words(place))
    assert started == ["teach", "augment", "label", "distil", "distil", "export", "export"]
    said = json.loads((place / "out" / "summary.json").read_text())
    assert [student["seed"] for student in said["students"]] == [1, 2]
    assert said["retention"] == retention(
        said["teacher"]["metrics"]["accuracy"], said["constant_metrics"]["accuracy"], said["students"][0]["metrics"]["accuracy"])
    table = (place / "out" / "summary.md").read_text()
    assert "| teacher |" in table and "2 seeds, mean ± deviation" in table
    size = (place / "out" / "serving" / "seed_1" / "student.pt2").stat().st_size
    assert f"torch_export {size / 1e6:.1f} MB" in table
    assert f"| the same answer for every row | | {100 * said['constant_metrics']['accuracy']:.1f} |" in table
    for seed in (1, 2):
        run_folder = place / "out" / "students" / f"seed_{seed}"
        assert {row["role"] for row in read_results(run_folder)} == {"teacher", "marker"}
        assert len({str(row["protocol"]) for row in read_results(run_folder)}) == 1  # else a report would not draw the teacher's line
        assert (place / "out" / "serving" / f"seed_{seed}" / "tokenizer.json").is_file()
    started.clear()
    capsys.readouterr()
    _put_other_scores(place)
    main(words(place))
    assert started == [] and capsys.readouterr().out.count("done before") == 7
    (place / "encoder").rename(place / "encoder, elsewhere")  # the teacher is there
    main(words(place))
    (place / "encoder, elsewhere").rename(place / "encoder")
    assert started == []
    again = json.loads((place / "out" / "summary.json").read_text())["students"]
    assert again[0]["metrics"] == said["students"][0]["metrics"] and again[1]["metrics"] is None
    assert "| student, seed 2 | | no score |" in (place / "out" / "summary.md").read_text()
    with pytest.raises(UserError, match=r"made with --hidden_size 8, not with --hidden_size 9; another --output_dir would work"):
        main(words(place, "--set", "distil.hidden_size=9"))
    assert started == []
    main(words(place, "--seeds", "1,2,3"))
    assert started == ["distil", "export"]
    started.clear()
    shutil.rmtree(place / "out" / "teacher")
    main(words(place, "--seeds", "1"))
    assert started == ["teach"]  # the same bytes
    started.clear()
    shutil.rmtree(place / "out" / "teacher")
    main(words(place, "--seeds", "1", "--set", "teach.seed=7"))
    assert started == ["teach", "label", "distil", "export"]  # the texts do not depend on the teacher


@pytest.mark.parametrize(("teacher", "constant", "students", "kept"), [
    (0.9, 0.5, 0.81, 0.9), (0.5, 0.5, 0.7, None), (0.9, 0.5, 0.5, None), (0.4, 0.0, 0.1, 0.25), (-0.1, -0.2, 0.1, None)])
def test_only_what_was_learnt_is_retained(teacher, constant, students, kept):
    assert retention(teacher, constant, students) == (None if kept is None else pytest.approx(kept))


def test_a_report_on_the_folder_is_of_all_students(place, tmp_path):
    write_report([place / "out"], tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "seed_1" in text and "seed_2" in text


def test_every_file_that_a_flag_names_is_read(place, tmp_path):
    recipe = yaml.safe_load(RECIPE)
    recipe["teach"]["protocol"], recipe["distil"]["deepspeed_config"] = str(tmp_path / "p.yaml"), str(tmp_path / "ds.json")
    recipe["augment"]["spacy_model"], recipe["distil"]["vocab_size"] = str(tmp_path / "spacy"), None
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    steps = plan_steps(read_recipe(tmp_path / "r.yaml", [], "1"), tmp_path, place / "encoder", None, place / "glue")
    read = {step.command: step.reads for step in steps}
    assert read["teach"] == {"--model": place / "encoder", "--protocol": tmp_path / "p.yaml"}
    assert read["distil"] == {"--deepspeed_config": tmp_path / "ds.json"} and read["augment"] == {"--spacy_model": tmp_path / "spacy"}
    assert not any("--vocab_size" in step.words for step in steps)


def _put_other_scores(place):
    """Scores under the marker's name, but fine-tuned, of another task or of other weights. Seed 2 is left with no others."""
    for seed in (1, 2):
        path = place / "out" / "students" / f"seed_{seed}" / "glue.json"
        rows = json.loads(path.read_text())
        own = next(row for row in rows if row["role"] == "marker")
        others = [own | {name: value, "metrics": {"accuracy": 0.125}}
                  for name, value in (("mode", "fine_tuning"), ("task", "RTE"), ("weights_sha256", "other"))]
        path.write_text(json.dumps(others + [row for row in rows if seed == 1 or row is not own]))


MISTAKES = {
    "no teacher": (RECIPE, ["--model", None], "no teacher; --model FOLDER"),
    "flag of a step": (RECIPE, ["--set", "distil.hiden_size=3"], "distil: unknown flag --hiden_size; did you mean --hidden_size?"),
    "flag of the recipe": (RECIPE, ["--set", "label.output=x"], "label: output is set by the recipe itself"),
    "no step": (RECIPE, ["--set", "hidden_size=3"], "STEP.FLAG=VALUE would work"),
    "key": (RECIPE + "distill: {}\n", [], "unknown key 'distill'; did you mean distil?"),
    "two sets": (RECIPE + "generate: {lm_path: x}\n", [], "augment and generate: two transfer sets"),
    "seeds": (RECIPE, ["--seeds", "1,1"], "different whole numbers"),
    "no task": ("seeds: [1]\n", [], "no task named"),
    "unknown task": (RECIPE.replace("SST-2", "SST-3"), [], "unknown task"),
    "not YAML": ("a: [", [], "not a recipe"),
    "choice": (RECIPE, ["--set", "distil.student=lstm"], "'lstm' is not one of"),
    "replacing": (RECIPE, ["--set", "label.overwrite=true"], "label: overwrite is set by the recipe itself"),
    "objective": (RECIPE, ["--set", "distil.method=foo"], "distil: --method foo: unknown objective"),
    "learning rate": (RECIPE, ["--set", "distil.lr=-1"], "distil: --lr -1"),
    "siamese": (RECIPE, ["--set", "distil.student=siamese_bilstm"], "distil: --student siamese_bilstm compares the two texts"),
    "no vectors": (RECIPE, ["--set", "distil.embedding=static"], "distil: --embedding static needs --word_vectors"),
    "length": (RECIPE, ["--set", "distil.max_length=0"], "distil: --max_length 0"),
    "clock": (RECIPE, ["--set", "distil.clock=real"], "distil: --clock real"),
    "one call": (RECIPE, ["--set", "distil.print_config=true"], "distil: print_config belongs to one call"),
    "epochs": (RECIPE, ["--set", "teach.num_train_epochs=-3"], "teach: --num_train_epochs -3"),
    "grid": (RECIPE.replace("learning_rate: 1.0e-3, per_device_train_batch_size: 16, ", ""),
             ["--set", "teach.protocol=budget"], "teach: --protocol budget: a grid over"),
    "labels": (RECIPE, ["--set", "distil.method=labels"], "distil: --method labels: new texts have no labels"),
    "classes": (RECIPE.replace("SST-2", "STS-B"), ["--set", "distil.method=kl"], "distil: --method kl: compares classes"),
    "no place for new rows": (RECIPE, ["--set", "augment.max_rows=5"], "augment: --max_rows 5"),
    "scored nowhere": (RECIPE, ["--devices", "bogus"], "--devices bogus"),
    "labelled nowhere": (RECIPE, ["--set", "label.devices=cuda:99"], "label: --devices cuda:99"),
    "taught nowhere": (RECIPE, ["--set", "teach.device=cuda:99"], "teach: --devices cuda:99"),
    "no encoder": (RECIPE, ["--model", "/nonexistent"], "teach: /nonexistent: no such folder"),
    "whole number": (RECIPE, ["--set", "distil.hidden_size=abc"], "distil: --hidden_size: 'abc' is not a whole number"),
    "too large": (RECIPE, ["--set", "distil.hidden_size=1000000000"], "a whole number from 1 to 1,000,000"),
    "temperature": (RECIPE, ["--set", "distil.method=kl", "--set", "distil.temperature=1e-30"], "distil: --temperature 1e-30"),
    "end": (RECIPE, ["--set", "distil.finetune_checkpoint_at_end=false"], "finetune_checkpoint_at_end is set by the recipe itself"),
    "help": (RECIPE, ["--set", "label.help=a"], "label: help is set by the recipe itself"),
    "quote": (RECIPE, ["--launcher", '"torchrun'], "--launcher \"torchrun: No closing quotation"),
    "tasks": (RECIPE.replace("SST-2", "[SST-2]"), [], "task_name: found a list; one name would work"),
    "task files": (RECIPE.replace("task_name: SST-2", "task_file: [a]"), [], "task_file: found a list"),
    "probability": (RECIPE, ["--set", "augment.mask_prob=2"], "augment: --mask_prob 2"),
    "windows": (RECIPE, ["--set", "augment.window_lengths=0"], "augment: --window_lengths 0"),
    "passes": (RECIPE, ["--set", "augment.n_iter=0"], "augment: --n_iter 0"),
    "batch": (RECIPE, ["--set", "label.per_device_eval_batch_size=0"], "label: --per_device_eval_batch_size 0"),
    "chunks": (RECIPE, ["--set", "label.chunk_rows=0"], "label: --chunk_rows 0"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_found_before_the_first_step(place, started, name):
    text, more, said = MISTAKES[name]
    (place / "wrong.yaml").write_text(text)
    command = words(place, "--output_dir", str(place / "never"), name="wrong.yaml")
    if more and more[1] is None:
        at = command.index(more[0])
        del command[at : at + 2]
    else:
        command += more
    with pytest.raises(UserError) as caught:
        main(command)
    assert said in str(caught.value) and "\n" not in str(caught.value) and started == []


@pytest.mark.parametrize("name", [path.stem for path in sorted((ROOT / "configs" / "task").glob("*.yaml")) if "distil" not in path.stem])
def test_every_recipe_of_the_project_is_understood(place, name, capsys):
    main([str(ROOT / "configs" / "task" / f"{name}.yaml"), "--model", "encoder", "--glue_dir", "glue", "--output_dir", str(place / "no"),
          "--print_commands", "--launcher", "torchrun --nproc_per_node 2"])
    lines = capsys.readouterr().out.splitlines()
    heads = [line.partition("run_task_distillation.py ")[::2] for line in lines]
    assert [(head, rest.split()[0]) for head, rest in heads] == [
        ("python ", "teach"), ("python ", "augment"), ("python ", "label"), *[("torchrun --nproc_per_node 2 ", "distil")] * 3,
        *[("python ", "export")] * 3]


def test_the_printed_export_takes_the_last_marker(place, tmp_path, capsys):
    finetune = tmp_path / "out" / "students" / "seed_2" / "finetune"
    for number, name in enumerate(("progress_0.25_step_100", "progress_0.5_step_9", "progress_1.0_step_20")):
        (finetune / name).mkdir(parents=True)
        os.utime(finetune / name, (number, number))
    main([*words(place), "--output_dir", str(tmp_path / "out"), "--print_commands"])
    line = capsys.readouterr().out.splitlines()[-1].replace("python run_task_distillation.py", "echo")
    said = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout.split()
    assert said[:4] == ["export", str(finetune / "progress_1.0_step_20"), "--output_dir", str(tmp_path / "out" / "serving" / "seed_2")]


@pytest.mark.slow
def test_the_command_line_itself_does_all_of_it(place, tmp_path):
    command = [sys.executable, "run_task_distillation.py", "recipe", *words(place), "--output_dir", str(tmp_path / "out"), "--seeds", "1"]
    done = subprocess.run(command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "| student, seed 1 |" in (tmp_path / "out" / "summary.md").read_text()
