"""Ranges that many settings have."""

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

Positive = Annotated[int, Ge(1)]
Count = Annotated[int, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
Probability = Annotated[float, Ge(0), Lt(1)]
Above0 = Annotated[float, Gt(0)]
AtLeast0 = Annotated[float, Ge(0)]
