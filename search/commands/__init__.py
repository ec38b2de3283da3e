"""The commands, by what they are about; each module adds its own to ``app``. Heavy packages are imported inside."""
