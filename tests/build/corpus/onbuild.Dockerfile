FROM busybox
ONBUILD COPY one.txt /triggered
ONBUILD RUN echo later
ONBUILD ENV X=1
