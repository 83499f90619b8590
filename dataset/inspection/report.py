"""What an inspection found, as one dictionary of plain values (`--json`) and as text to read."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from dataset.inspection.duplicates import Duplicates, Repeats
from dataset.inspection.scan import Counts
from dataset.shard_format import TRAIN, ShardInfo

QUANTILES = {"p5": 0.05, "median": 0.5, "p95": 0.95}
OF_A_FILE = ("split", "file_index", "num_shards", "duplicate", "source", "source_sha256")  # attributes that differ by their nature
# Shards that differ in one of these cannot serve one training run.
MUST_AGREE = ("max_seq_length", "tokenizer_sha256", "vocab_size", "lowercase", "tokenizer_rules_sha256", "next_sentence_labels",
              "pad_token_id", "cls_token_id", "sep_token_id", "mask_token_id")  # fmt: skip
SETTINGS = ("tokenizer_sha256", "vocab_size", "lowercase", "masking", "masked_lm_prob", "max_predictions_per_seq", "whole_word_masking",
            "next_sentence_labels", "short_seq_prob", "dup_factor", "seed", "errors")  # fmt: skip
SHA_SHOWN = 12
LINE = 110


def split_numbers(counts: Counts, infos: Sequence[ShardInfo]) -> dict[str, Any]:
    """Counts, lengths and shares of one split; None for a share of nothing."""
    total = max(1, counts.samples)
    below = np.cumsum(counts.lengths)
    predicted = counts.predicted
    return {
        "files": len(infos),
        "samples": counts.samples,
        "padded_length": sorted({info.max_seq_length for info in infos}),
        "tokens": counts.tokens,
        "unknown": _share(counts.unknown, counts.tokens_checked),
        "padding": _share(counts.places - counts.tokens, counts.places),
        "length": {
            "min": int(np.argmax(below > 0)),
            **{name: int(np.searchsorted(below, quantile * counts.samples)) for name, quantile in QUANTILES.items()},
            "mean": counts.tokens / total,
            "max": int(np.flatnonzero(counts.lengths).max(initial=0)),
        },
        "masking": sorted({info.masking for info in infos}),
        "masked": _share(predicted, counts.tokens) if predicted else None,
        "masked_shown_as": {
            "mask": _share(counts.shown_mask, predicted),
            "same": _share(counts.shown_same, predicted),
            "other": _share(counts.shown_other, predicted),
        },
        "random_next": _share(counts.random_next, counts.with_nsp),
    }


def differing_attributes(infos: Sequence[ShardInfo]) -> dict[str, list[dict[str, Any]]]:
    """Name -> its values, each with the number of files and the first of them, where values differ; a missing attribute is null."""
    described = [_described(info) for info in infos]
    names = dict.fromkeys(name for one in described for name in one if name not in OF_A_FILE)
    differing = {}
    for name in names:
        seen: dict[Any, dict[str, Any]] = {}
        for info, one in zip(infos, described, strict=True):
            value = one.get(name)
            seen.setdefault(value, {"value": value, "files": 0, "first": info.path.name})["files"] += 1
        if len(seen) > 1:
            differing[name] = list(seen.values())
    return differing


def settings(infos: Sequence[ShardInfo]) -> dict[str, Any]:
    """What the files tell, all alike, of how they were made; `dup_factor` is that of the train shards."""
    described = [_described(info) for info in infos]
    duplicates = [info.attributes["duplicate"] for info in infos if info.split == TRAIN and "duplicate" in info.attributes]
    if duplicates:
        described = [{**one, "dup_factor": 1 + int(max(duplicates))} for one in described]
    alike = {name: {one.get(name) for one in described} for name in SETTINGS}
    return {name: values.pop() for name, values in alike.items() if len(values) == 1 and values != {None}}


def _described(info: ShardInfo) -> dict[str, Any]:
    predictions = info.predictions or info.attributes.get("max_predictions_per_seq")
    return {**info.attributes, "max_seq_length": info.max_seq_length, "max_predictions_per_seq": predictions, "masking": info.masking,
            "next_sentence_labels": info.has_nsp}  # fmt: skip


def too_unknown(splits: dict[str, dict[str, Any]], most: float) -> list[str]:
    """A line for each split of whose tokens more than the share `most` are the unknown token."""
    return [
        f"{_percent(one['unknown'])} of the tokens in {split} are the unknown token, more than --max_unknown {most}: does the tokenizer "
        "fit the text (--do_lower_case, its language)?"
        for split, one in splits.items() if (one["unknown"] or 0) > most
    ]  # fmt: skip


def mixtures(splits: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each split some of whose files hold masks and some none: training reads both."""
    return [
        f"{split}: some files hold their masks, which are the same in every epoch, and some hold none, so that the trainer draws them"
        for split, one in splits.items() if len(one["masking"]) > 1
    ]  # fmt: skip


