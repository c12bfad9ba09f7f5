"""What tests, soaks and benchmarks share: servers, clients, images, load, and what is watched meanwhile."""
