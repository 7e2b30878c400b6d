"""Visual representations: layers, statistics, neurons, saliency."""
