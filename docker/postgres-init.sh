#!/bin/sh
# Runs once, on an empty volume. Creates two databases, CodexFlow's and LiteLLM's, each with an owner that is not superuser.
set -eu
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    -v cfx_password="$CFX_DB_PASSWORD" -v litellm_password="$LITELLM_DB_PASSWORD" <<'SQL'
CREATE ROLE codexflow LOGIN PASSWORD :'cfx_password';
CREATE DATABASE codexflow OWNER codexflow;
CREATE ROLE litellm LOGIN PASSWORD :'litellm_password';
CREATE DATABASE litellm OWNER litellm;
SQL
