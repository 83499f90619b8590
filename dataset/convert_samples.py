"""Samples of other systems -> HDF5 shards.

    python dataset/convert_samples.py --format tfrecord --input records -o samples --vocab_file vocab.txt
    python dataset/convert_samples.py --format distilbert --input binarized_text.pickle -o samples --vocab_file vocab.txt

`tfrecord`: files of Google BERT's create_pretraining_data, masks as they are, one shard for each file. `distilbert`: pickles of
binarized_data without masks, and of token_counts (`--token_counts`), of which nothing is ever run. HDF5 shards of academic-budget-bert
and NVIDIA need no conversion. A second run with the same settings makes only what is missing.
"""

import argparse
import sys
from hashlib import file_digest
from pathlib import Path

if not __package__:  # run by path: the project's root takes the place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataset.errors import UserError, run_script
from dataset.files import locked, remove_partials
from dataset.flags import add_seed, add_workers, cap_predictions, parse, script_parser

TFRECORD, DISTILBERT = "tfrecord", "distilbert"
DEFAULTS = {"max_seq_length": 512, "min_length": 12, "num_train_shards": 8, "num_test_shards": 2, "masked_lm_prob": 0.15}
FRAC_TEST = 0.1
TOKEN_COUNTS = "token_counts.json"
ONLY_DISTILBERT = (*DEFAULTS, "max_predictions_per_seq", "token_counts")
MOST_SHARDS = 256  # all are open at a time
SHORTEST_ROW = 4


def parse_flags(arguments: list[str] | None) -> argparse.Namespace:
    parser = script_parser("Samples of other systems to HDF5 shards.")
    parser.add_argument("--format", choices=[TFRECORD, DISTILBERT], required=True)
    parser.add_argument("--input", type=Path, nargs="+", required=True, help="files; for tfrecord folders of *.tfrecord[.gz] as well")
    parser.add_argument("-o", "--output_dir", type=Path, required=True)
    parser.add_argument("--model_name", help="tokenizer: folder, file or hub name; distilbert needs one, tfrecord checks ids by it")
    parser.add_argument("--vocab_file", type=Path, help="a WordPiece vocab.txt; takes the place of --model_name")
    parser.add_argument("--overwrite", action="store_true", help="remove the shards in the output folder first")
    parser.add_argument("--frac_test", type=float, help="tfrecord: share of the files; distilbert: share of the sequences (default 0.1)")
    add_seed(parser)
    records = parser.add_argument_group("tfrecord")
    records.add_argument("--split", choices=["train", "test"], help="of all files; default: as the words in their names say")
    add_workers(records)
    pickles = parser.add_argument_group("distilbert")
    pickles.add_argument("--token_counts", type=Path, help="pickle of token_counts; becomes token_counts.json in the output folder")
    for name, kind, text in (
        ("max_seq_length", int, "tokens of a sample, two special ones included"),
        ("min_length", int, "fewest tokens of a sample, two special ones included"),
        ("num_train_shards", int, "train shards"),
        ("num_test_shards", int, "test shards"),
        ("masked_lm_prob", float, "share of tokens the trainer masks"),
    ):
        pickles.add_argument(f"--{name}", type=kind, help=f"{text}; default: {DEFAULTS[name]}")
    pickles.add_argument("--max_predictions_per_seq", type=int, help="most predictions of a sample; default: masked_lm_prob of a full one")
    ranges = {
        "max_seq_length": (SHORTEST_ROW, None), "min_length": (3, None), "num_train_shards": (1, MOST_SHARDS),
        "num_test_shards": (0, MOST_SHARDS), "masked_lm_prob": (0, 1), "max_predictions_per_seq": (1, None), "frac_test": (0, 1),
    }
    flags = parse(parser, arguments, ranges)
    flags.input = [path.expanduser() for path in flags.input]
    check_flags(flags)
    return flags


def check_flags(flags: argparse.Namespace) -> None:
    """UserError for flags that contradict each other; fills in the defaults of a format."""
    foreign = ONLY_DISTILBERT if flags.format == TFRECORD else ("split", "dask_address")
    for name in foreign:
        if getattr(flags, name) is not None:
            raise UserError(f"--{name} is no flag of --format {flags.format}")
    if flags.split and flags.frac_test is not None:
        raise UserError("--split and --frac_test both decide on splits; one of them would work")
    if flags.vocab_file and flags.model_name:
        print(f"no effect: --model_name {flags.model_name}: --vocab_file is the tokenizer", file=sys.stderr)
    if flags.format == TFRECORD:
        return
    for name, value in DEFAULTS.items():
        if getattr(flags, name) is None:
            setattr(flags, name, value)
    if flags.frac_test is None:
        flags.frac_test = FRAC_TEST if flags.num_test_shards else 0.0
    if flags.max_predictions_per_seq is None:
        flags.max_predictions_per_seq = max(1, round(flags.max_seq_length * flags.masked_lm_prob))
    cap_predictions(flags, special=2)
    if bool(flags.frac_test) != bool(flags.num_test_shards):
        raise UserError(f"--frac_test {flags.frac_test} and --num_test_shards {flags.num_test_shards}: both 0 or none would work")
    if not (flags.vocab_file or flags.model_name):
        raise UserError("no tokenizer given; --model_name (folder, file or hub name) or --vocab_file would work")


def main(arguments: list[str] | None = None) -> None:
    """Parse `arguments` (None: the command line), write the shards that are missing and say what was done."""
    flags = parse_flags(arguments)
    tokenizer = None
    if flags.vocab_file or flags.model_name:
        from dataset.tokenizer import load_tokenizer, special_ids

        tokenizer = load_tokenizer(flags.vocab_file or flags.model_name)
        special_ids(tokenizer)
    if flags.format == TFRECORD:
        convert_records(flags, tokenizer)
    else:
        convert_pickles(flags, tokenizer)


