"""What takes hours to measure: a script and its results each."""
