"""What a run leaves for its readers: evidence behind the scores, and pages made from it."""