def convert_records(flags: argparse.Namespace, tokenizer) -> None:
    from dataset.converters.examples import TEACHER_OUTPUTS, assign_splits, convert_file, find_files, shard_attributes
    from dataset.jobs import Job, Workers
    from dataset.planned_shards import missing_shards
    from dataset.sampling.attributes import tokenizer_attributes

    files = find_files(flags.input)
    splits = assign_splits(files, flags.split, flags.frac_test, flags.seed)
    seed = flags.seed if flags.frac_test is not None else None
    known = {} if tokenizer is None else tokenizer_attributes(tokenizer)
    if tokenizer is None:
        print("no tokenizer given: neither this nor training can check that the ids are its own; --vocab_file would tell", file=sys.stderr)
    planned, sources = {}, {}
    counts: dict[str, int] = {}
    for file, split in zip(files, splits, strict=True):
        name = f"{split}_shard_{counts.get(split, 0)}.hdf5"
        counts[split] = counts.get(split, 0) + 1
        planned[name], sources[name] = shard_attributes(file, split, known, seed), file
    check_widths(files, list(planned.values()))
    with locked(flags.output_dir):
        remove_partials(flags.output_dir, planned)
        wanted = missing_shards(flags.output_dir, planned, flags.overwrite)
        jobs = [
            Job(f"{sources[name].name} -> {name}", (str(sources[name].resolve()), str((flags.output_dir / name).resolve()), planned[name]),
                sources[name].stat().st_size)
            for name in wanted
        ]  # fmt: skip
        done = []
        if jobs:
            with Workers(min(flags.n_processes, len(jobs)), flags.dask_address) as workers:
                done = list(workers.run(convert_file, jobs, "files").values())
    others = sorted({name for one in done for name in one.left_out})
    for names, why in (
        ([name for name in others if name in TEACHER_OUTPUTS], "outputs of a teacher are cached by this project itself"),
        ([name for name in others if name not in TEACHER_OUTPUTS], "a shard has no place for them"),
    ):
        if names:
            print(f"left out: {', '.join(names)}: {why}")
    kept = f", {len(planned) - len(done)} were there" if len(done) < len(planned) else ""
    told = ", ".join(f"{counts[split]} {split}" for split in sorted(counts, reverse=True))
    print(f"{flags.output_dir}: {len(done)} shards written with {sum(one.samples for one in done)} samples{kept}; files: {told}")


def check_widths(files: list[Path], planned: list[dict]) -> None:
    """UserError where files differ in the length of their samples, which one training run cannot read."""
    for name in ("max_seq_length", "max_predictions_per_seq"):
        for file, attributes in zip(files, planned, strict=True):
            if attributes[name] != planned[0][name]:
                raise UserError(
                    f"{file} has samples of {name} {attributes[name]}, {files[0]} of {planned[0][name]}; one folder for each would work"
                )


def convert_pickles(flags: argparse.Namespace, tokenizer) -> None:
    from dataset.converters.pickles import read_integers
    from dataset.converters.sequences import SequenceSettings, convert_sequences, plan_shards
    from dataset.planned_shards import missing_shards
    from dataset.token_counts import write_token_counts
    from dataset.tokenizer import vocabulary_sha256, vocabulary_size

    for file in flags.input:
        if not file.is_file():
            raise UserError(f"no file {file}; a pickle of binarized_data would work")
    settings = SequenceSettings(**{name: getattr(flags, name) for name in SequenceSettings.__dataclass_fields__})
    if flags.token_counts:
        counts = read_integers(flags.token_counts)
        if len(counts) != vocabulary_size(tokenizer):
            raise UserError(
                f"{flags.token_counts} counts {len(counts)} tokens, the tokenizer has {vocabulary_size(tokenizer)}; "
                "token_counts with this --vocab_size, or count_tokens on the shards, would work"
            )
        if wrong := next((count for count in counts if not 0 <= count < 2**63), None):
            raise UserError(f"{flags.token_counts} holds {wrong}, expected numbers of 0 or more")
    splits = {"train": flags.num_train_shards, "test": flags.num_test_shards}
    planned = plan_shards(flags.input, [sha256_of(file) for file in flags.input], splits, settings, tokenizer)
    with locked(flags.output_dir):
        remove_partials(flags.output_dir, {*planned, TOKEN_COUNTS})
        wanted = missing_shards(flags.output_dir, planned, flags.overwrite)
        if flags.token_counts:
            target = flags.output_dir / TOKEN_COUNTS
            write_token_counts(target, counts, tokenizer_sha256=vocabulary_sha256(tokenizer), source=[flags.token_counts.name])
            print(f"{target}: {sum(counts)} tokens counted")
        if not wanted:
            print(f"{flags.output_dir}: all {len(planned)} shards are there with these settings and are kept")
            return
        seen = convert_sequences(flags.input, flags.output_dir, planned, tokenizer)
    print(
        f"{flags.output_dir}: {seen['sequences']} sequences became {seen['train']} train samples in {splits['train']} shards and "
        f"{seen['test']} test samples in {splits['test']}; {seen['cut']} were cut into pieces of {settings.max_seq_length}, dropped were "
        f"{seen['short']} pieces shorter than {settings.min_length} ({seen['short_tokens']} of {seen['tokens']} tokens) and "
        f"{seen['unknown']} of unknown tokens by half"
    )


def sha256_of(file: Path) -> str:
    with file.open("rb") as content:
        return file_digest(content, "sha256").hexdigest()


if __name__ == "__main__":
    run_script(main)
