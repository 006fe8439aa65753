"""Secrets: values that never show themselves, with versions and stages."""
