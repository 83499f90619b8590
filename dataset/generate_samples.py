"""Step 3, text shards -> HDF5 shards of samples, masked (`--masking static`) or left to the trainer (`--masking none`).

    python dataset/generate_samples.py --dir shards -o samples --model_name bert-base-uncased --max_seq_length 128

Every *.txt of `--dir` with "train" or "test" in its name becomes `train_shard_{i}.hdf5` or `test_shard_{i}.hdf5`.
`--dup_factor` d reads the text d times with other masks and lengths; duplicates of a text lie in different files. The
bytes depend on text, tokenizer, settings and seed, not on the number of processes. A second run with the same settings
makes only what is missing or whose text has changed; one with other settings is refused unless `--overwrite`.
"""

import argparse
import re
import sys
from pathlib import Path

if not __package__:  # run by path: the project's root takes the place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataset.errors import OneLineParser, UserError, run_command
from dataset.jobs import core_count, run_jobs

OUR_SHARD = re.compile(r"(train|test)_shard_\d+\.hdf5")
SHORTEST_ROW = 4


def parse_flags(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(description="Text shards to HDF5 shards of samples.", allow_abbrev=False)
    parser.add_argument("--dir", type=Path, required=True, help="folder of text shards, from shard_data")
    parser.add_argument("-o", "--output_dir", type=Path, required=True)
    parser.add_argument("--model_name", help="tokenizer: folder, file or hub name")
    parser.add_argument("--vocab_file", type=Path, help="a WordPiece vocab.txt; takes the place of --model_name")
    parser.add_argument(
        "--do_lower_case", type=int, choices=[0, 1], help="override the tokenizer (default: what the tokenizer says)"
    )
    parser.add_argument("--max_seq_length", type=int, default=512, help="tokens of a sample, two special ones included")
    parser.add_argument("--masking", choices=["static", "none"], default="static", help="none: the trainer masks")
    parser.add_argument("--masked_lm_prob", type=float, default=0.15, help="share of a sample's tokens to predict")
    parser.add_argument("--max_predictions_per_seq", type=int, default=20, help="most predictions of a sample")
    parser.add_argument("--dup_factor", type=int, default=1, help="how often the text is used, masked anew")
    parser.add_argument("--short_seq_prob", type=float, default=0.1, help="share of samples cut short at random")
    parser.add_argument("--seed", type=int, default=555)
    parser.add_argument("--n_processes", type=int, default=core_count(), help="default: number of cores")
    parser.add_argument("--overwrite", action="store_true", help="remove the shards in the output folder first")
    flags = parser.parse_args(arguments)
    flags.dir, flags.output_dir = flags.dir.expanduser(), flags.output_dir.expanduser()
    check_flags(flags)
    return flags


def check_flags(flags: argparse.Namespace) -> None:
    """UserError for the first flag that cannot work, a line for each that has no effect."""
    if not flags.dir.is_dir():
        raise UserError(f"--dir {flags.dir} is no folder; the output folder of shard_data would work")
    if not (flags.model_name or flags.vocab_file):
        raise UserError("no tokenizer given; --model_name (folder, file or hub name) or --vocab_file would work")
    if flags.vocab_file and not flags.vocab_file.expanduser().is_file():
        raise UserError(f"--vocab_file {flags.vocab_file} does not exist")
    if flags.vocab_file and flags.model_name:
        print(f"no effect: --model_name {flags.model_name}: --vocab_file is the tokenizer", file=sys.stderr)
    if flags.masking == "none" and flags.dup_factor > 1:
        raise UserError(
            f"--dup_factor {flags.dup_factor} with --masking none would write the same text several times; "
            "--dup_factor 1 would work, as the trainer masks anew in every epoch"
        )
    for name, least, most in (
        ("max_seq_length", SHORTEST_ROW, None),
        ("max_predictions_per_seq", 1, None),
        ("dup_factor", 1, None),
        ("n_processes", 1, None),
        ("seed", 0, None),
        ("masked_lm_prob", 0, 1),
        ("short_seq_prob", 0, 1),
    ):
        value = getattr(flags, name)
        if value is not None and not (least <= value and (most is None or value <= most)):
            raise UserError(f"--{name} {value}; {f'{least} to {most}' if most else f'{least} or more'} would work")


def main(arguments: list[str] | None = None) -> None:
    """Parse `arguments` (None: the command line), write the shards that are missing and say what was done."""
    flags = parse_flags(arguments)
    sources = list_sources(flags.dir)
    from dataset.samples import SampleSettings, write_samples
    from dataset.tokenizer import load_tokenizer, special_ids

    lowercase = None if flags.do_lower_case is None else bool(flags.do_lower_case)
    tokenizer = load_tokenizer(flags.vocab_file or flags.model_name, lowercase)
    special_ids(tokenizer)  # a tokenizer that lacks one of them is refused here, not in every process
    settings = SampleSettings(
        max_seq_length=flags.max_seq_length,
        masking=flags.masking,
        masked_lm_prob=flags.masked_lm_prob,
        max_predictions_per_seq=flags.max_predictions_per_seq,
        short_seq_prob=flags.short_seq_prob,
        seed=flags.seed,
    )
    say_if_capped(flags)
    planned = plan_jobs(sources, flags.output_dir, flags.dup_factor)
    wanted = missing_jobs(planned, flags, settings, tokenizer)
    if len(wanted) < len(planned):
        print(f"{flags.output_dir}: {len(planned) - len(wanted)} shards are there with these settings and are kept")
    flags.output_dir.mkdir(parents=True, exist_ok=True)
    jobs = {job.target.name: (job, settings, tokenizer.to_str()) for job in wanted}
    counts = run_jobs(write_samples, jobs, flags.n_processes, "shards")
    print(f"{flags.output_dir}: {len(counts)} shards written with {sum(counts.values())} samples")


def list_sources(folder: Path) -> list[tuple[str, int, Path]]:
    """(split, index within the split, path) of every *.txt in `folder`; the file's name tells the split."""
    from dataset.shard_format import natural_key, split_of

    sources = []
    counts: dict[str, int] = {}
    for path in sorted(folder.glob("*.txt"), key=natural_key):
        split = split_of(path.name)
        if split is None:
            raise UserError(f"{path} has neither 'train' nor 'test' in its name; names like training0.txt would work")
        sources.append((split, counts.get(split, 0), path))
        counts[split] = counts.get(split, 0) + 1
    if not sources:
        raise UserError(f"--dir {folder} holds no *.txt; the output folder of shard_data would work")
    return sources


def plan_jobs(sources: list[tuple[str, int, Path]], output_dir: Path, dup_factor: int) -> list:
    """One job per (duplicate, file); the shard's number counts files within the split, all of a duplicate first."""
    from dataset.samples import SampleJob

    files = {split: sum(1 for other, _, _ in sources if other == split) for split, _, _ in sources}
    return [
        SampleJob(path, output_dir / f"{split}_shard_{duplicate * files[split] + index}.hdf5", split, index, duplicate)
        for duplicate in range(dup_factor)
        for split, index, path in sources
    ]


def missing_jobs(planned: list, flags: argparse.Namespace, settings, tokenizer) -> list:
    """Jobs whose shard is not there yet or whose text has changed since.

    UserError where the output folder holds shards of other settings or of no job; with --overwrite all shards go first.
    """
    from dataset.samples import shard_attributes
    from dataset.shard_format import read_info

    there = {path for path in flags.output_dir.glob("*.hdf5") if OUR_SHARD.fullmatch(path.name)}
    if flags.overwrite:
        for path in there:
            path.unlink()
        return planned
    advice = "another --output_dir or --overwrite would work"
    strangers = sorted(there - {job.target for job in planned})
    if strangers:
        raise UserError(f"{strangers[0]} is no shard of this run (there are {len(strangers)} such); {advice}")
    wanted = []
    for job in planned:
        if job.target not in there:
            wanted.append(job)
            continue
        found, expected = read_info(job.target).attributes, shard_attributes(job, settings, tokenizer)
        differing = [name for name in {**expected, **found} if found.get(name) != expected.get(name)]
        if differing == ["source_sha256"]:
            wanted.append(job)
        elif differing:
            name = differing[0]
            raise UserError(
                f"{job.target} was made with {name} {found.get(name)}, now it is {expected.get(name)}; {advice}"
            )
    return wanted


def say_if_capped(flags: argparse.Namespace) -> None:
    """A line where the cap on predictions, not the probability, decides how much of a full sample is masked."""
    uncapped = round(flags.max_seq_length * flags.masked_lm_prob)
    if uncapped > flags.max_predictions_per_seq:
        print(
            f"--max_predictions_per_seq {flags.max_predictions_per_seq} masks "
            f"{flags.max_predictions_per_seq / flags.max_seq_length:.1%} of a full sample; {uncapped} would reach "
            f"{flags.masked_lm_prob:.0%}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run_command(main)
