"""The verb that says whether a machine, and the machines of a job, are fit to train: doctor."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nlp_finetune.cli import output
from nlp_finetune.errors import EXIT_DONE, EXIT_FAILED, InputError
from nlp_finetune.runtime import set_up_log

if TYPE_CHECKING:
    from nlp_finetune.cluster.finding import Finding


def add_doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `doctor`."""
    parser.add_argument("--output-dir", default="runs", metavar="FOLDER", help="where runs will be written")
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="most the processes may take to meet (60)"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as one JSON document")


def doctor(arguments: argparse.Namespace) -> int:
    """Look at this machine and, under a launcher, at the meeting of its processes; 1 if something failed."""
    set_up_log(quiet=arguments.quiet)
    if arguments.timeout <= 0:
        raise InputError(f"--timeout {arguments.timeout:g}: more than 0 seconds.")
    import nlp_finetune.torchvision_guard  # noqa: F401  before the first import of transformers
    from nlp_finetune.cluster import rendezvous
    from nlp_finetune.cluster.machine import check_machine

    rank = int(os.environ.get("RANK", "0"))
    # One process of each machine looks at it; rank 0 shows its own, the others only what is wrong.
    first_here = int(os.environ.get("LOCAL_RANK", "0")) == 0
    findings = check_machine(Path(arguments.output_dir)) if first_here else []

    def give_up(stuck: Finding) -> None:
        _show([*findings, stuck], rank, arguments)
        sys.stdout.flush()
        os._exit(EXIT_FAILED)

    if rendezvous.announced(os.environ):
        findings += rendezvous.self_test(os.environ, timeout_s=arguments.timeout, give_up=give_up)
    _show(findings, rank, arguments)
    return EXIT_FAILED if any(finding.state == "failed" for finding in findings) else EXIT_DONE


def _show(findings: list[Finding], rank: int, arguments: argparse.Namespace) -> None:
    from nlp_finetune.cluster.rendezvous import as_json

    if rank == 0 and arguments.json:
        print(as_json(findings))
    elif rank == 0:
        rows = [(f.name, f.state, f.found + (f" -> {f.advice}" if f.advice else "")) for f in findings]
        output.table(("what", "state", "found"), rows)
    else:
        for finding in findings:
            if finding.state != "ok":
                text = f"[rank {rank}] {finding.name}: {finding.found}"
                output.line(text + (f" -> {finding.advice}" if finding.advice else ""), aside=True)
