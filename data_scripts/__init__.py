"""One script per data set: fetch, verify and unpack. From the root: python -m data_scripts.flickr8k"""
