FROM busybox
ARG N=name
COPY <<EOF <<"RAW" /docs/
hello $N
EOF
raw $N
RAW
COPY --chmod=755 <<EOF /run.sh
#!/bin/sh
echo run
EOF
