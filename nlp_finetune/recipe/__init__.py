"""Recipes: one YAML file, one frozen schema, no behaviour.

`load` reads one, with overrides; everything else here shows, compares or documents recipes.
"""

from nlp_finetune.recipe.adapters import Lora
from nlp_finetune.recipe.augmentation import Augment
from nlp_finetune.recipe.averaging import Average
from nlp_finetune.recipe.finding import FILE_ENDINGS, find, names_a_file, shipped
from nlp_finetune.recipe.freezing import Freeze
from nlp_finetune.recipe.head import Head
from nlp_finetune.recipe.hub import Hub
from nlp_finetune.recipe.learning import Loss, Optim
from nlp_finetune.recipe.loading import Loaded, load
from nlp_finetune.recipe.reference import json_schema, reference_markdown
from nlp_finetune.recipe.regularization import Regularize
from nlp_finetune.recipe.resolved import differences, fingerprint, headline, is_free, to_yaml
from nlp_finetune.recipe.schema import Data, Model, Recipe, TaskOptions, Train

__all__ = [
    "FILE_ENDINGS",
    "Augment",
    "Average",
    "Data",
    "Freeze",
    "Head",
    "Hub",
    "Loaded",
    "Lora",
    "Loss",
    "Model",
    "Optim",
    "Recipe",
    "Regularize",
    "TaskOptions",
    "Train",
    "differences",
    "find",
    "fingerprint",
    "headline",
    "is_free",
    "json_schema",
    "load",
    "names_a_file",
    "reference_markdown",
    "shipped",
    "to_yaml",
]
