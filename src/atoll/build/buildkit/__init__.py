"""BuildKit's protocol: the second door to the builder, for buildx, bake, `docker build` and `docker compose build`.

control, gateway            the client's calls on /grpc: Solve, Status, and what a frontend of its own asks
sessions                    our calls on /session: files (filesync), uploads, secrets, the ssh agent, credentials
frontend, client            what the Dockerfile frontend is asked for, and where the builder finds it
jobs, board, failures       one Solve, how it goes as clients show it, and how it fails
export, filesend            where the image goes
messages, grpc              the wire: field numbers in messages.proto, gRPC over atoll.http.http2
"""
