"""Configurations: every hyper-parameter, and TOML files of them."""
