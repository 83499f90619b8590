"""Step 3, text shards -> HDF5 shards of samples, masked (`--masking static`) or left to the trainer (`--masking none`).

    python dataset/generate_samples.py --dir shards -o samples --model_name bert-base-uncased --max_seq_length 128

Every *.txt of `--dir` with "train" or "test" in its name becomes `train_shard_{i}.hdf5` or `test_shard_{i}.hdf5`.
`--dup_factor` d uses the text d times with other masks and lengths; duplicates of a text lie in different files, and the text is
tokenized once for all of them. The bytes depend on text, tokenizer, settings and seed, not on the number of processes or the cluster. A
second run with the same settings makes only what is missing or whose text has changed; one with other settings, or with other text for
all shards that are there, is refused unless `--overwrite`.
"""

import argparse
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run by path: the project's root takes the place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataset.errors import UserError, run_script
from dataset.files import locked, remove_partials
from dataset.flags import add_seed, add_workers, cap_predictions, parse, script_parser

if TYPE_CHECKING:
    from dataset.samples import SampleCounts, SampleJob, SampleSettings

SHORTEST_ROW, SHORTEST_PAIR = 4, 6
# Bytes on the disk for a byte of text: 0.4 measured on English at 128 tokens; short documents take more, for their padding.
DISK_SHARE = 0.5
MOST_UNKNOWN = 0.01
NAMES_SHOWN = 3


def parse_flags(arguments: list[str] | None) -> argparse.Namespace:
    parser = script_parser("Text shards to HDF5 shards of samples.")
    parser.add_argument("--dir", type=Path, required=True, help="folder of text shards, from shard_data")
    parser.add_argument("-o", "--output_dir", type=Path, required=True)
    parser.add_argument("--model_name", help="tokenizer: folder, file or hub name")
    parser.add_argument("--vocab_file", type=Path, help="a WordPiece vocab.txt; takes the place of --model_name")
    parser.add_argument(
        "--do_lower_case", type=int, choices=[0, 1], help="override the tokenizer (default: what the tokenizer says)"
    )
    parser.add_argument("--max_seq_length", type=int, default=512, help="tokens of a sample, special ones included; default: 512")
    parser.add_argument("--nsp", action="store_true", help="two texts a sample, with labels for next-sentence prediction")
    parser.add_argument("--no_nsp", action="store_true", help="one text a sample: the default")
    parser.add_argument(
        "--masking", choices=["static", "none"], default="static",
        help="static (default): masks are in the file, the same in every epoch; none: masks are drawn anew by the trainer in every epoch",
    )
    parser.add_argument("--whole_word_masking", action="store_true", help="mask whole words, also where the trainer masks")
    parser.add_argument("--masked_lm_prob", type=float, default=0.15, help="share of a sample's tokens to predict; default: 0.15")
    parser.add_argument(
        "--max_predictions_per_seq", type=int, help="most predictions of a sample; default: --masked_lm_prob of a full one, rounded up"
    )
    parser.add_argument("--dup_factor", type=int, default=1, help="how often the text is used, masked anew; default: 1")
    parser.add_argument("--short_seq_prob", type=float, default=0.1, help="share of samples cut short at random; default: 0.1")
    parser.add_argument("--errors", choices=["strict", "replace"], default="strict", help="bytes that are no UTF-8; default: strict")
    parser.add_argument("--overwrite", action="store_true", help="remove the shards in the output folder first")
    add_seed(parser)
    add_workers(parser)
    ranges = {
        "max_predictions_per_seq": (1, None), "dup_factor": (1, None), "masked_lm_prob": (0, 1), "short_seq_prob": (0, 1),
    }
    flags = parse(parser, arguments, ranges)
    check_flags(flags)
    special = 3 if flags.nsp else 2
    if flags.max_predictions_per_seq is None:
        # Rounded first: 0.07 times 100 is a little more than 7.
        full = math.ceil(round(flags.max_seq_length * flags.masked_lm_prob, 6))
        flags.max_predictions_per_seq = min(max(1, full), flags.max_seq_length - special)
    cap_predictions(flags, special)
    return flags


