"""What the contracts say, as an immutable model. Imports protobuf and generated code only."""
