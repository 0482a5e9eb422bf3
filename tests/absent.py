"""What a test does that lacks a real part: skip with the command that brings it, or fail where CI=true."""

import os
from typing import NoReturn

import pytest


def absent(reason: str) -> NoReturn:
    """Skip, or fail where CI=true, because a real part is missing."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
