"""The REST API: requests into gRPC calls by contract, responses into JSON and streams."""
