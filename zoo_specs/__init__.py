"""One YAML file a system, in folders by family; data only."""
