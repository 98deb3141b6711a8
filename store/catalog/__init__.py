"""The models of a store: names, versions, `latest`."""
