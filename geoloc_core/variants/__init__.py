"""What is done with any variant, whatever its family: guard, data, training, answers."""
