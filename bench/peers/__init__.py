"""Contenders of our own making, each the usual way to write a proxy with its library."""
