"""Fine-tuning: what several old scripts say about GLUE's data."""

from translation.calls import Translation
from translation.conversions import folder_of, name_of
from translation.shell import edit, value

GLUE_FOLDER = "data_dir"
_NAMES = ("cola", "sst-2", "sst2", "mrpc", "sts-b", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")
KNOWN = (*_NAMES, "mnli-mm", "ax", "squad", "squad-1.1", "squad-2.0", "glue")


def glue_tasks(flag: str):
    """`--glue_dir` is the folder of all tasks."""

    def rule(call: Translation) -> None:
        if (words := call.given.get(flag)) and name_of(value(words[0])).lower() in _NAMES:
            call.set("--glue_dir", edit(words[0], folder_of))
        task = call.word("task_name")
        if task and task.lower() not in KNOWN and "$" not in task:
            call.note(f"--task_name {task}: not supported: no task of ours; --task_file describes one of your own")

    rule.__doc__ = glue_tasks.__doc__
    return rule
