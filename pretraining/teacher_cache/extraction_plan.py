"""What an extraction will store, and everything about it that flags and files can tell before torch is imported."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from dataset.errors import OneLineParser, UserError, one_line
from dataset.hdf5_chunks import read_all
from dataset.shard_format import (
    ATTRIBUTE_TOKENIZER,
    INPUT_MASK,
    NO_MASKING,
    STATIC,
    ShardInfo,
    check_tokenizer,
    find_shards,
    open_shard,
    read_info,
)
from dataset.tokenizer import holds_tokenizer, load_tokenizer, vocabulary_sha256
from pretraining.args.flags import parse_int
from pretraining.foreign_shards import check_foreign
from pretraining.launch import Launch, read_launch
from pretraining.models.catalog import WEIGHT_FILES, ModelFolder, read_model_folder
from pretraining.teacher_cache.format import (
    MASKED,
    NO_TARGETS,
    SAMPLED,
    TOPK,
    UNMASKED,
    CacheHeader,
    cache_path,
    head_hash,
    read_header,
    samples_hash,
    weights_hash,
)

_PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass
class ExtractionPlan:
    """An extraction that has passed every check without torch. `header` is that of a file, without what is a shard's own; `precision` is
    what was asked for, or where that is auto what the files have that are there (`follows`); `notes` are to be printed."""

    teacher: ModelFolder
    header: CacheHeader
    shards: list[ShardInfo]
    output_dir: Path
    launch: Launch
    batch_size: int
    precision: str
    overwrite: bool
    estimate: bool
    verify: bool
    follows: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def own_shards(self) -> list[ShardInfo]:
        """Those whose files this rank writes."""
        return self.shards[self.launch.rank :: self.launch.world_size]

    def path(self, info: ShardInfo) -> Path:
        return cache_path(self.output_dir, info.path)

    def header_of(self, info: ShardInfo, shard_hash: str) -> CacheHeader:
        """The header of the file for a shard whose samples have this hash."""
        return replace(
            self.header, shard=info.path.name, shard_hash=shard_hash, shard_head=head_hash(info, self.header.input), rows=info.rows,
            predictions=(info.predictions or 0) if self.header.kind != NO_TARGETS else 0, max_seq_length=info.max_seq_length,
            tokenizer_sha256=str(info.attributes.get(ATTRIBUTE_TOKENIZER, self.header.tokenizer_sha256)))

    def is_done(self, info: ShardInfo) -> bool:
        """Whether the file for a shard is there and belongs, as far as headers tell; UserError for one that does not.

        --overwrite takes none for done.
        """
        path = self.path(info)
        if not path.exists() or self.overwrite:
            return False
        found = read_header(path)
        wanted = self.header_of(info, found.shard_hash)
        if wanted.precision == "auto":  # only the device can tell
            wanted = replace(wanted, precision=found.precision)
        wrong = found.differences(wanted)
        if wrong:
            raise UserError(f"{path}: it was made otherwise ({wrong[0]}); --overwrite makes all files anew, or choose another "
                            "--output_dir")
        return True


def make_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="extract_teacher_outputs.py", allow_abbrev=False,
        description="Run a teacher once over sample shards and keep what a student learns from: --teacher_cache of run_pretraining.py.")
    add = parser.add_argument
    add("--dataset_path", required=True, metavar="SHARDS", help="folder of *train*.hdf5 and *test*.hdf5 shards")
    add("--teacher_path", required=True, metavar="DIR", help="Hugging Face folder of the teacher")
    add("--output_dir", required=True, metavar="CACHE", help="folder for one file a shard")
    add("--truncation_factor", metavar="K", help="store the K largest probabilities at every masked position")
    add("--sampled", metavar="N", help="store up to N ids drawn from the teacher's distribution instead, with weights: unbiased")
    add("--sampling_temperature", metavar="T", help="--sampled: draw from the distribution at this temperature; default: 1")
    add("--hidden_layers", metavar="LAYERS", help="store hidden states of these 0-based layers at all real tokens, such as 5,11")
    add("--batch_size", default="32", metavar="B", help="full samples a forward pass; of shorter ones it takes more; default: 32")
    add("--precision", default="auto", choices=_PRECISIONS, help="of the teacher's matrix products; default: auto")
    add("--seed", default="0", metavar="S", help="--sampled: seed of the draws; default: 0")
    add("--estimate", action="store_true", help="print size and time, measured on a few batches, and write nothing")
    add("--verify", action="store_true", help="read every file that is there, name the damaged ones, and write nothing")
    add("--overwrite", action="store_true", help="replace files that are there; without it those that belong are kept")
    add("--local_rank", "--local-rank", default="-1", help="given by some launchers")
    return parser


def plan_extraction(arguments: list[str] | None = None) -> ExtractionPlan:
    """Check flags and files; UserError for the first thing that cannot work."""
    flags = make_parser().parse_args(arguments)
    launch = read_launch(_number(flags, "local_rank", -1))
    k, drawn, temperature = _number(flags, "truncation_factor", 1), _number(flags, "sampled", 1), _temperature(flags)
    batch_size, seed = _number(flags, "batch_size", 1), _number(flags, "seed", 0)
    if k is not None and drawn is not None:
        raise UserError("--truncation_factor stores the largest probabilities, --sampled drawn ids in their place; give one of them")
    if flags.verify and (flags.estimate or flags.overwrite):
        raise UserError("--verify writes nothing and needs no teacher; leave --estimate and --overwrite out")
    if k is None and drawn is None and flags.hidden_layers is None:
        raise UserError("nothing to store: give --truncation_factor K, --sampled N or --hidden_layers LAYERS")
    if drawn is None and flags.sampling_temperature is not None:
        raise UserError("--sampling_temperature belongs to --sampled; leave it out")
    teacher = read_model_folder(flags.teacher_path, "--teacher_path")
    kind = TOPK if k is not None else SAMPLED if drawn is not None else NO_TARGETS
    vocabulary = teacher.config["vocab_size"]
    if k is not None and k > vocabulary:
        raise UserError(f"--truncation_factor {k}: the teacher's vocabulary has {vocabulary} entries; at most as many work")
    if kind != NO_TARGETS:
        _check_logits(teacher, "--truncation_factor" if k is not None else "--sampled")
    layers = _layers(flags.hidden_layers, teacher.config["num_hidden_layers"])
    shards = _shards(flags.dataset_path, kind, teacher)
    tokenizer = load_tokenizer(teacher.path) if holds_tokenizer(teacher.path) else None
    _check_shards(shards, teacher, tokenizer)
    output = Path(flags.output_dir).expanduser()
    if output.exists() and not output.is_dir():
        raise UserError(f"--output_dir {output}: it is a file; give a folder")
    weights = next(name for name in WEIGHT_FILES if (teacher.path / name).is_file())
    masked = shards[0].masking == STATIC and not teacher.architecture.causal
    header = CacheHeader(
        kind=kind, k=k or drawn or 0, vocab_size=vocabulary, tokenizer_sha256="" if tokenizer is None else vocabulary_sha256(tokenizer),
        teacher=teacher.path.resolve().name, teacher_hash=weights_hash(teacher.path, weights), family=teacher.family,
        teacher_config=teacher.config, input=MASKED if masked else UNMASKED, shard="", shard_hash="", shard_head="", rows=0,
        predictions=0, max_seq_length=0, hidden_layers=layers, hidden_size=teacher.config["hidden_size"] if layers else 0,
        precision=flags.precision, sampling_temperature=temperature, seed=seed if kind == SAMPLED else 0)
    plan = ExtractionPlan(teacher, header, shards, output, launch, batch_size, flags.precision, flags.overwrite, flags.estimate,
                          flags.verify)
    if temperature < 1:
        plan.notes.append(f"--sampling_temperature {temperature:g}: below 1 unlikely ids are drawn too seldom for their large weights to "
                          "show; 1 or above is unbiased in practice too (docs/teacher_cache.md)")
    _follow_precision(plan)
    if not flags.verify:
        for info in shards:
            plan.is_done(info)
    return plan


def _follow_precision(plan: ExtractionPlan) -> None:
    """Let --precision auto be that of the first file which is kept: a folder on another device goes on as it was begun."""
    first = next((path for path in map(plan.path, plan.shards) if path.is_file()), None)
    if plan.precision != "auto" or plan.overwrite or plan.verify or first is None:
        return
    plan.precision, plan.follows = read_header(first).precision, True
    plan.header = replace(plan.header, precision=plan.precision)
    plan.notes.append(f"--precision auto: {plan.precision}, as {first}")


def content_hash(info: ShardInfo, read: str) -> str:
    """`samples_hash` of a shard."""
    return samples_hash(read_arrays(info), read)


def read_arrays(info: ShardInfo) -> dict[str, np.ndarray]:
    """All that a shard holds; UserError where it is damaged."""
    with open_shard(info.path) as file:
        try:
            return {key: read_all(file[key]) for key in file}
        except OSError as error:
            raise UserError(f"{info.path} cannot be read ({one_line(error)}); make or copy the shard anew") from error


def row_lengths(info: ShardInfo) -> np.ndarray:
    """(N,) int64: real tokens of each row."""
    with open_shard(info.path) as file:
        return np.count_nonzero(read_all(file[INPUT_MASK]), axis=1)


def _number(flags: object, name: str, least: int) -> int | None:
    word = getattr(flags, name)
    if word is None:
        return None
    try:
        number = parse_int(word)
    except (ValueError, OverflowError) as error:
        raise UserError(f"--{name}: {error}") from None
    if number < least:
        raise UserError(f"--{name} {word}: a number of at least {least} is needed")
    return number


def _temperature(flags: object) -> float:
    word = flags.sampling_temperature
    try:
        value = 1.0 if word is None else float(word)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"--sampling_temperature {word}: a number above 0 is needed")
    return value


def _check_logits(teacher: ModelFolder, flag: str) -> None:
    if teacher.architecture.causal:
        raise UserError(f"{flag}: nothing is masked for a causal teacher ({teacher.family}), and logits are stored at masked positions; "
                        "--hidden_layers works")
    if teacher.has_head is False:
        raise UserError(f"{flag}: --teacher_path {teacher.path} has no language-model head; --hidden_layers works with this teacher")


def _layers(text: str | None, depth: int) -> tuple[int, ...]:
    if text is None:
        return ()
    try:
        layers = [int(word) for word in text.split(",")]
    except ValueError:
        raise UserError(f"--hidden_layers {text}: 0-based layers such as 5,11 are needed") from None
    wrong = next((layer for layer in layers if not 0 <= layer < depth), None)
    if wrong is not None:
        raise UserError(f"--hidden_layers {text}: the teacher has layers 0 to {depth - 1}, and no {wrong}")
    if len(set(layers)) < len(layers):
        raise UserError(f"--hidden_layers {text}: a layer is in it twice; name it once")
    return tuple(sorted(layers))


def _shards(dataset_path: str, kind: str, teacher: ModelFolder) -> list[ShardInfo]:
    train, test = find_shards(dataset_path)
    shards = [read_info(path) for path in train + test]
    unmasked = next((info for info in shards if info.masking == NO_MASKING), None)
    if unmasked is not None and kind != NO_TARGETS:
        raise UserError(f"{unmasked.path} holds no masks: they are drawn anew in every epoch, so its logits cannot be stored; "
                        "--hidden_layers alone works (of the text without masks), or shards with masks (generate_samples.py)")
    if unmasked is not None and not teacher.architecture.causal and any(info.masking == STATIC for info in shards):
        masked = next(info for info in shards if info.masking == STATIC)
        raise UserError(f"{masked.path} holds masks and {unmasked.path} none; extract them from folders of their own")
    return shards


def _check_shards(shards: list[ShardInfo], teacher: ModelFolder, tokenizer: Tokenizer | None) -> None:
    """Whether the teacher can read the shards, and nothing tells that their ids mean other tokens to it."""
    config, row = teacher.config, teacher.architecture
    positions = config["max_position_embeddings"] - row.reserved_positions(config)
    stems: dict[str, Path] = {}
    for info in shards:
        if info.path.stem in stems:
            raise UserError(f"{info.path} and {stems[info.path.stem]} differ in their ending alone; rename one of them")
        stems[info.path.stem] = info.path
        if info.max_seq_length > positions:
            raise UserError(f"{info.path}: sequences of {info.max_seq_length} tokens, the teacher has {positions} positions; shards of at "
                            "most that length are needed")
        if tokenizer is not None:
            check_tokenizer(info, vocabulary_sha256(tokenizer))
            if ATTRIBUTE_TOKENIZER not in info.attributes:
                check_foreign(info, tokenizer, config["vocab_size"], row.causal)
