"""The benchmark of the books: its records (records.py), its rounds (rounds.py) and the start (start.py). Floor 1.

Beside it what others measure with: several rounds as one report (spread.py), and clients of `/ws` (socket_load.py).
"""
