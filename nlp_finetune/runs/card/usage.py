"""How others use the model: Python that runs without this package, for each kind of model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nlp_finetune.runs.card.escaping import python_text
from nlp_finetune.runs.card.facts import Facts

_DEFAULT_TEXT = "The soup was worth the wait."
_PEFT_CLASSES = {
    "text-classification": "AutoPeftModelForSequenceClassification",
    "token-classification": "AutoPeftModelForTokenClassification",
    "text-generation": "AutoPeftModelForCausalLM",
    "text2text-generation": "AutoPeftModelForSeq2SeqLM",
}
"""Others are saved without peft's task type, which `AutoPeftModel` takes."""


def snippet(facts: Facts, address: str, *, examples: Sequence[str] = ()) -> str:
    """Python that loads the model from `address` (a Hub id or a folder) and uses it; empty where none is known.

    `examples` are inputs of the kind that the model was trained on, one for each input column.
    """
    texts = [*examples] or [_DEFAULT_TEXT]
    writer = _WRITERS.get(facts.pipeline or "")
    if facts.is_timm:
        return _timm(address)
    return writer(facts, address, texts) if writer is not None else ""


def _pipeline(facts: Facts, address: str, call: str, *, options: str = "") -> str:
    """A transformers pipeline of the model, and one call of it."""
    name, where = facts.pipeline, python_text(address)
    if facts.brings_code:
        options += ", trust_remote_code=True"
    if not facts.is_adapter:
        return (
            f"from transformers import pipeline\n\npipe = pipeline({python_text(name)}, model={where}{options})\n{call}"
        )
    processor = "AutoImageProcessor" if name == "image-classification" else "AutoTokenizer"
    role = "image_processor" if name == "image-classification" else "tokenizer"
    return f"""\
{_merged(facts, address, f"{processor}, pipeline")}
{role} = {processor}.from_pretrained({where})
pipe = pipeline({python_text(name)}, model=model, {role}={role}{options})
{call}"""


def _merged(facts: Facts, address: str, imports: str) -> str:
    """Lines that load base and adapter with peft and make one model of them, `model`."""
    where = python_text(address)
    peft_class = _PEFT_CLASSES.get(facts.pipeline or "", "AutoPeftModel")
    names = sorted({"AutoConfig", *imports.replace(" ", "").split(",")}, key=lambda name: (name.islower(), name))
    labels = ", num_labels=base.num_labels, id2label=base.id2label, label2id=base.label2id" if facts.labels else ""
    first = f'base = AutoConfig.from_pretrained({where}, subfolder="base_config")\n' if labels else ""
    if not labels:
        names.remove("AutoConfig")
    return f"""\
from peft import {peft_class}
from transformers import {", ".join(names)}

{first}model = {peft_class}.from_pretrained({where}{labels}).merge_and_unload()"""


def _text_classification(facts: Facts, address: str, texts: Sequence[str]) -> str:
    options = ', function_to_apply="none"' if facts.problem == "regression" else ""
    longest = facts.section("task").get("max_length")
    if longest:
        # As it was trained and measured; without it longer texts would be an error.
        options += f", truncation=True, max_length={int(longest)}"
    if len(texts) == 2:
        given = f'{{"text": {python_text(texts[0])}, "text_pair": {python_text(texts[1])}}}'
    else:
        given = python_text(texts[0])
    thresholds = (facts.task.get("facts") or {}).get("thresholds")
    if facts.problem == "multi_label_classification" and thresholds:
        chosen = dict(zip(facts.labels, (round(value, 4) for value in thresholds), strict=False))
        lines = ",\n".join(f"    {python_text(name)}: {value}" for name, value in chosen.items())
        call = (
            f"scores = pipe({given}, top_k=None)\nthresholds = {{  # tuned on the validation rows\n{lines},\n}}\n"
            'print([found for found in scores if found["score"] >= thresholds[found["label"]]])'
        )
    elif (facts.task.get("facts") or {}).get("threshold") is not None and len(facts.labels) == 2:
        other, one = (python_text(name) for name in facts.labels)
        threshold = round(facts.task["facts"]["threshold"], 4)
        call = (
            f'(found,) = pipe([{given}], top_k=None)\nscores = {{one["label"]: one["score"] for one in found}}\n'
            f"# The threshold between the two classes was tuned on the validation rows.\n"
            f"print({one} if scores[{one}] >= {threshold} else {other})"
        )
    else:
        every = ", top_k=None" if facts.problem == "multi_label_classification" else ""
        call = f"print(pipe({given}{every}))"
    return _pipeline(facts, address, call, options=options)


