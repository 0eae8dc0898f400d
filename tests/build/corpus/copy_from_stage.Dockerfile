FROM busybox AS build
RUN mkdir /o && echo made > /o/made && ln -s made /o/link && chmod 6755 /o/made
FROM busybox
COPY --from=build /o /o
COPY --from=0 /o/link /followed
