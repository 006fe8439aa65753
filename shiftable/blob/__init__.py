"""Blob storage: buckets of objects."""
