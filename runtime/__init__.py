"""What runs a model: weights, inputs and pictures from files, and facts about the machine."""
