FROM rust:1-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ make libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked

FROM debian:bookworm-slim
RUN useradd --system --home-dir /data --create-home anteroom
COPY --from=build /src/target/release/anteroom /usr/local/bin/anteroom
USER anteroom
WORKDIR /data
EXPOSE 6379 9121
ENTRYPOINT ["anteroom", "--dir", "/data"]
