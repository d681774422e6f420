"""Training rows that are changed at random: texts and images, each function saying what it keeps."""
