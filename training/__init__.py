"""Offline: data sets, fitting, evaluation and export. Imports models and bundle, never service."""
