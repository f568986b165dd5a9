"""Measurements that take hours: for each, a script and a file of its results."""
