"""The offline pipeline (files 000 and 001): extraction, split, samples, stored teacher outputs, student; TensorFlow 1 and Horovod."""

from translation.calls import Translation
from translation.conversions import digit, folder_of, number, samples_of_text, without_ending
from translation.rules import (
    a_year,
    batch_of_one,
    folders_of_samples,
    google_checkpoint,
    google_shape,
    held_out,
    horovod_scales,
    remember_samples,
    run_folder,
)
from translation.shell import value
from translation.systems.glue import GLUE_FOLDER, glue_tasks
from translation.table import Flag, Script, Step, System, Takes, To, renamed, without_effect

_LENGTH = "samples have the length that generate_samples.py --max_seq_length gave them"
_TPU = "there is no TPU here"
TPU = (
    Flag("use_tpu", takes=Takes.BOOLEAN, unsupported="CUDA devices and CPUs are", fine=("false",)),
    *without_effect("tpu_name tpu_zone gcp_project master num_tpu_cores iterations_per_loop", _TPU),
)


def split_shards(call: Translation) -> None:
    """As many training shards as parts, and a tenth as many of held-out articles."""
    parts = number(call.word("split_number") or "")
    call.set("--num_test_shards", str(max(1, round(parts / 9))) if parts else "1")
    call.note("shard_data.py deals whole articles to training and test shards, which split_text.py cut; a text that is split already: "
              "dataset/split_text.py has the old flags (--name_base training)")


def full_distribution(call: Translation) -> None:
    """K is the size of the vocabulary."""
    call.set("--truncation_factor", "VOCABULARY")
    call.note("--truncation_factor VOCABULARY: put in the vocabulary's size (30522 for bert-base-uncased): 4 MB a sample; a live teacher "
              "(run_pretraining.py --teacher_path, without --teacher_cache) needs no disk")


def one_folder(call: Translation) -> None:
    """Whole folders are extracted, shard by shard."""
    call.note("the whole folder of samples is extracted, shard by shard; given again, the command goes on where it was; --estimate says "
              "first "
              "how large and how long")


def named_teacher(call: Translation) -> None:
    """A teacher is needed: TEACHER stands for it where `--init_checkpoint` is not given."""
    if "init_checkpoint" not in call.given:
        call.set("--teacher_path", "TEACHER")
        call.note("--teacher_path TEACHER: put in the teacher's folder; without --init_checkpoint the old script ran random weights")


def _extraction(*, truncated: bool) -> Script:
    flags = (
        Flag("input_file", (To("--dataset_path", folder_of),)),
        Flag("output_file", (To("--output_dir", folder_of),)),
        Flag("init_checkpoint", (To("--teacher_path", folder_of),)),
        Flag("bert_config_file", no_effect="the teacher's folder has its config.json"),
        *(renamed("truncation_factor=10") if truncated else ()),
        *without_effect("max_seq_length max_predictions_per_seq", _LENGTH),
        *renamed("batch_size=32"),
    )
    name = "extract_teacher_labels_truncated.py" if truncated else "extract_teacher_labels.py"
    return Script(
        (name,), (Step("cache", "extract_teacher_outputs.py", launched=True, needs="--dataset_path=SAMPLES --output_dir=CACHE"),), flags,
        example=f"python {name} --bert_config_file uncased_L-12_H-768_A-12/bert_config.json --input_file data/records/wiki_3.tfrecord "
                f"--output_file data/labels/wiki_3.tfrecord{' --truncation_factor 10' * truncated} "
                "--init_checkpoint uncased_L-12_H-768_A-12/bert_model.ckpt",
        title="run the teacher once" + ("" if truncated else ", all probabilities"), required=("input_file", "output_file"),
        stray="input_file",
        rules=(*(() if truncated else (full_distribution,)), named_teacher, remember_samples, google_checkpoint,
               one_folder))


