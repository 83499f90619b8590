"""Rows of shards as NumPy arrays: at most two shards in memory, masks from the file or drawn on the fly."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dataset.errors import UserError
from dataset.masking import mask_rows
from dataset.shard_format import ShardInfo, open_shard
from pretraining.batches.order import Segment

# Keys of the mask generator need equal length; the last entry keeps training and held-out samples apart.
_TRAIN_KEY, _TEST_KEY = 0, 1


@dataclass(frozen=True)
class MaskingRule:
    """What masking on the fly needs beside the shard's own attributes. `excluded_ids`: sorted ids that are never hidden or put in."""

    seed: int
    excluded_ids: np.ndarray


@dataclass
class SampleRows:
    """n samples: input_ids (n, L) int32 masked, segment_ids and mask (n, L) int8 (mask 1 at real tokens), widths (n,) int64 (columns in
    use), positions and labels (n, P) int32, of which the first `predictions[i]` of row i count."""

    input_ids: np.ndarray
    segment_ids: np.ndarray
    mask: np.ndarray
    widths: np.ndarray
    positions: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray


class ShardReader:
    """Reads segments of the global order from a list of shards."""

    def __init__(self, shards: list[ShardInfo], vocab_size: int, max_predictions: int | None, masking: MaskingRule | None) -> None:
        self.shards = shards
        self.vocab_size = vocab_size
        self.max_predictions = max_predictions
        self.masking = masking
        self.first_sample = np.concatenate([[0], np.cumsum([info.rows for info in shards])])
        self._loaded: OrderedDict[int, dict[str, np.ndarray]] = OrderedDict()

    def read(self, segments: Iterable[Segment]) -> SampleRows:
        """All rows of `segments`, in order."""
        parts = [self._read_one(segment) for segment in segments]
        if len(parts) == 1:
            return parts[0]
        width = max(part.positions.shape[1] for part in parts)
        for part in parts:  # shards may hold different numbers of predictions
            padding = ((0, 0), (0, width - part.positions.shape[1]))
            part.positions, part.labels = np.pad(part.positions, padding), np.pad(part.labels, padding)
        return SampleRows(*(np.concatenate([getattr(part, name) for part in parts]) for name in SampleRows.__dataclass_fields__))

    def _read_one(self, segment: Segment) -> SampleRows:
        info, arrays = self.shards[segment.shard], self._load(segment.shard)
        rows = segment.rows
        input_ids, mask = arrays["input_ids"][rows], arrays["input_mask"][rows]
        if info.masking == "static":
            # The rest of what is hidden in the file stays hidden and is not asked for.
            positions = arrays["masked_lm_positions"][rows][:, : self.max_predictions]
            labels = arrays["masked_lm_ids"][rows][:, : self.max_predictions]
        else:
            input_ids, positions, labels = self._mask(info, segment, input_ids, mask)
        # In the format the first position of 0 ends the list.
        predictions = np.cumprod(positions != 0, axis=1).sum(axis=1)
        # Up to the last real token or prediction: shards of other scripts may have holes in their masks.
        widths = np.maximum(mask.shape[1] - np.argmax(mask[:, ::-1] != 0, axis=1), positions.max(axis=1, initial=0) + 1)
        return SampleRows(input_ids, arrays["segment_ids"][rows], mask, widths, positions, labels, predictions)

    def _mask(self, info: ShardInfo, segment: Segment, input_ids: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, ...]:
        """Draw masks from counters: (seed, sample, epoch) for training; held-out samples keep one mask for ever."""
        assert self.masking is not None
        training = info.split == "train"
        epoch, split_key = (segment.epoch, _TRAIN_KEY) if training else (0, _TEST_KEY)
        samples = self.first_sample[segment.shard] + segment.rows
        attributes, excluded = info.attributes, self.masking.excluded_ids
        # A random token is one that the model has a row for, and a token that is hidden is one that is asked for.
        vocabulary = min(int(attributes["vocab_size"]), self.vocab_size)
        predictions = int(attributes["max_predictions_per_seq"])
        if self.max_predictions is not None:
            predictions = min(predictions, self.max_predictions)
        return mask_rows(
            input_ids, mask, excluded[excluded < vocabulary], int(attributes["mask_token_id"]), vocabulary,
            float(attributes["masked_lm_prob"]), predictions,
            [(self.masking.seed, int(sample), epoch, split_key) for sample in samples],
        )

    def _load(self, index: int) -> dict[str, np.ndarray]:
        if index in self._loaded:
            self._loaded.move_to_end(index)
            return self._loaded[index]
        while len(self._loaded) >= 2:
            self._loaded.popitem(last=False)
        info = self.shards[index]
        with open_shard(info.path) as file:
            keys = [key for key in ("input_ids", "input_mask", "segment_ids", "masked_lm_positions", "masked_lm_ids") if key in file]
            arrays = {key: file[key][:] for key in keys}
        self._check(info, arrays)
        self._loaded[index] = arrays
        return arrays

    def _check(self, info: ShardInfo, arrays: dict[str, np.ndarray]) -> None:
        """The file may have changed since the run began; a wrong id would be an index error deep inside a kernel."""
        if len(arrays["input_ids"]) != info.rows:
            raise UserError(f"{info.path}: {len(arrays['input_ids'])} rows, {info.rows} when the run began; do not replace shards of a run")
        for key, limit in (("input_ids", self.vocab_size), ("masked_lm_ids", self.vocab_size),
                           ("masked_lm_positions", info.max_seq_length)):
            if key in arrays and arrays[key].size and not 0 <= int(arrays[key].min()) <= int(arrays[key].max()) < limit:
                raise UserError(f"{info.path}: {key} holds {int(arrays[key].max())}, expected below {limit}; make the shard again")
        if not arrays["input_mask"].any(axis=1).all():
            raise UserError(f"{info.path}: input_mask has rows without a real token; make the shard again")
