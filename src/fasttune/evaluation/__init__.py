"""What a finished run is used for: predicting, and scoring other rows."""
