"""Two machines, for real: two network namespaces with a cable between them, one training, one node that dies."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests import nodes
from tests.tiny import TINY

STEPS = ["train.max_steps=60", "train.eval_every=20", "train.save_every=5", "train.log_every=1", "model.dropout=0.0"]
TIMEOUT_S = 20

pytestmark = pytest.mark.slow


@pytest.fixture
def cable() -> Iterator[nodes.Cable]:
    try:
        with nodes.two_namespaces() as joined:
            yield joined
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces are not allowed here: {error}")


def test_a_node_dies_and_the_other_stops_with_a_message_and_both_go_on(cable: nodes.Cable, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = [*TINY, *STEPS, f"output_dir={run}", "--timeout", str(TIMEOUT_S)]

    def start() -> list[nodes.Node]:
        return [nodes.Node(cable, number, arguments, tmp_path / f"node{number}.log") for number in (0, 1)]

    first = start()
    nodes.wait_for_step(run, 12, first)
    first[1].kill()
    assert first[0].end(TIMEOUT_S + 30) != 0
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "failed"
    assert "lost contact" in status["reason"]
    assert "The same command goes on" in first[0].output
    assert "Traceback" not in first[0].output.split("lost contact")[0]

    second = start()
    codes = [node.end(180) for node in second]
    assert codes == [0, 0], second[0].output[-3000:]
    assert "going on from" in second[0].output
    assert "2 processes on 2 machines" in second[0].output

    alone = tmp_path / "alone"
    command = [sys.executable, str(nodes.ROOT / "run.py"), *TINY, *STEPS, f"output_dir={alone}"]
    subprocess.run(command, check=True, capture_output=True, cwd=nodes.ROOT, timeout=180)
    one, two = (load_file(folder / "model" / "model.safetensors") for folder in (alone, run))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-5
