"""Common parts of tests, soaks and benchmarks: servers, clients, images, load, and monitoring."""
