"""The actor runtime, and the actor that owns a broadcast."""
