"""`fasttune serve`: finished runs behind HTTP, with one queue per run. `app` is the door."""
