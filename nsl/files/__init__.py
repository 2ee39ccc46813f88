"""Reads and writes files: paths, compression, edges, tables, ids, atomic outputs.

TensorFlow is imported only for remote files.
"""
