"""The scores of an export in its model card: the `model-index` that the hub reads, and a table that people read.

The card is the export's README.md; what else stands in it stays. A score says its protocol and seeds, because a number without them cannot
be compared. Scores of an earlier call under other protocols stay until they are taken again under the same name.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from dataset.errors import UserError, one_line
from dataset.files import reason, whole_file
from evaluation.scoring.results import Row
from evaluation.scoring.statistics import Score, summarise
from evaluation.scoring.tables import how_scored
from evaluation.tasks.task import Task

FILE_NAME = "README.md"
BEGIN, END = "<!-- scores: begin -->", "<!-- scores: end -->"
HUB_METRICS = {"matthews": "matthews_correlation", "pearson": "pearsonr", "spearman": "spearmanr", "exact": "exact_match"}
"""Our names where the hub has others."""


def update_card(folder: Path, rows: Sequence[Row], tasks: Sequence[Task]) -> None:
    """Write the scores in `rows` (complete ones, of the model in `folder`) into its card. UserError where the card cannot be written."""
    from huggingface_hub import ModelCard, ModelCardData
    from huggingface_hub.repocard_data import model_index_to_eval_results

    path = folder / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else f"---\nlibrary_name: transformers\n---\n\n# {folder.name}\n"
        card = ModelCard(text)
        scores = [score for score in summarise(rows) if score.value is not None]
        known = {task.name: task for task in tasks}
        results = [result for score in scores for result in _results(score, known[score.task])]
        metadata = card.data.to_dict()
        name = metadata.get("model_name") or folder.resolve().name
        before = metadata.pop("model-index", None)
        if before:
            name, old = model_index_to_eval_results(before)
            ours = {_key(result) for result in results}
            results = [*(result for result in old if _key(result) not in ours), *results]
        metadata.pop("eval_results", None)
        card.data = ModelCardData(**{**metadata, "eval_results": results, "model_name": name})
        card.text = _with_section(card.text, _section(scores))
        with whole_file(path) as partial:
            card.save(partial)
    except OSError as error:
        raise UserError(f"{path}: the scores cannot be written into it ({reason(error)}); glue.json has them") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: its metadata cannot be read ({one_line(error)[:200]}); glue.json has the scores") from None


def _key(result) -> tuple:
    return result.dataset_type, result.dataset_config, result.dataset_split, result.metric_type, (result.metric_args or {}).get("protocol")


def _results(score: Score, task: Task) -> list:
    from huggingface_hub import EvalResult

    results = []
    for metric, spread in score.metrics.items():
        name, _, split = metric.partition("/")
        arguments = {"protocol": f"{score.protocol['name']} v{score.protocol['version']}", "protocol_sha256": score.protocol["sha256"],
                     "aggregate": score.protocol["aggregate"], "seeds": list(score.seeds), "values": list(spread.values),
                     "selected_on_dev": score.selected_on_dev, "started_from": score.start}
        kind = {"regression": "text-similarity", "span": "question-answering"}.get(task.kind, "text-classification")
        results.append(EvalResult(
            task_type=kind, task_name=task.name, dataset_type=_data_set(task), dataset_name=task.name,
            dataset_config=_config(task), dataset_split=_split(task, split), metric_type=HUB_METRICS.get(name, name), metric_name=name,
            metric_value=score.aggregate(metric), metric_args=arguments,
        ))
    return results


def _data_set(task: Task) -> str:
    if task.kind == "span":
        return "squad_v2" if task.name.endswith("2.0") else "squad"
    return "glue" if _config(task) is not None else task.name


def _config(task: Task) -> str | None:
    """GLUE's name of the task on the hub, None for a task of one's own."""
    glue = {"CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE", "WNLI", "AX"}
    return task.name.lower().replace("-", "") if task.name in glue else None


def _split(task: Task, split: str) -> str:
    if task.name == "AX":
        return "test"
    return f"validation_{split or 'matched'}" if task.name == "MNLI" else "validation"


def _section(scores: Sequence[Score]) -> str:
    lines = [BEGIN, "", "## Scores", "", "After fine-tuning on each task; dev sets, in percent.", "",
             "| task | metric | score | deviation | constant prediction | how |", "|---|---|---|---|---|---|"]
    for score in scores:
        how = how_scored(score) + ("; chosen on this dev set" if score.selected_on_dev else "")
        how += f"; started from {score.start}" if score.start else ""
        for metric, spread in score.metrics.items():
            deviation = "-" if spread.deviation is None else f"{100 * spread.deviation:.2f}"
            floor = score.constant_metrics.get(metric)
            floor_text = "-" if floor is None else f"{100 * floor:.1f}"
            lines.append(f"| {score.task} | {metric} | {100 * score.aggregate(metric):.2f} | {deviation} | {floor_text} | {how} |")
    return "\n".join([*lines, "", END])


def _with_section(text: str, section: str) -> str:
    if BEGIN in text and END in text:
        return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: section, text, count=1, flags=re.DOTALL)
    use = text.find("\n## Use\n")
    at = len(text) if use < 0 else use + 1
    return f"{text[:at].rstrip()}\n\n{section}\n\n{text[at:]}".rstrip() + "\n"
