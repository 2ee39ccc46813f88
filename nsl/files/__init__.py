"""Reading files: names and patterns, lines of edges, numbers for ids, progress.

What both `nsl.tools` and `nsl.data` need. Nothing here imports TensorFlow until a file
is remote.
"""
