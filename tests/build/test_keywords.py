"""The keywords that type checkers see are those there are."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import pytest

from mobysession.bake import bake
from mobysession.bake.keywords import BakeKeywords
from mobysession.build import BuildKeywords, BuildOptions, CommonKeywords, ManyKeywords, build_many


def _written(keywords: Any) -> dict[str, str]:
    return {name: hint.__forward_arg__ for name, hint in keywords.__annotations__.items()}


def test_the_keywords_of_a_build_are_the_fields_of_its_options() -> None:
    """By name and by type, but for the context, which is an argument of its own."""
    of_options = {field.name: field.type for field in fields(BuildOptions) if field.name != "context"}
    assert _written(BuildKeywords) == of_options


@pytest.mark.parametrize(
    ("function", "keywords", "others"),
    [
        pytest.param(build_many, _written(ManyKeywords), {"builds", "return_errors"}, id="build_many"),
        pytest.param(
            bake,
            {name: hint for name, hint in _written(BakeKeywords).items() if name not in _written(CommonKeywords)},
            {"targets", "options"},
            id="bake",
        ),
    ],
)
def test_the_front_doors_hand_on_the_keywords_of_a_function(
    function: Any, keywords: dict[str, str], others: set[str]
) -> None:
    """By name and by type."""
    parameters = inspect.signature(function).parameters
    assert {name: each.annotation for name, each in parameters.items() if name not in others} == keywords
