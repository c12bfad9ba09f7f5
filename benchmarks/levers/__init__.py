"""What raises accuracy: every lever compared with the defaults of the service, on folders in MVTec layout."""
