"""Names of environment variables. Imports nothing: the help needs them."""

TOKEN_VARIABLE = "BENTOFS_SERVE_TOKEN"  # a bearer token
