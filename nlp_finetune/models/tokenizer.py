"""The tokenizer of a run: the checkpoint's, another one, or one fitted on the training texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_finetune.errors import InputError
from nlp_finetune.models.checkpoint import Checkpoint, contents, resolve
from nlp_finetune.models.hub import local_folder
from nlp_finetune.models.quiet import quiet
from nlp_finetune.models.vocabulary import default_config, fit

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_VOCABULARY_FILES = ("tokenizer.json", "vocab.*", "*.model", "*.spm", "*.tiktoken", "tekken.json")
_UNSET_LENGTH = 10**9
"""transformers writes 1e30 for a tokenizer that was never told its model's length."""
_CASED_SHARE = 0.02
"""A vocabulary with this share of upper-case words is meant for text in its own case."""


def load_tokenizer(
    checkpoint: Checkpoint,
    *,
    tokenizer: str | None,
    texts: Callable[[], Iterable[str]] | None,
    config: PretrainedConfig,
    say: Callable[[str], None] | None = None,
) -> PreTrainedTokenizerBase:
    """Tokenizer whose ids all have a row in the model's embedding.

    `tokenizer` is None (the checkpoint's own), a folder, a Hub id, or `train`, which fits one of the
    family's kind on what `texts()` gives (called more than once). `config` is completed in place:
    the padding token, and for a family built from scratch the vocabulary's size and the other
    special tokens. An unset `model_max_length` becomes what the model's positions allow.

    Raises `InputError` for a folder without tokenizer files, for a vocabulary larger than the
    embedding, and where there is nothing to pad with.
    """
    tell = _ignore if say is None else say
    scratch = checkpoint.kind == "scratch"
    if tokenizer == "train":
        if not scratch or texts is None:
            raise InputError(
                f"model.tokenizer=train: the embedding of {checkpoint.given} belongs to its own vocabulary. "
                "Leave model.tokenizer null, or build a model from scratch (model.checkpoint=scratch:bert)."
            )
        found = fit(texts, config, tell)
    elif tokenizer is None and scratch:
        raise InputError(
            f"{checkpoint.given} brings no tokenizer: set model.tokenizer=train, or to a folder or Hub id."
        )
    else:
        source = checkpoint if tokenizer is None else _resolve(tokenizer)
        found = _read(
            local_folder(source, weights=False), config, given=source.given, say=tell, trust=source.trust_remote_code
        )
    if scratch:
        _adopt(config, found, fitted=tokenizer == "train")
    _check_rows(found, config, given=tokenizer or checkpoint.given)
    _set_padding(found, config, tell)
    fit_length(found, config)
    return found


def load_saved_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer that a run saved beside its model; raises `InputError` if it is not there or damaged."""
    return _read(folder, None, given=str(folder), say=_ignore)


def content(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """All that decides how texts are tokenized, as plain JSON."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return [backend.to_str(), type(tokenizer).__name__, tokenizer.chat_template]


def largest_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The largest token id; `len(tokenizer)` is less where a word stands twice, as in ERNIE's vocabulary."""
    return max(int(token_id) for token_id in tokenizer.get_vocab().values())


