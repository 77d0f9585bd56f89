"""Fuzzing: thousands of malformed bodies on every surface must cause no 500, no traceback and no memory growth.

`python -m tests.fuzz --bodies 10000 --seed 7` runs it by hand (`make fuzz`); bodies.py is the grammar, run.py sends.
"""