def _training(place: str, *, truncated: bool, also: tuple[str, ...] = (), notes: tuple[str, ...] = ()) -> Script:
    name = f"network_distillation_{place}{'_truncated' * truncated}.py"
    distributed = place == "distributed"
    fixed = "run_pretraining.py --distillation --method soft_ce,nsp --model_type bert-mlm-nsp --lr_schedule constant_step --resume"
    flags = (
        Flag("bert_config_file", page="`--num_hidden_layers`, `--hidden_size`, `--num_attention_heads`, `--intermediate_size`, "
                                      "`--tokenizer_name`, with `--encoder_ln_mode post-ln --layernorm_embedding`"),
        Flag("input_file", (To("--teacher_cache", folder_of),), page="`--teacher_cache`: the folder of the file; `--dataset_path` names "
                                                                     "the samples"),
        Flag("output_dir", page="`--output_dir` and `--job_name`: the run lies at OUTPUT_DIR/JOB_NAME"),
        Flag("init_checkpoint", (To("--student_initialize", folder_of),)),
        *((Flag("truncation_factor", (To("--truncation_factor"),), default="10"),) if truncated else ()),
        Flag("max_seq_length", no_effect=_LENGTH),
        *renamed("max_predictions_per_seq"),
        Flag("do_train", takes=Takes.BOOLEAN, page="is what the command does"),
        Flag("do_eval", takes=Takes.BOOLEAN, page="`--do_validation`, on test shards rather than on the training files"),
        Flag("train_batch_size", (To("--train_micro_batch_size_per_gpu"),), default="32",
             page="`--train_micro_batch_size_per_gpu`; `--train_batch_size` counts all processes"),
        Flag("eval_batch_size", page="`--validation_micro_batch`"),
        Flag("learning_rate", (To("--lr"),), default="5e-5",
             page="`--lr`" + (", times the processes as under Horovod" if distributed else "")),
        Flag("num_train_steps", (To("--max_steps"),), default="100000",
             page="`--max_steps`" + (", divided by the processes as under Horovod" if distributed else "")),
        Flag("num_warmup_steps", (To("--num_warmup_steps"),), default="10000",
             page="the same" + (", divided likewise" if distributed else "")),
        Flag("save_checkpoints_steps", (To("--steps_between_checkpoints"),), default="1000"),
        Flag("max_eval_steps", page="`--validation_samples`: times eval_batch_size"),
        *TPU,
    )
    launcher = "mpirun -np 8 -H localhost:8 -bind-to none -map-by slot -x PATH " if distributed else ""
    return Script(
        (name, *also), (Step("train", f"{fixed}{' --truncated_target unnormalised' * truncated}", launched=True,
                              needs="--teacher_cache=CACHE --dataset_path=SAMPLES --output_dir=RUNS"),), flags,
        example=f"{launcher}python {name} --bert_config_file uncased_L-12_H-768_A-12/bert_config.json --input_file "
                f"data/labels/wiki_3.tfrecord --output_dir runs/student{' --truncation_factor 10' * truncated} --do_train True --do_eval "
                f"true",
        title=("8 processes" if distributed else "one process") + ("" if truncated else ", all probabilities"),
        required=("bert_config_file", "input_file", "output_dir"),
        rules=(folders_of_samples, google_shape, google_checkpoint, horovod_scales if distributed else batch_of_one,
               held_out, run_folder("output_dir"), a_year),
        notes=notes + (("mpirun stays: its environment is understood; torchrun --nproc_per_node N run_pretraining.py ... does the same",)
                       if distributed else ()))


def on_hosts(call: Translation) -> None:
    """DeepSpeed's launcher reads the same file of hosts; the script's own numbers are 2,000 steps, 1,000 of warm-up and 128 a process."""
    words = call.given.get("NUM_GPUS") or ["RANKS"]
    ranks = value(words[0])
    call.last.flags.pop("NUM_GPUS", None)
    call.last.launcher = ["deepspeed", "--hostfile", "hosts"]
    call.call.kind = "deepspeed"
    call.ranks = ranks
    for old, word in (("train_batch_size", "128"), ("num_train_steps", "2000"), ("num_warmup_steps", "1000")):
        call.given[old] = [word]
    horovod_scales(call)
    call.note("the script's own values are in the line; SAMPLES, CACHE and SHAPE_FOLDER are yours: samples, teacher outputs, a model "
              "folder to begin from; `hosts` has a line such as `worker-1 slots=8` for each machine")


