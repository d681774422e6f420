"""The verb that gives a run to others: push."""

from __future__ import annotations

import argparse
import json
import shlex
import tempfile
from pathlib import Path

from nlp_finetune.cli import output
from nlp_finetune.errors import EXIT_DONE
from nlp_finetune.runtime import program, say, set_up_log


def add_push_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `push`."""
    parser.add_argument("run", metavar="RUN", help="run folder, or the Hub id of a pushed run")
    parser.add_argument("--repo-id", required=True, metavar="OWNER/NAME", help="repository; made if not there")
    parser.add_argument("--public", action="store_true", help="for everybody to read (default: private)")
    parser.add_argument("--revision", metavar="BRANCH", help="branch; made if it is not there (default: main)")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of pushing")
    parser.add_argument("--tag", help="tag of the pushed commit, like v1")
    parser.add_argument("--merge", action="store_true", help="push a run with an adapter as a whole model")
    parser.add_argument("--message", help="message of the commit")
    parser.add_argument("--json", action="store_true", help="print what was pushed as JSON")


def push(arguments: argparse.Namespace) -> int:
    """Push a finished run to the Hub and print the URL of the commit."""
    set_up_log(quiet=arguments.quiet)
    from nlp_finetune.runs.destination import Destination
    from nlp_finetune.runs.publishing import publish
    from nlp_finetune.runs.pulling import locate
    from nlp_finetune.runs.staging import ADAPTER

    to = Destination(
        arguments.repo_id,
        private=not arguments.public,
        revision=arguments.revision,
        create_pr=arguments.create_pr,
        tag=arguments.tag,
        message=arguments.message,
        merge=arguments.merge,
    )
    to.check()
    run = locate(arguments.run, say=say)
    again = f"{program()} push {shlex.join([arguments.run, *to.options()])}"
    with tempfile.TemporaryDirectory(prefix="nlp-finetune-merge-") as scratch:
        weights = run.weights
        if to.merge and (weights / ADAPTER).is_file():
            from nlp_finetune import joining, saved_runs

            weights = saved_runs.save_merged(saved_runs.find(arguments.run), Path(scratch), joining.start())
        done = publish(run.folder, to, weights=weights, again=again, say=say)
    if arguments.json:
        content = {
            "repo_id": to.repo_id, "commit": done.commit, "url": done.url, "new": done.new,
            "revision": to.revision or "main", "tag": to.tag, "pull_request": done.pull_request,
        }  # fmt: skip
        print(json.dumps(content, indent=2))
    else:
        print(done.pull_request or done.url)
    output.line("pushed and verified" if done.new else "the Hub has this content already: no new commit", aside=True)
    return EXIT_DONE
