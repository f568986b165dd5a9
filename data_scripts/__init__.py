"""One script a data set: it fetches, verifies and unpacks. Run them from the root, as python -m data_scripts.flickr8k."""
