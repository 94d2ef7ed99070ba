"""Models, training modules, labels, metrics and explanations of CXR Lens."""

__version__ = "0.1.0"
