"""Physics to images: multislice and PRISM simulation of STEM."""
