# SPDX-License-Identifier: GPL-2.0
"""Numbers that the user gives in the environment."""
import math
import os
from typing import TypeVar

from .ui import RigError

N = TypeVar("N", int, float)


def number(name: str, default: N, least: float = 0) -> N:
    """The variable `name` as a number of the type of `default`, which it is when the variable is not set or empty.

    Raises RigError when it is no such number, or below `least`.
    """
    given = os.environ.get(name)
    if not given:
        return default
    try:
        value = type(default)(given)
    except ValueError:
        value = type(default)(least - 1)
    if not math.isfinite(value) or value < least:
        raise RigError(f"{name}={given} is not {'a whole number' if isinstance(default, int) else 'a number'} of at least {least}",
                       f"set it to one, such as {name}={default}, or unset it")
    return value
