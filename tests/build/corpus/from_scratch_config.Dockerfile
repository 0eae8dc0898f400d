FROM scratch
COPY one.txt /
ENV A=1
CMD ["/one.txt"]
