"""`evaluate`: measures how good the service is on a data set."""
