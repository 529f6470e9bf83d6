"""The contracts as an immutable model. Imports only protobuf and generated code."""
