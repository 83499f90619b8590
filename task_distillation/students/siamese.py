"""The siamese BiLSTM of d-bert for pairs (Tang et al. 2019, section 2.2): one BiLSTM reads each text, [h1, h2, |h1 - h2|, h1 * h2] tell
the class. d-bert declares a dropout here and never applies it; here it is applied, where the BiLSTM has it."""

import torch
from torch import nn

from task_distillation.students.bilstm import BiRNN, Head
from task_distillation.students.embedding import WordEmbedding
from task_distillation.students.part import Part, Student


class SiameseBiLSTM(Student):
    def __init__(self, *, vocabulary: int, outputs: int, embedding: str, embedding_size: int, cell: str, hidden_size: int, fc_size: int,
                 dropout: float) -> None:
        super().__init__()
        self.embedding = WordEmbedding(vocabulary, embedding, embedding_size)
        self.rnn = BiRNN(self.embedding.width, cell, hidden_size)
        self.head = Head(8 * hidden_size, fc_size, dropout, outputs)

    def embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, parts: tuple[Part, ...]) -> torch.Tensor:
        first, second = (self.rnn(self.embedding(part.ids), part.lengths) for part in parts)
        return self.head(torch.cat([first, second, (first - second).abs(), first * second], dim=1))
