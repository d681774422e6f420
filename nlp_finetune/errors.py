"""The exceptions of this package, and the exit code each one means.

NlpFinetuneError          1   the run failed for a reason we can name
|-- InputError            2   the user's input is wrong: one clear message, no traceback
`-- StoppedError         75   stopped by a signal or a time limit, with a checkpoint saved
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_INPUT = 2
EXIT_STOPPED = 75
EXIT_INTERRUPTED = 130


class NlpFinetuneError(Exception):
    """A failure with a message meant for the user."""

    exit_code = EXIT_FAILED


class InputError(NlpFinetuneError):
    """Wrong input. The message says what is wrong, where it is, and what to do."""

    exit_code = EXIT_INPUT


class StoppedError(NlpFinetuneError):
    """Training stopped early on request; the same command goes on from the checkpoint."""

    exit_code = EXIT_STOPPED
