"""What a trial trains: language models, their data and the loop. Knows nothing of searches, trackers or
studies."""
