"""Files of any size: names and patterns, lines of edges, numbers for ids, outputs.

What `nsl.tools`, `nsl.data` and others need alike. Nothing here imports TensorFlow
until a file is remote.
"""
