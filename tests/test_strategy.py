"""What the launcher asked for is in force, or the run says why not."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

from nlp_finetune import choices, strategy
from nlp_finetune.errors import InputError
from nlp_finetune.recipe import load
from nlp_finetune.tasks import base
from tests.tiny import TINY

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted((ROOT / "accelerate_configs").glob("*.yaml"))
SINGLE = {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_USE_CPU": "True"}
SEVERAL = {"ACCELERATE_MIXED_PRECISION": "no", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}

ZERO = {**SEVERAL, "ACCELERATE_USE_DEEPSPEED": "true"}


def test_the_configurations_that_are_promised_are_there() -> None:
    assert [path.stem for path in CONFIGS] == [
        "cpu", "ddp", "deepspeed_zero2", "deepspeed_zero3", "fsdp", "multi_node_ddp", "multi_node_fsdp", "single_gpu",
    ]  # fmt: skip
    table = (ROOT / "accelerate_configs" / "README.md").read_text()
    assert all(f"| `{path.name}` |" in table for path in CONFIGS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_itself_parses_each_configuration(path: Path) -> None:
    arguments = launch_command_parser().parse_args(["--config_file", str(path), "run.py"])
    parsed, _, _ = _validate_launch_command(arguments)
    kind = {"fsdp": parsed.use_fsdp, "deepspeed": parsed.use_deepspeed, "ddp": parsed.multi_gpu}
    assert [name for name, on in kind.items() if on] == [name for name in kind if name in path.stem]
    assert (parsed.num_machines > 1) == ("multi_node" in path.stem)
    assert (parsed.num_processes > 1) == any(kind.values())
    if parsed.use_fsdp:
        assert parsed.fsdp_version == 2
    if parsed.use_deepspeed:
        assert path.stem.endswith(str(parsed.zero_stage))
    # The recipe decides the precision; another one here would be ignored.
    assert parsed.mixed_precision == "no"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "single"),
        (SINGLE, "single"),
        (SEVERAL, "ddp"),
        ({**SEVERAL, "WORLD_SIZE": "1", "RANK": "0"}, "single"),
        ({**SEVERAL, "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "fsdp"),
        ({**SEVERAL, "ACCELERATE_USE_DEEPSPEED": "true"}, "zero2"),
        ({**SEVERAL, "ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "zero3"),
    ],
)
def test_the_strategy_is_read_from_what_launchers_set(environment: dict, expected: str) -> None:
    assert strategy.asked(environment) == expected


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({**SEVERAL, "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "fsdp_version: 2"),
        ({**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}, "zero_stage 1.*use 2 or 3"),
        ({**ZERO, "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"}, "offload_optimizer_device cpu"),
        ({**ZERO, "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "nvme"}, "offload_param_device nvme"),
        ({**ZERO, "ACCELERATE_DEEPSPEED_CONFIG_FILE": "ds.json"}, "deepspeed_config_file ds.json"),
        ({**ZERO, "ACCELERATE_DEEPSPEED_ZERO3_INIT": "true"}, "zero3_init_flag"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed was asked for without a launcher"),
        ({**SEVERAL, "ACCELERATE_USE_MEGATRON_LM": "true"}, "Megatron-LM"),
        ({**SEVERAL, "ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, "parallelism_config"),
        ({**SINGLE, "MASTER_ADDR": "127.0.0.1"}, "started one"),
    ],
)
def test_what_no_engine_can_do_is_refused(environment: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        strategy.asked(environment)


def test_deepspeed_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategy.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"DeepSpeed was asked for and is not installed: pip install"):
        strategy.prepare_deepspeed({}, has_accelerator=False)


@pytest.mark.parametrize(
    ("strategy_name", "settings", "says"),
    [
        ("zero2", ["train.engine=accelerate"], "train.engine accelerate does not run under DeepSpeed.*trainer"),
        ("zero2", ["optim.clip_by_value=1", "optim.max_grad_norm=null"], "clip_by_value does not run under DeepSpeed"),
        ("zero3", ["lora.rank=4"], "lora does not run under DeepSpeed"),
        ("zero3", ["freeze.gradual=epoch"], r"freeze.gradual: sharded parameters \(DeepSpeed\)"),
        ("fsdp", ["freeze.gradual=epoch"], r"freeze.gradual: sharded parameters \(FSDP\)"),
        ("zero3", ["average.name=ema"], "average.name ema does not run under DeepSpeed"),
        ("zero2", ["train.precision=fp16"], "fp16 does not run under DeepSpeed"),
        ("zero2", ["optim.name=adamw_8bit"], "adamw_8bit does not run under DeepSpeed: .*Use adamw, adam"),
        ("fsdp", ["optim.name=adafactor"], "adafactor does not run under FSDP"),
    ],
)
def test_what_shards_cannot_do_is_refused_by_name(strategy_name: str, settings: list, says: str) -> None:
    recipe = load("text_cls", overrides=settings, task_options=base.options_of, task_names=base.names()).recipe
    with pytest.raises(InputError, match=says):
        choices._check_strategy(recipe, SimpleNamespace(strategy=strategy_name))


def test_a_gpu_that_is_asked_for_must_be_there() -> None:
    asked = {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_USE_CPU": "False", "CUDA_VISIBLE_DEVICES": "0"}
    with pytest.raises(InputError, match="torch sees none"):
        strategy.check_possible(asked, has_accelerator=False)
    strategy.check_possible(asked, has_accelerator=True)


def launch(folder: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, str(ROOT / "run.py"), *TINY]
    environment = {name: value for name, value in os.environ.items() if name != "ACCELERATE_USE_CPU"}
    return subprocess.run(
        [*command, f"output_dir={folder / 'run'}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=120,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--cpu", "--num_processes", "2"], "asked for several processes and started one"),
        (["--config_file", "MULTI_CPU"], "asked for several processes and started one"),
    ],
    ids=["cpu-option", "multi-cpu-config"],
)
def test_a_launcher_that_falls_back_without_a_word_is_an_error(options: list, says: str, tmp_path: Path) -> None:
    written = tmp_path / "multi_cpu.yaml"
    text = (ROOT / "accelerate_configs" / "ddp.yaml").read_text()
    written.write_text(text.replace("MULTI_GPU", "MULTI_CPU").replace("use_cpu: false", "use_cpu: true"))
    done = launch(tmp_path, *[str(written) if option == "MULTI_CPU" else option for option in options])
    assert says in done.stderr
    assert done.returncode != 0
    assert not (tmp_path / "run").exists()
