"""Masks drawn on the fly are a function of (seed, sample, epoch): of no split, no neighbour and no earlier step."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from tiny import MASK, PREDICTIONS, SPECIAL, VOCABULARY, make_shards, make_tokenizer

from dataset.errors import UserError
from dataset.shard_format import find_shards, read_info
from dataset.tokenizer import load_tokenizer, word_continuations
from pretraining.batches.loader import validation_batches
from pretraining.batches.order import GlobalOrder, Segment
from pretraining.batches.samples import MaskingRule, ShardReader

ROWS = 40
EXCLUDED = np.arange(len(SPECIAL))


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> tuple[list, list]:
    folder = make_shards(tmp_path_factory.mktemp("masks"), train=3, test=2, rows=ROWS, masking="none")
    train, test = find_shards(folder)
    return [read_info(path) for path in train], [read_info(path) for path in test]


def reader(infos: list, seed: int = 1, most: int | None = None, vocabulary: int = VOCABULARY, excluded=EXCLUDED) -> ShardReader:
    return ShardReader(infos, vocabulary, most, MaskingRule(seed, excluded))


def masks_by_sample(source: ShardReader, segments) -> dict[tuple[int, int], tuple]:
    """(shard, row) -> (masked ids, positions, labels), read segment by segment."""
    found = {}
    for segment in segments:
        rows = source.read([segment])
        for index, row in enumerate(segment.rows.tolist()):
            used = rows.predictions[index]
            assert not rows.positions[index, used:].any() and not rows.labels[index, used:].any()
            found[segment.shard, row] = (tuple(rows.input_ids[index].tolist()), tuple(rows.positions[index, :used].tolist()),
                                         tuple(rows.labels[index, :used].tolist()))
    return found


def epoch_in_pieces(infos: list, epoch: int, piece: int, seed: int = 1, order_seed: int = 1) -> dict:
    order, total = GlobalOrder(order_seed, [info.rows for info in infos]), ROWS * len(infos)
    segments = [segment for start in range(epoch * total, (epoch + 1) * total, piece)
                for segment in order.segments(start, min(piece, (epoch + 1) * total - start))]
    assert {segment.epoch for segment in segments} == {epoch}
    return masks_by_sample(reader(infos, seed), segments)


@pytest.mark.parametrize("piece", [1, 7, 64])
def test_a_samples_mask_depends_on_no_split_and_no_neighbour(shards, piece):
    train, _ = shards
    whole = epoch_in_pieces(train, 2, ROWS * 3)
    assert len(whole) == ROWS * 3
    assert epoch_in_pieces(train, 2, piece) == whole
    assert epoch_in_pieces(train, 2, piece, order_seed=77) == whole  # the order is another matter


def test_every_epoch_and_every_seed_draws_anew(shards):
    train, _ = shards
    epochs = [epoch_in_pieces(train, epoch, 50) for epoch in (0, 1, 2)]
    other = epoch_in_pieces(train, 0, 50, seed=2)
    for left, right in ((epochs[0], epochs[1]), (epochs[1], epochs[2]), (epochs[0], other)):
        same = sum(left[sample][1] == right[sample][1] for sample in left)
        assert same < len(left) / 2  # short samples have few places to choose from
    # Equal content in another shard draws its own masks.
    assert reader([train[0], train[0]]).read([Segment(0, 0, np.arange(ROWS))]).positions.tolist() != \
        reader([train[0], train[0]]).read([Segment(0, 1, np.arange(ROWS))]).positions.tolist()


def test_masks_hide_what_the_labels_say(shards):
    train, _ = shards
    with h5py.File(train[1].path) as file:
        originals, mask = file["input_ids"][:], file["input_mask"][:]
    hidden = 0
    for (_, row), (shown, positions, labels) in masks_by_sample(reader(train), [Segment(0, 1, np.arange(ROWS))]).items():
        real = int(mask[row].sum())
        assert len(positions) == min(PREDICTIONS, max(1, round(0.15 * real)), real - 2)
        assert [originals[row, position] for position in positions] == list(labels)
        assert not set(labels) & set(range(len(SPECIAL)))
        assert all(shown[column] == originals[row, column] for column in range(len(shown)) if column not in positions)
        hidden += sum(shown[position] == MASK for position in positions)
    assert hidden > 0


def batches_of(infos: list, micro: int, samples: int | None = None, seed: int = 1) -> list[tuple]:
    """Each held-out sample in order: (real tokens, labels)."""
    found = []
    for batch in validation_batches(reader(infos, seed), samples, micro, 0, 1):
        width = batch.mask.shape[1]
        found += [(tuple(batch.input_ids[row][batch.mask[row]].tolist()), tuple(batch.labels[batch.masked_index // width == row].tolist()))
                  for row in range(len(batch.mask))]
    return found


def test_held_out_masks_never_change(shards):
    _, test = shards
    first = batches_of(test, 16)
    assert len(first) == 2 * ROWS
    assert batches_of(test, 16) == batches_of(test, 7) == batches_of(test, 1) == first
    rows = [Segment(epoch, 1, np.arange(5)) for epoch in (0, 9)]
    assert masks_by_sample(reader(test), rows[:1]) == masks_by_sample(reader(test), rows[1:])
    assert batches_of(test, 16, seed=2) != first


def test_a_held_out_subset_is_spread_evenly_and_keeps_its_masks(shards):
    _, test = shards
    everything, some = batches_of(test, 16), batches_of(test, 16, samples=20)
    assert some == everything[::4]
    assert batches_of(test, 16, samples=10**6) == everything


def test_held_out_and_training_masks_of_one_text_differ(shards, tmp_path):
    train, _ = shards
    import shutil

    shutil.copy(train[0].path, tmp_path / "test_shard_0.hdf5")
    with h5py.File(tmp_path / "test_shard_0.hdf5", "r+") as file:
        file.attrs["split"] = "test"
    rows = [Segment(0, 0, np.arange(ROWS))]
    assert masks_by_sample(reader(train), rows) != masks_by_sample(reader([read_info(tmp_path / "test_shard_0.hdf5")]), rows)


@pytest.mark.parametrize("most", [1, 3, 100])
def test_a_cap_on_predictions_bounds_what_is_hidden_too(shards, most):
    train, _ = shards
    with h5py.File(train[0].path) as file:
        originals = file["input_ids"][:]
    rows = reader(train, most=most).read([Segment(0, 0, np.arange(ROWS))])
    free = reader(train).read([Segment(0, 0, np.arange(ROWS))])
    assert rows.predictions.tolist() == np.minimum(free.predictions, most).tolist()
    changed = (rows.input_ids != originals).sum(axis=1)
    assert (changed <= rows.predictions).all()
    if most == 1:  # not always the leftmost of those that would have been hidden
        places = rows.positions[:, 0] / np.maximum(1, rows.mask.sum(axis=1))
        assert places.max() > 0.6


def test_shards_that_ask_for_whole_words_get_whole_words(tmp_path):
    folder = make_shards(tmp_path / "shards", train=2, test=1, rows=ROWS, masking="none", whole_words=True, continuations=True)
    continues = word_continuations(load_tokenizer(make_tokenizer(tmp_path / "tokenizer", continuations=True)))
    assert continues.sum() > 50
    broken = {}
    for shard, infos in enumerate([read_info(path) for path in paths] for paths in find_shards(folder)):
        with h5py.File(infos[0].path) as file:
            originals, mask = file["input_ids"][:], file["input_mask"][:]
        plain = [replace(info, attributes={**info.attributes, "whole_word_masking": 0}) for info in infos]
        for name, chosen in (("whole", infos), ("single", plain)):
            source = ShardReader(chosen, VOCABULARY, None, MaskingRule(1, EXCLUDED, continues))
            broken[name, shard] = 0
            for (_, row), (_, positions, labels) in masks_by_sample(source, [Segment(0, 0, np.arange(ROWS))]).items():
                assert [originals[row, position] for position in positions] == list(labels)
                real = int(mask[row].sum())
                for position in range(2, real - 1):
                    # A word is predicted whole or not at all; position 1 begins one after [CLS].
                    broken[name, shard] += continues[originals[row, position]] and (position in positions) != (position - 1 in positions)
    assert broken["whole", 0] == broken["whole", 1] == 0 < min(broken["single", 0], broken["single", 1])


def test_shards_may_differ_in_what_they_ask_for(tmp_path):
    """Each is masked by its own attributes, whichever was read before."""
    train, _ = find_shards(make_shards(tmp_path, train=2, test=0, rows=ROWS, masking="none"))
    infos = [read_info(path) for path in train]
    infos[1] = replace(infos[1], attributes={**infos[1].attributes, "masked_lm_prob": 0.5, "max_predictions_per_seq": 30})
    rows = np.arange(ROWS)
    joined = reader(infos).read([Segment(0, 0, rows), Segment(0, 1, rows)])
    assert joined.predictions[:ROWS].max() <= PREDICTIONS < joined.predictions[ROWS:].max()
    assert joined.positions.shape[1] == 30 and not joined.positions[:ROWS, PREDICTIONS:].any()


def test_an_id_beyond_what_the_shard_is_masked_by_is_named(shards):
    train, _ = shards
    info = replace(train[0], attributes={**train[0].attributes, "vocab_size": 10})
    with pytest.raises(UserError, match=r"input_ids holds \d+, expected below 10"):
        reader([info]).read([Segment(0, 0, np.arange(ROWS))])


def test_random_tokens_are_rows_of_the_model(shards):
    """A shard of a larger vocabulary whose ids all fit the model: what masking puts in must fit, too."""
    train, _ = shards
    with h5py.File(train[0].path) as file:
        highest = int(file["input_ids"][:].max())
    attributes = {**train[0].attributes, "vocab_size": 100_000}
    info = type(train[0])(**{**train[0].__dict__, "attributes": attributes})
    source = reader([info], vocabulary=highest + 1, excluded=np.array([*EXCLUDED, 99_999]))
    for epoch in range(5):
        assert source.read([Segment(epoch, 0, np.arange(ROWS))]).input_ids.max() <= highest


def test_a_static_shard_gives_the_masks_it_holds(tmp_path):
    train, _ = find_shards(make_shards(tmp_path, train=2, test=0))
    infos = [read_info(path) for path in train]
    source = ShardReader(infos, VOCABULARY, None, None)
    with h5py.File(infos[1].path) as file:
        stored = {key: file[key][:] for key in ("input_ids", "masked_lm_positions", "masked_lm_ids")}
    for epoch in (0, 3):
        rows = source.read([Segment(epoch, 1, np.array([3, 0, 39]))])
        assert (rows.input_ids == stored["input_ids"][[3, 0, 39]]).all()
        assert (rows.positions == stored["masked_lm_positions"][[3, 0, 39]]).all()
        assert (rows.labels == stored["masked_lm_ids"][[3, 0, 39]]).all()
        assert (rows.predictions == (stored["masked_lm_positions"][[3, 0, 39]] > 0).sum(axis=1)).all()
    capped = ShardReader(infos, VOCABULARY, 2, None).read([Segment(0, 1, np.arange(ROWS))])
    assert capped.positions.shape == (ROWS, 2) and (capped.predictions <= 2).all() and capped.predictions.max() == 2
    # Shards with different numbers of predictions meet in one batch.
    narrow = ShardReader(infos, VOCABULARY, None, None)
    narrow._load(0)["masked_lm_positions"], narrow._load(0)["masked_lm_ids"] = (
        narrow._load(0)[key][:, :3] for key in ("masked_lm_positions", "masked_lm_ids"))
    joined = narrow.read([Segment(0, 0, np.arange(4)), Segment(0, 1, np.arange(4))])
    assert joined.positions.shape == (8, PREDICTIONS) and not joined.positions[:4, 3:].any()
