"""A student as a program that needs none of our code: written in each format, and read back as any other program would read it.

Number of rows and their width are free in every format. ONNX is written by torch's exporter of traces: that of `torch.export` (torch 2.13)
turns free widths into the example's for the gathers of a reversed row, or takes 50 seconds for a loop over words where ONNX has an LSTM.
"""

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import torch
from torch import nn

from task_distillation.serving.formats import OUTPUT, input_names
from task_distillation.serving.recurrent import kept_whole
from task_distillation.students.config import StudentConfig
from task_distillation.students.folder import LoadedStudent
from task_distillation.students.part import Part

OPSET = 17
"""The first with LayerNormalization."""
EXAMPLE = (3, 5)
"""Rows and width of what programs are captured with: both above 1, which stands for any number in no exporter."""
Program = Callable[[list[np.ndarray]], np.ndarray]
"""From a program's inputs, int64, to its logits (B, outputs), fp32."""


class FlatStudent(nn.Module):
    """A student whose inputs are plain tensors, in the order of `input_names`."""

    def __init__(self, loaded: LoadedStudent) -> None:
        super().__init__()
        self.student, self.parts = loaded.module, loaded.config.parts

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        each = len(inputs) // self.parts
        return self.student(tuple(Part(*inputs[at : at + each]) for at in range(0, len(inputs), each)))


def write_program(name: str, loaded: LoadedStudent, path: Path) -> None:
    """Write the student to `path` in the format `name`, silently; whatever torch raises where it cannot."""
    config = loaded.config
    module, names = FlatStudent(loaded).eval(), input_names(config.parts, config.segments)
    example = _example(names)
    with torch.no_grad(), warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        if name == "torch_export":
            with kept_whole():
                program = torch.export.export(module, example, dynamic_shapes=(_free_sizes(names, config),), strict=False)
            torch.export.save(program, path)
        elif name == "torchscript":
            torch.jit.save(torch.jit.trace(module, example, check_trace=False), path)
        else:
            torch.onnx.export(module, example, str(path), dynamo=False, opset_version=OPSET, input_names=names, output_names=[OUTPUT],
                              dynamic_axes={one: _axes(one) for one in names} | {OUTPUT: {0: "batch"}})


def open_program(name: str, path: Path) -> Program:
    """The program in `path` as a function."""
    if name == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]
        return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.load(path).module() if name == "torch_export" else torch.jit.load(path)

    @torch.no_grad()
    def run(inputs: list[np.ndarray]) -> np.ndarray:
        return program(*map(torch.from_numpy, inputs)).numpy()

    return run


def _example(names: list[str]) -> tuple[torch.Tensor, ...]:
    rows, width = EXAMPLE
    return tuple(torch.tensor([width, 2, width - 1]) if one.startswith("lengths") else torch.zeros(rows, width, dtype=torch.int64)
                 for one in names)


def _axes(name: str) -> dict[int, str]:
    """Axis -> what it counts; the two texts of a pair have widths of their own."""
    return {0: "batch"} if name.startswith("lengths") else {0: "batch", 1: name.replace("ids", "length").replace("segments", "length")}


def _free_sizes(names: list[str], config: StudentConfig) -> tuple[dict[int, torch.export.Dim], ...]:
    """For `torch.export`. An encoder has no row without its first and last special token, and none beyond its positions."""
    limits = {"min": 1} if config.row.has_words else {"min": 2, "max": config.max_length}
    found = {"batch": torch.export.Dim("batch", min=1)}
    for name in names:
        for label in _axes(name).values():
            found.setdefault(label, torch.export.Dim(label, **limits))
    return tuple({axis: found[label] for axis, label in _axes(name).items()} for name in names)
