"""What the tests of `teach` and `label` share: tiny teachers whose heads are large enough to tell, and transfer sets."""

import json
from pathlib import Path

from tiny_glue import make_model, sentences

from evaluation.tasks.table import select_tasks
from task_distillation.transfer_set import transfer_writer

SST2, STSB, MNLI = select_tasks(["sst2,stsb,mnli"])


def make_teacher(folder: Path, labels: tuple[str, ...], seed: int = 0) -> Path:
    """A tiny BERT with a head whose outputs have the names `labels` in this order (none: a regression); logits differ by whole numbers."""
    import torch
    import transformers

    make_model(folder, seed=seed)
    config = transformers.AutoConfig.from_pretrained(folder)
    config.num_labels = max(1, len(labels))
    config.id2label = dict(enumerate(labels)) or {0: "LABEL_0"}
    config.label2id = {name: number for number, name in config.id2label.items()}
    config.problem_type = "single_label_classification" if labels else "regression"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.BertForSequenceClassification(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder


def write_set(path: Path, task, rows: int, seed: int = 0) -> list[tuple[str, ...]]:
    """A transfer set of `rows` rows for `task`, without labels; its texts."""
    texts = [(text,) if task is SST2 else (text, other) for (text, _), (other, _) in
             zip(sentences(rows, seed), sentences(rows, seed + 100), strict=True)]
    with transfer_writer(path, task) as writer:
        for row in texts:
            writer.write(row)
    return texts


def label_flags(place: Path, output: str = "logits.parquet", **changed: str | None) -> list[str]:
    """Arguments of `label` for the teacher and the set in `place`; None takes a flag out, "" is a bare one."""
    flags = {"teacher_path": place / "teacher", "transfer_set": place / "set.tsv", "output": place / output, "task_name": "sst2",
             "max_seq_length": 64, "per_device_eval_batch_size": 4, "chunk_rows": 16, "devices": "cpu", "precision": "fp32"} | changed
    return [str(word) for name, value in flags.items() if value is not None for word in (f"--{name}", value) if word != ""]


def rename_labels(folder: Path, **config) -> None:
    """Change entries of a folder's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
