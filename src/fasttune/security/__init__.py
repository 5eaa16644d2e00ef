"""Checks for untrusted input: text, addresses, paths, model folders and secrets.

`text` makes text from data, models and addresses safe to show or store; `terminal` does so for tables and progress
bars. docs/decisions/0025 says what each check guarantees.
"""
