"""Uses of a finished run: predicting, and scoring its own or other rows."""
