"""One script per data set: it fetches, verifies and unpacks. Run from the root: python -m data_scripts.flickr8k."""
