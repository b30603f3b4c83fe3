"""Image geolocation: given a photo, say where on Earth it was taken."""
