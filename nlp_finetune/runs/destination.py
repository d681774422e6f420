"""Where a run is pushed, and what a push has come to."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nlp_finetune.errors import InputError
from nlp_finetune.runs import remote

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REF = re.compile(r"(?!-)[\w./-]{1,200}(?<!\.lock)", re.ASCII)


@dataclass(frozen=True)
class Destination:
    """Where a run is pushed and how. `revision` is a branch (made if it is not there), None for main.

    `merge` is whether a run with an adapter is pushed as a whole model.
    """

    repo_id: str
    private: bool = True
    revision: str | None = None
    create_pr: bool = False
    tag: str | None = None
    message: str | None = None
    merge: bool = False

    def check(self) -> None:
        """Raise `InputError` for what can be seen to be wrong without the Hub."""
        if not remote.is_repo_id(self.repo_id):
            raise InputError(f"repo_id {self.repo_id}: write OWNER/NAME, of letters, digits, '-', '_' and '.'.")
        for what, name in (("revision", self.revision), ("tag", self.tag)):
            if name is not None and (not _REF.fullmatch(name) or ".." in name or name.endswith("/")):
                raise InputError(f"{what} {name!r}: not a name that git takes for it.")
        if self.revision is not None and _COMMIT.fullmatch(self.revision):
            raise InputError(f"revision {self.revision}: a commit can't be pushed to. Name a branch.")
        if self.create_pr and self.revision not in (None, "main"):
            raise InputError(f"A pull request goes to main; leave the revision {self.revision} out.")
        if self.create_pr and self.tag is not None:
            raise InputError("A tag names what is in the repository: set it once the pull request is merged.")

    def options(self) -> list[str]:
        """Words of the command line that say the same."""
        words = ["--repo-id", self.repo_id, *([] if self.private else ["--public"])]
        for option, value in (
            ("--revision", self.revision),
            ("--tag", self.tag),
            ("--message", self.message),
        ):
            words += [option, value] if value is not None else []
        for option, is_set in (("--create-pr", self.create_pr), ("--merge", self.merge)):
            words += [option] if is_set else []
        return words


@dataclass(frozen=True)
class Pushed:
    """A push that is done and verified; `new` is False where the Hub had the same content before."""

    url: str
    commit: str
    new: bool
    pull_request: str | None = None
