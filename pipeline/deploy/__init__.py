"""A bundle -> devices, over SSH: one device is a fleet of one."""
