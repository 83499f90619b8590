"""Speed on one core of generate_samples and shard_data, in turns with their references, each as the command that a user runs.

Every command also runs on next to nothing: that is its start-up (interpreter, libraries, vocabulary, worker process), and what is left
is the speed that a corpus sees. Best of all rounds, as other programs on the machine only ever make things slower.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from tokenizers import ByteLevelBPETokenizer, Tokenizer

from benchmarks.dataset.commands import Command, Makers, Row, best_of, best_seconds, module, one_core, script
from benchmarks.dataset.inputs import Inputs, bytes_below, make_shard, write_articles
from benchmarks.dataset.reference import FAST, SLOW, slow_tokenizer
from benchmarks.dataset.sample_statistics import count_tokens, measure
from benchmarks.dataset.sharding_reference import PUNKT, SENTENCEX, has_punkt
from dataset.tokenizer import load_tokenizer

LENGTH = 128
DUPLICATES = 10
BPE_SIZE = 16000
BPE_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
TINY = [f"Article number {number} is one sentence." for number in range(20)]
TRAIN_SHARDS, TEST_SHARDS, TEST_SHARE = 8, 2, 0.1
START = "start-up of "


def samples_rows(inputs: Inputs) -> list[Row]:
    """text -> HDF5: ours with every kind of samples, the references, the tokenizers alone, and what the samples are like."""
    shards, vocab = inputs.shard_folder, inputs.vocab_file
    tiny = make_shard(write_articles(inputs.work / "tiny_articles", TINY), inputs.work / "tiny_shards")
    bpe = _train_bpe(inputs)
    ours, reference, repeated = "generate_samples", f"reference, {FAST} tokenizer", f", dup_factor {DUPLICATES}"
    slow, bpe_name = f"reference, {SLOW} tokenizer", f"{ours}, byte-level BPE"
    makers: dict[str, Callable[[Path, Path], Command]] = {
        reference: partial(_reference, vocab, FAST, 1),
        slow: partial(_reference, vocab, SLOW, 1),
        ours: partial(_ours, ("--vocab_file", vocab)),
        f"{ours}, --masking none": partial(_ours, ("--vocab_file", vocab, "--masking", "none")),
        f"{ours}, --nsp": partial(_ours, ("--vocab_file", vocab, "--nsp")),
        f"{ours}, --whole_word_masking": partial(_ours, ("--vocab_file", vocab, "--whole_word_masking")),
        bpe_name: partial(_ours, ("--model_name", bpe)),
        reference + repeated: partial(_reference, vocab, FAST, DUPLICATES),
        ours + repeated: partial(_ours, ("--vocab_file", vocab, "--dup_factor", DUPLICATES)),
    }
    if slow_tokenizer(vocab) is None:
        print("note: this transformers has no pure-Python BertTokenizer; the slow reference is left out")
        del makers[slow]
    with one_core():
        seconds = best_seconds(_with_start_up(makers, shards, tiny), inputs.rounds, inputs.work)
        alone = {kind: _tokenizer_alone(load_tokenizer(source), shards, inputs.rounds)
                 for kind, source in (("BERT's", vocab), ("byte-level BPE", bpe))}
    size = bytes_below(shards) / 1e6
    rows = []
    for name in makers:
        copies = DUPLICATES if name.endswith(repeated) else 1
        against = reference + repeated if copies > 1 else reference
        asked = {ours: "at least 8", ours + repeated: "at least 60"}.get(name, "")
        rows += _speeds("speed", name, size * copies, seconds, against, asked, per="text x duplicates" if copies > 1 else "text")
    rows += [Row("speed", f"fast tokenizer alone, {kind}", size / taken, "MB/s") for kind, taken in alone.items()]
    tokens = count_tokens(shards, vocab)
    for name, copies in ((reference, 1), (ours, 1), (f"{ours}, --whole_word_masking", 1), (reference + repeated, DUPLICATES),
                         (ours + repeated, DUPLICATES)):
        found = measure(inputs.work / name, vocab, tokens * copies)
        rows.append(Row("speed", f"samples of {name}", found.kept, "of the text", note=str(found)))
    return rows


def sharding_rows(inputs: Inputs, megabytes: int) -> list[Row]:
    """Articles -> text shards, ours against the published algorithm with the same splitter and, where NLTK is there, with Punkt's.

    The text is repeated until there are so many megabytes, as a small one is done in less time than start-up varies by.
    """
    articles = write_articles(inputs.work / "articles_for_shards", inputs.articles, megabytes * 10**6)
    tiny = write_articles(inputs.work / "tiny_for_shards", TINY)
    split = ("--num_train_shards", TRAIN_SHARDS, "--num_test_shards", TEST_SHARDS, "--frac_test", TEST_SHARE)
    ours, reference, punkt = "shard_data", f"reference, {SENTENCEX}", f"reference, NLTK's {PUNKT}"
    makers: dict[str, Callable[[Path, Path], Command]] = {
        name: partial(_sharding_reference, split, splitter)
        for name, splitter in ((reference, SENTENCEX), *([(punkt, PUNKT)] if has_punkt() else []))}
    if not has_punkt():
        print("note: NLTK is not installed (pip install nltk); the reference with the originals' splitter is left out")
    makers[ours] = lambda source, target: script("shard_data", "--dir", source, "-o", target, *split, "--n_processes", 1)
    with one_core():
        seconds = best_seconds(_with_start_up(makers, articles, tiny), inputs.rounds, inputs.work)
    size = bytes_below(articles) / 1e6
    rows = []
    for name in makers:
        rows += _speeds("sharding", name, size, seconds, reference, "at least 8" if name == ours else "", "text")
        worst, share = _balance(inputs.work / name)
        rows.append(Row("sharding", f"{name}: shard furthest from the mean of its split", worst, "of its sentences",
                        asked="at most 0.02" if name == ours else "", note=f"{share:.2%} of the sentences are in test of {TEST_SHARE:.0%}"))
    return rows


def _speeds(part: str, name: str, megabytes: float, seconds: dict[str, float], against: str, asked: str, per: str) -> list[Row]:
    """Two rows: end to end, and without start-up."""
    rows = []
    for kind, taken, other in (
        ("end to end", seconds[name], seconds[against]),
        ("without start-up", seconds[name] - seconds[START + name], seconds[against] - seconds[START + against]),
    ):
        note = f"{per}, {taken:.2f} s" + (f", start-up {seconds[START + name]:.2f} s" if kind == "end to end" else "")
        rows.append(Row(part, f"{name}, {kind}", megabytes / taken, "MB/s", other / taken, asked if kind != "end to end" else "", note))
    return rows


def _with_start_up(makers: dict[str, Callable[[Path, Path], Command]], source: Path, tiny: Path) -> Makers:
    return {f"{start}{name}": partial(make, folder) for name, make in makers.items() for start, folder in (("", source), (START, tiny))}


def _ours(flags: tuple[object, ...], source: Path, target: Path) -> Command:
    return script("generate_samples", "--dir", source, "-o", target, "--max_seq_length", LENGTH, "--n_processes", 1, *flags)


def _reference(vocab_file: Path, tokenizer: str, dup_factor: int, source: Path, target: Path) -> Command:
    return module("benchmarks.dataset.reference", source, target, "--vocab_file", vocab_file, "--tokenizer", tokenizer,
                  "--max_seq_length", LENGTH, "--dup_factor", dup_factor)


def _sharding_reference(split: tuple[object, ...], splitter: str, source: Path, target: Path) -> Command:
    return module("benchmarks.dataset.sharding_reference", next(source.glob("*.txt")), target, *split, "--splitter", splitter)


def _tokenizer_alone(tokenizer: Tokenizer, shards: Path, rounds: int) -> float:
    """Seconds to encode every sentence and nothing else."""
    sentences = [line for path in shards.glob("*.txt") for line in path.read_text(encoding="utf-8").split("\n")]
    return best_of(lambda: tokenizer.encode_batch_fast(sentences, add_special_tokens=False), rounds)


def _train_bpe(inputs: Inputs) -> Path:
    """A folder with a byte-level BPE tokenizer of RoBERTa's kind, trained on the text."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(inputs.articles, BPE_SIZE, special_tokens=BPE_SPECIAL, show_progress=False)
    folder = inputs.work / "bpe"
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _balance(folder: Path) -> tuple[float, float]:
    """(largest relative distance of a shard's sentences from the mean of its split, share of the sentences that are in test)."""
    counts = {path.name: sum(1 for line in path.read_text(encoding="utf-8").split("\n") if line) for path in folder.glob("*.txt")}
    splits = [[count for name, count in counts.items() if name.startswith(split)] for split in ("training", "test")]
    worst = max(abs(count * len(split) / sum(split) - 1) for split in splits for count in split)
    return worst, sum(splits[1]) / sum(counts.values())