def _token_classification(facts: Facts, address: str, texts: Sequence[str]) -> str:
    call = f"print(pipe({python_text(texts[0])}))"
    # "simple" can begin an entity inside a word.
    return _pipeline(facts, address, call, options=', aggregation_strategy="first"')


def _fill_mask(facts: Facts, address: str, texts: Sequence[str]) -> str:
    words = texts[0].split() or _DEFAULT_TEXT.split()
    before, after = " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 + 1 :])
    call = f'print(pipe({python_text(before)} + f" {{pipe.tokenizer.mask_token}} " + {python_text(after)}))'
    return _pipeline(facts, address, call)


def _text_generation(facts: Facts, address: str, texts: Sequence[str]) -> str:
    beginning = " ".join(texts[0].split()[:12]) or _DEFAULT_TEXT
    return _pipeline(facts, address, f"print(pipe({python_text(beginning)}, max_new_tokens=40))")


def _image_classification(facts: Facts, address: str, texts: Sequence[str]) -> str:
    return _pipeline(facts, address, 'print(pipe("image.png"))')


def _question_answering(facts: Facts, address: str, texts: Sequence[str]) -> str:
    """transformers 5 has no pipeline for it any more."""
    question, context = (texts[0], texts[1]) if len(texts) == 2 else ("Who wrote it?", "It was written by Ada.")
    where = python_text(address)
    if facts.is_adapter:
        loading = _merged(facts, address, "AutoTokenizer")
    else:
        loading = (
            "from transformers import AutoModelForQuestionAnswering, AutoTokenizer\n\n"
            f"model = AutoModelForQuestionAnswering.from_pretrained({where})"
        )
    return f"""\
import torch
{loading}
tokenizer = AutoTokenizer.from_pretrained({where})
question = {python_text(question)}
context = {python_text(context, limit=2000)}
inputs = tokenizer(question, context, truncation="only_second", return_tensors="pt", return_offsets_mapping=True)
offsets = inputs.pop("offset_mapping")[0].tolist()
with torch.no_grad():
    scores = model(**inputs)
is_context = torch.tensor([part == 1 for part in inputs.sequence_ids(0)])
start, end = (logits[0].masked_fill(~is_context, -1e9) for logits in (scores.start_logits, scores.end_logits))
spans = torch.triu(start[:, None] + end[None, :])
first, last = divmod(int(spans.masked_fill(spans == 0, -1e9).argmax()), len(offsets))
print(context[offsets[first][0] : offsets[last][1]])"""


def _text_to_text(facts: Facts, address: str, texts: Sequence[str]) -> str:
    """How it generates is saved with the model, or beside the adapter."""
    where = python_text(address)
    if facts.is_adapter:
        loading = (
            f"{_merged(facts, address, 'AutoTokenizer, GenerationConfig')}\n"
            f"model.generation_config = GenerationConfig.from_pretrained({where})"
        )
    else:
        loading = (
            "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer\n\n"
            f"model = AutoModelForSeq2SeqLM.from_pretrained({where})"
        )
    text = str(facts.section("task").get("source_prefix") or "") + texts[0]
    return f"""\
{loading}
tokenizer = AutoTokenizer.from_pretrained({where})
inputs = tokenizer({python_text(text, limit=2000)}, truncation=True, return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs)[0], skip_special_tokens=True))"""


