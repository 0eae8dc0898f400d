FROM busybox
COPY --parents parents/*/file.txt parents/./a/**/file.txt /p/
