"""Two machines (network namespaces), one training: how long until the one that is left stops, and do both go on?

python benchmarks/two_nodes.py     as root on Linux; about three minutes
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import options, save

from tests.nodes import Cable, Node, step_of, two_namespaces, wait_for_step
from tests.tiny import TINY

TIMEOUT_S = 15
STEPS = ["train.max_steps=60", "train.eval_every=20", "train.save_every=5", "train.log_every=1", "model.dropout=0.0"]


def start(cable: Cable, folder: Path) -> list[Node]:
    """One training on both nodes."""
    arguments = [*TINY, *STEPS, f"output_dir={folder / 'run'}", "--timeout", str(TIMEOUT_S)]
    return [Node(cable, number, arguments, folder / f"node{number}.log") for number in (0, 1)]


def lose(cable: Cable, folder: Path, fault: str) -> tuple[str, float]:
    """Let a node go in mid-run: what status.json says, and the seconds until all that is left has stopped."""
    nodes = start(cable, folder)
    wait_for_step(folder / "run", step_of(folder / "run") + 8, nodes)
    begin = time.monotonic()
    if fault == "cable pulled":
        cable.set("down")
        left = nodes
    else:
        gone = int(fault[-1])
        nodes[gone].kill()
        left = [nodes[1 - gone]]
    for node in left:
        node.end(TIMEOUT_S * 2 + 60)
    seconds = time.monotonic() - begin
    if fault == "cable pulled":
        cable.set("up")
    return str(json.loads((folder / "run" / "status.json").read_text())["reason"]), seconds


def main() -> None:
    """Three faults in one run, which then goes on to its end."""
    options()
    rows, reasons = [], {}
    with tempfile.TemporaryDirectory() as scratch, two_namespaces() as cable:
        folder = Path(scratch)
        for fault in ("power off node 1", "power off node 0", "cable pulled"):
            reason, seconds = lose(cable, folder, fault)
            said = "lost contact" in reason
            rows.append((fault, "yes" if said else "NO", f"{seconds:.1f}", step_of(folder / "run")))
            reasons[fault] = reason.replace(scratch, "")
        codes = [node.end(300) for node in start(cable, folder)]
        status = json.loads((folder / "run" / "status.json").read_text())
        rows.append(("none: both go on to the end", f"exit codes {codes}", "", status["step"]))
    header = ("fault", "status.json says so", "s until the rest has stopped", "step in the history")
    save("two_nodes", f"A node is lost in mid-run (--timeout {TIMEOUT_S})", header, rows, reasons=reasons)


if __name__ == "__main__":
    main()
