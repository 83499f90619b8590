"""Batches bring next-sentence labels, the original text for causal models, and random words; shards that cannot give them are named."""

import h5py
import numpy as np
import pytest
from tiny import SPECIAL, VOCABULARY, make_shards, sample_arrays

from dataset.errors import UserError
from dataset.shard_format import find_shards, read_info
from pretraining.batches import samples
from pretraining.batches.augmentation import Augmentation
from pretraining.batches.loader import Share, StepLoader, collate
from pretraining.batches.order import GlobalOrder, Segment
from pretraining.batches.samples import MaskingRule, ShardReader
from pretraining.signals import Unit

ROWS, LENGTH = 40, 32
EXCLUDED = np.arange(len(SPECIAL))
AUGMENTATION = Augmentation(5, EXCLUDED, VOCABULARY)
EVERYTHING = np.arange(ROWS)


def infos_of(folder, split: int = 0) -> list:
    return [read_info(path) for path in find_shards(folder)[split]]


def write(path, **changes):
    """A shard as other scripts write it."""
    arrays = {**sample_arrays(ROWS, LENGTH, "static", np.random.default_rng(1)), **changes}
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            file[key] = values
    return read_info(path)


@pytest.fixture(scope="module")
def static(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("static"), train=2, test=1, rows=ROWS, length=LENGTH)


@pytest.fixture(scope="module")
def unmasked(tmp_path_factory):
    """The same texts, with the same seed."""
    return make_shards(tmp_path_factory.mktemp("unmasked"), train=2, test=1, rows=ROWS, length=LENGTH, masking="none")


