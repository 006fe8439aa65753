"""Moves a PostgreSQL database into another one: schema, rows, large objects, owners; and compares two.

It stands on two ``Side``s, which are anything that gives the arguments of psycopg's ``connect``, and knows no provider.
``DatabaseMove`` copies under a snapshot that it exports, or under one that somebody else has exported and keeps.
"""