def disagreements(differing: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Lines on the attributes that have to be one, and are not; shards that do not tell are passed over."""
    lines = []
    for name in MUST_AGREE:
        told = [value for value in differing.get(name, []) if value["value"] is not None]
        if len(told) > 1:
            lines.append(f"{name} differs: " + ", ".join(f"{value['value']} ({value['first']})" for value in told))
    return lines


def duplicate_numbers(duplicates: Duplicates) -> dict[str, Any]:
    """As plain values."""

    def plain(repeats: Repeats) -> dict[str, Any]:
        example = [{"file": path.name, "row": row} for path, row in repeats.example] if repeats.example else None
        return {"samples": repeats.samples, "example": example}

    return {
        "within_train": plain(duplicates.in_train),
        "within_test": plain(duplicates.in_test),
        "test_in_train": plain(duplicates.shared),
        "by_dup_factor": duplicates.made,
    }


def render(found: dict[str, Any]) -> str:
    """The report as lines of ASCII."""
    problems, notes = ([f"  {line}" for line in found[key]] for key in ("problems", "notes"))
    parts = [
        f"{found['path']}: {found['files']} files",
        _table(found["splits"]) if found["splits"] else "",
        _duplicates(found),
        _settings(found["settings"]),
        _differing(found["differing_attributes"]),
        *(f"{one['file']}, row {one['row']}, {one['tokens']} tokens\n{_wrapped(one['text'])}" for one in found["examples"]),
        "\n".join(["notes", *notes]) if notes else "",
        "\n".join(["wrong", *problems]) if problems else "nothing is wrong",
    ]
    return "\n\n".join(part for part in parts if part)


def _table(splits: dict[str, dict[str, Any]]) -> str:
    rows: list[tuple[str, list[str]]] = []

    def row(name: str, values: list[str | None]) -> None:
        if any(value is not None for value in values):
            rows.append((name, [value or "-" for value in values]))

    numbers = list(splits.values())
    row("", list(splits))
    row("files", [f"{one['files']:,}" for one in numbers])
    row("samples", [f"{one['samples']:,}" for one in numbers])
    row("tokens", [f"{one['tokens']:,}" for one in numbers])
    row("padded length", [_listed(one["padded_length"]) for one in numbers])
    row("padding", [_percent(one["padding"]) for one in numbers])
    for name in ("min", "p5", "median", "mean", "p95", "max"):
        text = "length, " + {"p5": "5 % below", "p95": "95 % below"}.get(name, name)
        row(text, [f"{one['length'][name]:,.1f}" if name == "mean" else f"{one['length'][name]:,}" for one in numbers])
    row("unknown tokens", [_percent(one["unknown"], 2) for one in numbers])
    row("masking", [_listed(one["masking"]) for one in numbers])
    row("predicted tokens", [_percent(one["masked"]) for one in numbers])
    if any(one["masked_shown_as"]["mask"] for one in numbers):
        for name, text in (("mask", "  shown as [MASK]"), ("same", "  shown as they are"), ("other", "  shown as another")):
            row(text, [_percent(one["masked_shown_as"][name]) for one in numbers])
    row("random next text", [_percent(one["random_next"]) for one in numbers])
    left = max(len(name) for name, _ in rows)
    widths = [max(len(values[column]) for _, values in rows) for column in range(len(numbers))]
    return "\n".join(
        "  ".join([name.ljust(left), *(value.rjust(width) for value, width in zip(values, widths, strict=True))]) for name, values in rows
    )


def _duplicates(found: dict[str, Any]) -> str:
    duplicates = found["duplicates"]
    lines = []
    for key, split, text in (
        ("within_train", "train", "twice in train"),
        ("within_test", "test", "twice in test"),
        ("test_in_train", "test", "test samples also in train"),
    ):
        count, example = duplicates[key]["samples"], duplicates[key]["example"]
        share = _percent(_share(count, found["splits"].get(split, {}).get("samples", 0)), 2)
        such = f" ({share} of {split}), such as {' and '.join(f'''{one['file']} row {one['row']}''' for one in example)}" if example else ""
        lines.append(f"  {text:<28}{count:>8,}{such}")
    if duplicates["by_dup_factor"]:
        lines.append(f"  {'made by --dup_factor':<28}{duplicates['by_dup_factor']:>8,}")
    return "\n".join(["samples with the text of another", *lines])


def _settings(told: dict[str, Any]) -> str:
    shown = [f"{name} {value[:SHA_SHOWN] if name == 'tokenizer_sha256' else _plain(value)}" for name, value in told.items()]
    return f"made with\n{_wrapped(', '.join(shown))}" if shown else ""


def _differing(differing: dict[str, list[dict[str, Any]]]) -> str:
    lines = []
    for name, values in differing.items():
        told = [f"{'none' if one['value'] is None else one['value']} in {one['files']} ({one['first']})" for one in values[:4]]
        lines.append(f"  {name}: {', '.join(told)}{', ...' if len(values) > 4 else ''}")
    return "\n".join(["attributes that differ between files", *lines]) if lines else ""


def _wrapped(text: str) -> str:
    return textwrap.fill(text, LINE, initial_indent="  ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value


def _listed(values: list[Any]) -> str:
    return " and ".join(map(str, values)) or "-"


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _percent(share: float | None, digits: int = 1) -> str | None:
    return None if share is None else f"{100 * share:.{digits}f} %"
