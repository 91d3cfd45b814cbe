"""What makes a Hypothesis test a target of the fuzzer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def target(
    *strategies: st.SearchStrategy[Any], examples: int = 400, audit: Callable[[], None] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """In place of `given`. `examples` are tried by `make test`; the fuzzer loads a profile that asks for more, and
    calls `audit` after each round of them."""
    bound = settings(
        max_examples=max(examples, settings.default.max_examples if settings.default else 0),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )

    def decorate(check: Callable[..., None]) -> Callable[..., None]:
        test = bound(given(*strategies)(check))
        test.audit = audit  # type: ignore[attr-defined]
        return test

    return decorate
