"""Every family that can be searched; a new one is registered here."""

from __future__ import annotations

from search.errors import InvalidInput
from search.families.bert import BERT, ROBERTA
from search.families.config import CONFIG_FILE
from search.families.distilbert import DISTILBERT
from search.families.family import Family
from search.families.gpt2 import GPT2
from search.families.llama import LLAMA, QWEN2, QWEN3
from search.families.vit import DEIT, VIT

_FAMILIES: dict[str, Family] = {}


def register(family: Family) -> None:
    """Raises: ValueError when another family has its name or one of its model types."""
    for known in _FAMILIES.values():
        if family.name == known.name or set(family.model_types) & set(known.model_types):
            raise ValueError(f"{family.name!r} is registered as {known.name!r}")
    _FAMILIES[family.name] = family


def families() -> tuple[Family, ...]:
    return tuple(_FAMILIES.values())


def family_of(name: str) -> Family:
    """Raises: InvalidInput when no family has this name."""
    if name not in _FAMILIES:
        raise InvalidInput("family", f"{name!r} is not one of: {', '.join(_FAMILIES)}")
    return _FAMILIES[name]


def family_of_config(model_type: object) -> Family:
    """The family whose folders say so in config.json.

    Raises:
        InvalidInput: with the list of what is supported.
    """
    for family in families():
        if model_type in family.model_types:
            return family
    known = ", ".join(name for family in families() for name in family.model_types)
    raise InvalidInput(
        CONFIG_FILE, f"model_type {model_type!r} is unsupported; supported: {known}"
    )


for _family in (BERT, DISTILBERT, ROBERTA, GPT2, LLAMA, QWEN2, QWEN3, VIT, DEIT):
    register(_family)
