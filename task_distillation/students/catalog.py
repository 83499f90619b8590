"""Students in one table. Imports no torch: flags are checked against it before anything heavy is loaded.

Adding a student is a module with a `Student` in it, a row here and a test.
"""

from dataclasses import dataclass

CELLS = ("lstm", "gru")
EMBEDDINGS = ("random", "static", "non_static", "multichannel")
_WORDS = ("embedding", "embedding_size")
_RECURRENT = (*_WORDS, "cell", "hidden_size", "fc_size", "dropout")


@dataclass(frozen=True)
class Architecture:
    """One row. `sizes` are the flags that are arguments of the class in `module`."""

    name: str
    module: str
    class_name: str
    pairs: str
    """How two texts are read: `joined` as one sequence (a [SEP] b), `separate` each by itself; then there is no student of single texts."""
    sizes: tuple[str, ...]
    text: str
    paper: str

    @property
    def has_words(self) -> bool:
        """Whether it has a vocabulary of words of its own; an encoder comes with its tokenizer."""
        return bool(self.sizes)


_ROWS = (
    Architecture("bilstm", "task_distillation.students.bilstm", "BiLSTM", "joined", _RECURRENT,
                 "bidirectional LSTM or GRU, its last states through one hidden layer", "Tang et al. 2019, arXiv 1903.12136"),
    Architecture("siamese_bilstm", "task_distillation.students.siamese", "SiameseBiLSTM", "separate", _RECURRENT,
                 "one BiLSTM over each text of a pair, compared by [h1, h2, |h1-h2|, h1*h2]", "Tang et al. 2019, arXiv 1903.12136"),
    Architecture("kim_cnn", "task_distillation.students.kim_cnn", "KimCNN", "joined", (*_WORDS, "filter_widths", "feature_maps", "dropout"),
                 "convolutions over words and their maxima over time", "Kim 2014, arXiv 1408.5882"),
    Architecture("encoder", "task_distillation.students.encoder", "EncoderStudent", "joined", (),
                 "any small Hugging Face encoder under a new head", "Devlin et al. 2019, arXiv 1810.04805"),
)
STUDENTS = {row.name: row for row in _ROWS}
