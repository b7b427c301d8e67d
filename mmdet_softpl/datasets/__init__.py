"""Data sets, their checks and their splits.

Imports nothing: commands on annotation files should not wait for the host to load.
"""
