"""Task-specific distillation, one subcommand for each step; `COMMAND --help` lists its flags.

    python run_task_distillation.py recipe configs/task/sst2.yaml --glue_dir glue --teacher_path teacher --output_dir runs/sst2

runs all of them: augment and generate make texts, teach fine-tunes the teacher, label writes what it says of them, distil trains the small
student, export makes it ready to serve. The steps also run alone.
"""

import sys
from importlib import import_module

from dataset.errors import UserError, nearest, run_script

COMMANDS = {
    "augment": ("task_distillation.augmentation.command", "more texts by rules: masks, words of the same part of speech, n-grams (d-lite)"),
    "generate": ("task_distillation.generation.command", "more texts from a causal language model of the task's text (d-heavy)"),
    "teach": ("task_distillation.teaching.teach", "fine-tune the teacher on the task"),
    "label": ("task_distillation.teaching.label", "the teacher's logits for every row of a transfer set"),
    "distil": ("task_distillation.distilling.command", "train a small student on the labelled transfer set, under a budget"),
    "export": ("task_distillation.serving.command", "the student as torch.export, TorchScript or ONNX, checked for equal outputs"),
    "recipe": ("task_distillation.recipe.command", "all of these from one YAML file, going on where it stopped"),
}


def main() -> int | None:
    """Run the subcommand that the first word names. Each command's module has `main(arguments: list[str]) -> int | None`."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(f"{__doc__}\ncommands:")
        for name, (_, text) in COMMANDS.items():
            print(f"  {name:9} {text}")
        return 0
    if words[0] not in COMMANDS:
        raise UserError(f"unknown command {words[0]!r}{nearest(words[0], COMMANDS)}; one of {', '.join(COMMANDS)} would work")
    return import_module(COMMANDS[words[0]][0]).main(words[1:])


if __name__ == "__main__":
    run_script(main)
