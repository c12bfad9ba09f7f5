"""The contract: requests and replies, one file for each router."""
