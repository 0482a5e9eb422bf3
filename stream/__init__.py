"""The data plane: Kafka in, windows and ensemble composed, decisions out. The only package that touches Kafka."""
