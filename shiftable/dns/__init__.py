"""DNS: zones of record sets."""
