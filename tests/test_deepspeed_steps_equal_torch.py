"""DeepSpeed's traps stay closed: at every precision and ZeRO stage, on two ranks, its first steps are those of plain torch AdamW."""

import json

import pytest
from launching import ROOT, launch, torchrun

# Reference and engine split the same sums differently; bf16 matrix products of differently shaped batches may round differently.
TOLERANCE = {"fp32": 1e-6, "bf16": 1e-4, "fp16": 2e-3}


@pytest.fixture(scope="module")
def results():
    output = launch([*torchrun(2), str(ROOT / "tests" / "drive_engine.py"), "fp32,bf16,fp16"], PYTHONPATH=str(ROOT)).stdout
    line = next(line for line in output.splitlines() if line.startswith("RESULTS"))
    return json.loads(line.removeprefix("RESULTS"))


def test_nothing_happens_before_the_first_step(results):
    for result in results:
        assert result["begins_exact"], result
        assert result["steps"] == 3, result
        assert result["dtypes"] == ["torch.float32"], result


def test_three_steps_equal_plain_torch(results):
    assert len(results) == 18
    for result in results:
        assert result["error"] < TOLERANCE[result["precision"]], result


def test_gradient_norms_are_those_before_clipping(results):
    for result in results:
        assert result["norm"] == pytest.approx(result["expected_norm"], rel=1e-2 if result["precision"] != "fp32" else 1e-5), result


def test_frozen_weights_stay(results):
    assert not any(result["frozen_moved"] for result in results)
