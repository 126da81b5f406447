"""The page of measurements: what is run (plan.py), on what (machine.py), and how it is written (page.py). Floor 5."""
