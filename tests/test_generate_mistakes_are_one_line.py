"""Wrong input to `generate` is one line, and comes before torch is imported where flags and files show it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from generation_case import new_config, save_lm
from tiny_glue import make_model, write_sst2

from dataset.errors import UserError
from task_distillation.generation import command
from task_distillation.generation.lm_folder import check_causal

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_sst2(folder / "glue", train=8, dev=4)
    save_lm(folder / "lm")
    new_config(folder / "lm.json")
    make_model(folder / "bert")
    (folder / "empty").mkdir()
    for name, left_out in (("no_weights", "model.safetensors"), ("no_tokenizer", "tokenizer.json")):
        shutil.copytree(folder / "lm", folder / name)
        (folder / name / left_out).unlink()
    for name, text in (
        ("torn.json", "{"), ("list.json", "[]"), ("typeless.json", '{"n_layer": 4}'),
        ("size.json", '{"model_type": "gpt2", "vocab_size": 1.5}'), ("names.json", '{"model_type": "gpt2", "architectures": "GPT2"}'),
        ("bert.json", '{"model_type": "bert"}'), ("t5.json", '{"model_type": "t5"}'),
        ("short.json", '{"model_type": "gpt2", "n_positions": 16}'),
        ("unknown.json", '{"model_type": "no_such_model"}'),
        ("typo.json", '{"model_type": "gpt2", "n_positions": 128, "n_layers": 2}'),
        ("heads.json", '{"model_type": "gpt2", "n_embd": 30, "n_head": 4}'),
        ("xlnet.json", '{"model_type": "xlnet", "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 16}'),
    ):
        (folder / name).write_text(text)
    return folder


def flags(inputs: Path, output: Path, words: str) -> list[str]:
    """`words` with file names of `inputs`; each begins with @."""
    named = [str(inputs / word[1:]) if word[0] == "@" else word for word in words.split()]
    return ["--output_dir", str(output), "--devices", "cpu", *named]


TASK = "--task_name sst2 --glue_dir @glue"
GOOD = f"{TASK} --lm_path @lm --max_length 32 --max_new_tokens 32"


@pytest.mark.parametrize(("words", "line"), [
    (TASK, "no language model named; --lm_path FOLDER"),
    (f"{TASK} --lm_path @lm --lm_config @lm.json", "--lm_path and --lm_config: two language models"),
    (f"{TASK} --lm_config @lm.json --only sample", "--only sample --lm_config: a new model has learned nothing"),
    (f"{TASK} --lm_path @lm --lm_tokenizer @lm", "--lm_tokenizer: the folder of --lm_path brings its own"),
    ("--lm_path @lm --max_length 32 --max_new_tokens 32", "no task named"),
    (f"{GOOD} --num_samples 0", "--num_samples 0; 1 or more would work"),
    (f"{GOOD} --num_samples many", "argument --num_samples: invalid"),
    (f"{GOOD} --learning_rate 0", "--learning_rate 0.0; more than 0"),
    (f"{GOOD} --temperature nan", "--temperature nan; more than 0"),
    (f"{GOOD} --top_p 1.5", "--top_p 1.5; more than 0 and up to 1 would work"),
    (f"{GOOD} --top_k -1", "--top_k -1; 0 or more"),
    (f"{GOOD} --warmup_proportion 2", "--warmup_proportion 2.0; 0 to 1"),
    (f"{GOOD} --num_train_epochs 0", "--num_train_epochs 0; 1 or more"),
    (f"{GOOD} --precision fp16", "invalid choice: 'fp16'"),
    (f"{GOOD} --topk 4", "unknown flag --topk; did you mean --top_k?"),
    (f"{TASK} --lm_path @nowhere", "nowhere: no such folder"),
    (f"{TASK} --lm_path @empty", "no config.json"),
    (f"{TASK} --lm_path @bert", "bert: a language model that is not causal (bert, BertForMaskedLM); a GPT-2"),
    (f"{TASK} --lm_path @no_weights --max_length 32 --max_new_tokens 32", "no weights"),
    (f"{TASK} --lm_path @no_tokenizer", "no_tokenizer: no tokenizer"),
    (f"{TASK} --lm_path @lm", "--max_length 128: the language model in"),
    (f"{TASK} --lm_path @lm --max_length 32", "lm has 64 positions; --max_new_tokens 64 would work"),
    (f"{TASK} --lm_config @nowhere.json", "nowhere.json: No such file or directory"),
    (f"{TASK} --lm_config @torn.json", "torn.json: not JSON"),
    (f"{TASK} --lm_config @list.json", "list.json: no model_type"),
    (f"{TASK} --lm_config @typeless.json", "typeless.json: no model_type"),
    (f"{TASK} --lm_config @size.json", "size.json: vocab_size is 1.5"),
    (f"{TASK} --lm_config @names.json", "names.json: architectures is 'GPT2'"),
    (f"{TASK} --lm_config @bert.json", "bert.json: a language model that is not causal (bert)"),
    (f"{TASK} --lm_config @t5.json", "t5.json: a language model that is not causal (t5)"),
    (f"{TASK} --lm_config @short.json", "short.json has 16 positions; --max_length 16 would work"),
    (f"{TASK} --lm_config @lm.json --lm_tokenizer @empty --max_length 32 --max_new_tokens 32", "empty: no tokenizer"),
    ("--task_name sst2 --glue_dir @empty --lm_path @lm --max_length 32 --max_new_tokens 32", "SST-2"),
])
def test_flags_and_files_are_checked_first(words, line, inputs, tmp_path):
    with pytest.raises(UserError) as found:
        command.make_plan(flags(inputs, tmp_path / "out", words))
    assert line in str(found.value)
    assert "\n" not in str(found.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("words", "line"), [
    (f"{TASK} --lm_config @unknown.json", "unknown.json: transformers cannot make a causal language model of it"),
    (f"{TASK} --lm_config @typo.json", "typo.json: gpt2 has no 'n_layers'; did you mean n_layer?"),
    (f"{TASK} --lm_config @heads.json", "heads.json: transformers cannot make a causal language model of it"),
    (f"{TASK} --lm_config @xlnet.json", "xlnet.json: a language model that is not causal (xlnet)"),
    (f"{GOOD} --devices cuda:7", "--devices cuda:7: cuda:7 is not here"),
    (f"{GOOD} --split_encode", "--split_encode: the tokenizer of"),
    (f"{TASK} --lm_path @torn --max_length 32 --max_new_tokens 32", "torn: transformers cannot load it"),
    (f"{TASK} --lm_path @small --max_length 32 --max_new_tokens 32", "weights are missing"),
    (f"{TASK} --lm_path @words --max_length 32 --max_new_tokens 32", "words: the tokenizer has 7 tokens and the model 6"),
    (f"{TASK} --lm_path @endless --max_length 32 --max_new_tokens 32", "no token that ends a text"),
])
def test_what_only_transformers_can_tell_is_one_line_too(words, line, inputs, tmp_path):
    for name in ("torn", "small", "words", "endless"):
        shutil.copytree(inputs / "lm", inputs / name, dirs_exist_ok=True)
    (inputs / "torn" / "model.safetensors").write_bytes(b"\0" * 100)
    deeper = json.loads((inputs / "lm" / "config.json").read_text()) | {"n_layer": 3}
    (inputs / "small" / "config.json").write_text(json.dumps(deeper))
    raw = json.loads((inputs / "lm" / "tokenizer.json").read_text())
    raw["model"]["vocab"]["more"] = 6
    (inputs / "words" / "tokenizer.json").write_text(json.dumps(raw))
    (inputs / "endless" / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(UserError) as found:
        command.main(flags(inputs, tmp_path / "out", words))
    assert line in str(found.value)
    assert "\n" not in str(found.value)


def test_an_encoder_is_refused_before_torch_is_imported(inputs, tmp_path):
    words = flags(inputs, tmp_path / "out", f"{TASK} --lm_path @bert")
    program = ("import sys; from task_distillation.generation.command import main; from dataset.errors import run_script\n"
               f"try:\n    main({words!r})\nfinally:\n    assert 'torch' not in sys.modules\n")
    program = f"import sys\nfrom dataset.errors import run_script\ndef go():\n    exec({program!r})\nrun_script(go)"
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "not causal" in done.stderr


@pytest.mark.parametrize("config", [
    {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, {"model_type": "llama"}, {"model_type": "starcoder2"},
    {"model_type": "bert", "architectures": ["BertLMHeadModel"], "is_decoder": True},
    {"model_type": "gpt2", "architectures": ["GPT2Model"]},
    {"model_type": "modernbert-decoder", "architectures": ["ModernBertDecoderForCausalLM"]},
    {"model_type": "openai-gpt", "architectures": ["OpenAIGPTLMHeadModel"]}, {"model_type": "mamba"},
])
def test_causal_models_pass(config):
    check_causal(Path("folder"), config)


@pytest.mark.parametrize("config", [
    {"model_type": "roberta", "architectures": ["RobertaForMaskedLM"]}, {"model_type": "bert", "architectures": ["BertLMHeadModel"]},
    {"model_type": "bart", "architectures": ["BartForConditionalGeneration"], "is_encoder_decoder": True}, {"model_type": "mt5"},
    {"model_type": "vit", "architectures": ["ViTForImageClassification"]}, {"model_type": "electra"}, {"model_type": "xlm-roberta"},
])
def test_others_do_not(config):
    with pytest.raises(UserError, match="not causal"):
        check_causal(Path("folder"), config)


def test_flags_without_effect_say_so(inputs, tmp_path, capsys):
    command.make_plan(flags(inputs, tmp_path, f"{GOOD} --only sample --learning_rate 1e-3"))
    assert "--learning_rate 0.001: no effect: --only sample, nothing is trained" in capsys.readouterr().out
    command.make_plan(flags(inputs, tmp_path, f"{GOOD} --only finetune --top_k 3"))
    assert "--top_k 3: no effect: --only finetune, nothing is drawn" in capsys.readouterr().out
    command.make_plan(flags(inputs, tmp_path, GOOD))
    assert "no effect" not in capsys.readouterr().out
