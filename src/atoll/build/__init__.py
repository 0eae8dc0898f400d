"""Dockerfiles to images: text, syntax tree, graph of stages, a solver over content-addressed steps, a cache.

lexer, parser, syntax       text to instructions and stages     words, arguments    expansion, ARG and what every build knows
plan, solver                which stages, side by side          checks, outline     what a file does that was hardly meant, and can be given
state, config, history      what a stage has come to            work, cache         the one way a step is done, or found done
instructions                from one state to the next, with
  running, mounts, mounting, cachemounts (RUN) and copystep, copying, modes, newlayer (COPY, ADD)
context, sources, ignore    trees that files are taken from     remote, git         what is fetched
keptcontexts, wanted        what a client need not send again, or at all
trail, cacheconfig, cacheimport
                            what a build came through, as other builders can have it, and what they give to this one
client, contexts            what a build asks its client for    voices              how it is told, and to whom
executor                    what a RUN step needs of the engine
builder                     `await Builder(...).solve(client, options, narrator)`, behind two doors:
transcript                  the classic one, /build             buildkit            the session one, /grpc and /session
"""
