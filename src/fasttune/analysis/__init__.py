"""What a finished scoring tells beyond its scores: mistakes, weak slices, shortcuts and drift.

`analyse` in `findings.py` is the door. Everything here computes on rows and arrays; nothing loads a model.
"""
