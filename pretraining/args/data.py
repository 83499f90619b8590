"""Which samples are read, and how far ahead."""

from dataclasses import dataclass

from pretraining.args.flags import flag, parse_int


@dataclass
class LoadingFlags:
    num_workers: int = flag(4, "optimizer steps whose batches a loader thread prepares ahead of training; 0: no thread")
    group_by_length: bool = flag(
        False, "sort the samples of each optimizer step by length before they are cut into micro-batches, so that less is padding; which "
        "samples a step sees stays the same",
    )


@dataclass
class DataFlags(LoadingFlags):
    dataset_path: str = flag("books_wiki_en_corpus", "folder of *train*.hdf5 and *test*.hdf5 shards")
    async_worker: bool = flag(
        True, "the originals' asynchronous shard loading", no_effect="batches are prepared ahead whenever --num_workers > 0",
    )
    data_loader_type: str = flag(
        "per_device", "the originals' way of sharing shards between ranks", choices=("dist", "per_device"),
        no_effect="every rank takes its part of one global order, so the data does not depend on the number of ranks",
    )
    max_predictions_per_seq: int = flag(
        None, "read at most so many masked positions per sample; default: all that a shard holds", parse_int,
    )
    token_counts: str = flag(
        None, "JSON file of dataset/count_tokens.py: training masks are drawn over each global batch and fall on rare tokens more often; "
        "needs shards without masks. Held-out samples keep their plain masks, so that held-out losses stay comparable", str,
        metavar="FILE",
    )
    mlm_smoothing: float = flag(0.7, "with --token_counts a token is drawn in proportion to max(count, 1)^-X; 0: all alike")
