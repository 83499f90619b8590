"""extract_student writes what a run with a bare --student_initialize starts from: a folder that transformers loads whole and
--student_initialize takes; or nothing at all, and one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from launching import ROOT, clean_environment
from tiny import FAMILIES, MODEL_TYPES, VOCABULARY, make_batch, make_model, make_teacher

from dataset.errors import UserError
from pretraining.args.parser import Args
from pretraining.extract_student import extract, parse_flags
from pretraining.models.catalog import find_architecture, read_model_folder
from pretraining.models.loading import BuiltModel, load_model
from pretraining.models.student import build_student
from pretraining.student_plan import plan_student


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict:
    root = tmp_path_factory.mktemp("teachers")
    made = {family: make_teacher(root / family, family=family) for family in FAMILIES}
    return {**made, "headless": make_teacher(root / "headless", head=False)}


def run(teacher: Path, output: Path, *flags: str) -> Path:
    return extract(parse_flags(["--teacher_path", str(teacher), "--output_dir", str(output), *flags]))


def loaded(folder: Path, auto: str):
    model, info = getattr(transformers, auto).from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    return model.eval()


def start_of_a_run(teacher: Path, **flags) -> BuiltModel:
    """What a run with these flags and a bare --student_initialize builds."""
    args, folder = Args(), read_model_folder(str(teacher), "--teacher_path")
    args.distillation.student_initialize = True
    for name, value in flags.items():
        args.set(name, value)
    architecture = find_architecture(flags["model_type"]) if "model_type" in flags else folder.architecture
    plan, model = plan_student(args, folder, architecture), BuiltModel(*load_model(teacher, "--teacher_path", folder.architecture))
    return build_student(plan, plan.architecture, model, folder.architecture, False, False, seed=7)


def reload(folder: Path) -> BuiltModel:
    """What --student_initialize FOLDER builds."""
    args, found = Args(), read_model_folder(str(folder), "--student_initialize")
    args.distillation.student_initialize = str(folder)
    plan = plan_student(args, None, found.architecture)
    return build_student(plan, plan.architecture, None, None, False, False, seed=8)


def same_state(left, right) -> bool:
    left, right = left.state_dict(), right.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(("flags", "values"), [
    (["--student_layers", "3,1"], {"student_layers": "3,1"}),
    (["--num_hidden_layers", "2", "--hidden_size", "24", "--intermediate_size", "40"],
     {"num_hidden_layers": 2, "hidden_size": 24, "intermediate_size": 40})], ids=["layers", "narrow"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_folder_is_what_a_run_starts_from(folders, family, flags, values, tmp_path):
    folder = run(folders[family], tmp_path / "student", *flags)
    model, wanted = loaded(folder, find_architecture(MODEL_TYPES[family]).auto_class), start_of_a_run(folders[family], **values)
    assert same_state(model, wanted.model) and type(model) is type(wanted.model)
    batch = make_batch()
    with torch.no_grad():
        assert torch.equal(model(batch.input_ids).logits, wanted.model.eval()(batch.input_ids).logits)
    again = reload(folder)
    assert same_state(again.model, wanted.model) and again.has_head
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.vocab_size == VOCABULARY and tokenizer("ba dora")["input_ids"] == transformers.AutoTokenizer.from_pretrained(
        folders[family])("ba dora")["input_ids"]
    card = (folder / "README.md").read_text()
    assert f"# student: a student before its first step\n\n- {family}, 2 layers" in card
    assert ("layers 3, 1" if "student_layers" in values else "hidden_size 32 to 24") in card
    assert sorted(path.name for path in tmp_path.iterdir()) == ["student"] and not list(folder.glob("*.bin"))


def test_a_distilbert_is_made_from_a_bert(folders, tmp_path):
    folder = run(folders["bert"], tmp_path / "student", "--student_layers", "distilbert", "--num_hidden_layers", "2", "--model_type",
                 "distilbert-mlm")
    wanted = start_of_a_run(folders["bert"], student_layers="distilbert", num_hidden_layers=2, model_type="distilbert-mlm")
    assert same_state(loaded(folder, "AutoModelForMaskedLM"), wanted.model)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "distilbert" and same_state(reload(folder).model, wanted.model)


def test_a_bare_encoder_keeps_its_pooler_and_a_sentence_head_is_drawn_from_the_seed(folders, tmp_path):
    bare = loaded(run(folders["headless"], tmp_path / "bare", "--student_layers", "0,2"), "AutoModel")
    assert torch.equal(bare.pooler.dense.weight, make_model(head=False).pooler.dense.weight)
    assert torch.equal(reload(tmp_path / "bare").pooler["pooler.dense.weight"], bare.pooler.dense.weight)
    heads = [loaded(run(folders["bert"], tmp_path / str(number), "--student_layers", "0,2", "--model_type", "bert-mlm-nsp", "--seed", seed),
                    "AutoModelForPreTraining").cls.seq_relationship for number, seed in enumerate(("1", "1", "2"))]
    assert same_state(heads[0], heads[1]) and not same_state(heads[0], heads[2])


def test_another_tokenizer_can_be_named(folders, tmp_path):
    teacher = tmp_path / "teacher"
    make_model().save_pretrained(teacher)
    with pytest.raises(UserError, match="no tokenizer to save with the student"):
        run(teacher, tmp_path / "student", "--student_layers", "0")
    run(teacher, tmp_path / "student", "--student_layers", "0", "--tokenizer_name", str(folders["bert"] / "vocab.txt"))
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "student").vocab_size == VOCABULARY


def test_what_goes_wrong_half_way_leaves_nothing(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(transformers.PreTrainedTokenizerBase, "save_pretrained", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(folders["bert"], tmp_path / "deep" / "student", "--student_layers", "0")
    assert not list((tmp_path / "deep").iterdir())


def command(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-X", "importtime", "-m", "pretraining.extract_student", *flags], cwd=ROOT, capture_output=True,
                          text=True, env=clean_environment())


@pytest.mark.parametrize(("flags", "message"), [
    ([], "the following arguments are required: --teacher_path, --output_dir"),
    (["--teacher_path", "{bert}", "--output_dir", "{bert}", "--student_layers", "0"], "it exists; choose a new folder"),
    (["--teacher_path", "{bert}", "--output_dir", "new"], "give --num_hidden_layers"),
    (["--teacher_path", "{bert}", "--output_dir", "new", "--student_layers", "4"], "outside the teacher"),
    (["--teacher_path", "{bert}", "--output_dir", "new", "--num_hidden_layers", "2", "--hidden_size", "20"], "16 or 24 works"),
    (["--teacher_path", "{bert}", "--output_dir", "new", "--num_hidden_layers", "2", "--hidden_size", "0"], "a number above 0"),
    (["--teacher_path", "{bert}", "--output_dir", "new", "--model_type", "bart"], "is not one of bert-mlm"),
    (["--teacher_path", "{bert}", "--output_dir", "new", "--model_type", "gpt2-clm", "--student_layers", "0"], "bert to distilbert"),
    (["--teacher_path", "nowhere", "--output_dir", "new"], "no such folder")])
def test_mistakes_are_one_line_before_torch_is_imported(folders, flags, message, tmp_path):
    done = command(*[str(tmp_path / "new") if flag == "new" else flag.format(**folders) for flag in flags])
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2 and len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0], lines
    assert not any(line.split("|")[-1].strip() == "torch" for line in done.stderr.splitlines())
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_it_wrote(folders, tmp_path):
    done = command("--teacher_path", str(folders["bert"]), "--output_dir", str(tmp_path / "student"), "--student_layers", "1,3")
    assert done.returncode == 0 and done.stdout == f"wrote {tmp_path / 'student'}; --student_initialize {tmp_path / 'student'} trains it\n"
