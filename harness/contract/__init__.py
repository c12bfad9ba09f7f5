"""What a checkout shows to those who use it, as texts; `harness.compare` compares those of two checkouts."""
