"""Thousands of broken bodies on every surface: no 500, no traceback, no memory kept.

`python -m tests.fuzz --bodies 10000 --seed 7` runs it by hand (`make fuzz`); bodies.py is the grammar, run.py sends.
"""
