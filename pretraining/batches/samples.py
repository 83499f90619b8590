"""Rows of shards as NumPy arrays: at most two shards in memory, masks from the file or drawn on the fly."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dataset.errors import UserError, one_line
from dataset.hdf5_chunks import read_all
from dataset.masking import MaskRule, mask_rows
from dataset.shard_format import ATTRIBUTE_WHOLE_WORDS, NO_MASKING, ROWS_AT_A_TIME, STATIC, TRAIN, ShardInfo, open_shard
from pretraining.batches.augmentation import Augmentation
from pretraining.batches.order import Segment
from pretraining.batches.smoothing import Draw, Smoothing, hide
from pretraining.teacher_cache.reader import CacheReader, ShardOutputs, TeacherRows

# Keys of generators need equal length; the last entry keeps masks of training and held-out samples and random words apart.
_TRAIN_KEY, _TEST_KEY, _AUGMENTATION_KEY = 0, 1, 2
_KEYS = ("input_ids", "input_mask", "segment_ids", "masked_lm_positions", "masked_lm_ids", "next_sentence_labels")


@dataclass(frozen=True)
class MaskingRule:
    """What masking on the fly needs beside the shard's own attributes. `excluded_ids`: sorted ids that are never hidden or put in;
    `continues` (vocabulary,) bool, see `tokenizer.word_continuations`, needed for shards that ask for whole words."""

    seed: int
    excluded_ids: np.ndarray
    continues: np.ndarray | None = None


@dataclass
class SampleRows:
    """n samples: input_ids (n, L) int32 masked, segment_ids and mask (n, L) int8 (mask 1 at real tokens), widths (n,) int64 (columns in
    use), positions and labels (n, P) int32, of which the first `predictions[i]` of row i count; next_sentence_labels (n,) int8, 1 for a
    random second segment, or None where not all shards have them; stored: what a teacher that was run before said of them, or None."""

    input_ids: np.ndarray
    segment_ids: np.ndarray
    mask: np.ndarray
    widths: np.ndarray
    positions: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    next_sentence_labels: np.ndarray | None
    stored: TeacherRows | None = None

    def take(self, rows: np.ndarray) -> "SampleRows":
        """The rows of these numbers, in their order."""
        return SampleRows(*(None if array is None else array[rows] for array in (getattr(self, name) for name in _ROW_FIELDS)))


_ROW_FIELDS = tuple(SampleRows.__dataclass_fields__)


class ShardReader:
    """Reads segments of the global order from a list of shards.

    `masking` is needed for shards without masks, unless `causal`: then all text is given as it was, with nothing masked and nothing to
    predict at masks. `augmentation` puts random words into training samples. With `smoothing` training masks are drawn over a whole
    global batch: `survey` draws them, and `read` is told. `stored` reads a teacher's outputs beside each shard.
    """

    def __init__(
        self, shards: list[ShardInfo], vocab_size: int, max_predictions: int | None, masking: MaskingRule | None, *, causal: bool = False,
        augmentation: Augmentation | None = None, smoothing: Smoothing | None = None, stored: CacheReader | None = None,
    ) -> None:
        self.shards = shards
        self.vocab_size = vocab_size
        self.max_predictions = max_predictions
        self.masking = masking
        self.causal = causal
        self.augmentation = augmentation
        self.smoothing = smoothing
        self.stored = stored
        self.first_sample = np.concatenate([[0], np.cumsum([info.rows for info in shards])])
        self._loaded: OrderedDict[int, dict[str, np.ndarray]] = OrderedDict()
        self._outputs: dict[int, ShardOutputs] = {}
        self._rules: dict[tuple, MaskRule] = {}

    @property
    def looks_ahead(self) -> bool:
        return self.smoothing is not None

    def survey(self, segments: Iterable[Segment]) -> tuple[np.ndarray, np.ndarray | None]:
        """What a whole global batch decides: (widths (B,) int64, tokens to be predicted (B, L) bool, or None without smoothing)."""
        widths, draw = [], None if self.smoothing is None else Draw(self.smoothing)
        for segment in segments:
            arrays = self._load(segment.shard)
            mask = arrays["input_mask"][segment.rows]
            widths.append(_widths(mask))
            if draw is not None:
                draw.add(arrays["input_ids"][segment.rows], mask, self._keys(segment))
        return np.concatenate(widths), None if draw is None else draw.chosen()

    def read(self, segments: Iterable[Segment], chosen: np.ndarray | None = None) -> SampleRows:
        """All rows of `segments`, in order; `chosen` (n, L) bool are their tokens to be predicted where `survey` drew them."""
        segments = list(segments)
        cuts = np.cumsum([len(segment.rows) for segment in segments])[:-1]
        choices = [None] * len(segments) if chosen is None else np.split(chosen, cuts)
        parts = [self._read_one(segment, choice) for segment, choice in zip(segments, choices, strict=True)]
        if len(parts) == 1:
            return parts[0]
        width = max(part.positions.shape[1] for part in parts)
        for part in parts:  # shards may hold different numbers of predictions
            padding = ((0, 0), (0, width - part.positions.shape[1]))
            part.positions, part.labels = np.pad(part.positions, padding), np.pad(part.labels, padding)
        stored = None if self.stored is None else TeacherRows.joined([part.stored for part in parts])
        return SampleRows(*(_joined([getattr(part, name) for part in parts]) for name in _ROW_FIELDS if name != "stored"), stored)

    def _read_one(self, segment: Segment, chosen: np.ndarray | None) -> SampleRows:
        info, arrays = self.shards[segment.shard], self._load(segment.shard)
        rows = segment.rows
        # Shards of other scripts may be of a smaller type than the ids that are put in.
        input_ids, mask = arrays["input_ids"][rows].astype(np.int32, copy=False), arrays["input_mask"][rows]
        if self.causal:
            if info.masking == STATIC:
                _unmask(input_ids, arrays["masked_lm_positions"][rows], arrays["masked_lm_ids"][rows])
            positions = labels = np.zeros((len(rows), 0), dtype=np.int32)
        elif info.masking == STATIC:
            # The rest of what is hidden in the file stays hidden and is not asked for.
            positions = arrays["masked_lm_positions"][rows][:, : self.max_predictions]
            labels = arrays["masked_lm_ids"][rows][:, : self.max_predictions]
        elif chosen is not None:  # the shard's max_predictions_per_seq bounds nothing: the batch has a number of its own
            input_ids, positions, labels = hide(input_ids, chosen, self._rule(info), self._keys(segment))
        else:
            input_ids, positions, labels = mask_rows(input_ids, mask, self._rule(info), self._keys(segment))
        if self.augmentation is not None and info.split == TRAIN:
            samples = self.first_sample[segment.shard] + rows
            keys = [(self.augmentation.seed, int(sample), segment.epoch, _AUGMENTATION_KEY) for sample in samples]
            input_ids = self.augmentation.apply(input_ids, mask, keys)
        next_sentence = arrays.get("next_sentence_labels")
        return SampleRows(
            input_ids, arrays["segment_ids"][rows], mask, _widths(mask), positions, labels, _used(positions).sum(axis=1),
            None if next_sentence is None else next_sentence[rows].astype(np.int8),
            None if self.stored is None else self._outputs[segment.shard].rows(rows, self.max_predictions))

    def _keys(self, segment: Segment) -> list[tuple[int, ...]]:
        """One key a row that masks are drawn from: (seed, sample, epoch) for training; held-out samples keep one mask for ever."""
        assert self.masking is not None
        epoch, split_key = (segment.epoch, _TRAIN_KEY) if self.shards[segment.shard].split == TRAIN else (0, _TEST_KEY)
        samples = self.first_sample[segment.shard] + segment.rows
        return [(self.masking.seed, sample, epoch, split_key) for sample in samples.tolist()]

    def _rule(self, info: ShardInfo) -> MaskRule:
        """How a shard without masks is to be masked; shards that say the same share one rule and its tables."""
        assert self.masking is not None
        attributes, excluded, continues = info.attributes, self.masking.excluded_ids, None
        # A random token is one that the model has a row for, and a token that is hidden is one that is asked for.
        vocabulary = self._limit(info)
        predictions = int(attributes["max_predictions_per_seq"])
        if self.max_predictions is not None:
            predictions = min(predictions, self.max_predictions)
        whole_words = bool(attributes.get(ATTRIBUTE_WHOLE_WORDS, 0))
        rule = int(attributes["mask_token_id"]), vocabulary, float(attributes["masked_lm_prob"]), predictions
        if (whole_words, *rule) not in self._rules:
            if whole_words:
                assert self.masking.continues is not None
                continues = np.zeros(vocabulary, dtype=bool)
                known = self.masking.continues[:vocabulary]
                continues[: len(known)] = known
            self._rules[whole_words, *rule] = MaskRule(excluded[excluded < vocabulary], *rule, continues)
        return self._rules[whole_words, *rule]

    def _limit(self, info: ShardInfo) -> int:
        """All ids of a shard are below it: the model's vocabulary, or the smaller one that the shard is masked by."""
        if self.masking is None or info.masking != NO_MASKING:
            return self.vocab_size
        return min(int(info.attributes["vocab_size"]), self.vocab_size)

    def _load(self, index: int) -> dict[str, np.ndarray]:
        if index in self._loaded:
            self._loaded.move_to_end(index)
            return self._loaded[index]
        while len(self._loaded) >= 2:
            self._outputs.pop(self._loaded.popitem(last=False)[0], None)
        info = self.shards[index]
        with open_shard(info.path) as file:
            try:
                arrays = {key: read_all(file[key]) for key in _KEYS if key in file}
            except OSError as error:
                raise UserError(f"{info.path} cannot be read ({one_line(error)}); make or copy the shard anew") from error
        self._check(info, arrays)
        if self.stored is not None:
            self._outputs[index] = self.stored.load(info, arrays)
        self._loaded[index] = arrays
        return arrays

    def _check(self, info: ShardInfo, arrays: dict[str, np.ndarray]) -> None:
        """The file may have changed since the run began; a wrong id would be an index error deep inside a kernel."""
        if len(arrays["input_ids"]) != info.rows:
            raise UserError(f"{info.path}: {len(arrays['input_ids'])} rows, {info.rows} when the run began; do not replace shards of a run")
        for key, limit in (("input_ids", self._limit(info)), ("masked_lm_ids", self.vocab_size),
                           ("masked_lm_positions", info.max_seq_length), ("next_sentence_labels", 2)):
            lowest, highest = (int(arrays[key].min()), int(arrays[key].max())) if key in arrays and arrays[key].size else (0, 0)
            if lowest < 0 or highest >= limit:
                found, expected = (lowest, "expected no negative number") if lowest < 0 else (highest, f"expected below {limit}")
                raise UserError(f"{info.path}: {key} holds {found}, {expected}; make the shard again")
        if not arrays["input_mask"].any(axis=1).all():
            raise UserError(f"{info.path}: input_mask has rows without a real token; make the shard again")
        if "masked_lm_positions" in arrays:
            _check_masked_are_real(info, arrays["masked_lm_positions"], arrays["input_mask"])


