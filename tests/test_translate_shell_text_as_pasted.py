"""The translator as a command: shell text in every form people paste, quoting, mistakes in one line, ours left as it is, nothing heavy."""

import shlex
import subprocess
import sys
import time

import pytest
from cli_case import HEAVY, PROJECT, REPAIRED_FLAGS, clean_environment, command_line
from hypothesis import given, settings
from hypothesis import strategies as st
from translate_case import flags_of, ours, run_by_bash

import translate_command
from dataset.errors import UserError
from translation.conversions import product, quotient
from translation.shell import edit, parse_shell, value
from translation.systems import SCRIPTS
from translation.translate import translate

COUNT = "python scripts/token_counts.py --data_file {} --token_counts_dump {}"


def script(*arguments: str, text: str = "") -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(PROJECT / "translate_command.py"), *arguments], input=text, capture_output=True, text=True,
                          timeout=60, env=clean_environment(), cwd=PROJECT)


def test_the_command_line_and_standard_input_give_the_same_and_notes_are_comments():
    words = ["python", "train.py", "--dump_path", "my runs/first", "--data_file", "c.pickle", "--token_counts", "d.pickle", "--n_gpu", "1"]
    one, two = script("--", *words), script(text=shlex.join(words))
    assert (one.returncode, one.stdout, one.stderr) == (two.returncode, two.stdout, two.stderr) and one.returncode == 0
    assert one.stderr and all(line.startswith("# ") for line in one.stderr.splitlines())
    (made,) = run_by_bash(one.stdout)
    assert flags_of(made)["output_dir"] == "my runs" and flags_of(made)["job_name"] == "first"
    assert script("--", shlex.join(words)).stdout == one.stdout


def test_nothing_heavy_is_imported_and_an_answer_is_quick():
    code = ("import sys, translate_command\n"
            "translate_command.main(['--', 'python train.py --dump_path a --data_file b --token_counts c'])\n"
            f"sys.exit(any(name in sys.modules for name in {HEAVY!r}))")
    started = time.process_time()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=PROJECT, env=clean_environment())
    assert done.returncode == 0, done.stderr
    assert time.process_time() - started < 2


@pytest.mark.parametrize("text, line", [
    ("python trian.py --x 1", "line 1: trian.py is no script of the old systems; did you mean train.py?"),
    ("python -m dbert.finetune.clasifier", "did you mean dbert.finetune.classifier?"),
    ("cd x\npython train.py --dump_path a --data_file b --token_countz c", "line 2: unknown flag --token_countz of train.py; did you mean "
                                                                          "--token_counts?"),
    ("python run_pretraining.py --methd x", "unknown flag --methd of run_pretraining.py; did you mean --method?"),
    ("python train.py --student_typ distilbert", "unknown flag --student_typ of train.py; did you mean --student_type?"),
    ("python run_glue.py --task_nam x", "did you mean --task_name?"),
    ("python extract_jsons.py a", "'a' stands behind no flag of extract_jsons.py"),
    ("python extract_jsons.py --folder --write_file b", "--folder of extract_jsons.py has no value"),
    ("echo hello", "'echo' is no command of the old systems"),
    ("python train.py --dump_path 'a", "line 1: ' is not closed"),
    ("cat <<EOF | python train.py\nEOF", "a heredoc is not understood"),
    ("(cd x; python train.py)", "a subshell is not understood"),
    ("python train.py --dump_path $(echo a", "$ with an open bracket"),
    ("python train.py --dump_path a >", "no file behind >"),
    ("", "nothing is no command of the old systems"),
])
def test_a_mistake_is_one_line_with_what_would_work(text, line):
    with pytest.raises(UserError) as error:
        translate(text)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_a_mistake_ends_with_status_2_and_prints_no_command():
    for arguments, text in ((("--", "python", "trian.py"), ""), (("--folder", "a"), ""), ((), "python train.py --no_such_flag")):
        done = script(*arguments, text=text)
        assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ")


