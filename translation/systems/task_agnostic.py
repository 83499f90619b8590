"""Task-agnostic distillation (file 004) on academic-budget-bert: whose flags are ours, so its commands stay as they are."""

import re

from pretraining.args.parser import INFO
from translation.calls import Translation
from translation.conversions import digit, folder_of
from translation.own import GENERATE_SAMPLES, MERGE_SHARDS, PROCESS_DATA, SHARD_DATA, scorer_flags, trainer_flags
from translation.shell import value
from translation.systems.glue import glue_tasks
from translation.table import YOURS, Flag, Script, Step, System, Takes, To, renamed, without_effect

FLAGS_1_4_2 = """
deepspeed deepspeed_transformer_kernel stochastic_mode attention_dropout_checkpoint normalize_invertible gelu_checkpoint gradient_clipping
steps_per_print wall_clock_breakdown prescale_gradients gradient_predivide_factor fp16 fp16_backend fp16_opt
model_type model_name_or_path config_name tokenizer_name cache_dir pretrain_run_args
vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act hidden_dropout_prob attention_probs_dropout_prob
max_position_embeddings layernorm_embedding type_vocab_size initializer_range fused_linear_layer sparse_mask_prediction encoder_ln_mode
layer_norm_type hugging_face dataset_path num_workers async_worker data_loader_type optimizer_type weight_decay bias_correction max_coeff
min_coeff adam_beta1 adam_beta2 adam_eps seed output_dir max_predictions_per_seq local_rank load_training_checkpoint load_checkpoint_id
num_epochs_between_checkpoints job_name project_name max_steps max_steps_per_epoch print_steps do_validation validation_epochs
validation_epochs_begin validation_epochs_end validation_begin_proportion validation_end_proportion validation_micro_batch add_nsp
current_run_id early_exit_time_marker total_training_time finetune_time_markers finetune_checkpoint_at_end gradient_accumulation_steps
train_batch_size train_micro_batch_size_per_gpu num_epochs lr use_early_stopping early_stop_time early_stop_eval_loss scale_cnt_limit
log_throughput_every lr_schedule curve warmup_proportion decay_rate decay_step num_warmup_steps distillation fearture_learn teacher_path
layer_selection method student_initialize aug
"""
_REFUSED = {
    "deepspeed_transformer_kernel": "current DeepSpeed has dropped it; transformers' layers under SDPA run without the flag",
    "max_steps_per_epoch": "it dropped the rest of every shard; --max_steps ends a run",
}


def _trainer_row(name: str) -> Flag:
    info = INFO[name]
    names = "local_rank local-rank" if name == "local_rank" else name
    to = (To(f"--{name}"),)
    takes = Takes.OPTIONAL if info.bare is not None else Takes.WORD
    if name in _REFUSED:
        return Flag(names, to, takes=takes, unsupported=_REFUSED[name], fine=(str(info.default).lower(),))
    return Flag(names, to, takes=takes, no_effect=info.no_effect or "")


def whole_command(call: Translation) -> None:
    """The command is ours as it stands; its last six flags are lost where the line of `--method` lacks its backslash."""
    call.note("run_pretraining.py takes this command as it is, under python, torchrun, deepspeed, mpirun and torch.distributed.launch")
    if "student_initialize" not in call.given and call.on("distillation"):
        call.note("without --student_initialize the student begins at random; if the command was copied line by line, its last six flags "
                  "may be "
                  "lost (the line of --method has no backslash): give them all on standard input")
    name = call.word("tokenizer_name")
    if name and "teacher_path" in call.given and re.fullmatch(r"[\w.-]+", name):
        call.note(f"--tokenizer_name {name}: a name that is no folder is asked of the hub, for a minute where that cannot be reached; "
                  "--teacher_path has the tokenizer, so leave the flag out")
    hours, early = call.word("total_training_time"), call.word("early_exit_time_marker")
    if hours and not early:
        call.note("the old default of --early_exit_time_marker cut runs at 24 hours; here it is the whole budget")


def at_its_place(folder: str):
    """The script lies in `dataset/` here."""

    def rule(call: Translation) -> None:
        call.note(f"{folder} takes this command as it is")

    rule.__doc__ = at_its_place.__doc__
    return rule


