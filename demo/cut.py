"""The untrained baseline: the student of a recipe exported as it is before its first step.

    python -m demo.cut configs/demo.yaml .demo/untrained_cut

It goes through the trainer's own plan, student and export, so the folder differs from a marker's in its weights and in its card's numbers
alone.
"""

import argparse
from pathlib import Path

from dataset.errors import run_command
from pretraining.args.parser import parse
from pretraining.args.resolve import resolve
from pretraining.launch import read_launch
from pretraining.preflight import Plan, make_plan


def plan_of(recipe: str) -> Plan:
    """The checked plan of `recipe`, for a run folder of its own so that no real run is in the way; nothing is written."""
    args = parse(["--config", recipe, "--current_run_id", "untrained"], prog="demo.cut")
    return make_plan(resolve(args, read_launch(-1)))


def export_cut(plan: Plan, folder: Path) -> None:
    """Write the student of `plan` to `folder`, whole or not at all."""
    from pretraining.export import STUDENT_PREFIX, ExportRecipe, load_hf_tokenizer
    from pretraining.models.loading import load_model, quiet_transformers
    from pretraining.models.student import BuiltModel, build_student

    quiet_transformers()
    args = plan.resolved.args
    teacher = BuiltModel(*load_model(plan.teacher.path, "--teacher_path", plan.teacher.architecture))
    built = build_student(plan.student, plan.architecture, teacher, plan.teacher.architecture, False, False, args.run.seed)
    recipe = ExportRecipe(
        built=built, architecture=plan.architecture, tokenizer=load_hf_tokenizer(plan.tokenizer_source), flags=args.as_dict(),
        methods=plan.resolved.methods, head_trained=False, sequence_length=plan.train_shards[0].max_seq_length)
    weights = {f"{STUDENT_PREFIX}{name}": tensor for name, tensor in built.model.state_dict().items()}
    state = {"progress": 0.0, "step": 0, "samples": 0, "tokens": 0, "hours": 0.0, "validation_loss": None, "losses": {}}
    recipe.export(weights, folder, state)


def main() -> None:
    parser = argparse.ArgumentParser(prog="demo.cut", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="YAML of flags that copies teacher layers and needs no logits")
    parser.add_argument("folder", type=Path, help="where the student goes")
    flags = parser.parse_args()
    export_cut(plan_of(flags.recipe), flags.folder)


if __name__ == "__main__":
    run_command(main)
