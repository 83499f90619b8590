"""The BiLSTM of d-bert (Tang et al. 2019): the last states of both directions through one hidden layer.

The direction back is a second layer over each row reversed within its length. So padding is behind the last state in both directions and
needs no packing, which neither `torch.export` nor ONNX can express; the states are those of torch's packed bidirectional layer.
"""

import torch
from torch import nn

from task_distillation.students.embedding import WordEmbedding
from task_distillation.students.part import Part, Student

LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU}


class BiRNN(nn.Module):
    """Vectors (B, L, D) with lengths (B,) -> the last states (B, 2 H): of the last word read forward, of the first read backward."""

    def __init__(self, input_size: int, cell: str, hidden_size: int) -> None:
        super().__init__()
        self.forward_layer = LAYERS[cell](input_size, hidden_size, batch_first=True)
        self.backward_layer = LAYERS[cell](input_size, hidden_size, batch_first=True)

    def forward(self, vectors: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        last = (lengths.clamp(min=1) - 1).unsqueeze(1)
        # Row i backward: positions last, last - 1, ..., 0; what comes behind is never looked at.
        positions = (last - torch.arange(vectors.shape[1], device=vectors.device)).clamp(min=0)
        backward = vectors.gather(1, positions.unsqueeze(2).expand(-1, -1, vectors.shape[2]))
        states = []
        for layer, inputs in ((self.forward_layer, vectors), (self.backward_layer, backward)):
            outputs = layer(inputs)[0]
            states.append(outputs.gather(1, last.unsqueeze(2).expand(-1, 1, outputs.shape[2])).squeeze(1))
        return torch.cat(states, dim=1)


class Head(nn.Module):
    """fc1, ReLU, dropout, fc2."""

    def __init__(self, features: int, fc_size: int, dropout: float, outputs: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(features, fc_size), nn.Linear(fc_size, outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.dropout(torch.relu(self.fc1(features)))).float()


class BiLSTM(Student):
    def __init__(self, *, vocabulary: int, outputs: int, embedding: str, embedding_size: int, cell: str, hidden_size: int, fc_size: int,
                 dropout: float) -> None:
        super().__init__()
        self.embedding = WordEmbedding(vocabulary, embedding, embedding_size)
        self.rnn = BiRNN(self.embedding.width, cell, hidden_size)
        self.head = Head(2 * hidden_size, fc_size, dropout, outputs)

    def embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, parts: tuple[Part, ...]) -> torch.Tensor:
        (part,) = parts
        return self.head(self.rnn(self.embedding(part.ids), part.lengths))
