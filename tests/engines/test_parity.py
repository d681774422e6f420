"""Two engines, any cut into micro batches, any number of processes: one trajectory."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from tests.engines.trajectory import Settings, run

LOSSES = ("cross_entropy", "focal", "bce", "mse", "huber")


def assert_same_trajectory(one: dict, other: dict, *, tolerance: float) -> None:
    for quantity in ("loss", "grad_norm", "learning_rate", "epoch"):
        assert one[quantity] == pytest.approx(other[quantity], rel=tolerance, abs=tolerance), quantity
    for mine, others in zip(one["measured"], other["measured"], strict=True):
        for what in ("gradients", "updates"):
            # Adam's first steps turn gradients of rounding noise into updates of full size.
            assert mine[what] == pytest.approx(others[what], rel=2e-3, abs=1e-6), what
    assert one["last_step"] == other["last_step"]
    assert len(one["loss"]) == one["last_step"]


def run_in_processes(settings: Settings, folder: Path) -> dict:
    """Run through torchrun on real gloo processes."""
    (folder / "settings.json").write_text(json.dumps(asdict(settings)))
    script = Path(__file__).with_name("trajectory.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(settings.processes)]
    command += ["--master_port", str(29500 + os.getpid() % 2000), str(script)]
    command += [str(folder / "settings.json"), str(folder / "output.json")]
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    if settings.zero is not None:
        environment |= {"ACCELERATE_USE_DEEPSPEED": "true"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "output.json").read_text())


@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("loss", LOSSES)
def test_engines_agree_step_by_step(loss: str, micro_batches: int) -> None:
    settings = Settings(loss=loss, micro_batches=micro_batches)
    trainer = run(replace(settings, engine="trainer"))
    accelerate = run(replace(settings, engine="accelerate"))
    assert_same_trajectory(trainer, accelerate, tolerance=1e-6)
    assert trainer["weights"] == accelerate["weights"]


@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "bce"])
def test_engines_and_cuts_agree_with_class_weights(loss: str, micro_batches: int) -> None:
    settings = Settings(loss=loss, weights=[0.5, 1.0, 4.0], micro_batches=micro_batches)
    trainer = run(settings)
    accelerate = run(replace(settings, engine="accelerate"))
    assert trainer["weights"] == accelerate["weights"]
    assert_same_trajectory(trainer, run(replace(settings, micro_batches=2)), tolerance=2e-5)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd", "adafactor", "lion"])
def test_engines_agree_with_every_optimizer(optimizer: str) -> None:
    settings = Settings(optimizer=optimizer, micro_batches=2)
    trainer, accelerate = run(settings), run(replace(settings, engine="accelerate"))
    assert_same_trajectory(trainer, accelerate, tolerance=1e-6)
    assert trainer["weights"] == accelerate["weights"]


@pytest.mark.parametrize("thaw_every", [None, 2])
def test_engines_agree_with_a_rate_for_each_layer(thaw_every: int | None) -> None:
    settings = Settings(layer_decay=0.5, thaw_every=thaw_every)
    trainer, accelerate = run(settings), run(replace(settings, engine="accelerate"))
    assert trainer["weights"] == accelerate["weights"]
    assert trainer["weights"] != run(replace(settings, layer_decay=1.0))["weights"]


@pytest.mark.parametrize("schedule", ["one_cycle", "warmup_stable_decay", "plateau"])
def test_engines_agree_with_schedules_that_are_more_than_a_shape(schedule: str) -> None:
    settings = Settings(schedule=schedule)
    trainer, accelerate = run(settings), run(replace(settings, engine="accelerate"))
    assert_same_trajectory(trainer, accelerate, tolerance=1e-6)
    # Evaluated every 2 steps, never better than the first: the plateau cuts the rate again and again.
    assert trainer["learning_rate"][-1] < max(trainer["learning_rate"])


@pytest.mark.parametrize("regularizer", ["r_drop", "adversarial", "neftune", "l2_sp", "mixup"])
def test_engines_agree_with_every_regularizer(regularizer: str) -> None:
    settings = Settings(regularizer=regularizer, dropout=0.1, micro_batches=2)
    trainer, accelerate = run(settings), run(replace(settings, engine="accelerate"))
    assert trainer["weights"] == accelerate["weights"]
    assert trainer["weights"] != run(replace(settings, regularizer=None))["weights"]


@pytest.mark.parametrize("adapter", [None, "lora"])
@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
def test_engines_agree_on_the_contrast_of_classes(loss: str, adapter: str | None) -> None:
    settings = Settings(regularizer="supervised_contrastive", loss=loss, adapter=adapter, dropout=0.1, micro_batches=2)
    trainer, accelerate = run(settings), run(replace(settings, engine="accelerate"))
    assert_same_trajectory(trainer, accelerate, tolerance=1e-6)
    assert trainer["weights"] == accelerate["weights"]
    assert trainer["weights"] != run(replace(settings, regularizer=None))["weights"]


@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
@pytest.mark.parametrize("regularizer", ["r_drop", "adversarial", "l2_sp", "mixup"])
def test_regularizers_do_not_depend_on_the_cut_into_micro_batches(regularizer: str, loss: str) -> None:
    settings = Settings(regularizer=regularizer, loss=loss)
    assert_same_trajectory(run(settings), run(replace(settings, micro_batches=4)), tolerance=2e-5)


@pytest.mark.parametrize(("average", "adapter"), [("ema", None), ("swa", None), ("ema", "lora")])
def test_engines_agree_on_the_average_of_weights(average: str, adapter: str | None) -> None:
    settings = Settings(average=average, adapter=adapter, dropout=0.1, micro_batches=2)
    trainer, accelerate = run(settings), run(replace(settings, engine="accelerate"))
    assert trainer["weights"] == accelerate["weights"]
    plain = run(replace(settings, average=None))
    # Training goes on with its own weights: only what is saved differs.
    assert trainer["loss"] == plain["loss"]
    assert trainer["weights"] != plain["weights"]


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_engines_and_cuts_agree_on_gradients_clipped_by_value(micro_batches: int) -> None:
    settings = Settings(clip_by_value=1e-3, optimizer="sgd", micro_batches=micro_batches)
    trainer, accelerate = run(settings), run(replace(settings, engine="accelerate"))
    assert trainer["weights"] == accelerate["weights"]
    assert trainer["weights"] != run(replace(settings, clip_by_value=None))["weights"]
    assert_same_trajectory(trainer, run(replace(settings, micro_batches=4)), tolerance=2e-5)


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_engines_and_cuts_agree_where_classes_are_balanced(micro_batches: int) -> None:
    # Changed rows: a row that comes up twice in an epoch is changed in two ways.
    settings = Settings(balanced=True, changing_rows=True, micro_batches=micro_batches, steps=12)
    trainer, accelerate = run(settings), run(replace(settings, engine="accelerate"))
    assert trainer["weights"] == accelerate["weights"]
    assert_same_trajectory(trainer, run(replace(settings, micro_batches=2)), tolerance=2e-5)


@pytest.mark.parametrize(
    "more",
    [{}, {"adapter": "lora"}, {"frozen_layers": 1}, {"thaw_every": 2}],
    ids=["whole", "lora", "frozen", "thawing"],
)
@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_computing_blocks_again_changes_nothing(engine: str, more: dict) -> None:
    settings = Settings(engine=engine, dropout=0.1, micro_batches=2, **more)
    plain, again = run(settings), run(replace(settings, recomputes=True))
    assert again["loss"] == plain["loss"]
    assert again["weights"] == plain["weights"]


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_two_processes_compute_blocks_again_as_one_keeps_them(engine: str, sharded: bool, tmp_path: Path) -> None:
    settings = Settings(engine=engine, micro_batches=2)
    two = run_in_processes(replace(settings, recomputes=True, processes=2, sharded=sharded), tmp_path)
    assert_same_trajectory(run(settings), two, tolerance=2e-5)


@pytest.mark.parametrize("runs_out", ["forward", "backward"])
@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_a_run_out_of_memory_goes_on_as_one_with_smaller_micro_batches(
    engine: str, micro_batches: int, runs_out: str
) -> None:
    settings = Settings(engine=engine, micro_batches=micro_batches)
    smaller = run(replace(settings, micro_batches=2 * micro_batches))
    assert_same_trajectory(smaller, run(replace(settings, runs_out=runs_out)), tolerance=2e-5)


def test_engines_agree_on_what_dropout_draws_after_running_out_of_memory() -> None:
    settings = Settings(dropout=0.1, micro_batches=2, runs_out="backward")
    assert run(settings)["weights"] == run(replace(settings, engine="accelerate"))["weights"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_one_process_out_of_memory_makes_all_run_smaller_parts(engine: str, tmp_path: Path) -> None:
    settings = Settings(engine=engine, micro_batches=2, runs_out="forward", rank_out=1, batch_size=12)
    two = run_in_processes(replace(settings, processes=2), tmp_path)
    assert_same_trajectory(run(replace(settings, runs_out=None)), two, tolerance=2e-5)


def test_engines_agree_with_dropout() -> None:
    trainer = run(Settings(engine="trainer", dropout=0.1, micro_batches=2))
    accelerate = run(Settings(engine="accelerate", dropout=0.1, micro_batches=2))
    assert trainer["weights"] == accelerate["weights"]


@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
@pytest.mark.parametrize("micro_batches", [2, 3, 4, 8])
def test_the_cut_into_micro_batches_does_not_change_the_trajectory(engine: str, micro_batches: int) -> None:
    whole = run(Settings(engine=engine))
    cut = run(Settings(engine=engine, micro_batches=micro_batches))
    assert_same_trajectory(whole, cut, tolerance=2e-5)


@pytest.mark.parametrize("method", ["lora", "dora", "rslora", "pissa", "ia3", "vera"])
def test_engines_agree_with_adapters(method: str) -> None:
    settings = Settings(adapter=method, micro_batches=2, dropout=0.0 if method == "ia3" else 0.1)
    trainer = run(settings)
    accelerate = run(replace(settings, engine="accelerate"))
    assert_same_trajectory(trainer, accelerate, tolerance=1e-6)
    assert trainer["weights"] == accelerate["weights"]


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_engines_change_rows_at_random_alike_in_every_epoch(micro_batches: int) -> None:
    # 12 steps of 8 rows are more than two epochs of 37.
    settings = Settings(changing_rows=True, micro_batches=micro_batches, steps=12)
    trainer = run(settings)
    accelerate = run(replace(settings, engine="accelerate"))
    assert trainer["weights"] == accelerate["weights"]
    assert_same_trajectory(trainer, run(replace(settings, micro_batches=1)), tolerance=2e-5)


@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_a_budget_of_tokens_does_not_change_the_trajectory(engine: str) -> None:
    assert_same_trajectory(run(Settings(engine=engine)), run(Settings(engine=engine, max_tokens=24)), tolerance=2e-5)


def test_engines_agree_with_a_budget_of_tokens_and_dropout() -> None:
    settings = Settings(max_tokens=24, dropout=0.1, changing_rows=True)
    trainer, accelerate = run(settings), run(replace(settings, engine="accelerate"))
    assert_same_trajectory(trainer, accelerate, tolerance=1e-6)
    assert trainer["weights"] == accelerate["weights"]


@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_a_run_with_a_budget_of_tokens_goes_on_where_it_stopped(engine: str, tmp_path: Path) -> None:
    settings = Settings(engine=engine, max_tokens=24, dropout=0.1)
    checkpoint = str(tmp_path / "step-4")
    run(replace(settings, checkpoint=checkpoint, save_at=4))
    assert run(replace(settings, checkpoint=checkpoint))["weights"] == run(settings)["weights"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_two_processes_train_with_a_budget_of_tokens_as_one(engine: str, tmp_path: Path) -> None:
    settings = Settings(engine=engine, max_tokens=24)
    two = run_in_processes(replace(settings, processes=2), tmp_path)
    assert_same_trajectory(run(settings), two, tolerance=2e-5)


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_engines_agree_without_padding_and_with_fast_dropout(micro_batches: int) -> None:
    settings = Settings(packed=True, fast_dropout=True, dropout=0.1, micro_batches=micro_batches)
    trainer, accelerate = run(settings), run(replace(settings, engine="accelerate"))
    assert_same_trajectory(trainer, accelerate, tolerance=1e-6)
    assert trainer["weights"] == accelerate["weights"]


@pytest.mark.parametrize("regularizer", [None, "r_drop", "adversarial"])
@pytest.mark.parametrize("adapter", [None, "lora"])
def test_a_run_without_padding_is_the_padded_one(regularizer: str | None, adapter: str | None) -> None:
    settings = Settings(regularizer=regularizer, adapter=adapter, micro_batches=2)
    assert_same_trajectory(run(settings), run(replace(settings, packed=True)), tolerance=2e-5)


@pytest.mark.parametrize("packed", [False, True])
def test_engines_agree_with_a_last_block_for_first_tokens(packed: bool) -> None:
    settings = Settings(first_token_only=True, packed=packed, fast_dropout=True, dropout=0.1, micro_batches=2)
    trainer, accelerate = run(settings), run(replace(settings, engine="accelerate"))
    assert_same_trajectory(trainer, accelerate, tolerance=1e-6)
    assert trainer["weights"] == accelerate["weights"]


@pytest.mark.parametrize(
    "others",
    [{"regularizer": "r_drop"}, {"regularizer": "adversarial"}, {"adapter": "lora"}, {"recomputes": True}],
    ids=lambda others: "-".join(others),
)
def test_a_run_with_a_last_block_for_first_tokens_is_that_with_the_whole_block(others: dict[str, Any]) -> None:
    settings = Settings(micro_batches=2, **others)
    assert_same_trajectory(run(settings), run(replace(settings, first_token_only=True)), tolerance=2e-5)


@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_a_run_with_a_last_block_for_first_tokens_goes_on_where_it_stopped(engine: str, tmp_path: Path) -> None:
    settings = Settings(engine=engine, first_token_only=True, fast_dropout=True, dropout=0.1)
    checkpoint = str(tmp_path / "step-4")
    run(replace(settings, checkpoint=checkpoint, save_at=4))
    assert run(replace(settings, checkpoint=checkpoint))["weights"] == run(settings)["weights"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
@pytest.mark.parametrize(("engine", "adapter"), [("trainer", "lora"), ("accelerate", None)])
def test_a_compiled_run_is_the_plain_one(engine: str, adapter: str | None) -> None:
    settings = Settings(engine=engine, adapter=adapter, micro_batches=2)
    assert_same_trajectory(run(settings), run(replace(settings, compiled=True)), tolerance=2e-5)


@pytest.mark.slow
def test_two_processes_train_without_padding_as_one(tmp_path: Path) -> None:
    settings = Settings(packed=True, micro_batches=3)
    two = run_in_processes(replace(settings, processes=2), tmp_path)
    assert_same_trajectory(run(settings), two, tolerance=2e-5)


@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_patience_ends_both_engines_at_the_same_step(engine: str) -> None:
    # Evaluated every 2 steps; the first is the best, so patience 2 runs out at the third.
    assert run(Settings(engine=engine, patience=2))["last_step"] == 6


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_two_processes_train_as_one(engine: str, micro_batches: int, tmp_path: Path) -> None:
    settings = Settings(engine=engine, micro_batches=micro_batches, changing_rows=micro_batches == 3)
    two = run_in_processes(replace(settings, processes=2), tmp_path)
    assert_same_trajectory(run(settings), two, tolerance=2e-5)


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_engines_agree_with_frozen_layers_and_dropout(micro_batches: int) -> None:
    settings = Settings(frozen_layers=1, dropout=0.1, micro_batches=micro_batches)
    trainer = run(settings)
    accelerate = run(replace(settings, engine="accelerate"))
    assert_same_trajectory(trainer, accelerate, tolerance=1e-6)
    assert trainer["weights"] == accelerate["weights"]


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_engines_agree_where_layers_thaw_one_after_the_other(micro_batches: int) -> None:
    settings = Settings(thaw_every=2, dropout=0.1, micro_batches=micro_batches)
    trainer = run(settings)
    accelerate = run(replace(settings, engine="accelerate"))
    assert_same_trajectory(trainer, accelerate, tolerance=1e-6)
    assert trainer["weights"] == accelerate["weights"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_two_processes_thaw_layers_as_one(engine: str, tmp_path: Path) -> None:
    settings = Settings(engine=engine, thaw_every=2, micro_batches=3)
    two = run_in_processes(replace(settings, processes=2), tmp_path)
    assert_same_trajectory(run(settings), two, tolerance=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["trainer", "accelerate"])
def test_two_processes_train_what_is_not_frozen_as_one(engine: str, tmp_path: Path) -> None:
    settings = Settings(engine=engine, frozen_layers=1, micro_batches=3)
    two = run_in_processes(replace(settings, processes=2), tmp_path)
    assert_same_trajectory(run(settings), two, tolerance=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("regularizer", ["r_drop", "adversarial", "l2_sp", "mixup"])
def test_two_processes_train_with_a_regularizer_as_one(regularizer: str, tmp_path: Path) -> None:
    settings = Settings(regularizer=regularizer, micro_batches=2)
    two = run_in_processes(replace(settings, processes=2), tmp_path)
    assert_same_trajectory(run(settings), two, tolerance=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "average"), [("trainer", "ema"), ("accelerate", "swa")])
def test_two_processes_average_weights_as_one(engine: str, average: str, tmp_path: Path) -> None:
    settings = Settings(engine=engine, average=average, micro_batches=2)
    one, two = run(settings), run_in_processes(replace(settings, processes=2), tmp_path)
    assert_same_trajectory(one, two, tolerance=2e-5)
    assert one["weights"] == pytest.approx(two["weights"], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "method"), [("trainer", "lora"), ("accelerate", "lora"), ("accelerate", "vera")])
def test_two_processes_train_adapters_as_one(engine: str, method: str, tmp_path: Path) -> None:
    settings = Settings(engine=engine, adapter=method, micro_batches=3)
    two = run_in_processes(replace(settings, processes=2), tmp_path)
    assert_same_trajectory(run(settings), two, tolerance=2e-5)
