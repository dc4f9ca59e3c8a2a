#!/usr/bin/env bash
# Both commands of the README on a machine as fresh as a container can be: a bare Debian in which Docker may run, with
# git, make and Python and nothing else. Nothing is shared with this machine but its network and its added certificates.
#
#   bootstrap/prove.sh [--debian trixie|bookworm] [--own-docker] [--preload] [--user] [--keep] [STEP…]
#
# Steps: quickstart again clean test (all of them, in this order, where none is named). --own-docker puts a Docker Engine
# with a container, an image and a volume of somebody's there first, which must come through; --preload gives that
# engine Perry's images, to spare the build. --user does it as a person who has sudo. --keep leaves the container, and a
# second call with --keep goes on in it with what is committed by then.
set -euo pipefail
cd "$(dirname "$0")/.."

debian=trixie own_docker=0 preload=0 keep=0 as=root steps=()
while (($#)); do
  case $1 in
    --debian) debian=$2 && shift ;;
    --own-docker) own_docker=1 ;;
    --preload) preload=1 ;;
    --user) as=somebody ;;
    --keep) keep=1 ;;
    quickstart | again | clean | test) steps+=("$1") ;;
    *) echo "prove: unknown: $1" >&2 && exit 2 ;;
  esac
  shift
done
((${#steps[@]})) || steps=(quickstart again clean test)
name=perry-prove-$debian
((own_docker)) && name+=-own
[[ $as == root ]] || name+=-user
image=perry-prove/$debian
home=/root
[[ $as == root ]] || home=/home/$as

say() { printf '\n--- %s\n' "$*"; }

# A shell line in the machine, as the person.
there() { docker exec -i -u "$as" -w "${2:-$home}" -e HOME="$home" -e USER="$as" "$name" bash -c "$1" </dev/null; }

make_image() {
  docker image inspect "$image" >/dev/null 2>&1 && return
  say "a bare $debian"
  local packages=git,make,python3,ca-certificates,sudo
  if timeout 30 docker pull -q "debian:$debian-slim" >/dev/null 2>&1; then
    printf 'FROM debian:%s-slim\nRUN apt-get update && apt-get install -y --no-install-recommends %s\n' \
      "$debian" "${packages//,/ }" | docker build -q -t "$image" -
  else
    mmdebstrap --quiet --variant=minbase --include="$packages" "$debian" - | docker import - "$image"
  fi
}

make_machine() {
  if docker inspect "$name" >/dev/null 2>&1; then
    bring_commits
    there "git -C perry fetch -q /var/tmp/perry.bundle main && git -C perry reset -q --hard FETCH_HEAD"
    return
  fi
  make_image
  say "a machine of it: $name, $(git rev-parse --short HEAD)"
  docker volume create "$name" >/dev/null
  # Bash reaps; dockerd's children need that.
  docker run -d --name "$name" --hostname fresh --cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add SYS_PTRACE \
    --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined \
    --device /dev/net/tun -v "$name:/var/lib/docker" "$image" bash -c 'while :; do sleep 1000; done' >/dev/null
  local certificates=/usr/local/share/ca-certificates
  if [[ -d $certificates ]]; then
    tar -C "$certificates" -cf - . | docker exec -i "$name" tar -C "$certificates" -xf -
    docker exec "$name" update-ca-certificates >/dev/null
  fi
  if [[ $as != root ]]; then
    docker exec "$name" useradd -m -s /bin/bash "$as"
    docker exec "$name" sh -c "echo '$as ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/$as"
  fi
  bring_commits
  there "git clone -q -c init.defaultBranch=main -b main /var/tmp/perry.bundle perry"
  ((own_docker)) && install_own_docker
  docker exec "$name" sh -c 'dpkg-query -W -f "\${Package}\n" | sort > /var/tmp/packages.before'
}

bring_commits() { git bundle create -q - HEAD main | docker exec -i "$name" tee /var/tmp/perry.bundle >/dev/null; }

# What somebody had here before: an engine, and something in it.
install_own_docker() {
  say 'a Docker Engine of its own, with a container, an image, a network and a volume'
  docker exec "$name" sh -c 'apt-get update -qq && apt-get install -qq -y --no-install-recommends docker.io iptables iproute2 >/dev/null
    if apt-cache show docker-cli >/dev/null 2>&1; then apt-get install -qq -y --no-install-recommends docker-cli >/dev/null; fi'
  docker exec -d "$name" sh -c 'for c in /sys/fs/cgroup /sys/fs/cgroup/*; do mount -o remount,bind,rw "$c"; done; exec dockerd'
  docker exec "$name" sh -c 'until docker info; do sleep 0.5; done >/dev/null 2>&1
    tar -C / -ch lib64/ld-linux-x86-64.so.2 lib/x86_64-linux-gnu/libc.so.6 usr/bin/sleep | docker import - mine >/dev/null
    docker network create mine >/dev/null; docker volume create mine >/dev/null
    docker run -d --name mine --network mine -v mine:/mine mine /usr/bin/sleep 1000000 >/dev/null'
  if ((preload)); then
    docker save perry/{base,workspace-base,sidecar,headscale,device}:latest | docker exec -i "$name" docker load
  fi
}

check_own_docker() {
  docker exec "$name" sh -c 'docker ps --filter name=^mine$ --format "{{.Names}} {{.Status}}" | grep "mine Up" &&
    docker image inspect mine >/dev/null && docker volume inspect mine >/dev/null && docker network inspect mine >/dev/null'
}

# Nothing may be left of the quickstart.
check_clean() {
  there '[[ ! -e .config/perry && ! -e perry/.build && ! -e perry/.venv && ! -e .cache/uv && ! -e go ]] || {
    ls -A .config/perry perry/.build perry/.venv .cache go; exit 1; }'
  there 'cd perry && git status --short --ignored | grep . && exit 1 || true'
  there '! type -P perry'
  docker exec "$name" sh -c 'dpkg-query -W -f "\${Package}\n" | sort | diff /var/tmp/packages.before - '
  if ((own_docker)); then
    check_own_docker
    docker exec "$name" sh -c '! docker ps -aq --filter label=perry.instance | grep . && ! docker images -q "perry/*" | grep . &&
      ! docker volume ls -q --filter label=perry.instance | grep . && ! iptables-save | grep -i perry'
  else
    docker exec "$name" sh -c '! grep -l dockerd /proc/[0-9]*/comm 2>/dev/null && ! ls -A /var/lib/docker | grep .'
  fi
}

one() {
  local began=$SECONDS
  say "$1"
  case $1 in
    quickstart) there 'make quickstart' "$home/perry" ;;
    again) there 'make quickstart' "$home/perry" ;;
    clean)
      there 'make quickstart-clean' "$home/perry"
      check_clean
      ;;
    test) there 'CI=true bash .ci/run' "$home/perry" ;;
  esac
  say "$1: $((SECONDS - began)) s"
  took+=" $1 $((SECONDS - began)) s;"
}

finish() {
  ((keep)) || { docker rm -f "$name" && docker volume rm "$name"; } >/dev/null 2>&1 || true
}

took=""
trap finish EXIT
make_machine
for step in "${steps[@]}"; do one "$step"; done
say "proved on $debian:$took all well"
