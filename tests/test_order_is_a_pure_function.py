"""The data a step sees depends on the seed and the step's number, and on nothing else."""

import itertools

import numpy as np
import pytest
import torch
from tiny import make_shards

from dataset.errors import UserError
from dataset.shard_format import find_shards, open_shard, read_info
from pretraining.batches.loader import Share, StepLoader
from pretraining.batches.order import GlobalOrder, order, row_order, shard_order
from pretraining.batches.samples import MaskingRule, ShardReader

SIZES = [5, 1, 7, 3]


def naive(seed, count):
    """The first `count` samples of the endless order, from the definition."""
    return list(itertools.islice(itertools.chain.from_iterable(order(seed, epoch, SIZES) for epoch in itertools.count()), count))


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_an_epoch_has_every_sample_once(epoch):
    assert sorted(order(3, epoch, SIZES)) == [(shard, row) for shard, size in enumerate(SIZES) for row in range(size)]


def test_epochs_and_seeds_differ_and_repeat():
    assert list(order(3, 0, SIZES)) == list(order(3, 0, SIZES))
    assert list(order(3, 0, SIZES)) != list(order(3, 1, SIZES)) and list(order(3, 0, SIZES)) != list(order(4, 0, SIZES))


def test_the_order_of_published_runs_does_not_change():
    """Literal numbers: another NumPy, another machine or another version of this code must give the same run."""
    assert shard_order(42, 0, 8).tolist() == [0, 1, 4, 2, 6, 5, 7, 3]
    assert row_order(42, 1, 3, 10).tolist() == [5, 8, 9, 7, 1, 0, 2, 6, 3, 4]


@pytest.mark.parametrize(("position", "count"), [(0, 1), (0, 16), (3, 40), (15, 2), (47, 33)])
def test_segments_are_the_concatenation_of_epochs(position, count):
    segments = GlobalOrder(9, SIZES).segments(position, count)
    assert [(s.shard, int(row)) for s in segments for row in s.rows] == naive(9, position + count)[position:]


def test_finished_shards_are_counted_as_they_end():
    counted = GlobalOrder(9, SIZES)
    ends = [place + 1 for place, (one, two) in enumerate(itertools.pairwise(naive(9, 70))) if one[0] != two[0] or (place + 1) % 16 == 0]
    for position in range(60):
        assert counted.shards_finished(position) == sum(end <= position for end in ends)
    for shards in range(1, 12):
        assert GlobalOrder(9, SIZES).position_after_shards(shards) == ends[shards - 1]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = make_shards(tmp_path_factory.mktemp("order"), train=3, rows=6, uneven=True, masking="none")
    return [read_info(path) for path in find_shards(folder)[0]]


def loader(shards, rank=0, world=1, micro=12, accumulation=1, first_sample=0, ahead=0, grouped=False):
    reader = ShardReader(shards, 125, None, MaskingRule(1, np.arange(5)))
    share = Share(rank, world, micro, accumulation, grouped)
    return StepLoader(GlobalOrder(1, [info.rows for info in shards]), reader, share, first_sample, ahead, False)


