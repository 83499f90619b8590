"""TextBrewer 0.2.1 from PyPI, unpatched, doing the work of `hidden_mse`: `pip install textbrewer==0.2.1`.

Its distiller runs its own loop; one call of the step below lets it take one optimizer step. Saving, which it does at the end of every call,
is left out of the time and of the disk. bf16 is torch's autocast around it; it has none of its own.
"""

import logging
from pathlib import Path

import torch

from benchmarks.common import STUDENT_LAYERS, TEACHER_LAYERS, Step
from benchmarks.references import Rows


def textbrewer_step(teacher_folder: Path, shards: Path, micro_batch: int, accumulation: int, precision: str, folder: Path) -> Step:
    """One optimizer step of TextBrewer's GeneralDistiller with its hidden_mse over padded batches, at a time."""
    import textbrewer
    import transformers

    logging.disable(logging.INFO)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    load = {"add_pooling_layer": False, "dtype": torch.float32}
    teacher = transformers.BertModel.from_pretrained(teacher_folder, **load).to(device).eval()
    config = transformers.BertConfig.from_pretrained(teacher_folder, num_hidden_layers=STUDENT_LAYERS)
    student = transformers.BertModel(config, add_pooling_layer=False).to(device)
    for model in (teacher, student):
        model.config.output_hidden_states = True
    rows = Rows(shards, micro_batch, device)

    def adapt(batch: dict, outputs: tuple) -> dict:
        return {"hidden": outputs["hidden_states"], "inputs_mask": batch["attention_mask"]}

    class Unsaved(textbrewer.GeneralDistiller):
        def save_and_callback(self, *_: object) -> None:
            pass

    settings = textbrewer.TrainingConfig(
        gradient_accumulation_steps=accumulation, ckpt_steps=1, log_dir=str(folder), output_dir=str(folder), device=device)
    matches = [{"layer_T": TEACHER_LAYERS, "layer_S": STUDENT_LAYERS, "feature": "hidden", "loss": "hidden_mse", "weight": 1}]
    distiller = Unsaved(settings, textbrewer.DistillationConfig(intermediate_matches=matches, kd_loss_weight=0), teacher, student,
                        adapt, adapt)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)

    def step() -> int:
        batches = [rows.next() for _ in range(accumulation)]
        inputs = [{"input_ids": batch["input_ids"], "attention_mask": batch["mask"].long()} for batch in batches]
        with distiller, torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            distiller.train(optimizer, inputs, num_steps=1)
        return sum(int(batch["mask"].sum()) for batch in batches)

    return step
