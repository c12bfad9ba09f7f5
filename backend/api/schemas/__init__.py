"""The contract: requests and replies, a file for each router."""
