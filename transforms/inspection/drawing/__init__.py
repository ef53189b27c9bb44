"""Diagrams: what they show, where it goes, and how it is written."""
