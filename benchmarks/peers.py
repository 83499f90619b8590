"""Others that do the work of `hidden_mse`: a plain torch loop, and TextBrewer 0.2.1 from PyPI, unpatched (`pip install textbrewer==0.2.1`).

The plain loop is what a careful person writes by hand: no heads, SDPA, autocast, fused AdamW, accumulation. TextBrewer's distiller runs
its own loop, and one call of its step below lets it take one optimizer step; saving, which it does at the end of every call, is left out of
the time and of the disk. Its bf16 is torch's autocast around it; it has none of its own.
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


def plain_step(teacher_folder: Path, shards: Path, micro_batch: int, accumulation: int, precision: str, folder: Path) -> Step:
    """One optimizer step of a plain torch loop, at a time."""
    import transformers

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    load = {"add_pooling_layer": False, "dtype": torch.float32}
    teacher = transformers.BertModel.from_pretrained(teacher_folder, **load).to(device).eval()
    config = transformers.BertConfig.from_pretrained(teacher_folder, num_hidden_layers=STUDENT_LAYERS)
    student = transformers.BertModel(config, add_pooling_layer=False).to(device).train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    rows = Rows(shards, micro_batch, device)

    def step() -> int:
        tokens = 0
        for _ in range(accumulation):
            batch = rows.next()
            width = -(-int(batch["mask"].sum(1).max()) // 8) * 8
            input_ids, mask = batch["input_ids"][:, :width], batch["mask"][:, :width].long()
            tokens += int(mask.sum())
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                with torch.no_grad():
                    target = teacher(input_ids, attention_mask=mask).last_hidden_state
                output = student(input_ids, attention_mask=mask).last_hidden_state
                difference = (output.float() - target.float()) * mask.unsqueeze(-1)
                loss = difference.square().sum() / (mask.sum() * output.shape[-1])
            scaler.scale(loss / accumulation).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return tokens

    return step
