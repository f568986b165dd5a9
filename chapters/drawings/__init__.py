"""The drawings that explain, made of boxes, arrows, cells and pictures.

One file per chapter, one function per drawing; each returns a matplotlib Figure. Plots of measured
data are in the chapters.
"""
