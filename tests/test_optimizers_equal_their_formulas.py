"""Every --optimizer_type steps as its paper says, in float64 and plain loops, and continues from its saved state bit for bit."""

import io
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from launching import ROOT, launch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pretraining.args.optimization import OptimizationFlags
from pretraining.optimizers import build_optimizer

TYPES = ("adam", "adamw", "lamb", "adafactor", "muon")
FLAGS = OptimizationFlags(weight_decay=0.2, adam_beta1=0.85, adam_beta2=0.95, adam_eps=1e-6)
# Learning rate of a step and size of its gradients: one step without moving, gradients that grow and vanish.
STEPS = ((0.003, 1.0), (0.01, 1e-3), (0.0, 1.0), (0.02, 30.0), (0.005, 1e-2))
# As a share of the way that a parameter moved; in fp32 the large weights of `Shapes` round more than they move.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
# torch's Newton-Schulz iteration multiplies in bf16, eight bits, ten products in a row.
BF16_TOLERANCE = 0.05
HIDDEN = ("high.weight", "wide.weight", "square.weight")


class Shapes(nn.Module):
    """Parameters of one to three dimensions, high, wide and square, one group decayed and one not, zeros and a zero gradient."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embeddings = nn.Embedding(11, 7)
        self.high, self.wide, self.square = nn.Linear(7, 20), nn.Linear(20, 5, bias=False), nn.Linear(5, 5)
        self.convolution = nn.Conv1d(3, 4, 2)
        self.norm = nn.LayerNorm(5)
        self.unmoved = nn.Parameter(torch.ones(3))
        with torch.no_grad():
            self.square.weight.mul_(20.0)
            self.wide.weight.mul_(1e-3)


def type_flags(name: str, **more) -> OptimizationFlags:
    return replace(FLAGS, optimizer_type=name, **more)


def drive(module: nn.Module, optimizer: torch.optim.Optimizer, seed: int = 0, steps=STEPS) -> dict[str, list[np.ndarray]]:
    """Random gradients through `steps`; returns them by parameter, in float64."""
    generator = torch.Generator().manual_seed(seed)
    gradients: dict[str, list] = {name: [] for name, _ in module.named_parameters()}
    for rate, size in steps:
        for group in optimizer.param_groups:
            group["lr"] = rate
        for name, parameter in module.named_parameters():
            drawn = size * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
            parameter.grad = torch.zeros_like(drawn) if name == "unmoved" else drawn
            gradients[name].append(parameter.grad.double().numpy().copy())
        optimizer.step()
    return gradients


def weights(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: parameter.detach().double().numpy().copy() for name, parameter in module.named_parameters()}


def naive_adam(weight, gradients, decay, decoupled):
    """Kingma and Ba, algorithm 1; Loshchilov and Hutter, algorithm 2, where `decoupled`."""
    first = second = np.zeros_like(weight)
    for step, ((rate, _), gradient) in enumerate(zip(STEPS, gradients, strict=True), start=1):
        if decoupled:
            weight = weight - rate * decay * weight
        else:
            gradient = gradient + decay * weight
        first = FLAGS.adam_beta1 * first + (1 - FLAGS.adam_beta1) * gradient
        second = FLAGS.adam_beta2 * second + (1 - FLAGS.adam_beta2) * gradient**2
        unbiased_first, unbiased_second = first / (1 - FLAGS.adam_beta1**step), second / (1 - FLAGS.adam_beta2**step)
        weight = weight - rate * unbiased_first / (np.sqrt(unbiased_second) + FLAGS.adam_eps)
    return weight


def naive_lamb(weight, gradients, decay, flags, ratios):
    """You et al., algorithm 2, with a bounded ratio; the ratio of every step goes to `ratios`."""
    first = second = np.zeros_like(weight)
    for step, ((rate, _), gradient) in enumerate(zip(STEPS, gradients, strict=True), start=1):
        first = FLAGS.adam_beta1 * first + (1 - FLAGS.adam_beta1) * gradient
        second = FLAGS.adam_beta2 * second + (1 - FLAGS.adam_beta2) * gradient**2
        correction1 = 1 - FLAGS.adam_beta1**step if flags.bias_correction else 1.0
        correction2 = 1 - FLAGS.adam_beta2**step if flags.bias_correction else 1.0
        update = first / correction1 / (np.sqrt(second / correction2) + FLAGS.adam_eps) + decay * weight
        weight_norm, update_norm = np.sqrt((weight**2).sum()), np.sqrt((update**2).sum())
        if weight_norm == 0 or update_norm == 0:
            ratio = 1.0
        else:
            ratio = min(max(weight_norm / update_norm, flags.min_coeff), flags.max_coeff)
        ratios.append(ratio)
        weight = weight - rate * ratio * update
    return weight


def naive_adafactor(weight, gradients, decay):
    """Shazeer and Stern, algorithm 4 for matrices (each of the last two dimensions' where there are three) and 5 for vectors.

    Their step size α is the learning rate, and weight decay is decoupled.
    """
    second = np.zeros_like(weight)
    rows, columns = np.zeros(weight.shape[:-1]), np.zeros(weight.shape[:-2] + weight.shape[-1:])
    for step, ((rate, _), gradient) in enumerate(zip(STEPS, gradients, strict=True), start=1):
        beta2 = 1 - step**-0.8
        squared = gradient**2 + 1e-30
        if weight.ndim == 1:
            estimate = second = beta2 * second + (1 - beta2) * squared
        else:
            rows, columns = (beta2 * kept + (1 - beta2) * squared.sum(axis=axis) for kept, axis in ((rows, -1), (columns, -2)))
            estimate = np.einsum("...r,...c->...rc", rows, columns) / rows.sum(axis=-1)[..., None, None]
        update = gradient / np.sqrt(estimate)
        update = update / max(1.0, np.sqrt((update**2).mean()))
        weight = weight - rate * decay * weight - rate * update
    return weight


def newton_schulz(matrix):
    """Jordan's quintic iteration with his coefficients, in float64."""
    x = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = x / (np.sqrt((x**2).sum()) + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


def naive_muon(weight, gradients, decay, nesterov=True, momentum=0.95):
    """Jordan et al. with Nesterov's momentum, the step scaled to AdamW's root mean square (Liu et al. 2025, eq. 4)."""
    buffer = np.zeros_like(weight)
    for (rate, _), gradient in zip(STEPS, gradients, strict=True):
        buffer = momentum * buffer + gradient
        update = newton_schulz(gradient + momentum * buffer if nesterov else buffer)
        weight = weight - rate * decay * weight - rate * 0.2 * max(weight.shape) ** 0.5 * update
    return weight


def deviation(got: np.ndarray, expected: np.ndarray, start: np.ndarray) -> float:
    """Distance of the end points as a share of the way between start and expected end."""
    distance, way = np.linalg.norm(got - expected), np.linalg.norm(expected - start)
    return distance / way if way else distance


def decay_of(name: str, start: dict[str, np.ndarray]) -> float:
    return FLAGS.weight_decay if start[name].ndim > 1 else 0.0


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_and_adamw_equal_their_formulas(name, dtype):
    module = Shapes().to(dtype)
    start = weights(module)
    gradients = drive(module, build_optimizer(module, type_flags(name)))
    for parameter, got in weights(module).items():
        expected = naive_adam(start[parameter], gradients[parameter], decay_of(parameter, start), decoupled=name == "adamw")
        assert deviation(got, expected, start[parameter]) < TOLERANCE[dtype], parameter


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("bias_correction", [False, True])
def test_lamb_equals_its_formula_at_both_bounds_between_them_and_at_norms_of_zero(bias_correction, dtype):
    module = Shapes().to(dtype)
    start = weights(module)
    flags = type_flags("lamb", bias_correction=bias_correction, min_coeff=0.02, max_coeff=0.4)
    gradients = drive(module, build_optimizer(module, flags))
    ratios: list[float] = []
    for parameter, got in weights(module).items():
        expected = naive_lamb(start[parameter], gradients[parameter], decay_of(parameter, start), flags, ratios)
        assert deviation(got, expected, start[parameter]) < TOLERANCE[dtype], parameter
    assert {0.02, 0.4, 1.0} < set(ratios)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_adafactor_equals_its_formula(dtype):
    module = Shapes().to(dtype)
    start = weights(module)
    gradients = drive(module, build_optimizer(module, type_flags("adafactor")))
    for parameter, got in weights(module).items():
        expected = naive_adafactor(start[parameter], gradients[parameter], decay_of(parameter, start))
        assert deviation(got, expected, start[parameter]) < TOLERANCE[dtype], parameter


def check_muon(dtype: torch.dtype, tolerance: float) -> None:
    module = Shapes().to(dtype)
    start = weights(module)
    gradients = drive(module, build_optimizer(module, type_flags("muon")))
    for parameter, got in weights(module).items():
        before, drawn = start[parameter], gradients[parameter]
        if parameter in HIDDEN:
            assert deviation(got, naive_muon(before, drawn, FLAGS.weight_decay), before) < tolerance, parameter
        else:
            expected = naive_adam(before, drawn, decay_of(parameter, start), decoupled=True)
            assert deviation(got, expected, before) < TOLERANCE[dtype], parameter


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_muon_equals_its_formula_on_hidden_matrices_and_adamw_elsewhere(dtype):
    check_muon(dtype, BF16_TOLERANCE)


def test_muon_around_its_bf16_iteration_equals_its_formula(monkeypatch):
    """Momentum, look-ahead, decay and step size, which the loose tolerance of bf16 would hide, with the iteration in float64.

    torch keeps momentum as an average, 1/20 of the sum; the iteration divides the factor out, but for its epsilon of 1e-7.
    """
    def iterate(update, coefficients, steps, eps):
        assert (tuple(coefficients), steps, eps) == ((3.4445, -4.7750, 2.0315), 5, 1e-7)
        return torch.from_numpy(newton_schulz(update.numpy()))

    monkeypatch.setattr(torch.optim._muon, "_zeropower_via_newtonschulz", iterate)
    check_muon(torch.float64, 1e-6)


@pytest.mark.parametrize("name", TYPES)
def test_a_saved_state_continues_bit_for_bit(name):
    flags = type_flags(name, bias_correction=True)
    whole = Shapes()
    optimizer = build_optimizer(whole, flags)
    drive(whole, optimizer, seed=1)
    file = io.BytesIO()
    torch.save({"weights": whole.state_dict(), "optimizer": optimizer.state_dict()}, file)
    drive(whole, optimizer, seed=2)
    file.seek(0)
    saved = torch.load(file)
    resumed = Shapes()
    resumed.load_state_dict(saved["weights"])
    fresh = build_optimizer(resumed, flags)
    fresh.load_state_dict(saved["optimizer"])
    drive(resumed, fresh, seed=2)
    for (parameter, expected), got in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(got, expected), parameter
    for group, expected in zip(fresh.param_groups, optimizer.param_groups, strict=True):
        assert {key: value for key, value in group.items() if key != "params"} == {
            key: value for key, value in expected.items() if key != "params"}


def test_the_parts_of_a_combined_optimizer_obey_its_groups_before_and_after_loading():
    module = Shapes()
    optimizer = build_optimizer(module, type_flags("muon"))
    for _ in range(2):
        assert len(optimizer.param_groups) == 3
        assert all(mine is part for mine, part in zip(
            optimizer.param_groups, [group for part in optimizer.parts for group in part.param_groups], strict=True))
        before = weights(module)
        drive(module, optimizer, steps=((0.0, 1.0),))
        assert all(np.array_equal(before[parameter], after) for parameter, after in weights(module).items())
        drive(module, optimizer, steps=((0.1, 1.0),))
        moved = {parameter for parameter, after in weights(module).items() if not np.array_equal(before[parameter], after)}
        assert moved == set(before) - {"unmoved"}
        assert len(optimizer.state) == len(before)
        optimizer.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("name", TYPES)
def test_no_step_waits_for_the_device(name):
    """A tensor without values cannot be read on the host: `item`, or a branch on a value, is an error."""
    with FakeTensorMode():
        module = Shapes()
        optimizer = build_optimizer(module, type_flags(name, bias_correction=True))
        for _ in range(2):
            for parameter in module.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()


@pytest.fixture(scope="module")
def driven():
    command = [sys.executable, str(ROOT / "tests" / "drive_optimizers.py"), *TYPES]
    output = launch(command, PYTHONPATH=str(ROOT), DS_ACCELERATOR="cpu").stdout
    line = next(line for line in output.splitlines() if line.startswith("RESULTS"))
    results = json.loads(line.removeprefix("RESULTS"))
    assert len(results) == 3 * len(TYPES)
    return results


def test_deepspeed_steps_equal_the_bare_optimizer(driven):
    """Two accumulation steps are a factor of 2, which rounds nothing; fp16 may lose small numbers without a loss scale."""
    for result in driven:
        assert result["moved"] > 0.01, result
        assert result["whole"] <= (0.02 * result["moved"] if result["precision"] == "fp16" else 0.0), result


def test_deepspeeds_checkpoint_continues_bit_for_bit(driven):
    for result in driven:
        assert result["resumed"] == 0.0, result


def test_overflowing_gradients_change_nothing(driven):
    for result in driven:
        assert result["after_overflow"] == 0.0, result