def _joined(parts: list[np.ndarray | None]) -> np.ndarray | None:
    return None if any(part is None for part in parts) else np.concatenate(parts)


def _widths(mask: np.ndarray) -> np.ndarray:
    """(n,) int64: columns up to the last real token of each row; shards of other scripts may have holes in their masks."""
    return mask.shape[1] - np.argmax(mask[:, ::-1] != 0, axis=1)


def _used(positions: np.ndarray) -> np.ndarray:
    """(n, P) bool: in the format the first position of 0 ends the list."""
    return np.logical_and.accumulate(positions != 0, axis=1)


def _unmask(input_ids: np.ndarray, positions: np.ndarray, originals: np.ndarray) -> None:
    row_of, slot_of = np.nonzero(_used(positions))
    input_ids[row_of, positions[row_of, slot_of]] = originals[row_of, slot_of]


def _check_masked_are_real(info: ShardInfo, positions: np.ndarray, input_mask: np.ndarray) -> None:
    """Some rows at a time, so that what is derived from a large shard does not double it."""
    for first in range(0, len(positions), ROWS_AT_A_TIME):
        part = positions[first : first + ROWS_AT_A_TIME]
        wrong = _used(part) & (np.take_along_axis(input_mask[first : first + ROWS_AT_A_TIME], part, axis=1) == 0)
        if wrong.any():
            row, slot = np.argwhere(wrong)[0]
            raise UserError(
                f"{info.path}: masked_lm_positions of row {first + row} holds {part[row, slot]}, where input_mask has no token; "
                "make the shard again")
