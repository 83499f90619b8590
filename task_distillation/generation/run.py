"""The two steps of `generate`, each skipped where its result is there already: the language model, then the texts."""

import hashlib
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers

from dataset.errors import UserError
from dataset.files import file_hash, remove_folder, remove_partials, remove_path, write_json
from evaluation.fine_tuning.heads import quiet_transformers
from evaluation.fine_tuning.model_folder import fingerprint
from evaluation.fine_tuning.repeatable import repeatable
from pretraining.precision import select_precision
from task_distillation.devices import devices_of
from task_distillation.generation.cleaning import Counts, write_transfer_set
from task_distillation.generation.command import Plan
from task_distillation.generation.fine_tuning import FineTuning, Place, perplexity
from task_distillation.generation.language_model import NEW_VOCABULARY, LanguageModel, create, load, load_tokenizer, train_tokenizer
from task_distillation.generation.parts import Source, draw_parts
from task_distillation.generation.prefixes import Prefixes
from task_distillation.generation.text import text_rows
from task_distillation.record import check_same, read_record
from task_distillation.transfer_set import text_columns

FORMAT_VERSION = 1
LANGUAGE_MODEL, MODEL_RECORD, PREFIXES = "language_model", "language_model.json", "prefix_sampler.json"
STATE, PARTS, TRANSFER_SET, RECORD = "fine_tuning_state.pt", "parts", "transfer_set.tsv", "generation.json"
FILES = (MODEL_RECORD, PREFIXES, STATE, TRANSFER_SET, RECORD)


def run(plan: Plan) -> None:
    """Make what `plan` asks for and is not there yet, in a folder that nobody else writes."""
    devices = devices_of(plan.devices)
    place, note = _place(plan, devices[0])
    remove_partials(plan.output_dir, FILES)
    with quiet_transformers():  # it warns of rows without an attention mask, which here have no padding
        model_record = _language_model(plan, place, note)
        if plan.draws:
            _texts(plan, place, devices, model_record)


def _place(plan: Plan, device: str) -> tuple[Place, str | None]:
    where = torch.device(device)
    precision, note = select_precision(plan.precision, where)
    return Place(where, precision), note


def _language_model(plan: Plan, place: Place, note: str | None) -> dict[str, Any]:
    """The content of language_model.json, whose model and prefixes are there; trained or, with --only sample, measured here if need be."""
    path = plan.output_dir / MODEL_RECORD
    identity = _model_identity(plan, place)
    there = read_record(path)
    if there is not None:
        check_same(path, there["identity"], identity)
        folder = _model_folder(plan)
        if not folder.is_dir() or fingerprint(folder) != there.get("language_model_sha256"):
            raise UserError(f"{folder}: not the language model that {path.name} tells of; remove {path.name}, or give another --output_dir")
        if (plan.output_dir / PREFIXES).is_file():
            print(f"{folder}: already there, {_dev_words(there['dev_perplexity'])}")
            return there
    if note is not None:
        print(note)
    with repeatable(plan.training.seed, place.device):
        try:
            return _make_language_model(plan, place, identity)
        except torch.OutOfMemoryError:
            raise UserError(f"{place.device}: out of memory; a smaller --train_batch_size or --max_length would work") from None


def _make_language_model(plan: Plan, place: Place, identity: dict[str, Any]) -> dict[str, Any]:
    columns, kept = text_rows(plan.data.train)
    if not kept:
        raise UserError(f"{plan.data.task.name}: no training row has texts on every side; there is nothing to learn from")
    lm = _loaded(plan, columns)
    train, cut = lm.codec.rows(columns, plan.training.max_length)
    if cut and plan.trains:
        print(f"{cut} of {len(kept)} training texts have more than --max_length {plan.training.max_length} tokens; their ends are left out")
    Prefixes.of(train.ids[train.starts[:-1] + len(lm.codec.start)].tolist()).write(plan.output_dir / PREFIXES)
    dev_texts = text_rows(next(iter(plan.data.dev.values())))[0] if plan.data.dev else ([],)
    dev = lm.codec.rows(dev_texts, plan.training.max_length)[0] if dev_texts[0] else None
    record: dict[str, Any] = {"identity": identity, "parameters": sum(weight.numel() for weight in lm.model.parameters())}
    if plan.trains:
        training = FineTuning(lm, columns, train, dev, plan.training, place, identity, plan.output_dir / STATE, _model_folder(plan))
        best = training.run()
        found = training.epochs[best - 1]["dev_perplexity"]
        record |= {"epochs": training.epochs, "best_epoch": best}
        print(f"{_model_folder(plan)}: epoch {best} of {len(training.epochs)}, {_dev_words(found)}")
    else:
        found = None if dev is None else perplexity(_on(lm, place), dev, 2 * plan.training.train_batch_size, place)
        print(f"{plan.lm_path}: taken as it is, {_dev_words(found)}")
    record |= {"dev_perplexity": found, "language_model_sha256": fingerprint(_model_folder(plan)),
               "versions": {"torch": torch.__version__, "transformers": transformers.__version__}}
    write_json(plan.output_dir / MODEL_RECORD, record)
    (plan.output_dir / STATE).unlink(missing_ok=True)
    return record


