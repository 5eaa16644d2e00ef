"""Files as they come, each format read by its own rules, into rows."""