def rows_of(batches):
    """(tokens, labels) of each sequence, without padding."""
    found = []
    for batch in batches:
        width = batch.mask.shape[1]
        for row in range(len(batch.mask)):
            labels = batch.labels[(batch.masked_index // width) == row].tolist()
            found.append((tuple(batch.input_ids[row][batch.mask[row]].tolist()), tuple(labels)))
    return found


@pytest.mark.parametrize(("world", "micro", "accumulation"), [(1, 4, 3), (2, 3, 2), (3, 4, 1), (4, 1, 3), (6, 2, 1)])
def test_any_split_of_a_step_covers_the_same_samples_and_masks(shards, world, micro, accumulation):
    """12 samples a step, shards of 6 to 8: a batch is larger than a shard, and epochs end inside steps."""
    whole = loader(shards)
    parts = [loader(shards, rank, world, micro, accumulation) for rank in range(world)]
    for _ in range(5):
        expected = rows_of(next(whole))
        pieces = [next(part) for part in parts]
        joined = sorted((batch for piece in pieces for batch in piece), key=lambda batch: batch.micro_index)
        assert rows_of(joined) == expected


def by_index(pieces):
    return sorted((batch for piece in pieces for batch in piece), key=lambda batch: batch.micro_index)


@pytest.mark.parametrize(("world", "micro", "accumulation"), [(1, 4, 3), (2, 3, 2), (3, 4, 1), (4, 1, 3), (6, 2, 1)])
def test_grouping_sorts_a_step_by_length_and_moves_no_sample_out_of_it(shards, world, micro, accumulation):
    plain = loader(shards)
    parts = [loader(shards, rank, world, micro, accumulation, grouped=True) for rank in range(world)]
    for _ in range(5):
        expected = sorted(rows_of(next(plain)), key=lambda row: -len(row[0]))  # stable: equal lengths stay in the order of training
        assert rows_of(by_index([next(part) for part in parts])) == expected


def test_grouped_micro_batches_depend_on_their_size_and_on_no_ranks(shards):
    alone = loader(shards, micro=3, accumulation=4, grouped=True)
    resumed = loader(shards, micro=3, accumulation=4, grouped=True, first_sample=24, ahead=2)
    pair = [loader(shards, rank, 2, 3, 2, grouped=True) for rank in range(2)]
    for step in range(5):
        expected = next(alone)
        assert [batch.micro_index for batch in expected] == [0, 1, 2, 3]
        found = [by_index([next(part) for part in pair])]
        if step >= 2:
            found.append(next(resumed))
        for batches in found:
            assert [rows_of([batch]) for batch in batches] == [rows_of([batch]) for batch in expected]
    resumed.close()


def test_grouping_saves_padding_on_short_lines(tmp_path):
    """The mean of padded columns for lengths from 4 to 64."""
    lines = [read_info(path) for path in find_shards(make_shards(tmp_path, train=1, test=0, rows=256, length=64, masking="none"))[0]]
    shares = []
    for grouped in (False, True):
        batches = list(itertools.chain.from_iterable(itertools.islice(loader(lines, micro=8, accumulation=16, grouped=grouped), 2)))
        shares.append(sum(int((~batch.mask).sum()) for batch in batches) / sum(batch.mask.numel() for batch in batches))
    assert shares[0] > 0.35 and shares[1] < 0.15


def test_a_shard_is_opened_once_where_a_step_needs_the_whole_batch(shards, monkeypatch):
    opened = []
    monkeypatch.setattr("pretraining.batches.samples.open_shard", lambda path: opened.append(path) or open_shard(path))
    one = loader(shards, micro=2, accumulation=2, grouped=True)  # 4 samples a step: two shards at most
    for _ in range(5):
        next(one)
    assert len(opened) == 3 and len(set(opened)) == 3  # 20 of 21 samples


def test_masks_differ_between_epochs_and_not_between_readers(shards):
    first = rows_of(itertools.chain.from_iterable(itertools.islice(loader(shards), 7)))
    assert first == rows_of(itertools.chain.from_iterable(itertools.islice(loader(shards, ahead=3), 7)))
    epoch = sum(info.rows for info in shards)
    assert {labels for _, labels in first[:epoch]} != {labels for _, labels in first[epoch : 2 * epoch]}


def test_a_loader_can_start_anywhere(shards):
    through = list(itertools.islice(loader(shards), 6))
    later = loader(shards, first_sample=4 * 12, ahead=2)
    assert rows_of(next(later)) == rows_of(through[4]) and rows_of(next(later)) == rows_of(through[5])
    later.close()
    assert not later._thread.is_alive()


def test_at_most_two_shards_are_in_memory(shards):
    one = loader(shards)
    for _ in range(10):
        next(one)
        assert len(one.reader._loaded) <= 2


def test_errors_of_the_thread_reach_training(shards):
    broken = loader(shards, ahead=2)
    broken.close()
    reader = ShardReader(shards, 20, None, MaskingRule(1, np.arange(5)))
    reader.vocab_size = 10
    failing = StepLoader(GlobalOrder(1, [info.rows for info in shards]), reader, Share(0, 1, 4, 1), 0, 2, False)
    for _ in range(2):  # asked again, it must not wait for a thread that has ended
        with pytest.raises(UserError, match="expected below 10"):
            next(failing)


def test_batches_are_cut_to_their_longest_sequence(shards):
    for batches in itertools.islice(loader(shards, micro=3, accumulation=4), 4):
        for batch in batches:
            longest = int(batch.mask.sum(dim=1).max())
            assert batch.mask.shape[1] == min(32, -(-longest // 8) * 8)
            assert batch.has_padding == (not bool(torch.all(batch.mask)))
