"""Fine-tune pretrained checkpoints from one recipe: trained, measured, saved.

Importing the package is cheap: nothing here imports torch. The command line is `nlp_finetune.cli`,
the Python entry point is `nlp_finetune.train.train`.
"""

__version__ = "0.1.0"
