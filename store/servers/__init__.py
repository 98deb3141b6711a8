"""Servers: what stores that lie on one (`store.storage`) and transfers to one (`store.endpoints`) have in common."""
