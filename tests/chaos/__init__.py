"""Chaos: a complete stack under load while everything goes wrong, and an audit that must find nothing afterwards.

`python -m tests.chaos --events 40 --seed 7` runs it by hand; `make chaos-nightly` is the long form.
plan.py draws the incidents: kills, pauses, slow, silent and cut connections (links.py), full disks, a wrong clock
(clock.py). stack.py carries them out. manners.py has hostile callers and odd providers, and traffic.py sends their
requests. records.py reads what every component stored, and audit.py lists contradictions and what passed a limit.
provocations.py forces cases that random incidents rarely reach; guards.py removes the code that handles them, to prove
that the audit would notice. money.py kills processes while buyer.py pays by card at the local Stripe, which delivers
its events twice, late, in another order or never: afterwards every payment is credited once.
"""
