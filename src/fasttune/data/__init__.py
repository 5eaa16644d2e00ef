"""From what the user names as data to checked rows, columns, labels and splits.

sources    a path, glob, folder or hub id -> a datasets.Dataset whose cells stay as they stand in the file
columns    which column is the text and which the label, and their values
labels     the classes, their order and their numbers
splits     holding out rows, drawing a sample
preview    random rows to look at
"""
