FROM busybox
ARG D=dir
COPY --chmod=600 --chown=1:2 --link one.txt $D/sub/deep.md /words/
COPY --exclude=*.md <<A one.txt /more/
text
A
ADD --unpack=false --keep-git-dir=false one.txt /plain
