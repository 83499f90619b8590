"""The README of a served student: what it is and how each of its programs is called. Its Python runs as it stands, beside its files."""

from task_distillation.serving.formats import FORMATS, RECORD, TOKENIZER, input_names
from task_distillation.students.config import StudentConfig
from task_distillation.students.part import ParameterCounts

_PROGRAM = """import numpy as np
import {library}
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("{tokenizer}")
{load}


def read(rows):  # a row without a token is one of padding
    encoded = tokenizer.encode_batch(rows)
    return [{arrays}]


inputs = {inputs}
{call}
print(logits.tolist())"""
_ARRAYS = ("np.array([one.ids or [0] for one in encoded])", "np.array([max(1, sum(one.attention_mask)) for one in encoded])",
           "np.array([one.type_ids or [0] for one in encoded])")


def readme(config: StudentConfig, counts: ParameterCounts, formats: dict[str, dict]) -> str:
    """Markdown; `formats` as in serving.json: name -> file, bytes and greatest difference."""
    task = config.task
    outputs = "its score" if task.kind == "regression" else f"one logit for each of {', '.join(task.label_names)}, in this order"
    arrays = _ARRAYS[: 3 if config.segments else 2]
    inputs = {1: 'read(["a good film", "dull"])', 2: 'read([("a good film", "the film is good"), ("dull", "what fun")])'}[config.columns]
    if config.parts == 2:
        inputs = 'read(["a good film", "dull"]) + read(["the film is good", "what fun"])'
    names = ", ".join(f"`{name}`" for name in input_names(config.parts, config.segments))
    lines = [f"# Student of {task.name} ({config.architecture})", "",
             f"{counts.total:,} parameters, {counts.without_embeddings:,} of them without embeddings. Reads "
             f"{'a text' if config.columns == 1 else 'a pair of texts'}, cut to {config.max_length} tokens, and gives {outputs}.", "",
             f"Every program takes int64 arrays {names}: ids (rows, width), padded on the right, and the number of tokens of each row, 1 "
             f"for a row that has none. Rows and width are free. `{TOKENIZER}` cuts and pads; `{RECORD}` says with which versions the "
             f"programs were made and how far their logits are from the student's.",
             "", "| file | for | bytes | greatest difference |", "|---|---|---:|---:|"]
    lines += [f"| `{found['file']}` | {FORMATS[name].text} | {found['bytes']} | {found['max_difference']:.1e} |"
              for name, found in formats.items()]
    for name in formats:
        row = FORMATS[name]
        code = _PROGRAM.format(library=row.library, tokenizer=TOKENIZER, load=row.load.format(file=row.file),
                               arrays=",\n            ".join(arrays), inputs=inputs, call=row.call)
        lines += ["", f"## {name}", "", "```python", code, "```"]
    return "\n".join(lines) + "\n"
