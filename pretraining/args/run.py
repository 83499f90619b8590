"""Where a run lives, what it prints and what it reports to."""

from dataclasses import dataclass

from pretraining.args.flags import flag


@dataclass
class RunFlags:
    output_dir: str = flag(None, "root of all runs; this one goes to OUTPUT_DIR/JOB_NAME/CURRENT_RUN_ID", str)
    job_name: str = flag("pretraining_experiment", "name of the experiment: a folder, and the group in W&B")
    current_run_id: str = flag("", "name of this run of the experiment: a folder")
    project_name: str = flag("budget-lm-pretraining", "project in W&B, and recorded in environment.json")
    overwrite: bool = flag(False, "move a run that is already in the folder aside and start afresh")
    resume: bool = flag(
        False, "go on from the newest complete checkpoint of this run folder; start fresh if there is none, do nothing if it has ended")
    seed: int = flag(42, "seed of initialisation, data order, masking and dropout")
    print_steps: int = flag(100, "a train event in metrics.jsonl and a line or bar update every so many optimizer steps")
    log_throughput_every: int = flag(
        20, "interval of the originals' throughput line",
        no_effect="every train event and the progress bar carry the throughput; --print_steps sets how often",
    )
    report_to: str = flag("none", "tracker beside metrics.jsonl", choices=("none", "tensorboard", "wandb"))
    local_rank: int = flag(
        -1, "rank on this machine, as launchers pass it; the environment's LOCAL_RANK is used when it is set",
    )
    dry_run: bool = flag(False, "check everything, run one step of everything in a temporary folder, exit")
    print_config: bool = flag(False, "print every resolved flag as YAML and exit")
