"""Kim's CNN (2014): filters over windows of words, ReLU, the maximum over time of each filter, dropout, one linear layer.

Windows that reach into padding do not count. Where a row is shorter than a filter its one window is the row with zero vectors behind it,
so that every filter has a value for every text, the same in any batch.
"""

import torch
from torch import nn
from torch.nn.functional import pad

from task_distillation.students.embedding import WordEmbedding
from task_distillation.students.part import Part, Student


class KimCNN(Student):
    def __init__(self, *, vocabulary: int, outputs: int, embedding: str, embedding_size: int, filter_widths: tuple[int, ...],
                 feature_maps: int, dropout: float) -> None:
        super().__init__()
        self.embedding = WordEmbedding(vocabulary, embedding, embedding_size)
        self.filters = nn.ModuleList(nn.Conv1d(self.embedding.width, feature_maps, width) for width in filter_widths)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(len(filter_widths) * feature_maps, outputs)

    def embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, parts: tuple[Part, ...]) -> torch.Tensor:
        (part,) = parts
        position = torch.arange(part.ids.shape[1], device=part.ids.device)
        lengths = part.lengths.clamp(min=1).unsqueeze(1)
        vectors = (self.embedding(part.ids) * (position < lengths).unsqueeze(2)).transpose(1, 2)
        features = []
        for convolution in self.filters:
            width = convolution.kernel_size[0]
            values = torch.relu(convolution(pad(vectors, (0, width - 1))))
            whole = position < (lengths - width + 1).clamp(min=1)
            # After a ReLU nothing is below 0, so 0 hides a window from the maximum.
            features.append((values * whole.unsqueeze(1)).amax(dim=2))
        return self.fc(self.dropout(torch.cat(features, dim=1))).float()
