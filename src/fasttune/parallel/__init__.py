"""Several processes: rendezvous, collectives, and the launcher's environment."""