def predictions(call: Translation) -> None:
    """Without `--max_predictions_per_seq` the old script kept 20, ours keeps what a full sample needs."""
    if "max_predictions_per_seq" not in call.given:
        call.note("without --max_predictions_per_seq the old script kept 20 of a sample, 27 % of what 512 tokens need; ours keeps them all")


def sweep_recipe(call: Translation) -> None:
    """The sweep reads the same file (`hyperparameters`, `default_parameters`)."""
    for old, key in (("job_name", "name"), ("init_cmd", "launcher")):
        if words := call.given.get(old):
            call.note(f"--{old} {words[0]}: write `{key}: {value(words[0])}` into the file")
    call.note("the file needs output_dir, and is read as it is otherwise; --run in the place of --print_commands trains, scores and "
              "makes the table")


def grid_protocol(call: Translation) -> None:
    """Its grid of learning rates and batches is the protocol `budget`."""
    call.note("the grid and its epochs are --protocol budget; put in the place of MODEL, GLUE and SCORES your folders")


def _same(name: str, own: frozenset[str], flags: tuple[Flag, ...], example: str, title: str, *rules, program: str | None = None) -> Script:
    path = program or f"dataset/{name}"
    return Script((name,), (Step("same", path),), flags, example=example, title=title, own=lambda: own, same=True,
                  rules=(at_its_place(path), *rules))


_WORKER = (
    Flag("input_file", (To("--dir", folder_of),)), Flag("output_file", (To("--output_dir", folder_of),)),
    Flag("bert_model", (To("--model_name"),)), Flag("max_seq_length", (To("--max_seq_length"),), default="128"),
    Flag("dupe_factor", (To("--dup_factor"),), default="10"),
    Flag("max_predictions_per_seq", (To("--max_predictions_per_seq"),), default="20"),
    *renamed("masked_lm_prob short_seq_prob"), Flag("random_seed", (To("--seed"),), default="12345"),
    Flag("no_nsp", (To("--no_nsp"),), takes=Takes.SWITCH),
)


_WORKER_NEEDS = "--dir=SHARDS --output_dir=SAMPLES"


def two_texts(call: Translation) -> None:
    """Without `--no_nsp` a sample has two texts, and whole folders are made."""
    if "no_nsp" not in call.given and call.call.name != "create_pretraining_data_roberta.py":
        call.set("--nsp")
    if not {"--model_name", "--vocab_file"} & set(call.last.flags):
        call.set("--vocab_file", "VOCABULARY_FILE")
        call.note(f"--vocab_file VOCABULARY_FILE: put in {YOURS['VOCABULARY_FILE']}, or --model_name FOLDER")
    call.note("the whole folder of text shards is made, called training{i}.txt and test{i}.txt")