def test_next_sentence_labels_follow_their_rows(tmp_path):
    labels = [np.arange(ROWS, dtype=kind) // (shard + 1) % 2 for shard, kind in enumerate((np.int8, np.int64))]
    infos = [write(tmp_path / f"train_{shard}.hdf5", next_sentence_labels=labels[shard]) for shard in range(2)]
    rows = ShardReader(infos, VOCABULARY, None, None).read([Segment(0, 1, np.array([7, 2])), Segment(0, 0, np.array([39, 0, 2]))])
    assert rows.next_sentence_labels.dtype == np.int8
    assert rows.next_sentence_labels.tolist() == [*labels[1][[7, 2]], *labels[0][[39, 0, 2]]]
    assert collate(rows, 0).next_sentence_labels.tolist() == rows.next_sentence_labels.tolist()


def test_next_sentence_labels_are_none_unless_all_shards_have_them(tmp_path, static):
    labelled = write(tmp_path / "train_0.hdf5", next_sentence_labels=np.zeros(ROWS, np.int8))
    reader = ShardReader([labelled, *infos_of(static)], VOCABULARY, None, None)
    first, second = Segment(0, 0, EVERYTHING), Segment(0, 1, EVERYTHING)
    for segments in ([second], [first, second], [second, first]):
        rows = reader.read(segments)
        assert rows.next_sentence_labels is None and len(rows.input_ids) == ROWS * len(segments)
        assert collate(rows, 0).next_sentence_labels is None
    assert reader.read([first]).next_sentence_labels is not None


@pytest.mark.parametrize(("value", "message"), [(2, "holds 2, expected below 2"), (-1, "holds -1, expected no negative number")])
def test_a_next_sentence_label_that_is_none_is_named(tmp_path, value, message):
    info = write(tmp_path / "train_0.hdf5", next_sentence_labels=np.full(ROWS, value, np.int8))
    with pytest.raises(UserError, match=rf"train_0\.hdf5: next_sentence_labels {message}"):
        ShardReader([info], VOCABULARY, None, None).read([Segment(0, 0, EVERYTHING)])


@pytest.mark.parametrize("kind", [np.int32, np.uint8])
@pytest.mark.parametrize("hole", [False, True])
def test_a_masked_position_without_a_token_is_named(tmp_path, monkeypatch, hole, kind):
    """In padding or in a hole, in the last block of rows; what stands behind the end of a list is nothing."""
    monkeypatch.setattr(samples, "ROWS_AT_A_TIME", 7)
    arrays = sample_arrays(ROWS, LENGTH, "static", np.random.default_rng(1))
    mask, positions = arrays["input_mask"].astype(np.int8), arrays["masked_lm_positions"].astype(kind)
    mask[:, LENGTH - 1] = 0
    positions[positions >= LENGTH - 1] = 1
    positions[3, 1:3] = 0, LENGTH - 1
    good = write(tmp_path / "train_good.hdf5", input_mask=mask, masked_lm_positions=positions)
    assert ShardReader([good], VOCABULARY, None, None).read([Segment(0, 0, EVERYTHING)]).predictions[3] == 1
    wrong = int(positions[ROWS - 1, 0]) if hole else LENGTH - 1
    mask[ROWS - 1, wrong], positions[ROWS - 1, 0] = 0, wrong
    bad = write(tmp_path / "train_bad.hdf5", input_mask=mask, masked_lm_positions=positions)
    with pytest.raises(UserError, match=rf"train_bad\.hdf5: masked_lm_positions of row {ROWS - 1} holds {wrong}, where input_mask"):
        ShardReader([bad], VOCABULARY, None, None).read([Segment(0, 0, EVERYTHING)])


@pytest.mark.parametrize("split", [0, 1])
@pytest.mark.parametrize("most", [None, 1])
def test_causal_models_get_the_original_text(static, unmasked, split, most):
    segments = [Segment(0, shard, EVERYTHING[::-1]) for shard in range(len(infos_of(static, split)))]
    originals = []
    for info in infos_of(unmasked, split):
        with h5py.File(info.path) as file:
            originals.append(file["input_ids"][:][::-1])
    originals = np.concatenate(originals)
    masked = ShardReader(infos_of(static, split), VOCABULARY, most, None).read(segments)
    assert (masked.input_ids != originals).any()
    for folder in (static, unmasked):
        reader = ShardReader(infos_of(folder, split), VOCABULARY, most, None, causal=True)
        for _ in range(2):  # and what is held in memory stays what the file says
            rows = reader.read(segments)
            assert (rows.input_ids == originals).all() and (rows.mask == masked.mask).all()
            assert rows.positions.shape == rows.labels.shape == (len(originals), 0) and not rows.predictions.any()
        batch = collate(rows, 0)
        assert batch.counts[Unit.MASKED] == 0 and batch.counts[Unit.NEXT] == int(masked.mask.sum()) - len(originals)
        following = [ids[1:real] for ids, real in zip(originals, masked.mask.sum(axis=1), strict=True)]
        assert batch.next_labels.tolist() == np.concatenate(following).tolist()


def test_ids_that_are_put_in_fit_whatever_type_the_file_has(tmp_path):
    arrays = sample_arrays(ROWS, LENGTH, "static", np.random.default_rng(1))
    labels = arrays["masked_lm_ids"] + 300 * (arrays["masked_lm_ids"] > 0)
    info = write(tmp_path / "train_0.hdf5", input_ids=arrays["input_ids"].astype(np.uint8), masked_lm_ids=labels)
    rows = ShardReader([info], 500, None, None, causal=True).read([Segment(0, 0, EVERYTHING)])
    first = arrays["masked_lm_positions"][:, 0]
    assert rows.input_ids.dtype == np.int32 and (rows.input_ids[EVERYTHING, first] == labels[:, 0]).all()


def test_what_stands_behind_the_end_of_a_list_is_not_put_back(tmp_path):
    arrays = sample_arrays(ROWS, LENGTH, "static", np.random.default_rng(1))
    positions, labels = arrays["masked_lm_positions"], arrays["masked_lm_ids"]
    positions[:, 1:], labels[:, 1:] = [0, 2, 2, 2, 2], 99
    info = write(tmp_path / "train_0.hdf5", masked_lm_positions=positions, masked_lm_ids=labels)
    rows = ShardReader([info], VOCABULARY, None, None, causal=True).read([Segment(0, 0, EVERYTHING)])
    expected = arrays["input_ids"].copy()
    expected[EVERYTHING, positions[:, 0]] = labels[:, 0]
    assert (rows.input_ids == expected).all()


def augmented(folder, epoch: int = 0, split: int = 0, rows: np.ndarray = EVERYTHING, shard: int = 0, augmentation=AUGMENTATION, **options):
    """(as it is, with random words), both with the same masks."""
    rule = MaskingRule(1, EXCLUDED)
    return [ShardReader(infos_of(folder, split), VOCABULARY, None, rule, augmentation=one, **options).read([Segment(epoch, shard, rows)])
            for one in (None, augmentation)]


@pytest.mark.parametrize("options", [{}, {"causal": True}], ids=str)
@pytest.mark.parametrize("masking", ["static", "unmasked"])
def test_half_of_the_sequences_get_random_words(request, masking, options):
    folder, half, changed, replaceable = request.getfixturevalue(masking), 0, 0, 0
    for epoch in range(30):
        plain, random = augmented(folder, epoch, **options)
        for name in ("segment_ids", "mask", "widths", "positions", "labels", "predictions"):
            assert (getattr(plain, name) == getattr(random, name)).all()
        differs, words = plain.input_ids != random.input_ids, (plain.mask != 0) & (plain.input_ids >= len(SPECIAL))
        assert not differs[~words].any()  # special tokens, [MASK] and padding
        assert (random.input_ids[differs] >= len(SPECIAL)).all() and random.input_ids.max() < VOCABULARY
        drawn = differs.any(axis=1)
        wanted = np.round(100 / 128 * words.sum(axis=1))
        assert (differs.sum(axis=1) <= wanted).all()
        half, changed, replaceable = half + drawn.sum(), changed + differs[drawn].sum(), replaceable + wanted[drawn].sum()
    assert half / (30 * ROWS) == pytest.approx(0.5, abs=0.06)  # four standard deviations
    same = 1 / (VOCABULARY - len(SPECIAL))  # a random word may be the word itself
    assert changed / replaceable == pytest.approx(1 - same, abs=0.01)


def test_replaced_words_lie_anywhere_and_random_words_are_any():
    n = 400
    ids = np.full((n, 64), 20, dtype=np.int32)
    result = Augmentation(1, EXCLUDED, VOCABULARY).apply(ids, np.ones((n, 64), np.int8), [(1, row, 0, 2) for row in range(n)])
    drawn = (result != ids).any(axis=1)
    assert set(np.unique(result[drawn])) == set(range(len(SPECIAL), VOCABULARY))
    assert ((result[drawn] != ids[drawn]).mean(axis=0) == pytest.approx(50 / 64, abs=0.12))
    assert (result[drawn] != ids[drawn]).sum(axis=1).max() == 50
    left = np.ones((n, 64), np.int8) * (np.arange(64) < 32)  # padding that looks like words
    padded = Augmentation(1, EXCLUDED, VOCABULARY).apply(ids, left, [(1, row, 0, 2) for row in range(n)])
    assert (padded[:, 32:] == 20).all() and (padded != ids).sum(axis=1).max() == 25
    unlisted = Augmentation(1, np.array([0, 20]), VOCABULARY).apply(ids, np.ones((n, 64), np.int8), [(1, row) for row in range(n)])
    assert (unlisted == ids).all()


def test_random_words_are_drawn_from_counters(unmasked):
    _, first = augmented(unmasked)
    assert (augmented(unmasked)[1].input_ids == first.input_ids).all()
    pieces = [augmented(unmasked, rows=rows)[1].input_ids for rows in np.array_split(EVERYTHING, 7)]
    assert (np.concatenate(pieces) == first.input_ids).all()
    texts = [augmented(unmasked, epoch, causal=True) for epoch in (0, 1)]
    drawn = [(plain.input_ids != random.input_ids).any(axis=1) for plain, random in texts]
    assert (drawn[0] != drawn[1]).any()
    both = drawn[0] & drawn[1]
    assert (texts[0][1].input_ids[both] != texts[1][1].input_ids[both]).any(axis=1).all()
    other_seed = augmented(unmasked, augmentation=Augmentation(6, EXCLUDED, VOCABULARY))[1]
    assert (other_seed.input_ids != first.input_ids).any()
    # The same text in another shard draws its own words.
    infos = infos_of(unmasked)
    twice = ShardReader([infos[0], infos[0]], VOCABULARY, None, None, causal=True, augmentation=AUGMENTATION)
    assert (twice.read([Segment(0, 0, EVERYTHING)]).input_ids != twice.read([Segment(0, 1, EVERYTHING)]).input_ids).any()


@pytest.mark.parametrize("folder", ["static", "unmasked"])
def test_held_out_samples_stay_as_they_are(request, folder):
    plain, same = augmented(request.getfixturevalue(folder), split=1)
    assert (plain.input_ids == same.input_ids).all()


@pytest.mark.parametrize(("world", "micro", "accumulation"), [(1, 4, 3), (2, 3, 2), (3, 4, 1)])
def test_micro_batches_ranks_and_resumes_see_the_same_words(unmasked, world, micro, accumulation):
    infos = infos_of(unmasked)

    def steps(world, rank, micro, accumulation, first=0):
        reader = ShardReader(infos, VOCABULARY, None, MaskingRule(1, EXCLUDED), augmentation=AUGMENTATION)
        share = Share(rank, world, micro, accumulation)
        return StepLoader(GlobalOrder(1, [info.rows for info in infos]), reader, share, first * share.global_batch, 0, False)

    def words(batches):
        ordered = sorted(batches, key=lambda batch: batch.micro_index)
        return [batch.input_ids[row][batch.mask[row]].tolist() for batch in ordered for row in range(len(batch.mask))]

    whole, resumed = steps(1, 0, 12, 1), steps(1, 0, 12, 1, first=5)
    parts = [steps(world, rank, micro, accumulation) for rank in range(world)]
    for step in range(9):  # 108 samples: into the second epoch
        expected = words(next(whole))
        assert words([batch for part in parts for batch in next(part)]) == expected
        assert step < 5 or words(next(resumed)) == expected
