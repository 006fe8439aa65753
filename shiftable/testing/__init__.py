"""Test your application, or your provider, without an account."""
