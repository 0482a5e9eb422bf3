#!/bin/sh
# Draw the secrets that docker-compose.yml mounts, into secrets/ beside it; what is there already stays.
# Containers read them as their own users, so the files are readable and the folder is not.
set -eu
cd "$(dirname "$0")/.."
umask 077
mkdir -p secrets
draw() { od -An -N 24 -t x1 /dev/urandom | tr -d ' \n'; }
if [ ! -e secrets/redis.conf ]; then
  password=$(draw)
  echo "requirepass $password" >secrets/redis.conf
  printf 'redis://:%s@redis:6379/0' "$password" >secrets/store_url
fi
[ -e secrets/log_id_key ] || draw >secrets/log_id_key
[ -e secrets/grafana_password ] || draw >secrets/grafana_password
# The chat's webhooks that Alertmanager writes to. Nobody listens there: put your own addresses in their place.
for severity in now morning; do
  [ -e "secrets/alert_url_$severity" ] || printf 'http://127.0.0.1:9/%s' "$severity" >"secrets/alert_url_$severity"
done
chmod 0444 secrets/*
