"""What masked samples are like, to say that two programs that make them make the same thing."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from dataset.tokenizer import load_tokenizer, masking_exclusions, special_ids


@dataclass(frozen=True)
class Statistics:
    """Of all shards of a folder. A sample's length counts its special tokens, and so does `mask_rate`, as in the published rule.

    `kept`: tokens of the samples per token of the text and duplicate; `masked`, `random`, `same`: shares of the predictions;
    `wrong_random`: share of the random tokens that are special or spare; `mean_position`: of the predictions, relative to the length.
    """

    samples: int
    kept: float
    mean_length: float
    mask_rate: float
    masked: float
    random: float
    same: float
    wrong_random: float
    mean_position: float

    def __str__(self) -> str:
        return (f"{self.samples} samples of {self.mean_length:.1f} tokens, {self.kept:.1%} of the text, {self.mask_rate:.2%} predicted: "
                f"{self.masked:.1%} mask, {self.random:.1%} random ({self.wrong_random:.1%} of them no text), {self.same:.1%} the token")


def count_tokens(shard_folder: Path, vocab_file: Path) -> int:
    """Word pieces of all text shards in `shard_folder`, a line at a time as the tokenizer reads it."""
    tokenizer = load_tokenizer(vocab_file)
    lines = [line for path in sorted(shard_folder.glob("*.txt")) for line in path.read_text(encoding="utf-8").split("\n")]
    return sum(len(encoding) for encoding in tokenizer.encode_batch_fast(lines, add_special_tokens=False))


def measure(sample_folder: Path, vocab_file: Path, text_tokens: int) -> Statistics:
    """Statistics of the statically masked shards in `sample_folder`, made from `text_tokens` tokens, duplicates counted."""
    tokenizer = load_tokenizer(vocab_file)
    ids, wrong = special_ids(tokenizer), masking_exclusions(tokenizer)
    samples = kept = real = predicted = masked = same = random = wrong_random = 0
    places = 0.0
    for path in sorted(sample_folder.glob("*.hdf5")):
        with h5py.File(path, "r") as file:
            input_ids, input_mask, positions, labels = (
                file[key][:] for key in ("input_ids", "input_mask", "masked_lm_positions", "masked_lm_ids"))
        row_of, slot_of = np.nonzero(positions)
        original, place, lengths = labels[row_of, slot_of], positions[row_of, slot_of], input_mask.sum(axis=1, dtype=np.int64)
        shown = input_ids[row_of, place]
        is_random = (shown != ids.mask) & (shown != original)
        samples, real, predicted = samples + len(input_ids), real + int(lengths.sum()), predicted + len(place)
        # The text's own tokens, with what was hidden put back: all but the frame.
        input_ids[row_of, place] = original
        kept += int((input_mask.astype(bool) & (input_ids != ids.cls) & (input_ids != ids.sep)).sum())
        masked, same, random = masked + int((shown == ids.mask).sum()), same + int((shown == original).sum()), random + int(is_random.sum())
        wrong_random += int(np.isin(shown[is_random], wrong).sum())
        places += float((place / (lengths[row_of] - 1)).sum())
    return Statistics(
        samples, kept / text_tokens, real / samples, predicted / real, masked / predicted, random / predicted, same / predicted,
        wrong_random / max(1, random), places / predicted)
