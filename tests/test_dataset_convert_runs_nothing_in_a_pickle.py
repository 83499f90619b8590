"""Reading a pickle understands lists of integer arrays and of integers, and runs nothing that is in it."""

import builtins
import functools
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest

from dataset.converters.pickles import read_arrays, read_integers
from dataset.errors import UserError


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def arrays_in(path: Path) -> list[np.ndarray]:
    return [array for part in read_arrays(path) for array in part]


def make_arrays(dtype: str, count: int = 40) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 255 if dtype.endswith("1") else 30000, size).astype(dtype) for size in rng.integers(1, 50, count)]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol_and_type_are_read(tmp_path, protocol):
    for dtype in ("u2", "<i4", ">i4", "i8", "u1"):
        arrays = make_arrays(dtype)
        arrays += [arrays[0], arrays[7]]  # the same objects again: a pickle refers back to them
        read = arrays_in(write(tmp_path / "a.pickle", pickle.dumps(arrays, protocol)))
        assert [array.tolist() for array in read] == [array.tolist() for array in arrays]
        assert read[0].dtype == arrays[0].dtype
    assert arrays_in(write(tmp_path / "a.pickle", pickle.dumps([], protocol))) == []


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_names_of_numpy_1_are_known(tmp_path, protocol):
    arrays = make_arrays("u2")
    content = pickle.dumps(arrays, protocol)
    old = content
    for name in (b"numpy._core.multiarray", b"numpy._core.numeric"):
        short = name.replace(b"_core", b"core")
        old = old.replace(b"\x8c" + bytes([len(name)]) + name, b"\x8c" + bytes([len(short)]) + short).replace(name, short)
    assert b"numpy.core" in old and b"_core" not in old
    assert [array.tolist() for array in arrays_in(write(tmp_path / "a.pickle", old))] == [array.tolist() for array in arrays]


def test_long_lists_come_in_parts(tmp_path):
    arrays = make_arrays("u2", 2500)
    parts = list(read_arrays(write(tmp_path / "a.pickle", pickle.dumps(arrays, 5))))
    assert max(map(len, parts)) <= 1000 and sum(map(len, parts)) == 2500


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_integers_are_read(tmp_path, protocol):
    numbers = [0, 1, 255, 256, 70000, 2**31, 2**40, -3, 10**30]
    path = write(tmp_path / "c.pickle", pickle.dumps([*numbers, np.int64(7), np.int32(8)], protocol))
    assert read_integers(path) == [*numbers, 7, 8]


class Harm:
    """Pickled, it makes whoever loads it call `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class WithState:
    """Loaded, its __setstate__ makes a file."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __getstate__(self):
        return {"target": self.target}

    def __setstate__(self, state):
        Path(state["target"]).touch()


def test_nothing_in_a_malicious_pickle_runs_and_the_name_is_told(tmp_path):
    made = tmp_path / "made"
    touch = f"touch {made}"
    arrays = make_arrays("u2", 3)
    holding = np.empty(1, dtype=object)
    holding[0] = Harm(os.system, touch)
    harms = {
        "system": Harm(os.system, touch),
        "eval": Harm(builtins.eval, f"open({str(made)!r}, 'w')"),
        "getattr": Harm(getattr, np.ndarray, "tofile"),
        "partial": Harm(functools.partial, os.system, touch),
        "WithState": WithState(str(made)),
        "make no array": holding,
    }
    for name, harm in harms.items():
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            for read, before in ((arrays_in, arrays), (read_integers, [5, 6])):
                path = write(tmp_path / "harm.pickle", pickle.dumps([*before, harm], protocol))
                with pytest.raises(UserError, match="nothing in them is run") as caught:
                    read(path)
                assert any(told in str(caught.value) for told in (name, "system", "copy_reg._reconstructor"))
                assert "\n" not in str(caught.value) and "harm.pickle" in str(caught.value)
                assert not made.exists()
    for harm in (harms["system"], harms["WithState"], harms["eval"]):
        # They are what they claim to be: unpickled in earnest they do it.
        pickle.loads(pickle.dumps([harm]))
        assert made.exists()
        made.unlink()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x04]\x8c\x05numpy\x8c\x12ndarray.__reduce__\x93)Ra.", r"name numpy\.ndarray\.__reduce__"),
        (b"\x80\x04]\x8c\x05numpy\x8c\x07ndarray\x93)\x81a.", "operation NEWOBJ"),
        (b"\x80\x04]\x8c\x05numpy\x8c\x07ndarray\x93)Ra.", "arguments of numpy.ndarray"),
        (b"(ios\nsystem\n.", r"name os\.system"),
        (b"(inumpy\nndarray\n.", "instance of a class"),
        (b"(cos\nsystem\nS'true'\no.", r"name os\.system"),
        (b"\x80\x02]cos\nsystem\na.", r"name os\.system"),
        (b"]Pmy id\na.", "operation PERSID"),
        (b"\x80\x02]\x82\x01a.", "operation EXT1"),
        (b"\x80\x02}.", "operation EMPTY_DICT"),
        (b"\x80\x02]]a.", "a list inside a list"),
        (b"\x80\x02K\x05.", "no pickled list"),
        (b"\x80\x02]h\x05a.", "no memo 5"),
        (b"\x80\x02]a.", "no list|nothing on the stack"),
        (b"\x80\x02]e.", "no mark"),
        (b"\x80\x02].K", "more follows"),
        (b"", "no whole pickle"),
        (b"tokens", "no whole pickle"),
        (b"\x80\x04]\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", "no whole pickle"),
    ],
)
def test_what_no_array_needs_is_refused(tmp_path, content, message):
    path = write(tmp_path / "a.pickle", content)
    for read in (arrays_in, read_integers):
        with pytest.raises(UserError, match=message) as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [["text"], [1.5], [np.ones((2, 2), "i4")], [np.ones(3, "f4")], [np.array(["a"])], [[1]]])
def test_a_list_of_something_else_is_refused(tmp_path, values):
    for read in (arrays_in, read_integers):
        with pytest.raises(UserError):
            read(write(tmp_path / "a.pickle", pickle.dumps(values)))
    with pytest.raises(UserError, match="item 1 of the list is of type int"):
        arrays_in(write(tmp_path / "a.pickle", pickle.dumps([np.ones(3, "u2"), 5])))


def test_a_cut_or_damaged_pickle_is_one_line_wherever_it_breaks(tmp_path):
    rng = random.Random(5)
    path = tmp_path / "a.pickle"
    for protocol in (0, 2, 4, 5):
        content = pickle.dumps(make_arrays("u2", 4), protocol)
        for size in range(0, len(content), 3):
            with pytest.raises(UserError, match=r"a\.pickle"):
                arrays_in(write(path, content[:size]))
        for _ in range(100):
            damaged = bytearray(content)
            for _ in range(rng.randint(1, 4)):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            try:
                read = arrays_in(write(path, bytes(damaged)))
            except UserError as error:
                assert "\n" not in str(error)
            else:
                assert all(array.dtype.kind in "iu" and array.ndim == 1 for array in read)
