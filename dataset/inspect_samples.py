"""What is in shards of samples, and what is wrong with them.

    python dataset/inspect_samples.py samples --vocab_file vocab.txt

Reads every file: counts, lengths, padding, unknown tokens, masks, settings, duplicates within and across train and test, a few samples as
text, and every broken rule of the format. Exit status 1 where anything is wrong in a file or between files (`--max_shared` says how many
test samples may stand in train as well, `--max_unknown` how many tokens may be the unknown one), 0 otherwise. Memory: a block of samples,
and up to 24 bytes for each sample of one duplicate.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

if not __package__:  # run by path: the project's root takes the place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataset.errors import UserError, run_script
from dataset.flags import add_workers, parse, script_parser
from dataset.inspection import problems, report
from dataset.inspection.duplicates import DuplicateFinder, group_of
from dataset.inspection.examples import pick_examples
from dataset.inspection.scan import Counts, ShardScan, Vocabulary, scan_shard
from dataset.shard_format import SUFFIXES, TEST, TRAIN, ShardInfo, natural_key, read_info

EXIT_WRONG = 1
WORTH_PROCESSES = 32 * 2**20  # bytes; what one process reads in a second or two


def parse_flags(arguments: list[str] | None) -> argparse.Namespace:
    parser = script_parser("What is in shards of samples, and what is wrong with them.")
    parser.add_argument("shards", nargs="+", help="a folder, or HDF5 files")
    parser.add_argument("--model_name", help="tokenizer: folder, file or hub name; its ids are checked, samples are shown as text")
    parser.add_argument("--vocab_file", type=Path, help="a WordPiece vocab.txt; takes the place of --model_name")
    parser.add_argument("--samples", type=int, default=2, help="samples of each split to show; default: 2")
    parser.add_argument("--max_shared", type=float, default=0.01, help="largest share of test samples that may be in train; default: 0.01")
    parser.add_argument("--max_unknown", type=float, default=0.01, help="largest share of unknown tokens in a split; default: 0.01")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a report")
    add_workers(parser)
    return parse(parser, arguments, {"samples": (0, None), "max_shared": (0, 1), "max_unknown": (0, 1)})


def main(arguments: list[str] | None = None) -> int:
    """Parse `arguments` (None: the command line), print what was found; 1 where anything is wrong, else 0."""
    flags = parse_flags(arguments)
    paths = list_files([Path(name).expanduser() for name in flags.shards])
    tokenizer, vocabulary = None, Vocabulary()
    if flags.vocab_file or flags.model_name:
        from dataset.tokenizer import load_tokenizer, special_ids, vocabulary_sha256, vocabulary_size

        tokenizer = load_tokenizer(flags.vocab_file or flags.model_name)
        ids = special_ids(tokenizer)
        vocabulary = Vocabulary(vocabulary_sha256(tokenizer), vocabulary_size(tokenizer), ids.pad, ids.cls, ids.sep, ids.mask, ids.unk)
    finder = DuplicateFinder()
    counts: dict[str, Counts] = {TRAIN: Counts(), TEST: Counts()}
    infos: dict[str, list[ShardInfo]] = {TRAIN: [], TEST: []}
    found_problems: list[tuple[Path, problems.Problem]] = []
    strange: set[Path] = set()
    for scan in scan_all(paths, vocabulary, flags.n_processes, flags.dask_address):
        found_problems += [(scan.path, problem) for problem in scan.problems]
        if scan.info is not None:
            counts[scan.info.split] += scan.counts
            infos[scan.info.split].append(scan.info)
            finder.add(scan)
            if tokenizer is not None and not scan.fits:
                strange.add(scan.info.path)
    for split in infos:
        infos[split].sort(key=lambda info: natural_key(info.path))
    readable = {split: [info for info in infos[split] if info.path not in strange] for split in infos}
    examples = [one for split in readable for one in pick_examples(readable[split], flags.samples, tokenizer, vocabulary)]
    everything = [*infos[TRAIN], *infos[TEST]]
    found: dict[str, Any] = {
        "path": " ".join(flags.shards),
        "files": len(paths),
        "splits": {split: report.split_numbers(counts[split], infos[split]) for split in infos if infos[split]},
        "duplicates": report.duplicate_numbers(finder.finish()),
        "settings": report.settings(everything),
        "differing_attributes": report.differing_attributes(everything),
        "examples": examples,
    }
    found["notes"] = report.mixtures(found["splits"])
    if strange:
        found["notes"].append(f"samples of {len(strange)} files are not shown: their ids do not fit the tokenizer given")
    found["problems"] = [*problems.told(found_problems), *between_files(found, flags.max_shared, flags.max_unknown)]
    print(json.dumps(found, indent=2) if flags.json else report.render(found))
    return EXIT_WRONG if found["problems"] else 0


def list_files(given: list[Path]) -> list[Path]:
    """Files as given, and the HDF5 files directly in folders, in natural order."""
    files: list[Path] = []
    for path in given:
        if path.is_dir():
            # Hidden names are files still being written, or left by a killed run.
            found = [file for file in path.iterdir() if file.suffix in SUFFIXES and not file.name.startswith(".")]
            if not found:
                raise UserError(f"{path} has no HDF5 file; the output folder of generate_samples would work")
            files += sorted(found, key=natural_key)
        elif path.exists():
            files.append(path)
        else:
            raise UserError(f"no file or folder {path}")
    return list(dict.fromkeys(files))


def scan_all(paths: list[Path], vocabulary: Vocabulary, n_processes: int, dask_address: str | None) -> Iterator[ShardScan]:
    """Scans of all files, one duplicate after the other; files whose header is broken come first."""
    ordered = sorted(paths, key=_group)
    if not dask_address and (n_processes == 1 or sum(path.stat().st_size for path in paths) < WORTH_PROCESSES):
        yield from (scan_shard(path, vocabulary) for path in ordered)
        return
    from dataset.jobs import Job, Workers

    jobs = [Job(path.name, (path.resolve(), vocabulary), path.stat().st_size) for path in ordered]
    with Workers(min(n_processes, len(jobs)), dask_address) as workers:
        for path, scan in zip(ordered, workers.in_order(scan_shard, jobs, "shards", sum(job.size for job in jobs)), strict=True):
            yield replace(scan, path=path)


def _group(path: Path) -> tuple[bool, int]:
    try:
        return group_of(read_info(path))
    except UserError:
        return False, -1


def between_files(found: dict[str, Any], max_shared: float, max_unknown: float) -> list[str]:
    """What is wrong with the shards as a whole."""
    lines = report.disagreements(found["differing_attributes"])
    shared, tests = found["duplicates"]["test_in_train"]["samples"], found["splits"].get(TEST, {}).get("samples", 0)
    if shared > max_shared * tests:
        lines.append(f"{shared} of {tests} test samples stand in train as well, more than --max_shared {max_shared} of them")
    return lines + report.too_unknown(found["splits"], max_unknown)


if __name__ == "__main__":
    run_script(main)