@pytest.mark.parametrize("text", [
    COUNT, "$ " + COUNT, "  % " + COUNT, "(env) $ " + COUNT, "me@box:~/x$ " + COUNT, "> " + COUNT, "Run " + COUNT,
    "```bash\n" + COUNT + "\n```",
    "# first\n" + COUNT + " # then", COUNT.replace(" --", " \\\n  --"), COUNT.replace(" --", " \\\r\n  --"), COUNT.replace(" --", "\n--"),
    COUNT.replace(" --", " \\\n> --"), COUNT.replace("--", "—"), COUNT.replace("--", "–"), COUNT.replace(" ", "\u00a0"), "\n\n" + COUNT,
    COUNT.replace("_file ", "_file="), COUNT.replace("_dump ", "_dump="), COUNT.replace("python", "python3.6"),
    COUNT.replace("scripts/token_counts.py", "~/old/scripts/token_counts.py"), COUNT.replace("python scripts", "./scripts"),
    COUNT + " -", COUNT + ";",
], ids=lambda text: repr(text)[1:30])
def test_every_form_of_a_command_is_one_command(text):
    assert ours(text.replace("{}", "a/b.pickle", 1).replace("{}", "c.pickle")) == [
        ["python", "dataset/count_tokens.py", "--dir", "a/b", "--output_file", "c.json"]]


def test_what_was_mended_is_said():
    said = {text: translate(text).notes for text in (
        "python extract_jsons.py \\  \n --folder a --write_file b", "python extract_jsons.py\n--folder a\n--write_file b",
        "python extract_jsons.py –folder a --write_file b", "python extract_jsons.py \\\n --folder a --write_file b")}
    blanks, lines, dashes, none = said.values()
    assert any(note.startswith("line 1: blanks behind the backslash") for note in blanks)
    assert any(note.startswith("flags at the beginning of line 2, 3 belong to the command above") for note in lines)
    assert any(note == "line 1: –folder is read as --folder" for note in dashes)
    assert len(none) < min(len(blanks), len(lines), len(dashes))


@pytest.mark.parametrize("word, folder", [
    ("'my data/x.pickle'", "my data/x"), ('"my data/x.pickle"', "my data/x"), ("my\\ data/x.pickle", "my data/x"),
    ("$D/x.pickle", "/d d/x"), ('"$D/x.pickle"', "/d d/x"), ("$D/'x y'.pickle", "/d d/x y"), ("${F}", "some/f"), ('"$F"', "some/f"),
    ("~/x.pickle", "/home/user/x"), ("'it'\\''s.pickle'", "it's"), ("\"a'b.pickle\"", "a'b"), ("'$D.pickle'", "$D"), ("x.pickle", "x"),
])
def test_quotes_and_variables_mean_what_they_meant(word, folder):
    words = run_by_bash(translate(COUNT.format(word, "c.pickle")).text, D="/d d", F="some/f.pickle")
    if word.startswith("$") and not word.startswith("${"):  # bare, as in the old command, where bash splits it as well
        folder_words = ["/d", "d" + folder.removeprefix("/d d")] if " " not in folder[4:] else None
        assert words == [["python", "dataset/count_tokens.py", "--dir", *(folder_words or [folder]), "--output_file", "c.json"]]
    else:
        assert words == [["python", "dataset/count_tokens.py", "--dir", folder, "--output_file", "c.json"]]


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20).filter(lambda text: text[0] not in "-("))
@settings(max_examples=200, deadline=None)
def test_any_text_that_is_quoted_comes_through(text):
    (command,), notes = parse_shell(f"python x.py --flag {shlex.quote(text)} --other")
    assert not notes and len(command.words) == 5
    assert value(command.words[3]) == text and shlex.split(edit(command.words[3], lambda word: word)) == [text]


