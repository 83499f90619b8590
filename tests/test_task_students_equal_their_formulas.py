"""Every student is what its paper says: recurrent layers against torch's packed ones, features and convolutions against loops, float64."""

import numpy as np
import pytest
import torch
from task_students_case import MNLI, SST2, make_student
from torch import nn

from task_distillation.students.bilstm import LAYERS, BiRNN
from task_distillation.students.flags import StudentFlags
from task_distillation.students.part import Part

LENGTHS = torch.tensor([4, 1, 7, 2])
CASES = [("bilstm", SST2, "lstm"), ("bilstm", MNLI, "gru"), ("siamese_bilstm", MNLI, "lstm")]


def packed_states(rnn: BiRNN, cell: str, vectors: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The last states that torch's packed bidirectional layer gives with the same weights."""
    inner = rnn.forward_layer
    both = LAYERS[cell](inner.input_size, inner.hidden_size, batch_first=True, bidirectional=True).double()
    with torch.no_grad():
        for name, weight in rnn.forward_layer.named_parameters():
            getattr(both, name).copy_(weight)
        for name, weight in rnn.backward_layer.named_parameters():
            getattr(both, f"{name}_reverse").copy_(weight)
    states = both(nn.utils.rnn.pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False))[1]
    last = states[0] if cell == "lstm" else states
    return torch.cat([last[0], last[1]], dim=1)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_last_states_are_those_of_torchs_packed_layer_and_so_are_the_gradients(cell):
    torch.manual_seed(0)
    rnn = BiRNN(3, cell, 5).double()
    vectors = torch.randn(4, 9, 3, dtype=torch.float64, requires_grad=True)
    found, expected = rnn(vectors, LENGTHS), packed_states(rnn, cell, vectors, LENGTHS)
    assert torch.allclose(found, expected, rtol=0, atol=1e-14)
    weights = torch.randn_like(found)
    assert torch.allclose(*(torch.autograd.grad((states * weights).sum(), vectors)[0] for states in (found, expected)), rtol=0, atol=1e-14)


def random_part(student: nn.Module, seed: int) -> Part:
    random = torch.Generator().manual_seed(seed)
    vocabulary = next(student.embeddings().parameters()).shape[0]
    return Part(torch.randint(1, vocabulary, (4, 7), generator=random), LENGTHS[torch.randperm(4, generator=random)])


@pytest.mark.parametrize(("name", "task", "cell"), CASES)
def test_recurrent_students_are_the_papers_features_through_one_hidden_layer(tmp_path, name, task, cell):
    student = make_student(tmp_path, task, student=name, cell=cell)[0].double()
    parts = tuple(random_part(student, seed) for seed in range(2 if name == "siamese_bilstm" else 1))
    states = [packed_states(student.rnn, cell, student.embedding(part.ids), part.lengths) for part in parts]
    features = states[0] if len(states) == 1 else torch.cat(
        [states[0], states[1], torch.abs(states[0] - states[1]), torch.mul(*states)], dim=1)
    weights = {key: weight.detach().numpy() for key, weight in student.head.named_parameters()}
    hidden = np.maximum(features.detach().numpy() @ weights["fc1.weight"].T + weights["fc1.bias"], 0)
    expected = hidden @ weights["fc2.weight"].T + weights["fc2.bias"]
    found = student(parts)
    assert found.dtype == torch.float32 and found.shape == (4, task.outputs)
    assert np.abs(found.detach().numpy() - expected).max() < 1e-6


def test_the_cnn_is_the_maximum_of_each_filter_over_the_windows_of_the_text(tmp_path):
    """The widest filter, 5, sees rows of 1 and 2 words as one window with zero vectors behind the words."""
    student = make_student(tmp_path, student="kim_cnn")[0].double()
    part = random_part(student, 3)
    expected = []
    for ids, length in zip(part.ids, part.lengths.tolist(), strict=True):
        vectors = student.embedding(ids[:length]).detach().numpy()
        features = []
        for convolution in student.filters:
            weight, bias, width = convolution.weight.detach().numpy(), convolution.bias.detach().numpy(), convolution.kernel_size[0]
            rows = np.vstack([vectors, np.zeros((max(0, width - length), vectors.shape[1]))])
            windows = [rows[at : at + width] for at in range(len(rows) - width + 1)]
            features += [max(max(0.0, float((window * one.T).sum() + offset)) for window in windows)
                         for one, offset in zip(weight, bias, strict=True)]
        expected.append(student.fc.weight.detach().numpy() @ features + student.fc.bias.detach().numpy())
    assert [convolution.kernel_size[0] for convolution in student.filters] == [3, 4, 5]
    assert np.abs(student((part,)).detach().numpy() - np.array(expected)).max() < 1e-6


@pytest.mark.parametrize(("name", "task"), [("bilstm", SST2), ("siamese_bilstm", MNLI), ("kim_cnn", SST2)])
def test_dropout_drops_its_share_in_training_and_nothing_afterwards(tmp_path, name, task):
    """d-bert's siamese network declares its dropout and never applies it."""
    student, _ = make_student(tmp_path, task, student=name, dropout=0.4)
    seen = []
    head = student.fc if name == "kim_cnn" else student.head.fc2
    head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    parts = tuple(Part(part.ids.repeat(400, 1), part.lengths.repeat(400)) for part in (random_part(student, seed) for seed in range(
        2 if name == "siamese_bilstm" else 1)))
    student(parts)
    torch.manual_seed(0)
    student.train()(parts)
    evaluated, trained = seen
    live = evaluated > 0
    dropped = (trained[live] == 0).double().mean().item()
    assert 0.38 < dropped < 0.42
    kept = live & (trained > 0)
    assert torch.allclose(trained[kept], evaluated[kept] / 0.6)


def test_the_paper_counts_0_96_million_parameters_without_embeddings(tmp_path):
    """Tang et al. 2019, table 1, with d-bert's sizes: two channels of 300, 150 in each direction, 200 below the classifier."""
    flags = {name: getattr(StudentFlags(), name) for name in ("embedding_size", "hidden_size", "fc_size")}
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("film" + " 0.1" * 300 + "\n")
    student, tokenizer = make_student(tmp_path, embedding="multichannel", word_vectors=str(vectors), **flags)
    counts = student.parameter_counts()
    assert counts.without_embeddings == 963_002
    assert counts.total == 963_002 + 2 * 300 * tokenizer.get_vocab_size()
