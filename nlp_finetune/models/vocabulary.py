"""Fit a small tokenizer of a family's kind on the training texts, the same one every time."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from nlp_finetune.errors import InputError
from nlp_finetune.models.quiet import quiet

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


def fit(
    texts: Callable[[], Iterable[str]], config: PretrainedConfig, say: Callable[[str], None]
) -> PreTrainedTokenizerBase:
    """Tokenizer with at most `config.vocab_size` tokens, learned from `texts()`, and one line about it.

    WordPiece for BERT, ERNIE, DistilBERT and ELECTRA (Chinese characters one by one), byte-level BPE
    for GPT-2, RoBERTa and BART, each with the family's special tokens in the first ids. Other
    families get byte-level BPE too: fitting a unigram vocabulary (ALBERT, T5) gives another one in
    every process. The same texts give the same ids everywhere.

    Raises `InputError` if the vocabulary is too small for the texts' characters.
    """
    blank = _blank(config)
    backend = blank.backend_tokenizer
    special = _special_tokens(blank, config)
    train = _word_pieces if _kind(backend) == "WordPiece" else _byte_pairs
    try:
        learned = train(backend, texts, special, config.vocab_size)
    except Exception as error:
        # The tokenizers library raises plain `Exception`.
        raise InputError(
            f"model.tokenizer=train: {config.vocab_size} tokens won't do, {error}. Raise model.config.vocab_size."
        ) from error
    with quiet():
        fitted: PreTrainedTokenizerBase = type(blank)(**learned, model_input_names=_inputs(blank, config))
    kind = "WordPiece" if train is _word_pieces else "byte-level BPE"
    say(f"tokenizer: {kind} fitted on the training texts, {len(fitted):,} tokens ({type(fitted).__name__})")
    return fitted


def _special_tokens(blank: PreTrainedTokenizerBase, config: PretrainedConfig) -> list[str]:
    """Special tokens in the order of their new ids: as the tokenizer has them, padding where the family wants it."""
    found: list[str] = sorted(blank.all_special_tokens, key=blank.convert_tokens_to_ids)
    wanted = getattr(default_config(config), "pad_token_id", None)
    if blank.pad_token is not None and wanted is not None and wanted < len(found):
        # MPNet's code has the 1 of its own vocabulary written into it.
        found.remove(blank.pad_token)
        found.insert(wanted, blank.pad_token)
    return found


def default_config(config: PretrainedConfig) -> PretrainedConfig | None:
    """The family's configuration as it is without any setting; None where it has no such thing."""
    with quiet():
        try:
            return type(config)()
        except (TypeError, ValueError, KeyError):
            return None


def _inputs(blank: PreTrainedTokenizerBase, config: PretrainedConfig) -> list[str]:
    """Names of the inputs that tokenizer and model have in common: T5, for one, takes no token types."""
    from transformers import AutoModel

    with quiet():
        try:
            model = AutoModel._model_mapping[type(config)]
        except (KeyError, ImportError):
            return list(blank.model_input_names)
    # Funnel has two, with and without its decoder.
    taken = inspect.signature((model[0] if isinstance(model, tuple) else model).forward).parameters
    return [name for name in blank.model_input_names if name in taken]


def _blank(config: PretrainedConfig) -> PreTrainedTokenizerBase:
    """A tokenizer with an empty vocabulary: the family's own class, or one that reads any text."""
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

    own = TOKENIZER_MAPPING_NAMES.get(config.model_type)
    reads_both_ways = config.model_type not in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    encoder = (
        reads_both_ways
        or config.is_encoder_decoder
        or config.model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )
    for name in (own, "DebertaTokenizer" if encoder else "GPT2Tokenizer"):
        with quiet():
            try:
                blank: PreTrainedTokenizerBase = tokenizer_class_from_name(name)()
                if _kind(blank.backend_tokenizer) is not None:
                    return blank
            except (ImportError, TypeError, ValueError, AttributeError):
                continue  # a class without a vocabulary of its own, or with requirements of its own
    raise InputError(f"model.tokenizer=train: not for {config.model_type}. Give a folder or Hub id.")


def _kind(backend: Tokenizer) -> str | None:
    """`WordPiece`, `BPE` on bytes, or None for what can't be fitted the same way twice."""
    described = json.loads(backend.to_str())
    kind: str = described["model"]["type"]
    if kind == "BPE" and "ByteLevel" not in json.dumps(described["pre_tokenizer"]):
        return None
    return kind if kind in ("WordPiece", "BPE") else None


def _word_pieces(
    backend: Tokenizer, texts: Callable[[], Iterable[str]], special: list[str], size: int
) -> dict[str, Any]:
    from tokenizers.models import WordPiece
    from tokenizers.trainers import WordPieceTrainer

    alphabet, inner = _alphabet(backend, texts(), size - len(special))
    backend.model = WordPiece({}, unk_token="[UNK]")
    trainer = WordPieceTrainer(
        vocab_size=size,
        # The trainer numbers inner characters in the order of a hash map, and ties between merges
        # follow the numbers. Named in advance, they have the same ones every time.
        special_tokens=special + [f"##{character}" for character in inner],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    backend.train_from_iterator(texts(), trainer)
    return {"vocab": backend.get_vocab(with_added_tokens=False)}


def _alphabet(backend: Tokenizer, texts: Iterable[str], room: int) -> tuple[list[str], list[str]]:
    """Characters that words start with or hold, and those that stand inside one, most frequent first kept."""
    counts: Counter[str] = Counter()
    inside: set[str] = set()
    for text in texts:
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text)):
            counts.update(word)
            inside.update(word[1:])
    kept: list[str] = []
    for character in sorted(counts, key=lambda c: (-counts[c], c)):
        room -= 1 + (character in inside)
        if room < 0:
            break
        kept.append(character)
    return sorted(kept), sorted(inside.intersection(kept))


def _byte_pairs(
    backend: Tokenizer, texts: Callable[[], Iterable[str]], special: list[str], size: int
) -> dict[str, Any]:
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer

    alphabet = sorted(ByteLevel.alphabet())
    if size < len(special) + len(alphabet):
        raise ValueError(f"byte-level BPE needs {len(special) + len(alphabet)} at the least")
    trainer = BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(texts(), trainer)
    model = json.loads(backend.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}
