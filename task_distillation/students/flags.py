"""What a student is made of. Defaults of the BiLSTM are d-bert's for SST-2, of the CNN Kim's (2014); sizes say nothing about a Hugging
Face encoder, whose folder does."""

from dataclasses import dataclass

from pretraining.args.flags import flag, parse_int
from task_distillation.students.catalog import CELLS, EMBEDDINGS, STUDENTS


def parse_widths(text: str) -> tuple[int, ...]:
    """`3,4,5` or `3 4 5`; ValueError for anything but whole numbers."""
    return tuple(parse_int(word) for word in text.strip("()[] ").replace(",", " ").split())


@dataclass
class StudentFlags:
    student: str = flag("bilstm", "the student's architecture", choices=tuple(STUDENTS))
    max_length: int = flag(128, "tokens kept of a text, of a pair that is read as one sequence the longer text is cut first", parse_int)
    student_path: str = flag(
        None, "folder of a small Hugging Face encoder with its tokenizer, for --student encoder", str, metavar="FOLDER")
    cell: str = flag("lstm", "kind of the recurrent layer", choices=CELLS)
    hidden_size: int = flag(150, "width of the recurrent layer in each direction", parse_int)
    fc_size: int = flag(200, "width of the layer below the classifier", parse_int)
    dropout: float = flag(0.1, "share of units dropped before the classifier")
    filter_widths: tuple[int, ...] = flag((3, 4, 5), "words that the CNN's filters see", parse_widths, metavar="N,N,...")
    feature_maps: int = flag(100, "filters of each width", parse_int)
    embedding: str = flag(
        "random", "word embeddings: learnt from random ones, the word vectors as they are, the word vectors trained on, or the last two "
        "side by side", choices=EMBEDDINGS)
    embedding_size: int = flag(300, "width of the embeddings, that of the word vectors where there are any", parse_int)
    word_vectors: str = flag(
        None, "word vectors in word2vec's or GloVe's text format; --embedding static, non_static and multichannel start from them", str,
        metavar="FILE")
    vocab_size: int = flag(30_000, "words of the vocabulary at most, the most frequent ones: a language model invents words", parse_int)
    min_count: int = flag(1, "times that a word must occur to have an embedding", parse_int)
