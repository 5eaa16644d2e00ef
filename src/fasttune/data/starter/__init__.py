"""What fasttune runs on when the user has neither data nor a model yet: a generated data set, an embedded model."""
