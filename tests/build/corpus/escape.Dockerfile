# escape=`
FROM busybox
RUN echo one `
  && echo two > /two
ENV P=c:\x
