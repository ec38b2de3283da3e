"""Where studies live: URLs beside local folders, Optuna's storage, and which file systems are safe for what."""
