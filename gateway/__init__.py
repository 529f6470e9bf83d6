"""The REST gateway: from browsers to the services of the mesh. Holds no survey or identity rule."""