@given(st.text("ab /$'\"\\`(){}<>|&;#\n-*~=—", max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused_in_one_line(text):
    try:
        translate(f"python extract_jsons.py --folder a --write_file b\n{text}")
    except UserError as error:
        assert "\n" not in str(error)


def test_operators_and_redirections_keep_their_meaning():
    """One old command becomes three: behind || and in a pipe all three belong together."""
    binarize, counts = "python scripts/binarized_data.py --dump_file d", COUNT.format("a.pickle", "b.pickle")
    assert len(ours(f"{binarize} && {counts}")) == 4
    assert len(ours(f"false && {binarize}; {counts}")) == 1
    assert len(ours(f"true || {binarize}\n{counts}")) == 1
    assert len(ours(f"{binarize} > /dev/null 2>&1 &\nwait\n{counts}")) == 4
    assert len(ours(f"for i in 1 2; do {binarize}; done")) == 6
    assert translate(f"{counts} 2> err.txt | tee log").text.endswith("--output_file b.json 2> err.txt |\ntee log")
    assert translate(f"CUDA_VISIBLE_DEVICES=0,1 nohup python -u {counts[7:]} &").text.startswith(
        "CUDA_VISIBLE_DEVICES=0,1 nohup python -u dataset/count_tokens.py")


def test_placeholders_of_pages_stay_placeholders():
    result = translate("python -m dbert.distill.run.augment_data --dataset_file (the TSV (dataset) file) > (the output file)")
    assert result.text.endswith("augment --window_prob 0 --task_name TASK --glue_dir GLUE --output '(the output file)'")
    result = translate("python -m dbert.generate.sample_gpt --prefix-file (the prefixes (of it)) --resume (a (model) file)")
    assert "--lm_path '(a (model) file)/language_model'" in result.text
    result = translate("export PORT=<A_PORT>\n" + COUNT.format("<path/to-it>", "b") + " 2> <log.txt>")
    assert result.text.startswith("export PORT=A_PORT\n") and result.text.endswith("--dir PATH_TO_IT --output_file b.json 2> LOG_TXT")
    assert result.notes[:2] == ["line 1: <A_PORT>: put yours in the place of A_PORT", "line 2: <path/to-it>: put yours in the place of "
                                                                                      "PATH_TO_IT"]


@pytest.mark.parametrize("text, line", [
    ("Wikipedia's text.\n\npython extract_jsons.py --folder a --write_file b\n\nIf you don't:\npython split_text.py", 1),
    ("python split_text.py\nA page's python extract_jsons.py, and don't", 2),
    ("python split_text.py --folder 'a\npython extract_jsons.py\nb'", 1),
    ("python split_text.py\n\necho \"one\ntwo\"", 3),
])
def test_commands_that_an_apostrophe_swallows_are_no_value(text, line):
    with pytest.raises(UserError, match=rf"^line {line}: a quote opens here and holds (extract_jsons.py|2 lines), which would not be"):
        translate(text)


def test_quotes_that_swallow_nothing_stay():
    assert "pkill -f 'python -u train.py'" in translate("pkill -f 'python -u train.py'\n" + COUNT.format("a", "b")).text
    assert run_by_bash(translate(COUNT.format("'a\nb'", "c")).text)[0][3] == "a\nb"


def test_notes_of_several_commands_name_the_line_of_each():
    """One note for all that it is true of; a single command needs no number."""
    commands = ["python extract_jsons.py --folder a --write_file b", "python extract_jsons.py \\\n--folder a", "python scripts/extract.py"]
    said = translate("\n".join(commands)).notes
    assert "line 1, 2: sentences are split by the next step, shard_data.py" in said
    assert any(note.startswith("line 2: --output_dir TEXT: put in") for note in said)
    assert any(note.startswith("line 4: --output_dir STUDENT: put in") for note in said)
    assert translate(commands[0]).notes == ["sentences are split by the next step, shard_data.py"]


@pytest.mark.parametrize("start", ["python", "python -u", "torchrun --nproc_per_node 4", "deepspeed", "mpirun -np 2 python",
                                   "CUDA_VISIBLE_DEVICES=1 python", "python -m torch.distributed.run --nproc_per_node=2"])
def test_a_command_of_ours_stays_itself(start):
    flags = shlex.join(command_line(REPAIRED_FLAGS | {"precision": "fp32", "zero_stage": "1", "resume": None, "validation_samples": "10"}))
    for command in (f"{start} run_pretraining.py {flags}", f"{start} extract_teacher_outputs.py --dataset_path s --output_dir c"):
        result = translate(command)
        assert shlex.split(result.text.replace("\\\n", "")) == shlex.split(command)
        assert translate(result.text).text == result.text and result.notes


@pytest.mark.parametrize("command", [
    "python dataset/process_data.py --file x --type lines --output_dir y", "python -m dataset.shard_data --dir x --output_dir y "
                                                                           "--overwrite",
    "python dataset/split_text.py --read_file x --split_number 3 --folder y --name_base training", "python -m evaluation.sweep x.yaml "
                                                                                                   "--run",
    "python dataset/generate_samples.py --dir x -o y --model_name z --masking none --nsp --max_predictions_per_seq 20",
    "python -m pretraining.extract_student --teacher_path x --output_dir y", "python -m evaluation.report x",
    "python run_glue.py --run_dir x --task_name sst2,rte --glue_dir y --protocol quick --seeds 1,2 --with_teacher --do_train true",
    "python dataset/count_tokens.py --dir x --output_file y", "python dataset/merge_shards.py --data x --output_dir y --ratio 2 "
                                                              "--overwrite",
])
def test_other_commands_of_ours_stay_themselves(command):
    assert shlex.split(translate(command).text.replace("\\\n", "")) == command.split()


def test_what_the_translator_prints_it_leaves_as_it_is():
    for script_ in SCRIPTS:
        text = translate(script_.example).text
        if script_.steps and script_.names[0] != "WikiExtractor.py":
            assert translate(text).text == text


def test_a_configuration_that_is_at_hand_gives_the_students_shape(tmp_path):
    (tmp_path / "bert_config.json").write_text('{"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, '
                                               '"intermediate_size": 512, "vocab_size": 99}')
    command = ("python network_distillation_single_machine_truncated.py --input_file d/x.tfrecord --output_dir o --do_train True "
               "--bert_config_file ")
    flags = flags_of(ours(f"{command}{tmp_path}/bert_config.json")[0])
    assert (flags["hidden_size"], flags["num_hidden_layers"], flags["vocab_size"]) == ("128", "2", "99")
    assert flags_of(ours(f"{command}elsewhere/bert_config.json")[0])["hidden_size"] == "WIDTH"
    (tmp_path / "student.json").write_text('{"dim": 64, "n_layers": 3, "n_heads": 4, "hidden_dim": 256, "vocab_size": 50}')
    flags = flags_of(ours("python train.py --dump_path a --data_file b --token_counts c --student_type distilbert --teacher_type bert "
                          f"--teacher_name t --mlm --student_config {tmp_path}/student.json")[0])
    assert (flags["hidden_size"], flags["num_hidden_layers"], flags["intermediate_size"]) == ("64", "3", "256")


def test_products_and_quotients_are_numbers_or_the_shells_arithmetic():
    assert product("5", "50", "4") == "1000" and product("2", "$A", "${B}") == "$((2 * A * B))" and product("1", "$A") == "$((A))"
    assert product("5", product("$A", "$B")) == "$((5 * A * B))" and product("5", "RANKS") == "PRODUCT"
    assert quotient("4000", "50") == "80" and quotient("10", "50") == "1" and quotient("$A", "50") == "$((A / 50))"
    assert quotient("100", "RANKS") == "QUOTIENT" and quotient("$A", "1") == "$A"


def test_processes_are_counted_over_all_nodes():
    train = "train.py --dump_path a/b --data_file c --token_counts d --batch_size 2 --gradient_accumulation_steps 3"
    for start, ranks in (("torchrun --nproc-per-node=4 --nnodes 2", 8), ("deepspeed --num_nodes 2 --num_gpus 2", 4), ("mpirun -np 3 "
                                                                                                                      "python", 3),
                         ("python", 1), ("horovodrun -np 5 python", 5), ("python -m torch.distributed.launch", 1)):
        assert flags_of(ours(f"{start} {train}")[-1])["train_batch_size"] == str(6 * ranks), start


def test_help_is_the_commands_docstring(capsys):
    translate_command.main(["--help"])
    assert "docs/migrating.md" in capsys.readouterr().out
