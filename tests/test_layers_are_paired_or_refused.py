"""Layer lists become pairs of equal number, named once each; anything else is refused."""

import pytest

from dataset.errors import UserError
from pretraining.layers import evenly_spaced, pair_layers


def test_one_teacher_layer_pairs_with_the_last_student_layer_and_several_with_all():
    assert pair_layers("11", None, 12, 6) == ((5, 11),)
    assert pair_layers("1,3,5,7,9,11", None, 12, 6) == pair_layers(None, None, 12, 6)
    assert pair_layers(None, "0,2", 6, 3) == ((0, 2), (2, 5))
    assert [evenly_spaced(3, 6), evenly_spaced(6, 12), evenly_spaced(4, 6)] == [[1, 3, 5], [1, 3, 5, 7, 9, 11], [0, 2, 3, 5]]


@pytest.mark.parametrize(("teacher", "student", "message"), [
    ("1,3", None, "equally long"), ("12", None, "outside the teacher"), ("-1", None, "outside the teacher"),
    ("3", "6", "outside the student"),
    ("a", None, "not a layer number"), ("1,1", "0,0", "twice"), ("1,3", "0", "equally long")])
def test_what_does_not_pair_is_refused(teacher, student, message):
    with pytest.raises(UserError, match=message):
        pair_layers(teacher, student, 12, 6)
