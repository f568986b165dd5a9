"""The drawings that explain, made of boxes, arrows, cells and pictures.

One file a chapter, one function a drawing: it takes what it shows and returns a matplotlib Figure.
Plots of measured data are in the chapters.
"""
