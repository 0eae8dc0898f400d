"""An image of a Python project without a Dockerfile: a virtual environment on a base image, a layer for each wheel, the code last.

    target        what the base image's Python is      locks         what the project wants: uv.lock, pylock.toml, requirements.txt
    wheel         a wheel as a layer (PEP 427)         project       pyproject.toml, and the code as a layer
    index         wheels of an index (PEP 503)         assemble      all of it to an image

Nothing of the project runs: wheels are unpacked, and the project's own source is put on the path. A wheel's layer depends on the wheel and
on Python's version alone, so every image that has it shares it; rebuilding after an edit makes the last layer anew.
"""