TASK_AGNOSTIC = System("task_agnostic", "Task-agnostic distillation and academic-budget-bert", (
    _same("process_data.py", PROCESS_DATA, renamed("f o type n_processes"),
          "python process_data.py -f dumps/enwiki.xml.bz2 -o data/articles --type wiki", "text"),
    _same("shard_data.py", SHARD_DATA, renamed("dir o num_train_shards num_test_shards frac_test"),
          "python shard_data.py --dir data/articles -o data/shards --num_train_shards 256 --num_test_shards 256 --frac_test 0.1", "shards"),
    _same("merge_shards.py", MERGE_SHARDS, (*renamed("data output_dir ratio"), Flag("grep", (To("--grep"),), unsupported="train and test "
                                                                                                                         "are",
                                                                                fine=("train", "test", "training"))),
          "python merge_shards.py --data data/shards --output_dir data/merged --ratio 4", "fewer shards"),
    _same("generate_samples.py", GENERATE_SAMPLES,
          renamed("dir o model_name dup_factor seed vocab_file do_lower_case masked_lm_prob max_seq_length max_predictions_per_seq "
                  "n_processes"),
          "python generate_samples.py --dir data/shards -o data/samples --model_name bert-base-uncased --dup_factor 1 --max_seq_length 128",
          "samples", predictions),
    Script(("create_pretraining_data.py",), (Step("samples", "dataset/generate_samples.py", needs=_WORKER_NEEDS),),
           (*_WORKER, *renamed("vocab_file"), Flag("do_lower_case", (To("--do_lower_case", digit),), takes=Takes.BOOLEAN)),
           example="python data/create_pretraining_data.py --vocab_file vocab.txt --input_file data/shards/training3.txt --output_file "
                   "data/samples/train_shard_3.hdf5 --no_nsp", title="its worker", rules=(two_texts,)),
    Script(("create_pretraining_data_roberta.py",), (Step("samples", "dataset/generate_samples.py", needs=_WORKER_NEEDS),),
           (*_WORKER, *without_effect("do_lower_case", "the tokenizer says it", Takes.BOOLEAN)),
           example="python data/create_pretraining_data_roberta.py --bert_model roberta-large --input_file data/shards/training3.txt "
                   "--output_file "
                   "data/samples/train_shard_3.hdf5 --no_nsp", title="its worker for RoBERTa", rules=(two_texts,)),
    Script(("run_pretraining.py",), (Step("train", "run_pretraining.py", launched=True),), tuple(map(_trainer_row, FLAGS_1_4_2.split())),
           example="python -m torch.distributed.launch run_pretraining.py --distillation --teacher_path teachers/bert-base --method "
                   "hidden_mse "
                   "--student_initialize --num_hidden_layers 6 --layer_selection 11 --dataset_path data/samples --output_dir runs "
                   "--train_batch_size 1024 --train_micro_batch_size_per_gpu 256 --fp16 --fused_linear_layer false",
           title="train", own=trainer_flags, same=True, rules=(whole_command,)),
    Script(("generate_training_commands.py",), (Step("sweep", "-m evaluation.sweep", needs="RECIPE=RECIPE"),),
           (Flag("param_file", (To("RECIPE"),), page="the recipe"), Flag("job_name", page="`name:` in the recipe"),
            Flag("init_cmd", page="`launcher:` in the recipe"), Flag("search_type", unsupported="a grid is", fine=("grid",))),
           example="python generate_training_commands.py --param_file params.yaml --job_name sweep --init_cmd deepspeed --search_type grid",
           title="many runs", rules=(sweep_recipe, lambda call: call.set("--print_commands"))),
    Script(("run_glue.py",), (Step("score", "run_glue.py"),),
           (*renamed("model_name_or_path task_name max_seq_length output_dir evaluation_strategy>eval_strategy eval_steps "
                     "per_device_train_batch_size "
                     "per_device_eval_batch_size gradient_accumulation_steps learning_rate weight_decay max_grad_norm num_train_epochs "
                     "lr_scheduler_type warmup_steps early_stopping_patience warmup_ratio train_file validation_file"),
            *(Flag(name, (To(f"--{name}", lambda text: text),), takes=Takes.OPTIONAL) for name in (
                "overwrite_output_dir", "do_train", "do_eval", "do_predict", "pad_to_max_length")),
            *(Flag(name, takes=Takes.OPTIONAL, no_effect=why) for name, why in (
                ("group_name", "scores are kept in glue.json, not in W&B"), ("project_name", "scores are kept in glue.json, not in W&B"),
                ("log_group", "scores are kept in glue.json, not in W&B"), ("fp16_full_eval", "--precision is that of training and "
                                                                                              "scoring"),
                ("total_steps", "the learning rate falls to the last update of the training")))),
           example="python run_glue.py --model_name_or_path runs/student --task_name MRPC --max_seq_length 128 --output_dir scores "
                   "--overwrite_output_dir --do_train --do_eval --evaluation_strategy steps --eval_steps 50 "
                   "--per_device_train_batch_size 32 "
                   "--learning_rate 5e-5 --num_train_epochs 5 --lr_scheduler_type polynomial --warmup_steps 50",
           title="fine-tune", own=scorer_flags, rules=(glue_tasks("glue_dir"),)),
    Script(("huggingface_finetune.py",), (Step("score", "run_glue.py --protocol budget --task_name glue --model_name_or_path MODEL "
                                                        "--glue_dir GLUE --output_dir SCORES"),), (),
           example="python huggingface_finetune.py", title="fine-tune by a grid", rules=(grid_protocol,)),
))
