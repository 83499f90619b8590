"""Shards of samples -> token counts, by which the trainer masks rare tokens more often (`--mlm_smoothing`).

    python dataset/count_tokens.py --dir samples -o token_counts.json

Counts every token of the train shards once: masks undone, special tokens included, padding and further duplicates of a text not. One
process does: the work is unpacking HDF5.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # run by path: the project's root takes the place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from dataset.errors import UserError, run_script
from dataset.flags import parse, script_parser
from dataset.progress import progress
from dataset.shard_blocks import read_blocks
from dataset.shard_format import ATTRIBUTE_TOKENIZER, ATTRIBUTE_VOCAB_SIZE, ShardInfo, find_shards, read_info
from dataset.token_counts import write_token_counts


def parse_flags(arguments: list[str] | None) -> argparse.Namespace:
    parser = script_parser("Shards of samples to token counts.")
    parser.add_argument("--dir", type=Path, required=True, help="folder of train_shard_*.hdf5")
    parser.add_argument("-o", "--output_file", type=Path, required=True, help="JSON to write")
    parser.add_argument("--vocab_size", type=int, help="for shards of others, which do not tell")
    return parse(parser, arguments, {"vocab_size": (1, None)})


def main(arguments: list[str] | None = None) -> None:
    """Parse `arguments` (None: the command line), write the counts and say what was counted."""
    flags = parse_flags(arguments)
    every = [read_info(path) for path in find_shards(flags.dir)[0]]
    infos = [info for info in every if not info.attributes.get("duplicate")]
    if not infos:
        raise UserError(f"{flags.dir} holds duplicates of texts only, not the first copy; the whole output of generate_samples would work")
    vocab_size = the_vocab_size(every, flags.vocab_size)
    hashes = sorted({str(info.attributes.get(ATTRIBUTE_TOKENIZER, "")) for info in every})
    if len([sha256 for sha256 in hashes if sha256]) > 1:
        raise UserError(f"{flags.dir} holds shards of different tokenizers ({', '.join(hashes)}); one folder for each would work")
    counts = np.zeros(vocab_size, dtype=np.int64)
    for info in progress(infos, desc="token counts", unit=" shards"):
        counts += count_shard(info, vocab_size)
    samples = sum(info.rows for info in infos)
    sha256 = hashes[0] if len(hashes) == 1 else None
    write_token_counts(
        flags.output_file, counts, tokenizer_sha256=sha256 or None, samples=samples, source=[info.path.name for info in infos]
    )
    left_out = f", {len(every) - len(infos)} shards of further duplicates left out" if len(infos) < len(every) else ""
    print(
        f"{flags.output_file}: {counts.sum()} tokens in {samples} samples of {len(infos)} train shards{left_out}; "
        f"{np.count_nonzero(counts)} of {vocab_size} token ids occur"
    )


def the_vocab_size(infos: list[ShardInfo], given: int | None) -> int:
    """The one size that all shards and `--vocab_size` agree on."""
    sizes = {info.attributes[ATTRIBUTE_VOCAB_SIZE]: info.path for info in infos if ATTRIBUTE_VOCAB_SIZE in info.attributes}
    if given:
        sizes.setdefault(given, Path(f"--vocab_size {given}"))
    if not sizes:
        raise UserError(f"{infos[0].path} does not tell its vocabulary's size; --vocab_size (30522 for bert-base-uncased) would work")
    if len(sizes) > 1:
        told = ", ".join(f"{size} ({path.name})" for size, path in sizes.items())
        raise UserError(f"the vocabulary's size is not one: {told}; shards of one tokenizer and its size would work")
    return int(next(iter(sizes)))


def count_shard(info: ShardInfo, vocab_size: int) -> np.ndarray:
    """(vocab_size,) int64: how often each id stands in the samples of a shard as they were before masking, padding left out."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    for block in read_blocks(info):
        ids = block.unmasked_ids()
        wrong = (block.mask != 0) & ((ids < 0) | (ids >= vocab_size))
        if wrong.any():
            row, place = (int(number[0]) for number in np.nonzero(wrong))
            raise UserError(f"{info.path}: row {block.start + row} holds id {ids[row, place]}, expected 0 to {vocab_size - 1}")
        counts += np.bincount(ids[block.mask != 0], minlength=vocab_size)
    return counts


if __name__ == "__main__":
    run_script(main)
