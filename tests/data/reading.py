"""How tests read a file that they wrote."""

from typing import Any

import pytest

from nlp_finetune.data.sources import read_file
from nlp_finetune.errors import InputError


def columns(path: str, **settings: Any) -> dict[str, list[Any]]:
    return read_file(path, **settings)[0].to_dict()


def notes(path: str, **settings: Any) -> list[str]:
    return read_file(path, **settings)[1]


def refusal(path: str, **settings: Any) -> str:
    with pytest.raises(InputError) as raised:
        read_file(path, **settings)
    return str(raised.value)
