"""Push a run to the Hub: one commit, all of it or nothing, safe to repeat, verified afterwards.

    preflight(destination)          before training: who am I, may I write, is the repository there
    publish(run, ..., destination)  afterwards, at any time: stage, push, verify

The rule of every retry: look at the Hub first. What the failed try was to write may be there already,
because only its answer was lost; then the push is done, and no second commit is made.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import nlp_finetune
from nlp_finetune.errors import InputError, NlpFinetuneError
from nlp_finetune.runs import remote
from nlp_finetune.runs.destination import Destination, Pushed
from nlp_finetune.runs.folder import RunFolder
from nlp_finetune.runs.remote import patiently
from nlp_finetune.runs.staging import CARD, Staged, is_managed, stage, to_be_pushed

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile, RepoFolder

Say = Callable[[str], None]
_NEWEST_PULL_REQUESTS = 5
"""Own open pull requests that are looked at for the same content."""


def preflight(to: Destination, *, say: Say, card: str | None = None) -> str:
    """Make sure that a push can work, and make the repository; give the user's name on the Hub.

    Meant for before training, so that a wrong token fails in the first second. `card` is the text of
    a card (or of its beginning) to have its header checked.

    Raises `InputError` for a token that is missing, wrong or without the right to write, for offline
    mode, for a card that the Hub refuses, and for a public repository where a private one was asked
    for; `NlpFinetuneError` if the Hub can't be reached.
    """
    _check_here(to)
    api = _api()
    user = str(patiently(api.whoami, to.repo_id)["name"])
    create = partial(api.create_repo, to.repo_id, private=to.private, exist_ok=True)
    patiently(create, to.repo_id)
    patiently(partial(api.auth_check, to.repo_id, write=not to.create_pr), to.repo_id)
    is_private = patiently(partial(api.model_info, to.repo_id), to.repo_id).private
    if to.private and not is_private:
        raise InputError(
            f"{to.repo_id} is a public repository: everybody could read what is pushed. If that is meant, "
            "say so (--public, or hub.private=false in a recipe); else choose another repo_id."
        )
    if is_private and not to.private:
        say(f"{to.repo_id} is private and stays so: its settings on the Hub change that")
    if card is not None:
        patiently(partial(_validate_card, card), to.repo_id)
    return user


def _check_here(to: Destination) -> None:
    """Raise `InputError` for what needs no Hub to be seen."""
    from huggingface_hub import constants, get_token

    to.check()
    if constants.is_offline_mode():
        raise InputError(f"{to.repo_id}: HF_HUB_OFFLINE is set, so nothing can be pushed. Unset it.")
    if get_token() is None:
        raise InputError(f"{to.repo_id}: no token. Run `hf auth login` or set HF_TOKEN (with write access).")


def publish(folder: RunFolder, to: Destination, *, again: str, say: Say, weights: Path | None = None) -> Pushed:
    """Stage a finished run in a folder of its own and push it.

    `weights` is the folder of the whole model where it is not the run's `model/`; `again` is the command
    that pushes this run. Every error names the run, which is left as it is, and that command.
    """
    try:
        _check_here(to)
        with tempfile.TemporaryDirectory(prefix="nlp-finetune-push-") as temporary:
            files = to_be_pushed(folder, weights or folder.model, merge=to.merge, say=say)
            staged = stage(folder, Path(temporary) / "repository", repo_id=to.repo_id, weights=files)
            if staged.left_out:
                say(f"not pushed: {', '.join(staged.left_out)} (not on the list of a model's files)")
            return push(staged, to, say=say)
    except NlpFinetuneError as error:
        raise type(error)(f"{error}\nThe run is kept in {folder}. To push it again:\n  {again}") from error.__cause__


def push(staged: Staged, to: Destination, *, say: Say) -> Pushed:
    """Make the Hub's repository hold what is staged, by one commit, and verify that it does.

    Files of an earlier push that this one has not are deleted in the same commit; files that no push
    writes are left alone. Errors are those of `preflight`; further ones are an `InputError` for a tag
    that names other content, and an `NlpFinetuneError` where what the Hub holds is not what was sent.
    """
    user = preflight(to, say=say, card=(staged.folder / CARD).read_text(encoding="utf-8"))
    pushing = _Pushing(_api(), staged, to, user, say)
    if to.tag is not None:
        pushing.check_tag(to.tag)
    if to.revision is not None:
        pushing.make_branch()
    say(f"{to.repo_id}: pushing {len(staged.names)} files, {staged.size_bytes / 1e6:,.1f} MB")
    try:
        done = patiently(pushing.attempt, to.repo_id)
    except NlpFinetuneError:
        # The last try may be the one that landed and whose answer was lost.
        landed = pushing.landed()
        if landed is None:
            raise
        done = landed
    pushing.verify(done)
    if to.tag is not None:
        pushing.set_tag(to.tag, done)
    return done


@dataclass
class _Pushing:
    """One push under way."""

    api: HfApi
    staged: Staged
    to: Destination
    user: str
    say: Say
    tried: bool = False

    def attempt(self) -> Pushed:
        """Look whether the content is there; if not, commit it on top of what is."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        head = self._head()
        tree = self._tree(head)
        done = self._there(head, tree)
        if done is not None:
            return done
        # Made anew for each try: the client notes in them what the Hub held before.
        adds = [CommitOperationAdd(name, self.staged.folder / name) for name in self.staged.names]
        deletes = [CommitOperationDelete(name, is_folder=False) for name in self._outdated(tree)]
        self.tried = True
        with _warnings_said(self.say):
            info = self.api.create_commit(
                self.to.repo_id,
                [*adds, *deletes],
                commit_message=self.to.message or f"Push with nlp-finetune {nlp_finetune.__version__}",
                revision=None if self.to.create_pr else self._branch,
                create_pr=self.to.create_pr,
                parent_commit=head,
            )
        return Pushed(info.commit_url, info.oid, new=True, pull_request=info.pr_url)

    def landed(self) -> Pushed | None:
        """What a try that failed wrote all the same, as far as the Hub can be asked."""
        try:
            head = self._head()
            return self._there(head, self._tree(head))
        except Exception:
            # Whatever keeps the Hub from answering: the error of the push itself is what matters.
            return None

    def _there(self, head: str, tree: list[RepoFile | RepoFolder]) -> Pushed | None:
        """The commit that holds this content already: the head, or that of an own open pull request."""
        if self._is_staged(tree):
            return Pushed(self._url(f"commit/{head}"), head, new=self.tried)
        if not self.to.create_pr:
            return None
        opened = self.api.get_repo_discussions(
            self.to.repo_id, author=self.user, discussion_type="pull_request", discussion_status="open"
        )
        for number in sorted((request.num for request in opened), reverse=True)[:_NEWEST_PULL_REQUESTS]:
            commit = str(self.api.model_info(self.to.repo_id, revision=f"refs/pr/{number}").sha)
            if self._is_staged(self._tree(commit)):
                request = self._url(f"discussions/{number}")
                return Pushed(self._url(f"commit/{commit}"), commit, new=self.tried, pull_request=request)
        return None

    def verify(self, done: Pushed) -> None:
        """Compare the commit's hashes with those of the files that were sent."""
        tree = patiently(partial(self._tree, done.commit), self.to.repo_id)
        wrong = remote.differing(self.staged.folder, self.staged.names, tree)
        if wrong:
            raise NlpFinetuneError(
                f"{done.url}: the Hub's {', '.join(wrong)} is not what was sent. Don't use this commit."
            )

    def make_branch(self) -> None:
        """Make the branch that is pushed to, from main, if it is not there."""
        from huggingface_hub.errors import RevisionNotFoundError

        def make() -> None:
            try:
                self._head()
            except RevisionNotFoundError:
                self.api.create_branch(self.to.repo_id, branch=self._branch, exist_ok=True)
                self.say(f"{self.to.repo_id}: new branch {self._branch}, from main")

        patiently(make, self.to.repo_id)

    def check_tag(self, tag: str) -> None:
        """Refuse a tag that names other content, before anything is sent."""
        there = patiently(partial(self._tagged, tag), self.to.repo_id)
        if there is not None and not self._is_staged(patiently(partial(self._tree, there), self.to.repo_id)):
            raise InputError(f"{self.to.repo_id}: tag {tag} names commit {there[:12]}, which is another model.")

    def set_tag(self, tag: str, done: Pushed) -> None:
        """Tag the commit; a tag that is there names the same content (`check_tag`)."""
        create = partial(self.api.create_tag, self.to.repo_id, tag=tag, revision=done.commit, exist_ok=True)
        try:
            patiently(create, self.to.repo_id)
        except NlpFinetuneError as error:
            raise type(error)(f"{done.url} is there, but not its tag {tag}. {error}") from error.__cause__

    def _tagged(self, tag: str) -> str | None:
        tags = self.api.list_repo_refs(self.to.repo_id).tags
        return next((str(ref.target_commit) for ref in tags if ref.name == tag), None)

    @property
    def _branch(self) -> str:
        return self.to.revision or "main"

    def _head(self) -> str:
        return str(self.api.model_info(self.to.repo_id, revision=self._branch).sha)

    def _tree(self, revision: str) -> list[RepoFile | RepoFolder]:
        return list(self.api.list_repo_tree(self.to.repo_id, revision=revision, recursive=True))

    def _is_staged(self, tree: list[RepoFile | RepoFolder]) -> bool:
        wrong = remote.differing(self.staged.folder, self.staged.names, tree)
        return not wrong and not self._outdated(tree)

    def _outdated(self, tree: list[RepoFile | RepoFolder]) -> list[str]:
        """Files of an earlier push: beside the new weights they would be loaded in their place."""
        return [e.path for e in tree if is_managed(e.path) and e.path not in self.staged.names]

    def _url(self, path: str) -> str:
        return f"{remote.endpoint()}/{self.to.repo_id}/{path}"


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(library_name="nlp-finetune", library_version=nlp_finetune.__version__)


def _validate_card(card: str) -> None:
    from huggingface_hub import ModelCard

    try:
        ModelCard(card).validate()
    except ValueError as error:
        try:
            text = "; ".join(str(problem["message"]) for problem in json.loads(str(error))["errors"])
        except (ValueError, KeyError, TypeError):
            text = " ".join(str(error).split())
        raise InputError(f"{CARD}: the Hub refuses its header: {text}") from error


@contextmanager
def _warnings_said(say: Say) -> Iterator[None]:
    """Hand the Hub's remarks on the card, which the client gives as warnings, to `say`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        say(" ".join(str(warning.message).split()))
