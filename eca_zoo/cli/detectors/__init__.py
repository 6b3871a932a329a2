"""What commands do with detectors in the place of classifiers."""
