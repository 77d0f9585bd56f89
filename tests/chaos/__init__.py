"""Chaos: a whole house under load while its processes are killed, and the audit that must find nothing afterwards.

`python -m tests.chaos --kills 40 --seed 7` runs it by hand; `make chaos-nightly` is the long form.
stack.py runs the processes, traffic.py is the callers, records.py reads what every part has written down, and
audit.py says where they disagree. provocations.py brings about what kills at random seldom do, and guards.py takes away
the code that saves us then, to see that the audit would notice.
"""
