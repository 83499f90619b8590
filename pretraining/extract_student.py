"""A student's first weights on their own: layers of a teacher, narrower where asked, as a Hugging Face folder.

    python -m pretraining.extract_student --teacher_path bert-base --output_dir student --student_layers 1,3,5,7,9,11
    python -m pretraining.extract_student --teacher_path bert-base --output_dir student --student_layers distilbert --num_hidden_layers 6 \\
        --model_type distilbert-mlm

The flags mean what they mean for run_pretraining.py with a bare --student_initialize, and the folder holds what such a run starts from;
`--student_initialize FOLDER` trains it later, on another machine or under several objectives.
"""

import argparse
from pathlib import Path
from typing import Any

from dataset.errors import OneLineParser, UserError, run_command
from dataset.files import whole_folder
from dataset.tokenizer import holds_tokenizer
from pretraining.args.parser import INFO, Args
from pretraining.models.catalog import ModelFolder, find_architecture, read_model_folder
from pretraining.student_plan import StudentPlan, plan_student

FLAGS = ("teacher_path", "output_dir", "student_layers", "num_hidden_layers", "model_type", "hidden_size", "num_attention_heads",
         "intermediate_size", "tokenizer_name", "seed")
REQUIRED = ("teacher_path", "output_dir")


def parse_flags(arguments: list[str] | None = None) -> Args:
    """The flags of a run that copies from its teacher, from the few that decide what is copied."""
    parser = OneLineParser(prog="pretraining.extract_student", description=__doc__, allow_abbrev=False,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in FLAGS:
        parser.add_argument(f"--{name}", metavar=name.rsplit("_", 1)[-1].upper(), required=name in REQUIRED,
                            help="folder of the student" if name == "output_dir" else INFO[name].help.replace("%", "%%"))
    args = Args()
    args.distillation.student_initialize = True
    for name, word in vars(parser.parse_args(arguments)).items():
        if word is not None:
            try:
                args.set(name, INFO[name].convert(word))
            except (ValueError, OverflowError) as error:
                raise UserError(f"--{name}: {error}; {INFO[name].help}") from None
            args.given.add(name)
            if type(args.get(name)) is int and args.get(name) < (name != "seed"):
                raise UserError(f"--{name} {word}: a number above 0 is needed")
    return args


def plan_extraction(args: Args) -> tuple[ModelFolder, StudentPlan, str]:
    """(teacher, student, tokenizer's folder or name); UserError for what cannot work, before torch is imported."""
    target = Path(args.run.output_dir).expanduser()
    if target.exists():
        raise UserError(f"--output_dir {target}: it exists; choose a new folder")
    teacher = read_model_folder(args.distillation.teacher_path, "--teacher_path")
    asked = args.model.model_type
    plan = plan_student(args, teacher, find_architecture(asked) if asked else teacher.architecture)
    source = args.model.tokenizer_name
    if source is None:
        source = str(teacher.path)
        if not holds_tokenizer(teacher.path):
            raise UserError(f"--teacher_path {teacher.path}: no tokenizer to save with the student; give --tokenizer_name FOLDER "
                            "(or vocab.txt, or a hub name)")
    return teacher, plan, source


def extract(args: Args) -> Path:
    """Write the student's folder, whole or not at all; returns it."""
    teacher, plan, source = plan_extraction(args)
    from pretraining.export import load_hf_tokenizer
    from pretraining.models.loading import BuiltModel, load_model, quiet_transformers
    from pretraining.models.student import build_student, whole_model

    quiet_transformers()
    tokenizer = load_hf_tokenizer(source)
    loaded = BuiltModel(*load_model(teacher.path, "--teacher_path", teacher.architecture))
    has_sentences = plan.architecture.next_sentence is not None
    built = build_student(plan, plan.architecture, loaded, teacher.architecture, False, has_sentences, args.run.seed)
    target = Path(args.run.output_dir).expanduser()
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(target) as partial:
        whole_model(built, plan.architecture).save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        (partial / "README.md").write_text(_card(target.name, teacher, plan, built.has_head), encoding="utf-8")
    return target


def _card(name: str, teacher: ModelFolder, plan: StudentPlan, has_head: bool) -> str:
    config, auto_class = plan.config, plan.architecture.auto_class if has_head else "AutoModel"
    lines = [
        "---", "library_name: transformers", "tags: [distillation]", "---", "", f"# {name}: a student before its first step", "",
        f"- {plan.architecture.family}, {config['num_hidden_layers']} layers, {config['hidden_size']} wide, "
        f"{config['num_attention_heads']} heads, {config['intermediate_size']} neurons a layer",
        f"- teacher: {teacher.path.name} ({teacher.family}); its layers {', '.join(map(str, plan.layers))} (0-based), its embeddings"
        f"{' and its language-model head' if has_head else ''}",
        f"- widths: {_widths(teacher.config, config)}",
        "", "Nothing was trained after the selection: distil it, or fine-tune it, before relying on it.", "", "```python",
        f"from transformers import {auto_class}, AutoTokenizer", "",
        f'model = {auto_class}.from_pretrained("path/of/this/folder")',
        'tokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")', "```", "",
    ]
    return "\n".join(lines)


def _widths(teacher: dict[str, Any], student: dict[str, Any]) -> str:
    cut = [name for name in ("hidden_size", "num_attention_heads", "intermediate_size") if student[name] != teacher[name]]
    if not cut:
        return "the teacher's"
    return ", ".join(f"{name} {teacher[name]} to {student[name]}" for name in cut) + ", the most important ones by L2 norm of their weights"


def main() -> None:
    target = extract(parse_flags())
    print(f"wrote {target}; --student_initialize {target} trains it")


if __name__ == "__main__":
    run_command(main)
