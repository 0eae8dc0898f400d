ARG TAG=latest
FROM busybox:${TAG}
ARG TAG
ARG A=1 B="two words"
ARG C=${A}x
RUN echo "$TAG-$A-$B-$C-${D:-none}" > /out
