"""What a recording is worth: a checked pass over its records, and the report that comes out. Floor 1.

Records in, report out: no file, database, clock or terminal is known here.
"""
