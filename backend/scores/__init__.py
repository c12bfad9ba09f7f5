"""What scores tell. Pure: numbers in, numbers out."""
