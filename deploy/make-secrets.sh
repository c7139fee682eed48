#!/bin/sh
# Makes the secrets that docker-compose.yml mounts, each a file in deploy/secrets (or in the folder
# given). What is there already stays: remove a file, and those that depend on it, to change it.
#
# The folder is for its owner alone. The files in it can be read by everybody, since Compose mounts
# them as they are, and the containers' users are not this machine's.
set -eu
folder=${1:-$(dirname "$0")/secrets}
umask 077
mkdir -p "$folder"
cd "$folder"
umask 022

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

# A file is whole or not there.
write() { cat > ".$1" && chmod 0444 ".$1" && mv ".$1" "$1"; }

# The plain values, from which the others are made, are mounted nowhere but where they are needed.
for name in postgres_password broker_password store_access_key store_secret_key metrics_key; do
  [ -s "$name" ] || random | write "$name"
done

[ -s database_url ] ||
  printf 'postgresql+psycopg://snugnet:%s@postgres:5432/snugnet' "$(cat postgres_password)" |
  write database_url

[ -s broker_url ] ||
  printf 'redis://snugnet:%s@redis:6379/0' "$(cat broker_password)" | write broker_url

# Only the hash of the password, and no command that could harm the server itself.
[ -s broker_acl ] || {
  printf 'user default off\n'
  printf 'user snugnet on #%s ~* &* +@all -@dangerous +info\n' \
    "$(printf %s "$(cat broker_password)" | sha256sum | cut -d ' ' -f 1)"
} | write broker_acl

[ -s store_credentials ] || {
  printf '[default]\naws_access_key_id = %s\n' "$(cat store_access_key)"
  printf 'aws_secret_access_key = %s\n' "$(cat store_secret_key)"
} | write store_credentials

# An Ed25519 private key in PEM: the fixed head of its encoding, then 32 random bytes.
[ -s signing_key ] || {
  echo '-----BEGIN PRIVATE KEY-----'
  {
    printf '\060\056\002\001\000\060\005\006\003\053\145\160\004\042\004\040'
    head -c 32 /dev/urandom
  } | base64
  echo '-----END PRIVATE KEY-----'
} | write signing_key

[ -s store_config ] ||
  printf '{"identities": [{"name": "snugnet", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}\n' \
    "$(cat store_access_key)" "$(cat store_secret_key)" | write store_config

echo "the secrets are in $(pwd)"
