"""Every parser that sees bytes from outside, with bytes that nobody meant: Hypothesis tests without fixtures.

`make test` runs a bounded part of each; `make fuzz` (`python -m tests.fuzz`) runs each, and those that stand beside
other tests (`targets.py`), for as long as it is told.
"""
