"""Dockerfiles to images: text, syntax tree, graph of stages, a solver over content-addressed steps, a cache.

lexer, parser, syntax   text to instructions and stages       words, config   expansion; what instructions mean
plan                    which stages a target needs           sources, copying  COPY and ADD
solver, cache           steps, each once                      executor        what a RUN step needs of the engine
builder                 the door: `await Builder(...).build(context, options, progress)`
"""
