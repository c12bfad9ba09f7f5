"""Everything that a checkout shows to its users, as texts; `harness.compare` compares those of two checkouts."""
