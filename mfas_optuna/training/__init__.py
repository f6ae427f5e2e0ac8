"""Training: fusion networks briefly on cached features, backbones on their own modality."""
