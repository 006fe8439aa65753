"""Databases: managed PostgreSQL and MySQL servers."""
