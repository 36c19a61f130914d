"""The Hopper backend: a warp-specialised Gluon kernel for compute capability 9.0."""
