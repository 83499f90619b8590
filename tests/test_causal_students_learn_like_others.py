"""GPT-2 to a GPT-2 of half its layers by the recipe of DistilGPT2: samples of a tokenizer without mask token, KL, next token and cosine in
one run, perplexity, a stop that changes no bit, and an export for AutoModelForCausalLM."""

import math
import signal
from pathlib import Path

import h5py
import pytest
import torch
import transformers
from launching import ROOT, events, losses, summary, without_times
from recipes_case import make_causal_tokenizer, text_to_samples, write_text
from stops_case import last_export, same
from tiny import make_model

from dataset.errors import UserError
from dataset.tokenizer import load_tokenizer, special_ids
from pretraining.extract_student import extract, parse_flags

VOCABULARY, END = 257, 256
STEPS, CUT = 10, 4
POSITIONS = "transformer.wpe.weight"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("causal")
    teacher = make_model("gpt2", layers=12, vocab=VOCABULARY)
    teacher.config.bos_token_id = teacher.config.eos_token_id = END
    teacher.save_pretrained(make_causal_tokenizer(folder / "teacher"))
    text_to_samples(folder, write_text(folder / "dump.txt", sequences=40), folder / "teacher", "--masking", "none", length=64)
    extract(parse_flags(["--teacher_path", str(folder / "teacher"), "--student_layers", "distilbert", "--num_hidden_layers", "6",
                         "--output_dir", str(folder / "students" / "distilgpt2")]))
    return folder


def flags(place: Path, run: str, *more: str) -> list[str]:
    return ["--config", str(ROOT / "configs" / "distilgpt2.yaml"), "--teacher_path", str(place / "teacher"), "--student_initialize",
            str(place / "students" / "distilgpt2"), "--dataset_path", str(place / "samples"), "--output_dir", str(place / "runs"),
            "--current_run_id", run, "--train_batch_size", "8", "--train_micro_batch_size_per_gpu", "2", "--max_steps", str(STEPS),
            "--clock", "simulated:60", "--total_training_time", "0.166", "--lr", "2e-3", "--weight_decay", "0.1", "--print_steps", "1",
            "--precision", "fp32", *more]


def run_of(place: Path, name: str) -> Path:
    return place / "runs" / "distilgpt2" / name


@pytest.fixture(scope="module")
def straight(place, zygote) -> Path:
    zygote.run(flags(place, "straight"), ranks=2)
    return run_of(place, "straight")


def test_samples_of_a_tokenizer_without_mask_are_whole_text(place):
    ids = special_ids(load_tokenizer(place / "teacher"))
    assert (ids.pad, ids.cls, ids.sep, ids.mask, ids.unk, ids.all) == (END, END, END, None, None, {END})
    tokenizer, text = load_tokenizer(place / "teacher"), ""
    with h5py.File(place / "samples" / "train_shard_0.hdf5") as file:
        assert not {"mask_token_id", "unk_token_id"} & set(file.attrs) and file.attrs["cls_token_id"] == END
        assert "masked_lm_positions" not in file
        for row, mask in zip(file["input_ids"][:], file["input_mask"][:], strict=True):
            real = row[: mask.sum()]
            assert real[0] == END == real[-1] and END not in real[1:-1] and (row[mask.sum():] == END).all()
            text += tokenizer.decode(real[1:-1].tolist())
    source = (place / "shards" / "training0.txt").read_text(encoding="utf-8")
    assert text == source.replace("\n\n", "").replace("\n", " ")


@pytest.mark.parametrize("wrong", [["--masking", "static"], ["--masking", "none", "--nsp"], ["--masking", "none", "--whole_word_masking"]])
def test_what_needs_a_mask_token_is_refused_in_one_line(place, tmp_path, wrong):
    with pytest.raises(UserError, match=r"the tokenizer has no mask token; .*--masking none for a causal student, would work") as caught:
        text_to_samples(tmp_path, place / "dump.txt", place / "teacher", *wrong)
    assert "\n" not in str(caught.value) and not (tmp_path / "samples").exists()


