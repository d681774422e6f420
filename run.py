"""`accelerate launch run.py --recipe text_cls`: the command line, without installing the package."""

import sys

from nlp_finetune.cli import main

if __name__ == "__main__":
    sys.exit(main())
