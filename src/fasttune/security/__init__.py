"""The gates that strangers' files pass: one each for text, addresses, paths, model folders and secrets.

`text`: what data, models and addresses say, before a person or a program reads it. `terminal`: the same for tables and
progress bars. docs/decisions/0025 says what each gate promises.
"""