OFFLINE = System("offline", "The offline pipeline: teacher outputs on disk", (
    Script(
        ("WikiExtractor.py", "wikiextractor.WikiExtractor", "wikiextractor"),
        (Step("extract", "-m wikiextractor.WikiExtractor", needs="DUMP=DUMP"),),
        (Flag("DUMP", (To("DUMP"),), page="the dump, as it is"),
         Flag("output o", (To("--output"),)), Flag("json", (To("--json"),), takes=Takes.SWITCH),
         *renamed("bytes processes templates namespaces"), *(Flag(name, (To(f"--{name}"),), takes=Takes.SWITCH)
                                                             for name in ("no-templates", "quiet", "debug", "compress")),
         Flag("b", (To("--bytes"),)), Flag("q", (To("--quiet"),), takes=Takes.SWITCH), Flag("c", (To("--compress"),), takes=Takes.SWITCH)),
        example="python WikiExtractor.py dumps/enwiki.xml.bz2 --output data/extracted --json", title="extract Wikipedia", positional="DUMP",
        notes=("wikiextractor is installed with this project, and exits with 0 on a dump that is cut short; dataset/process_data.py "
               "--type wiki "
               "--file DUMP runs it, and finds that, in the place of this and the next step",)),
    Script(
        ("extract_jsons.py",),
        (Step("articles", "dataset/process_data.py --type wikiextractor", needs="--file=EXTRACTED --output_dir=TEXT"),),
        (Flag("folder", (To("--file"),)), Flag("write_file", (To("--output_dir", without_ending),))),
        example="python extract_jsons.py --folder data/extracted --write_file data/wikipedia.txt", title="text of the JSON",
        required=("folder", "write_file"), notes=("sentences are split by the next step, shard_data.py",)),
    Script(
        ("split_text.py",),
        (Step("shards", "dataset/shard_data.py", needs="--dir=TEXT --output_dir=SHARDS --num_train_shards=PARTS"),),
        (Flag("read_file", (To("--dir", without_ending),)), Flag("folder", (To("--output_dir"),)),
         Flag("split_number", (To("--num_train_shards"),), page="`--num_train_shards`, and a ninth of it as `--num_test_shards`"),
         Flag("name_base", no_effect="shards are called training{i}.txt and test{i}.txt, so that held-out text stays held out")),
        example="python split_text.py --read_file data/wikipedia.txt --split_number 20 --folder data/split --name_base wiki",
        title="split", required=("read_file", "split_number", "folder", "name_base"), rules=(split_shards,)),
    Script(
        ("multifile_create_pretraining_data.py",),
        (Step("samples", "dataset/generate_samples.py --nsp", needs="--dir=SHARDS --output_dir=SAMPLES --vocab_file=VOCABULARY_FILE"),),
        (Flag("input_dir", (To("--dir", samples_of_text),)), *renamed("output_dir vocab_file"),
         Flag("output_base_name", no_effect="shards are called train_shard_{i}.hdf5 and test_shard_{i}.hdf5"),
         Flag("do_lower_case", (To("--do_lower_case", digit),), takes=Takes.BOOLEAN, default="True"),
         *renamed("max_seq_length=128 max_predictions_per_seq=20 random_seed>seed=12345 dupe_factor>dup_factor=10 masked_lm_prob "
                  "short_seq_prob")),
        example="python multifile_create_pretraining_data.py --input_dir data/split --output_dir data/records --output_base_name wiki "
                "--vocab_file uncased_L-12_H-768_A-12/vocab.txt",
        title="samples", required=("input_dir", "output_dir", "output_base_name", "vocab_file"),
        notes=("TFRecords that you have: dataset/convert_samples.py --format tfrecord --input FOLDER --vocab_file FILE --split train "
               "--output_dir "
               "NEW",)),
    _extraction(truncated=True),
    _extraction(truncated=False),
    _training("single_machine", truncated=True),
    _training("single_machine", truncated=False),
    _training("distributed", truncated=True),
    _training("distributed", truncated=False, also=("run_squad_distributed.py",), notes=(
        "run_squad_distributed.py held no SQuAD code: it was a copy of this training; run_glue.py --task_name SQuAD-1.1 scores SQuAD",)),
    Script(
        ("multinode_train.sh",), (Step(
            "train", "run_pretraining.py --distillation --method soft_ce,nsp --model_type bert-mlm-nsp --truncated_target unnormalised "
                     "--truncation_factor 10 --teacher_cache CACHE --dataset_path SAMPLES --student_initialize SHAPE_FOLDER --resume "
                     "--lr_schedule constant_step --train_micro_batch_size_per_gpu 128 --output_dir runs "
                     "--job_name multinode --total_training_time 8760", launched=True),),
        (Flag("NUM_GPUS", (To("NUM_GPUS"),), page="`--train_batch_size`: 128 times it"),), example="bash multinode_train.sh 16",
        title="several machines", positional="NUM_GPUS", rules=(on_hosts,)),
    Script(
        ("run_classifier_distributed.py", "run_classifier.py"),
        (Step("score", "run_glue.py", needs="--glue_dir=GLUE --task_name=TASK --model_name_or_path=MODEL --output_dir=SCORES"),),
        (Flag("data_dir", (To("--glue_dir"),), page="`--glue_dir`: its parent, where it is the folder of one task"),
         *renamed("task_name"), Flag("output_dir", (To("--output_dir"),)),
         Flag("init_checkpoint", (To("--model_name_or_path", folder_of),)),
         *without_effect("bert_config_file vocab_file", "the model's folder has it"),
         Flag("do_lower_case", takes=Takes.BOOLEAN, no_effect="the tokenizer in the model's folder says it"),
         *renamed("max_seq_length learning_rate num_train_epochs"), Flag("warmup_proportion", (To("--warmup_ratio"),)),
         Flag("train_batch_size", (To("--per_device_train_batch_size"),)),
         Flag("eval_batch_size", (To("--per_device_eval_batch_size"),), default="8"),
         Flag("predict_batch_size", no_effect="test sets are predicted in batches of --per_device_eval_batch_size"),
         *(Flag(name, (To(f"--{name}"),), takes=Takes.BOOLEAN) for name in ("do_train", "do_eval", "do_predict")),
         *without_effect("save_checkpoints_steps", "fine-tuning takes minutes and is not checkpointed; --save_models keeps the result"),
         *TPU),
        example="python run_classifier_distributed.py --task_name MRPC --data_dir glue/MRPC --bert_config_file student/bert_config.json "
                "--vocab_file student/vocab.txt --init_checkpoint student/model.ckpt --output_dir scores --do_train true --do_eval true",
        title="fine-tune", required=("data_dir", "bert_config_file", "task_name", "vocab_file", "output_dir"),
        rules=(glue_tasks(GLUE_FOLDER), google_checkpoint),
        notes=("fine-tunings run on one device each, several at a time with --devices; there is no launcher",)),
))
