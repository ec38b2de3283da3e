"""What differs between detection and classification; everything else treats them alike."""
