"""Drawings that explain: a file a chapter, a function a picture."""
