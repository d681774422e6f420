"""The command line: one module that parses and exits (`main`), one module for each group of verbs."""

from nlp_finetune.cli.main import main

__all__ = ["main"]
