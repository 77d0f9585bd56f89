"""Chaos: a complete stack under load while its processes are killed, and an audit that must find nothing afterwards.

`python -m tests.chaos --kills 40 --seed 7` runs it by hand; `make chaos-nightly` is the long form.
stack.py runs and kills the processes, traffic.py sends requests, records.py reads what every component stored, and
audit.py lists contradictions. provocations.py forces cases that random kills rarely reach; guards.py removes the code
that handles them, one piece at a time, to prove that the audit would notice.
"""
