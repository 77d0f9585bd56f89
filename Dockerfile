# Production image: web, worker, beat and commands from one build. .dockerignore excludes development services, tests and
# tools.
FROM python:3.13.11-slim-trixie AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements/base.txt /build/base.txt
RUN python -m venv /venv && /venv/bin/pip install --require-hashes -r /build/base.txt

FROM python:3.13.11-slim-trixie
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CFX_ENV=production \
    CFX_HOME=/var/lib/codexflow \
    DJANGO_SETTINGS_MODULE=codexflow.settings \
    HOST=0.0.0.0 \
    PORT=8000
# Fixed ids, so that volumes keep their owner across builds.
RUN groupadd --system --gid 10001 codexflow \
    && useradd --system --uid 10001 --gid codexflow --home-dir /var/lib/codexflow --shell /usr/sbin/nologin codexflow \
    && install -d -o codexflow -g codexflow -m 0700 /var/lib/codexflow
COPY --from=build /venv /venv
WORKDIR /app
COPY . .
# Static files are collected at build time, not at start. The values are used by this command only.
RUN CFX_HOME=/tmp/build DATABASE_URL=postgres://build REDIS_URL=redis://build LITELLM_URL=http://build \
    AUTH_SECRET=used-for-nothing-but-this-one-command HASH_SALT=used-for-nothing-but-that-same-command \
    LITELLM_API_KEY=sk-used-by-no-command \
    python manage.py collectstatic --noinput --verbosity 0 \
    && rm -rf /tmp/build
USER 10001
# The journal, and export files for a day: the only state outside PostgreSQL and Valkey.
VOLUME /var/lib/codexflow
EXPOSE 8000
# The platform's timeout after SIGTERM must be longer than the gateway's shutdown (CFX_DRAIN_GRACE_S).
STOPSIGNAL SIGTERM
ENTRYPOINT ["/app/docker/entrypoint.sh"]
CMD ["web"]
