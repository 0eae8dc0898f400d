"""Dockerfile: lexer, parser, graph, solver, cache."""
