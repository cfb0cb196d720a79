"""Target models, one file each: the Perceivers that positions are tried in."""