def test_the_recipe_learns_and_tells_perplexity(straight):
    done = summary(straight)
    assert done["steps"] == STEPS and losses(straight)[-1] < losses(straight)[0]
    terms = {name.split("/")[1] for event in events(straight) for name in event if name.startswith("loss/")}
    assert terms == {"logit", "clm", "cosine"}
    for event in events(straight, "validation"):
        assert event["perplexity/clm"] == pytest.approx(math.exp(event["loss/clm"]), rel=1e-12)
        assert not any(name.startswith("accuracy") for name in event)
    assert done["quality"] == {"perplexity/clm": events(straight, "validation")[-1]["perplexity/clm"]}


def test_perplexity_is_that_of_the_export(place, straight):
    marker = straight / "finetune" / summary(straight)["markers"][-1]
    model, info = transformers.AutoModelForCausalLM.from_pretrained(marker, output_loading_info=True)
    assert type(model) is transformers.GPT2LMHeadModel and model.config.n_layer == 6
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    total, count, model = 0.0, 0, model.eval().double()
    with h5py.File(place / "samples" / "test_shard_0.hdf5") as file, torch.no_grad():
        for row, mask in zip(file["input_ids"][:], file["input_mask"][:], strict=True):
            ids = torch.from_numpy(row[: mask.sum()]).long()[None]
            scores = torch.log_softmax(model(ids).logits[0, :-1], -1)
            total -= scores.gather(1, ids[0, 1:, None]).sum().item()
            count += ids.shape[1] - 1
    assert summary(straight)["quality"]["perplexity/clm"] == pytest.approx(math.exp(total / count), rel=1e-5)
    assert f"| perplexity/clm | {summary(straight)['quality']['perplexity/clm']:.6g} |" in (marker / "README.md").read_text()
    tokenizer = transformers.AutoTokenizer.from_pretrained(marker)
    assert tokenizer("ba dora")["input_ids"] == load_tokenizer(place / "teacher").encode("ba dora").ids


def test_positions_stay_the_teachers_to_the_bit(place, straight):
    first, last = (transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (
        place / "teacher", straight / "finetune" / summary(straight)["markers"][-1]))
    assert torch.equal(first[POSITIONS], last[POSITIONS])
    assert not torch.equal(first["transformer.wte.weight"], last["transformer.wte.weight"])


def test_a_stopped_run_goes_on_bit_for_bit(place, zygote, straight):
    stop = {"signal_after": {"step": CUT, "number": int(signal.SIGTERM)}}
    zygote.run(flags(place, "cut"), ranks=2, status=75, patches=stop)
    zygote.run(flags(place, "cut", "--resume"), ranks=2)
    cut = run_of(place, "cut")
    told = [[event for event in without_times(run) if event["event"] in ("train", "validation")] for run in (cut, straight)]
    assert told[0] == told[1] and same(last_export(cut), last_export(straight))


def test_positions_stay_under_zero_and_bf16_too(place, zygote):
    zygote.run(flags(place, "zero", "--zero_stage", "1", "--precision", "bf16", "--max_steps", "3", "--do_validation", "false"))
    last = last_export(run_of(place, "zero"))
    teacher = transformers.AutoModelForCausalLM.from_pretrained(place / "teacher").state_dict()
    assert torch.equal(last[POSITIONS], teacher[POSITIONS])
    assert not torch.equal(last["transformer.h.0.attn.c_attn.weight"], teacher["transformer.h.0.attn.c_attn.weight"])


def test_a_causal_student_of_distilberts_weights_is_told_which_are_its_own(place, zygote):
    done = zygote.run(flags(place, "wrong", "--alpha_mlm", "2"), status=2)
    assert "--method distilbert: the student (gpt2) is a causal model" in done.stderr() and "clm" in done.stderr()


