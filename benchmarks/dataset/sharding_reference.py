"""What `dataset/shard_data.py` is measured against: NVIDIA's published sharding in plain Python, one article after the other.

All articles are read into memory and split into sentences, then dealt out greedily: every shard gets one of the longest articles, then in
rounds each shard that is not above the median of its split takes the longest article that still fits; where four rounds in a row place
nothing, training shards may grow by one sentence. It is quadratic in the articles, which is why the original takes hours on Wikipedia.

    python -m benchmarks.dataset.sharding_reference articles.txt shards --num_train_shards 8 --num_test_shards 2 --splitter sentencex

`sentencex` is the splitter of our own pipeline, written in Rust, so that the difference is the program around it. The originals use
NLTK's Punkt, in Python: `punkt` is that algorithm without its trained abbreviations, which would have to be downloaded and change
nothing about the time. It is left out where NLTK is not installed.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

SENTENCEX, PUNKT = "sentencex", "punkt"
FRUITLESS_ROUNDS = 4
Split = Callable[[str], list[str]]


def has_punkt() -> bool:
    return find_spec("nltk") is not None


def splitter(name: str) -> Split:
    """Text -> sentences."""
    if name == PUNKT:
        from nltk.tokenize.punkt import PunktSentenceTokenizer

        return PunktSentenceTokenizer().tokenize
    import sentencex

    return lambda text: list(sentencex.segment("en", text))


def deal(sizes: Sequence[int], train_shards: int, test_shards: int, frac_test: float) -> list[list[int]]:
    """Numbers of the articles of each shard, training shards first; `sizes`: sentences of each article, more articles than shards."""
    total = sum(sizes)
    nominal = [total * (1 - frac_test) / train_shards] * train_shards + [total * frac_test / max(1, test_shards)] * test_shards
    unused = sorted(range(len(sizes)), key=lambda article: -sizes[article])
    shards = [[unused.pop(0)] for _ in nominal]
    counts = [sizes[shard[0]] for shard in shards]
    fruitless = 0
    while unused:
        placed = False
        for split in (range(train_shards), range(train_shards, len(shards))):
            middle = statistics.median(counts[shard] for shard in split) if split else 0
            for shard in split:
                fitting = next((place for place, article in enumerate(unused) if counts[shard] + sizes[article] <= nominal[shard]), None)
                if counts[shard] <= middle and fitting is not None:
                    shards[shard].append(unused.pop(fitting))
                    counts[shard] += sizes[shards[shard][-1]]
                    placed = True
        fruitless = 0 if placed else fruitless + 1
        if fruitless >= FRUITLESS_ROUNDS:
            nominal = [size + 1 if shard < train_shards else size for shard, size in enumerate(nominal)]
    return shards


def shard(source: Path, output: Path, split: Split, train_shards: int, test_shards: int, frac_test: float) -> None:
    """`training{i}.txt` and `test{i}.txt` in `output`, one sentence a line and a blank line after each article."""
    articles = []
    with source.open(encoding="utf-8") as lines:
        articles = [split(line.strip()) for line in lines if line.strip()]
    output.mkdir(parents=True, exist_ok=True)
    for number, members in enumerate(deal([len(article) for article in articles], train_shards, test_shards, frac_test)):
        name = f"training{number}.txt" if number < train_shards else f"test{number - train_shards}.txt"
        with (output / name).open("w", encoding="utf-8") as file:
            for member in members:
                for sentence in articles[member]:
                    file.write(sentence.strip() + "\n")
                file.write("\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("source", type=Path, help="one article a line")
    parser.add_argument("output", type=Path)
    parser.add_argument("--num_train_shards", type=int, required=True)
    parser.add_argument("--num_test_shards", type=int, required=True)
    parser.add_argument("--frac_test", type=float, default=0.1)
    parser.add_argument("--splitter", choices=(SENTENCEX, PUNKT), default=SENTENCEX)
    asked = parser.parse_args()
    shard(asked.source, asked.output, splitter(asked.splitter), asked.num_train_shards, asked.num_test_shards, asked.frac_test)


if __name__ == "__main__":
    main()
