"""The README's two commands, for CI to run exactly as they are printed.

python tests/readme_commands.py demo|test
"""

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def command(name: str) -> str:
    """The shell line that follows `<!-- command: NAME -->` in the README."""
    match = re.search(rf"<!-- command: {name} -->\s*```bash\n(.+?)\n```", README.read_text("utf-8"), re.DOTALL)
    if match is None:
        raise SystemExit(f"README.md has no command called {name}")
    return match[1]


if __name__ == "__main__":
    print(command(sys.argv[1]))
