"""The gRPC server of the mesh, over real mTLS."""
