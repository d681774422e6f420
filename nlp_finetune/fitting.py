"""Fitting a run to its end: with either engine, from the newest checkpoint, and again where it has to go back."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from nlp_finetune import recovery, resuming
from nlp_finetune.build import Built
from nlp_finetune.errors import NlpFinetuneError
from nlp_finetune.learning.divergence import DivergedError
from nlp_finetune.learning.out_of_memory import OutOfMemory
from nlp_finetune.preparation import Prepared
from nlp_finetune.runs.folder import RunFolder
from nlp_finetune.runs.recording import Progress
from nlp_finetune.runtime import Runtime


@dataclass
class Attempt:
    """The job that is being fitted; another takes its place after a rollback, and there is none in between."""

    built: Built

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        built: Built | None = getattr(self, "built", None)
        return 0 if built is None else built.flow.step


def fit(
    attempt: Attempt,
    folder: RunFolder,
    prepared: Prepared,
    identity: resuming.Identity,
    runtime: Runtime,
    *,
    build_again: Callable[[], Built],
) -> int:
    """Train, from the newest checkpoint where there is one; give the best step (0: stopped before any evaluation).

    Where training diverges it raises `NlpFinetuneError`, or goes back to the last checkpoint with a new job.
    """
    train = prepared.recipe.train
    afresh = train.resume == "never"
    while True:
        start = resuming.find_start(attempt.built, folder, identity, runtime, afresh=afresh)
        if start.training_ended:
            return start.best_step
        job = replace(attempt.built.job, resume_from=None if start.checkpoint is None else str(start.checkpoint))
        try:
            return _engine(train.engine)(job).state.best_global_step or 0
        except DivergedError as error:
            # What the engine holds on to hangs on the traceback.
            diverged = DivergedError(error.what, error.step)
        except (OutOfMemory, torch.OutOfMemoryError) as error:
            raise recovery.with_smaller_micro_batches(error, attempt.built, folder) from None
        finally:
            for callback in job.callbacks:
                if isinstance(callback, Progress):
                    callback.close()  # what is printed next begins on a line of its own
        _handle(diverged, attempt.built, folder, prepared, identity, runtime)
        afresh = False
        del job
        del attempt.built  # one model at a time has to fit into memory
        _let_go()
        attempt.built = build_again()


def _handle(
    diverged: DivergedError,
    built: Built,
    folder: RunFolder,
    prepared: Prepared,
    identity: resuming.Identity,
    runtime: Runtime,
) -> None:
    """Write down what diverged, and change the checkpoint that training goes on from; or raise an error."""
    train = prepared.recipe.train
    blame = recovery.record(diverged, built, folder, prepared, runtime)
    if train.on_divergence == "stop":
        raise NlpFinetuneError(f"{diverged} {blame} {recovery.ADVICE}")
    recovery.roll_back(diverged, blame, built, folder, identity, runtime, most=train.max_rollbacks)


def _let_go() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _engine(name: str) -> Any:
    if name == "trainer":
        from nlp_finetune.engines.hf_trainer import fit
    else:
        from nlp_finetune.engines.loop import fit
    return fit
