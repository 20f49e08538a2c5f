#!/bin/sh
# Fails, and says why, where a story cannot have a network of its own: of one region, or with `regions` of several. To be run
# in fresh namespaces, by `unshare -n -m`, with rules.nft on its standard input; what it makes goes with them.
set -eu
ip link add street type bridge
ip link add door type veth peer name wall
nft -f -
# Over a directory that is there on every machine.
mount -t tmpfs story "$(dirname "$0")"
case "${1:-}" in regions) ip tuntap add dev far mode tun ;; esac
