"""Visual features of a model: layers, statistics, neurons and saliency."""
