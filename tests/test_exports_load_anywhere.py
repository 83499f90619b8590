"""An export is a plain Hugging Face folder: it loads without a missing or a strange weight, gives the student's numbers bit for bit,
carries the tokenizer that made the data, and says on its card what it is and what was not trained."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny import CLS, SEP, SPECIAL, VOCABULARY, make_batch, make_teacher, make_tokenizer
from tokenizers import Tokenizer

from dataset.errors import UserError
from dataset.tokenizer import load_tokenizer
from pretraining.export import ExportRecipe, load_hf_tokenizer
from pretraining.models.catalog import ARCHITECTURES
from pretraining.models.encoder import Encoder
from pretraining.models.loading import load_model
from pretraining.models.student import BuiltModel, build_student
from pretraining.objectives.base import ObjectiveContext, Shape
from pretraining.objectives.catalog import parse_method
from pretraining.objectives.weighted import WeightedObjectives
from pretraining.signals import Signals
from pretraining.student_plan import StudentPlan
from pretraining.trained_module import TrainedModule

FAMILIES = {"bert": "bert-mlm", "roberta": "roberta-mlm"}
STATE = {"progress": 0.25, "step": 40, "samples": 640, "tokens": 11525, "hours": 0.125, "validation_loss": 1.2345,
         "losses": {"held-out loss": 1.2345, "training loss": 1.5}}


def flags_for(folder: Path, layers: list[int]) -> dict:
    return {"teacher_path": str(folder), "distillation": True, "job_name": "tiny", "current_run_id": "7", "total_training_time": 0.5,
            "dataset_path": "some/shards", "student_initialize": True, "student_layers": ",".join(map(str, layers)), "seed": 42}


def trained_student(folder: Path, family: str, method="hidden_mse", layers=(1, 3)) -> tuple[TrainedModule, BuiltModel]:
    """A student of two teacher layers after two steps of AdamW, so that it equals nothing on the disk."""
    architecture = ARCHITECTURES[FAMILIES[family]]
    shape = Shape(4, 32, 4)
    objective = WeightedObjectives(parse_method(method), {
        part.name: ObjectiveContext(Shape(2, 32, 4), shape, pairs=((1, 3),)) for part in parse_method(method)})
    config = {**json.loads((folder / "config.json").read_text()), "num_hidden_layers": len(layers)}
    teacher = BuiltModel(*load_model(folder, "--teacher_path", architecture))
    plan = StudentPlan("teacher", None, architecture, list(layers), config)
    built = build_student(plan, architecture, teacher, architecture, objective.needs.student.head, False, seed=1)
    module = TrainedModule(Encoder(built.model, architecture, built.has_head, objective.needs.student), objective)
    module.freeze_unreached(shape, VOCABULARY)
    batch, optimizer = make_batch(), torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.01)
    generator = torch.Generator().manual_seed(0)
    signals = Signals({3: torch.randn(*batch.mask.shape, 32, generator=generator)})
    for _ in range(2):
        module(batch, signals, {unit: float(count) for unit, count in batch.counts.items()})[0].backward()
        optimizer.step()
    return module, built


def export(module, built, folder: Path, source: Path, family: str, method="hidden_mse", head_trained=False, **more) -> Path:
    flags = {**flags_for(source, [1, 3]), **more}
    recipe = ExportRecipe(built, ARCHITECTURES[FAMILIES[family]], load_hf_tokenizer(str(source)), flags, parse_method(method),
                          head_trained, 32)
    weights = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    weights["objective.parts.hidden_mse.projection.weight"] = torch.ones(3, 3)  # an objective's own, not to be exported
    recipe.export(weights, folder, STATE)
    return folder


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> dict:
    """(family, has head) -> (trained module, export folder, teacher folder)."""
    root, found = tmp_path_factory.mktemp("exports"), {}
    for family in FAMILIES:
        for head in (True, False):
            source = make_teacher(root / f"{family}_{head}", family=family, head=head)
            module, built = trained_student(source, family)
            found[family, head] = module, export(module, built, root / f"out_{family}_{head}", source, family), source
    return found


KINDS = [(family, head) for family in FAMILIES for head in (True, False)]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_it_loads_whole_and_gives_the_students_numbers(exports, kind):
    module, folder, source = exports[kind]
    family, head = kind
    auto_class = transformers.AutoModelForMaskedLM if head else transformers.AutoModel
    model, info = auto_class.from_pretrained(folder, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")), info
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert model.config.num_hidden_layers == 2 and model.config.architectures == [type(model).__name__]

    student, batch = module.student.model.eval(), make_batch()
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.mask.long(), "output_hidden_states": True}
    if family == "bert":
        inputs["token_type_ids"] = batch.token_type_ids
    with torch.no_grad():
        found, expected = model.eval()(**inputs), student(**inputs)
    assert len(found.hidden_states) == 3
    assert all(torch.equal(left, right) for left, right in zip(found.hidden_states, expected.hidden_states, strict=True))
    if head:
        assert torch.equal(found.logits, expected.logits)
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    else:
        pooler = transformers.AutoModel.from_pretrained(source).pooler.dense
        assert torch.equal(model.pooler.dense.weight, pooler.weight) and torch.equal(model.pooler.dense.bias, pooler.bias)
    # It is trained: not what the teacher's folder holds.
    assert not torch.equal(model.get_input_embeddings().weight, auto_class.from_pretrained(source).get_input_embeddings().weight)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_folder_holds_fp32_safetensors_and_no_pickle(exports, kind):
    _, folder, _ = exports[kind]
    names = {path.name for path in folder.rglob("*")}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "run_state.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl", ".pickle", ".py"))]
    for path in folder.iterdir():
        start = path.read_bytes()[:4]
        assert not start.startswith((b"PK", b"\x80")), path  # zip archives (torch.save) and pickles
    weights = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert not [name for name in weights if "objective" in name or "projection" in name or "student" in name]
    config = json.loads((folder / "config.json").read_text())
    assert config["dtype"] == "float32" and "auto_map" not in config
    assert json.loads((folder / "run_state.json").read_text()) == STATE


def test_an_untied_head_stays_untied_and_the_card_knows(tmp_path):
    source = make_teacher(tmp_path / "teacher")
    model = transformers.AutoModelForMaskedLM.from_pretrained(source, tie_word_embeddings=False)
    with torch.no_grad():
        model.cls.predictions.decoder.weight.add_(1)
    model.save_pretrained(source)
    module, built = trained_student(source, "bert")
    folder = export(module, built, tmp_path / "out", source, "bert")
    loaded, info = transformers.AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    batch = make_batch()
    with torch.no_grad():
        logits = [one.eval()(batch.input_ids, batch.mask.long()).logits for one in (loaded, module.student.model)]
    assert torch.equal(*logits)
    assert loaded.cls.predictions.decoder.weight is not loaded.bert.embeddings.word_embeddings.weight
    assert "transform, bias and decoder were not trained" in card(folder) and "is tied to" not in card(folder)


def card(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def test_the_card_says_what_it_is_and_what_was_not_trained(exports, tmp_path):
    _, folder, source = exports["bert", True]
    text = card(folder)
    for said in (str(source), "hidden_mse", "arXiv", "some/shards", "0.125 h", "0.5 h", "25%", "step 40", "11525 tokens", "1.2345", "1.5",
                 "AutoModelForMaskedLM", "teacher layers 1,3", "transform and bias were not trained", "2 layers, 32 wide"):
        assert said in text, said
    assert text.startswith("---\nlibrary_name: transformers\n")
    headless = card(exports["bert", False][1])
    assert "bare encoder" in headless and "AutoModel.from_pretrained" in headless and "AutoModelForMaskedLM" not in headless
    module, built = trained_student(source, "bert", "mlm:0.5")
    trained = card(export(module, built, tmp_path / "mlm", source, "bert", "mlm:0.5", head_trained=True, distillation=False,
                          student_initialize=None))
    assert "not trained:" not in trained and "head included" in trained and "weight 0.5" in trained
    assert "teacher: none" in trained and str(source) not in trained and "random, seed 42" in trained


def broken_tokenizer(folder: Path) -> Path:
    """A tokenizer whose file cuts to 5 tokens and pads to 16, as that of many sentence encoders."""
    make_tokenizer(folder)
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    raw.enable_truncation(5)
    raw.enable_padding(length=16)
    raw.save(str(folder / "tokenizer.json"))
    return folder


def cased_folder(folder: Path, name: str) -> Path:
    """A cased vocabulary as `name`, with nothing beside it that says so."""
    folder.mkdir()
    file = folder / "vocab.txt"
    file.write_text("\n".join([*SPECIAL, "Ba", "ba", "do", "la"]) + "\n")
    if name != "vocab.txt":
        load_tokenizer(file).save(str(folder / "tokenizer.json"))
        file.unlink()
        (folder / "config.json").write_text('{"model_type": "bert"}')
    return folder


@pytest.mark.parametrize("kind", ["folder", "vocab.txt", "tokenizer.json", "cuts and pads", "cased vocab.txt", "cased folder"])
def test_the_exported_tokenizer_reads_text_as_the_data_pipeline_does(kind, tmp_path):
    plain = make_tokenizer(tmp_path / "plain")
    source = {
        "folder": plain, "vocab.txt": plain / "vocab.txt", "tokenizer.json": plain / "tokenizer.json",
        "cuts and pads": broken_tokenizer(tmp_path / "broken"),
        "cased vocab.txt": cased_folder(tmp_path / "cased", "vocab.txt") / "vocab.txt",
        "cased folder": cased_folder(tmp_path / "cased_json", "tokenizer.json"),
    }[kind]
    ours, text = load_tokenizer(source), "Ba do bara " * 9 + "Lára, kiso [MASK]"
    load_hf_tokenizer(str(source)).save_pretrained(tmp_path / "saved")
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    found = loaded(text)["input_ids"]
    assert found == ours.encode(text).ids and len(found) > 30
    assert found[0] == CLS and found[-1] == SEP and len(loaded) == ours.get_vocab_size()
    assert loaded.mask_token == "[MASK]" and loaded.pad_token == "[PAD]"
    saved = json.loads((tmp_path / "saved" / "tokenizer.json").read_text())
    assert saved["truncation"] is None and saved["padding"] is None


def test_a_tokenizer_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="--tokenizer_name") as caught:
        load_hf_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_an_export_that_fails_leaves_no_folder(exports, tmp_path):
    module, _, source = exports["bert", True]
    built = BuiltModel(module.student.model, True, {})
    weights = {name: parameter.detach() for name, parameter in module.named_parameters() if "layer.1.output" not in name}
    recipe = ExportRecipe(built, ARCHITECTURES["bert-mlm"], load_hf_tokenizer(str(source)), flags_for(source, [1, 3]), [], False, 32)
    with pytest.raises(RuntimeError, match=r"export lacks .*layer\.1\.output"):
        recipe.export(weights, tmp_path / "run" / "out", STATE)
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not (tmp_path / "run" / "out").exists()