def check_flags(flags: argparse.Namespace) -> None:
    """UserError for the first flag that cannot work, a line for each that has no effect."""
    if not flags.dir.is_dir():
        raise UserError(f"--dir {flags.dir} is no folder; the output folder of shard_data would work")
    if flags.dir.resolve() == flags.output_dir.resolve():
        raise UserError(f"--output_dir {flags.output_dir} is also --dir; another folder would work")
    if not (flags.model_name or flags.vocab_file):
        raise UserError("no tokenizer given; --model_name (folder, file or hub name) or --vocab_file would work")
    if flags.vocab_file and not flags.vocab_file.is_file():
        raise UserError(f"--vocab_file {flags.vocab_file} does not exist")
    if flags.nsp and flags.no_nsp:
        raise UserError("--nsp and --no_nsp contradict each other; one of them would work")
    least = SHORTEST_PAIR if flags.nsp else SHORTEST_ROW
    if flags.max_seq_length < least:
        raise UserError(f"--max_seq_length {flags.max_seq_length}; {least} or more would work")
    if flags.vocab_file and flags.model_name:
        print(f"no effect: --model_name {flags.model_name}: --vocab_file is the tokenizer", file=sys.stderr)
    if flags.masking == "none" and flags.dup_factor > 1:
        raise UserError(
            f"--dup_factor {flags.dup_factor} with --masking none would write the same text several times; "
            "--dup_factor 1 would work, as the trainer masks anew in every epoch"
        )


def main(arguments: list[str] | None = None) -> None:
    """Parse `arguments` (None: the command line), write the shards that are missing and say what was done."""
    flags = parse_flags(arguments)
    sources = list_sources(flags.dir)
    from dataset.jobs import Job, Workers
    from dataset.samples import SampleSettings, mask_rule, write_samples
    from dataset.tokenizer import has_no_capitals, is_lowercasing, load_tokenizer, special_ids

    lowercase = None if flags.do_lower_case is None else bool(flags.do_lower_case)
    tokenizer = load_tokenizer(flags.vocab_file or flags.model_name, lowercase)
    settings = SampleSettings(
        max_seq_length=flags.max_seq_length,
        masking=flags.masking,
        masked_lm_prob=flags.masked_lm_prob,
        max_predictions_per_seq=flags.max_predictions_per_seq,
        whole_word_masking=flags.whole_word_masking,
        short_seq_prob=flags.short_seq_prob,
        nsp=flags.nsp,
        seed=flags.seed,
        errors=flags.errors,
    )
    if special_ids(tokenizer).mask is None and settings.masking != "static" and not (flags.nsp or flags.whole_word_masking):
        print("the tokenizer has no mask token: these samples are for a causal student (--model_type gpt2-clm)", file=sys.stderr)
    else:
        mask_rule(settings, tokenizer)  # a tokenizer that lacks what masking needs is refused here, not in every process
        say_if_capped(flags)
    if not is_lowercasing(tokenizer) and has_no_capitals(tokenizer):
        print(
            "the tokenizer does not lower-case and its vocabulary has no capital letter: words with one become unknown tokens; "
            "--do_lower_case 1 would read them",
            file=sys.stderr,
        )
    with locked(flags.output_dir):
        planned = plan_jobs(sources, flags.output_dir, flags.dup_factor)
        remove_partials(flags.output_dir, {path.name for job in planned for _, path in job.targets})
        tokenizer_json = tokenizer.to_str()
        wanted = missing_jobs(planned, flags, settings, tokenizer_json)
        kept = sum(len(job.targets) for job in planned) - sum(len(job.targets) for job in wanted)
        if kept:
            print(f"{flags.output_dir}: {kept} shards are there with these settings and are kept")
        check_space(wanted, flags.output_dir)
        jobs = [Job(job.source.name, (job, settings, tokenizer_json), size_of(job)) for job in wanted]
        with Workers(flags.n_processes, flags.dask_address) as workers:
            counts = workers.run(write_samples, jobs, "text shards")
    report(flags.output_dir, wanted, list(counts.values()))


def report(output_dir: Path, done: list["SampleJob"], counts: list["SampleCounts"]) -> None:
    """Say what was written, and what the text did not allow."""
    samples, tokens, unknown = (sum(getattr(count, name) for count in counts) for name in ("samples", "tokens", "unknown"))
    if unknown > MOST_UNKNOWN * tokens:
        print(
            f"{unknown / tokens:.1%} of the tokens are the unknown one: the tokenizer does not fit the text; one of its language, or "
            "another --do_lower_case, would work",
            file=sys.stderr,
        )
    alone = sum(count.without_other for count in counts)
    if alone:
        print(
            f"{alone} samples ({alone / samples:.1%}) are true pairs where chance wanted a text of another document: their text shard has "
            "one document for long stretches; text shards of more documents (fewer --num_train_shards) would work",
            file=sys.stderr,
        )
    share = f" ({unknown / tokens:.2%} of them unknown)" if tokens else ""
    written = sum(len(job.targets) for job in done)
    print(f"{output_dir}: {written} shards written with {samples} samples and {tokens} tokens of text{share}")


