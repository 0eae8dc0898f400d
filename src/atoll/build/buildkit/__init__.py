"""BuildKit's protocol: the second door to the builder, for buildx, bake, `docker build` and `docker compose build`.

control, gateway, classic   the client's calls: Solve, Status, what a frontend of its own asks; and /build?version=2, their old way
sessions, tunnel            our calls on /session, or within a call of the client's
filesync, upload, ssh       what is called for: files, a tar from standard input, the ssh agent
frontend, client            what the Dockerfile frontend is asked for, and where the builder finds it
jobs, references            one Solve, and what it hands to another
board, failures, lint       how it goes and how it fails, as clients show it; the build checks alone
export, filesend, caches    where the image goes; caches elsewhere
messages, grpc, workers     the wire: field numbers in messages.proto, gRPC over atoll.http.http2; what this builder says it is
"""
