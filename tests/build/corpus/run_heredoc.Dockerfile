FROM busybox
RUN <<EOF
set -e
echo a > /a
echo b > /b
EOF
RUN <<EOF sh -x
echo c > /c
EOF
RUN cat <<A <<B > /d
first
A
second
B
RUN <<EOF
#!/bin/sh
echo $0 | wc -c > /e
EOF
