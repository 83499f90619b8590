"""Each objective's step as the originals write it, in fp32: what `benchmarks.objectives` measures ours against.

Both models run whole and under DeepSpeed, with their MLM heads at all positions, all hidden states and all attention maps (eager
attention), and the loss is written in the most direct way over the padded tensors. Only what the originals mask is masked. These are
yardsticks of speed, not of numbers: the tests hold the numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.common import STUDENT_LAYERS, TEACHER_LAYERS, Step

PAIRS = [(index, 2 * index + 1) for index in range(STUDENT_LAYERS)]
RELATION_HEADS = 48


@dataclass
class Outputs:
    """Everything of one model: logits (B, L, V), hidden states after every layer, embeddings first, and q, k, v of every layer."""

    logits: torch.Tensor
    hidden: tuple[torch.Tensor, ...]
    qkv: list[dict[str, torch.Tensor]]
    heads: int

    def split(self, layer: int, name: str, heads: int | None = None) -> torch.Tensor:
        states = self.qkv[layer][name]
        count = heads or self.heads
        return states.view(*states.shape[:2], count, -1).transpose(1, 2)

    def scores(self, layer: int) -> torch.Tensor:
        query, key = self.split(layer, "query"), self.split(layer, "key")
        return query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5


@dataclass
class Reference:
    """A model with hooks that keep queries, keys and values."""

    model: nn.Module
    qkv: list[dict[str, torch.Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for layer in self.model.bert.encoder.layer:
            kept: dict[str, torch.Tensor] = {}
            self.qkv.append(kept)
            for name in ("query", "key", "value"):
                getattr(layer.attention.self, name).register_forward_hook(_keeper(kept, name))

    def __call__(self, **inputs: torch.Tensor) -> Outputs:
        output = self.model(**inputs, output_hidden_states=True, output_attentions=True)
        return Outputs(output.logits, output.hidden_states, [dict(kept) for kept in self.qkv], self.model.config.num_attention_heads)


def _keeper(kept: dict[str, torch.Tensor], name: str) -> Callable:
    def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        kept[name] = output

    return hook


def _kl(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    rows = student.shape[:-1].numel()
    return F.kl_div(torch.log(student.softmax(-1).clamp_min(1e-7)), teacher.softmax(-1), reduction="sum") / rows


def _relation(outputs: Outputs, layer: int, name: str, heads: int | None = None) -> torch.Tensor:
    states = outputs.split(layer, name, heads)
    return states @ states.transpose(-1, -2) / states.shape[-1] ** 0.5


def _masked_scores(outputs: Outputs, layer: int, mask: torch.Tensor) -> torch.Tensor:
    return outputs.scores(layer) + (1.0 - mask[:, None, None, :].float()) * -10000.0


def _pearson(left: torch.Tensor, right: torch.Tensor, axis: int) -> torch.Tensor:
    left, right = left - left.mean(axis, keepdim=True), right - right.mean(axis, keepdim=True)
    return ((left * right).sum(axis) / (left.norm(dim=axis) * right.norm(dim=axis) + 1e-8)).mean()


class Losses(nn.Module):
    """One method per objective; `forward(student, teacher, batch)` is that of `name`. Holds the projections that it trains."""

    def __init__(self, name: str, width: int = 768) -> None:
        super().__init__()
        self.name = name
        if name == "hidden_mse_combine":
            self.combine = nn.Linear(width * TEACHER_LAYERS, width * STUDENT_LAYERS, bias=False)
        if name == "crd":
            self.contrast_student, self.contrast_teacher = nn.Linear(width, 128, bias=False), nn.Linear(width, 128, bias=False)

    def forward(self, student: Outputs, teacher: Outputs, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return getattr(self, self.name)(student, teacher, batch)

    def hidden_mse(self, s: Outputs, t: Outputs, b: dict) -> torch.Tensor:
        return F.mse_loss(s.hidden[-1], t.hidden[-1])

    def hidden_cls(self, s: Outputs, t: Outputs, b: dict) -> torch.Tensor:
        return sum(F.mse_loss(s.hidden[i + 1][:, 0], t.hidden[j + 1][:, 0]) for i, j in PAIRS)

    def hidden_mse_combine(self, s: Outputs, t: Outputs, b: dict) -> torch.Tensor:
        return F.mse_loss(torch.cat(s.hidden[1:], -1), self.combine(torch.cat(t.hidden[1:], -1)))

    def embedding_mse(self, s: Outputs, t: Outputs, b: dict) -> torch.Tensor:
        return F.mse_loss(s.hidden[0], t.hidden[0])

    def cosine(self, s: Outputs, t: Outputs, b: dict) -> torch.Tensor:
        mask = b["mask"].unsqueeze(-1).expand_as(s.hidden[-1])
        left = torch.masked_select(s.hidden[-1], mask).view(-1, s.hidden[-1].shape[-1])
        right = torch.masked_select(t.hidden[-1], mask).view(-1, s.hidden[-1].shape[-1])
        return F.cosine_embedding_loss(left, right, left.new_ones(len(left)))

    def att_mse(self, s: Outputs, t: Outputs, b: dict) -> torch.Tensor:
        total = 0.0
        for i, j in PAIRS:
            left, right = _masked_scores(s, i, b["mask"]), _masked_scores(t, j, b["mask"])
            zero = torch.zeros_like(left)
            total = total + F.mse_loss(torch.where(left <= -1e2, zero, left), torch.where(right <= -1e2, zero, right))
        return total

    def att_kl(self, s: Outputs, t: Outputs, b: dict) -> torch.Tensor:
        return sum(_kl(_masked_scores(s, i, b["mask"]), _masked_scores(t, j, b["mask"])) for i, j in PAIRS)

    def val_kl(self, s: Outputs, t: Outputs, b: dict) -> torch.Tensor:
        return sum(_kl(_relation(s, i, "value"), _relation(t, j, "value")) for i, j in PAIRS)

    def minilm_v2(self, s: Outputs, t: Outputs, b: dict) -> torch.Tensor:
        return sum(_kl(_relation(s, STUDENT_LAYERS - 1, name, RELATION_HEADS), _relation(t, TEACHER_LAYERS - 1, name, RELATION_HEADS))
                   for name in ("query", "key", "value"))

    def pear_col(self, s: Outputs, t: Outputs, b: dict) -> torch.Tensor:
        left = _masked_scores(s, STUDENT_LAYERS - 1, b["mask"]).softmax(-1)
        right = _masked_scores(t, TEACHER_LAYERS - 1, b["mask"]).softmax(-1)
        return sum(1 - _pearson(left, right, axis) for axis in range(4))

    def cka(self, s: Outputs, t: Outputs, b: dict) -> torch.Tensor:
        total = 0.0
        for i, j in PAIRS:
            left, right = s.hidden[i + 1][b["mask"]], t.hidden[j + 1][b["mask"]]
            left, right = left - left.mean(0), right - right.mean(0)
            total = total + 1 - (right.T @ left).norm() ** 2 / ((left.T @ left).norm() * (right.T @ right).norm())
        return total

    def gram(self, s: Outputs, t: Outputs, b: dict) -> torch.Tensor:
        total = 0.0
        for i, j in PAIRS:
            for row in range(len(b["mask"])):
                left, right = s.hidden[i + 1][row][b["mask"][row]], t.hidden[j + 1][row][b["mask"][row]]
                left, right = left @ left.T, right @ right.T
                total = total + (left / left.norm() - right / right.norm()).square().sum() / len(b["mask"])
        return total

    def crd(self, s: Outputs, t: Outputs, b: dict) -> torch.Tensor:
        left = F.normalize(self.contrast_student(s.hidden[-1][:, 0]), dim=-1)
        right = F.normalize(self.contrast_teacher(t.hidden[-1][:, 0]), dim=-1)
        return F.cross_entropy(left @ right.T / 0.07, torch.arange(len(left), device=left.device))

    def logit(self, s: Outputs, t: Outputs, b: dict) -> torch.Tensor:
        left, right = self._selected(s, b), self._selected(t, b)
        return F.kl_div(F.log_softmax(left, -1), F.softmax(right, -1), reduction="batchmean")

    def reverse_kl(self, s: Outputs, t: Outputs, b: dict) -> torch.Tensor:
        left, right = self._selected(s, b), self._selected(t, b)
        return F.kl_div(F.log_softmax(right, -1), F.softmax(left, -1), reduction="batchmean")

    def symmetric_kl(self, s: Outputs, t: Outputs, b: dict) -> torch.Tensor:
        return 0.5 * (self.logit(s, t, b) + self.reverse_kl(s, t, b))

    def logit_mse(self, s: Outputs, t: Outputs, b: dict) -> torch.Tensor:
        left, right = self._selected(s, b), self._selected(t, b)
        return F.mse_loss(left, right, reduction="sum") / len(left)

    def soft_ce(self, s: Outputs, t: Outputs, b: dict) -> torch.Tensor:
        return F.cross_entropy(self._selected(s, b), F.softmax(self._selected(t, b), -1))

    def mlm(self, s: Outputs, t: Outputs, b: dict) -> torch.Tensor:
        return F.cross_entropy(s.logits.view(-1, s.logits.shape[-1]), b["labels"].view(-1), ignore_index=-100)

    @staticmethod
    def _selected(outputs: Outputs, b: dict) -> torch.Tensor:
        mask = (b["labels"] != -100).unsqueeze(-1).expand_as(outputs.logits)
        return torch.masked_select(outputs.logits, mask).view(-1, outputs.logits.shape[-1])


def read_shard(shards: Path) -> dict[str, np.ndarray]:
    import h5py

    with h5py.File(shards / "train_shard_0.hdf5") as file:
        return {key: file[key][:].astype(np.int64) for key in file}


class Rows:
    """Endless micro-batches of a shard as padded tensors: input_ids, mask, labels (-100 where nothing is asked)."""

    def __init__(self, shards: Path, micro_batch: int, device: torch.device) -> None:
        self.arrays, self.micro_batch, self.device, self.place = read_shard(shards), micro_batch, device, 0

    def next(self) -> dict[str, torch.Tensor]:
        rows = np.arange(self.place, self.place + self.micro_batch) % len(self.arrays["input_ids"])
        self.place += self.micro_batch
        ids, mask = self.arrays["input_ids"][rows], self.arrays["input_mask"][rows]
        labels = np.full_like(ids, -100)
        np.put_along_axis(labels, self.arrays["masked_lm_positions"][rows], self.arrays["masked_lm_ids"][rows], axis=1)
        tensors = {"input_ids": ids, "mask": mask != 0, "labels": labels, "next": self.arrays["next_sentence_labels"][rows]}
        return {name: torch.from_numpy(array).to(self.device) for name, array in tensors.items()}


def reference_step(name: str, teacher_folder: Path, shards: Path, micro_batch: int, accumulation: int) -> Step:
    """One optimizer step of objective `name` as the originals write it, in fp32, at a time."""
    import transformers

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows, losses = Rows(shards, micro_batch, device), Losses(name).to(device)
    config = transformers.BertConfig.from_pretrained(teacher_folder)
    if name in ("clm", "nsp"):
        forward, model = _without_teacher(name, device)
    else:
        load = {"dtype": torch.float32, "attn_implementation": "eager"}
        teacher = Reference(transformers.BertForMaskedLM.from_pretrained(teacher_folder, **load).to(device).eval())
        config.num_hidden_layers = STUDENT_LAYERS
        model = transformers.BertForMaskedLM._from_config(config, attn_implementation="eager").to(device).train()
        student = Reference(model)

        def forward(batch: dict[str, torch.Tensor]) -> torch.Tensor:
            inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["mask"].long()}
            with torch.no_grad():
                target = teacher(**inputs)
            return losses(student(**inputs), target, batch)

    engine = _engine(nn.ModuleList([model, losses]), micro_batch, accumulation)

    def step() -> int:
        tokens = 0
        for _ in range(accumulation):
            batch = rows.next()
            tokens += int(batch["mask"].sum())
            engine.backward(forward(batch))
            engine.step()
        return tokens

    return step


def _engine(module: nn.Module, micro_batch: int, accumulation: int) -> Any:
    """The originals train under DeepSpeed, with torch's AdamW over all parameters."""
    from pretraining.engine import select_device, start_ranks
    from pretraining.launch import read_launch

    start_ranks(select_device(read_launch(-1)))
    import deepspeed

    config = {"train_batch_size": micro_batch * accumulation, "train_micro_batch_size_per_gpu": micro_batch,
              "gradient_accumulation_steps": accumulation}
    engine, *_ = deepspeed.initialize(
        model=module, optimizer=torch.optim.AdamW(module.parameters(), lr=1e-4), config=config, dist_init_required=False)
    return engine


def _without_teacher(name: str, device: torch.device) -> tuple[Callable, nn.Module]:
    """The two objectives that need another model than BERT with an MLM head, and no teacher."""
    import transformers

    if name == "clm":
        config = transformers.GPT2Config(vocab_size=30522, n_layer=STUDENT_LAYERS, n_positions=512)
        model = transformers.GPT2LMHeadModel._from_config(config, attn_implementation="eager").to(device).train()

        def forward(batch: dict[str, torch.Tensor]) -> torch.Tensor:
            labels = batch["input_ids"].masked_fill(~batch["mask"], -100)
            return model(input_ids=batch["input_ids"], attention_mask=batch["mask"].long(), labels=labels).loss
    else:
        config = transformers.BertConfig(num_hidden_layers=STUDENT_LAYERS)
        model = transformers.BertForPreTraining._from_config(config, attn_implementation="eager").to(device).train()

        def forward(batch: dict[str, torch.Tensor]) -> torch.Tensor:
            output = model(input_ids=batch["input_ids"], attention_mask=batch["mask"].long())
            return F.cross_entropy(output.seq_relationship_logits, batch["next"])

    return forward, model
