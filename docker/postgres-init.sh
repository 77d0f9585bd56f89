#!/bin/sh
# Runs once, on an empty volume. Creates two databases, CodexFlow's and LiteLLM's, each with an owner that is not superuser,
# and the role that pages run as (row-level security): CodexFlow's user may become it and needs no right to create roles. It may create databases, for `manage.py restore --verify`.
set -eu
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    -v cfx_password="$CFX_DB_PASSWORD" -v litellm_password="$LITELLM_DB_PASSWORD" <<'SQL'
CREATE ROLE codexflow LOGIN CREATEDB PASSWORD :'cfx_password';
CREATE DATABASE codexflow OWNER codexflow;
CREATE ROLE cfx_tenant NOLOGIN;
GRANT cfx_tenant TO codexflow;
CREATE ROLE litellm LOGIN PASSWORD :'litellm_password';
CREATE DATABASE litellm OWNER litellm;
SQL
