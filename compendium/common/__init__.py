"""What several notebooks share: the two papers' protocols and the tables they print."""
