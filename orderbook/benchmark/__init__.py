"""The benchmark of the books: its records (records.py), its rounds (rounds.py) and the start (start.py). Floor 1."""
