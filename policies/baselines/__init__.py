"""Policies without a model: what an adaptive policy has to beat. One algorithm per file."""