def _loaded(plan: Plan, columns: tuple[list[str], ...]) -> LanguageModel:
    if plan.lm_path is not None:
        lm = load(plan.lm_path, plan.training, plan.sampling)
    else:
        if plan.lm_tokenizer is not None:
            tokenizer = load_tokenizer(plan.lm_tokenizer)
        else:
            texts = (text for column in columns for text in column)
            tokenizer = train_tokenizer(texts, plan.new_config.get("vocab_size") or NEW_VOCABULARY)
        lm = create(plan.lm_config, plan.new_config, tokenizer, plan.training, plan.sampling)
    if plan.trains and plan.training.split_encode:
        lm.codec.check_parts()
    return lm


def _texts(plan: Plan, place: Place, devices: list[str], model_record: dict[str, Any]) -> None:
    """transfer_set.tsv and generation.json."""
    path, record_path, parts = (plan.output_dir / name for name in (TRANSFER_SET, RECORD, PARTS))
    drawing = {
        "task": plan.data.task.name, "data_sha256": plan.data.sha256, "language_model_sha256": model_record["language_model_sha256"],
        "prefixes_sha256": hashlib.sha256((plan.output_dir / PREFIXES).read_bytes()).hexdigest(), "precision": place.precision.name,
        **asdict(plan.sampling),
    }
    identity = {"format_version": FORMAT_VERSION, **drawing, "num_samples": plan.num_samples, "keep_originals": plan.keep_originals}
    there = read_record(record_path)
    if there is not None and path.is_file():
        check_same(record_path, there["identity"], identity)
        if there.get("transfer_set_xxh3", (found := file_hash(path))) != found:
            raise UserError(f"{path}: damaged or edited since {RECORD} beside it was written; move it elsewhere and the same command draws "
                            f"it again, or give another --output_dir")
        print(f"{path}: already there, {there['counts']['rows']} rows")
        remove_path(parts)  # of a run that was killed at its very end
        return
    chunks = math.ceil(plan.num_samples / plan.sampling.sample_batch_size)
    source = Source(_model_folder(plan), plan.output_dir / PREFIXES, plan.sampling, len(text_columns(plan.data.task)), place.precision.name)
    drawn, seconds = draw_parts(source, drawing, parts, chunks, devices)
    counts = write_transfer_set(path, plan.data, parts, chunks, plan.num_samples, plan.keep_originals)
    rate = round(drawn / seconds, 2) if drawn else None
    write_json(record_path, {
        "identity": identity, "counts": counts.as_dict(), "transfer_set_xxh3": file_hash(path), "samples_per_second": rate,
        "samples_of_this_call": drawn, "devices": devices, "dev_perplexity": model_record["dev_perplexity"],
        "parameters": model_record["parameters"],
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    })
    remove_folder(parts)
    print(_summary(path, counts, rate))


def _summary(path: Path, counts: Counts, rate: float | None) -> str:
    speed = "" if rate is None else f", {rate:.1f} samples/s"
    return (f"{path}: {counts.rows} rows, {counts.originals} of them originals; {counts.drawn} texts begun, {counts.unfinished} not "
            f"ended, {counts.unused} not needed, {counts.empty} empty, {counts.equal_to_original} equal to an original, "
            f"{counts.repeated} repeated, {counts.kept} kept{speed}")


def _model_identity(plan: Plan, place: Place) -> dict[str, Any]:
    """All that decides the language model and its prefixes, besides the machine."""
    task = plan.data.task
    return {
        "format_version": FORMAT_VERSION, "task": task.name, "data_sha256": plan.data.sha256, "source_sha256": plan.source_sha256,
        "trained": plan.trains, "precision": place.precision.name, **(asdict(plan.training) if plan.trains else {}),
    }


def _model_folder(plan: Plan) -> Path:
    return plan.output_dir / LANGUAGE_MODEL if plan.trains else plan.lm_path


def _on(lm: LanguageModel, place: Place) -> LanguageModel:
    lm.model.to(place.device)
    return lm


def _dev_words(found: float | None) -> str:
    return "no dev set to measure it by" if found is None else f"dev perplexity {found:.2f}"
