"""Forms that a student is served in: which file each is, and how the README says to call it. Imports no torch."""

from dataclasses import dataclass

RECORD, TOKENIZER, README = "serving.json", "tokenizer.json", "README.md"
OUTPUT = "logits"


@dataclass(frozen=True)
class Format:
    """`packages`: what making and checking it needs beside torch. `library`, `load` and `call` are Python: what to import, a program from
    its file, and its logits from the list `inputs` of NumPy arrays."""

    name: str
    file: str
    packages: tuple[str, ...]
    library: str
    load: str
    call: str
    text: str


_ROWS = (
    Format("torch_export", "student.pt2", (), "torch", "program = torch.export.load(\"{file}\").module()",
           "with torch.no_grad():\n    logits = program(*map(torch.from_numpy, inputs)).numpy()", "torch.export's program, for torch"),
    Format("torchscript", "student.torchscript", (), "torch", "program = torch.jit.load(\"{file}\")",
           "with torch.no_grad():\n    logits = program(*map(torch.from_numpy, inputs)).numpy()", "TorchScript, for torch and libtorch"),
    Format("onnx", "student.onnx", ("onnx", "onnxruntime"), "onnxruntime", "program = onnxruntime.InferenceSession(\"{file}\")",
           "logits = program.run(None, dict(zip([one.name for one in program.get_inputs()], inputs)))[0]", "ONNX, for onnxruntime"),
)
FORMATS = {row.name: row for row in _ROWS}


def input_names(parts: int, segments: bool) -> list[str]:
    """Of a program's inputs, in their order: `ids`, `lengths` and perhaps `segments`, numbered where there are two texts."""
    names = ["ids", "lengths", *(["segments"] if segments else [])]
    return names if parts == 1 else [f"{name}_{part + 1}" for part in range(parts) for name in names]