def fit_length(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    """Lower `model_max_length` to the positions the model has; families without a limit keep theirs."""
    positions = _positions(config)
    if positions is not None and tokenizer.model_max_length > positions:
        tokenizer.model_max_length = positions


def check_length(config: PretrainedConfig, *, option: str, tokens: int) -> None:
    """Raise `InputError` if the setting `option` asks for more `tokens` than the model has positions."""
    positions = _positions(config)
    if positions is not None and tokens > positions:
        raise InputError(f"{option} {tokens}: this model ({config.model_type}) has {positions} positions.")


def _ignore(line: str) -> None:
    """Say nothing."""


def _positions(config: PretrainedConfig) -> int | None:
    """Tokens that the position embedding has rows for; None if the family has no such limit."""
    import torch
    from transformers import AutoModel

    stated = getattr(config, "max_position_embeddings", None)
    if not isinstance(stated, int) or stated <= 0:
        return None
    try:
        # On the meta device a model costs milliseconds and no memory.
        with quiet(), torch.device("meta"):
            model: PreTrainedModel = AutoModel.from_config(config, trust_remote_code=False)
    except Exception:
        return stated  # whatever is wrong with this configuration is reported when the model is built
    words = model.get_input_embeddings()
    offsets = [
        module.padding_idx + 1
        for module in model.modules()
        if isinstance(module, torch.nn.Embedding)
        and module is not words
        and module.num_embeddings == stated
        and module.padding_idx is not None
    ]
    # RoBERTa and its kin count positions from the padding id on, so the first rows are never used.
    return stated - max(offsets, default=0)


def _resolve(tokenizer: str) -> Checkpoint:
    folder = Path(tokenizer).expanduser()
    if not folder.is_dir():
        return resolve(tokenizer)
    has_run = (folder / "recipe.yaml").is_file() and (folder / "model").is_dir()
    return Checkpoint(tokenizer, "folder", str((folder / "model" if has_run else folder).absolute()), None)


def _read(
    folder: Path, config: PretrainedConfig | None, *, given: str, say: Callable[[str], None], trust: bool = False
) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    if not any(any(folder.glob(pattern)) for pattern in _VOCABULARY_FILES):
        # transformers would build an empty vocabulary and read every word as unknown.
        raise InputError(
            f"{given}: no tokenizer files (tokenizer.json, vocab.txt, ...), {contents(folder)}. "
            "Set model.tokenizer to a folder or Hub id that has them."
        )
    stated = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    options: dict[str, Any] = {}
    if not stated and _is_cased(folder / "vocab.txt"):
        options["do_lower_case"] = False
        say(f"{given}: vocab.txt holds upper-case words, so text keeps its case")
    own_config = (folder / "config.json").is_file()
    try:
        with quiet():
            found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                folder, config=None if own_config else config, trust_remote_code=trust, **options
            )
    except Exception as error:
        # The tokenizers library raises plain `Exception` for a damaged file.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{given}: its tokenizer can't be loaded ({reason}).") from error
    if len(found.get_vocab()) <= len(found.all_special_tokens):
        raise InputError(f"{given}: its tokenizer is empty, it has {len(found)} special tokens and no words.")
    return found


def _is_cased(vocabulary: Path) -> bool:
    if not vocabulary.is_file():
        return False
    words = [w for w in vocabulary.read_text(encoding="utf-8").split("\n") if w and not w.startswith("[")]
    return sum(word != word.lower() for word in words) > _CASED_SHARE * len(words)


def _adopt(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, *, fitted: bool) -> None:
    """Make a family built from scratch fit its tokenizer: rows of the embedding, ids of special tokens."""
    from nlp_finetune.models.settings import SCRATCH_VOCABULARY

    rows = largest_id(tokenizer) + 1
    if fitted or config.vocab_size == SCRATCH_VOCABULARY:
        config.vocab_size = rows
    for name in ("bos", "eos", "cls", "sep", "pad"):
        token = getattr(tokenizer, f"{name}_token_id", None)
        if hasattr(config, f"{name}_token_id"):
            setattr(config, f"{name}_token_id", token)
    if config.is_encoder_decoder:
        _adopt_decoder(config, tokenizer)


def _adopt_decoder(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Where a decoder starts and must end, by the part that the family's own id plays: BART's end, T5's padding."""
    own = default_config(config)
    roles = {getattr(own, f"{name}_token_id", None): name for name in ("bos", "eos", "pad")}
    for name in ("decoder_start", "forced_bos", "forced_eos"):
        given = getattr(own, f"{name}_token_id", None)
        role = roles.get(given) if given is not None else None
        if name == "decoder_start" and role is None:
            role = "pad"
        token = None if role is None else getattr(tokenizer, f"{role}_token_id")
        if token is not None:
            setattr(config, f"{name}_token_id", token)


def _check_rows(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, *, given: str) -> None:
    rows = getattr(config, "vocab_size", None)
    if rows is not None and largest_id(tokenizer) >= rows:
        raise InputError(
            f"{given}: a vocabulary larger than the embedding. Its ids go up to {largest_id(tokenizer)}, "
            f"the model ({config.model_type}) has {rows} rows: this tokenizer belongs to another checkpoint."
        )


def _set_padding(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, say: Callable[[str], None]) -> None:
    """Give tokenizer and model the same padding token; GPT-2 and its kin have none of their own."""
    if tokenizer.pad_token is None:
        instead = tokenizer.eos_token or tokenizer.unk_token
        if instead is None:
            raise InputError("The tokenizer has no token to pad with: neither pad, nor end-of-text, nor unknown.")
        tokenizer.pad_token = instead
        say(f"tokenizer: it has no padding token, so {instead} pads (masked, never attended to)")
    before = getattr(config, "pad_token_id", None)
    if before != tokenizer.pad_token_id:
        if before is not None:
            say(f"pad_token_id {before} of the model becomes {tokenizer.pad_token_id}, as in the tokenizer")
        config.pad_token_id = tokenizer.pad_token_id
