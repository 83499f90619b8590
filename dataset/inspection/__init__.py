"""What is in a folder of shards: counts and checks of one file, duplicates across files, a report."""
