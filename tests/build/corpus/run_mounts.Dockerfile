FROM busybox AS tools
RUN echo tool > /tool
FROM busybox
RUN --mount=type=bind,source=dir,target=/src --mount=from=tools,source=/tool,target=/t --mount=type=tmpfs,target=/scratch,size=1m --mount=type=cache,target=/cache,sharing=locked,mode=0700 cp /src/inner.txt /got && cat /t > /tool && touch /scratch/x /cache/y
