"""What only a GPU can show; without one these are skipped."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nlp_finetune.models import row_attention
from nlp_finetune.models.rows import Rows
from nlp_finetune.runs.peaks import peak_tflops
from tests import command_line
from tests.engines.test_parity import assert_same_trajectory
from tests.engines.trajectory import Settings

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")]
ENGINES = ("trainer", "accelerate")


@pytest.fixture(autouse=True)
def with_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests keep to the CPU elsewhere."""
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """A trajectory in a process of its own: accelerate's state is one a process."""
    given, found = folder / "settings.json", folder / "output.json"
    given.write_text(json.dumps(asdict(settings)))
    script = Path(__file__).parent / "engines" / "trajectory.py"
    command = [sys.executable, str(script), str(given), str(found)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(found.read_text())


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_on_a_gpu_is_that_on_a_cpu(engine: str, tmp_path: Path) -> None:
    settings = Settings(engine=engine, micro_batches=2)
    assert_same_trajectory(run(settings, tmp_path), run(replace(settings, gpu=True), tmp_path), tolerance=1e-4)


@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("engine", ENGINES)
def test_graphs_that_are_replayed_are_the_plain_passes(engine: str, micro_batches: int, tmp_path: Path) -> None:
    plain = Settings(engine=engine, micro_batches=micro_batches, gpu=True, steps=12)
    found = run(replace(plain, compiled=True), tmp_path)
    assert_same_trajectory(run(plain, tmp_path), found, tolerance=1e-4)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_run_goes_on_where_it_stopped(compiled: bool, tmp_path: Path) -> None:
    whole = Settings(gpu=True, compiled=compiled, dropout=0.1, steps=12)
    checkpoint = str(tmp_path / "step-6")
    run(replace(whole, checkpoint=checkpoint, save_at=6), tmp_path)
    assert run(replace(whole, checkpoint=checkpoint), tmp_path)["weights"] == run(whole, tmp_path)["weights"]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_no_step_waits_for_the_gpu(engine: str, compiled: bool, tmp_path: Path) -> None:
    run(Settings(engine=engine, gpu=True, compiled=compiled, may_wait=False, steps=40, precision="bf16"), tmp_path)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_without_padding_is_the_padded_one(precision: str, dropout: float, tmp_path: Path) -> None:
    padded = Settings(gpu=True, precision=precision, dropout=dropout)
    one, other = run(padded, tmp_path), run(replace(padded, packed=True), tmp_path)
    # Other masks of dropout, and in bf16 other kernels: then the runs are alike and not the same.
    tolerance = 1e-4 if precision == "fp32" and not dropout else 0.3
    assert one["loss"] == pytest.approx(other["loss"], rel=tolerance)


@pytest.mark.parametrize(
    ("recipe", "setting"),
    [
        ("text_cls", "train.precision=fp16"),
        ("image_cls", "train.compile=on"),
        ("token_cls", "train.max_tokens=400"),
    ],
)
def test_demos_train_on_a_gpu(recipe: str, setting: str, tmp_path: Path) -> None:
    done = command_line.run(
        "--recipe", recipe, "--demo", "train.max_steps=4", setting, f"output_dir={tmp_path / 'run'}", cwd=tmp_path
    )
    assert done.code == 0, done.stderr[-2000:]
    assert "on cuda" in done.stderr
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text())["train"]
    assert figures["peak_memory_mb"] > 0
    is_known = peak_tflops(torch.cuda.get_device_name(), figures["precision"]) is not None
    assert ("model_flops_utilization" in figures) == is_known


@pytest.mark.parametrize("causal", [False, True])
def test_flash_attention_within_rows_is_plain_attention(causal: bool) -> None:
    torch.manual_seed(0)
    mask = torch.zeros(3, 7, dtype=torch.long, device="cuda")
    for row, length in enumerate((7, 3, 5)):
        mask[row, :length] = 1
    rows = Rows(mask)
    query, key, value = (
        torch.randn(1, 2, rows.tokens, 32, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3)
    )
    places = torch.arange(rows.tokens, device="cuda")
    row_of = torch.bucketize(places, rows.ends.long()[1:], right=True)
    seen = row_of[:, None] == row_of
    seen = seen & (places <= places[:, None]) if causal else seen
    expected = torch.nn.functional.scaled_dot_product_attention(
        query.float(), key.float(), value.float(), attn_mask=seen
    ).transpose(1, 2)
    probe = torch.randn_like(expected)
    gradients = torch.autograd.grad((expected * probe).sum(), (query, key, value))
    for found in (
        row_attention._flash(query, key, value, rows, None, causal, None),
        row_attention._flash_with_dropout(query, key, value, rows, None, causal, 0.0),
    ):
        torch.testing.assert_close(found.float(), expected, rtol=2e-2, atol=2e-2)
        own = torch.autograd.grad((found.float() * probe).sum(), (query, key, value))
        for one, other in zip(own, gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=3e-2, atol=3e-2)


def test_attention_within_rows_drops_shares_on_average_nothing() -> None:
    torch.manual_seed(0)
    rows = Rows(torch.ones(2, 16, dtype=torch.long, device="cuda"))
    query, key = (torch.randn(1, 2, 32, 32, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    value = torch.ones_like(query)
    draws = [row_attention._flash_with_dropout(query, key, value, rows, None, False, 0.5) for _ in range(200)]
    assert float(torch.stack(draws).float().mean()) == pytest.approx(1.0, abs=0.02)
    assert float(draws[0].float().std()) > 0.05
