"""What changed from run to run: change points of series of measurements, and pages that show them."""
