"""Loading without the libraries' own chatter: this package says in one line what was loaded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and progress bars of transformers and huggingface_hub; errors still raise."""
    from huggingface_hub.utils import logging as hub
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    levels, bars = (logging.get_verbosity(), hub.get_verbosity()), logging.is_progress_bar_enabled()
    hub_bars = not are_progress_bars_disabled()
    logging.set_verbosity(logging.ERROR)
    hub.set_verbosity(logging.ERROR)
    with warnings.catch_warnings():
        # The Hub's client warns where an environment variable has decided about the bars already.
        warnings.filterwarnings("ignore", message="Cannot (dis|en)able progress bars")
        if bars:
            logging.disable_progress_bar()
        if hub_bars:
            disable_progress_bars()
        try:
            yield
        finally:
            logging.set_verbosity(levels[0])
            hub.set_verbosity(levels[1])
            if bars:
                logging.enable_progress_bar()
            if hub_bars:
                enable_progress_bars()
