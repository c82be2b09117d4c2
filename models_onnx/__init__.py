"""Model recipes and shipped models."""
