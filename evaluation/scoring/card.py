"""The scores of an export in its model card: the `model-index` that the hub reads, and a table that people read.

The card is the export's README.md; what else stands in it stays, also scores that other folders of results put there. A score says its
protocol and seeds, because a number without them cannot be compared.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from dataset.errors import UserError, one_line
from dataset.files import reason, whole_file
from evaluation.scoring.results import Row
from evaluation.scoring.statistics import Score, summarise
from evaluation.scoring.tables import how_scored
from evaluation.tasks.table import TASKS
from evaluation.tasks.task import Task

FILE_NAME = "README.md"
BEGIN, END = "<!-- scores: begin -->", "<!-- scores: end -->"
HUB_METRICS = {"matthews": "matthews_correlation", "pearson": "pearsonr", "spearman": "spearmanr", "exact": "exact_match"}
"""Our names where the hub has others."""
OFFICIAL_DEV_SIZES = {"CoLA": 1043, "SST-2": 872, "MRPC": 408, "STS-B": 1500, "QQP": 40430, "MNLI": 9815, "QNLI": 5463, "RTE": 277,
                      "WNLI": 71, "AX": 1104, "SQuAD-1.1": 10570, "SQuAD-2.0": 11873}
"""Examples of each published dev set, of MNLI's matched one."""


def update_card(folder: Path, rows: Sequence[Row], tasks: Sequence[Task]) -> None:
    """Write the scores in `rows` (all complete ones that there are of the model in `folder`) into its card.

    Rows of tasks that are not among `tasks` and not ours are left as the card has them. UserError where the card cannot be written.
    """
    from huggingface_hub import ModelCard, ModelCardData
    from huggingface_hub.repocard_data import model_index_to_eval_results

    path = folder / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else f"---\nlibrary_name: transformers\n---\n\n# {folder.name}\n"
        card = ModelCard(text)
        known = {task.name: task for task in (*TASKS, *tasks)}
        scores = [score for score in summarise([row for row in rows if row["task"] in known]) if score.value is not None]
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
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: its metadata cannot be read ({one_line(error)[:200]}); glue.json has the scores") from None


def _key(result) -> tuple:
    said = result.metric_args if isinstance(result.metric_args, dict) else {}
    return (result.dataset_type, result.dataset_config, result.dataset_split, result.metric_type, result.metric_name,
            *(said.get(name) for name in ("protocol_sha256", "how", "started_from", "teacher_sha256")))


def _results(score: Score, task: Task) -> list:
    from huggingface_hub import EvalResult

    results = []
    for metric, spread in score.metrics.items():
        name, _, part = metric.partition("/")
        arguments = {"protocol": f"{score.protocol['name']} v{score.protocol['version']}", "protocol_sha256": score.protocol["sha256"],
                     "how": score.rows[0]["mode"], "aggregate": score.protocol["aggregate"], "seeds": list(score.seeds),
                     "values": list(spread.values), "selected_on_dev": score.selected_on_dev, "started_from": score.start,
                     "teacher_sha256": score.rows[0]["teacher_sha256"], "changed": list(score.protocol["changed"])}
        kind = {"regression": "text-similarity", "span": "question-answering"}.get(task.kind, "text-classification")
        examples = {"dev_examples": score.rows[0]["dev_size"], "sha256": score.rows[0]["data_sha256"]}
        results.append(EvalResult(
            task_type=kind, task_name=task.name, dataset_type=_data_set(score, task), dataset_name=task.name,
            dataset_config=_config(score, task), dataset_split=_split(task, part), dataset_args=examples,
            metric_type=HUB_METRICS.get(name, name), metric_name=metric, metric_value=score.aggregate(metric), metric_args=arguments,
        ))
    return results


def _is_official(score: Score, task: Task) -> bool:
    """Whether all of the published dev set was scored: a part of it, or other text in its layout, is no result on it."""
    return OFFICIAL_DEV_SIZES.get(task.name) == score.rows[0]["dev_size"]


def _data_set(score: Score, task: Task) -> str:
    if not _is_official(score, task):
        return f"{task.name.lower()}, not the official dev set" if task.name in OFFICIAL_DEV_SIZES else task.name
    if task.kind == "span":
        return "squad_v2" if task.name.endswith("2.0") else "squad"
    return "glue"


def _config(score: Score, task: Task) -> str | None:
    """GLUE's name of the task on the hub; None elsewhere."""
    return task.name.lower().replace("-", "") if task.kind != "span" and _is_official(score, task) else None


def _split(task: Task, part: str) -> str:
    """`part`: what follows the slash in a metric's name: of SQuAD a kind of question, else a dev set."""
    if task.name == "AX":
        return "test"
    if task.name == "MNLI":
        return f"validation_{part or 'matched'}"
    return part if part and task.kind != "span" else "validation"


def _section(scores: Sequence[Score]) -> str:
    lines = [BEGIN, "", "## Scores", "", "On dev sets, in percent, after fine-tuning on each task where nothing else is said.", "",
             "| task | metric | score | deviation | constant prediction | how |", "|---|---|---|---|---|---|"]
    for score in scores:
        how = how_scored(score) + ("; chosen on this dev set" if score.selected_on_dev else "")
        how += f"; started from {score.start}" if score.start else ""
        how += "; distilled from a teacher on the way" if score.rows[0]["teacher_sha256"] else ""
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
