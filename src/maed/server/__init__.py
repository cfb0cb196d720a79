"""`maed serve`: the pages of many runs over local http."""
