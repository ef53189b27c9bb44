"""gradchain."""
