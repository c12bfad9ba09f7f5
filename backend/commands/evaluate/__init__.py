"""`evaluate`: how good it is on a data set."""
