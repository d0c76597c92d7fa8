# Sourced by what runs tests of the kernel, in the root of the repository. It
# installs what they need, builds the API server and says in the array in_userns
# what a test binary has to be run with.
#
# The tests of the kernel make network namespaces. As root they just run; as
# another user they run in a user namespace, and where that is forbidden
# in_userns is empty and userns_forbidden is 1.

say() { printf '==> %s\n' "$*"; }

install_packages() {
  local missing=()
  command -v iptables-nft-restore >/dev/null || missing+=(iptables)
  command -v ipset >/dev/null || missing+=(ipset)
  command -v nft >/dev/null || missing+=(nftables)
  [[ ${#missing[@]} -eq 0 ]] && return
  if [[ $EUID -ne 0 ]]; then
    say "please install: ${missing[*]} (the tests of the kernel need them)"
    exit 1
  fi
  say "installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Debian keeps these programs where other users than root don't look.
export PATH=$PATH:/usr/sbin:/sbin
install_packages

if [[ -z ${KUBEBUILDER_ASSETS:-} ]]; then
  say "building kube-apiserver, kube-proxy, etcd, kubectl and helm, unless they are in the cache"
  KUBEBUILDER_ASSETS=$(hack/cluster.sh build --assets etcd kube-apiserver kube-proxy kubectl helm)
  export KUBEBUILDER_ASSETS
fi

in_userns=()
userns_forbidden=0
if [[ $EUID -ne 0 ]]; then
  userns="unshare --user --map-root-user --net --mount"
  if $userns true 2>/dev/null; then
    export XTABLES_LOCKFILE=${TMPDIR:-/tmp}/moat-test-xtables.lock
    # The API server won't start on a machine without a default route.
    setup="ip link set lo up && ip link add eth0 type veth peer name eth1 && ip addr add 192.0.2.1/24 dev eth0 &&
      ip link set eth0 up && ip route add default dev eth0"
    # shellcheck disable=SC2034,SC2086,SC2206 # The words are meant; the one who sources this uses them.
    in_userns=($userns sh -c "$setup && exec \"\$@\"" sh)
  else
    # shellcheck disable=SC2034 # The one who sources this uses it.
    userns_forbidden=1
  fi
fi
