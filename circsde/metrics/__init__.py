"""How near samples of images are to data: Gabor energies, textures, distances between distributions of features."""
