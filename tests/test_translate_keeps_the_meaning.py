"""The translator turns no switch the other way, starts no training that the old command did not, and expands what the old command did."""

import re

import pytest
from translate_case import accept, flags_of, ours, run_by_bash

from dataset.errors import UserError
from translation.translate import translate

TRAIN = "python network_distillation_single_machine_truncated.py --bert_config_file b/bert_config.json --input_file d/x.tfrecord"
NEW = "train.py --dump_path a/b --data_file c --token_counts d --teacher_type bert --teacher_name t"
CAUSAL = "train.py --dump_path a/b --data_file c --token_counts d --teacher_type gpt2 --teacher_name t --student_type gpt2"


@pytest.mark.parametrize("flags", ["--do_train=perhaps --do_eval=true", "--do_train=true --do_eval=nope"])
def test_a_boolean_is_true_or_false(flags):
    with pytest.raises(UserError, match=r"line 1: --do_\w+=\w+ of network_\w+.py: true or false is needed"):
        translate(f"{TRAIN} --output_dir runs/s {flags}")
    with pytest.raises(UserError, match=r"--do_lower_case=perhaps .*true or false"):
        translate("python multifile_create_pretraining_data.py --input_dir a --output_dir b --output_base_name c --vocab_file d "
                  "--do_lower_case=perhaps")


@pytest.mark.parametrize("flags", ["--do_train=False --do_eval=true", "--nodo_train --do_eval", "--do_train False", "--do_eval True"])
def test_what_does_not_train_does_not_train(flags):
    result = translate(f"{TRAIN} --output_dir runs/s {flags}")
    assert run_by_bash(result.text) == [] and result.text.startswith("# python run_pretraining.py")
    assert any("no command that only measures" in note for note in result.notes)
    assert ours(f"echo a && {TRAIN} --output_dir runs/s {flags} && {TRAIN} --output_dir runs/t --do_train")[-1][1] == "run_pretraining.py"


def test_a_boolean_with_no_in_front_is_off():
    assert "--do_validation" not in ours(f"{TRAIN} --output_dir runs/s --do_train --nodo_eval")[0]
    samples = ours("python multifile_create_pretraining_data.py --input_dir a --output_dir b --output_base_name c --vocab_file d "
                   "--nodo_lower_case")[0]
    assert flags_of(samples)["do_lower_case"] == "0"
    with pytest.raises(UserError, match="unknown flag --nooutput_dir"):
        translate(f"{TRAIN} --nooutput_dir")


@pytest.mark.parametrize("word, found", [
    ("`echo d.pickle`", "d.pickle"), ("`echo 'd e'`", "d"), ("\"`echo d.pickle`\"", "d.pickle"), ("$(echo d.pickle)", "d.pickle"),
    ("'`echo d`'", "`echo d`"),
])
def test_commands_in_a_word_are_run_as_before(word, found):
    assert flags_of(ours(f"python {NEW} --student_type distilbert --student_config s".replace("--data_file c", f"--data_file {word}"))[0])[
        "dataset_path"] == found


def test_blanks_in_a_default_stay():
    made = flags_of(ours(f"{TRAIN} --output_dir runs/${{NAME:-x y}} --do_train")[0])
    assert (made["output_dir"], made["job_name"]) == ("runs", "x y")
    made = flags_of(ours(f"{TRAIN} --output_dir \"runs/${{NAME:-x y}}\" --do_train", NAME="n m")[0])
    assert (made["output_dir"], made["job_name"]) == ("runs", "n m")


@pytest.mark.parametrize("folder", ["/", ".", "..", "./"])
def test_a_run_has_a_name(folder):
    made = flags_of(ours(f"{TRAIN} --output_dir {folder} --do_train")[0])
    assert (made["output_dir"], made["job_name"]) == (folder, "run")


def test_a_launcher_whose_environment_is_not_read_becomes_one_whose_is():
    distributed = TRAIN.replace("single_machine", "distributed")
    result = translate(f"horovodrun --gloo --num-proc 4 -H localhost:4 {distributed} --output_dir runs/s --do_train")
    made = run_by_bash(result.text)[0]
    assert made[:7] == ["mpirun", "-np", "4", "-H", "localhost:4", "python", "run_pretraining.py"] and flags_of(made)["lr"] == "0.0002"
    assert any("HOROVOD_RANK and HOROVOD_SIZE are not read; left out: --gloo" in note for note in result.notes)
    assert ours(f"mpirun -np 4 {distributed} --output_dir runs/s --do_train")[0][:3] == ["mpirun", "-np", "4"]


