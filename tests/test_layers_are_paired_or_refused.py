"""Layer lists and presets become pairs of equal number, named once each; anything else is refused in one line."""

import pytest

from dataset.errors import UserError
from pretraining.layers import choose_layers, copied_layers, end_to_end, evenly_spaced, pair_layers

ALL = "0,1,2,3,4,5"


def test_one_teacher_layer_pairs_with_the_last_student_layer_and_several_with_all():
    assert pair_layers("11", None, 12, 6) == ((5, 11),)
    assert pair_layers("1,3,5,7,9,11", None, 12, 6) == pair_layers(None, None, 12, 6)
    assert pair_layers(None, "0,2", 6, 3) == ((0, 2), (2, 5))
    assert [evenly_spaced(3, 6), evenly_spaced(6, 12), evenly_spaced(4, 6)] == [[1, 3, 5], [1, 3, 5, 7, 9, 11], [0, 2, 3, 5]]


@pytest.mark.parametrize(("teacher", "student", "default", "pairs"), [
    # A lone `last`, said or meant by the objective, is the last layer with the last layer.
    ("last", None, "uniform", [(5, 11)]), (None, None, "last", [(5, 11)]), (None, "last", "uniform", [(5, 11)]),
    ("last", "last", "uniform", [(5, 11)]), ("last", "first", "uniform", [(0, 11)]), ("last", "uniform", "uniform", [(5, 11)]),
    # The other presets are as many as the student has layers.
    ("uniform", None, "last", [(0, 1), (1, 3), (2, 5), (3, 7), (4, 9), (5, 11)]),
    ("first", None, "uniform", [(layer, layer) for layer in range(6)]),
    ("first", "uniform", "uniform", [(layer, layer) for layer in range(6)]),
    # A list on the other side says how many.
    ("last", "1,4", "uniform", [(1, 10), (4, 11)]), ("last", ALL, "uniform", [(layer, layer + 6) for layer in range(6)]),
    ("uniform", "1,4", "uniform", [(1, 5), (4, 11)]), ("first", "1,4", "uniform", [(1, 0), (4, 1)]),
    ("2,9", "first", "uniform", [(0, 2), (1, 9)]), ("2,9", "last", "uniform", [(4, 2), (5, 9)]),
    ("2,9", "uniform", "last", [(2, 2), (5, 9)]), (None, "0,3", "last", [(0, 10), (3, 11)]), ("7", "first", "uniform", [(0, 7)]),
    (" last ", None, "uniform", [(5, 11)])])
def test_presets_take_their_length_from_the_other_side(teacher, student, default, pairs):
    assert pair_layers(teacher, student, 12, 6, default) == tuple(pairs)


@pytest.mark.parametrize(("teacher", "student", "message"), [
    ("1,3", None, "equally long"), ("12", None, "outside the teacher"), ("-1", None, "outside the teacher"),
    ("3", "6", "outside the student"), ("a", None, "not a layer number"), ("lst", None, "last, uniform, first"),
    ("1,1", "0,0", "twice"), ("1,3", "0", "equally long"), ("0,1,2,3,4,5,6", "last", "7 layers are needed and the student has 6")])
def test_what_does_not_pair_is_refused(teacher, student, message):
    with pytest.raises(UserError, match=message):
        pair_layers(teacher, student, 12, 6)


@pytest.mark.parametrize("preset", [None, "uniform", "first"])
def test_a_student_deeper_than_its_teacher_needs_lists(preset):
    with pytest.raises(UserError, match="6 layers are needed and the teacher has 4; give --layer_selection"):
        pair_layers(preset, None, 4, 6)
    assert pair_layers("0,0,1,1,2,3", None, 4, 6) == ((0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 3))
    assert pair_layers("last", None, 4, 6) == ((5, 3),)


def test_lists_that_are_concatenated_may_be_unequally_long():
    assert choose_layers(None, None, 4, 2) == ((0, 1), (0, 1, 2, 3))
    assert choose_layers("1,3", None, 4, 3) == ((0, 1, 2), (1, 3))
    assert choose_layers("last", "last", 4, 2) == ((1,), (3,))
    assert choose_layers("uniform", "0", 4, 2) == ((0,), (3,))
    assert choose_layers("last", None, 4, 2) == ((0, 1), (2, 3))
    for wrong in (("1,1", None), (None, "0,0"), ("4", None)):
        with pytest.raises(UserError):
            choose_layers(*wrong, 4, 2)


def test_copied_layers_are_a_list_or_a_preset_of_the_students_depth():
    assert copied_layers(None, 6, 12) == copied_layers("uniform", 6, 12) == [1, 3, 5, 7, 9, 11]
    assert copied_layers("first", 3, 12) == [0, 1, 2] and copied_layers("last", 3, 12) == [9, 10, 11]
    assert copied_layers("distilbert", 6, 12) == [0, 2, 4, 7, 9, 11]
    assert copied_layers("0, 2,4", None, 12) == copied_layers("0,2,4", 3, 12) == [0, 2, 4]
    for preset in ("uniform", "first", "last", "distilbert"):
        assert copied_layers(preset, 12, 12) == list(range(12))
    for count in range(2, 25):
        spread = end_to_end(count, 24)
        assert (spread[0], spread[-1]) == (0, 23) and spread == sorted(set(spread)) and len(spread) == count
        assert all(abs(layer - index * 23 / (count - 1)) <= 0.5 for index, layer in enumerate(spread))


@pytest.mark.parametrize(("text", "count", "message"), [
    (None, None, "give --num_hidden_layers"), ("last", None, "--student_layers last needs the student's depth"),
    ("uniform", 13, "1 to 12 works"), ("0,2", 3, "leave one out"), ("distilbert", 1, "last or first works"),
    ("middle", 2, "'middle' is not a layer number; .* uniform, first, distilbert"), ("12", None, "outside the teacher"),
    (None, 0, "1 to 12 works")])
def test_what_cannot_be_copied_is_refused(text, count, message):
    with pytest.raises(UserError, match=message) as refusal:
        copied_layers(text, count, 12)
    assert "\n" not in str(refusal.value)
