"""Test your application, or your provider, without an account."""

__all__: list[str] = []
