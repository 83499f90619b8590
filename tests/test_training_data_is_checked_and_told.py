"""What a run checks and says of its data before it trains: whose the ids of foreign shards are, masks of two kinds, masks by counts."""

import h5py
import numpy as np
import pytest
from tiny import VOCABULARY, make_shards, make_tokenizer, sample_arrays

from dataset.count_tokens import main as count_tokens
from dataset.errors import UserError
from pretraining.args.parser import parse
from pretraining.args.resolve import resolve
from pretraining.launch import read_launch
from pretraining.preflight import Plan, make_plan

SCRATCH = ["--method", "mlm", "--num_hidden_layers", "2", "--hidden_size", "32", "--num_attention_heads", "4", "--intermediate_size", "64",
           "--encoder_ln_mode", "post-ln", "--layernorm_embedding", "--max_position_embeddings", "64", "--precision", "fp32",
           "--train_batch_size", "8", "--train_micro_batch_size_per_gpu", "4", "--job_name", "job", "--current_run_id", "1"]  # fmt: skip


def plan(folder, *words) -> Plan:
    words = [*SCRATCH, "--dataset_path", folder / "shards", "--tokenizer_name", folder / "tok", "--output_dir", folder / "runs", *words]
    args = parse(list(map(str, words)))
    return make_plan(resolve(args, read_launch(args.run.local_rank)))


@pytest.fixture
def folder(tmp_path):
    make_tokenizer(tmp_path / "tok")
    return tmp_path


def write_foreign(folder, ids: int) -> None:
    """A shard without attributes whose ids are below `ids`."""
    folder.mkdir(exist_ok=True)
    arrays = sample_arrays(20, 32, "static", np.random.default_rng(0))
    for key in ("input_ids", "masked_lm_ids"):
        arrays[key] = np.minimum(arrays[key], ids - 1)
    with h5py.File(folder / "train_shard_0.hdf5", "w") as file:
        for key, values in arrays.items():
            file[key] = values


def test_a_student_of_foreign_shards_has_the_tokenizers_vocabulary(folder):
    write_foreign(folder / "shards", VOCABULARY)
    assert plan(folder).student.config["vocab_size"] == VOCABULARY
    small = folder / "small"
    small.mkdir()
    tokens = (folder / "tok" / "vocab.txt").read_text().split()
    (small / "vocab.txt").write_text("\n".join(tokens[:50]) + "\n")
    for flags in ([], ["--vocab_size", VOCABULARY]):
        with pytest.raises(UserError, match=r"input_ids holds \d+, expected numbers below 50 \(the run's tokenizer has 50 tokens"):
            plan(folder, "--tokenizer_name", small, *flags)
    write_foreign(folder / "shards", 50)
    assert plan(folder, "--tokenizer_name", small).student.config["vocab_size"] == 50


def test_foreign_rows_begin_with_the_tokenizers_start_token(folder):
    write_foreign(folder / "shards", VOCABULARY)
    with h5py.File(folder / "shards" / "train_shard_0.hdf5", "a") as file:
        file["input_ids"][7, 0] = 9
    with pytest.raises(UserError, match="row 7 begins with token 9, and the start token of the run's tokenizer is 2"):
        plan(folder)
    causal = plan(folder, "--model_type", "gpt2-clm", "--method", "clm", "--encoder_ln_mode", "pre-ln", "--layernorm_embedding", "false")
    assert causal.architecture.causal, "its rows may begin with text"


def test_masks_of_two_kinds_are_noted(folder):
    make_shards(folder / "shards", train=3)
    assert not [note for note in plan(folder).resolved.notes if "hold their masks" in note]
    make_shards(folder / "none", train=1, masking="none")
    (folder / "none" / "train_shard_0.hdf5").rename(folder / "shards" / "train_shard_3.hdf5")
    assert [note for note in plan(folder).resolved.notes if note.startswith("3 of 4 train shards hold their masks, the same in every")]


def test_token_counts_and_length_groups_that_are_in_force_are_said(folder):
    make_shards(folder / "shards", masking="none")
    count_tokens(["--dir", str(folder / "shards"), "-o", str(folder / "counts.json")])

    def told(*words) -> list[str]:
        return [note for note in plan(folder, *words).resolved.notes if note.startswith(("--token_counts", "--group_by_length"))]

    assert told() == []
    masks, lengths = told("--token_counts", folder / "counts.json", "--mlm_smoothing", "0.5", "--group_by_length")
    assert masks == f"--token_counts {folder / 'counts.json'}: training masks fall on rare tokens more often, by --mlm_smoothing 0.5"
    assert lengths == "--group_by_length: the samples of a step are cut into micro-batches by their length"
    assert "no effect" in " ".join(told("--group_by_length", "--train_batch_size", "4"))
