"""Every recipe in configs/ and every command of docs/recipes.md and of the recipes' own comments is one that our programs understand."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from launching import ROOT
from translate_case import flags_of, ours

from benchmarks import size_latency
from dataset import count_tokens, generate_samples, process_data, shard_data
from dataset.errors import UserError
from pretraining import extract_student
from pretraining.args.parser import parse
from pretraining.args.resolve import resolve
from pretraining.launch import Launch
from pretraining.teacher_cache.extraction_plan import make_parser

RECIPES = ("distilbert_6layer", "distilgpt2", "offline_nsp_6layer")
PLACES = [ROOT / "docs" / "recipes.md", *(ROOT / "configs" / f"{name}.yaml" for name in RECIPES)]
PARSERS = {"dataset/process_data.py": process_data, "dataset/shard_data.py": shard_data, "dataset/generate_samples.py": generate_samples,
           "dataset/count_tokens.py": count_tokens, "pretraining.extract_student": extract_student,
           "benchmarks.size_latency": size_latency, "extract_teacher_outputs.py": None}
ABSENT = re.compile(r"--(dir|file) \S+ (is no folder|does not exist)|no file or folder|bert-base-uncased: no such folder")
TRAINER = "run_pretraining.py"


def commands(path: Path) -> list[list[str]]:
    """Words of every command in the file's bash blocks, or in a recipe's comments."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        lines = "\n".join(re.findall(r"```bash\n(.*?)```", text, flags=re.S))
    else:
        lines = "\n".join(line[1:] for line in text.splitlines() if line.startswith("#   "))
    joined = lines.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in joined if line.strip()]


def of(path: Path, program: str) -> list[list[str]]:
    """The flags of every call of `program` in the file."""
    return [words[words.index(program) + 1:] for words in commands(path) if program in words]


@pytest.mark.parametrize("path", PLACES, ids=lambda path: path.name)
def test_commands_are_understood(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = commands(path)
    assert len(found) >= 4 and all(any(program in words for program in (*PARSERS, TRAINER)) for words in found), found
    for program, module in PARSERS.items():
        for flags in of(path, program):
            try:
                make_parser().parse_args(flags) if module is None else module.parse_flags(flags)
            except UserError as error:  # all that is wrong is that the example's folders are not here
                assert ABSENT.match(str(error)), str(error)
    for flags in of(path, TRAINER):
        resolved = resolve(parse(flags), Launch(rank=0, world_size=8, local_rank=0, launched=True))
        assert not resolved.notes, resolved.notes


def test_recipes_have_the_published_values():
    def recipe(name: str):
        args = parse(["--config", str(ROOT / "configs" / f"{name}.yaml")])
        resolved = resolve(args, Launch(rank=0, world_size=8, local_rank=0, launched=True))
        return args, {part.name: part.weight for part in resolved.methods}

    args, methods = recipe("distilbert_6layer")
    assert methods == {"logit": 5, "mlm": 2, "cosine": 1} and args.distillation.logit_positions == "all"
    assert (args.distillation.temperature, args.data.mlm_smoothing, args.model.num_hidden_layers) == (2, 0.7, 6)
    flags = args.optimization
    assert (flags.lr, flags.weight_decay, flags.gradient_clipping, flags.warmup_proportion) == (5e-4, 0, 5, 0.05)
    assert (flags.adam_beta1, flags.adam_beta2, flags.adam_eps) == (0.9, 0.98, 1e-6)
    assert args.distillation.freeze_pos_embs and args.data.group_by_length
    _, methods = recipe("distilgpt2")
    assert methods == {"logit": 5, "clm": 2, "cosine": 1}
    args, methods = recipe("offline_nsp_6layer")
    assert methods == {"soft_ce": 1, "nsp": 1} and args.model.model_type == "bert-mlm-nsp" and args.distillation.truncation_factor == 10
    assert (args.optimization.lr, args.optimization.num_warmup_steps, args.budget.max_steps) == (4e-4, 1250, 12500)


def test_the_offline_recipe_is_what_the_old_command_did_on_eight_processes():
    args = parse(["--config", str(ROOT / "configs" / "offline_nsp_6layer.yaml")])
    (old,) = ours("mpirun -np 8 python network_distillation_distributed_truncated.py --bert_config_file b/bert_config.json --input_file "
                  "l/x.tfrecord --output_dir runs/student --do_train True --do_eval True")
    old = flags_of(old)
    assert float(old["lr"]) == args.optimization.lr
    for name in ("max_steps", "num_warmup_steps", "train_batch_size", "train_micro_batch_size_per_gpu", "validation_samples",
                 "steps_between_checkpoints", "truncation_factor"):
        assert int(old[name]) == args.get(name), name


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_tried_small_as_the_page_says_resolves_on_one_process(name):
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    (small,), (warmup,) = re.findall(r"`(--train_batch_size 16 [^`]*)`", page), re.findall(r"`(--num_warmup_steps 2)`", page)
    words = [*small.split(), *(warmup.split() if name == "offline_nsp_6layer" else [])]
    resolved = resolve(parse(["--config", str(ROOT / "configs" / f"{name}.yaml"), *words]), Launch(0, 1, 0, False))
    assert resolved.args.budget.max_steps == 12 and not resolved.notes, resolved.notes


def test_the_last_export_is_the_one_of_most_steps_whatever_its_fraction(tmp_path):
    (words,) = of(ROOT / "docs" / "recipes.md", "benchmarks.size_latency")
    for name in ("progress_0.5_step_900", "progress_0.25_step_1000", "progress_0.75_step_1100", "progress_0.0012_step_12"):
        (tmp_path / "runs" / "distilbert_6layer" / "finetune" / name).mkdir(parents=True)
    said = subprocess.run(["bash", "-c", f'printf %s "{words[1]}"'], cwd=tmp_path, capture_output=True, text=True, timeout=20, check=True)
    assert said.stdout == "runs/distilbert_6layer/finetune/progress_0.75_step_1100"


def test_the_commands_of_the_teachers_page_are_understood():
    (extraction, *_), (training,) = (of(ROOT / "docs" / "teacher_cache.md", name) for name in ("extract_teacher_outputs.py", TRAINER))
    make_parser().parse_args(extraction)
    resolved = resolve(parse(training), Launch(0, 1, 0, False))
    assert not resolved.notes and resolved.args.distillation.student_initialize is True and resolved.args.get("teacher_path") == "teacher"
