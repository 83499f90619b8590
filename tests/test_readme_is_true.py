"""What the README says about flags, objectives and files is what the code has."""

import re
from pathlib import Path

from pretraining.args.parser import INFO
from pretraining.objectives.catalog import markdown_table

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_objectives_is_made_from_the_code():
    assert markdown_table() in README


def test_every_flag_of_the_trainer_that_is_named_exists():
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.S)
    commands = "\n".join(blocks).replace("\\\n", " ").splitlines()
    training = [line for line in commands if "run_pretraining.py" in line or line.startswith("FLAGS=")]
    assert len(training) >= 5
    named = {flag for line in training for flag in re.findall(r"--([a-z_]+)", line)}
    launchers = {"nproc_per_node", "num_accelerators", "config"}
    assert not named - set(INFO) - launchers


def test_every_file_that_is_named_exists():
    named = set(re.findall(r"`((?:configs|tests|pretraining|dataset|evaluation)/[\w./]*)`", README))
    assert named and not [name for name in named if not (ROOT / name).exists()]
