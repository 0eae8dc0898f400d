FROM busybox
ARG V=arg
ENV V=env
ENV W=${V}-w V=late
RUN echo $V $W > /out