def _multiple_choice(facts: Facts, address: str, texts: Sequence[str]) -> str:
    where = python_text(address)
    if facts.is_adapter:
        loading = _merged(facts, address, "AutoTokenizer")
    else:
        loading = (
            "from transformers import AutoModelForMultipleChoice, AutoTokenizer\n\n"
            f"model = AutoModelForMultipleChoice.from_pretrained({where})"
        )
    context, question, options = _question_and_options(facts, texts)
    asked = "question" if context is None else "context"
    given = "" if context is None else f"context = {python_text(context, limit=2000)}\n"
    second = "choices" if context is None else '[f"{question} {choice}" for choice in choices]'
    listed = ",\n".join(f"    {python_text(option)}" for option in options)
    return f"""\
import torch
{loading}
tokenizer = AutoTokenizer.from_pretrained({where})
{given}question = {python_text(question)}
choices = [
{listed},
]
inputs = tokenizer([{asked}] * len(choices), {second}, padding=True, truncation=True, return_tensors="pt")
with torch.no_grad():
    logits = model(**{{name: values[None] for name, values in inputs.items()}}).logits
print(choices[int(logits.argmax())])"""


def _question_and_options(facts: Facts, texts: Sequence[str]) -> tuple[str | None, str, Sequence[str]]:
    """The parts of an example: a context where the rows have one, the question, and its options."""
    columns = (facts.task.get("facts") or {}).get("columns") or {}
    has_context = isinstance(columns, dict) and columns.get("context") is not None
    first = 1 + has_context
    options = texts[first:] if len(texts) > first + 1 else ["one answer", "another answer"]
    return (texts[0] if has_context else None), texts[first - 1], options


def _sentence_similarity(facts: Facts, address: str, texts: Sequence[str]) -> str:
    """Vectors of unit length, whose products are cosines; sentence-transformers loads whole models only."""
    where, pair = python_text(address), (*texts, _DEFAULT_TEXT)[:2]
    listed = ", ".join(python_text(text) for text in pair)
    if not facts.is_adapter:
        return f"""\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer({where})
vectors = model.encode([{listed}])
print(model.similarity(vectors[:1], vectors[1:]))"""
    longest = int(facts.section("task").get("max_length") or 0)
    limit = f", max_length={longest}" if longest else ""
    pooled = "hidden[:, 0]" if facts.pooling == "cls" else "(hidden * mask).sum(1) / mask.sum(1)"
    return f"""\
import torch
{_merged(facts, address, "AutoTokenizer")}
tokenizer = AutoTokenizer.from_pretrained({where})
inputs = tokenizer([{listed}], padding=True, truncation=True{limit}, return_tensors="pt")
with torch.no_grad():
    hidden = model(**inputs).last_hidden_state
mask = inputs["attention_mask"][..., None]
vectors = torch.nn.functional.normalize({pooled}, dim=-1)
print(float(vectors[0] @ vectors[1]))"""


def _timm(address: str) -> str:
    where = python_text(f"hf-hub:{address}")
    return f"""\
import timm
import torch
from PIL import Image

model = timm.create_model({where}, pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
with torch.no_grad():
    scores = model(transform(Image.open("image.png").convert("RGB"))[None]).softmax(-1)[0]
names = model.pretrained_cfg["label_names"]
print({{name: round(float(score), 4) for name, score in zip(names, scores)}})"""


_WRITERS: dict[str, Callable[[Facts, str, Sequence[str]], str]] = {
    "text-classification": _text_classification,
    "token-classification": _token_classification,
    "question-answering": _question_answering,
    "multiple-choice": _multiple_choice,
    "fill-mask": _fill_mask,
    "text-generation": _text_generation,
    "text2text-generation": _text_to_text,
    "image-classification": _image_classification,
    "sentence-similarity": _sentence_similarity,
}