def test_what_the_old_command_left_out_is_named():
    result = translate(f"python {NEW} --student_type distilbert --alpha_cos 1")
    assert any(note.startswith("no --student_config: put the student's numbers in the place of LAYERS") for note in result.notes)
    result = translate("python extract_teacher_labels_truncated.py --input_file a/b.tfrecord --output_file c/d.tfrecord")
    assert flags_of(run_by_bash(result.text)[0])["teacher_path"] == "TEACHER"
    assert any("put in the teacher's folder" in note for note in result.notes)


@pytest.mark.parametrize("given, alphas", [
    ("--alpha_mlm 2.0", ("0", "0.5")), ("--alpha_clm 0", ("0.0", "2")), ("--alpha_mlm 2 --alpha_clm 0.0", ("0", "2")),
    ("", ("0.0", "0.5"))])
def test_a_causal_student_learns_from_its_text(given, alphas):
    made = flags_of(ours(f"python {CAUSAL} --student_config distilgpt2.json {given}")[0])
    assert (made["alpha_mlm"], made["alpha_clm"]) == alphas


@pytest.mark.parametrize("flags, alphas, said", [
    ("--alpha_mlm 2.0", ("2.0", "0"), "the old default of --alpha_clm, 0.5, is for causal"),
    ("--alpha_mlm 1 --alpha_clm 0.5", ("1", "0"), "--alpha_clm 0: --alpha_clm 0.5, is for causal"),
    ("--alpha_mlm 1 --alpha_clm 0.0", ("1", "0.0"), None)])
def test_an_encoder_learns_from_masked_tokens_alone(flags, alphas, said):
    command = f"python {NEW} --student_type distilbert --student_config s --mlm {flags}"
    made, notes = flags_of(ours(command)[0]), translate(command).notes
    assert (made["alpha_mlm"], made["alpha_clm"]) == alphas
    assert [said in note for note in notes if "alpha_clm" in note] == [True] * (said is not None)


# what stands in front of the script -> words in capitals in the place of what the old command does not say
BARE = {
    "python train.py --student_type distilbert --teacher_type bert --mlm --alpha_ce 5.0 --alpha_mlm 2.0":
        "TEACHER SAMPLES RUNS HOURS LAYERS HEADS WIDTH INNER_WIDTH",
    "python train.py --bert_model b": "SAMPLES RUNS HOURS", "python extract_jsons.py": "EXTRACTED TEXT",
    "python scripts/extract.py --model_type roberta": "STUDENT", "python split_text.py": "TEXT SHARDS PARTS",
    "python multifile_create_pretraining_data.py": "SHARDS SAMPLES VOCABULARY_FILE",
    "python create_pretraining_data.py": "SHARDS SAMPLES VOCABULARY_FILE",
    "python extract_teacher_labels_truncated.py": "TEACHER SAMPLES CACHE", "python run_squad.py": "MODEL SCORES FOLDER",
    "python network_distillation_single_machine_truncated.py --do_train":
        "CACHE SAMPLES RUNS LAYERS WIDTH HEADS INNER_WIDTH VOCABULARY_FILE",
    "python run_classifier.py": "GLUE TASK MODEL SCORES", "python WikiExtractor.py": "DUMP",
    "python generate_training_commands.py": "RECIPE",
}


@pytest.mark.parametrize("command", BARE)
def test_what_our_command_needs_and_nothing_gave_is_a_word_in_capitals(command, tmp_path):
    """Filled in, the command is one that our parser takes."""
    result = translate(command)
    (words,) = run_by_bash(result.text)
    assert sorted(word for word in words if word.isupper()) == sorted(BARE[command].split())
    for word in BARE[command].split():
        assert any(re.search(rf"\b{word}\b", note) for note in result.notes), word
    accept(words, tmp_path)


def test_a_name_of_the_hub_beside_a_teacher_is_said():
    def said(words: str) -> list[str]:
        return [note for note in translate(f"deepspeed run_pretraining.py {words}").notes if note.startswith("--tokenizer_name")]

    assert len(said("--tokenizer_name bert-base-uncased --teacher_path t")) == 1
    assert not said("--tokenizer_name bert-base-uncased") and not said("--tokenizer_name a/b --teacher_path t")
