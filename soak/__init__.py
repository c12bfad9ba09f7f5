"""Long or heavy proofs that need more than pip installs or `make test` has time for."""