def list_sources(folder: Path) -> list[tuple[str, int, Path]]:
    """(split, index within the split, path) of every *.txt in `folder` that is not hidden; the file's name tells the split."""
    from dataset.shard_format import natural_key, split_of
    from dataset.text_shards import text_files

    sources = []
    counts: dict[str, int] = {}
    for path in sorted(text_files(folder), key=natural_key):
        split = split_of(path.name)
        if split is None:
            raise UserError(
                f"{path} has neither 'train' nor 'test' in its name; text shards such as training0.txt would work: shard_data makes them "
                "from process_data's articles"
            )
        sources.append((split, counts.get(split, 0), path))
        counts[split] = counts.get(split, 0) + 1
    if not sources:
        raise UserError(f"--dir {folder} holds no *.txt; the output folder of shard_data would work")
    return sources


def plan_jobs(sources: list[tuple[str, int, Path]], output_dir: Path, dup_factor: int) -> list["SampleJob"]:
    """One job per text with all its duplicates; the shard's number counts files within the split, all of a duplicate first."""
    from dataset.samples import SampleJob

    files = {split: sum(1 for other, _, _ in sources if other == split) for split, _, _ in sources}
    output_dir = output_dir.absolute()  # workers of a cluster were started elsewhere
    return [
        SampleJob(path.absolute(), split, index, tuple(
            (duplicate, output_dir / f"{split}_shard_{duplicate * files[split] + index}.hdf5") for duplicate in range(dup_factor)
        ))
        for split, index, path in sources
    ]


def missing_jobs(
    planned: list["SampleJob"], flags: argparse.Namespace, settings: "SampleSettings", tokenizer_json: str
) -> list["SampleJob"]:
    """Jobs with those of their shards that are not there yet or whose text has changed since.

    UserError where the output folder holds shards of other settings or of no job; with --overwrite all shards go first.
    """
    from dataset.planned_shards import is_up_to_date, shards_there
    from dataset.samples import SampleJob, shard_attributes

    there = shards_there(flags.output_dir, [path.name for job in planned for _, path in job.targets], flags.overwrite)
    wanted, changed = [], []
    for job in planned:
        missing = [target for target in job.targets if target[1].name not in there]
        present = SampleJob(job.source, job.split, job.file_index, tuple(target for target in job.targets if target not in missing))
        expected = shard_attributes(present, settings, tokenizer_json) if present.targets else []
        outdated = [
            target for target, attributes in zip(present.targets, expected, strict=True)
            if not is_up_to_date(target[1], attributes, source="source_sha256")
        ]
        changed += [path.name for _, path in outdated]
        if missing + outdated:
            wanted.append(SampleJob(job.source, job.split, job.file_index, tuple(sorted(missing + outdated))))
    say_what_changed(flags, changed, len(there))
    return wanted


def say_what_changed(flags: argparse.Namespace, changed: Sequence[str], there: int) -> None:
    """A line on shards whose text has changed; UserError where that is all of those there: they are of another corpus, it seems."""
    if not changed:
        return
    if len(changed) == there:
        raise UserError(
            f"--output_dir {flags.output_dir}: its {there} shards were all made from other text than that of --dir {flags.dir}; another "
            "--output_dir, or --overwrite to replace them, would work"
        )
    shown = ", ".join(changed[:NAMES_SHOWN]) + (", ..." if len(changed) > NAMES_SHOWN else "")
    print(f"{flags.output_dir}: {len(changed)} shards are made anew, as their text has changed: {shown}")


def size_of(job: "SampleJob") -> int:
    """Bytes of text that a job works through, once for every duplicate."""
    return job.source.stat().st_size * len(job.targets)


def check_space(jobs: Sequence["SampleJob"], output_dir: Path) -> None:
    """UserError where the disk is plainly too small for the shards to be written."""
    needed, free = round(DISK_SHARE * sum(map(size_of, jobs))), shutil.disk_usage(output_dir).free
    if needed > free:
        raise UserError(
            f"--output_dir {output_dir} needs about {needed / 1e9:.1f} GB and has {free / 1e9:.1f} GB free; "
            "another folder or a smaller --dup_factor would work"
        )


def say_if_capped(flags: argparse.Namespace) -> None:
    """A line where the cap on predictions, not the probability, decides how much of a full sample is masked."""
    uncapped = min(round(flags.max_seq_length * flags.masked_lm_prob), flags.max_seq_length - (3 if flags.nsp else 2))
    if uncapped > flags.max_predictions_per_seq:
        print(
            f"--max_predictions_per_seq {flags.max_predictions_per_seq} masks "
            f"{flags.max_predictions_per_seq / flags.max_seq_length:.1%} of a full sample; {uncapped} would reach "
            f"{flags.masked_lm_prob:.0%}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run_script(main)
