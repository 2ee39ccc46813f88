"""Tests of nsl.data."""
