"""What is done with any variant, whatever its family: inputs, cells, training, answers."""
